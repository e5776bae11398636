//! `watchdog history`.

use watchdog_protocol::control::{
    Caller, RevisionAuthor, RevisionRecord, RevisionVerdict, SECRET, ValueChange,
};
use watchdog_protocol::{Revision, ServiceName};

use super::console::{Console, Format};
use super::figures::time;
use super::look::{Look, Paint, harmless, setting};
use super::report::CliError;

/// Show the last 50 revisions of a service's settings, newest last: when and by whom, what changed, what became of it.
///
/// `(default)` stands for a value that was not given, so that the service's own default held, `(secret)` for one that is
/// not shown. The history is kept with
/// the settings and outlives every restart. Of changes that take more than 8 MiB together fewer are kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog history counter")]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let history = console.ask(async |query| query.history(&self.service).await).await?;
        match console.format {
            Format::Json => console.json(&history),
            Format::Text => console.print(&text(&history, &console.look)),
        }
    }
}

pub(super) fn text(history: &[RevisionRecord], look: &Look) -> String {
    let number = history.iter().map(|one| one.revision.to_string().len()).max().unwrap_or(0);
    let mut text = String::new();
    for one in history {
        let when = one.at_us.map_or_else(|| "time unknown".to_owned(), time);
        let (paint, verdict) = verdict(&one.verdict);
        text += &format!(
            "{:>number$}  {}  {}, {}\n",
            one.revision,
            look.paint(Paint::Faint, &format!("{when:<24}")),
            author(&one.by),
            look.paint(paint, &harmless(&verdict)),
        );
        for change in &one.changes {
            text += &format!("{:number$}    {}\n", "", changed(change, one.revision));
        }
    }
    text
}

fn author(by: &RevisionAuthor) -> String {
    match by {
        RevisionAuthor::Unknown => "by an older watchdog".to_owned(),
        RevisionAuthor::File => "by the file".to_owned(),
        RevisionAuthor::Set { by } => format!("by {}", caller(by)),
        RevisionAuthor::Rollback { by, to } => format!("rollback to {to} by {}", caller(by)),
        RevisionAuthor::Fallback { refused } => format!("fallback after {refused} was refused"),
    }
}

fn caller(by: &Caller) -> String {
    match by {
        Caller::Operator { uid } => format!("operator (uid {uid})"),
        Caller::Service { name } => format!("service `{name}`"),
        Caller::Watchdog => "the watchdog".to_owned(),
    }
}

fn verdict(verdict: &RevisionVerdict) -> (Paint, String) {
    match verdict {
        RevisionVerdict::Pending => (Paint::Doubtful, "pending".to_owned()),
        RevisionVerdict::Applied => (Paint::Good, "applied".to_owned()),
        RevisionVerdict::Refused { reason } => (Paint::Bad, format!("refused: {reason}")),
        RevisionVerdict::Superseded { by } => (Paint::Faint, format!("superseded by {by}")),
    }
}

fn changed(change: &ValueChange, in_revision: Revision) -> String {
    let ValueChange { path, before, after } = change;
    let path = harmless(path);
    let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "(default)".to_owned(), setting);
    match before {
        Some(_) if [before, after].iter().all(|value| shown(value) == SECRET) => {
            format!("{path}: changed {SECRET}")
        }
        // The first revision has none before it.
        None if in_revision == Revision::FIRST => format!("{path}: {}", shown(after)),
        before => format!("{path}: {} → {}", shown(before), shown(after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_when_who_what_became_of_it_and_what_changed() {
        let revision = Revision::from_stored;
        let change = |path: &str, before: Option<&str>, after: Option<&str>| ValueChange {
            path: path.into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let operator = || Caller::Operator { uid: 1000 };
        let one = |number, by, changes, verdict| RevisionRecord {
            revision: revision(number),
            at_us: (number > 1).then_some(1_795_511_591_123_456),
            by,
            changes,
            verdict,
        };
        let history = [
            one(1, RevisionAuthor::Unknown, vec![], RevisionVerdict::Applied),
            one(
                8,
                RevisionAuthor::Set { by: operator() },
                vec![
                    change("step", Some("2"), Some("10")),
                    change("filter.level", None, Some("\"debug\"")),
                    change("token", Some("\"(secret)\""), Some("\"(secret)\"")),
                    change("other", None, Some("\"(secret)\"")),
                ],
                RevisionVerdict::Superseded { by: revision(9) },
            ),
            one(
                9,
                RevisionAuthor::Set { by: Caller::Service { name: "tuner".parse().unwrap() } },
                vec![change("step", Some("10"), None)],
                RevisionVerdict::Refused { reason: "too small\x1b[2J".into() },
            ),
            one(
                10,
                RevisionAuthor::Fallback { refused: revision(9) },
                vec![change("step", None, Some("2"))],
                RevisionVerdict::Applied,
            ),
            one(
                11,
                RevisionAuthor::Rollback { by: operator(), to: revision(1) },
                vec![],
                RevisionVerdict::Pending,
            ),
        ];
        insta::assert_snapshot!(text(&history, &Look { color: false, width: None }), @r#"
         1  time unknown              by an older watchdog, applied
         8  2026-11-24T09:13:11.123Z  by operator (uid 1000), superseded by 9
              step: 2 → 10
              filter.level: (default) → "debug"
              token: changed (secret)
              other: (default) → (secret)
         9  2026-11-24T09:13:11.123Z  by service `tuner`, refused: too small�[2J
              step: 10 → (default)
        10  2026-11-24T09:13:11.123Z  fallback after 9 was refused, applied
              step: (default) → 2
        11  2026-11-24T09:13:11.123Z  rollback to 1 by operator (uid 1000), pending
        "#);
        let first =
            [one(1, RevisionAuthor::File, vec![change("step", None, Some("2"))], RevisionVerdict::Applied)];
        insta::assert_snapshot!(text(&first, &Look { color: false, width: None }), @r"
        1  time unknown              by the file, applied
             step: 2
        ");
    }
}
