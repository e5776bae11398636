//! [`Inbox`]: what other services say to this one, lane by lane.

use std::marker::PhantomData;

use crate::delivery::Delivery;
use crate::lanes::Lanes;
use crate::message::Message;

/// How long messages that are there are handed over without a look at what else happened, in nanoseconds. The
/// lanes that others just wrote to, and the session, wait this long at most, or for one message to be handled.
const TURN: u64 = 100_000;

/// The messages of all lanes to this service, one a lane a turn.
pub(crate) struct Inbox<M> {
    lanes: Lanes,
    /// When the runtime last looked what is readable.
    looked: u64,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message> Inbox<M> {
    pub(crate) fn new(lanes: Lanes) -> Self {
        Self { lanes, looked: 0, messages: PhantomData }
    }

    /// The message in hand is done: it does not come again.
    pub(crate) fn finish(&self) {
        self.lanes.finish();
    }

    /// The next message if it is there, and nothing else must have its turn first; the one in hand is done.
    pub(crate) fn try_next(&mut self) -> Option<(M, Delivery)> {
        let now = self.lanes.now();
        if now.saturating_sub(self.looked) > TURN {
            self.finish();
            return None;
        }
        self.lanes.try_next(now)
    }

    /// Waits for the next message; the one in hand is done.
    ///
    /// Cancel safe: a message is yielded, or stays for the next call.
    pub(crate) async fn next(&mut self) -> (M, Delivery) {
        self.finish();
        let now = self.lanes.now();
        if now.saturating_sub(self.looked) > TURN {
            // Before the wait: one that is dropped in it must not find itself here again, and so on for ever.
            self.looked = now;
            tokio::task::yield_now().await;
        }
        let mut has_waited = false;
        let delivered = std::future::poll_fn(|context| {
            let next = self.lanes.poll_next(context);
            has_waited |= next.is_pending();
            next
        })
        .await;
        if has_waited {
            self.looked = self.lanes.now();
        }
        delivered
    }
}
