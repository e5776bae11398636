//! The event log as it is shown: what the files have, and what they could not be given.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply};
use watchdog_protocol::status::{EventRecord, ServiceStatus};

use super::{KEPT, path};
use crate::store::lines;

/// The entries up to an instant.
#[derive(Debug, Clone)]
pub(in crate::core) struct View {
    pub(super) folder: PathBuf,
    /// Those that could not be written.
    pub(super) lost: Vec<EventRecord>,
    /// The number of the next one.
    pub(super) end: u64,
}

impl View {
    /// The newest `last` entries after number `after`, in order. Blocks.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(in crate::core) fn read(self, after: u64, last: usize) -> io::Result<Vec<EventRecord>> {
        let last = last.min(KEPT);
        let is_wanted = |record: &EventRecord| (after.saturating_add(1)..self.end).contains(&record.number);
        let in_files = lines::read_where(&path(&self.folder), last, is_wanted)?;
        let found = in_files.into_iter().chain(self.lost.into_iter().filter(is_wanted));
        // A file that reached its limit meanwhile was read twice.
        let found: BTreeMap<_, _> = found.map(|record| (record.number, record)).collect();
        let older = found.len().saturating_sub(last);
        Ok(found.into_values().skip(older).collect())
    }

    /// Answers with these entries, then with those that come, until nobody listens.
    pub(in crate::core) async fn serve(
        self,
        after: u64,
        last: usize,
        coming: Option<mpsc::Receiver<Reply>>,
        replies: mpsc::Sender<Reply>,
    ) {
        let records = match self.on_a_thread(move |view| view.read(after, last)).await {
            Ok(records) => records,
            Err(failure) => return end(&replies, Err(failure)).await,
        };
        for record in records {
            if replies.send(Reply::Event(record)).await.is_err() {
                return;
            }
        }
        if let Some(mut coming) = coming {
            while let Some(reply) = coming.recv().await {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
        }
        end(&replies, Ok(Outcome::Done(String::new()))).await;
    }

    /// Answers with the way from the state a service is in back to its first cause. `services` are all there are.
    pub(in crate::core) async fn serve_why(
        self,
        service: ServiceName,
        services: Vec<ServiceStatus>,
        replies: mpsc::Sender<Reply>,
    ) {
        let why = self.on_a_thread(move |view| {
            let log = view.read(0, KEPT)?;
            let why = watchdog_lifecycle::why::why(&service, &services, &log);
            Ok(why.expect("the names of a request are looked up first"))
        });
        let answer = why.await.map(|why| Outcome::Why(Box::new(why)));
        end(&replies, answer).await;
    }

    /// A long log, or a slow disk, makes nobody else wait.
    async fn on_a_thread<T: Send + 'static>(
        self,
        read: impl FnOnce(Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let shown = self.folder.display().to_string();
        match spawn_blocking(move || read(self)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(err)) => {
                let text = format!("cannot read the event log in {shown}: {err}");
                Err(Failure::new(FailureKind::Failed, text))
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

async fn end(replies: &mpsc::Sender<Reply>, answer: Result<Outcome, Failure>) {
    // Whoever is gone needs no end.
    let _ = replies.send(Reply::End(answer)).await;
}
