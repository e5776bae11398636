//! Every decision of the watchdog, without I/O.

pub mod access;
pub mod cause;
pub mod event;
pub mod graph;
pub mod moment;
pub mod phase;
pub mod policy;
pub mod restart;
pub mod roster;
pub mod service;
pub mod settings;
pub mod state;
mod stop;
pub mod values;

pub use access::{Access, Denied, Pattern};
pub use cause::{Absence, Actor, Cause, End, Exit, ExitReport, Manner, WatchdogReason};
pub use event::{
    Command, Event, Fact, Fallback, Gate, Haste, Occurrence, Purpose, Refusal, ServiceCommand, Verb,
};
pub use graph::GraphError;
pub use moment::{Chance, Moment};
pub use phase::{Phase, Wanted};
pub use policy::{Kind, Liveness, Policy, Readiness};
pub use roster::{Roster, Standing, TalkError, UnregisterError};
pub use service::Service;
pub use settings::{SetError, SettingsUpdater};
pub use state::StateSaver;
pub use values::{Change, Overrides, PathError, SettingPath, Values};
