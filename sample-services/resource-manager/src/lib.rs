//! What the resource manager decides by, and what one may ask it.
//!
//! [`policy`] decides, and is pure; [`simulated`] is a machine to try it on. `tests/traces.rs` runs it on loads that were
//! recorded, and draws what came of one: `traces/one-run.svg`.

use watchdog_service::{Message, Payload, Reply};

pub mod policy;
pub mod simulated;

/// What others may say to the resource manager.
#[derive(Debug, Message)]
pub enum ManagerMsg {
    /// What each service is let have at present.
    Standings {
        /// Takes the answer, by name.
        reply: Reply<Vec<Standing>>,
    },
}

/// What one service is let have.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct Standing {
    /// Whose.
    pub service: String,
    /// 0 to 100.
    pub priority: u8,
    /// Of processor time: `all`, `the rest`, so many thousandths of a processor, `nothing (frozen)`, `nothing (stopped)`.
    pub cpu: String,
    /// Of memory, in bytes, in the same way.
    pub memory: String,
}
