//! `watchdog run`.

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;

use super::console::Console;
use super::look::ColorChoice;
use super::place::Place;
use super::report::CliError;

/// Run the watchdog here, in the foreground, with all services of its configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog run --config /etc/shop/watchdog.toml")]
pub(super) struct Arguments {}

impl Arguments {
    /// Does not return: this process is executed anew as the keeper.
    pub(super) fn execute(self, console: &Console) -> Result<Infallible, CliError> {
        let Self {} = self;
        Ok(crate::run::run(&Place::file(console.config.as_deref())?)?)
    }
}

/// The keeper that `watchdog run` becomes.
pub(crate) fn keep(config: &Path, runtime: &Path) -> ExitCode {
    match crate::run::keep(config, runtime) {
        Ok(code) => code.into(),
        Err(error) => CliError::from(error).tell(ColorChoice::Auto),
    }
}
