//! `watchdog start`, `stop`, `restart` and `reset`: what differs is what is wanted.

use watchdog_protocol::ServiceName;

use super::changed;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;

/// Of which services.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Names of services, programs, tasks or groups.
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    #[command(flatten)]
    wait: Wait,
}

/// What is wanted of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish {
    Start,
    Stop,
    Restart,
    Reset,
}

impl Arguments {
    pub(super) async fn execute(self, wish: Wish, console: &Console) -> Result<(), CliError> {
        let (services, wait) = (&self.services, self.wait.time());
        let ask = console.ask(async |query| match wish {
            Wish::Start => query.start(services, wait).await,
            Wish::Stop => query.stop(services, wait).await,
            Wish::Restart => query.restart(services, wait).await,
            Wish::Reset => query.reset(services, wait).await,
        });
        changed::show(&ask.await?, console)
    }
}

#[cfg(test)]
impl Arguments {
    pub(super) fn wait(&self) -> Option<std::time::Duration> {
        self.wait.time()
    }
}
