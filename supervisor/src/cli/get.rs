//! `watchdog get`.

use serde_json::Value;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{SettingsView, ValueOrigin, ValueView};
use watchdog_protocol::status::VerdictStatus;

use super::console::{Console, Format};
use super::look::{harmless, setting};
use super::report::CliError;
use crate::nearest::nearest;

/// Show the settings of a service, or one of them.
///
/// `(secret)` stands for a value that its settings type calls a secret, or does not know.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog get counter\n  watchdog get counter step\n  watchdog get counter --origin"
)]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
    /// The path of one value: filter.level.
    key: Option<String>,
    /// Say of each value where it comes from: the settings type's default, the configuration file and the line, or a
    /// `set` and its revision.
    #[arg(long)]
    origin: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let view = console.ask(async |query| query.get(&self.service).await).await?;
        let values: Value = serde_json::from_str(&view.json).unwrap_or(Value::Null);
        let Some(key) = self.key else {
            return match console.format {
                Format::Json => console.json(&view),
                Format::Text => console.print(&text(&self.service, &view, self.origin)),
            };
        };
        let Some(value) = find(&values, &key) else {
            let nearest = nearest(&key, view.values.iter().map(|one| one.path.as_str())).map(str::to_owned);
            return Err(CliError::NoSetting { service: self.service, key, nearest });
        };
        match (value, console.format) {
            (_, Format::Json) if self.origin => console.json(&within(&view, &key).collect::<Vec<_>>()),
            (_, Format::Text) if self.origin => {
                let lines = within(&view, &key).map(|one| line(one, &in_full(&one.origin)));
                console.print(&lines.collect::<String>())
            }
            (Value::String(text), Format::Text) => console.print(&format!("{}\n", harmless(text))),
            (value, Format::Json | Format::Text) => console.json(value),
        }
    }
}

/// The values at or within a path.
fn within<'v>(view: &'v SettingsView, path: &str) -> impl Iterator<Item = &'v ValueView> {
    view.values.iter().filter(move |one| {
        one.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

fn find<'v>(values: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(values, |value, name| value.get(name))
}

fn text(service: &ServiceName, view: &SettingsView, origin: bool) -> String {
    let verdict = match view.verdict {
        VerdictStatus::Accepted => "in force",
        VerdictStatus::Pending => "pending",
        VerdictStatus::Refused => "in force with the values of before; the change before was refused",
    };
    let mut text = format!("# {service}: revision {}, {verdict}\n", view.revision);
    for one in &view.values {
        let said = match &one.origin {
            all if origin => in_full(all),
            ValueOrigin::Set { .. } => "  # set".to_owned(),
            ValueOrigin::Default | ValueOrigin::File { .. } => String::new(),
        };
        text += &line(one, &said);
    }
    text
}

fn line(one: &ValueView, said: &str) -> String {
    format!("{} = {}{}\n", harmless(&one.path), setting(&one.json), harmless(said))
}

fn in_full(origin: &ValueOrigin) -> String {
    match origin {
        ValueOrigin::Default => "  # default".to_owned(),
        ValueOrigin::File { place: None } => "  # file".to_owned(),
        ValueOrigin::File { place: Some(place) } => format!("  # file {}:{}", place.file, place.line),
        ValueOrigin::Set { revision: None } => "  # set".to_owned(),
        ValueOrigin::Set { revision: Some(revision) } => format!("  # set by revision {revision}"),
    }
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::Revision;
    use watchdog_protocol::control::FilePlace;

    use super::*;

    #[test]
    fn settings_are_lines_of_paths_and_say_what_was_set_or_where_all_comes_from() {
        let json = r#"{"step":10,"filter":{"level":"debug","hosts":["a","b"]},"empty":{}}"#.to_owned();
        let value =
            |path: &str, json: &str, origin| ValueView { path: path.into(), json: json.into(), origin };
        let place = Some(FilePlace { file: "/w/watchdog.toml".into(), line: 12 });
        let view = SettingsView {
            revision: Revision::from_stored(4),
            verdict: VerdictStatus::Pending,
            json,
            overrides: vec!["filter.level".into(), "step".into()],
            values: vec![
                value("step", "10", ValueOrigin::Set { revision: Some(Revision::from_stored(4)) }),
                value("filter.level", "\"debug\"", ValueOrigin::Set { revision: None }),
                value("filter.hosts", r#"["a","b"]"#, ValueOrigin::File { place }),
                value("empty", "{}", ValueOrigin::Default),
                value("token", "\"(secret)\"", ValueOrigin::Set { revision: None }),
            ],
        };
        assert_eq!(
            text(&"counter".parse().unwrap(), &view, false),
            "# counter: revision 4, pending\n\
             step = 10  # set\n\
             filter.level = \"debug\"  # set\n\
             filter.hosts = [\"a\",\"b\"]\n\
             empty = {}\n\
             token = (secret)  # set\n"
        );
        assert_eq!(
            text(&"counter".parse().unwrap(), &view, true),
            "# counter: revision 4, pending\n\
             step = 10  # set by revision 4\n\
             filter.level = \"debug\"  # set\n\
             filter.hosts = [\"a\",\"b\"]  # file /w/watchdog.toml:12\n\
             empty = {}  # default\n\
             token = (secret)  # set\n"
        );
        let refused = SettingsView { verdict: VerdictStatus::Refused, ..view.clone() };
        let head = text(&"counter".parse().unwrap(), &refused, false);
        assert!(head.starts_with("# counter: revision 4, in force with the values of before; "), "{head}");
        let within: Vec<_> = within(&view, "filter").map(|one| one.path.as_str()).collect();
        let values = serde_json::from_str(&view.json).unwrap();
        assert_eq!(within, ["filter.level", "filter.hosts"]);
        assert_eq!(find(&values, "filter.level"), Some(&Value::String("debug".into())));
        assert_eq!(find(&values, "filter.nothing"), None);
    }
}
