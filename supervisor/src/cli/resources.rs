//! `watchdog resources`: what the resource manager knows, which is an ordinary service.

mod chart;
mod history;
mod leases;

use std::time::Duration;

use serde::de::DeserializeOwned;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::FailureKind;
use watchdog_query::QueryError;

use super::console::Console;
use super::report::CliError;
use super::send;

/// What it is called unless somebody says otherwise.
const MANAGER: &str = "resource-manager";

/// How long the manager may take: it answers between two looks.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show what the resource manager sees and does.
///
/// It is a service that somebody configured: `[service.resource-manager]`. `watchdog limits` shows what is in force without
/// it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog resources history counter")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    History(history::Arguments),
    Leases(leases::Arguments),
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        match self.what {
            What::History(arguments) => arguments.execute(console).await,
            What::Leases(arguments) => arguments.execute(console).await,
        }
    }
}

/// Which service is the manager.
#[derive(Debug, clap::Args)]
struct Manager {
    /// The service that moves resources.
    #[arg(long = "manager", value_name = "SERVICE", default_value = MANAGER)]
    name: ServiceName,
}

impl Manager {
    /// Its answer to a message, as JSON and as what it stands for.
    async fn ask<T: DeserializeOwned>(
        &self,
        message: &str,
        console: &Console,
    ) -> Result<(String, T), CliError> {
        let json = send::answer(&self.name, message, PATIENCE, console).await;
        let json = json.map_err(|error| self.with_hint(error))?;
        let answer = serde_json::from_str(&json)
            .map_err(|source| CliError::NoManager { service: self.name.clone(), source })?;
        Ok((json, answer))
    }

    /// Where nobody named a manager and there is none, it is said how to have one.
    fn with_hint(&self, error: CliError) -> CliError {
        match error {
            CliError::Query(QueryError::Refused(failure))
                if failure.kind == FailureKind::Usage && self.name.as_str() == MANAGER =>
            {
                let hint = "[service.resource-manager] in watchdog.toml makes one, --manager names another";
                CliError::Query(QueryError::Refused(failure.hint(hint)))
            }
            error => error,
        }
    }
}
