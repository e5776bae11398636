//! From records to lines. Every line is one record, whatever is in it, and none commands a terminal.

mod escape;
mod journal;
mod json;
mod logfmt;
mod pretty;
mod time;

use std::time::Duration;

use crate::parcel::{Gap, Parcel};
use watchdog_service::log::{Record, Span};

pub(crate) use self::journal::Entry;
pub(crate) use self::time::stamp;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    /// An object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// For people.
    Pretty,
    /// For people at a terminal.
    Colour,
    /// No lines, but [entries](Entry) for the journal of systemd.
    Journal,
}

impl Format {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::Journal as usize + 1;
}

/// What a line says beside its record.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    service: &'a str,
    incarnation: u64,
    pid: u32,
}

/// One kind of line.
trait Lines {
    fn record(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, number: u64, record: &Record);
    fn gap(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, gap: &Gap);
}

/// Appends all of a parcel: what was dropped first.
pub(crate) fn encode(format: Format, parcel: &Parcel, out: &mut Vec<u8>) {
    match format {
        Format::Json => lines(&mut json::Json::default(), parcel, out),
        Format::Logfmt => lines(&mut logfmt::Logfmt::default(), parcel, out),
        Format::Pretty => lines(&mut pretty::Pretty::plain(), parcel, out),
        Format::Colour => lines(&mut pretty::Pretty::coloured(), parcel, out),
        Format::Journal => journal::encode(parcel, out),
    }
}

fn lines(lines: &mut impl Lines, parcel: &Parcel, out: &mut Vec<u8>) {
    let batch = &parcel.batch;
    let origin = Origin { service: parcel.service.as_str(), incarnation: batch.incarnation, pid: batch.pid };
    for gap in &parcel.gaps {
        lines.gap(out, origin, gap);
        out.push(b'\n');
    }
    for (number, record) in (batch.first..).zip(&batch.records) {
        lines.record(out, origin, number, record);
        out.push(b'\n');
    }
}

/// What a span is for people: its name, and how long it took.
fn took(out: &mut Vec<u8>, span: &Span) {
    escape::escaped(out, &span.name);
    let took = Duration::from_nanos(span.end.saturating_sub(span.start));
    show(out, format_args!(" took {took:?}").to_string().replace('µ', "u"));
}

/// As `Display` has it.
fn show(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{value}").expect("memory takes all that is written to it");
}

/// In decimal digits.
fn integer(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// With a sign when it is below zero.
fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    integer(out, value.unsigned_abs());
}

