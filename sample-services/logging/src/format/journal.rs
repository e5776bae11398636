//! Entries as the journal of systemd takes them: `KEY=value` lines, one frame an entry.
//!
//! ```text
//! frame  0..4 length of the entry, 4..8 length of its head, both little endian | head | fields of the record
//! ```
//! The message ends the head: of an entry that is too long for a datagram as much of the head goes as fits, and that
//! says who, when and what.
//!
//! | key | |
//! |---|---|
//! | `PRIORITY` | 3 error, 4 warn and what was dropped, 6 info, 7 debug and trace |
//! | `SYSLOG_IDENTIFIER`, `SYSLOG_PID` | the service, and its process |
//! | `WATCHDOG_KIND`, `WATCHDOG_INCARNATION`, `WATCHDOG_NUMBER`, `WATCHDOG_TIME` | as `kind`, `incarnation`, `number`, `time` of a line of JSON |
//! | `TARGET`, `TRACE_ID`, `SPAN_ID`, `PARENT_ID` | as there |
//! | `MESSAGE` | what happened, with the fields behind it |
//! | `F_KEY` | each field by itself: its key in capitals, what no key may have in it as `_` |

use super::escape::escaped;
use super::logfmt::field;
use super::time::Clock;
use super::{Origin, hex, integer, show, signed, took};
use crate::parcel::{DroppedBy, Gap, Parcel};
use watchdog_service::log::{Event, Field, Level, Record, Span, SpanStatus, TraceContext, Value};

/// Journald takes keys of at most 64 letters.
const KEY: usize = 62;

/// One entry of a parcel, where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// All of it.
    pub(crate) whole: &'a [u8],
    /// What comes before the fields of the record.
    pub(crate) head: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The length of what stands before an entry.
    const FRAME: usize = 8;

    /// The first of these entries, and the length of its frame; `None` when there is none.
    pub(crate) fn first(entries: &'a [u8]) -> Option<(Self, usize)> {
        let (whole, rest) = entries.split_first_chunk()?;
        let (head, rest) = rest.split_first_chunk()?;
        let [whole, head] = [whole, head].map(|length| u32::from_le_bytes(*length) as usize);
        Some((Self { whole: &rest[..whole], head: &rest[..head] }, Self::FRAME + whole))
    }

    /// As much of the head as this length has room for. It ends a line.
    pub(crate) fn cut(&self, length: usize) -> Vec<u8> {
        let text = String::from_utf8_lossy(self.head);
        let mut cut =
            text[..text.floor_char_boundary(length.saturating_sub(1))].trim_end_matches('\n').to_owned();
        cut.push('\n');
        cut.into_bytes()
    }
}

/// Appends all of a parcel: what was dropped first.
pub(super) fn encode(parcel: &Parcel, out: &mut Vec<u8>) {
    let batch = &parcel.batch;
    let origin = Origin { service: parcel.service.as_str(), incarnation: batch.incarnation, pid: batch.pid };
    let mut clock = Clock::default();
    for gap in &parcel.gaps {
        framed(out, &[], |out| {
            head(out, &mut clock, origin, 4, "dropped", gap.at);
            said_gap(out, gap);
        });
    }
    for (number, record) in (batch.first..).zip(&batch.records) {
        let (Record::Event(Event { fields, .. }) | Record::Span(Span { fields, .. })) = record;
        framed(out, fields, |out| match record {
            Record::Event(event) => {
                head(out, &mut clock, origin, priority(event.level), "event", event.at);
                numbered(out, number, &event.target);
                event.within.into_iter().for_each(|within| ids(out, within));
                out.extend_from_slice(b"MESSAGE=");
                let from = out.len();
                escaped(out, &event.message);
                event.fields.iter().for_each(|Field { key, value }| field(out, key, value));
                // Of an event that has nothing but fields, the blank before the first.
                if event.message.is_empty() && from < out.len() {
                    out.remove(from);
                }
            }
            Record::Span(span) => {
                head(out, &mut clock, origin, priority(span.level), "span", span.end);
                numbered(out, number, &span.target);
                ids(out, span.context);
                said_span(out, span);
            }
        });
    }
}

