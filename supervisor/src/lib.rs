//! The watchdog and its command line.
//!
//! ```text
//! cli ──────► query ~~~ control socket ~~~► core ──► lifecycle (decides)
//!  └─ run ──► keeper ── starts ───────────► core ──► store, capture, processes, probe (do)
//! ```
//! One executable: `watchdog run` becomes the keeper, which starts the same file as the core; every other verb is a
//! client of the core's.

pub mod capture;
pub mod config;
pub mod probe;
pub mod processes;
pub mod store;
