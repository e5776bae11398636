//! Takes from the low priority to give to the high when something is short, and gives back when it is calm.
//!
//! [`policy`] decides, and is pure; [`simulated`] is a machine to try it on. `tests/traces.rs` runs it on loads that were
//! recorded, and draws what came of one: `traces/one-run.svg`.

pub mod policy;
pub mod simulated;
