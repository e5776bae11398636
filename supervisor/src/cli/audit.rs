//! `watchdog audit`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::audit::{AuditRecord, AuditResult, Auditee};
use watchdog_protocol::control::FailureKind;

use super::console::{Console, Format};
use super::figures::time;
use super::look::{Look, Paint, harmless};
use super::place::Place;
use super::report::CliError;
use crate::core::audit;

/// Show who changed what, or tried to: every changing call, refused ones too, newest last.
///
/// On disk before the call is answered, and kept in audit.jsonl beside the logs, 20 MiB at most. It never shows a value.
/// Also while no watchdog runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog audit counter -n 20")]
pub(super) struct Arguments {
    /// Calls of this service and about it; else all.
    service: Option<ServiceName>,
    /// So many of the newest, 10000 at most.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    number: u64,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, number } = &self;
        let records = match console.ask(async |query| query.audit(service.as_ref(), *number).await).await {
            Err(CliError::NoWatchdog { .. }) if console.place()?.state.exists() => {
                of_files(&console.place()?, *number, service.as_ref())?
            }
            asked => asked?,
        };
        match console.format {
            Format::Json => console.json(&records),
            Format::Text => {
                let lines = records.iter().map(|record| text(record, &console.look) + "\n");
                console.print(&lines.collect::<String>())
            }
        }
    }
}

/// As the last watchdog left it.
fn of_files(place: &Place, last: u64, service: Option<&ServiceName>) -> Result<Vec<AuditRecord>, CliError> {
    audit::read(&place.state, &place.logs, last, service).map_err(|source| CliError::File {
        what: "read the audit in",
        path: place.logs.clone(),
        source,
    })
}

fn text(record: &AuditRecord, look: &Look) -> String {
    let by = match &record.by {
        Auditee::Operator { uid, pid, program } => format!("{program} (pid {pid}, uid {uid})"),
        Auditee::Service { name, incarnation } => format!("{name}#{incarnation}"),
    };
    let targets: Vec<_> = record.targets.iter().map(ServiceName::as_str).collect();
    let what = [record.verb.as_str(), &targets.join(" "), &record.details]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let (paint, result) = match &record.result {
        AuditResult::Done => (Paint::Good, "done".to_owned()),
        AuditResult::Failed { kind: FailureKind::NotPermitted, message } => {
            (Paint::Bad, format!("denied: {message}"))
        }
        AuditResult::Failed { message, .. } => (Paint::Doubtful, format!("failed: {message}")),
        AuditResult::Unanswered => (Paint::Doubtful, "taken; its caller did not wait for the end".to_owned()),
    };
    format!(
        "{}  {:<28}  {}: {}",
        look.paint(Paint::Faint, &time(record.at_us)),
        harmless(&by),
        harmless(&what),
        look.paint(paint, &harmless(&result))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_line_with_time_who_what_and_what_came_of_it() {
        let record = AuditRecord {
            number: 1,
            at_us: 1_795_511_591_123_456,
            by: Auditee::Operator { uid: 0, pid: 7, program: "watchdog".into() },
            verb: "set".into(),
            targets: vec!["counter".parse().unwrap()],
            details: "step, name".into(),
            request: String::new(),
            result: AuditResult::Done,
        };
        let plain = Look { color: false, width: None };
        assert_eq!(
            text(&record, &plain),
            "2026-11-24T09:13:11.123Z  watchdog (pid 7, uid 0)       set counter step, name: done"
        );
        let denied = AuditRecord {
            by: Auditee::Service {
                name: "a".parse().unwrap(),
                incarnation: watchdog_protocol::Incarnation::FIRST,
            },
            details: String::new(),
            result: AuditResult::Failed { kind: FailureKind::NotPermitted, message: "no\x1b grant".into() },
            ..record
        };
        assert_eq!(
            text(&denied, &plain),
            "2026-11-24T09:13:11.123Z  a#1                           set counter: denied: no\u{fffd} grant"
        );
    }
}
