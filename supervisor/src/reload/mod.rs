//! Drift, and the plan of a reload: what the file says, what is in force, and what runs, side by side.
//!
//! ```text
//! the file ───┐
//! in force ───┼─► keys, each as text with its way ─► what differs ─► a deed for each service ─► Plan
//! running ────┘
//! ```
//! Pure: who reads the file, and who does what is planned, is the core (`core/reload`). That all keys are looked at, and
//! nothing else, is a property that is tested against the configuration's own comparison.

mod keys;
mod plan;
#[cfg(test)]
mod tests;

pub(crate) use plan::{Now, Sides, plan, reach};
