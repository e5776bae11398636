//! `watchdog unset`.

use watchdog_protocol::ServiceName;

use super::console::Console;
use super::report::CliError;
use super::set::{show, verdict_wait};

/// Take settings back to the values of the configuration file, all or none, and wait for the verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog unset counter step")]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
    /// Paths of the settings.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// Come back as soon as the change is on disk.
    #[arg(long)]
    no_wait: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let wait = verdict_wait(self.no_wait);
        let outcome = console.ask(async |query| query.unset(&self.service, self.keys, wait).await).await?;
        show(&self.service, outcome, console)
    }
}
