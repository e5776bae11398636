//! `watchdog run`: everything that is checked before this process becomes the keeper.
//!
//! ```text
//! load ─► folders ─► lock ─► leftovers of a former life ended ─► every service checked ─► exec ─► keeper
//! ```
//! What goes wrong here is told in the terminal of whoever typed it, and nothing was started. The configuration
//! that was checked is kept in the runtime folder: a new core reads that, whatever became of the file meanwhile.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, DirBuilder, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use watchdog_keeper::{KeeperConfig, KeeperError};
use watchdog_protocol::{Incarnation, ServiceName};
use watchdog_seqpacket::inherited_descriptor;

use crate::config::{self, Config, ConfigErrors};
use crate::core::InForce;
use crate::limiting;
use crate::processes::cgroup::CgroupTree;
use crate::processes::leftovers::{self, LeftoverError, STATE};
use crate::store::journal::{self, JournalError};
use crate::store::lock::{LockError, lock};
use crate::store::replace::{ReplaceError, sweep};
use crate::store::runtime;

/// How long what is left of a former life may take to end once it was killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The argument that makes this executable a core.
pub const CORE: &str = "core";

/// The argument that makes this executable the keeper.
pub const KEEPER: &str = "keeper";

/// The variable in which the keeper finds the number of the state folder's lock.
const LOCK: &str = "WATCHDOG_LOCK";

/// The file that runs, whatever its path leads to by now.
const EXECUTABLE: &str = "/proc/self/exe";

/// The argument that makes this executable say what it could go on from as a core.
pub const CHECK: &str = "core-check";

