//! Tokens that are lent: connections of a database, licences, slots of a GPU.
//!
//! A service declares what it has, `[service.postgres.resources]` with `db-connections = 100`; others borrow of it
//! with a [`Borrower`], and the resource manager says who gets how many.
//!
//! ```text
//! borrower                                        lender: the resource manager
//!   Purse ── wanted, in use at the most ─► lane ─► Ledger ── what is lent is on disk before more is
//!         ◄── so many, for 15 s ─────────────────── answers at once when something changes, else after 4 s
//! ```
//! Each request says all there is to say, so any may be lost, and any may come to another process of the lender. A token is
//! valid from when it was asked for; to the lender it is lent from when it answered, and a second longer: whatever is slow or
//! dies between the two, the borrower stops first.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use watchdog_service::Payload;

mod borrower;
pub mod ledger;
pub mod purse;
mod steps;
#[cfg(test)]
mod tests;

pub use self::borrower::{BorrowError, Borrower, Token};

/// How long a token is valid without another answer.
pub const LEASE: Duration = Duration::from_secs(15);

/// So much longer the lender counts it as lent: for the instruction between looking whether a token is valid, and using it.
pub const MARGIN: Duration = Duration::from_secs(1);

/// A request is answered after this also when there is nothing new: below a third of the lease, so that two answers can be
/// lost.
pub const HOLD: Duration = Duration::from_secs(4);

/// What a borrower says of itself, each time.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub struct Request {
    /// Of what.
    pub resource: String,
    /// Its incarnation.
    pub process: u64,
    /// Larger than any before it of this process.
    pub number: u64,
    /// How many tokens it would like to have.
    pub wanted: u32,
    /// What it was told last that it may use, if that still holds.
    pub limit: u32,
    /// The most it may come to use if it gets no answer.
    pub held: u32,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Payload)]
pub enum Answer {
    /// From now on it takes no more than these. What it uses above that is valid as long as it was, and is to be given
    /// back.
    Lent {
        /// How many.
        tokens: u32,
        /// From when the request was sent.
        for_ms: u64,
    },
    /// Nothing, and why.
    Refused {
        /// In words.
        why: String,
    },
}

/// Since the machine was started, also while it was suspended. Both sides count by it.
///
/// # Panics
/// Never: every kernel we run on has this clock.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel since 2.6.39 has it");
    now.into()
}

/// The name most like `name`, when one is.
pub fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    let likeness = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let near = likeness.filter(|(likeness, _)| *likeness > 0.8).max_by(|(a, _), (b, _)| a.total_cmp(b));
    near.map(|(_, known)| known.to_owned())
}
