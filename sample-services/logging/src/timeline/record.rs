//! From entries of the event log to records of the watchdog. No I/O.

use tracing_subscriber::filter::Targets;
use watchdog_service::log::{Batch, Event, Field, Level, Record, Value};
use watchdog_service::query::status::{EventRecord, Evidence};

use super::Stretch;

/// Before the word for what happened, as a target: `watchdog::ended`.
const TARGET: &str = "watchdog::";

/// What nobody asked for, and somebody should know of.
const GRAVE: [&str; 4] = ["failed", "error", "disk", "safe-mode"];

/// What may lead to trouble, or has been some.
const DOUBTFUL: [&str; 11] = [
    "backoff",
    "killing",
    "survivors",
    "excused",
    "warning",
    "dead-letter",
    "journal",
    "audit",
    "keeper",
    "paused",
    "upgrade-undone",
];

/// Causes of an end that somebody wanted.
const WANTED: [&str; 4] = ["operator", "watchdog", "dependency", "group"];

/// How a task ends that did its work; if a service was not meant to end so, its back-off tells.
const DONE: &str = "exit code 0";

/// The entries that are wanted, as records with their numbers: a batch for each run without a gap. The incarnation is
/// the log's, since numbers are of a log, whatever process of the watchdog writes it.
pub(crate) fn batches(stretch: &Stretch, filter: &Targets) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for entry in &stretch.entries {
        let event = event(entry);
        if !filter.would_enable(&event.target, &tracing_level(event.level)) {
            continue;
        }
        let record = Record::Event(event);
        match batches.last_mut() {
            Some(run) if run.first + run.records.len() as u64 == entry.number => run.records.push(record),
            _ => batches.push(Batch {
                incarnation: stretch.place.log,
                pid: 0,
                first: entry.number,
                dropped: Vec::new(),
                records: vec![record],
            }),
        }
    }
    batches
}

fn tracing_level(level: Level) -> tracing::Level {
    match level {
        Level::Trace => tracing::Level::TRACE,
        Level::Debug => tracing::Level::DEBUG,
        Level::Info => tracing::Level::INFO,
        Level::Warn => tracing::Level::WARN,
        Level::Error => tracing::Level::ERROR,
    }
}

fn event(entry: &EventRecord) -> Event {
    Event {
        at: entry.at_us.saturating_mul(1000),
        level: level(entry),
        target: format!("{TARGET}{}", entry.what),
        message: entry.text.clone(),
        fields: fields(entry),
        within: None,
        scope: String::new(),
    }
}

fn level(entry: &EventRecord) -> Level {
    let what = entry.what.as_str();
    let is_done = || what == "ended" && evidence(entry).exit.as_deref() == Some(DONE);
    let ends_badly = || entry.cause.as_deref().is_some_and(|cause| !WANTED.contains(&cause)) && !is_done();
    let is_unwell = || !entry.text.starts_with("all is well");
    match what {
        _ if GRAVE.contains(&what) => Level::Error,
        _ if DOUBTFUL.contains(&what) => Level::Warn,
        "health" if is_unwell() => Level::Warn,
        // Of all others a cause is named where something went wrong.
        _ if ends_badly() => Level::Warn,
        _ => Level::Info,
    }
}

fn evidence(entry: &EventRecord) -> &Evidence {
    static NONE: Evidence = Evidence::NONE;
    entry.evidence.as_deref().unwrap_or(&NONE)
}

fn fields(entry: &EventRecord) -> Vec<Field> {
    let Evidence { by, verb, on, exit, signal, ready_ms, failures, last_lines } = evidence(entry);
    let lines = (!last_lines.is_empty()).then(|| last_lines.join("\n"));
    let text = |text: &String| Value::Text(text.clone());
    let named = [
        ("service", entry.service.as_ref().map(|service| Value::Text(service.to_string()))),
        ("incarnation", entry.incarnation.map(|incarnation| Value::Unsigned(incarnation.get()))),
        ("cause", entry.cause.as_ref().map(text)),
        ("revision", entry.revision.map(|revision| Value::Unsigned(revision.get()))),
        ("sequence", entry.sequence.map(|sequence| Value::Unsigned(sequence.get()))),
        ("by", by.as_ref().map(text)),
        ("verb", verb.as_ref().map(text)),
        ("on", on.as_ref().map(|on| Value::Text(on.to_string()))),
        ("exit", exit.as_ref().map(text)),
        ("signal", signal.map(|signal| Value::Signed(signal.into()))),
        ("ready_ms", ready_ms.map(Value::Unsigned)),
        ("failures", failures.map(|failures| Value::Unsigned(failures.into()))),
        ("last_lines", lines.map(Value::Text)),
    ];
    let known =
        named.into_iter().filter_map(|(key, value)| Some(Field { key: key.to_owned(), value: value? }));
    known.collect()
}

#[cfg(test)]
pub(super) mod sample {
    use super::*;

