//! What a JSON Schema says of one value, wherever in the schema it says it.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{Compiled, Invalid};
use crate::config::setting::SettingPath;

/// All schemas that speak of one value: the one in its place, what that refers to, and the alternatives it lists.
#[derive(Debug, Clone)]
pub(super) struct Shape<'s> {
    whole: &'s Compiled,
    /// The ones in its place.
    heads: Vec<&'s Value>,
    parts: Vec<Part<'s>>,
    /// One of them is `true`, or takes any key.
    anything: bool,
    /// One of them says something elsewhere than we can look.
    refers_elsewhere: bool,
}

#[derive(Debug, Clone, Copy)]
struct Part<'s> {
    schema: &'s Map<String, Value>,
    /// No alternative: it applies whatever the value is, `null` apart.
    sure: bool,
}

impl<'s> Shape<'s> {
    pub(super) fn of(whole: &'s Compiled) -> Self {
        let mut shape = Self::nothing(whole);
        shape.take(&whole.json, true);
        shape
    }

    fn nothing(whole: &'s Compiled) -> Self {
        Self { whole, heads: Vec::new(), parts: Vec::new(), anything: false, refers_elsewhere: false }
    }

    fn take(&mut self, head: &'s Value, sure: bool) {
        self.heads.push(head);
        self.collect(head, sure);
    }

