//! `watchdog rollback`.

use watchdog_protocol::{Revision, ServiceName};

use super::console::Console;
use super::report::CliError;
use super::verdict::{self, Terms, parse_revision};

/// Go back to the settings that were in force at an older revision, and wait for the service's verdict.
///
/// They become a new revision: numbers only grow, and a second rollback undoes the first. They are checked as those of
/// `set` are, by the settings the service has now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog rollback counter\n  watchdog rollback counter --to 3")]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
    /// The revision whose values are wanted, as `watchdog history` lists it; else those in force before the newest
    /// change.
    #[arg(long, value_name = "REVISION", value_parser = parse_revision)]
    to: Option<Revision>,
    #[command(flatten)]
    terms: Terms,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, to, terms } = self;
        let ask =
            console.ask(async |query| query.rollback(&service, to, terms.if_revision(), terms.wait()).await);
        verdict::show(&service, ask.await?, &[], console)
    }
}