    pub(in crate::timeline) fn entry(number: u64, at_us: u64) -> EventRecord {
        EventRecord {
            number,
            at_us,
            service: Some("counter".parse().unwrap()),
            incarnation: None,
            what: "ready".to_owned(),
            cause: None,
            text: format!("entry {number}"),
            revision: None,
            sequence: None,
            evidence: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use watchdog_service::Incarnation;

    use super::sample::entry;
    use super::*;
    use crate::timeline::Place;

    fn about(what: &str, cause: Option<&str>, text: &str) -> EventRecord {
        let (what, cause, text) = (what.to_owned(), cause.map(str::to_owned), text.to_owned());
        EventRecord { what, cause, text, ..entry(1, 1) }
    }

    #[test]
    fn an_end_is_a_record_with_all_it_rests_on() {
        let evidence = Evidence {
            exit: Some("killed by SIGSEGV".into()),
            signal: Some(11),
            ready_ms: Some(1500),
            last_lines: vec!["one".into(), "two".into()],
            ..Evidence::default()
        };
        let ended = EventRecord {
            at_us: 1_795_511_591_123_456,
            incarnation: Some(Incarnation::from_stored(3)),
            evidence: Some(Box::new(evidence)),
            ..about("ended", Some("signal"), "killed by SIGSEGV")
        };
        let event = event(&ended);
        assert_eq!((event.at, event.level), (1_795_511_591_123_456_000, Level::Warn));
        assert_eq!((&*event.target, &*event.message), ("watchdog::ended", "killed by SIGSEGV"));
        let fields: Vec<_> = event.fields.iter().map(|field| (&*field.key, field.value.clone())).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(
            fields,
            [
                ("service", text("counter")),
                ("incarnation", Value::Unsigned(3)),
                ("cause", text("signal")),
                ("exit", text("killed by SIGSEGV")),
                ("signal", Value::Signed(11)),
                ("ready_ms", Value::Unsigned(1500)),
                ("last_lines", text("one\ntwo")),
            ]
        );
    }

    #[test]
    fn what_went_wrong_is_graver_than_what_was_asked_for() {
        for (what, cause, words, expected) in [
            ("ended", Some("operator"), "stopped", Level::Info),
            ("ended", Some("signal"), "killed", Level::Warn),
            ("ended", None, "completed", Level::Info),
            ("failed", Some("limit"), "failed", Level::Error),
            ("backoff", None, "next try", Level::Warn),
            ("settings", None, "revision 4 accepted", Level::Info),
            ("settings", Some("settings"), "refused", Level::Warn),
            ("health", None, "degraded: slow", Level::Warn),
            ("health", None, "all is well", Level::Info),
            ("warning", None, "cannot remove a cgroup", Level::Warn),
            ("error", None, "the door is closed", Level::Error),
            ("took-over", None, "core 2 took over", Level::Info),
        ] {
            assert_eq!(level(&about(what, cause, words)), expected, "{what} {cause:?}");
        }
    }

    #[test]
    fn a_task_that_did_its_work_is_no_trouble() {
        let exit =
            |exit: &str| Some(Box::new(Evidence { exit: Some(exit.to_owned()), ..Evidence::default() }));
        let ended = about("ended", Some("exit-code"), "ended by itself");
        for (code, expected) in [("exit code 0", Level::Info), ("exit code 1", Level::Warn)] {
            assert_eq!(level(&EventRecord { evidence: exit(code), ..ended.clone() }), expected, "{code}");
        }
    }

    proptest! {
        #[test]
        fn what_is_wanted_keeps_its_number_and_nothing_else_is_there(
            steps in prop::collection::vec((1u64..3, any::<bool>()), 1..40), log in 1u64..9
        ) {
            let mut number = 0;
            let mut wanted = Vec::new();
            let entries: Vec<_> = steps.iter().map(|(step, is_wanted)| {
                number += step;
                let what = if *is_wanted { wanted.push(number); "ready" } else { "progress" };
                EventRecord { what: what.to_owned(), ..entry(number, number) }
            }).collect();
            let mut place = Place::default();
            place.log = log;
            let stretch = Stretch { entries, place, comes_again: false };
            let batches = batches(&stretch, &"info,watchdog::progress=off".parse().unwrap());
            let seen: Vec<_> = batches.iter().flat_map(|batch| {
                (batch.first..).zip(&batch.records).map(|(number, record)| match record {
                    Record::Event(event) => (batch.incarnation, number, event.message.clone()),
                    Record::Span(_) => unreachable!("an entry is an event"),
                })
            }).collect();
            let expected: Vec<_> = wanted.iter().map(|at| (log, *at, format!("entry {at}"))).collect();
            prop_assert_eq!(seen, expected);
            // No more batches than runs.
            let runs = wanted.windows(2).filter(|pair| pair[1] != pair[0] + 1).count() + usize::from(!wanted.is_empty());
            prop_assert_eq!(batches.len(), runs);
        }
    }
}
