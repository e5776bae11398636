//! `watchdog top`: a view that goes on.
//!
//! ```text
//!  keys ───────────────► keys ──► model ──► draw ──► screen
//!  watchdog ─► asks ─────────────► ▲            (what differs from the frame before)
//!                ▲── actions, whatever is due ◄── live
//! ```
//! `live` alone has a clock, a terminal and a watchdog; all else is pure. Nothing that is asked is waited for: a watchdog
//! that hangs is shown to, and keys go on.

mod asks;
mod detail;
mod draw;
mod head;
mod ink;
mod keys;
mod live;
mod model;
mod rows;
mod screen;
mod table;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use watchdog_protocol::ServiceName;

use self::ink::Ink;
use self::rows::Column;
use super::console::{Console, Format};
use super::report::CliError;
use super::usage::parse_interval;

/// Show services live: by what they use, with priorities, limits, pressure and the moves of the resource manager.
///
/// Keys sort, filter, raise and lower priorities, freeze, restart and stop: `?` lists them. Priorities are settings of the
/// resource manager. Colour and signs beyond ASCII are used where the terminal has them (NO_COLOR, LANG).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog top\n  watchdog top --interval=5s --sort=memory\n  watchdog top --once | head -20"
)]
pub(super) struct Arguments {
    /// From one reading to the next: a number and ms, s, m or h; at least 100ms. + and - change it.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// What comes first.
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "cpu")]
    sort: Sort,
    /// The service that moves resources.
    #[arg(long, value_name = "NAME", default_value = "resource-manager")]
    manager: ServiceName,
    /// Print one frame, as long as it takes for all services, after two readings; for what is no terminal, too.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    Cpu,
    Memory,
    Priority,
    Stalled,
    Status,
    Restarts,
    Name,
}

impl From<Sort> for Column {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Cpu => Self::Cpu,
            Sort::Memory => Self::Memory,
            Sort::Priority => Self::Priority,
            Sort::Stalled => Self::Stalled,
            Sort::Status => Self::Status,
            Sort::Restarts => Self::Restarts,
            Sort::Name => Self::Name,
        }
    }
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        if console.format == Format::Json {
            return Err(CliError::NoScreen { why: "there is no JSON of it" });
        }
        let ink = Ink::of(console.look.color, |name| std::env::var(name).ok());
        if self.once {
            return live::once(self, ink, console).await;
        }
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(CliError::NoScreen {
                why: "it needs a terminal, and standard input or output is none",
            });
        }
        if std::env::var("TERM").is_ok_and(|term| term == "dumb") {
            return Err(CliError::NoScreen { why: "this terminal can't move its cursor (TERM=dumb)" });
        }
        live::run(self, ink, console).await
    }
}
