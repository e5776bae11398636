//! The values of settings: what the file says, and what was set over it, key by key.

mod difference;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use watchdog_protocol::Revision;

pub use self::difference::Difference;
pub(crate) use self::difference::{changes_towards, differences};

/// A table of settings. Stored as JSON text, so that any format can hold it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values(Map<String, Value>);

impl Values {
    /// As read from the configuration.
    pub fn new(values: Map<String, Value>) -> Self {
        Self(values)
    }

    /// The table.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// One value.
    pub fn get(&self, path: &SettingPath) -> Option<&Value> {
        let (first, rest) = path.0.split_first()?;
        rest.iter().try_fold(self.0.get(first)?, |value, key| value.as_object()?.get(key))
    }

    /// As delivered to the service.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// As a schema sees it.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// All values that are no tables with something in them, in order.
    pub fn leaves(&self) -> Vec<(SettingPath, &Value)> {
        fn collect<'v>(
            table: &'v Map<String, Value>,
            at: &SettingPath,
            into: &mut Vec<(SettingPath, &'v Value)>,
        ) {
            for (key, value) in table {
                match value {
                    Value::Object(inner) if !inner.is_empty() => collect(inner, &at.join(key), into),
                    leaf => into.push((at.join(key), leaf)),
                }
            }
        }
        let mut leaves = Vec::new();
        collect(&self.0, &SettingPath(Vec::new()), &mut leaves);
        leaves
    }

    /// Takes these, which have what `difference` leads to, back to what it came from.
    pub(crate) fn undo(&mut self, difference: &Difference) {
        const LOOKED_INTO: &str = "a difference lies in tables that are there before and after it";
        let Some((last, way)) = difference.path.0.split_last() else { return };
        let mut table = &mut self.0;
        for key in way {
            table = table.get_mut(key).and_then(Value::as_object_mut).expect(LOOKED_INTO);
        }
        match &difference.before {
            Some(value) => drop(table.insert(last.clone(), value.clone())),
            // The others keep their order.
            None => drop(table.shift_remove(last)),
        }
    }

    /// Puts one value in, making the tables on its way.
    fn put(&mut self, path: &SettingPath, value: &Value) -> Result<(), PathError> {
        let Some((last, way)) = path.0.split_last() else { return Ok(()) };
        let mut table = &mut self.0;
        for (depth, key) in way.iter().enumerate() {
            let next = table.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = next else {
                return Err(PathError::NoTable {
                    path: path.clone(),
                    at: SettingPath(path.0[..=depth].to_vec()),
                });
            };
            table = next;
        }
        table.insert(last.clone(), value.clone());
        Ok(())
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.to_json())
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Keys joined by dots: `filter.level`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingPath(Vec<String>);

/// What is wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing before, behind or between two dots.
    #[error("`{text}` is no settings key; expected names joined by dots, for example `filter.level`")]
    Empty {
        /// As given.
        text: String,
    },
    /// Something on the way is a value, not a table.
    #[error("`{path}` can't be set: `{at}` is a value, not a table")]
    NoTable {
        /// The key.
        path: SettingPath,
        /// The part of it that is a value.
        at: SettingPath,
    },
    /// Nothing was set there.
    #[error("`{path}` can't be unset: what is in force comes from the file")]
    NotSet {
        /// The key.
        path: SettingPath,
    },
}

impl SettingPath {
    /// Its keys, from the outside in.
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    fn join(&self, key: &str) -> Self {
        Self(self.0.iter().map(String::as_str).chain([key]).map(str::to_owned).collect())
    }
}

impl FromStr for SettingPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let keys: Vec<_> = text.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err(PathError::Empty { text: text.to_owned() });
        }
        Ok(Self(keys))
    }
}

impl fmt::Display for SettingPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("."))
    }
}

impl Serialize for SettingPath {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SettingPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One key of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub path: SettingPath,
    /// The new value; `None`: back to the file.
    #[serde(with = "text")]
    pub value: Option<Value>,
}

