//! Names of single settings, and what an operator set over the file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema::Invalid;

/// Tables in tables in tables: a schema goes no deeper, and neither does the stack of whoever reads the value.
const DEEPEST: usize = 32;

/// Which setting: keys joined by dots, `filter.level`; in an array the position, from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SettingPath(Vec<String>);

/// Why a text names no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingPathError {
    /// Nothing, or nothing between two dots.
    #[error("`{path}` names no setting; expected keys joined by dots, like `filter.level`")]
    Empty {
        /// As given.
        path: String,
    },
    /// Deeper than any settings are.
    #[error("a setting lies at most {DEEPEST} tables deep")]
    Deep,
}

impl SettingPath {
    /// The settings as a whole; no operator can name it.
    pub(super) const WHOLE: Self = Self(Vec::new());

    /// What lies within.
    pub(super) fn join(&self, key: &str) -> Self {
        Self(self.0.iter().map(String::as_str).chain([key]).map(str::to_owned).collect())
    }

    /// This one, then each that it lies in, the whole last.
    pub(super) fn outward(&self) -> impl Iterator<Item = Self> {
        (0..=self.0.len()).rev().map(|length| Self(self.0[..length].to_vec()))
    }

    /// As a JSON pointer, which is unmistakable also where a key holds a dot.
    pub fn pointer(&self) -> String {
        self.0.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect()
    }

    /// Its keys, from the outside in.
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    fn is_within(&self, outer: &Self) -> bool {
        self.0.starts_with(&outer.0)
    }
}

impl FromStr for SettingPath {
    type Err = SettingPathError;

    fn from_str(text: &str) -> Result<Self, SettingPathError> {
        let keys: Vec<String> = text.split('.').take(DEEPEST + 1).map(str::to_owned).collect();
        if keys.len() > DEEPEST {
            return Err(SettingPathError::Deep);
        }
        if keys.iter().any(String::is_empty) {
            return Err(SettingPathError::Empty { path: text.to_owned() });
        }
        Ok(Self(keys))
    }
}

impl TryFrom<String> for SettingPath {
    type Error = SettingPathError;

    fn try_from(text: String) -> Result<Self, SettingPathError> {
        text.parse()
    }
}

impl From<SettingPath> for String {
    fn from(path: SettingPath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for SettingPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { out.write_str("settings") } else { out.write_str(&self.0.join(".")) }
    }
}

/// What an operator set over the file. A value under a path stands above what the file has there, and above a
/// value set for a table around it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(BTreeMap<SettingPath, Value>);

impl Overrides {
    /// Sets one setting. What was set within it is forgotten.
    pub fn set(&mut self, path: SettingPath, value: Value) {
        self.0.retain(|other, _| !other.is_within(&path));
        self.0.insert(path, value);
    }

    /// Back to the file, with all that was set within it. `false` when nothing was.
    pub fn unset(&mut self, path: &SettingPath) -> bool {
        let before = self.0.len();
        self.0.retain(|other, _| !other.is_within(path));
        self.0.len() != before
    }

    /// What is set, outer before inner.
    pub fn iter(&self) -> impl Iterator<Item = (&SettingPath, &Value)> {
        self.0.iter()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file's values with these above them.
    ///
    /// # Errors
    /// [`Invalid::NoTable`] when a path leads through a value that has nothing inside.
    pub fn over(&self, file: &Map<String, Value>) -> Result<Map<String, Value>, Invalid> {
        // An outer path sorts before those within it: the inner one is written into the outer's value.
        self.0.iter().try_fold(file.clone(), |mut values, (path, value)| {
            put(&mut values, path, value.clone())?;
            Ok(values)
        })
    }
}

fn put(values: &mut Map<String, Value>, path: &SettingPath, value: Value) -> Result<(), Invalid> {
    let (last, outer) = path.0.split_last().expect("a path has at least one key");
    let no_table =
        |depth: usize| Invalid::NoTable { path: path.clone(), outer: SettingPath(path.0[..depth].to_vec()) };
    let Some((first, outer)) = outer.split_first() else {
        values.insert(last.clone(), value);
        return Ok(());
    };
    let new_table = || Value::Object(Map::new());
    let mut inner = values.entry(first.clone()).or_insert_with(new_table);
    for (depth, key) in outer.iter().enumerate() {
        inner = match inner {
            Value::Object(table) => table.entry(key.clone()).or_insert_with(new_table),
            other => element(other, key).ok_or_else(|| no_table(depth + 1))?,
        };
    }
    match inner {
        Value::Object(table) => {
            table.insert(last.clone(), value);
        }
        // An optional table that is not there is one that can be filled.
        null @ Value::Null => *null = Value::Object(Map::from_iter([(last.clone(), value)])),
        other => *element(other, last).ok_or_else(|| no_table(outer.len() + 1))? = value,
    }
    Ok(())
}

fn element<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    value.as_array_mut()?.get_mut(key.parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> SettingPath {
        text.parse().unwrap()
    }

    fn over(file: &Value, overrides: &Overrides) -> Value {
        Value::Object(overrides.over(file.as_object().unwrap()).unwrap())
    }

    #[test]
    fn what_is_set_stands_above_the_file_until_it_is_unset() {
        let file = json!({ "step": 2, "filter": { "level": "info", "color": true } });
        let mut overrides = Overrides::default();
        overrides.set(path("filter.level"), json!("debug"));
        overrides.set(path("output.file"), json!("x"));
        assert_eq!(
            over(&file, &overrides),
            json!({ "step": 2, "filter": { "level": "debug", "color": true }, "output": { "file": "x" } })
        );
        assert!(overrides.unset(&path("filter")));
        assert!(!overrides.unset(&path("step")));
        assert!(overrides.unset(&path("output.file")));
        assert_eq!(over(&file, &overrides), file);
    }

    #[test]
    fn a_whole_table_replaces_what_was_set_within_it_and_can_be_changed_again() {
        let mut overrides = Overrides::default();
        overrides.set(path("a.b.c"), json!(1));
        overrides.set(path("a"), json!({ "b": null, "list": [1, 2] }));
        overrides.set(path("a.b.d"), json!(2));
        overrides.set(path("a.list.1"), json!(3));
        assert_eq!(over(&json!({}), &overrides), json!({ "a": { "b": { "d": 2 }, "list": [1, 3] } }));
    }

    #[test]
    fn a_path_through_a_plain_value_is_refused() {
        let mut overrides = Overrides::default();
        overrides.set(path("step.size"), json!(1));
        let refused = overrides.over(json!({ "step": 2 }).as_object().unwrap()).unwrap_err();
        insta::assert_snapshot!(refused, @"");
        let mut overrides = Overrides::default();
        overrides.set(path("list.7"), json!(1));
        assert!(overrides.over(json!({ "list": [1] }).as_object().unwrap()).is_err());
    }

    #[test]
    fn a_path_is_keys_joined_by_dots() {
        assert_eq!(path("a.b").keys(), ["a", "b"]);
        for bad in ["", ".", "a.", "a..b"] {
            assert!(matches!(bad.parse::<SettingPath>(), Err(SettingPathError::Empty { .. })), "{bad}");
        }
        assert_eq!("a.".repeat(100_000).parse::<SettingPath>(), Err(SettingPathError::Deep));
    }
}
