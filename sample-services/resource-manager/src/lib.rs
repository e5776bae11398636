//! What the resource manager decides by, and what one may ask it.
//!
//! [`policy`] decides, and is pure; [`simulated`] is a machine to try it on. `tests/traces.rs` runs it on loads that were
//! recorded, and draws what came of one: `traces/one-run.svg`. [`lease`] is for services that borrow tokens of what others
//! declare, by the same policy.

use watchdog_service::{Message, Payload, Reply};

pub mod lease;
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
    /// What one service used and was let have lately.
    History {
        /// Whose.
        service: String,
        /// Takes the answer. `None`: there is no such service, or it was not looked at twice yet.
        reply: Reply<Option<History>>,
    },
    /// What a borrower of tokens says of itself, as often as it likes: [`lease::Borrower`] does it.
    Lease {
        /// All there is to say.
        request: lease::Request,
        /// Takes the answer: at once when there is something new, else after [`lease::HOLD`].
        reply: Reply<lease::Answer>,
    },
    /// Who has which tokens at present.
    Leases {
        /// Takes the answer, by name.
        reply: Reply<Vec<Lending>>,
    },
}

/// A resource that is lent.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct Lending {
    /// Its name.
    pub resource: String,
    /// How many tokens there are.
    pub total: u32,
    /// Who borrows of it, by name.
    pub borrowers: Vec<Borrowing>,
}

/// What one service has of it.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct Borrowing {
    /// Who.
    pub service: String,
    /// 0 to 100.
    pub priority: u8,
    /// It is not asked to give back below this.
    pub guaranteed: u32,
    /// What it would like to have.
    pub wanted: u32,
    /// What it may be using.
    pub lent: u32,
    /// What of that it was asked to give back.
    pub asked_back: u32,
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

/// What one service used and was let have lately, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct History {
    /// The last 120 looks.
    pub looks: Samples,
    /// 120 pieces of 30 looks each: what was used on average, and the least that was let have.
    pub pieces: Samples,
}

/// Samples, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct Samples {
    /// From one to the next, in milliseconds.
    pub every_ms: u64,
    /// The newest last.
    pub samples: Vec<Sample>,
}

/// At one moment, or over some time.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct Sample {
    /// Processor time it used, in thousandths of a processor. `None`: it did not run, or nobody knows.
    pub cpu: Option<u64>,
    /// Processor time it was let have. `None`: all it can get.
    pub cpu_most: Option<u64>,
    /// Memory it used, in bytes.
    pub memory: Option<u64>,
    /// Memory it was let have, in bytes. `None`: all it can get.
    pub memory_most: Option<u64>,
    /// It stood still.
    pub is_frozen: bool,
}
