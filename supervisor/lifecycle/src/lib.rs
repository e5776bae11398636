//! Every decision of the watchdog, without I/O: time and chance are arguments.
//!
//! ```text
//!            event ─► Roster ─► Service::step ─► commands ─► the core performs them
//!                      │  gate: may it run, as the others and its group stand?
//!                      └─ Policy: restart, limits, timeouts, order, access
//!
//!   set, verdict ─► SettingsUpdater ─► notices: acknowledge, deliver, settle  ┐ each behind
//!         update ─► StateSaver ─► what to write now, and until when           ┘ a durable write
//!
//!   status, event log ─► why ─► from a state back to its first cause
//! ```
//!
//! What holds, and the `properties` folder tries to break:
//! - A service has never two processes: a spawn leaves only from a phase that has none.
//! - Nothing starts before what it requires is ready; what is required stops last.
//! - Only an operator's verb changes what is wanted; only facts change what is.
//! - Members of a group never run against their order; each failure counts once.
//! - Every verb is legal in every phase, and every stop ends.
//! - Revisions and sequences only grow, and what is promised is on disk.
//!
//! Absent: a clock, a random source, files, descriptors, tasks; a `_` arm over phases or events; a status that is
//! stored beside what it is computed from.

pub mod access;
pub mod cause;
pub mod event;
mod evidence;
pub mod graph;
pub mod group;
pub mod host;
pub mod moment;
pub mod phase;
pub mod poison;
pub mod policy;
pub mod restart;
pub mod roster;
pub mod service;
pub mod settings;
pub mod state;
mod stop;
pub mod values;
pub mod why;

pub use access::{Access, Denied, Pattern};
pub use cause::{Absence, Actor, Cause, End, Exit, ExitReport, Manner, WatchdogReason};
pub use event::{
    Command, Event, Fact, Fallback, Gate, Haste, Occurrence, Purpose, Refusal, ServiceCommand, Verb,
};
pub use graph::GraphError;
pub use group::{Group, GroupPolicy, Strategy};
pub use host::{Excuse, HostLook};
pub use moment::{Chance, Moment, Span, WallTime};
pub use phase::{Phase, Wanted};
pub use policy::{Kind, Liveness, Policy, Readiness, Work};
pub use roster::{Reach, Reconfiguration, Roster, Standing, TalkError, UnregisterError};
pub use service::Service;
pub use settings::{Present, Proposal, SetError, SettingsUpdater};
pub use state::StateSaver;
pub use values::{Change, Difference, Overrides, PathError, SettingPath, Values};
