use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::otlp::samples::{context, event, parcel, records, span};
use crate::otlp::slice::weight;
use crate::parcel::Parcel;
use watchdog_service::log::{Event, Level, Span, SpanId, SpanKind, SpanStatus};

fn slices(all: &[Arc<Parcel>], kind: RecordKind) -> Vec<Slice> {
    all.iter().filter_map(|parcel| Slice::whole(parcel, kind)).collect()
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn read(attributes: &[KeyValue]) -> Vec<(&str, Any)> {
    let value = |pair: &KeyValue| pair.value.clone().and_then(|found| found.value).expect("a value");
    attributes.iter().map(|pair| (pair.key.as_str(), value(pair))).collect()
}

#[test]
fn an_event_in_a_span_is_a_log_record_with_its_ids() {
    let fields = [
        ("n", Value::Signed(-3)),
        ("total", Value::Unsigned(300)),
        ("most", Value::Unsigned(u64::MAX)),
        ("share", Value::Float(0.5)),
        ("again", Value::Bool(true)),
        ("peer", Value::Text("bumper".to_owned())),
    ];
    let fields = fields.map(|(key, value)| Field { key: key.to_owned(), value }).to_vec();
    let record = Record::Event(Event {
        at: 1_700_000_000_000_000_001,
        level: Level::Warn,
        target: "counter::add".to_owned(),
        message: "late".to_owned(),
        fields,
        within: Some(context(7, 8)),
        scope: "add:save".to_owned(),
    });
    let told = parcel("counter", 3, 1, vec![record]);
    let request = logs::request(&slices(&[told], RecordKind::Events));
    let [of_process] = request.resource_logs.as_slice() else { panic!("{request:?}") };
    let resource = of_process.resource.as_ref().expect("a resource");
    assert_eq!(
        read(&resource.attributes),
        [
            ("service.name", text("counter")),
            ("service.instance.id", text("3")),
            ("process.pid", Any::IntValue(4711)),
        ]
    );
    let [of_target] = of_process.scope_logs.as_slice() else { panic!("{of_process:?}") };
    assert_eq!(of_target.scope.as_ref().expect("a scope").name, "counter::add");
    let [log] = of_target.log_records.as_slice() else { panic!("{of_target:?}") };
    assert_eq!(log.time_unix_nano, 1_700_000_000_000_000_001);
    assert_eq!((log.severity_number, log.severity_text.as_str()), (13, "WARN"));
    assert_eq!(log.body.as_ref().and_then(|body| body.value.clone()), Some(text("late")));
    assert_eq!(log.trace_id, 7u128.to_be_bytes());
    assert_eq!(log.span_id, 8u64.to_be_bytes());
    assert_eq!(log.flags, 1);
    assert_eq!(
        read(&log.attributes),
        [
            ("n", Any::IntValue(-3)),
            ("total", Any::IntValue(300)),
            ("most", text("18446744073709551615")),
            ("share", Any::DoubleValue(0.5)),
            ("again", Any::BoolValue(true)),
            ("peer", text("bumper")),
            ("watchdog.scope", text("add:save")),
            ("watchdog.record.number", Any::IntValue(1)),
        ]
    );
}

#[test]
fn a_span_keeps_its_parent_kind_links_and_status() {
    let record = Record::Span(Span {
        context: context(7, 8),
        parent: SpanId::new(9),
        kind: SpanKind::Consumer,
        level: Level::Info,
        target: "counter".to_owned(),
        name: "Add".to_owned(),
        start: 10,
        end: 25,
        fields: Vec::new(),
        links: vec![context(5, 6)],
        status: SpanStatus::Error("disk full".to_owned()),
    });
    let told = parcel("counter", 3, 1, vec![record]);
    let request = traces::request(&slices(&[told], RecordKind::Spans));
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(
        (span.trace_id.as_slice(), span.span_id.as_slice()),
        (&7u128.to_be_bytes()[..], &8u64.to_be_bytes()[..])
    );
    assert_eq!(span.parent_span_id, 9u64.to_be_bytes());
    assert_eq!((span.kind(), span.flags, span.name.as_str()), (Kind::Consumer, 1, "Add"));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (10, 25));
    let [link] = span.links.as_slice() else { panic!("{span:?}") };
    assert_eq!(
        (link.trace_id.as_slice(), link.span_id.as_slice()),
        (&5u128.to_be_bytes()[..], &6u64.to_be_bytes()[..])
    );
    let status = span.status.as_ref().expect("a status");
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "disk full"));
    assert_eq!(
        read(&span.attributes),
        [("level", text("INFO")), ("watchdog.record.number", Any::IntValue(1))]
    );
}

