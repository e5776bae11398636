//! `watchdog events`.

use watchdog_protocol::status::EventRecord;
use watchdog_query::QueryError;

use super::console::{Console, Format};
use super::figures::time;
use super::look::{Look, Paint, harmless, harmless_json};
use super::report::CliError;

/// Show what happened, oldest first: starts, ends and their causes, settings, state, operators, warnings of the core.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog events -n 20 -f\n\nWith --json one line is one entry.")]
pub(super) struct Arguments {
    /// Go on as they happen.
    #[arg(short, long)]
    follow: bool,
    /// So many of the newest.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    number: u64,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let mut printed = Ok(());
        let asked = console.ask(async |query| {
            let mut events = query.events(0, self.number, self.follow);
            while printed.is_ok()
                && let Some(event) = events.next().await?
            {
                printed = console.print(&line(&event, console));
            }
            Ok::<_, QueryError>(())
        });
        asked.await?;
        printed
    }
}

fn line(event: &EventRecord, console: &Console) -> String {
    match console.format {
        Format::Json => harmless_json(&serde_json::to_string(event).expect("an event has text keys")) + "\n",
        Format::Text => text(event, &console.look) + "\n",
    }
}

pub(super) fn text(event: &EventRecord, look: &Look) -> String {
    let whom = match (&event.service, event.incarnation) {
        (None, _) => "watchdog".to_owned(),
        (Some(service), None) => service.to_string(),
        (Some(service), Some(incarnation)) => format!("{service}#{incarnation}"),
    };
    let paint = match &*event.what {
        "ready" => Paint::Good,
        "ended" | "refused" | "warning" => Paint::Doubtful,
        "failed" | "error" => Paint::Bad,
        _ => Paint::Plain,
    };
    let what = look.paint(paint, &event.what).into_owned();
    // By hand, since colour is no width.
    let pad = " ".repeat(10usize.saturating_sub(event.what.chars().count()));
    let cause = event.cause.as_ref().map(|cause| format!("[{cause}] ")).unwrap_or_default();
    format!(
        "{}  {whom:<16}  {what}{pad}  {}",
        look.paint(Paint::Faint, &time(event.at_us)),
        harmless(&format!("{cause}{}", event.text))
    )
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::Incarnation;

    use super::*;

    #[test]
    fn an_event_is_a_line_with_time_whom_what_and_why() {
        let event = EventRecord {
            number: 7,
            at_us: 1_795_511_591_123_456,
            service: Some("counter".parse().unwrap()),
            incarnation: Some(Incarnation::from_stored(3)),
            what: "ended".into(),
            cause: Some("signal".into()),
            text: "killed by SIGKILL\x1b[2J".into(),
            revision: None,
            sequence: None,
            evidence: None,
        };
        let plain = Look { color: false, width: None };
        assert_eq!(
            text(&event, &plain),
            "2026-11-24T09:13:11.123Z  counter#3         ended       [signal] killed by SIGKILL\u{fffd}[2J"
        );
        let own =
            EventRecord { service: None, incarnation: None, cause: None, text: "keeper 12".into(), ..event };
        assert_eq!(text(&own, &plain), "2026-11-24T09:13:11.123Z  watchdog          ended       keeper 12");
    }
}
