//! The way out of metrics: gathered at intervals, and of what has not gone yet the newest alone is sent. What is counted
//! is in the next one too, so nothing is lost.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::config::{Config, Signal};
use super::courier::{Courier, Outcome, never};
use super::encode;
use crate::metrics::{Gathering, Source};

/// The task of metrics.
#[derive(Debug)]
pub(super) struct Newest {
    courier: Courier,
    source: Source,
    lack: Arc<Lack>,
}

/// What the grant of this service lacks for metrics, in words for an operator.
#[derive(Debug, Default)]
pub(super) struct Lack(Mutex<Option<String>>);

type Latest = Option<Arc<Gathering>>;

impl Lack {
    pub(super) fn words(&self) -> Option<String> {
        self.0.lock().expect("nobody panics while holding it").clone()
    }

    /// Whether it is another one than before.
    fn set(&self, words: Option<String>) -> bool {
        let mut known = self.0.lock().expect("nobody panics while holding it");
        let differs = *known != words;
        *known = words;
        differs
    }
}

impl Newest {
    pub(super) fn new(courier: Courier, source: Source, lack: Arc<Lack>) -> Self {
        Self { courier, source, lack }
    }

    /// Until it is told to stop: what has not gone by then is of no use to anybody.
    pub(super) async fn run(self) {
        let Self { mut courier, source, lack } = self;
        let (latest, waiting) = watch::channel(None);
        let (config, stop, line) = (courier.config.clone(), courier.stop.clone(), courier.line().clone());
        let gathers = gather(config, stop, &source, latest, |found| {
            if lack.set(found.and_then(Gathering::lack)) {
                line.tell();
            }
        });
        tokio::join!(gathers, send(&mut courier, waiting));
    }
}

/// Puts what is gathered in the place of what was, as long as metrics are wanted.
async fn gather(
    mut config: watch::Receiver<Arc<Config>>,
    mut stop: watch::Receiver<Option<Instant>>,
    source: &Source,
    latest: watch::Sender<Latest>,
    look: impl Fn(Option<&Gathering>),
) {
    let mut last = None;
    loop {
        let set = config.borrow_and_update().clone();
        if stop.borrow_and_update().is_some() || stop.has_changed().is_err() {
            return;
        }
        let due = set.signals.contains(&Signal::Metrics).then(|| match last {
            None => Instant::now(),
            Some(last) => last + set.metrics_interval,
        });
        if due.is_none() {
            look(None);
        }
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(never).into()), if due.is_some() => {}
            Ok(()) = config.changed() => continue,
            _ = stop.changed() => continue,
        }
        last = Some(Instant::now());
        tokio::select! {
            // When the watchdog does not answer there is none of this time.
            answer = source.gather() => if let Ok(found) = answer {
                look(Some(&found));
                latest.send_replace(Some(found));
            },
            _ = stop.changed() => {}
        }
    }
}

/// Sends the latest, and then the next, whatever became of it.
async fn send(courier: &mut Courier, mut waiting: watch::Receiver<Latest>) {
    while waiting.changed().await.is_ok() {
        let Some(found) = waiting.borrow_and_update().clone() else { continue };
        let mut newer = waiting.clone();
        for body in encode::metrics(&found) {
            // Or nobody gathers any more.
            let overtaken = async { drop(newer.changed().await) };
            match courier.deliver(body, overtaken).await {
                Outcome::Accepted { .. } => {}
                Outcome::Dropped(_) | Outcome::Overtaken(()) => break,
            }
        }
        courier.line().tell();
    }
}
