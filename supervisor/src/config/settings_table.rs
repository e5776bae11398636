//! A `settings` table as JSON.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::problem::Problem;
use super::section::{Entry, Report};
use super::setting::SettingPath;
use super::source::Source;
use super::spec::SettingsTable;

pub(super) fn read(entry: &Entry<'_>, report: &mut Report) -> Option<SettingsTable> {
    let section = entry.section(report, "a table")?;
    let mut table = SettingsTable::default();
    let mut entries: Vec<_> = section.entries().collect();
    // As a person wrote them, since a person will read them again.
    entries.sort_by_key(|entry| entry.key.start);
    for entry in entries {
        let path = SettingPath::WHOLE.join(&entry.name);
        table.places.insert(path.clone(), entry.key.clone());
        if let Some(value) = json(&path, entry.value, &mut table, report) {
            table.values.insert(entry.name, value);
        }
    }
    Some(table)
}

/// A value as an operator types it: JSON, or an array or table as in `watchdog.toml`.
pub(super) fn typed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        // Any other value of TOML is one of JSON, or a text.
        let value = text.trim_start().starts_with(['[', '{']).then(|| DeValue::parse(text).ok())??;
        let source = Arc::new(Source::new(Path::new(""), text));
        let mut report = Report { source, errors: Vec::new() };
        json(&SettingPath::WHOLE, &value, &mut SettingsTable::default(), &mut report)
    })
}

fn json(
    path: &SettingPath,
    value: &Spanned<DeValue<'_>>,
    into: &mut SettingsTable,
    report: &mut Report,
) -> Option<Value> {
    // Without the number itself: it may be a secret.
    let expected = |report: &mut Report, expected: &str| {
        let (found, expected) = ("a number".to_owned(), expected.to_owned());
        report.at(value.span(), Problem::Value { key: path.to_string(), found, expected });
        None
    };
    Some(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(boolean) => Value::Bool(*boolean),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Integer(integer) => {
            let signed = i64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from);
            let number = signed
                .or_else(|_| u64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from))
                .ok();
            return number.map(Value::Number).or_else(|| expected(report, "an integer of at most 64 bits"));
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            return number.map(Value::Number).or_else(|| expected(report, "a finite number"));
        }
        DeValue::Array(array) => {
            let mut values = Vec::new();
            for (at, element) in array.iter().enumerate() {
                let path = path.join(&at.to_string());
                into.places.insert(path.clone(), element.span());
                values.push(json(&path, element, into, report)?);
            }
            Value::Array(values)
        }
        DeValue::Table(table) => {
            let mut values = Map::new();
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            for (key, element) in entries {
                let path = path.join(key.get_ref());
                into.places.insert(path.clone(), key.span());
                values.insert(key.get_ref().to_string(), json(&path, element, into, report)?);
            }
            Value::Object(values)
        }
    })
}
