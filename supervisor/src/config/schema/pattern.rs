//! The patterns by which a schema speaks of keys.

use std::collections::HashMap;

use regex::Regex;
use serde_json::Value;

/// Those of a whole document that are understood.
#[derive(Debug, Default)]
pub(super) struct Patterns(HashMap<String, Regex>);

impl Patterns {
    pub(super) fn of(document: &Value) -> Self {
        let mut patterns = Self::default();
        patterns.collect(document);
        patterns
    }

    fn collect(&mut self, schema: &Value) {
        if let Some(Value::Object(by_pattern)) = schema.get("patternProperties") {
            self.0.extend(by_pattern.keys().filter_map(|text| Some((text.clone(), Regex::new(text).ok()?))));
        }
        match schema {
            Value::Object(table) => table.values().for_each(|inner| self.collect(inner)),
            Value::Array(elements) => elements.iter().for_each(|inner| self.collect(inner)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Whether a key matches. One that is not understood may say something of every key: a schema's patterns are those of
    /// another language, and some of it has no counterpart here.
    pub(super) fn matches(&self, pattern: &str, key: &str) -> bool {
        self.0.get(pattern).is_none_or(|pattern| pattern.is_match(key))
    }
}
