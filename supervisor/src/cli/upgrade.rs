//! `watchdog upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use super::changed::done;
use super::console::Console;
use super::figures::parse_span;
use super::report::CliError;
use super::wait::Wait;

/// Run another build of the watchdog, while all services go on and notice nothing.
///
/// The new build is first asked whether it can go on from what is there; if not, nothing happens. Then the core, which
/// decides and serves, is replaced by it. If it is not ready in time, or ends before, the old build runs again. The
/// keeper, which holds what outlives a core, stays the old one until the next `run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog upgrade\n  watchdog upgrade --binary /opt/watchdog-0.2/bin/watchdog"
)]
pub(super) struct Arguments {
    /// The new build; else the file the watchdog was started from, as it is by now.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long the new core may take to be ready.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_span)]
    ready_within: Duration,
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|source| CliError::File { what: "find", path, source })
        };
        let program = self.binary.map(absolute).transpose()?.map(|path| path.to_string_lossy().into_owned());
        let words = console
            .ask(async |query| query.upgrade(program, self.ready_within, self.wait.time()).await)
            .await?;
        done(&words, console)
    }
}
