//! `watchdog trace`: one trace as a tree, from the records of all services.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use watchdog_protocol::trace::TraceId;

use super::console::{Console, Format};
use super::figures::short;
use super::look::{Look, Paint, harmless};
use super::record;
use super::report::CliError;
use crate::records::{Level, Record, Records, What};
use crate::tail::{Back, Follow};

/// Show one trace as a tree: the spans of all services with when they began and how long they took, and what happened in
/// them.
///
/// Read from the records the logging service wrote. Spans that are still going on are not there yet; what they are the
/// parents of stands at the margin.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog trace 0af7651916cd43dd8448eb211c80319c\n\nThe id is in the records: watchdog logs --spans --json"
)]
pub(super) struct Arguments {
    /// 32 hexadecimal digits.
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: TraceId,
}

fn parse_id(text: &str) -> Result<TraceId, String> {
    TraceId::parse(text).ok_or_else(|| "expected 32 hexadecimal digits, as trace_id in a record".to_owned())
}

impl Arguments {
    pub(super) fn execute(&self, console: &Console) -> Result<(), CliError> {
        let place = console.place()?;
        let unreadable =
            |source| CliError::File { what: "read the records in", path: place.logs.clone(), source };
        let records = Records::of(&place.logs);
        let services: Vec<_> = records.services().map_err(unreadable)?.into_iter().collect();
        let id = self.id.to_string();
        let is_of_it = |record: &Record| {
            let led_to = match &record.what {
                What::Span { links, .. } => links.iter().any(|link| link.trace_id == id),
                _ => false,
            };
            led_to || record.trace_id.as_ref() == Some(&id)
        };
        let (_, found) = Follow::start_where(records, &services, Back::records(usize::MAX), is_of_it)
            .map_err(unreadable)?;
        if found.is_empty() {
            return Err(CliError::NoTrace { id, services: services.len() });
        }
        match console.format {
            Format::Json => {
                let lines: String = found.iter().map(|record| record.json.clone() + "\n").collect();
                console.print(&super::look::harmless_json(&lines))
            }
            Format::Text => console.print(&tree(&id, &found, &console.look)),
        }
    }
}

/// A span or an event, and what is within it.
struct Node<'r> {
    record: &'r Record,
    at: Timestamp,
}

/// The tree as text: a line a record.
fn tree(id: &str, records: &[Record], look: &Look) -> String {
    let mut nodes: Vec<_> = records.iter().map(|record| Node { record, at: began(record) }).collect();
    nodes.sort_by_key(|node| node.at);
    let (led_to, own): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.record.trace_id.as_deref() != Some(id));
    let is_span = |node: &&Node<'_>| matches!(node.record.what, What::Span { .. });
    let known: BTreeSet<_> =
        own.iter().filter(is_span).filter_map(|node| node.record.span_id.as_deref()).collect();
    let mut within: BTreeMap<Option<&str>, Vec<&Node<'_>>> = BTreeMap::new();
    for node in &own {
        let around = match &node.record.what {
            What::Span { parent_id, .. } => parent_id.as_deref(),
            _ => node.record.span_id.as_deref(),
        };
        within.entry(around.filter(|around| known.contains(around))).or_default().push(node);
    }
    let start = own.first().or(led_to.first()).map_or(Timestamp::UNIX_EPOCH, |first| first.at);
    let services: BTreeSet<_> = own.iter().map(|node| &node.record.service).collect();
    let spans = own.iter().filter(is_span).count();
    let mut out = format!(
        "trace {id}: {spans} {} of {} {}, from {start}\n",
        if spans == 1 { "span" } else { "spans" },
        services.len(),
        if services.len() == 1 { "service" } else { "services" },
    );
    // No recursion: how deep a trace is, others decide. A span that is its own ancestor hangs on no root.
    let mut open: Vec<(usize, &Node<'_>)> = Vec::new();
    let push = |open: &mut Vec<_>, depth, around: Option<&str>| {
        open.extend(within.get(&around).into_iter().flatten().rev().map(|node| (depth, *node)));
    };
    push(&mut open, 0, None);
    while let Some((depth, node)) = open.pop() {
        out.push_str(&line(depth, node, start, look));
        if is_span(&node) {
            push(&mut open, depth + 1, node.record.span_id.as_deref());
        }
    }
    for node in led_to {
        let other = node.record.trace_id.as_deref().unwrap_or_default();
        let what = format!("led to {} {} in trace {other}\n", node.record.service, record::said(node.record));
        out.push_str(&harmless(what.trim_end()));
        out.push('\n');
    }
    out
}