/// In lower-case hexadecimal digits.
fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parcel::{DroppedBy, sample};
    use watchdog_service::log::{
        Event, Field, Level, Span, SpanId, SpanKind, SpanStatus, TraceContext, TraceId, Value,
    };

    /// All that are lines.
    const ALL: [Format; 4] = [Format::Json, Format::Logfmt, Format::Pretty, Format::Colour];

    fn encoded(format: Format, parcel: &Parcel) -> String {
        String::from_utf8(parcel.lines(format).to_vec()).unwrap()
    }

    fn example() -> Parcel {
        let context =
            TraceContext { trace: TraceId::new(7).unwrap(), span: SpanId::new(8).unwrap(), flags: 1 };
        let field = |key: &str, value| Field { key: key.into(), value };
        let event = Record::Event(Event {
            at: 1_764_474_000_123_456_789,
            level: Level::Warn,
            target: "counter::add".into(),
            message: "said \"no\"\nand\u{1b}[31m left".into(),
            fields: vec![
                field("n", Value::Signed(-3)),
                field("share", Value::Float(f64::NAN)),
                field("half", Value::Float(0.5)),
                field("path", Value::Text("/a b".into())),
                field("again", Value::Bool(true)),
            ],
            within: Some(context),
            scope: "bump:ask".into(),
        });
        let span = Record::Span(Span {
            context,
            parent: SpanId::new(9),
            kind: SpanKind::Client,
            level: Level::Info,
            target: "bumper".into(),
            name: "ask".into(),
            start: 1_764_474_000_000_000_000,
            end: 1_764_474_000_001_500_000,
            fields: vec![field("total", Value::Unsigned(u64::MAX))],
            links: vec![context],
            status: SpanStatus::Error("late".into()),
        });
        let mut batch = sample::batch(3, 41, 0);
        batch.records = vec![event, span];
        let gaps = vec![
            Gap { at: 1_764_474_000_000_000_000, by: DroppedBy::Sender, reason: "full", count: 5, total: 9 },
            Gap {
                at: 1_764_474_000_000_000_000,
                by: DroppedBy::Output("file".into()),
                reason: "queue-full",
                count: 2,
                total: 2,
            },
        ];
        Parcel::new("counter".parse().unwrap(), batch, gaps, false)
    }

    #[test]
    fn a_json_line_has_this_shape() {
        let expected = concat!(
            r#"{"time":"2025-11-30T03:40:00.000000000Z","kind":"dropped","service":"counter","incarnation":3,"pid":7,"#,
            r#""reason":"full","count":5,"total":9}"#,
            "\n",
            r#"{"time":"2025-11-30T03:40:00.000000000Z","kind":"dropped","service":"counter","incarnation":3,"pid":7,"#,
            r#""output":"file","reason":"queue-full","count":2,"total":2}"#,
            "\n",
            r#"{"time":"2025-11-30T03:40:00.123456789Z","kind":"event","service":"counter","incarnation":3,"pid":7,"#,
            r#""number":41,"level":"WARN","target":"counter::add","message":"said \"no\"\nand\u001b[31m left","#,
            r#""fields":{"n":-3,"share":"NaN","half":0.5,"path":"/a b","again":true},"scope":"bump:ask","#,
            r#""trace_id":"00000000000000000000000000000007","span_id":"0000000000000008"}"#,
            "\n",
            r#"{"time":"2025-11-30T03:40:00.001500000Z","kind":"span","service":"counter","incarnation":3,"pid":7,"#,
            r#""number":42,"level":"INFO","target":"bumper","name":"ask","#,
            r#""fields":{"total":18446744073709551615},"trace_id":"00000000000000000000000000000007","#,
            r#""span_id":"0000000000000008","parent_id":"0000000000000009","span_kind":"client","#,
            r#""start":"2025-11-30T03:40:00.000000000Z","end":"2025-11-30T03:40:00.001500000Z","#,
            r#""duration_ns":1500000,"status":"error","error":"late","#,
            r#""links":[{"trace_id":"00000000000000000000000000000007","span_id":"0000000000000008"}]}"#,
            "\n",
        );
        assert_eq!(encoded(Format::Json, &example()), expected);
    }

    #[test]
    fn a_logfmt_line_has_this_shape() {
        let expected = concat!(
            "time=2025-11-30T03:40:00.000000000Z kind=dropped service=counter incarnation=3 pid=7 ",
            "reason=full count=5 total=9\n",
            "time=2025-11-30T03:40:00.000000000Z kind=dropped service=counter incarnation=3 pid=7 ",
            "output=file reason=queue-full count=2 total=2\n",
            "time=2025-11-30T03:40:00.123456789Z kind=event service=counter incarnation=3 pid=7 number=41 ",
            r#"level=warn target=counter::add message="said \"no\"\nand\u001b[31m left" "#,
            r#"n=-3 share=NaN half=0.5 path="/a b" again=true scope=bump:ask "#,
            "trace_id=00000000000000000000000000000007 span_id=0000000000000008\n",
            "time=2025-11-30T03:40:00.001500000Z kind=span service=counter incarnation=3 pid=7 number=42 ",
            "level=info target=bumper name=ask total=18446744073709551615 ",
            "trace_id=00000000000000000000000000000007 span_id=0000000000000008 parent_id=0000000000000009 ",
            "span_kind=client start=2025-11-30T03:40:00.000000000Z duration_ns=1500000 status=error error=late ",
            "links=00000000000000000000000000000007-0000000000000008\n",
        );
        assert_eq!(encoded(Format::Logfmt, &example()), expected);
    }

    #[test]
    fn a_pretty_line_has_this_shape() {
        let expected = concat!(
            "2025-11-30T03:40:00.000Z ----- counter: 5 records dropped by the service: full\n",
            "2025-11-30T03:40:00.000Z ----- counter: 2 records dropped by output `file`: queue-full\n",
            "2025-11-30T03:40:00.123Z WARN  counter counter::add bump:ask: said \\\"no\\\"\\nand\\u001b[31m left ",
            "n=-3 share=NaN half=0.5 path=\"/a b\" again=true trace=00000000000000000000000000000007\n",
            "2025-11-30T03:40:00.001Z INFO  counter bumper: ask took 1.5ms failed=late total=18446744073709551615 ",
            "trace=00000000000000000000000000000007\n",
        );
        assert_eq!(encoded(Format::Pretty, &example()), expected);
        let coloured = encoded(Format::Colour, &example());
        assert!(coloured.contains("\u{1b}[33mWARN \u{1b}[0m"), "{coloured}");
    }

    proptest! {
        #[test]
        fn a_line_of_json_is_the_record_whatever_is_in_it(batch in sample::batches()) {
            let parcel = sample::parcel("counter", batch);
            let text = encoded(Format::Json, &parcel);
            prop_assert_eq!(text.lines().count(), parcel.batch.records.len());
            for (line, record) in text.split('\n').zip(&parcel.batch.records) {
                let read: serde_json::Value = serde_json::from_str(line).unwrap();
                let fields = match record {
                    Record::Event(event) => {
                        prop_assert_eq!(read["message"].as_str(), Some(event.message.as_str()));
                        &event.fields
                    }
                    Record::Span(span) => {
                        prop_assert_eq!(read["name"].as_str(), Some(span.name.as_str()));
                        &span.fields
                    }
                };
                // Of fields with the same name the last is read.
                for field in fields.iter().filter(|field| fields.iter().filter(|o| o.key == field.key).count() == 1) {
                    let found = &read["fields"][&field.key];
                    match &field.value {
                        Value::Text(text) => prop_assert_eq!(found.as_str(), Some(text.as_str())),
                        Value::Signed(number) => prop_assert_eq!(found.as_i64(), Some(*number)),
                        Value::Unsigned(number) => prop_assert_eq!(found.as_u64(), Some(*number)),
                        Value::Float(number) if number.is_finite() => {
                            // By its text: the reader's last bit is as it likes, unless it is told otherwise.
                            let text = serde_json::to_string(number).unwrap();
                            prop_assert_eq!(text.parse(), Ok(*number));
                            prop_assert!(line.contains(&text), "{}", line);
                            prop_assert!(found.is_f64());
                        }
                        Value::Float(_) => prop_assert!(found.is_string()),
                        Value::Bool(yes) => prop_assert_eq!(found.as_bool(), Some(*yes)),
                    }
                }
            }
        }

        #[test]
        fn a_record_is_one_line_that_commands_no_terminal(batch in sample::batches()) {
            let parcel = sample::parcel("counter", batch);
            for format in ALL {
                let text = encoded(format, &parcel);
                prop_assert_eq!(text.matches('\n').count(), parcel.batch.records.len());
                let commands = text.chars().any(|c| c.is_control() && c != '\n');
                prop_assert!(!commands || format == Format::Colour, "{:?}", text);
            }
        }
    }
}
