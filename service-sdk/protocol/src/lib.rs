//! Bytes and names: everything that crosses a process boundary of the watchdog.
//!
//! No tokio, no nix, no files, no clock: the manifest of this crate has none of them to import.

mod generation;
pub mod limits;
mod name;

pub use generation::{Incarnation, LaneEpoch, MessageId, MessageNumber, RequestId, Revision, Sequence};
pub use name::{NameError, ServiceName};