fn line(depth: usize, node: &Node<'_>, start: Timestamp, look: &Look) -> String {
    /// Deeper ones stand no further to the right.
    const DEEPEST: usize = 24;
    let since = node.at.as_nanosecond() - start.as_nanosecond();
    let indent = "  ".repeat(depth.min(DEEPEST));
    let paint = match (&node.record.what, node.record.level) {
        (What::Span { status: Some(status), .. }, _) if status == "error" => Paint::Bad,
        (_, Some(Level::Error)) => Paint::Bad,
        (_, Some(Level::Warn)) => Paint::Doubtful,
        _ => Paint::Plain,
    };
    let said = match (&node.record.what, node.record.level) {
        (What::Event { .. }, Some(level)) => format!("{} {}", level.as_str(), record::said(node.record)),
        _ => record::said(node.record),
    };
    let said = format!("{}  {}", node.record.service, said);
    let since = format!("{:>9}", format!("+{}", short(since as f64)));
    format!("{}  {indent}{}\n", look.paint(Paint::Faint, &since), look.paint(paint, &harmless(&said)))
}

/// When it began; an event, when it happened.
fn began(record: &Record) -> Timestamp {
    let text = match &record.what {
        What::Span { start, .. } => start,
        _ => &record.time,
    };
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, width: None };
    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn span(trace: &str, service: &str, name: &str, ids: (&str, Option<&str>), ms: (u64, u64)) -> Record {
        let ((id, parent), (from, until)) = (ids, ms);
        let parent = parent.map(|parent| format!(r#""parent_id":"{parent}","#)).unwrap_or_default();
        let json = format!(
            r#"{{"time":"2026-11-30T04:15:00.{until:03}Z","kind":"span","service":"{service}","level":"INFO","target":"t","name":"{name}","trace_id":"{trace}","span_id":"{id}",{parent}"span_kind":"client","start":"2026-11-30T04:15:00.{from:03}Z","duration_ns":{},"links":[{{"trace_id":"{ID}","span_id":"1"}}]}}"#,
            (until - from) * 1_000_000
        );
        serde_json::from_str(&json).unwrap()
    }

    fn event(within: &str, at: u64) -> Record {
        let json = format!(
            r#"{{"time":"2026-11-30T04:15:00.{at:03}Z","kind":"event","service":"c","level":"WARN","target":"t","message":"slow","trace_id":"{ID}","span_id":"{within}"}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn spans_stand_under_their_parents_and_events_in_their_spans_by_time() {
        let records = [
            span(ID, "c", "late", ("4", Some("2")), (30, 50)),
            event("3", 22),
            span(ID, "c", "early", ("3", Some("2")), (20, 29)),
            span(ID, "a", "request", ("1", None), (0, 90)),
            span(ID, "b", "handle", ("2", Some("1")), (10, 60)),
            span(ID, "d", "orphan", ("9", Some("8")), (70, 80)),
            span("1234", "e", "told", ("5", None), (95, 96)),
        ];
        assert_eq!(
            tree(ID, &records, &PLAIN),
            format!(
                "trace {ID}: 5 spans of 4 services, from 2026-11-30T04:15:00Z\n     \
                 +0ns  a  span request took 90.0ms\n  \
                 +10.0ms    b  span handle took 50.0ms\n  \
                 +20.0ms      c  span early took 9.0ms\n  \
                 +22.0ms        c  WARN t: slow\n  \
                 +30.0ms      c  span late took 20.0ms\n  \
                 +70.0ms  d  span orphan took 10.0ms\n\
                 led to e span told took 1.0ms in trace 1234\n"
            )
        );
    }

    #[test]
    fn spans_that_are_their_own_ancestors_end_it_too() {
        let records = [
            span(ID, "a", "one", ("1", Some("2")), (0, 1)),
            span(ID, "a", "two", ("2", Some("1")), (0, 1)),
            span(ID, "a", "self", ("3", Some("3")), (0, 1)),
        ];
        assert_eq!(tree(ID, &records, &PLAIN).lines().count(), 1);
    }

    #[test]
    fn an_id_is_32_digits() {
        assert!(parse_id(ID).is_ok());
        assert!(parse_id("12").is_err() && parse_id(&"0".repeat(32)).is_err());
    }
}
