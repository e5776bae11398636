//! What one may say to the counter: all that its callers compile against.

use watchdog_service::{Message, Reply};

/// What other services may say to a counter.
#[derive(Debug, Message)]
pub enum CounterMsg {
    /// Adds `n` times the `step` setting. Told: it arrives even if the counter dies meanwhile.
    Add {
        /// How often the step is added.
        n: u32,
    },
    /// The total that is on disk.
    Total {
        /// Takes the answer.
        reply: Reply<u64>,
    },
}
