//! What a service has to say, through `tracing`: events and spans, to the service `logging`.
//!
//! ```text
//! tracing ─▶ filter ─▶ layer ─▶ outlet ─▶ lane ─▶ logging
//!               ▲        trace context ─▶ envelopes of what is sent meanwhile
//!               └──────────────── filter, sampling ◀─┘
//! ```
//! - [`run`](crate::run) installs it, unless `main` has set a subscriber of its own; then records are that one's affair.
//! - A record is made by the thread it happens on, which never waits for whoever reads it. Up to 1 MiB waits in the
//!   process when the lane is full, or while it is not known yet where records go; beyond that they are dropped, and
//!   counted, and the count is told with the next that goes. A process that is killed loses what it made in its last
//!   milliseconds.
//! - Without a logging service events go to standard error, one line each, filtered by `WATCHDOG_LOG` (`info` unless
//!   set). So do those of the logging service itself: it can't be its own reader.
//! - Filter and sampling are the logging service's to say, and change while the process runs.
//!
//! **Traces.** An `ask` is a client span, and its handling a server span of the same trace; what is told begins a trace
//! of its own when it is handled, which links to the span that told it. Between two calls of
//! [`next`](crate::Context::next) the handler is in its span; tasks it starts are by
//! [`in_current_span`](tracing::Instrument::in_current_span). The context goes with each message in 25 bytes, also
//! through a service that records nothing.

mod layer;
mod outlet;
mod queue;
mod readable;
mod sampler;
mod service;
pub(crate) mod spans;
mod trace;

pub use watchdog_protocol::record::{
    Batch, DropReason, Dropped, Event, Field, FilterUpdate, Level, Record, Sampling, Span, SpanKind,
    SpanStatus, Value,
};
pub use watchdog_protocol::trace::{SpanId, TraceContext, TraceId};

use watchdog_protocol::record::write::{self, BatchHead};

pub(crate) use self::service::Log;
pub(crate) use self::trace::current;
use crate::{Message, Reply};

/// The inbox of the logging service.
#[derive(Debug, Message)]
#[message(idempotent)]
pub enum LogMsg {
    /// What a process has to say.
    Records {
        /// Some records of it.
        batch: Batch,
    },
    /// Asks what to record. Answered when it is another filter than the one that is known: a filter is pushed by the
    /// answer to an ask that waits.
    Filter {
        /// The number of the filter in force; 0: none yet.
        known: u64,
        /// Another one.
        reply: Reply<FilterUpdate>,
    },
}

/// [`LogMsg::Records`] as bytes, without its records being read again.
fn records(head: &BatchHead<'_>, chunk: &queue::Chunk) -> Vec<u8> {
    let mut payload = Vec::with_capacity(chunk.bytes.len() + 64);
    // Of the variant.
    payload.push(0);
    write::batch(&mut payload, head, chunk.count, &chunk.bytes);
    payload
}

#[cfg(test)]
mod tests;
