//! `watchdog check`.

use super::changed::done;
use super::console::Console;
use super::figures::count;
use super::place::Place;
use super::report::CliError;
use crate::config;

/// Find what is wrong with the configuration, without starting anything.
///
/// Runs each service that is built on the SDK once, so that it describes its settings. A rule of `use` or `offer` by
/// which nobody can talk to anybody is a warning, on standard error; so is a secret in a file that everybody can read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog check --config new.toml")]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self {} = self;
        let config = config::load(&Place::file(console.config.as_deref())?)?;
        // Without the cache: a check leaves nothing behind, and sees a program that was replaced in place.
        let checked = config::check(&config, None)?;
        for warning in config::unused(config.services.values()).iter().chain(checked.warnings()) {
            console.warn(warning);
        }
        let services = count(config.services.len() as u64, "service");
        done(&format!("{}: {services}, nothing wrong", config.path.display()), console)
    }
}