#[test]
fn what_belongs_to_no_trace_has_no_ids_and_a_root_has_no_parent() {
    let told = parcel("counter", 1, 1, vec![event("alone"), span("root")]);
    let logs = logs::request(&slices(std::slice::from_ref(&told), RecordKind::Events));
    let log = &logs.resource_logs[0].scope_logs[0].log_records[0];
    assert!(log.trace_id.is_empty() && log.span_id.is_empty() && log.flags == 0);
    let traces = traces::request(&slices(&[told], RecordKind::Spans));
    let span = &traces.resource_spans[0].scope_spans[0].spans[0];
    assert!(span.parent_span_id.is_empty() && span.status.is_none());
}

#[test]
fn each_process_of_a_service_is_a_resource_of_its_own() {
    let of = |service, incarnation| parcel(service, incarnation, 1, vec![event("a")]);
    let all = [of("a", 1), of("b", 1), of("a", 2), of("a", 1)];
    let request = logs::request(&slices(&all, RecordKind::Events));
    let found: Vec<_> = request
        .resource_logs
        .iter()
        .map(|found| {
            let attributes = read(&found.resource.as_ref().expect("a resource").attributes);
            (attributes[0].1.clone(), attributes[1].1.clone(), found.scope_logs[0].log_records.len())
        })
        .collect();
    assert_eq!(found, [(text("a"), text("1"), 2), (text("b"), text("1"), 1), (text("a"), text("2"), 1)]);
}

proptest! {
    #[test]
    fn every_record_is_in_one_request_once_and_in_order(
        all in vec((prop::sample::select(vec!["a", "b"]), 1u64..3, vec(records(), 0..12)), 0..6)
    ) {
        let mut first = 1;
        let all: Vec<_> = all
            .into_iter()
            .map(|(service, incarnation, records)| {
                let length = records.len() as u64;
                let told = parcel(service, incarnation, first, records);
                first += length;
                told
            })
            .collect();
        let number = |attributes: &[KeyValue]| match read(attributes).last() {
            Some((NUMBER, Any::IntValue(number))) => *number as u64,
            other => panic!("{other:?}"),
        };
        let (logs, traces) = (slices(&all, RecordKind::Events), slices(&all, RecordKind::Spans));
        let (sent_logs, sent_traces) = (logs::request(&logs), traces::request(&traces));
        let by_scope = sent_logs
            .resource_logs
            .iter()
            .flat_map(|found| &found.scope_logs)
            .map(|found| found.log_records.iter().map(|log| number(&log.attributes)).collect::<Vec<_>>())
            .chain(sent_traces
                .resource_spans
                .iter()
                .flat_map(|found| &found.scope_spans)
                .map(|found| found.spans.iter().map(|span| number(&span.attributes)).collect()));
        let mut got = Vec::new();
        for numbers in by_scope {
            prop_assert!(numbers.is_sorted());
            got.extend(numbers);
        }
        got.sort_unstable();
        prop_assert_eq!(got, (1..first).collect::<Vec<_>>());
        // What the queue counts with is no less than what goes over the wire, but for what tells one process and target.
        for (kind, slices) in [(RecordKind::Events, logs), (RecordKind::Spans, traces)] {
            let counted: usize = slices
                .iter()
                .flat_map(|slice| slice.records(kind))
                .map(|(_, record)| weight(record) + 64)
                .sum();
            prop_assert!(request(kind, &slices).len() <= counted + 128 * slices.len());
        }
    }
}
