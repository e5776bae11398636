//! The task that reads the event log.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use watchdog_service::query::{Events, FailureKind, QueryError};
use watchdog_service::{ServiceName, WatchdogQuery};

use super::Stretch;
use super::place::{Place, Step};

/// Entries of one stretch, so that those of services wait for no more than that.
const MOST: usize = 256;

/// Before a reading that broke off begins again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the grant lacks, on standard error.
pub(super) fn say_no_grant(service: &ServiceName) {
    tracing::warn!(
        "the watchdog's own events are not recorded: `{service}` may not ask for them; expected in its table: control = [\"events\"]"
    );
}

/// Reads until nobody takes what is read, or it may not be read.
pub(super) async fn follow(
    query: &WatchdogQuery,
    service: &ServiceName,
    place: Option<Place>,
    out: &mpsc::Sender<Stretch>,
) {
    let mut reading = Reading { place: place.unwrap_or_default(), old: None, out };
    let mut told = None;
    while !out.is_closed() {
        match reading.read(query).await {
            // Who falls behind is let go, and asks again.
            Ok(()) => told = None,
            Err(QueryError::Refused(failure)) if failure.kind == FailureKind::NotPermitted => {
                return say_no_grant(service);
            }
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "the event log can't be read, and is tried again");
                }
                told = Some(error);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Reading<'o> {
    place: Place,
    /// The newest entry when this process began: up to there an earlier one may have had them in hand.
    old: Option<u64>,
    out: &'o mpsc::Sender<Stretch>,
}

impl Reading<'_> {
    /// What there is, then what comes, until the stream ends.
    async fn read(&mut self, query: &WatchdogQuery) -> Result<(), QueryError> {
        let newest = query.events(0, 1, false).next().await?.map_or(0, |entry| entry.number);
        self.old.get_or_insert(newest);
        self.place.look(newest);
        // First what is there, so that the following begins near its end and does not fall behind at once.
        self.pass_on(query.events(self.place.before(), u64::MAX, false)).await?;
        self.pass_on(query.events(self.place.number(), u64::MAX, true)).await
    }

    async fn pass_on(&mut self, mut events: Events<'_>) -> Result<(), QueryError> {
        loop {
            let (mut entries, mut end) = (Vec::new(), None);
            let mut next = Some(events.next().await);
            while let Some(found) = next.take() {
                match found {
                    Ok(Some(entry)) => match self.place.take(&entry) {
                        Step::News => entries.push(entry),
                        Step::Known => {}
                        // It is read from its beginning.
                        Step::OtherLog => end = Some(Ok(())),
                    },
                    Ok(None) => end = Some(Ok(())),
                    Err(error) => end = Some(Err(error)),
                }
                if end.is_none() && entries.len() < MOST {
                    next = at_once(events.next()).await;
                }
            }
            if let Some(first) = entries.first() {
                let comes_again = self.old.is_some_and(|old| first.number <= old);
                let stretch = Stretch { entries, place: self.place, comes_again };
                if self.out.send(stretch).await.is_err() {
                    return Ok(());
                }
            }
            if let Some(end) = end {
                return end;
            }
        }
    }
}

/// What is there without a wait.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(found) => Poll::Ready(Some(found)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
