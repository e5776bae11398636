//! From `tracing` to batches, and from one process to the next: both ends on one thread, a message's trace context
//! carried by hand.

use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use tracing::{Instrument, Span, debug_span, error, field, info, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry};
use watchdog_protocol::{LaneEpoch, MessageId, MessageNumber};

use super::layer::RecordLayer;
use super::outlet::{Maker, Outlet, Sent, Way};
use super::spans::{asking, failed, handled, handling};
use super::*;
use crate::delivery::Delivery;

struct Collector(mpsc::Sender<Batch>);

impl Way for Collector {
    fn try_send(&self, payload: Vec<u8>) -> Sent {
        let LogMsg::Records { batch } = LogMsg::decode(&payload, None).unwrap() else {
            panic!("records are told")
        };
        self.0.send(batch).unwrap();
        Sent::Gone
    }
}

/// What is recorded while this runs.
fn recorded(filter: &str, sampling: Sampling, run: impl FnOnce()) -> Vec<Record> {
    let outlet = Outlet::new(true);
    outlet.sample(sampling);
    let subscriber = Registry::default().with(EnvFilter::new(filter)).with(RecordLayer(Arc::clone(&outlet)));
    let (sent, batches) = mpsc::channel();
    let sender = outlet.open(Maker { incarnation: 1, pid: 1 }, Collector(sent));
    tracing::subscriber::with_default(subscriber, run);
    outlet.close(sender, Duration::from_secs(30));
    batches.iter().flat_map(|batch| batch.records).collect()
}

fn all(run: impl FnOnce()) -> Vec<Record> {
    recorded("info", Sampling { ratio: 1.0, per_second: 1000 }, run)
}

fn events<'a>(records: &'a [Record]) -> Vec<&'a Event> {
    let event = |record: &'a Record| match record {
        Record::Event(event) => Some(event),
        Record::Span(_) => None,
    };
    records.iter().filter_map(event).collect()
}

fn spans<'a>(records: &'a [Record]) -> Vec<&'a super::Span> {
    let span = |record: &'a Record| match record {
        Record::Span(span) => Some(span),
        Record::Event(_) => None,
    };
    records.iter().filter_map(span).collect()
}

fn span<'a>(records: &'a [Record], name: &str) -> &'a super::Span {
    spans(records).into_iter().find(|span| span.name == name).expect("it was recorded")
}

fn value<'a>(fields: &'a [Field], key: &str) -> Option<&'a Value> {
    fields.iter().find(|field| field.key == key).map(|field| &field.value)
}

fn delivery(is_ask: bool, trace: Option<TraceContext>) -> Delivery {
    Delivery {
        sender: "bumper".parse().unwrap(),
        id: MessageId { epoch: LaneEpoch::from_stored(5), number: MessageNumber::from_stored(7) },
        redelivered: false,
        waited: Duration::from_micros(3),
        is_ask,
        trace,
    }
}

/// Polls to its end what needs no runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

#[test]
fn an_event_says_what_happened_where_and_within_what() {
    let records = all(|| {
        let _serve = info_span!("serve").entered();
        let _add = info_span!("add", n = 3).entered();
        let failure = std::io::Error::other("no room");
        error!(target: "counter", n = -3i64, huge = u128::MAX, is_odd = true, share = 0.5, why = &failure as &dyn std::error::Error, peer = ?"b", "not {}", "added");
    });
    let [event] = events(&records)[..] else { panic!("one event happened") };
    assert_eq!((event.level, &*event.target, &*event.message), (Level::Error, "counter", "not added"));
    assert_eq!(event.scope, "serve:add");
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let of = |key| value(&event.fields, key).cloned();
    assert_eq!(of("n"), Some(Value::Signed(-3)));
    assert_eq!(of("huge"), text(&u128::MAX.to_string()));
    assert_eq!((of("is_odd"), of("share")), (Some(Value::Bool(true)), Some(Value::Float(0.5))));
    assert_eq!((of("why"), of("peer")), (text("no room"), text("\"b\"")));
    let (serve, add) = (span(&records, "serve"), span(&records, "add"));
    assert_eq!(event.within, Some(add.context));
    assert_eq!((add.context.trace, add.parent), (serve.context.trace, Some(serve.context.span)));
    assert_eq!(serve.parent, None);
    assert!(serve.start <= add.start && add.end <= serve.end, "{serve:?} {add:?}");
    assert_eq!(value(&add.fields, "n"), Some(&Value::Signed(3)));
}

