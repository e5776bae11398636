//! An object a line. `main.rs` documents its keys; readers may count on their order up to `number`.

use std::io::Write as _;

use super::escape::quoted;
use super::time::Clock;
use super::{Lines, Origin, hex, integer, signed};
use crate::parcel::{DroppedBy, Gap};
use watchdog_service::log::{Event, Field, Record, Span, SpanKind, SpanStatus, TraceContext, Value};

#[derive(Debug, Default)]
pub(super) struct Json {
    clock: Clock,
}

impl Json {
    fn head(&mut self, out: &mut Vec<u8>, at: u64, kind: &str, origin: Origin<'_>) {
        out.extend_from_slice(b"{\"time\":\"");
        self.clock.nanos(out, at);
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(kind.as_bytes());
        // Names of services are letters, digits, `-` and `@`.
        out.extend_from_slice(b"\",\"service\":\"");
        out.extend_from_slice(origin.service.as_bytes());
        out.extend_from_slice(b"\",\"incarnation\":");
        integer(out, origin.incarnation);
        out.extend_from_slice(b",\"pid\":");
        integer(out, origin.pid.into());
    }

    fn event(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, number: u64, event: &Event) {
        self.head(out, event.at, "event", origin);
        key(out, "number");
        integer(out, number);
        word(out, "level", event.level.as_str());
        text(out, "target", &event.target);
        text(out, "message", &event.message);
        fields(out, &event.fields);
        if !event.scope.is_empty() {
            text(out, "scope", &event.scope);
        }
        if let Some(context) = event.within {
            out.push(b',');
            ids(out, context);
        }
        out.push(b'}');
    }

    fn span(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, number: u64, span: &Span) {
        self.head(out, span.end, "span", origin);
        key(out, "number");
        integer(out, number);
        word(out, "level", span.level.as_str());
        text(out, "target", &span.target);
        text(out, "name", &span.name);
        fields(out, &span.fields);
        out.push(b',');
        ids(out, span.context);
        if let Some(parent) = span.parent {
            out.extend_from_slice(b",\"parent_id\":\"");
            hex(out, &parent.to_bytes());
            out.push(b'"');
        }
        word(out, "span_kind", kind(span.kind));
        out.extend_from_slice(b",\"start\":\"");
        self.clock.nanos(out, span.start);
        out.extend_from_slice(b"\",\"end\":\"");
        self.clock.nanos(out, span.end);
        out.extend_from_slice(b"\",\"duration_ns\":");
        integer(out, span.end.saturating_sub(span.start));
        match &span.status {
            SpanStatus::Unset => {}
            SpanStatus::Ok => word(out, "status", "ok"),
            SpanStatus::Error(why) => {
                word(out, "status", "error");
                text(out, "error", why);
            }
        }
        if !span.links.is_empty() {
            key(out, "links");
            for (at, link) in span.links.iter().enumerate() {
                out.extend_from_slice(if at == 0 { b"[{" } else { b",{" });
                ids(out, *link);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}

impl Lines for Json {
    fn record(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, number: u64, record: &Record) {
        match record {
            Record::Event(event) => self.event(out, origin, number, event),
            Record::Span(span) => self.span(out, origin, number, span),
        }
    }

    fn gap(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, gap: &Gap) {
        self.head(out, gap.at, "dropped", origin);
        if let DroppedBy::Output(output) = &gap.by {
            text(out, "output", output);
        }
        word(out, "reason", gap.reason);
        key(out, "count");
        integer(out, gap.count);
        key(out, "total");
        integer(out, gap.total);
        out.push(b'}');
    }
}

pub(super) fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

fn key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A value with nothing in it to escape.
fn word(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    quoted(out, value);
}

fn ids(out: &mut Vec<u8>, context: TraceContext) {
    out.extend_from_slice(b"\"trace_id\":\"");
    hex(out, &context.trace.to_bytes());
    out.extend_from_slice(b"\",\"span_id\":\"");
    hex(out, &context.span.to_bytes());
    out.push(b'"');
}

fn fields(out: &mut Vec<u8>, fields: &[Field]) {
    if fields.is_empty() {
        return;
    }
    key(out, "fields");
    for (at, field) in fields.iter().enumerate() {
        out.push(if at == 0 { b'{' } else { b',' });
        quoted(out, &field.key);
        out.push(b':');
        match &field.value {
            Value::Text(value) => quoted(out, value),
            Value::Signed(value) => signed(out, *value),
            Value::Unsigned(value) => integer(out, *value),
            // JSON has no other numbers.
            Value::Float(value) if value.is_finite() => {
                serde_json::to_writer(out.by_ref(), value).expect("memory takes all that is written to it");
            }
            Value::Float(value) => {
                out.push(b'"');
                super::show(out, value);
                out.push(b'"');
            }
            Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        }
    }
    out.push(b'}');
}
