//! The processes of services as the kernel shows them: cgroups and `/proc`.
//!
//! ```text
//! proc        one reading of /proc: who is whose child, since when, with how much memory
//! cgroup      a cgroup v2 for each service, where one can be made
//! members     how the processes of a service are found, now and later
//! ownership   whose an orphan is, without a cgroup
//! leftovers   processes of a former life, found and ended before anything starts
//! ```
//!
//! A process is named by its pid *and* start time: numbers come back, pairs don't. What is read is true for an
//! instant; nothing here decides what happens next.

pub mod cgroup;
pub mod leftovers;
pub mod members;
pub mod ownership;
pub mod proc;
pub mod strain;

pub use members::Members;
pub use proc::{Identity, Process, ProcessTable};
