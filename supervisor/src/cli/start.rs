//! `watchdog start`.

use watchdog_protocol::ServiceName;

use super::changed;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;

/// Want services up, and wait until they are ready.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog start counter --wait=2m")]
pub(super) struct Arguments {
    /// Names of services or programs.
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let done = console.ask(async |query| query.start(&self.services, self.wait.time()).await).await?;
        changed::show(&done, console)
    }
}

#[cfg(test)]
impl Arguments {
    pub(super) fn wait(&self) -> Option<std::time::Duration> {
        self.wait.time()
    }
}
