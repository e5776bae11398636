//! One signal's way out: waits for a request's worth of records, sends it until it is taken or given up, and so on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::config::{Config, Signal};
use super::encode;
use super::queue::{Queue, Ready, Taken};
use super::slice::Slice;
use super::tally::{Dropped, Tally};
use super::transport::Transport;
use super::verdict::Verdict;
use crate::output::Board;

/// What the one who tells and the pipeline both know.
#[derive(Debug)]
pub(super) struct Shared {
    signal: Signal,
    state: Mutex<State>,
    /// There is more than there was, and it makes a difference.
    more: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) tally: Tally,
    /// Why the last request did not go, while that is so.
    pub(super) trouble: Option<String>,
}

/// The task of one signal.
#[derive(Debug)]
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    config: watch::Receiver<Arc<Config>>,
    stop: watch::Receiver<Option<Instant>>,
    board: Arc<Board>,
    transport: Transport,
}

impl Shared {
    pub(super) fn new(signal: Signal) -> Self {
        let state = State { queue: Queue::new(signal), tally: Tally::default(), trouble: None };
        Self { signal, state: Mutex::new(state), more: Notify::new() }
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

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }
}

impl Pipeline {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: watch::Receiver<Arc<Config>>,
        stop: watch::Receiver<Option<Instant>>,
        board: Arc<Board>,
    ) -> Self {
        let transport = Transport::to(config.borrow().clone());
        Self { shared, config, stop, board, transport }
    }

    /// Until it is told to stop, and then until nothing waits or the deadline has passed.
    pub(super) async fn run(mut self) {
        while let Some(taken) = self.next().await {
            self.deliver(&taken).await;
            self.shared.with(|state| state.queue.done(&taken));
            self.tell();
        }
    }

    /// The next request's records.
    async fn next(&mut self) -> Option<Taken> {
        loop {
            let config = self.config.borrow_and_update().clone();
            let stopping = self.stop.borrow_and_update().is_some() || self.stop.has_changed().is_err();
            let at = {
                let mut state = self.shared.state.lock().expect("nobody panics while holding it");
                match state.queue.ready(config.batch_records, config.batch_interval) {
                    Ready::Never if stopping => return None,
                    Ready::Never => None,
                    Ready::At(at) if !stopping && at > Instant::now() => Some(at),
                    Ready::Now | Ready::At(_) => return Some(state.queue.take(config.batch_records)),
                }
            };
            tokio::select! {
                () = self.shared.more.notified() => {}
                () = sleep_until(at.unwrap_or_else(never).into()), if at.is_some() => {}
                Ok(()) = self.config.changed() => {}
                _ = self.stop.changed() => {}
            }
        }
    }

    /// Sends it until it is taken, refused, or given up.
    async fn deliver(&mut self, taken: &Taken) {
        let signal = self.shared.signal;
        let body = encode::request(signal, &taken.slices);
        let (started, mut backoff) = (Instant::now(), Backoff::default());
        loop {
            let config = self.config.borrow_and_update().clone();
            self.transport.follow(&config);
            let verdict = tokio::select! {
                answer = timeout(config.timeout, self.transport.send(signal, body.clone())) => match answer {
                    Ok(verdict) => verdict,
                    Err(_) => {
                        self.transport.renew();
                        Verdict::Retry { after: None, why: format!("no answer in {:?}", config.timeout) }
                    }
                },
                () = past(&mut self.stop) => return self.give_up(taken, Dropped::Stopped),
            };
            match verdict {
                Verdict::Accepted { rejected, why } => return self.accepted(taken, rejected, &why),
                Verdict::Refused { why } => {
                    self.trouble(why);
                    return self.give_up(taken, Dropped::Refused);
                }
                Verdict::Retry { after, why } => {
                    self.trouble(why);
                    if started.elapsed() >= config.retry_for {
                        return self.give_up(taken, Dropped::Expired);
                    }
                    let pause = backoff.next(config.retry_min, config.retry_max, fastrand::f64());
                    if !self.rest(after.unwrap_or(pause)).await {
                        return self.give_up(taken, Dropped::Stopped);
                    }
                }
            }
        }
    }

    /// Waits before the next attempt; not when there are other settings, nor when it is told to stop: then the next one
    /// may be the last. False when there is no time for another.
    async fn rest(&mut self, pause: Duration) -> bool {
        let told = self.stop.borrow_and_update().is_some();
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep(pause) => true,
            Ok(()) = self.config.changed() => true,
            Ok(()) = self.stop.changed(), if !told => true,
            () = past(&mut stop) => false,
        }
    }

    fn accepted(&self, taken: &Taken, rejected: u64, why: &str) {
        self.shared.with(|state| {
            state.tally.accepted(taken, rejected);
            state.trouble = (rejected > 0).then(|| format!("{rejected} records rejected: {why}"));
        });
    }

    fn trouble(&self, why: String) {
        self.shared.with(|state| state.trouble = Some(why));
        self.tell();
    }

    fn give_up(&self, taken: &Taken, why: Dropped) {
        self.shared.with(|state| state.tally.dropped_all(taken, why));
    }

    fn tell(&self) {
        self.board.tell_change();
    }
}

/// Comes when the deadline to stop has passed; never while there is none.
async fn past(stop: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(never),
        // Who could have set one is gone, and so is who waits for it.
        Err(_) => return,
    };
    sleep_until(deadline.into()).await;
}

/// Later than anybody waits.
fn never() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
