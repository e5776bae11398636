//! The spans of what services say to each other: of an ask, and of the handling of a message.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;

use tracing::dispatcher;
use tracing::field::Empty;
use tracing::span::EnteredSpan;
use tracing::{Span, info_span};
use watchdog_protocol::ServiceName;
use watchdog_protocol::trace::TraceContext;

use super::layer::RecordLayer;
use super::trace::{self, Origin, current};
use crate::delivery::Delivery;

/// What becomes of a trace that would begin now.
enum Beginning {
    /// Nobody reads spans here.
    Nobody,
    /// It is not recorded, here or wherever it goes.
    Unrecorded(TraceContext),
    Recorded,
}

/// The message in hand.
struct Handler {
    span: Turn,
    inherited: Option<TraceContext>,
    /// The service is being polled, on this thread.
    is_polled: bool,
}

/// Its span: entered while the service is polled.
enum Turn {
    None,
    Entered(EnteredSpan),
    Left(Span),
}

thread_local! {
    static HANDLER: RefCell<Handler> =
        const { RefCell::new(Handler { span: Turn::None, inherited: None, is_polled: false }) };
}

/// The span of an ask, disabled when there is none, and what goes with its message.
pub(crate) fn asking(receiver: &ServiceName) -> (Span, Option<TraceContext>) {
    let make = || {
        info_span!(
            target: "watchdog::intercom",
            "ask",
            otel.name = format!("ask {receiver}"),
            otel.kind = "client",
            otel.status_code = Empty,
            otel.status_description = Empty,
            messaging.system = "watchdog",
            messaging.operation.name = "ask",
            messaging.operation.type = "send",
            messaging.destination.name = receiver.as_str(),
        )
    };
    let span = match current() {
        Some(context) if !context.is_sampled() => return (Span::none(), Some(context)),
        Some(_) => make(),
        None => match beginning() {
            Beginning::Nobody => return (Span::none(), None),
            Beginning::Unrecorded(context) => return (Span::none(), Some(context)),
            Beginning::Recorded => trace::beginning(Origin::Root { told_by: None }, make),
        },
    };
    let context = span.in_scope(current);
    (span, context)
}

/// An ask has no answer.
pub(crate) fn failed(span: &Span, error: &dyn std::error::Error) {
    if !span.is_disabled() {
        span.record("otel.status_code", "error");
        span.record("otel.status_description", error.to_string());
    }
}

fn beginning() -> Beginning {
    let is_sampled = dispatcher::get_default(|dispatch| {
        let outlet = &dispatch.downcast_ref::<RecordLayer>()?.0;
        outlet.takes_spans().then(|| outlet.is_sampled())
    });
    match is_sampled {
        None => Beginning::Nobody,
        Some(true) => Beginning::Recorded,
        Some(false) => Beginning::Unrecorded(TraceContext {
            trace: trace::new_trace(),
            span: trace::new_span(),
            flags: 0,
        }),
    }
}

/// Polls the service: while it handles a message it is in the span of that.
pub(crate) async fn handled<F: Future>(service: F) -> F::Output {
    let mut service = pin!(service);
    let output = poll_fn(|context| {
        let _polled = Polled::begin();
        service.as_mut().poll(context)
    })
    .await;
    done();
    output
}

/// The service is polled as long as it lives.
struct Polled;

impl Polled {
    fn begin() -> Self {
        let span = HANDLER.with_borrow_mut(|handler| {
            handler.is_polled = true;
            trace::inherit(handler.inherited);
            std::mem::replace(&mut handler.span, Turn::None)
        });
        put(match span {
            Turn::Left(span) => Turn::Entered(span.entered()),
            other => other,
        });
        Self
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        let span = HANDLER.with_borrow_mut(|handler| {
            handler.is_polled = false;
            trace::inherit(None);
            std::mem::replace(&mut handler.span, Turn::None)
        });
        put(match span {
            Turn::Entered(span) => Turn::Left(span.exit()),
            other => other,
        });
    }
}

/// Never by `with_borrow_mut` around what enters or ends a span: that calls the layers, and may come back here.
fn put(span: Turn) -> Turn {
    HANDLER.with_borrow_mut(|handler| std::mem::replace(&mut handler.span, span))
}

/// The message in hand is done, or there was none.
pub(crate) fn done() {
    let is_idle =
        HANDLER.with_borrow(|handler| matches!(handler.span, Turn::None) && handler.inherited.is_none());
    if is_idle {
        return;
    }
    drop(put(Turn::None));
    HANDLER.with_borrow_mut(|handler| handler.inherited = None);
    trace::inherit(None);
}

/// This message is in hand. Where the service is not polled as a whole, but asks for events in a task of its own, its
/// spans are its own affair.
pub(crate) fn handling(delivery: &Delivery) {
    if !HANDLER.with_borrow(|handler| handler.is_polled) {
        return;
    }
    let (origin, inherited) = match delivery.trace {
        Some(context) if !context.is_sampled() => (None, Some(context)),
        Some(context) if delivery.is_ask => (Some(Origin::Child(context)), Some(context)),
        told_by => match beginning() {
            Beginning::Nobody => (None, told_by),
            // Who told it is recorded: then so is what came of it.
            Beginning::Unrecorded(_) if told_by.is_some() => (Some(Origin::Root { told_by }), None),
            Beginning::Unrecorded(context) => (None, Some(context)),
            Beginning::Recorded => (Some(Origin::Root { told_by }), None),
        },
    };
    if origin.is_none() && inherited.is_none() {
        return;
    }
    trace::inherit(inherited);
    HANDLER.with_borrow_mut(|handler| handler.inherited = inherited);
    let Some(origin) = origin else { return };
    let (kind, verb) = if delivery.is_ask { ("server", "ask") } else { ("consumer", "tell") };
    let sender = delivery.sender();
    let span = trace::beginning(origin, || {
        info_span!(
            target: "watchdog::intercom",
            parent: None,
            "handle",
            otel.name = format!("{verb} from {sender}"),
            otel.kind = kind,
            messaging.system = "watchdog",
            messaging.operation.name = verb,
            messaging.operation.type = "process",
            messaging.message.id = %delivery.id(),
            watchdog.sender = sender.as_str(),
            watchdog.waited_us = u64::try_from(delivery.waited().as_micros()).unwrap_or(u64::MAX),
            watchdog.redelivered = delivery.redelivered(),
        )
    });
    if !span.is_disabled() {
        put(Turn::Entered(span.entered()));
    }
}
