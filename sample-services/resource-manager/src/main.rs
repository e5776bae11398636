//! Takes from the low priority to give to the high when something is short, and gives back when it is calm.
//!
//! ```text
//! each period:  usage, limits ─► look ─► policy, a pool each for processors and memory ─► moves
//!     core ◄── limit, freeze, thaw, stop, start, with the reason ◄── acts: what differs from what is in force
//! ```
//! It acts by its grant alone: `control = ["status", "limits", "limit", "freeze", "thaw", "stop", "start"]`, each for all
//! or for some services; what it may not do is told, and everything else is done. What it set stays while it is down: a
//! new process finds what each is let have in what is in force, and goes on.
//!
//! Invariants:
//! - What limits a service had before something was taken from it is on disk before it is taken.
//! - Itself, and services that are not there, are never moved.
//! - Who is not in its settings gets back what it had, and is not otherwise touched.

mod acts;
mod history;
mod lending;
mod look;
mod manager;
mod pace;
mod settings;

fn main() -> std::process::ExitCode {
    watchdog_service::run(manager::manager)
}
