//! Against a collector in this process: whatever it does, the counts add up.

mod arriving;
mod collector;
mod failing;
mod measured;
mod quiet;
mod real;
mod secure;

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::config::{Config, Protocol};
use super::samples::{event, parcel, span};
use super::{Exporter, Report};
use crate::metrics::Source;
use crate::output::Board;
use crate::parcel::Parcel;
use watchdog_service::log::Record;

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

/// Events of a service, each with its own words.
fn events(service: &str, from: usize, to: usize) -> Arc<Parcel> {
    records(service, (from..to).map(|number| event(&format!("{service} {number}"))).collect())
}

fn spans(service: &str, count: usize) -> Arc<Parcel> {
    records(service, (0..count).map(|number| span(&format!("{service} {number}"))).collect())
}

fn records(service: &str, records: Vec<Record>) -> Arc<Parcel> {
    parcel(service, 1, 1, records)
}

fn words(service: &str, from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("{service} {number}")).collect()
}

/// An exporter, and what it wakes.
struct Told {
    exporter: Exporter,
    board: Arc<Board>,
}

impl Told {
    fn start(config: Config) -> Self {
        let board = Arc::new(Board::default());
        Self { exporter: Exporter::start(config, &board, &Source::dry()).unwrap(), board }
    }

    async fn until(&self, what: &str, done: impl Fn(&Report) -> bool) -> Report {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let report = self.report();
            if done(&report) {
                return report;
            }
            if timeout(until - Instant::now(), self.board.changed()).await.is_err() {
                panic!("waited in vain until {what}: {report:?}");
            }
        }
    }

    async fn end(self) -> Report {
        self.close(Instant::now() + Duration::from_secs(60)).await
    }

    async fn close(self, deadline: Instant) -> Report {
        self.stop(deadline);
        let ended = tokio::task::spawn_blocking(move || {
            let Exporter { records, lines, lack, config, stop, thread } = self.exporter;
            thread.join().unwrap();
            Exporter { records, lines, lack, config, stop, thread: std::thread::spawn(|| {}) }.report()
        });
        ended.await.unwrap()
    }
}

impl Deref for Told {
    type Target = Exporter;

    fn deref(&self) -> &Exporter {
        &self.exporter
    }
}
