//! `watchdog check`: of the configuration, or of another build of a service.

mod build;

use std::path::PathBuf;

use watchdog_protocol::ServiceName;

use super::changed::done;
use super::console::Console;
use super::figures::count;
use super::place::Place;
use super::report::CliError;
use crate::config;

/// Find what is wrong with the configuration, or what another build of a service would break, without starting anything.
///
/// Runs each service that is built on the SDK once, so that it describes its settings. A rule of `use` or `offer` by
/// which nobody can talk to anybody is a warning, on standard error; so is a secret in a file that everybody can read.
///
/// With PROGRAM, that program alone is run, and compared with the service whose place it is to take: whether those who send
/// to it go on, whether the settings in force fit, and whether it reads the stored state, which is tried. What it says to
/// others is not told before it runs. While no watchdog runs, the file and the state folder are what it is compared with.
/// Exit code 0: it fits; 1: it breaks something, or can't be asked; 2: it is not clear for which service it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog check --config new.toml\n  watchdog check target/release/counter\n  watchdog check /tmp/build-17 --service counter"
)]
pub(super) struct Arguments {
    /// Another build of a service, before it is put in place.
    program: Option<PathBuf>,
    /// Whose place it is to take; else the one service that runs a file of this name.
    #[arg(long, value_name = "NAME", requires = "program")]
    service: Option<ServiceName>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let config = config::load(&Place::file(console.config.as_deref())?)?;
        if let Some(program) = self.program {
            return build::check(&config, &program, self.service.as_ref(), console).await;
        }
        // Without the cache: a check leaves nothing behind, and sees a program that was replaced in place.
        let checked = config::check(&config, None, |spec| console.warn(&config::is_awaited(spec)))?;
        for warning in config::unused(config.services.values()).iter().chain(checked.warnings()) {
            console.warn(warning);
        }
        let services = count(config.services.len() as u64, "service");
        done(&format!("{}: {services}, nothing wrong", config.path.display()), console)
    }
}
