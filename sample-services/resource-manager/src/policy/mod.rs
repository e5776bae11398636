//! Who gives what to whom: pure. Time is a count of periods, and there is no chance.
//!
//! ```text
//!        what each uses, and who is short        what was taken, and what that led to
//!                         └──────────┐   ┌───────────┘
//!                                    decide
//!                         ┌──────────┘   └───────────┐
//!                       moves                  what is remembered
//! ```
//! One [`Pool`] is one resource: processor time, memory. Each party has a **priority**, a **guarantee** it is never
//! pushed below, and an **allowance**: how much of the resource it is let have at present ([`Allowance`]).
//!
//! - **Take.** Somebody is short: of all who have a lower priority and use more than their guarantee, those of the lowest
//!   one lose half of what they use above it; those that have nothing left to lose, and may be, are frozen, then stopped.
//!   The next step is taken when, after this one, somebody is short again for [`Rules::short`] periods.
//! - **Give back.** Nobody above a party was short for [`Rules::calm`] periods: those of the highest priority that lost
//!   something get a half of what is unused, all together; or all, when the others use half of what they used when it
//!   was taken, for then its reason is gone.
//! - **No oscillation.** What a party used when somebody was short is remembered: as long as the reason is there it is not
//!   given that much again, but half way there, and more only as the others use less than then. One that was frozen or
//!   stopped is tried ever less often. So under a load that stays the same the moves come to an end, after a few for each
//!   time what is shared can be halved.
//!
//! What holds after each step, whatever comes, is in `tests`: never below a guarantee, nothing above what is configured,
//! a higher priority does not stay short while a lower one has a surplus, and rest under a load that rests.

mod allowance;
mod pool;
#[cfg(test)]
mod tests;

pub use self::allowance::Allowance;
pub use self::pool::{Move, Party, Pool, Remembered, Rules, Seen, Why};
