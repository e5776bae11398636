//! The way out of one kind of records: waits for a request's worth of them, has it delivered, and so on.

use std::convert::Infallible;
use std::future;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::config::Config;
use super::courier::{Courier, Outcome, never};
use super::encode;
use super::queue::{Queue, Ready, Taken};
use super::slice::{RecordKind, Slice};
use super::tally::{Dropped, Tally};

/// What the one who tells and the pipeline both know.
#[derive(Debug)]
pub(super) struct Shared {
    kind: RecordKind,
    state: Mutex<State>,
    /// There is more than there was, and it makes a difference.
    more: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) tally: Tally,
}

/// The task of one kind.
#[derive(Debug)]
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    courier: Courier,
}

impl Shared {
    pub(super) fn new(kind: RecordKind) -> Self {
        let state = State { queue: Queue::new(kind), tally: Tally::default() };
        Self { kind, state: Mutex::new(state), more: Notify::new() }
    }

    /// Looks at it, or changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().expect("nobody panics while holding it"))
    }

    /// Lets in what there is room for, and drops the rest.
    pub(super) fn push(&self, slice: Slice, config: &Config) {
        let ready = |state: &State| state.queue.ready(config.batch_records, config.batch_interval);
        let wakes = self.with(|state| {
            let before = ready(state);
            if let Err(slice) = state.queue.push(slice, config.queue, Instant::now()) {
                state.tally.dropped(&slice, Dropped::Full);
            }
            // A task that waits for the time of its first record need not know of the next.
            match before {
                Ready::Never => ready(state) != Ready::Never,
                Ready::At(_) => ready(state) == Ready::Now,
                Ready::Now => false,
            }
        });
        if wakes {
            self.more.notify_one();
        }
    }

    pub(super) fn kind(&self) -> RecordKind {
        self.kind
    }
}

impl Pipeline {
    pub(super) fn new(shared: Arc<Shared>, courier: Courier) -> Self {
        Self { shared, courier }
    }

    /// Until it is told to stop, and then until nothing waits or the deadline has passed.
    pub(super) async fn run(mut self) {
        while let Some(taken) = self.next().await {
            let body = encode::request(self.shared.kind, &taken.slices);
            // Each record is worth as much as the next one.
            let outcome = self.courier.deliver(body, future::pending::<Infallible>()).await;
            self.shared.with(|state| {
                match outcome {
                    Outcome::Accepted { rejected } => state.tally.accepted(&taken, rejected),
                    Outcome::Dropped(why) => state.tally.dropped_all(&taken, why),
                    Outcome::Overtaken(never) => match never {},
                }
                state.queue.done(&taken);
            });
            self.courier.line().tell();
        }
    }

    /// The next request's records.
    async fn next(&mut self) -> Option<Taken> {
        let Courier { config, stop, .. } = &mut self.courier;
        loop {
            let set = config.borrow_and_update().clone();
            let stopping = stop.borrow_and_update().is_some() || stop.has_changed().is_err();
            let at = {
                let mut state = self.shared.state.lock().expect("nobody panics while holding it");
                match state.queue.ready(set.batch_records, set.batch_interval) {
                    Ready::Never if stopping => return None,
                    Ready::Never => None,
                    Ready::At(at) if !stopping && at > Instant::now() => Some(at),
                    Ready::Now | Ready::At(_) => return Some(state.queue.take(set.batch_records)),
                }
            };
            tokio::select! {
                () = self.shared.more.notified() => {}
                () = sleep_until(at.unwrap_or_else(never).into()), if at.is_some() => {}
                Ok(()) = config.changed() => {}
                _ = stop.changed() => {}
            }
        }
    }
}
