//! `watchdog scale`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::MAX_INSTANCES;

use super::changed;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;

/// Say how many instances of a service there are to be, and wait until there are. Those with the highest numbers go
/// first, with time to save, and come back with their state. It outlives a restart of the watchdog.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog scale worker 6")]
pub(super) struct Arguments {
    /// The name of all instances, without a number.
    service: ServiceName,
    /// How many there are to be.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_INSTANCES)))]
    instances: u32,
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, instances, wait } = self;
        let ask = console.ask(async |query| query.scale(&service, instances, wait.time()).await);
        changed::show(&ask.await?, console)
    }
}
