//! `watchdog.toml`: found, read, checked.
//!
//! ```text
//! find ─► load ─► parse ──► Config ──────────────► check ─► Checked: manifests, first settings
//!         (file)  document ─► section ─► spec       │ manifest_of (runs each SDK service once, cached)
//!                 toml text   typed keys ServiceSpec │ schema (defaults filled in, then validated)
//!                                  └─► graph: cycles, unknown names, permissions that refuse each other
//! ```
//! What `parse`, `parse_one`, [`graph`] and [`schema`] do is pure; [`load`], [`manifest_of`] and [`check`] touch
//! files and processes. Every error knows its place, all of a file's errors are reported together in file order,
//! and no text makes any of this panic. Nothing here knows a running service: what is in force is the core's.

mod as_configured;
mod check;
mod document;
mod drawn;
pub(crate) mod fit;
#[cfg(test)]
pub(crate) mod fixture;
mod grant;
pub mod graph;
mod group_table;
#[cfg(test)]
mod hostile;
mod keeping;
mod launch;
mod locate;
pub mod manifest_of;
mod permissions;
mod probe;
mod problem;
mod program;
mod quantity;
pub mod schema;
pub(crate) mod secret_file;
mod section;
mod service_table;
mod setting;
mod settings_table;
mod source;
mod spec;
pub(crate) mod state_of;
mod surroundings;
#[cfg(test)]
mod tests;

pub use as_configured::as_configured;
pub use check::{
    Checked, CheckedService, as_described, check, check_service, describe_service, is_awaited, manifest_cache,
};
pub use document::{parse, parse_one};
pub use drawn::{drawn, drawn_group, drawn_service};
pub use grant::{Grant, GrantError, VERBS};
pub use launch::{Launch, NoExecutable, Resource, Rlimit};
pub use locate::{FILE_NAME, find, load, read};
pub use permissions::unused;
pub use probe::{LogSigns, Pattern, Probe, ProbeKind};
pub use problem::{ConfigError, ConfigErrors, Problem};
pub(crate) use program::{built, file_identity};
pub use setting::{SettingPath, SettingPathError};
pub use source::{Place, Source};
pub use spec::{Config, ServiceSpec, SettingsTable, WatchdogSection};
pub use watchdog_lifecycle::policy::Kind;
