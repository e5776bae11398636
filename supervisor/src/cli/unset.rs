//! `watchdog unset`.

use watchdog_protocol::ServiceName;

use super::console::Console;
use super::report::CliError;
use super::verdict::{self, Terms};

/// Take settings back to the values of the configuration file, all or none, and wait for the verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog unset counter step")]
pub(super) struct Arguments {
    /// Whose; the name of all instances changes them one after the other.
    service: ServiceName,
    /// Paths of the settings.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    terms: Terms,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, keys, terms } = self;
        for service in verdict::whose(&service, console).await? {
            let keys = keys.clone();
            let ask = console
                .ask(async |query| query.unset(&service, keys, terms.if_revision(), terms.wait()).await);
            verdict::show(&service, ask.await?, &[], console)?;
        }
        Ok(())
    }
}
