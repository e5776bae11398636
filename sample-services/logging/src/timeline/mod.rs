//! [`Timeline`]: the event log of the watchdog, followed: each entry comes once, in order.
//!
//! ```text
//! core ── events ─► follower, a task ── stretches ─► desk ─► filter, redaction ─► outputs: records of `watchdog`
//!                       ▲                             └─ once they have it: the place, into the kept state
//!                       └────── the place, at a start
//! ```
//! A kill of this service makes entries come again that outputs have; a file tells them by their number. Nothing is
//! asked, and nobody woken, while nothing happens.

mod follower;
mod place;
mod record;

use std::future;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchdog_service::query::status::EventRecord;
use watchdog_service::{ServiceName, WatchdogQuery};

pub(crate) use self::place::Place;
pub(crate) use self::record::batches;

/// Stretches that wait for the desk: more than the whole of what the watchdog keeps, so that a disk that hangs for a
/// moment costs the core no second reading.
const BEHIND: usize = 64;

/// Some entries, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stretch {
    /// At least one.
    pub(crate) entries: Vec<EventRecord>,
    /// How far the log is taken in with them.
    pub(crate) place: Place,
    /// An earlier process may have had them in hand: an output may have some of them.
    pub(crate) comes_again: bool,
}

/// What comes of the event log.
#[derive(Debug)]
pub(crate) struct Timeline {
    stretches: mpsc::Receiver<Stretch>,
    task: JoinSet<()>,
}

impl Timeline {
    /// All that is behind a place, or all there is. Without a grant for it there is nothing, which is said once.
    pub(crate) fn follow(
        query: Option<Arc<WatchdogQuery>>,
        service: &ServiceName,
        place: Option<Place>,
    ) -> Self {
        let (out, stretches) = mpsc::channel(BEHIND);
        let mut task = JoinSet::new();
        match query {
            Some(query) => {
                let service = service.clone();
                task.spawn(async move { follower::follow(&query, &service, place, &out).await });
            }
            None => follower::say_no_grant(service),
        }
        Self { stretches, task }
    }

    /// More may come: it may be asked for.
    pub(crate) fn goes_on(&self) -> bool {
        !self.stretches.is_closed()
    }

    /// What comes next; without a grant nothing, for ever. Cancel safe.
    pub(crate) async fn next(&mut self) -> Stretch {
        if let Some(stretch) = self.stretches.recv().await {
            return stretch;
        }
        // It has said why it ended; if by a panic, this service ends by it too.
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        future::pending().await
    }
}
