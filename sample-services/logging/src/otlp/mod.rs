//! OTLP: what services tell goes to a collector.
//!
//! ```text
//! push(parcel) ► queue of events ─► pipeline ─► encode ─► courier ─► transport ─► collector     one thread of its own
//!          └──► queue of spans ──► pipeline ─► encode ─► courier ─► transport ─► collector
//!          gatherer ◄─ asks ── the newest gathering ─► encode ─► courier ─► transport ─► collector
//! ```
//! - [`config`]: where to, how, and what may be kept. `encode`, `queue`, `verdict`, `backoff` are pure.
//! - A **queue** holds so many bytes and no more: what does not fit is dropped and counted. [`Exporter::push`] never
//!   waits for a collector.
//! - A **courier** brings one request at a time, again and again while the collector is down, silent or busy, by the
//!   rules of OTLP. A request that was cut off is sent again although the collector may have it: at least once, and each
//!   record has its number.
//! - Of **metrics** the newest alone is sent: what could not go is not tried again once there is a newer one, and is no
//!   loss.
//! - Told = accepted + rejected + dropped + held, always, and per service where a collector can't blur it.
//!
//! A request carries the records of many processes, and each process is a resource of its own; the exporters of
//! `opentelemetry-otlp` have one resource each. So the messages are those of `opentelemetry-proto`, of the same project.
//!
//! The export never tells of itself: nothing that the client's crates log on the exporter's threads goes anywhere,
//! whatever the filters are.

mod backoff;
pub(crate) mod config;
mod courier;
mod encode;
mod newest;
mod pipeline;
mod queue;
mod slice;
pub(crate) mod tally;
mod transport;
mod verdict;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Dispatch;

use self::config::{Config, Signal};
use self::courier::{Courier, Line};
use self::newest::{Lack, Newest};
use self::pipeline::{Pipeline, Shared};
use self::slice::{RecordKind, Slice};
use self::tally::Tally;
use crate::metrics::Source;
use crate::output::{Board, OutputCounts};
use crate::parcel::Parcel;

/// Sends records and metrics to one collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    records: [Arc<Shared>; 2],
    lines: Vec<Arc<Line>>,
    lack: Arc<Lack>,
    config: watch::Sender<Arc<Config>>,
    stop: watch::Sender<Option<Instant>>,
    thread: JoinHandle<()>,
}

/// How an exporter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// What is wrong, in words for an operator; `None` while all goes well.
    pub(crate) trouble: Option<String>,
    /// Records that no collector has yet.
    pub(crate) waiting: u64,
    /// What became of the others.
    pub(crate) tally: Tally,
}

impl Exporter {
    /// On a thread of its own. It connects when there is something to send, and tells the board when a report may say
    /// something else.
    pub(crate) fn start(config: Config, board: &Arc<Board>, source: &Source) -> io::Result<Self> {
        let records = RecordKind::ALL.map(|kind| Arc::new(Shared::new(kind)));
        let (config, configured) = watch::channel(Arc::new(config));
        let (stop, stopped) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Names are resolved on threads of the runtime.
            .on_thread_start(keep_quiet)
            .build()?;
        let mut lines = Vec::new();
        let mut courier = |signal: Signal| {
            let line = Arc::new(Line::of(signal, board));
            lines.push(line.clone());
            Courier::on(line, configured.clone(), stopped.clone())
        };
        let pipelines =
            records.clone().map(|shared| Pipeline::new(shared.clone(), courier(shared.kind().signal())));
        let lack = Arc::new(Lack::default());
        let newest = Newest::new(courier(Signal::Metrics), source.clone(), lack.clone());
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            keep_quiet();
            runtime.block_on(async {
                let mut tasks: JoinSet<()> = pipelines.into_iter().map(Pipeline::run).collect();
                tasks.spawn(newest.run());
                while tasks.join_next().await.is_some() {}
            });
            // A name that is being resolved holds nobody up.
            runtime.shutdown_background();
        })?;
        Ok(Self { records, lines, lack, config, stop, thread })
    }

    /// Takes what there is room for, and counts the rest. Never waits for a collector.
    pub(crate) fn push(&self, parcel: &Arc<Parcel>) {
        let config = self.config.borrow().clone();
        for shared in self.records.iter().filter(|shared| config.signals.contains(&shared.kind().signal())) {
            if let Some(slice) = Slice::whole(parcel, shared.kind()) {
                shared.push(slice, &config);
            }
        }
    }

    /// From now on by these settings. What waits goes where they say; a request that is on its way is waited for.
    pub(crate) fn configure(&self, config: Config) {
        self.config.send_if_modified(|current| {
            let other = **current != config;
            *current = Arc::new(config);
            other
        });
    }

    /// How it is.
    pub(crate) fn report(&self) -> Report {
        let (mut waiting, mut tally) = (0, Tally::default());
        for shared in &self.records {
            shared.with(|state| {
                waiting += state.queue.records() as u64;
                tally.add(&state.tally);
            });
        }
        let (endpoint, lost) = (self.config.borrow().endpoint.clone(), tally.lost());
        let failing = self.why().map(|why| format!("{why}, {waiting} records wait, {lost} dropped"));
        let all: Vec<_> = failing.into_iter().chain(self.lack.words()).collect();
        let trouble = (!all.is_empty()).then(|| format!("otlp {endpoint}: {}", all.join("; ")));
        Report { trouble, waiting, tally }
    }

    /// Why requests do not go, of each signal of which that is so.
    fn why(&self) -> Option<String> {
        let troubles = self.lines.iter().filter_map(|line| Some((line.signal(), line.trouble()?)));
        let troubles: Vec<_> = troubles.collect();
        match troubles.as_slice() {
            [] => None,
            [(_, first), others @ ..] if !others.is_empty() && others.iter().all(|(_, why)| why == first) => {
                Some(first.clone())
            }
            some => {
                let some = some.iter().map(|(signal, why)| format!("{}: {why}", signal.as_str()));
                Some(some.collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// Nothing more comes. What waits is sent until the deadline; what is left then is dropped, and counted.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
    }

    /// Whether it has come to its end after a stop.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Report {
    /// What came of all that was told.
    pub(crate) fn counts(self) -> OutputCounts {
        let Tally { accepted, known, rejected, dropped } = self.tally;
        let of_others = accepted - known.values().sum::<u64>();
        let written = known.into_iter().map(|(service, count)| (Some(service), count));
        let dropped =
            dropped.into_iter().map(|((service, why), count)| ((Some(service), why.as_str()), count));
        OutputCounts {
            written: written.chain((of_others > 0).then_some((None, of_others))).collect(),
            dropped: dropped.chain((rejected > 0).then_some(((None, "rejected"), rejected))).collect(),
            waiting: self.waiting,
        }
    }

    /// Says at the end what came of all that was told.
    pub(crate) fn say(&self, output: &str) {
        let Tally { accepted, known: _, rejected, dropped } = &self.tally;
        tracing::debug!(output, accepted, rejected, "what came of the records");
        for ((service, why), count) in dropped {
            tracing::warn!(output, %service, ?why, count, "the output has dropped records");
        }
    }
}

/// Nothing that is logged on this thread goes anywhere from here on.
fn keep_quiet() {
    // For as long as the thread lives.
    std::mem::forget(tracing::dispatcher::set_default(&Dispatch::none()));
}
