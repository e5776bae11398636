//! `watchdog run`.

use std::process::ExitCode;

use super::console::Console;
use super::place::Place;
use super::report::CliError;

/// Run the watchdog here, in the foreground, with all services of its configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog run --config /etc/shop/watchdog.toml")]
pub(super) struct Arguments {}

impl Arguments {
    /// Needs a process of one thread: it becomes the keeper.
    pub(super) fn execute(self, console: &Console) -> Result<ExitCode, CliError> {
        let Self {} = self;
        Ok(crate::run::run(&Place::file(console.config.as_deref())?)?.into())
    }
}
