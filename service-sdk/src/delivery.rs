//! [`Delivery`]: what is known of a message beside its content; [`Deferred`]: one that is done later.

use std::fmt;
use std::time::Duration;

use watchdog_protocol::trace::TraceContext;
use watchdog_protocol::{MessageId, ServiceName};

use crate::lanes::Lanes;

/// How a message came to this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub(crate) sender: ServiceName,
    pub(crate) id: MessageId,
    pub(crate) redelivered: bool,
    pub(crate) waited: Duration,
    pub(crate) is_ask: bool,
    pub(crate) trace: Option<TraceContext>,
}

impl Delivery {
    /// Who sent it. By the lane it came through, which the sender can't choose. `operator`: somebody at the command line, by
    /// `watchdog send`, or a service that may send as one.
    pub fn sender(&self) -> &ServiceName {
        &self.sender
    }

    /// Its name for ever: the same id is the same message again. Numbers of one sender only grow, so the last one
    /// handled is enough to know a message that comes again.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// An earlier process of this service had it in hand and died: its effects may be there already.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// From when its sender accepted it until it was handed over here, waiting included.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The trace it belongs to, and the span that sent it. `None`: its sender is in no trace.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }
}

/// A delivery that is not done when the next event is asked for, but by [`done`](Self::done); from
/// [`Context::defer`](crate::Context::defer).
///
/// Dropped without it, the message is not done: it stays open until this process ends, and comes again to the next one.
/// So a task that is cancelled or panics loses nothing.
#[must_use = "a message that is deferred is done only by `done`"]
pub struct Deferred {
    lanes: Lanes,
    delivery: Delivery,
}

impl Deferred {
    /// Of the message in hand, if there is one.
    pub(crate) fn of(lanes: &Lanes, delivery: Delivery) -> Option<Self> {
        let id = lanes.defer()?;
        debug_assert_eq!(id, delivery.id, "the last message is the one in hand");
        Some(Self { lanes: lanes.clone(), delivery })
    }

    /// How it came.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// The message is done: it does not come again, once all before it in its lane are done too.
    pub fn done(self) {
        self.lanes.finish_deferred(self.delivery.id);
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Deferred").field("delivery", &self.delivery).finish_non_exhaustive()
    }
}
