//! What `set`, `unset` and `rollback` share: when the change is made, whether its verdict is waited for, and what is
//! said of it.

use std::time::Duration;

use watchdog_protocol::control::{SECRET, SetOutcome};
use watchdog_protocol::status::VerdictStatus;
use watchdog_protocol::{Revision, ServiceName};

use super::console::{Console, Format};
use super::figures::parse_span;
use super::look::harmless;
use super::report::CliError;

/// How long a service usually has for its verdict before the change is shown as pending.
const VERDICT: &str = "5s";

/// When, and until when.
#[derive(Debug, clap::Args)]
pub(super) struct Terms {
    /// Only if this is the newest revision and nothing waits to follow it; else nothing changes: exit code 75. Of
    /// several who name the same one, one succeeds.
    #[arg(long, value_name = "REVISION", value_parser = parse_revision)]
    if_revision: Option<Revision>,
    /// Wait for the service's verdict, at most so long (500ms, 10s, 2m); then the change is pending.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_value = VERDICT,
        default_missing_value = VERDICT,
        value_parser = parse_span,
        conflicts_with = "no_wait"
    )]
    wait: Duration,
    /// Come back as soon as the change is on disk, without the service's verdict.
    #[arg(long)]
    no_wait: bool,
}

impl Terms {
    pub(super) fn if_revision(&self) -> Option<Revision> {
        self.if_revision
    }

    pub(super) fn wait(&self) -> Option<Duration> {
        (!self.no_wait).then_some(self.wait)
    }
}

pub(super) fn parse_revision(text: &str) -> Result<Revision, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(Revision::from_stored(number)),
        Ok(0) | Err(_) => Err("expected the number of a revision, from 1".to_owned()),
    }
}

/// Whose settings are meant by a name: the service's, or those of each of its instances. They are changed one after the
/// other, and a refusal ends it before the next.
pub(super) async fn whose(service: &ServiceName, console: &Console) -> Result<Vec<ServiceName>, CliError> {
    let status = console.ask(async |query| query.status(std::slice::from_ref(service)).await).await?;
    let instances = status.services.into_iter().map(|service| service.name);
    Ok(instances.filter(|name| name.base() == service.as_str() || name == service).collect())
}

/// `secrets` are the keys among those that were changed whose values nobody is shown.
pub(super) fn show(
    service: &ServiceName,
    outcome: SetOutcome,
    secrets: &[&str],
    console: &Console,
) -> Result<(), CliError> {
    if console.format == Format::Json {
        console.json(&outcome)?;
    }
    if let Some((reason, now)) = outcome.refused {
        let refused = outcome.revision.get();
        return Err(CliError::SettingsRefused { service: service.clone(), refused, reason, now: now.get() });
    }
    match console.format {
        Format::Json => Ok(()),
        Format::Text => console.print(&text(service, &outcome, secrets)),
    }
}

fn text(service: &ServiceName, outcome: &SetOutcome, secrets: &[&str]) -> String {
    let keys = secrets.iter().map(|key| format!("{} {SECRET}", harmless(key))).collect::<Vec<_>>().join(", ");
    let changed = if keys.is_empty() { keys } else { format!("; changed {keys}") };
    let revision = outcome.revision;
    let values =
        outcome.back_to.map_or_else(String::new, |to| format!(", with the values of revision {to},"));
    match outcome.verdict {
        VerdictStatus::Accepted => format!("{service}: revision {revision}{values} is in force{changed}\n"),
        VerdictStatus::Pending => format!(
            "{service}: revision {revision}{values} is on disk and pending; `{service}` has yet to take it{changed}\n"
        ),
        VerdictStatus::Refused => format!("{service}: revision {revision}{values} was refused\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_number_from_1() {
        assert_eq!(parse_revision("7"), Ok(Revision::from_stored(7)));
        assert!(
            parse_revision("0").is_err() && parse_revision("-1").is_err() && parse_revision("x").is_err()
        );
    }

    #[test]
    fn a_rollback_says_whose_values_it_has() {
        let outcome = SetOutcome {
            revision: Revision::from_stored(5),
            verdict: VerdictStatus::Accepted,
            refused: None,
            back_to: Some(Revision::from_stored(2)),
        };
        let counter = "counter".parse().unwrap();
        assert_eq!(
            text(&counter, &outcome, &[]),
            "counter: revision 5, with the values of revision 2, is in force\n"
        );
        let outcome = SetOutcome { back_to: None, ..outcome };
        assert_eq!(text(&counter, &outcome, &[]), "counter: revision 5 is in force\n");
        let secrets = ["token", "db.password"];
        assert_eq!(
            text(&counter, &outcome, &secrets),
            "counter: revision 5 is in force; changed token (secret), db.password (secret)\n"
        );
    }
}
