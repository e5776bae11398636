//! `watchdog unregister`.

use watchdog_protocol::ServiceName;

use super::changed::done;
use super::console::Console;
use super::report::CliError;

/// Take a stopped service out, with its lanes. What is in the configuration file comes back with the next `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog stop late && watchdog unregister late")]
pub(super) struct Arguments {
    /// Its name.
    service: ServiceName,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let words = console.ask(async |query| query.unregister(&self.service).await).await?;
        done(&words, console)
    }
}
