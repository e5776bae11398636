//! Records for tests.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::parcel::Parcel;
use watchdog_service::log::{
    Batch, Event, Field, Level, Record, Span, SpanId, SpanKind, SpanStatus, TraceContext, TraceId, Value,
};

/// Records of a process, numbered from the first.
pub(super) fn parcel(service: &str, incarnation: u64, first: u64, records: Vec<Record>) -> Arc<Parcel> {
    let batch = Batch { incarnation, pid: 4711, first, dropped: Vec::new(), records };
    Arc::new(Parcel::new(service.parse().unwrap(), batch, Vec::new(), false))
}

pub(super) fn event(message: &str) -> Record {
    Record::Event(Event {
        at: 1_000_000_007,
        level: Level::Info,
        target: "counter::add".to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
        within: None,
        scope: String::new(),
    })
}

pub(super) fn span(name: &str) -> Record {
    Record::Span(Span {
        context: context(7, 8),
        parent: None,
        kind: SpanKind::Server,
        level: Level::Info,
        target: "counter".to_owned(),
        name: name.to_owned(),
        start: 1_000_000_000,
        end: 1_000_000_500,
        fields: Vec::new(),
        links: Vec::new(),
        status: SpanStatus::Unset,
    })
}

pub(super) fn context(trace: u128, span: u64) -> TraceContext {
    TraceContext {
        trace: TraceId::new(trace).unwrap(),
        span: SpanId::new(span).unwrap(),
        flags: TraceContext::SAMPLED,
    }
}

fn fields() -> impl Strategy<Value = Vec<Field>> {
    let value = prop_oneof![
        "\\PC{0,9}".prop_map(Value::Text),
        any::<i64>().prop_map(Value::Signed),
        any::<u64>().prop_map(Value::Unsigned),
        any::<f64>().prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
    ];
    vec(("[a-z.]{1,8}", value).prop_map(|(key, value)| Field { key, value }), 0..4)
}

fn contexts() -> impl Strategy<Value = TraceContext> {
    (1u128.., 1u64.., any::<u8>())
        .prop_map(|(trace, span, flags)| TraceContext { flags, ..context(trace, span) })
}

/// Events and spans, of a few targets.
pub(super) fn records() -> impl Strategy<Value = Record> {
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    let kinds =
        [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
    let level = || prop::sample::select(levels.to_vec());
    let status =
        prop_oneof![Just(SpanStatus::Unset), Just(SpanStatus::Ok), "\\PC{0,9}".prop_map(SpanStatus::Error)];
    let event =
        (any::<u64>(), level(), "[ab]", "\\PC{0,9}", fields(), prop::option::of(contexts()), "[a:]{0,3}")
            .prop_map(|(at, level, target, message, fields, within, scope)| {
                Record::Event(Event { at, level, target, message, fields, within, scope })
            });
    let parts = (contexts(), prop::option::of(1u64..), prop::sample::select(kinds.to_vec()), level(), status);
    let span = (parts, ("[ab]", "\\PC{0,9}", any::<u64>(), any::<u64>()), fields(), vec(contexts(), 0..3))
        .prop_map(|((context, parent, kind, level, status), (target, name, start, end), fields, links)| {
            let parent = parent.and_then(SpanId::new);
            Record::Span(Span {
                context,
                parent,
                kind,
                level,
                target,
                name,
                start,
                end,
                fields,
                links,
                status,
            })
        });
    prop_oneof![event, span]
}
