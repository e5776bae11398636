//! `watchdog freeze` and `thaw`.

use std::time::Duration;

use watchdog_protocol::ServiceName;

use super::changed;
use super::console::Console;
use super::report::CliError;

/// A process in the kernel stands still when it comes out of it.
const STILL: Duration = Duration::from_secs(60);

/// Which, and why.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Names of services, programs, tasks or groups.
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Why; it is in the event log and in the audit.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What is wanted of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Still {
    Freeze,
    Thaw,
}

impl Arguments {
    pub(super) async fn execute(self, still: Still, console: &Console) -> Result<(), CliError> {
        let (services, reason) = (&self.services, &self.reason);
        let ask = console.ask(async |query| match still {
            Still::Freeze => query.freeze(services, reason.clone(), STILL).await,
            Still::Thaw => query.thaw(services, reason.clone()).await,
        });
        changed::show(&ask.await?, console)
    }
}
