//! `watchdog register`.

use std::path::PathBuf;

use super::changed;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;

/// Add one service, program or task to a running watchdog, and start it. It is kept until `unregister`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog register late.toml")]
pub(super) struct Arguments {
    /// Holds one [service.NAME], [program.NAME] or [task.NAME] table. Relative paths in it start at its folder.
    file: PathBuf,
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let failed = |source| CliError::File { what: "read", path: self.file.clone(), source };
        let text = std::fs::read_to_string(&self.file).map_err(failed)?;
        let path = std::path::absolute(&self.file).map_err(failed)?.to_string_lossy().into_owned();
        let done = console.ask(async |query| query.register(path, text, self.wait.time()).await).await?;
        changed::show(&done, console)
    }
}
