//! A line for people: when, how grave, who, what; the rest behind it.

use super::escape::escaped;
use super::logfmt::field;
use super::time::Clock;
use super::{Lines, Origin, hex, integer, show, took};
use crate::parcel::{DroppedBy, Gap};
use watchdog_service::log::{Event, Field, Level, Record, Span, SpanStatus, TraceContext, Value};

const FAINT: &str = "2";
const STRONG: &str = "1";
const BAD: &str = "31";

#[derive(Debug)]
pub(super) struct Pretty {
    clock: Clock,
    has_colour: bool,
}

impl Pretty {
    pub(super) fn plain() -> Self {
        Self { clock: Clock::default(), has_colour: false }
    }

    pub(super) fn coloured() -> Self {
        Self { has_colour: true, ..Self::plain() }
    }

    fn paint(&self, out: &mut Vec<u8>, colour: &str, what: impl FnOnce(&mut Vec<u8>)) {
        if !self.has_colour {
            return what(out);
        }
        show(out, format_args!("\u{1b}[{colour}m"));
        what(out);
        out.extend_from_slice(b"\x1b[0m");
    }

    fn head(&mut self, out: &mut Vec<u8>, at: u64, level: Option<Level>, origin: Origin<'_>) {
        if self.has_colour {
            out.extend_from_slice(b"\x1b[2m");
        }
        self.clock.millis(out, at);
        if self.has_colour {
            out.extend_from_slice(b"\x1b[0m");
        }
        out.push(b' ');
        let (colour, word) = match level {
            Some(Level::Trace) => ("35", "TRACE"),
            Some(Level::Debug) => ("34", "DEBUG"),
            Some(Level::Info) => ("32", "INFO "),
            Some(Level::Warn) => ("33", "WARN "),
            Some(Level::Error) => (BAD, "ERROR"),
            None => (BAD, "-----"),
        };
        self.paint(out, colour, |out| out.extend_from_slice(word.as_bytes()));
        out.push(b' ');
        self.paint(out, STRONG, |out| out.extend_from_slice(origin.service.as_bytes()));
    }

    fn event(&self, out: &mut Vec<u8>, event: &Event) {
        self.paint(out, FAINT, |out| {
            out.push(b' ');
            escaped(out, &event.target);
            if !event.scope.is_empty() {
                out.push(b' ');
                escaped(out, &event.scope);
            }
            out.push(b':');
        });
        if !event.message.is_empty() {
            out.push(b' ');
            escaped(out, &event.message);
        }
        self.tail(out, &event.fields, event.within);
    }

    fn span(&self, out: &mut Vec<u8>, span: &Span) {
        self.paint(out, FAINT, |out| {
            out.push(b' ');
            escaped(out, &span.target);
            out.push(b':');
        });
        out.push(b' ');
        took(out, span);
        if let SpanStatus::Error(why) = &span.status {
            self.paint(out, BAD, |out| field(out, "failed", &Value::Text(why.clone())));
        }
        self.tail(out, &span.fields, Some(span.context));
    }

    fn tail(&self, out: &mut Vec<u8>, fields: &[Field], context: Option<TraceContext>) {
        for Field { key, value } in fields {
            field(out, key, value);
        }
        if let Some(context) = context {
            self.paint(out, FAINT, |out| {
                out.extend_from_slice(b" trace=");
                hex(out, &context.trace.to_bytes());
            });
        }
    }
}

impl Lines for Pretty {
    fn record(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, _: u64, record: &Record) {
        match record {
            Record::Event(event) => {
                self.head(out, event.at, Some(event.level), origin);
                self.event(out, event);
            }
            Record::Span(span) => {
                self.head(out, span.end, Some(span.level), origin);
                self.span(out, span);
            }
        }
    }

    fn gap(&mut self, out: &mut Vec<u8>, origin: Origin<'_>, gap: &Gap) {
        self.head(out, gap.at, None, origin);
        out.extend_from_slice(b": ");
        integer(out, gap.count);
        out.extend_from_slice(b" records dropped by ");
        match &gap.by {
            DroppedBy::Sender => out.extend_from_slice(b"the service"),
            DroppedBy::Output(output) => {
                out.extend_from_slice(b"output `");
                escaped(out, output);
                out.push(b'`');
            }
        }
        out.extend_from_slice(b": ");
        out.extend_from_slice(gap.reason.as_bytes());
    }
}
