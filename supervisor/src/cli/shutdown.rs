//! `watchdog shutdown`.

use std::time::{Duration, Instant};

use super::changed::done;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;
use crate::processes::proc::Identity;

/// From one look at the keeper's process to the next.
const LOOK: Duration = Duration::from_millis(10);

/// What the keeper may need to end once its services have.
const LAST: Duration = Duration::from_secs(10);

/// Stop all services, then the watchdog itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog shutdown")]
pub(super) struct Arguments {
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let wait = self.wait.time();
        let ask = console.ask(async |query| {
            // Who it is has to be asked before: later nobody answers.
            let keeper = query.status(&[]).await?.watchdog.keeper_pid;
            let keeper = Identity::of(keeper.cast_signed()).ok();
            Ok((keeper, query.shutdown(wait).await?))
        });
        let (keeper, words) = ask.await?;
        if let (Some(keeper), Some(_)) = (keeper, wait) {
            gone(keeper).await?;
        }
        done(&words, console)
    }
}

/// The place is free for the next `run`.
async fn gone(keeper: Identity) -> Result<(), CliError> {
    let begin = Instant::now();
    while keeper.is_alive() {
        if begin.elapsed() > LAST {
            return Err(CliError::KeeperStays { pid: keeper.pid.cast_unsigned(), seconds: LAST.as_secs() });
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