/// What is kept in the state folder beside the states themselves.
const STATE_FOLDERS: [&str; 4] = ["settings", "wanted", "limits", "registered"];

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration, or what a service says of itself.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Another watchdog has the state folder.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// Processes of a former life that can't be ended.
    #[error(transparent)]
    Leftovers(#[from] LeftoverError),
    /// A folder can't be made or used.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder of somebody else: what is in it can't be trusted.
    #[error("the folder {} belongs to uid {owner}, expected {ours}", path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// The journal can't be read, or is a newer watchdog's.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What a new core needs can't be kept.
    #[error(transparent)]
    Keep(#[from] ReplaceError),
    /// Our own executable can't be found.
    #[error("cannot find the watchdog's own executable")]
    Executable(#[source] io::Error),
    /// This process can't begin anew.
    #[error("cannot become the keeper")]
    Become(#[source] io::Error),
    /// This process can't become a keeper.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// Runs the watchdog of this configuration in the foreground: checks it, then executes this file as the
/// [keeper](keep), in this process. Does not return but with what is wrong.
///
/// # Errors
/// [`RunError`]; nothing was started then.
pub fn run(path: &Path) -> Result<Infallible, RunError> {
    let (path, text) = config::read(path)?;
    let text = Arc::from(text);
    let config = config::parse(&path, Arc::clone(&text))?;
    let section = &config.watchdog;
    for folder in [&section.state, &section.runtime, &section.logs] {
        make(folder)?;
    }
    for folder in STATE_FOLDERS {
        make(&section.state.join(folder))?;
    }
    let lock = lock(&section.state)?;
    sweep_state(&section.state)?;
    journal::check(&section.state)?;
    // Why it does not come by controllers is found again by the core, and told by `doctor`.
    let _ = limiting::settle(&section.state);
    let tree = CgroupTree::make(&section.state).ok();
    let ended = leftovers::end(&section.runtime, &section.state, tree.as_ref(), PATIENCE)?;
    for leftover in &ended.leftovers {
        say(&format!(
            "ended pid {} of `{}`, left by a watchdog that was killed",
            leftover.process.pid, leftover.of
        ));
    }
    keep_incarnations(&section.runtime, ended.incarnations)?;
    leftovers::begin(&section.runtime, tree.as_ref())?;
    let cache = config::manifest_cache(&config);
    let checked = config::check(&config, Some(&cache), |spec| say(&config::is_awaited(spec)))?;
    for warning in config::unused(config.services.values()).iter().chain(checked.warnings()) {
        say(&format!("warning: {warning}"));
    }
    InForce { text, owed: None }.keep(&section.runtime)?;
    say(&greeting(&config));
    let lock: OwnedFd = lock.into_file().into();
    // The exec keeps it, with the lock that is on it.
    fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| RunError::Become(errno.into()))?;
    let mut keeper = Command::new(EXECUTABLE);
    keeper.arg0("watchdog").arg(KEEPER).arg(&config.path).arg(&section.runtime);
    keeper.env(STATE, canonical(&section.state)).env(LOCK, lock.as_raw_fd().to_string());
    Err(RunError::Become(keeper.exec()))
}

/// The second half: this process, anew, becomes the keeper. What was checked, read and built for that is not in its
/// memory, nor are the threads that did it.
///
/// # Errors
/// [`RunError`]; nothing was started then.
pub fn keep(config: &Path, runtime: &Path) -> Result<u8, RunError> {
    // Run by another name, its own would be that.
    let _ = nix::sys::prctl::set_name(c"watchdog");
    let lock = inherited_descriptor(LOCK).map_err(|err| RunError::Become(io::Error::other(err)))?;
    let program = std::env::current_exe().map_err(RunError::Executable)?;
    let argv = [program.clone().into_os_string(), CORE.into(), config.into(), runtime.into()];
    let executable = File::options()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open(EXECUTABLE)
        .map_err(RunError::Executable)?
        .into();
    let env = std::env::vars_os().collect();
    let keeper = KeeperConfig { executable, program, argv: argv.into(), env, keep: vec![lock] };
    Ok(watchdog_keeper::run(keeper)?)
}

/// Removes what killed processes left in the state folder of what they were writing. Only for the one that writes there.
///
/// # Errors
/// [`RunError::Folder`].
pub(crate) fn sweep_state(state: &Path) -> Result<(), RunError> {
    let within = STATE_FOLDERS.map(|folder| state.join(folder));
    let folders = within.iter().map(PathBuf::as_path).chain([state]);
    // Each, whatever is wrong with another.
    let failed: Vec<_> = folders.filter_map(|folder| Some((folder, sweep(folder).err()?))).collect();
    match failed.into_iter().next() {
        None => Ok(()),
        Some((folder, source)) => Err(RunError::Folder { path: folder.to_owned(), source }),
    }
}

/// Where the configuration in force lies.
pub(crate) fn kept_config(runtime: &Path) -> PathBuf {
    runtime.join("watchdog.toml")
}

/// The newest process of each service in all lives before this one: numbers only grow.
pub(crate) fn former_incarnations(folder: &Path) -> io::Result<BTreeMap<ServiceName, Incarnation>> {
    Ok(runtime::find(&incarnations(folder))?.unwrap_or_default())
}

fn incarnations(folder: &Path) -> PathBuf {
    folder.join("incarnations")
}

/// Before the pid records go, of which these are.
fn keep_incarnations(folder: &Path, recorded: BTreeMap<ServiceName, Incarnation>) -> Result<(), RunError> {
    if recorded.is_empty() {
        return Ok(());
    }
    let unreadable = |source| RunError::Folder { path: folder.to_owned(), source };
    let mut newest = former_incarnations(folder).map_err(unreadable)?;
    for (service, incarnation) in recorded {
        let known = newest.entry(service).or_default();
        *known = (*known).max(incarnation);
    }
    Ok(runtime::leave(&incarnations(folder), &newest)?)
}

fn canonical(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Makes a folder only we can enter, or makes sure that one that is there is ours.
fn make(folder: &Path) -> Result<(), RunError> {
    let failed = |source| RunError::Folder { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let (owner, ours) = (fs::metadata(folder).map_err(failed)?.uid(), nix::unistd::geteuid().as_raw());
    if owner != ours {
        return Err(RunError::Owner { path: folder.to_owned(), owner, ours });
    }
    Ok(())
}

fn greeting(config: &Config) -> String {
    let names: Vec<_> = config.services.keys().map(ServiceName::as_str).collect();
    let what = match names.len() {
        0 => "no service is configured; `watchdog register FILE` adds one".to_owned(),
        count => format!("{count} configured: {}", names.join(", ")),
    };
    format!("running {}; {what}\nstop with Ctrl-C or `watchdog shutdown`", config.path.display())
}

/// A line for whoever typed `watchdog run`.
fn say(text: &str) {
    let mut err = io::stderr().lock();
    let prefix = if err.is_terminal() { "\x1b[1mwatchdog\x1b[0m" } else { "watchdog" };
    for line in text.lines() {
        // Nobody reads: nobody misses it.
        let _ = writeln!(err, "{prefix}: {line}");
    }
}
