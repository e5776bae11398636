//! `watchdog get`.

use serde_json::Value;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::SettingsView;
use watchdog_protocol::status::VerdictStatus;

use super::console::{Console, Format};
use super::look::harmless;
use super::report::CliError;
use crate::nearest::nearest;

/// Show the settings of a service, or one of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog get counter\n  watchdog get counter step")]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
    /// The path of one value: filter.level.
    key: Option<String>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let view = console.ask(async |query| query.get(&self.service).await).await?;
        let values: Value = serde_json::from_str(&view.json).unwrap_or(Value::Null);
        match (self.key, console.format) {
            (None, Format::Json) => console.json(&view),
            (None, Format::Text) => console.print(&text(&self.service, &view, &values)),
            (Some(key), format) => {
                let Some(value) = find(&values, &key) else {
                    let known = leaves(&values);
                    let nearest =
                        nearest(&key, known.iter().map(|(path, _)| path.as_str())).map(str::to_owned);
                    return Err(CliError::NoSetting { service: self.service, key, nearest });
                };
                match (value, format) {
                    (Value::String(text), Format::Text) => console.print(&format!("{}\n", harmless(text))),
                    _ => console.json(value),
                }
            }
        }
    }
}

fn find<'v>(values: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(values, |value, name| value.get(name))
}

/// All values that are no tables, by path.
fn leaves(values: &Value) -> Vec<(String, &Value)> {
    match values {
        Value::Object(table) => table
            .iter()
            .flat_map(|(name, value)| match value {
                Value::Object(inner) if !inner.is_empty() => {
                    leaves(value).into_iter().map(|(path, leaf)| (format!("{name}.{path}"), leaf)).collect()
                }
                _ => vec![(name.clone(), value)],
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn text(service: &ServiceName, view: &SettingsView, values: &Value) -> String {
    let verdict = match view.verdict {
        VerdictStatus::Accepted => "in force",
        VerdictStatus::Pending => "pending",
        VerdictStatus::Refused => "refused",
    };
    let mut text = format!("# {service}: revision {}, {verdict}\n", view.revision);
    for (path, value) in leaves(values) {
        // What was set may be a table around this value.
        let set = view.overrides.iter().any(|over| {
            path.strip_prefix(over.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        text += &harmless(&format!("{path} = {value}{}", if set { "  # set" } else { "" }));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::Revision;

    use super::*;

    #[test]
    fn settings_are_lines_of_paths_and_say_what_was_set() {
        let json = r#"{"step":10,"filter":{"level":"debug","hosts":["a","b"]},"empty":{}}"#.to_owned();
        let view = SettingsView {
            revision: Revision::from_stored(4),
            verdict: VerdictStatus::Pending,
            json,
            overrides: vec!["filter.level".into(), "step".into()],
        };
        let values = serde_json::from_str(&view.json).unwrap();
        assert_eq!(
            text(&"counter".parse().unwrap(), &view, &values),
            "# counter: revision 4, pending\n\
             step = 10  # set\n\
             filter.level = \"debug\"  # set\n\
             filter.hosts = [\"a\",\"b\"]\n\
             empty = {}\n"
        );
        assert_eq!(find(&values, "filter.level"), Some(&Value::String("debug".into())));
        assert_eq!(find(&values, "filter.nothing"), None);
    }
}
