//! How calls reach the watchdog.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use crate::QueryError;

/// A future on the heap, since [`Transport`] is used as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries calls to the watchdog: over the control socket, or over the session of a service.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Hands over an encoded [`Call`](watchdog_protocol::control::Call), without a length before it.
    ///
    /// Dropping the [`Replies`] gives up waiting; the effect of the call may come all the same.
    ///
    /// # Errors
    /// [`QueryError::NotReachable`] and [`QueryError::Closed`] when the watchdog is not there, which may pass;
    /// others when it is no use to try again.
    fn call(&self, call: Vec<u8>) -> BoxFuture<'_, Result<Box<dyn Replies>, QueryError>>;

    /// For how long a call that broke off is repeated, under the same id; asked after each failure. Zero, as by default, is for a
    /// transport that repeats by itself.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
}

/// What comes back for one call.
pub trait Replies: fmt::Debug + Send + 'static {
    /// The next encoded [`Reply`](watchdog_protocol::control::Reply), without a length before it. Must be
    /// cancel safe.
    ///
    /// # Errors
    /// [`QueryError::Closed`] when there is none though the call has not ended.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, QueryError>>;
}
