//! Bytes and names: everything that crosses a process boundary of the watchdog.
//!
//! No tokio, no nix, no files, no clock: the manifest of this crate has none of them to import.

pub mod audit;
pub mod control;
pub mod dead;
pub mod fit;
mod generation;
pub mod graph;
pub mod lane;
pub mod layout;
pub mod limits;
pub mod manifest;
mod name;
pub mod plan;
pub mod record;
pub mod resources;
pub mod session;
pub mod status;
pub mod trace;
pub mod usage;
pub mod why;

pub use generation::{
    Incarnation, LaneEpoch, MessageId, MessageIdError, MessageNumber, RequestId, Revision, Sequence,
};
pub use manifest::{Contract, Manifest, MessageShape, Mismatch, StateManifest};
pub use name::{NameError, ServiceName};
