//! `watchdog set`.

use std::time::Duration;

use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Change, SetOutcome};
use watchdog_protocol::status::VerdictStatus;

use super::console::{Console, Format};
use super::report::CliError;

/// How long a service has for its verdict before the change is shown as pending.
const VERDICT: Duration = Duration::from_secs(5);

/// Change settings of a service, all or none, and wait for its verdict.
///
/// The values are checked before anything changes, and outlive every restart. A service that is down takes them
/// when it starts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog set counter step=10 filter.level=debug")]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
    /// A path of the settings and its new value: JSON, or plain text where the setting is a text.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_change)]
    changes: Vec<Change>,
    /// Come back as soon as the change is on disk.
    #[arg(long)]
    no_wait: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let wait = verdict_wait(self.no_wait);
        let outcome = console.ask(async |query| query.set(&self.service, self.changes, wait).await).await?;
        show(&self.service, outcome, console)
    }
}

pub(super) fn verdict_wait(no_wait: bool) -> Option<Duration> {
    (!no_wait).then_some(VERDICT)
}

pub(super) fn show(service: &ServiceName, outcome: SetOutcome, console: &Console) -> Result<(), CliError> {
    if console.format == Format::Json {
        console.json(&outcome)?;
    }
    if let Some((reason, now)) = outcome.refused {
        let refused = outcome.revision.get();
        return Err(CliError::SettingsRefused { service: service.clone(), refused, reason, now: now.get() });
    }
    if console.format == Format::Json {
        return Ok(());
    }
    let revision = outcome.revision;
    console.print(&match outcome.verdict {
        VerdictStatus::Accepted => format!("{service}: revision {revision} is in force\n"),
        VerdictStatus::Pending => {
            format!("{service}: revision {revision} is on disk and pending; `{service}` has yet to take it\n")
        }
        VerdictStatus::Refused => format!("{service}: revision {revision} was refused\n"),
    })
}

fn parse_change(text: &str) -> Result<Change, String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => {
            Ok(Change { path: path.to_owned(), value: Some(value.to_owned()) })
        }
        _ => Err(format!("{text:?} is no change; expected KEY=VALUE: step=10")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_split_at_its_first_equals_sign() {
        let change = parse_change("filter.level=a=b").unwrap();
        assert_eq!((&*change.path, change.value.as_deref()), ("filter.level", Some("a=b")));
        assert_eq!(parse_change("word=").unwrap().value.as_deref(), Some(""));
        assert!(parse_change("word").is_err() && parse_change("=1").is_err());
    }
}
