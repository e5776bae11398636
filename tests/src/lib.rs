//! The harness: starts the real watchdog with real services in a fresh folder, and looks at it from outside.
//!
//! ```text
//! scenario ─► TestWatchdog ─► `watchdog run` ─► keeper, core, services (samples and probes)
//!                 │ Operator: the command line, exit code and both streams
//!                 │ until:    the one place that waits, with a deadline that says what it waited for
//!                 └ proc:     processes and descriptors as /proc shows them
//! ```
//! A scenario sees what an operator sees: nothing here links the supervisor, and no scenario knows more than
//! the command line, the files and the processes show. Nothing sleeps outside [`until`]. Nothing outlives a
//! test: dropping a [`TestWatchdog`] stops it and fails the test when a process or socket is left.

mod binaries;
pub mod contract;
pub mod discreet;
mod entry;
pub mod events;
pub mod inject;
mod operator;
pub mod proc;
pub mod proof;
pub mod puppet;
pub mod stage;
pub mod terminal;
pub mod until;
pub mod uses;
mod view;
mod watchdog;

pub use binaries::{Rebuilt, binary};
pub use entry::{Entry, GRANT, logging_service, probe, program, sample, service};
pub use operator::{Operator, Said};
pub use view::{Seen, Service};
pub use watchdog::TestWatchdog;
