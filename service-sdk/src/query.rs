//! What [`WatchdogQuery`](crate::WatchdogQuery) answers with; for a service that holds a grant it goes over the session.

use std::time::Duration;

use tokio::sync::mpsc;
pub use watchdog_protocol::control::{Failure, FailureKind};
pub use watchdog_protocol::{resources, status, usage};
use watchdog_query::{BoxFuture, Replies, Transport};
pub use watchdog_query::{Events, QueryError};

use crate::session::Link;

/// A new core takes over within a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries calls as packets of the session.
#[derive(Debug)]
pub(crate) struct SessionTransport(pub(crate) Link);

impl Transport for SessionTransport {
    fn call(&self, call: Vec<u8>) -> BoxFuture<'_, Result<Box<dyn Replies>, QueryError>> {
        let replies = self.0.write(|ledger| ledger.call(call));
        Box::pin(std::future::ready(Ok(Box::new(SessionReplies(replies)) as _)))
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

#[derive(Debug)]
struct SessionReplies(mpsc::Receiver<Vec<u8>>);

impl Replies for SessionReplies {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, QueryError>> {
        Box::pin(async { self.0.recv().await.ok_or(QueryError::Closed { source: None }) })
    }
}