/// An entry of this head, whose last line is not ended, and these fields.
fn framed(out: &mut Vec<u8>, fields: &[Field], head: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; Entry::FRAME]);
    let from = out.len();
    head(out);
    out.push(b'\n');
    let head = out.len() - from;
    fields.iter().for_each(|field| by_itself(out, field));
    let whole = out.len() - from;
    for (at, length) in [(begin, whole), (begin + 4, head)] {
        let length = u32::try_from(length).expect("a record is shorter than a packet");
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn head(out: &mut Vec<u8>, clock: &mut Clock, origin: Origin<'_>, priority: u8, kind: &str, at: u64) {
    show(out, format_args!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={}\n", origin.service));
    show(out, format_args!("SYSLOG_PID={}\nWATCHDOG_KIND={kind}\n", origin.pid));
    show(out, format_args!("WATCHDOG_INCARNATION={}\nWATCHDOG_TIME=", origin.incarnation));
    clock.nanos(out, at);
    out.push(b'\n');
}

fn numbered(out: &mut Vec<u8>, number: u64, target: &str) {
    show(out, format_args!("WATCHDOG_NUMBER={number}\nTARGET="));
    escaped(out, target);
    out.push(b'\n');
}

fn ids(out: &mut Vec<u8>, context: TraceContext) {
    out.extend_from_slice(b"TRACE_ID=");
    hex(out, &context.trace.to_bytes());
    out.extend_from_slice(b"\nSPAN_ID=");
    hex(out, &context.span.to_bytes());
    out.push(b'\n');
}

fn said_span(out: &mut Vec<u8>, span: &Span) {
    if let Some(parent) = span.parent {
        out.extend_from_slice(b"PARENT_ID=");
        hex(out, &parent.to_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"MESSAGE=");
    took(out, span);
    if let SpanStatus::Error(why) = &span.status {
        field(out, "failed", &Value::Text(why.clone()));
    }
    span.fields.iter().for_each(|Field { key, value }| field(out, key, value));
}

fn said_gap(out: &mut Vec<u8>, gap: &Gap) {
    show(out, format_args!("MESSAGE={} records dropped by ", gap.count));
    match &gap.by {
        DroppedBy::Sender => out.extend_from_slice(b"the service"),
        DroppedBy::Output(name) => show(out, format_args!("output `{name}`")),
    }
    show(out, format_args!(": {}, {} since its process started", gap.reason, gap.total));
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn by_itself(out: &mut Vec<u8>, Field { key, value }: &Field) {
    out.extend_from_slice(b"F_");
    let letters = key.chars().take(KEY).map(|letter| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' => letter.to_ascii_uppercase() as u8,
        _ => b'_',
    });
    out.extend(letters);
    out.push(b'=');
    match value {
        Value::Text(text) => escaped(out, text),
        Value::Signed(number) => signed(out, *number),
        Value::Unsigned(number) => integer(out, *number),
        Value::Float(number) => show(out, number),
        Value::Bool(yes) => show(out, yes),
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Format;
    use crate::parcel::sample;

    fn entries(parcel: &Parcel) -> Vec<Entry<'_>> {
        let mut rest = parcel.lines(Format::Journal);
        std::iter::from_fn(move || {
            let (entry, length) = Entry::first(rest)?;
            rest = &rest[length..];
            Some(entry)
        })
        .collect()
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_entry_says_who_when_and_what_and_each_field_by_itself() {
        let mut batch = sample::batch(3, 17, 1);
        let Record::Event(event) = &mut batch.records[0] else { panic!("it is an event") };
        let field = |key: &str, value| Field { key: key.into(), value };
        event.fields =
            vec![field("http.status", Value::Unsigned(200)), field("why", Value::Text("a\nb".into()))];
        let gap = Gap { at: 0, by: DroppedBy::Sender, reason: "full", count: 5, total: 9 };
        let parcel = Parcel::new("counter".parse().unwrap(), batch, vec![gap], false);
        let [gap, entry] = entries(&parcel).try_into().unwrap();
        assert_eq!(
            text(gap.whole),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=counter\nSYSLOG_PID=7\nWATCHDOG_KIND=dropped\nWATCHDOG_INCARNATION=3\n\
             WATCHDOG_TIME=1970-01-01T00:00:00.000000000Z\n\
             MESSAGE=5 records dropped by the service: full, 9 since its process started\n"
        );
        assert_eq!(
            text(entry.whole),
            "PRIORITY=6\nSYSLOG_IDENTIFIER=counter\nSYSLOG_PID=7\nWATCHDOG_KIND=event\nWATCHDOG_INCARNATION=3\n\
             WATCHDOG_TIME=2025-11-30T03:40:00.123456789Z\nWATCHDOG_NUMBER=17\nTARGET=counter::add\n\
             MESSAGE=record 17 http.status=200 why=\"a\\nb\"\nF_HTTP_STATUS=200\nF_WHY=a\\nb\n"
        );
        assert!(text(entry.head).ends_with("why=\"a\\nb\"\n"));
        assert_eq!(text(&entry.cut(30)), "PRIORITY=6\nSYSLOG_IDENTIFIER=\n");
        assert_eq!(entry.cut(10_000), entry.head);
    }

    #[test]
    fn an_event_of_fields_alone_begins_with_the_first() {
        let mut batch = sample::batch(1, 1, 2);
        for (record, fields) in batch.records.iter_mut().zip([vec![], vec![("told", 3), ("total", 6)]]) {
            let Record::Event(event) = record else { panic!("it is an event") };
            event.message.clear();
            let field = |(key, value): (&str, u64)| Field { key: key.into(), value: Value::Unsigned(value) };
            event.fields = fields.into_iter().map(field).collect();
        }
        let parcel = sample::parcel("a", batch);
        let messages = entries(&parcel).into_iter().map(|entry| text(entry.head).lines().last().unwrap());
        assert_eq!(messages.collect::<Vec<_>>(), ["MESSAGE=", "MESSAGE=told=3 total=6"]);
    }

    proptest! {
        /// Whatever a service says, each line is a key that journald takes and a value without an end of line in it.
        #[test]
        fn every_line_is_a_key_and_a_value(batch in sample::batches(), length in 300usize..3000) {
            let count = batch.records.len();
            let parcel = sample::parcel("a", batch);
            let entries = entries(&parcel);
            prop_assert_eq!(entries.len(), count);
            for entry in entries {
                let cut = entry.cut(length);
                prop_assert!(cut.len() <= length && cut.ends_with(b"\n"));
                prop_assert!(entry.whole.starts_with(entry.head));
                for line in text(entry.whole).strip_suffix('\n').unwrap().split('\n') {
                    let (key, _) = line.split_once('=').unwrap();
                    let is_key = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
                    prop_assert!(key.bytes().all(is_key) && key.len() <= 64, "{}", line);
                    prop_assert!(key.starts_with(|first: char| first.is_ascii_uppercase()), "{}", line);
                }
            }
        }
    }
}
