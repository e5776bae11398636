//! What two tables differ in, said so that it can be undone; and what has to be set over one to get another.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Change, SettingPath, Values, text};

/// One value that two tables do not share. Tables that both have are looked into, so it is as small as can be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Where. Stored as a list of keys: a key of the file may have a dot in it.
    #[serde(with = "keys")]
    pub path: SettingPath,
    /// What the first has there; `None`: nothing, so that the schema's default holds.
    #[serde(with = "text")]
    pub before: Option<Value>,
    /// What the second has there.
    #[serde(with = "text")]
    pub after: Option<Value>,
}

impl Difference {
    /// Bytes of both values as JSON text.
    pub(crate) fn length(&self) -> usize {
        self.before.iter().chain(&self.after).map(|value| value.to_string().len()).sum()
    }
}

/// What leads from one table to the other.
pub(crate) fn differences(before: &Values, after: &Values) -> Vec<Difference> {
    let mut found = Vec::new();
    collect(&before.0, &after.0, &SettingPath(Vec::new()), &mut found);
    found
}

fn collect(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    at: &SettingPath,
    into: &mut Vec<Difference>,
) {
    let new = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(new) {
        match (before.get(key), after.get(key)) {
            (one, other) if one == other => {}
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                collect(one, other, &at.join(key), into);
            }
            (one, other) => {
                into.push(Difference { path: at.join(key), before: one.cloned(), after: other.cloned() });
            }
        }
    }
}

/// The fewest values to set over `from` so that it is `to`.
///
/// # Errors
/// The path of a value that setting can't bring there: `from` has it and `to` does not, and nothing is ever taken
/// out of the table of a file; or no path names it.
pub(crate) fn changes_towards(
    from: &Map<String, Value>,
    to: &Map<String, Value>,
) -> Result<Vec<Change>, SettingPath> {
    steps(from, to, &SettingPath(Vec::new()))
}

fn steps(
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    at: &SettingPath,
) -> Result<Vec<Change>, SettingPath> {
    if let Some(left) = from.keys().find(|key| !to.contains_key(*key)) {
        return Err(at.join(left));
    }
    let mut changes = Vec::new();
    for (key, value) in to.iter().filter(|(key, value)| from.get(*key) != Some(*value)) {
        let path = at.join(key);
        if key.is_empty() || key.contains('.') {
            return Err(path);
        }
        let inner = match (from.get(key), value) {
            (Some(Value::Object(from)), Value::Object(to)) => steps(from, to, &path).ok(),
            _ => None,
        };
        // A table that can't be led there key by key is set as a whole.
        changes.extend(inner.unwrap_or_else(|| vec![Change { path, value: Some(value.clone()) }]));
    }
    Ok(changes)
}

mod keys {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::SettingPath;

    pub(super) fn serialize<S: Serializer>(path: &SettingPath, out: S) -> Result<S::Ok, S::Error> {
        path.0.serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SettingPath, D::Error> {
        Vec::deserialize(from).map(SettingPath)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::values::Overrides;

    fn values(value: &Value) -> Values {
        Values::new(value.as_object().unwrap().clone())
    }

    fn tables() -> Vec<Value> {
        vec![
            json!({}),
            json!({"step": 1}),
            json!({"step": 2, "filter": {"level": "info"}}),
            json!({"step": 2, "filter": {"level": "debug", "hosts": ["a"]}}),
            json!({"filter": {}, "example.com": {"a.b": 1, "": 2}}),
            json!({"filter": {"deep": {"er": null}}, "example.com": {"a.b": 2}}),
            json!({"filter": "a text", "step": {"size": 1}}),
        ]
    }

    #[test]
    fn what_differs_leads_back_when_it_is_undone_whatever_the_keys_are() {
        for (one, other) in
            tables().iter().flat_map(|one| tables().into_iter().map(move |other| (one, other)))
        {
            let (one, other) = (values(one), values(&other));
            let found = differences(&one, &other);
            assert_eq!(found.is_empty(), one == other);
            let stored = serde_json::to_string(&found).unwrap();
            let found: Vec<Difference> = serde_json::from_str(&stored).unwrap();
            let mut back = other;
            found.iter().for_each(|difference| back.undo(difference));
            assert_eq!(back, one);
        }
    }

    #[test]
    fn a_difference_is_one_value_not_the_table_around_it() {
        let (one, other) = (&tables()[2], &tables()[3]);
        let found = differences(&values(one), &values(other));
        let said: Vec<_> = found.iter().map(|one| (one.path.to_string(), &one.before, &one.after)).collect();
        let (info, debug, hosts) = (Some(json!("info")), Some(json!("debug")), Some(json!(["a"])));
        assert_eq!(said, [("filter.level".into(), &info, &debug), ("filter.hosts".into(), &None, &hosts)]);
    }

    #[test]
    fn what_is_set_to_get_there_is_as_little_as_can_be_and_gets_there() {
        let towards = |from: &Value, to: &Value| {
            let changes = changes_towards(from.as_object().unwrap(), to.as_object().unwrap())?;
            let overrides = Overrides::default().only(&changes, watchdog_protocol::Revision::FIRST);
            assert_eq!(overrides.over(&values(from)).unwrap(), values(to));
            Ok::<_, SettingPath>(changes.iter().map(|change| change.path.to_string()).collect::<Vec<_>>())
        };
        let tables = tables();
        assert_eq!(towards(&tables[2], &tables[2]).unwrap(), Vec::<String>::new());
        assert_eq!(towards(&tables[2], &tables[3]).unwrap(), ["filter.level", "filter.hosts"]);
        // Only as a whole does the table lose a key.
        assert_eq!(towards(&tables[3], &tables[2]).unwrap(), ["filter"]);
        let (stays, unnamed) = (towards(&tables[2], &tables[1]), towards(&tables[0], &tables[4]));
        assert_eq!(stays.unwrap_err().to_string(), "filter");
        assert_eq!(unnamed.unwrap_err().to_string(), "example.com");
    }
}
