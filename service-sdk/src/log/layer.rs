//! The `tracing` layer: what happens becomes the bytes of a record, at once and on the thread it happens on.
//!
//! A span is known by its trace context while it lives, and becomes a record when it ends. Spans of a trace that is not
//! recorded cost their context alone, and where nobody takes records there are none.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use watchdog_protocol::record::write::{self, Fields};
use watchdog_protocol::record::{Level, SpanKind, SpanStatus};
use watchdog_protocol::trace::{SpanId, TraceContext};

use super::outlet::Outlet;
use super::trace::{self, Origin};
use crate::session::chain;

/// Memory for one record that is kept for the next; what a longer one took is given back.
const KEPT: usize = 16 * 1024;

pub(super) struct RecordLayer(pub(super) Arc<Outlet>);

/// What is known of a living span. Boxed by the registry.
struct Living {
    context: TraceContext,
    /// `None`: its trace is not recorded.
    told: Option<Box<Told>>,
}

struct Told {
    parent: Option<SpanId>,
    begun: SystemTime,
    /// The system clock may be set while the span lives; its length is by this one.
    since: Instant,
    links: Vec<TraceContext>,
    fields: Fields,
    special: Special,
}

/// What fields named by OpenTelemetry's conventions say of a span itself.
struct Special {
    name: Option<String>,
    kind: SpanKind,
    is_error: bool,
    is_ok: bool,
    why: String,
}

/// Memory for one record.
#[derive(Default)]
struct Scratch {
    message: String,
    text: String,
    scope: String,
    fields: Fields,
    record: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static IS_MUTE: Cell<bool> = const { Cell::new(false) };
}

/// Nothing that happens on this thread becomes a record: it is the one that sends them.
pub(super) fn mute() {
    IS_MUTE.set(true);
}

