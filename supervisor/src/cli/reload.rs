//! `watchdog reload`.

use serde::Serialize;
use watchdog_protocol::plan::Plan;

use super::console::{Console, Format};
use super::diff;
use super::report::CliError;
use super::wait::Wait;

/// Put what the configuration's file says in force, while everything runs.
///
/// Prints the plan, as `watchdog diff` does, and does that and nothing else: what changed live goes on, what has to
/// restart ends with time to save and keeps its lanes, settings and state, what is new starts, what is gone ends and
/// keeps what it has on disk. What an operator stopped stays stopped, what is completed is not run again, settings that
/// were set over the file stay so. A file with anything wrong in it changes nothing at all. SIGHUP to `watchdog run`
/// does the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog reload --dry-run\n  watchdog reload")]
pub(super) struct Arguments {
    /// Print the plan, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'p> {
    plan: &'p Plan,
    /// What came of it; `None`: nothing was to be done.
    done: Option<&'p str>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let plan = console.ask(async |query| query.diff(&[]).await).await?;
        if console.format == Format::Text {
            console.print(&diff::text(&plan, &console.look))?;
        }
        let done = match self.dry_run {
            true => None,
            // Also when nothing differs: what the next core reads is the text of the file.
            false => {
                Some(console.ask(async |query| query.reload(Some(&plan), self.wait.time()).await).await?)
            }
        };
        match (console.format, &done) {
            (Format::Json, done) => console.json(&Done { plan: &plan, done: done.as_deref() }),
            (Format::Text, Some(words)) if !plan.is_empty() => {
                console.print(&format!("{}\n", super::look::harmless(words)))
            }
            (Format::Text, _) => Ok(()),
        }
    }
}
