//! `watchdog why`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::why::{Link, Origin, Why};

use super::console::{Console, Format};
use super::figures::{span, time};
use super::look::{Look, Paint, harmless};
use super::report::CliError;

/// Show why a service is in the state it is in, back to the first cause.
///
/// Each step is told with its evidence: the entry of the event log, the process, how it ended, and the last lines of
/// its standard error. The way goes on to the services it requires.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog why bumper\n\nThe newest 10000 entries of the event log are walked back. Where they do not reach far enough, it says so."
)]
pub(super) struct Arguments {
    /// Whose state.
    service: ServiceName,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let why = console.ask(async |query| query.why(&self.service).await).await?;
        match console.format {
            Format::Json => console.json(&why),
            Format::Text => console.print(&text(&why, &console.look)),
        }
    }
}

/// A block a step, the first cause, what to do.
pub(super) fn text(why: &Why, look: &Look) -> String {
    let mut text: String = why.chain.iter().map(|link| block(link, look)).collect();
    let (paint, head, words) = match &why.origin {
        Origin::FirstCause(words) => (Paint::Strong, "first cause:", words),
        Origin::NotInLog(words) => (Paint::Doubtful, "first cause not known:", words),
    };
    text += &format!("\n{} {}\n", look.paint(paint, head), harmless(words));
    for (at, line) in why.advice.iter().enumerate() {
        let head = if at == 0 { "what to do:" } else { "" };
        text += &format!("{} {line}\n", look.paint(Paint::Strong, &format!("{head:<12}")));
    }
    text
}

/// When, whom and what in one line; below it what that rests on.
fn block(link: &Link, look: &Look) -> String {
    let whom = match (&link.service, link.incarnation) {
        (None, _) => "watchdog".to_owned(),
        (Some(service), None) => service.to_string(),
        (Some(service), Some(incarnation)) => format!("{service}#{incarnation}"),
    };
    let mut text = match link.at_us {
        Some(at) => format!("{}  ", look.paint(Paint::Faint, &time(at))),
        None => String::new(),
    };
    text += &format!("{}  {}\n", look.paint(Paint::Strong, &whom), harmless(&link.what));
    let evidence = evidence(link);
    if !evidence.is_empty() {
        text += &format!("    {}\n", look.paint(Paint::Faint, &harmless(&evidence)));
    }
    for line in &link.last_lines {
        text += &format!("    | {}\n", harmless(line));
    }
    text
}

fn evidence(link: &Link) -> String {
    let mut words = Vec::new();
    if let Some(cause) = &link.cause {
        words.push(format!("cause {cause}"));
    }
    words.extend(link.event.map(|event| format!("event {event}")));
    words.extend(link.incarnation.map(|incarnation| format!("process {incarnation}")));
    words.extend(link.revision.map(|revision| format!("settings revision {revision}")));
    words.extend(link.exit.clone().filter(|exit| !link.what.contains(exit)));
    // Of an end; all else was never ready by its nature.
    if link.exit.is_some() {
        words.push(match link.ready_ms {
            Some(ready) => format!("had been ready for {}", span(ready)),
            None => "was never ready".to_owned(),
        });
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::status::STATUS_VERSION;
    use watchdog_protocol::{Incarnation, Revision};

    use super::*;

    fn link(service: Option<&str>, number: u64, what: &str) -> Link {
        Link {
            service: service.map(|name| name.parse().unwrap()),
            at_us: Some(1_795_511_591_123_456 + number * 1_000_000),
            what: what.into(),
            cause: None,
            event: Some(number),
            incarnation: None,
            revision: None,
            exit: None,
            ready_ms: None,
            last_lines: vec![],
        }
    }

    #[test]
    fn each_step_is_a_block_with_its_evidence_and_the_first_cause_comes_last() {
        let held = Link {
            at_us: None,
            event: None,
            ..link(Some("a"), 0, "does not run: it requires `c`, which has failed")
        };
        let end = Link {
            cause: Some("exit-code".into()),
            incarnation: Some(Incarnation::from_stored(6)),
            exit: Some("exit code 3".into()),
            ready_ms: Some(2_300),
            last_lines: vec!["opens its index".into(), "no such \x1b[31mfile\x1b[0m".into()],
            ..link(Some("c"), 38, "the last failure: ended by itself with exit code 3")
        };
        let early = Link { ready_ms: None, last_lines: vec![], ..end.clone() };
        let set = Link {
            revision: Some(Revision::from_stored(4)),
            ..link(Some("c"), 12, "settings changed by operator (uid 0): index.path")
        };
        let watchdog = link(None, 3, "the watchdog started (keeper pid 7)");
        let mut why = Why {
            version: STATUS_VERSION,
            service: "a".parse().unwrap(),
            chain: vec![held, end, early, set, watchdog],
            origin: Origin::FirstCause("c: ended by itself with exit code 3".into()),
            advice: vec![
                "watchdog logs c -n 50".into(),
                "watchdog reset c  # when the cause is mended".into(),
            ],
        };
        let plain = Look { color: false, width: None };
        insta::assert_snapshot!(text(&why, &plain), @r"
        a  does not run: it requires `c`, which has failed
        2026-11-24T09:13:49.123Z  c#6  the last failure: ended by itself with exit code 3
            cause exit-code, event 38, process 6, had been ready for 2s
            | opens its index
            | no such �[31mfile�[0m
        2026-11-24T09:13:49.123Z  c#6  the last failure: ended by itself with exit code 3
            cause exit-code, event 38, process 6, was never ready
        2026-11-24T09:13:23.123Z  c  settings changed by operator (uid 0): index.path
            event 12, settings revision 4
        2026-11-24T09:13:14.123Z  watchdog  the watchdog started (keeper pid 7)
            event 3

        first cause: c: ended by itself with exit code 3
        what to do:  watchdog logs c -n 50
                     watchdog reset c  # when the cause is mended
        ");
        why.chain.truncate(1);
        why.origin = Origin::NotInLog(
            "c: the event log, which begins with entry 9, does not tell how it failed".into(),
        );
        why.advice.clear();
        insta::assert_snapshot!(text(&why, &plain), @r"
        a  does not run: it requires `c`, which has failed

        first cause not known: c: the event log, which begins with entry 9, does not tell how it failed
        ");
    }
}