pub(super) fn is_mute() -> bool {
    IS_MUTE.get()
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RecordLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let origin = trace::take_origin();
        if is_mute() || !self.0.takes_spans() {
            return;
        }
        let span = context.span(id).expect("the registry has it before its layers");
        let (mut parent, mut links) = (None, Vec::new());
        let (trace, flags) = match origin {
            Some(Origin::Child(of)) => {
                parent = Some(of.span);
                (of.trace, of.flags)
            }
            Some(Origin::Root { told_by }) => {
                links.extend(told_by);
                (trace::new_trace(), TraceContext::SAMPLED)
            }
            None => match surrounding(attributes, &context) {
                Some(of) => {
                    parent = Some(of.span);
                    (of.trace, of.flags)
                }
                None => {
                    let is_sampled = self.0.is_sampled();
                    (trace::new_trace(), if is_sampled { TraceContext::SAMPLED } else { 0 })
                }
            },
        };
        let living = TraceContext { trace, span: trace::new_span(), flags };
        let told = living.is_sampled().then(|| {
            let mut told = Told {
                parent,
                begun: SystemTime::now(),
                since: Instant::now(),
                links,
                fields: Fields::default(),
                special: Special::new(),
            };
            told.record(|visitor| attributes.record(visitor));
            Box::new(told)
        });
        span.extensions_mut().insert(Living { context: living, told });
    }

    fn on_record(&self, id: &Id, values: &Values<'_>, context: Context<'_, S>) {
        change(&context, id, |living| {
            if let Some(told) = &mut living.told {
                told.record(|visitor| values.record(visitor));
            }
        });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let Some(led_by) = context.span(follows).as_ref().and_then(of) else { return };
        change(&context, id, |living| {
            if let Some(told) = &mut living.told {
                told.links.push(led_by);
            }
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if is_mute() {
            return;
        }
        scratch(|scratch| {
            let Scratch { message, text, scope, fields, record } = scratch;
            event.record(&mut Visitor { message, text, fields, special: None });
            let span = context.event_span(event);
            let within = span.as_ref().and_then(of).or_else(trace::inherited);
            if let Some(span) = &span {
                names(span, scope);
            }
            let metadata = event.metadata();
            let event = write::Event {
                at: nanoseconds(SystemTime::now()),
                level: level(metadata),
                target: metadata.target(),
                message,
                fields,
                within,
                scope,
            };
            event.append(record);
            self.0.push(record);
        });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(entered) = context.span(id).as_ref().and_then(of) {
            trace::enter(entered);
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if let Some(left) = context.span(id).as_ref().and_then(of) {
            trace::leave(left);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(Living { context: living, told: Some(told) }) = span.extensions_mut().remove() else {
            return;
        };
        if is_mute() || !self.0.takes_spans() {
            return;
        }
        let (metadata, begun) = (span.metadata(), nanoseconds(told.begun));
        let length = u64::try_from(told.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Special { name, kind, .. } = &told.special;
        let record = write::Span {
            context: living,
            parent: told.parent,
            kind: *kind,
            level: level(metadata),
            target: metadata.target(),
            name: name.as_deref().unwrap_or(metadata.name()),
            start: begun,
            end: begun.saturating_add(length),
            fields: &told.fields,
            links: &told.links,
            status: &told.special.status(),
        };
        scratch(|scratch| {
            record.append(&mut scratch.record);
            self.0.push(&scratch.record);
        });
    }
}

/// The context a span or an event that says nothing else is in.
fn surrounding<S: Subscriber + for<'a> LookupSpan<'a>>(
    attributes: &Attributes<'_>,
    context: &Context<'_, S>,
) -> Option<TraceContext> {
    if attributes.is_root() {
        return None;
    }
    match attributes.parent() {
        Some(parent) => of(&context.span(parent)?),
        None => context.lookup_current().as_ref().and_then(of).or_else(trace::inherited),
    }
}

fn of<S: for<'a> LookupSpan<'a>>(span: &SpanRef<'_, S>) -> Option<TraceContext> {
    span.extensions().get::<Living>().map(|living| living.context)
}

fn change<S: Subscriber + for<'a> LookupSpan<'a>>(
    context: &Context<'_, S>,
    id: &Id,
    change: impl FnOnce(&mut Living),
) {
    if let Some(span) = context.span(id)
        && let Some(living) = span.extensions_mut().get_mut::<Living>()
    {
        change(living);
    }
}

/// The names of a span and those around it, outermost first.
fn names<S: for<'a> LookupSpan<'a>>(span: &SpanRef<'_, S>, out: &mut String) {
    for span in span.scope().from_root() {
        if !out.is_empty() {
            out.push(':');
        }
        out.push_str(span.name());
    }
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::TRACE => Level::Trace,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::ERROR => Level::Error,
    }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// This thread's memory, empty. What happens while a record is made, in the code that shows a field, has its own.
fn scratch(with: impl FnOnce(&mut Scratch)) {
    // At the end of a thread there is none any more.
    let kept = SCRATCH.try_with(RefCell::take);
    let mut scratch = kept.unwrap_or_default();
    with(&mut scratch);
    let Scratch { message, text, scope, fields, record } = &mut scratch;
    for long in [&mut *message, text, scope] {
        long.clear();
        long.shrink_to(KEPT);
    }
    fields.clear();
    record.clear();
    record.shrink_to(KEPT);
    let _ = SCRATCH.try_with(|kept| kept.replace(scratch));
}

impl Told {
    fn record(&mut self, values: impl FnOnce(&mut Visitor<'_>)) {
        let (fields, special) = (&mut self.fields, &mut self.special);
        scratch(|Scratch { message, text, .. }| {
            values(&mut Visitor { message, text, fields, special: Some(special) });
        });
    }
}

impl Special {
    fn new() -> Self {
        Self { name: None, kind: SpanKind::Internal, is_error: false, is_ok: false, why: String::new() }
    }

    fn status(&self) -> SpanStatus {
        if self.is_error {
            SpanStatus::Error(self.why.clone())
        } else if self.is_ok {
            SpanStatus::Ok
        } else {
            SpanStatus::Unset
        }
    }

    /// Whether the field is one of these.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "otel.name" => self.name = Some(value.to_owned()),
            "otel.kind" => {
                let kinds = [
                    ("internal", SpanKind::Internal),
                    ("server", SpanKind::Server),
                    ("client", SpanKind::Client),
                    ("producer", SpanKind::Producer),
                    ("consumer", SpanKind::Consumer),
                ];
                let known = kinds.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
                self.kind = known.map_or(SpanKind::Internal, |(_, kind)| kind);
            }
            "otel.status_code" => {
                self.is_error = value.eq_ignore_ascii_case("error");
                self.is_ok = value.eq_ignore_ascii_case("ok");
            }
            "otel.status_description" | "otel.status_message" => value.clone_into(&mut self.why),
            _ => return false,
        }
        true
    }
}

/// Writes fields as they come.
struct Visitor<'a> {
    message: &'a mut String,
    /// Of the field that is written.
    text: &'a mut String,
    fields: &'a mut Fields,
    /// Of a span.
    special: Option<&'a mut Special>,
}

impl Visitor<'_> {
    fn text(&mut self, field: &Field, value: &str) {
        let is_taken = match &mut self.special {
            None if field.name() == "message" => {
                self.message.push_str(value);
                true
            }
            None => false,
            Some(special) => special.take(field.name(), value),
        };
        if !is_taken {
            self.fields.text(field.name(), value);
        }
    }

    fn shown(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.special.is_none() && field.name() == "message" {
            // A value that can't be shown is shown as far as it can.
            let _ = self.message.write_fmt(value);
            return;
        }
        let mut text = std::mem::take(self.text);
        text.clear();
        let _ = text.write_fmt(value);
        self.text(field, &text);
        *self.text = text;
    }
}

impl Visit for Visitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.float(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.signed(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.unsigned(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.bool(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.shown(field, format_args!("{value:?}"));
    }
}
