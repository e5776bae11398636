//! What an occurrence rests on, as the event log keeps it: values beside the words, so that nobody has to read the
//! words back.

use std::time::Duration;

use watchdog_protocol::Revision;
use watchdog_protocol::limits::{MAX_EVIDENCE_LINE, MAX_EVIDENCE_LINES};
use watchdog_protocol::status::Evidence;

use crate::cause::{Cause, End, ExitReport};
use crate::event::Occurrence;

impl Occurrence {
    /// What it rests on, where that is more than its words.
    pub fn evidence(&self) -> Option<Evidence> {
        match self {
            Self::Asked { verb, by } => Some(Evidence {
                verb: Some(verb.to_string()),
                by: Some(by.to_string()),
                ..Evidence::default()
            }),
            Self::Stopping { cause, .. } | Self::Failed { cause } => cause.evidence(),
            Self::Ended(end) => Some(of_end(end)),
            Self::Backoff { streak, .. } => Some(Evidence { failures: Some(*streak), ..Evidence::default() }),
            Self::Starting { .. }
            | Self::Ready { .. }
            | Self::Killing { .. }
            | Self::Survivors { .. }
            | Self::Excused { .. }
            | Self::Completed
            | Self::Stopped
            | Self::Health { .. }
            | Self::Progress { .. } => None,
        }
    }

    /// The settings it is about, where it is about settings.
    pub fn revision(&self) -> Option<Revision> {
        let cause = match self.cause()? {
            Cause::Limit { last, .. } | Cause::GroupFailed { last, .. } => last,
            cause => cause,
        };
        if let Cause::Settings { revision, .. } = cause { *revision } else { None }
    }
}

impl Cause {
    fn evidence(&self) -> Option<Evidence> {
        match self {
            Self::Signal { signal, .. } => Some(Evidence { signal: Some(*signal), ..Evidence::default() }),
            Self::Limit { failures, .. } => {
                Some(Evidence { failures: Some(*failures), ..Evidence::default() })
            }
            Self::Dependency { on: other, .. } | Self::Group { member: other, .. } => {
                Some(Evidence { on: Some(other.clone()), ..Evidence::default() })
            }
            Self::GroupFailed { member, limit, .. } => Some(Evidence {
                on: Some(member.clone()),
                failures: limit.map(|(failures, _)| failures),
                ..Evidence::default()
            }),
            Self::Operator { by, verb } => Some(Evidence {
                by: Some(by.to_string()),
                verb: Some(verb.to_string()),
                ..Evidence::default()
            }),
            Self::ExitCode { .. }
            | Self::Oom { .. }
            | Self::Unseen
            | Self::Hung { .. }
            | Self::CalledHung
            | Self::Leaving
            | Self::Failing { .. }
            | Self::Spawn { .. }
            | Self::NotReady { .. }
            | Self::EndedEarly
            | Self::State { .. }
            | Self::Protocol { .. }
            | Self::Settings { .. }
            | Self::Watchdog { .. } => None,
        }
    }
}

fn of_end(end: &End) -> Evidence {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let report = end.report.as_ref();
    Evidence {
        exit: report.map(|report| report.exit.to_string()),
        ready_ms: end.ready_for.map(millis),
        last_lines: report.map(last_lines).unwrap_or_default(),
        ..end.cause.evidence().unwrap_or_default()
    }
}

/// The last of the last, each cut to what a terminal shows of it.
fn last_lines(report: &ExitReport) -> Vec<String> {
    let skipped = report.last_lines.len().saturating_sub(MAX_EVIDENCE_LINES);
    report.last_lines[skipped..].iter().map(|line| line.chars().take(MAX_EVIDENCE_LINE).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Exit, Manner};
    use crate::moment::Moment;
    use watchdog_protocol::Incarnation;

    #[test]
    fn an_end_keeps_the_newest_lines_and_no_long_one() {
        let line = |number: usize| format!("{number} {}", "x".repeat(MAX_EVIDENCE_LINE));
        let end = End {
            incarnation: Incarnation::FIRST,
            at: Moment::from_nanos(0),
            cause: Cause::ExitCode { code: 3 },
            manner: Manner::ByItself,
            ready_for: Some(Duration::from_millis(1500)),
            report: Some(ExitReport {
                exit: Exit::Code(3),
                last_lines: (1..=MAX_EVIDENCE_LINES + 2).map(line).collect(),
                last_word: None,
            }),
        };
        let evidence = Occurrence::Ended(Box::new(end)).evidence().unwrap();
        assert_eq!((evidence.exit.as_deref(), evidence.ready_ms), (Some("exit code 3"), Some(1500)));
        assert_eq!(evidence.last_lines.len(), MAX_EVIDENCE_LINES);
        assert!(evidence.last_lines[0].starts_with("3 "), "the oldest go");
        assert!(evidence.last_lines.iter().all(|line| line.chars().count() == MAX_EVIDENCE_LINE));
    }
}
