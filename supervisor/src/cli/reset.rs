//! `watchdog reset`.

use watchdog_protocol::ServiceName;

use super::changed;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;

/// Clear a failure and start again what is wanted up; the state is kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog reset counter")]
pub(super) struct Arguments {
    /// Names of services or programs.
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let done = console.ask(async |query| query.reset(&self.services, self.wait.time()).await).await?;
        changed::show(&done, console)
    }
}