/// What was set over the file. A key set within a table that was itself set changes that table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides(BTreeMap<SettingPath, Override>);

#[derive(Debug, Clone, PartialEq)]
struct Override {
    value: Value,
    /// [`Revision::NONE`] when a build set it that did not note this.
    since: Revision,
}

impl Overrides {
    /// The keys, in order.
    pub fn paths(&self) -> impl Iterator<Item = &SettingPath> {
        self.0.keys()
    }

    /// Whether the value there, or one around it or in it, was set.
    pub fn touch(&self, path: &SettingPath) -> bool {
        self.0.keys().any(|set| set.is_within(path) || path.is_within(set))
    }

    /// The revision that set this value, or the table it lies in; [`Revision::NONE`] when that is not known.
    pub(crate) fn since(&self, path: &SettingPath) -> Option<Revision> {
        let around = (1..=path.0.len()).rev().map(|length| SettingPath(path.0[..length].to_vec()));
        around.filter_map(|path| self.0.get(&path)).map(|set| set.since).next()
    }

    /// With these changes too, in their order, as this revision makes them.
    ///
    /// # Errors
    /// [`PathError::NotSet`] when a key is to go back to the file and was never set.
    pub(crate) fn with(&self, changes: &[Change], revision: Revision) -> Result<Self, PathError> {
        let mut changed = self.clone();
        for Change { path, value } in changes {
            let before = changed.0.len();
            // A table that is set, or goes back to the file, does so with all that is in it.
            changed.0.retain(|set, _| !set.is_within(path));
            match value {
                Some(value) => {
                    drop(changed.0.insert(path.clone(), Override { value: value.clone(), since: revision }));
                }
                None if changed.0.len() == before => return Err(PathError::NotSet { path: path.clone() }),
                None => {}
            }
        }
        Ok(changed)
    }

    /// With these values and no others. What was set before and is the same was set then.
    pub(crate) fn only(&self, changes: &[Change], revision: Revision) -> Self {
        let set = changes.iter().filter_map(|Change { path, value }| {
            let value = value.clone()?;
            let same = self.0.get(path).filter(|set| set.value == value);
            let since = same.map_or(revision, |set| set.since);
            Some((path.clone(), Override { value, since }))
        });
        Self(set.collect())
    }

    /// What is in force over these values of a file.
    ///
    /// # Errors
    /// [`PathError::NoTable`] when a key leads through a value.
    pub(crate) fn over(&self, file: &Values) -> Result<Values, PathError> {
        let mut values = file.clone();
        // In their order a table comes before what is in it.
        for (path, set) in &self.0 {
            values.put(path, &set.value)?;
        }
        Ok(values)
    }
}

impl Serialize for Overrides {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.0.iter().map(|(path, set)| (path, set.value.to_string(), set.since)))
    }
}

impl<'de> Deserialize<'de> for Overrides {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            Since(SettingPath, String, Revision),
            /// By a build that did not note when.
            Once(SettingPath, String),
        }
        let stored = Vec::<Stored>::deserialize(from)?.into_iter().map(|stored| {
            let (path, text, since) = match stored {
                Stored::Since(path, text, since) => (path, text, since),
                Stored::Once(path, text) => (path, text, Revision::NONE),
            };
            let value = serde_json::from_str(&text).map_err(serde::de::Error::custom)?;
            Ok((path, Override { value, since }))
        });
        stored.collect::<Result<_, _>>().map(Self)
    }
}

