//! The watchdog and its command line.
//!
//! ```text
//! cli ──────► query ~~~ control socket ~~~► core ──► lifecycle (decides)
//!  └─ run ──► keeper ── starts ───────────► core ──► store, capture, processes, probe (do)
//! ```
//! One executable: `watchdog run` becomes the keeper, which starts the same file as the core; every other verb is a
//! client of the core's.

mod account;
pub mod capture;
pub mod cli;
pub mod config;
mod core;
pub mod limiting;
mod nearest;
mod notify;
pub mod probe;
pub mod processes;
mod records;
mod reload;
pub mod run;
pub mod store;
mod tail;
mod usage;

use std::path::Path;
use std::process::ExitCode;

use watchdog_keeper::SAFE;

/// The role of this process, by its first argument: the keeper that `watchdog run` becomes, a core when the keeper started it, a build that is asked whether it
/// could be one, else a verb.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match arguments.as_slice() {
        [_, role, config, runtime] if role == run::CORE => {
            core::main(Path::new(config), Path::new(runtime), core::Extent::Whole)
        }
        [_, role, config, runtime, safe] if role == run::CORE && safe == SAFE => {
            core::main(Path::new(config), Path::new(runtime), core::Extent::Safe)
        }
        [_, role, config, runtime] if role == run::KEEPER => cli::keep(Path::new(config), Path::new(runtime)),
        [_, role, config, runtime] if role == run::CHECK => {
            core::build::main(Path::new(config), Path::new(runtime))
        }
        _ => cli::main(),
    }
}
