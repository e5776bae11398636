//! One signal's way to the collector: a request at a time, again and again until it is taken or given up.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::config::{Config, Signal};
use super::tally::Dropped;
use super::transport::Transport;
use super::verdict::Verdict;
use crate::output::Board;

/// How the way of one signal is, for those who look.
#[derive(Debug)]
pub(super) struct Line {
    signal: Signal,
    /// Why the last request did not go, while that is so.
    trouble: Mutex<Option<String>>,
    board: Arc<Board>,
}

/// Who brings requests there.
#[derive(Debug)]
pub(super) struct Courier {
    line: Arc<Line>,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) stop: watch::Receiver<Option<Instant>>,
    transport: Transport,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome<N> {
    /// The collector has it, but for so many of the things in it.
    Accepted { rejected: u64 },
    /// It will not be tried again.
    Dropped(Dropped),
    /// While it was to be tried again there was something better to send.
    Overtaken(N),
}

/// What ended a pause between two tries.
enum Rest<N> {
    Again,
    /// There is no time for another.
    Stopped,
    Overtaken(N),
}

impl Line {
    pub(super) fn of(signal: Signal, board: &Arc<Board>) -> Self {
        Self { signal, trouble: Mutex::default(), board: board.clone() }
    }

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("nobody panics while holding it").clone()
    }

    fn set(&self, trouble: Option<String>) {
        *self.trouble.lock().expect("nobody panics while holding it") = trouble;
    }

    /// A report may say something else now.
    pub(super) fn tell(&self) {
        self.board.tell_change();
    }
}

impl Courier {
    pub(super) fn on(
        line: Arc<Line>,
        config: watch::Receiver<Arc<Config>>,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let transport = Transport::to(config.borrow().clone());
        Self { line, config, stop, transport }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Sends it until it is taken, refused, given up, or, between two tries, overtaken.
    pub(super) async fn deliver<N>(&mut self, body: Bytes, overtaken: impl Future<Output = N>) -> Outcome<N> {
        let signal = self.line.signal;
        let (started, mut backoff, mut overtaken) = (Instant::now(), Backoff::default(), pin!(overtaken));
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
                () = past(&mut self.stop) => return Outcome::Dropped(Dropped::Stopped),
            };
            match verdict {
                Verdict::Accepted { rejected, why } => {
                    let things = signal.things();
                    self.line.set((rejected > 0).then(|| format!("{rejected} {things} rejected: {why}")));
                    return Outcome::Accepted { rejected };
                }
                Verdict::Refused { why } => {
                    self.trouble(why);
                    return Outcome::Dropped(Dropped::Refused);
                }
                Verdict::Retry { after, why } => {
                    self.trouble(why);
                    if started.elapsed() >= config.retry_for {
                        return Outcome::Dropped(Dropped::Expired);
                    }
                    let pause = backoff.next(config.retry_min, config.retry_max, fastrand::f64());
                    match self.rest(after.unwrap_or(pause), overtaken.as_mut()).await {
                        Rest::Again => {}
                        Rest::Stopped => return Outcome::Dropped(Dropped::Stopped),
                        Rest::Overtaken(newer) => return Outcome::Overtaken(newer),
                    }
                }
            }
        }
    }

    /// Waits before the next attempt; not when there are other settings, nor when it is told to stop: then the next one
    /// may be the last.
    async fn rest<N>(&mut self, pause: Duration, overtaken: Pin<&mut impl Future<Output = N>>) -> Rest<N> {
        let told = self.stop.borrow_and_update().is_some();
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            newer = overtaken => Rest::Overtaken(newer),
            () = sleep(pause) => Rest::Again,
            Ok(()) = self.config.changed() => Rest::Again,
            Ok(()) = self.stop.changed(), if !told => Rest::Again,
            () = past(&mut stop) => Rest::Stopped,
        }
    }

    fn trouble(&self, why: String) {
        self.line.set(Some(why));
        self.line.tell();
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
pub(super) fn never() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