    fn collect(&mut self, schema: &'s Value, sure: bool) {
        let Value::Object(schema) = schema else {
            self.anything |= *schema == Value::Bool(true);
            return;
        };
        // A type that contains itself refers to itself.
        if self.parts.iter().any(|part| std::ptr::eq(part.schema, schema)) {
            return;
        }
        self.parts.push(Part { schema, sure });
        self.refers_elsewhere |= refers_elsewhere(schema, &self.whole.json);
        if let Some(target) = refers_to(schema, &self.whole.json) {
            self.collect(target, sure);
        }
        for all in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect(all, sure);
        }
        let alternatives = alternatives(schema);
        for alternative in &alternatives {
            self.collect(alternative, sure && alternatives.len() == 1);
        }
    }

    pub(super) fn document(&self) -> &'s Value {
        &self.whole.json
    }

    /// Whether some of what is said of it is not known.
    pub(super) fn refers_elsewhere(&self) -> bool {
        self.refers_elsewhere
    }

    /// All that speak of it.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &'s Map<String, Value>> {
        self.parts.iter().map(|part| part.schema)
    }

    pub(super) fn heads(&self) -> &[&'s Value] {
        &self.heads
    }

    /// No schema speaks of such a value: there is no such key.
    pub(super) fn is_nothing(&self) -> bool {
        self.heads.is_empty() && !self.anything
    }

    /// No schema says anything of the value.
    pub(super) fn is_anything(&self) -> bool {
        const SAYS: [&str; 4] = ["type", "enum", "const", "properties"];
        !self.is_nothing()
            && !self.parts.iter().any(|part| SAYS.iter().any(|key| part.schema.contains_key(*key)))
    }

    /// Whether a value of this type may be right.
    pub(super) fn takes(&self, value: &Value) -> bool {
        let of_the_type = |other: &Value| std::mem::discriminant(other) == std::mem::discriminant(value);
        self.parts.iter().any(|part| {
            let types = part.schema.get("type").map(|types| names(types));
            types.is_some_and(|types| types.iter().any(|name| is_a(value, name)))
                || part.schema.get("const").is_some_and(of_the_type)
                || part
                    .schema
                    .get("enum")
                    .and_then(Value::as_array)
                    .is_some_and(|all| all.iter().any(of_the_type))
        })
    }

    /// The keys that the schemas list.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for key in self.parts.iter().filter_map(|part| properties(part.schema)).flat_map(Map::keys) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }

    /// What is said of the value under a key, or of an element.
    pub(super) fn inner(&self, key: &str) -> Self {
        let mut inner = Self::nothing(self.whole);
        for part in &self.parts {
            let listed = properties(part.schema).and_then(|listed| listed.get(key));
            let matched = table(part.schema, "patternProperties").into_iter().flatten();
            let matched = matched.filter(|(pattern, _)| self.whole.patterns.matches(pattern, key));
            for schema in listed.into_iter().chain(matched.map(|(_, schema)| schema)) {
                inner.take(schema, part.sure);
            }
        }
        if !inner.heads.is_empty() {
            return inner;
        }
        let position = key.parse::<usize>().ok();
        for part in &self.parts {
            match part.schema.get("additionalProperties") {
                Some(Value::Bool(true)) => inner.anything = true,
                Some(schema @ Value::Object(_)) => inner.take(schema, part.sure),
                None if properties(part.schema).is_none() && is_object(part.schema) => inner.anything = true,
                _ => {}
            }
            if let Some(schema @ Value::Object(_)) = part.schema.get("unevaluatedProperties") {
                inner.take(schema, part.sure);
            }
            let Some(position) = position else { continue };
            let at_its_place = part.schema.get("prefixItems").and_then(|items| items.get(position));
            if let Some(schema) = at_its_place.or_else(|| part.schema.get("items")) {
                inner.take(schema, part.sure);
            }
        }
        inner.anything |= self.is_anything();
        inner
    }

    /// Puts the defaults where the value has nothing.
    pub(super) fn fill(&self, value: &mut Value) {
        // It stands for a value that is not there yet.
        if self.reference(value).is_some() {
            return;
        }
        match value {
            Value::Object(table) => {
                for (key, value) in table.iter_mut() {
                    self.inner(key).fill(value);
                }
                let sure = self.parts.iter().filter(|part| part.sure);
                for (key, schema) in sure.filter_map(|part| properties(part.schema)).flatten() {
                    if let (None, Some(default)) = (table.get(key), schema.get("default")) {
                        table.insert(key.clone(), default.clone());
                    }
                }
            }
            Value::Array(elements) => {
                for (at, element) in elements.iter_mut().enumerate() {
                    self.inner(&at.to_string()).fill(element);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The keys that no schema lists, where all keys are listed. A settings type that lets unknown keys pass does
    /// it by default and not by intent: to whoever mistypes one it must not look like it worked.
    pub(super) fn unknown(&self, value: &Value, path: &SettingPath, found: &mut Vec<Invalid>) {
        match value {
            Value::Object(table) => {
                let known = self.keys();
                for (key, value) in table {
                    if self.is_closed() && !known.contains(key) {
                        found.push(Invalid::Unknown { path: path.join(key), known: known.clone() });
                    } else {
                        self.inner(key).unknown(value, &path.join(key), found);
                    }
                }
            }
            Value::Array(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    let at = at.to_string();
                    self.inner(&at).unknown(element, &path.join(&at), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Whether its keys are exactly the listed ones.
    fn is_closed(&self) -> bool {
        let open = |part: &Part<'_>| {
            ["additionalProperties", "unevaluatedProperties", "patternProperties"]
                .iter()
                .any(|key| part.schema.get(*key).is_some_and(|schema| *schema != Value::Bool(false)))
        };
        let lists = |part: &Part<'_>| properties(part.schema).is_some();
        !self.anything && self.parts.iter().any(lists) && !self.parts.iter().any(open)
    }
}

fn properties(schema: &Map<String, Value>) -> Option<&Map<String, Value>> {
    table(schema, "properties")
}

fn table<'s>(schema: &'s Map<String, Value>, key: &str) -> Option<&'s Map<String, Value>> {
    schema.get(key)?.as_object()
}

fn is_object(schema: &Map<String, Value>) -> bool {
    schema.get("type").is_some_and(|types| names(types).contains(&"object"))
}

/// The names in `type`, which is one or a list.
pub(super) fn names(types: &Value) -> Vec<&str> {
    match types {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || name == "integer" && !number.is_f64(),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

/// Only within the document: there is nothing else to look in.
pub(super) fn refers_to<'s>(schema: &Map<String, Value>, document: &'s Value) -> Option<&'s Value> {
    let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
    document.pointer(&percent_decode_str(pointer).decode_utf8().ok()?)
}

/// Whether it refers to what [`refers_to`] does not find: an anchor, another document.
pub(super) fn refers_elsewhere(schema: &Map<String, Value>, document: &Value) -> bool {
    let refers = |key: &str| schema.get(key).is_some_and(Value::is_string);
    refers("$dynamicRef") || refers("$ref") && refers_to(schema, document).is_none()
}

/// What a value may be instead, but for `null`, which no file can say.
pub(super) fn alternatives(schema: &Map<String, Value>) -> Vec<&Value> {
    let lists = ["anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
    lists.flatten().filter(|schema| schema.get("type") != Some(&Value::from("null"))).collect()
}