/// A JSON value as text: formats that do not describe themselves can't hold one.
mod text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Option<Value>, out: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Value::to_string).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| serde_json::from_str(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> SettingPath {
        text.parse().unwrap()
    }

    fn values(value: Value) -> Values {
        let Value::Object(map) = value else { panic!("no table") };
        Values::new(map)
    }

    fn set(at: &str, value: Value) -> Change {
        Change { path: path(at), value: Some(value) }
    }

    fn unset(at: &str) -> Change {
        Change { path: path(at), value: None }
    }

    #[test]
    fn a_path_is_names_joined_by_dots() {
        assert_eq!(path("a.b").to_string(), "a.b");
        for bad in ["", ".", "a.", ".a", "a..b"] {
            assert!(bad.parse::<SettingPath>().is_err(), "{bad}");
        }
    }

    fn with(overrides: &Overrides, changes: &[Change]) -> Result<Overrides, PathError> {
        overrides.with(changes, Revision::FIRST)
    }

    #[test]
    fn what_is_set_lies_over_the_file_and_unset_goes_back_to_it() {
        let file = values(json!({"step": 1, "filter": {"level": "info", "target": "all"}}));
        let set_both =
            [set("step", json!(2)), set("filter.level", json!("debug")), set("new.deep.key", json!([1]))];
        let overrides = with(&Overrides::default(), &set_both).unwrap();
        let expected = json!({
            "step": 2, "filter": {"level": "debug", "target": "all"}, "new": {"deep": {"key": [1]}}
        });
        assert_eq!(overrides.over(&file).unwrap(), values(expected));
        let back = with(&overrides, &[unset("step"), unset("filter"), unset("new.deep.key")]).unwrap();
        assert_eq!(back.over(&file).unwrap(), file);
        assert_eq!(with(&back, &[unset("step")]), Err(PathError::NotSet { path: path("step") }));
    }

    #[test]
    fn a_table_that_is_set_replaces_what_was_set_in_it_and_can_then_be_changed_within() {
        let changes = [set("a.b", json!(1)), set("a", json!({"c": 2})), set("a.d", json!(3))];
        let overrides = with(&Overrides::default(), &changes).unwrap();
        assert_eq!(overrides.over(&Values::default()).unwrap(), values(json!({"a": {"c": 2, "d": 3}})));
        assert!(overrides.touch(&path("a.c")) && overrides.touch(&path("a")) && !overrides.touch(&path("b")));
    }

    #[test]
    fn a_value_is_no_table() {
        let overrides = with(&Overrides::default(), &[set("step.size", json!(1))]).unwrap();
        let refused = overrides.over(&values(json!({"step": 1}))).unwrap_err();
        assert_eq!(refused.to_string(), "`step.size` can't be set: `step` is a value, not a table");
    }

    #[test]
    fn what_is_stored_is_found_again() {
        let change = set("a.b", json!({"x": [1, null, "text", 1.5]}));
        let overrides = with(&Overrides::default(), std::slice::from_ref(&change)).unwrap();
        let (values, none) = (overrides.over(&Values::default()).unwrap(), unset("a"));
        let stored = serde_json::to_vec(&(&change, &none, &overrides, &values)).unwrap();
        let found: (Change, Change, Overrides, Values) = serde_json::from_slice(&stored).unwrap();
        assert_eq!(found, (change, none, overrides, values));
    }

    #[test]
    fn a_value_was_set_by_the_revision_that_set_it_or_the_table_around_it() {
        let revision = Revision::from_stored;
        let overrides = Overrides::default()
            .with(&[set("a", json!({"c": 2})), set("b", json!(1))], revision(3))
            .and_then(|overrides| overrides.with(&[set("a.d", json!(3))], revision(5)))
            .unwrap();
        let since = |overrides: &Overrides, at: &str| overrides.since(&path(at)).map(Revision::get);
        assert_eq!(
            ["a.c", "a.d", "b", "c"].map(|at| since(&overrides, at)),
            [Some(3), Some(5), Some(3), None]
        );
        let back = overrides.only(&[set("a.d", json!(4)), set("b", json!(1))], revision(9));
        assert_eq!(["a.c", "a.d", "b"].map(|at| since(&back, at)), [None, Some(9), Some(3)]);
    }

    #[test]
    fn what_a_build_stored_that_did_not_note_when_it_was_set_is_found() {
        let overrides: Overrides = serde_json::from_str(r#"[["a.b","5"]]"#).unwrap();
        assert_eq!(overrides, Overrides::default().with(&[set("a.b", json!(5))], Revision::NONE).unwrap());
    }
}
