//! `key=value` pairs: the same as in JSON, in the same order, the fields of the record between its own.

use super::escape::{is_word, quoted};
use super::json::kind;
use super::time::Clock;
use super::{Lines, Origin, hex, integer, show, signed};
use crate::parcel::{DroppedBy, Gap};
use watchdog_service::log::{Event, Field, Level, Record, Span, SpanStatus, TraceContext, Value};

/// Keys of the line itself: a field of that name is written with a dot behind it.
const OWN: [&str; 22] = [
    "time",
    "kind",
    "service",
    "incarnation",
    "pid",
    "number",
    "level",
    "target",
    "message",
    "name",
    "scope",
    "trace_id",
    "span_id",
    "parent_id",
    "span_kind",
    "start",
    "duration_ns",
    "status",
    "error",
    "links",
    "reason",
    "count",
];

#[derive(Debug, Default)]
pub(super) struct Logfmt {
    clock: Clock,
}

impl Logfmt {
    fn head(&mut self, out: &mut Vec<u8>, at: u64, kind: &str, origin: Origin<'_>) {
        out.extend_from_slice(b"time=");
        self.clock.nanos(out, at);
        pair(out, "kind", kind);
        pair(out, "service", origin.service);
        number(out, "incarnation", origin.incarnation);
        number(out, "pid", origin.pid.into());
    }

    fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        pair(out, "level", level(event.level));
        pair(out, "target", &event.target);
        pair(out, "message", &event.message);
        fields(out, &event.fields);
        if !event.scope.is_empty() {
            pair(out, "scope", &event.scope);
        }
        if let Some(context) = event.within {
            ids(out, context);
        }
    }

    fn span(&mut self, out: &mut Vec<u8>, span: &Span) {
        pair(out, "level", level(span.level));
        pair(out, "target", &span.target);
        pair(out, "name", &span.name);
        fields(out, &span.fields);
        ids(out, span.context);
        if let Some(parent) = span.parent {
            out.extend_from_slice(b" parent_id=");
            hex(out, &parent.to_bytes());
        }
        pair(out, "span_kind", kind(span.kind));
        out.extend_from_slice(b" start=");
        self.clock.nanos(out, span.start);
        number(out, "duration_ns", span.end.saturating_sub(span.start));
        match &span.status {
            SpanStatus::Unset => {}
            SpanStatus::Ok => pair(out, "status", "ok"),
            SpanStatus::Error(why) => {
                pair(out, "status", "error");
                pair(out, "error", why);
            }
        }
        for (at, link) in span.links.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b" links=" } else { b"," });
            hex(out, &link.trace.to_bytes());
            out.push(b'-');
            hex(out, &link.span.to_bytes());
        }
    }
}

impl Lines for Logfmt {
    fn record(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, at: u64, record: &Record) {
        match record {
            Record::Event(event) => {
                self.head(out, event.at, "event", origin);
                number(out, "number", at);
                self.event(out, event);
            }
            Record::Span(span) => {
                self.head(out, span.end, "span", origin);
                number(out, "number", at);
                self.span(out, span);
            }
        }
    }

    fn gap(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, gap: &Gap) {
        self.head(out, gap.at, "dropped", origin);
        if let DroppedBy::Output(output) = &gap.by {
            pair(out, "output", output);
        }
        pair(out, "reason", gap.reason);
        number(out, "count", gap.count);
        number(out, "total", gap.total);
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

fn pair(out: &mut Vec<u8>, key: &str, text: &str) {
    out.push(b' ');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    value(out, text);
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.push(b' ');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    integer(out, value);
}

fn ids(out: &mut Vec<u8>, context: TraceContext) {
    out.extend_from_slice(b" trace_id=");
    hex(out, &context.trace.to_bytes());
    out.extend_from_slice(b" span_id=");
    hex(out, &context.span.to_bytes());
}

fn value(out: &mut Vec<u8>, text: &str) {
    if is_word(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        quoted(out, text);
    }
}

fn fields(out: &mut Vec<u8>, fields: &[Field]) {
    for Field { key, value } in fields {
        field(out, key, value);
    }
}

/// A blank, and a pair.
pub(super) fn field(out: &mut Vec<u8>, key: &str, what: &Value) {
    out.push(b' ');
    // A key can't be quoted.
    out.extend(
        key.bytes()
            .map(|byte| if byte.is_ascii_graphic() && !b"\"=\\".contains(&byte) { byte } else { b'_' }),
    );
    if key.is_empty() {
        out.push(b'_');
    } else if OWN.contains(&key) {
        out.push(b'.');
    }
    out.push(b'=');
    match what {
        Value::Text(text) => value(out, text),
        Value::Signed(number) => signed(out, *number),
        Value::Unsigned(number) => integer(out, *number),
        Value::Float(number) => show(out, number),
        Value::Bool(yes) => show(out, yes),
    }
}
