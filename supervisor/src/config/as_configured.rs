//! One service's table as somebody wrote it, for people to read.

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};
use watchdog_protocol::ServiceName;

use super::service_table::Title;

/// The table of this service, program or task in the text of a configuration, as JSON, under its title and name. `None` when
/// there is none. Nothing is checked: what is wrong with it is what somebody looks for.
pub fn as_configured(text: &str, service: &ServiceName) -> Option<Value> {
    let (root, _) = DeTable::parse_recoverable(text);
    Title::ALL.into_iter().map(Title::as_str).find_map(|title| {
        let named = root.get_ref().get(title)?.get_ref().as_table()?;
        let table = json(named.get(service.base())?.get_ref());
        Some(serde_json::json!({ title: { service.base(): table } }))
    })
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(boolean) => Value::Bool(*boolean),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        // A number that JSON has none for is shown as it is written.
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Value::String(integer.as_str().to_owned()), Value::from),
        DeValue::Float(float) => (float.as_str().parse().ok().and_then(Number::from_f64))
            .map_or_else(|| Value::String(float.as_str().to_owned()), Value::Number),
        DeValue::Array(array) => array.iter().map(|element| json(element.get_ref())).collect(),
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            let pairs = entries
                .into_iter()
                .map(|(key, element)| (key.get_ref().to_string(), json(element.get_ref())));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_shown_as_it_is_written_also_when_it_is_wrong() {
        let text = r#"
            [service.other]
            exec = ["x"]
            [program.a]
            exec = ["run", "-v"]
            restrat = "never"
            env = { MODE = "fast" }
            umask = 0o077
            ratio = 0.5
            huge = 99999999999999999999
            odd = nan
        "#;
        let table = json!({
            "exec": ["run", "-v"], "restrat": "never", "env": { "MODE": "fast" }, "umask": 63, "ratio": 0.5,
            "huge": "99999999999999999999", "odd": "nan",
        });
        assert_eq!(as_configured(text, &"a".parse().unwrap()), Some(json!({ "program": { "a": table } })));
        assert_eq!(as_configured(text, &"b".parse().unwrap()), None);
        // A file that is being edited.
        let half = "[program.a]\nexec = [\"x\"]\n[program.b\n";
        let table = json!({ "exec": ["x"] });
        assert_eq!(as_configured(half, &"a".parse().unwrap()), Some(json!({ "program": { "a": table } })));
    }
}