#[test]
fn what_a_span_is_told_later_and_by_convention_is_part_of_it() {
    let records = all(|| {
        let span = info_span!("work", total = field::Empty, otel.kind = "producer", otel.name = field::Empty);
        span.record("total", 300u64);
        span.record("otel.name", "work on 7");
        let led = info_span!("led", otel.status_code = "ERROR", otel.status_description = "late");
        led.follows_from(&span);
    });
    let (work, led) = (span(&records, "work on 7"), span(&records, "led"));
    assert_eq!(work.kind, SpanKind::Producer);
    assert_eq!(work.fields.len(), 1);
    assert_eq!(value(&work.fields, "total"), Some(&Value::Unsigned(300)));
    assert_eq!(led.links, [work.context]);
    assert_eq!(led.status, SpanStatus::Error("late".to_owned()));
}

#[test]
fn an_ask_and_its_handling_are_two_spans_of_one_trace() {
    let records = all(|| {
        let (ask, carried) = info_span!("request").in_scope(|| asking(&"counter".parse().unwrap()));
        failed(&ask, &std::io::Error::other("late"));
        drop(ask);
        block_on(handled(async {
            handling(&delivery(true, carried));
            info!("handled");
        }));
    });
    let (request, ask) = (span(&records, "request"), span(&records, "ask counter"));
    let handle = span(&records, "ask from bumper");
    assert_eq!((ask.kind, handle.kind), (SpanKind::Client, SpanKind::Server));
    assert_eq!((ask.parent, handle.parent), (Some(request.context.span), Some(ask.context.span)));
    assert!(spans(&records).iter().all(|span| span.context.trace == request.context.trace));
    assert_eq!(ask.status, SpanStatus::Error("late".to_owned()));
    assert_eq!(events(&records)[0].within, Some(handle.context));
}

#[test]
fn what_is_told_is_handled_in_a_trace_of_its_own_that_links_to_its_teller() {
    let records = all(|| {
        let told_by = info_span!("request").in_scope(current);
        block_on(handled(async {
            handling(&delivery(false, told_by));
            assert_ne!(current(), told_by);
        }));
    });
    let (request, handle) = (span(&records, "request"), span(&records, "tell from bumper"));
    assert_eq!((handle.kind, handle.parent), (SpanKind::Consumer, None));
    assert_eq!(handle.links, [request.context]);
    assert_ne!(handle.context.trace, request.context.trace);
}

#[test]
fn a_trace_that_is_not_recorded_goes_on_unrecorded() {
    let records = recorded("info", Sampling { ratio: 0.0, per_second: 1000 }, || {
        let (ask, carried) = asking(&"counter".parse().unwrap());
        assert!(ask.is_disabled());
        let carried = carried.expect("that it is not recorded is told");
        assert!(!carried.is_sampled());
        block_on(handled(async {
            for is_ask in [true, false] {
                handling(&delivery(is_ask, Some(carried)));
                assert_eq!(current(), Some(carried));
                let (_, next) = asking(&"store".parse().unwrap());
                assert_eq!(next, Some(carried));
                info_span!("work").in_scope(|| assert_eq!(current().unwrap().trace, carried.trace));
            }
            info!("handled");
        }));
    });
    assert_eq!((spans(&records).len(), events(&records).len()), (0, 1));
}

#[test]
fn a_recorded_teller_is_enough_for_a_handler_to_be() {
    let sampled = all(|| ());
    assert!(sampled.is_empty());
    let records = recorded("info", Sampling { ratio: 0.0, per_second: 1000 }, || {
        let told_by = TraceContext {
            trace: TraceId::new(1).unwrap(),
            span: SpanId::new(2).unwrap(),
            flags: TraceContext::SAMPLED,
        };
        block_on(handled(async { handling(&delivery(false, Some(told_by))) }));
    });
    assert_eq!(span(&records, "tell from bumper").links.len(), 1);
}

#[test]
fn the_handler_is_in_its_span_while_it_is_polled_and_nobody_else_is() {
    let records = all(|| {
        let mut service = std::pin::pin!(handled(async {
            handling(&delivery(true, None));
            let _guard = debug_span!("not recorded").entered();
            std::future::poll_fn({
                let mut is_second = false;
                move |_| if std::mem::replace(&mut is_second, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .instrument(Span::none())
            .await;
            info!("inside");
            spans::done();
            info!("outside");
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(service.as_mut().poll(&mut context).is_pending());
        assert_eq!(current(), None);
        info!("outside");
        assert!(service.as_mut().poll(&mut context).is_ready());
        assert_eq!(current(), None);
    });
    let handle = span(&records, "ask from bumper");
    for event in events(&records) {
        let expected = (event.message == "inside").then_some(handle.context);
        assert_eq!(event.within, expected, "{}", event.message);
    }
    assert_eq!(events(&records).len(), 3);
}

#[test]
fn a_service_without_records_still_hands_the_context_on() {
    let context = TraceContext::from_bytes([9; 25]);
    block_on(handled(async {
        handling(&delivery(true, context));
        assert_eq!(asking(&"store".parse().unwrap()).1, context);
        spans::done();
        assert_eq!(current(), None);
    }));
}
