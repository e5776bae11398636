//! What a schema asks for, in words.

use serde_json::{Map, Value};

use super::shape::{Shape, alternatives, names, refers_to};

/// References followed: a type may contain itself.
const DEEPEST: u8 = 8;

/// The characters of a value that are shown.
const SHOWN: usize = 60;

/// A value as it is shown in an error.
pub(super) fn json(value: &Value) -> String {
    match value {
        Value::Object(_) => "a table".to_owned(),
        other => shortened(&other.to_string()),
    }
}

/// Its beginning, if it is long; nothing that could act on a terminal.
pub(super) fn shortened(text: &str) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(SHOWN).map(printable).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// `an integer 1 to 1000`.
pub(super) fn expected(shape: &Shape<'_>) -> String {
    any_of(shape.heads().iter().flat_map(|head| of(head, shape.document(), DEEPEST)).collect())
}

/// The same; of a number that is merely out of its bounds, the bounds.
pub(super) fn expected_instead_of(found: &Value, shape: &Shape<'_>) -> String {
    if let Value::Number(number) = found
        && let [Value::Object(head)] = shape.heads()
        && let Some(types) = head.get("type")
    {
        let right =
            names(types).iter().any(|name| *name == "number" || *name == "integer" && !number.is_f64());
        if let Some(bounds) = bounds(head).filter(|_| right) {
            return bounds;
        }
    }
    expected(shape)
}

/// Each alternative.
fn of(schema: &Value, document: &Value, depth: u8) -> Vec<String> {
    let anything = || vec!["a value".to_owned()];
    let Value::Object(schema) = schema else { return anything() };
    let Some(depth) = depth.checked_sub(1) else { return anything() };
    if let Some(constant) = schema.get("const") {
        return vec![constant.to_string()];
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().filter(|value| !value.is_null()).map(Value::to_string).collect();
    }
    if let Some(target) = refers_to(schema, document) {
        return of(target, document, depth);
    }
    let alternatives = alternatives(schema);
    if !alternatives.is_empty() {
        return alternatives.into_iter().flat_map(|schema| of(schema, document, depth)).collect();
    }
    if let Some(all) = schema.get("allOf").and_then(|all| all.get(0)) {
        return of(all, document, depth);
    }
    let types = schema.get("type").map(names).unwrap_or_default();
    let words: Vec<_> = types.iter().filter_map(|name| of_type(name, schema, document, depth)).collect();
    if words.is_empty() { anything() } else { words }
}

fn of_type(name: &str, schema: &Map<String, Value>, document: &Value, depth: u8) -> Option<String> {
    let number = |key: &str| schema.get(key).and_then(Value::as_u64);
    Some(match name {
        "integer" | "number" => {
            let what = if name == "integer" { "an integer" } else { "a number" };
            match bounds(schema) {
                Some(bounds) if bounds.contains(" to ") => format!("{what} {bounds}"),
                Some(bounds) => format!("{what}, {bounds}"),
                None => what.to_owned(),
            }
        }
        "string" => {
            let length = of_count(number("minLength"), number("maxLength"), "character");
            let pattern = schema.get("pattern").and_then(Value::as_str);
            let format = schema.get("format").and_then(Value::as_str);
            let pattern = pattern.map(|pattern| format!(" that matches {}", shortened(pattern)));
            let format = format.map(|format| format!(" (format {format})"));
            format!("a string{length}{}{}", pattern.unwrap_or_default(), format.unwrap_or_default())
        }
        "array" => {
            let count = of_count(number("minItems"), number("maxItems"), "element");
            let each = schema.get("items").filter(|items| items.is_object());
            let each = each.map(|items| format!(", each {}", any_of(of(items, document, depth))));
            format!("an array{count}{}", each.unwrap_or_default())
        }
        "object" => {
            let required = schema.get("required").map(names).unwrap_or_default();
            if required.is_empty() {
                "a table".to_owned()
            } else {
                format!("a table with {}", required.join(", "))
            }
        }
        "boolean" => "true or false".to_owned(),
        // `null` can't be written in a file.
        _ => return None,
    })
}

/// ` of 1 to 10 characters`, or nothing.
fn of_count(least: Option<u64>, most: Option<u64>, what: &str) -> String {
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    match (least.filter(|least| *least > 0), most) {
        (None, None) => String::new(),
        (Some(least), None) => format!(" of at least {least} {what}{}", plural(least)),
        (None, Some(most)) => format!(" of at most {most} {what}{}", plural(most)),
        (Some(least), Some(most)) if least == most => format!(" of {most} {what}{}", plural(most)),
        (Some(least), Some(most)) => format!(" of {least} to {most} {what}s"),
    }
}

/// `1 to 1000`, `at least 1`, `above 0 and below 1`.
fn bounds(schema: &Map<String, Value>) -> Option<String> {
    let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number());
    if let (Some(least), Some(most)) = (bound("minimum"), bound("maximum")) {
        return Some(format!("{least} to {most}"));
    }
    let lower = match (bound("minimum"), bound("exclusiveMinimum")) {
        (Some(least), _) => Some(format!("at least {least}")),
        (None, Some(below)) => Some(format!("above {below}")),
        (None, None) => None,
    };
    let upper = match (bound("maximum"), bound("exclusiveMaximum")) {
        (Some(most), _) => Some(format!("at most {most}")),
        (None, Some(above)) => Some(format!("below {above}")),
        (None, None) => None,
    };
    match (lower, upper) {
        (Some(lower), Some(upper)) => Some(format!("{lower} and {upper}")),
        (one, other) => one.or(other),
    }
}

/// `a, b or c`, each once.
pub(super) fn any_of(words: Vec<String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for word in words {
        if !distinct.contains(&word) {
            distinct.push(word);
        }
    }
    match distinct.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}
