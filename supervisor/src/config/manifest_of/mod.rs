//! A service's manifest: its program is run once with `WATCHDOG_DESCRIBE=1` and says what it is.
//!
//! The answer is kept under the identity of what was run, so a program that did not change is not run again. An
//! identity can't see everything (a library, a module that a script imports); therefore the hash of the manifest
//! is compared again when the service says hello.

mod described;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::MAX_MANIFEST;
use watchdog_protocol::manifest::{DESCRIBE, Manifest, ManifestError, fnv1a};

use super::launch::NoExecutable;
use super::program::file_identity;
use super::spec::ServiceSpec;
use crate::account::Account;
pub(crate) use described::{Described, Heard};

/// A program that has not described itself by then is killed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which manifests are kept: with a higher number those of an older watchdog, which did not keep all, are asked for anew.
const KEPT: u32 = 2;

/// Lines of it that are shown.
const LAST_LINES: usize = 5;

/// Why a service could not describe itself.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Named without a slash and not in `PATH`.
    #[error(transparent)]
    NoExecutable(#[from] NoExecutable),
    /// The account it runs as is none of this machine.
    #[error("there is no user `{user}` on this machine")]
    NoUser {
        /// As configured.
        user: String,
    },
    /// The program's file is not there.
    #[error("there is no file {}", program.display())]
    Missing {
        /// The file.
        program: PathBuf,
    },
    /// The file's first line names an interpreter that is not there, or a loader is missing.
    #[error("{} needs an interpreter that is not there: look at its first line", program.display())]
    NoInterpreter {
        /// The file.
        program: PathBuf,
    },
    /// The file is there and must not be executed.
    #[error("{} can't be executed: {reason}", program.display())]
    NotExecutable {
        /// The file.
        program: PathBuf,
        /// A folder, or its mode.
        reason: String,
    },
    /// The folder it starts in is not there.
    #[error("there is no folder {} to start it in", dir.display())]
    NoDir {
        /// The folder.
        dir: PathBuf,
    },
    /// The kernel refused for another reason.
    #[error("cannot run {}: {source}", program.display())]
    Spawn {
        /// The file.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended badly before it said anything.
    #[error("{} ended with {end} when asked to describe itself{}", program.display(), indented(stderr))]
    Ended {
        /// The file.
        program: PathBuf,
        /// Exit code or signal, in words.
        end: String,
        /// The last lines it wrote to standard error.
        stderr: Vec<String>,
    },
    /// What it printed is no manifest.
    #[error("{} was asked to describe itself: {error}{}", program.display(), indented(stderr))]
    NoManifest {
        /// The file.
        program: PathBuf,
        /// Why.
        error: ManifestError,
        /// The last lines it wrote to standard error.
        stderr: Vec<String>,
    },
    /// It took too long.
    #[error("{} was asked to describe itself and took longer than {after:?}{}", program.display(), indented(stderr))]
    Late {
        /// The file.
        program: PathBuf,
        /// How long it had.
        after: Duration,
        /// The last lines it wrote to standard error.
        stderr: Vec<String>,
    },
}

pub(crate) fn indented(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        write!(text, "\n  stderr: {line}").expect("a string takes everything");
    }
    text
}

impl DescribeError {
    pub(super) fn hint(&self, service: &ServiceName) -> Option<String> {
        match self {
            Self::NoManifest { error: ManifestError::Newer { .. }, .. } => {
                Some("it was built with a newer SDK than this watchdog's".to_owned())
            }
            Self::NoManifest { .. } | Self::Late { .. } => {
                Some(format!("is it not built on the SDK? A plain program goes under [program.{service}]"))
            }
            Self::Missing { .. } => Some("build it, or correct `exec`".to_owned()),
            Self::NoExecutable(_)
            | Self::NoUser { .. }
            | Self::NoInterpreter { .. }
            | Self::NotExecutable { .. }
            | Self::NoDir { .. }
            | Self::Spawn { .. }
            | Self::Ended { .. } => None,
        }
    }
}

/// The manifest of an SDK service: from `cache`, a folder whose parent exists, else from its program. A cache
/// that can't be read or written is done without. Blocks for up to 10 s.
///
/// # Errors
/// [`DescribeError`] says at which step it went wrong.
pub fn manifest_of(spec: &ServiceSpec, cache: Option<&Path>) -> Result<Manifest, DescribeError> {
    let environment = spec.launch.environment(std::env::vars_os());
    let program = spec.launch.executable(&environment)?;
    let identity = identity(spec, &program, &environment);
    if let (Some(cache), Some(identity)) = (cache, &identity)
        && let Some(manifest) = cached(cache, identity)
    {
        return Ok(manifest);
    }
    let manifest = describe(spec, &program, &environment, TIMEOUT)?;
    if let (Some(cache), Some(identity)) = (cache, &identity) {
        // The next one asks again: nothing is lost but time.
        let _ = keep(cache, identity, &manifest);
    }
    Ok(manifest)
}

/// All that decides what the program says, as far as files show it: the program, its arguments, the files among
/// them (a script), its folder and configured variables. `None` when the program can't be looked at.
fn identity(
    spec: &ServiceSpec,
    program: &Path,
    environment: &BTreeMap<OsString, OsString>,
) -> Option<String> {
    let launch = &spec.launch;
    let mut identity = format!("{KEPT} {program:?} {}", file_identity(program)?);
    for arg in &launch.args {
        write!(identity, " {arg:?} {}", file_identity(&launch.dir.join(arg)).unwrap_or_default()).ok()?;
    }
    write!(identity, " {:?} {:?} {environment:?}", launch.dir, launch.user).ok()?;
    Some(identity)
}

fn place(cache: &Path, identity: &str) -> PathBuf {
    cache.join(format!("{:016x}", fnv1a(identity.as_bytes())))
}

/// A kept file is the identity on its first line, then the manifest.
fn cached(cache: &Path, identity: &str) -> Option<Manifest> {
    let text = fs::read(place(cache, identity)).ok()?;
    let manifest = text.strip_prefix(identity.as_bytes())?.strip_prefix(b"\n")?;
    Manifest::parse(manifest).ok()
}

fn keep(cache: &Path, identity: &str, manifest: &Manifest) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(cache) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
        Ok(()) | Err(_) => {}
    }
    let place = place(cache, identity);
    let thread = std::thread::current().id();
    let new = place.with_extension(format!("{}-{thread:?}.new", std::process::id()));
    // Not synced: what a crash leaves is told from a manifest by reading it.
    fs::write(&new, format!("{identity}\n{}", manifest.to_json()))?;
    fs::rename(&new, &place).inspect_err(|_| drop(fs::remove_file(&new)))
}

fn describe(
    spec: &ServiceSpec,
    program: &Path,
    environment: &BTreeMap<OsString, OsString>,
    timeout: Duration,
) -> Result<Manifest, DescribeError> {
    let question =
        Question { word: DESCRIBE, value: "1", stdin: Stdio::null(), most: MAX_MANIFEST, within: timeout };
    judge(program, &ask(spec, program, environment, question)?, timeout)
}

/// What a program is run for, beside what it is there for.
pub(crate) struct Question<'q> {
    /// The variable that asks it.
    pub(crate) word: &'q str,
    /// Its value.
    pub(crate) value: &'q str,
    pub(crate) stdin: Stdio,
    /// So many bytes an answer may have.
    pub(crate) most: usize,
    pub(crate) within: Duration,
}

/// Runs the program of a service in the surroundings of one, and kills what is left of it.
pub(crate) fn ask(
    spec: &ServiceSpec,
    program: &Path,
    environment: &BTreeMap<OsString, OsString>,
    question: Question<'_>,
) -> Result<Heard, DescribeError> {
    let launch = &spec.launch;
    let mut command = Command::new(program);
    command
        .arg0(&launch.program)
        .args(&launch.args)
        .env_clear()
        .envs(environment)
        .env(question.word, question.value)
        .current_dir(&launch.dir)
        .stdin(question.stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = &launch.user {
        let account = Account::find(user).map_err(|_| DescribeError::NoUser { user: user.clone() })?;
        command.uid(account.uid).gid(account.gid);
    }
    let mut child = Described(command.spawn().map_err(|source| not_spawned(program, &launch.dir, source))?);
    let heard = child
        .listen(question.within, question.most)
        .map_err(|source| DescribeError::Spawn { program: program.into(), source });
    // Whatever it started goes with it, before its number can be anyone else's.
    child.kill();
    heard
}

/// ENOENT stands for three different mistakes and EACCES for two; looking tells which.
fn not_spawned(program: &Path, dir: &Path, source: io::Error) -> DescribeError {
    let program = program.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !dir.is_dir() => {
            DescribeError::NoDir { dir: dir.to_owned() }
        }
        io::ErrorKind::NotFound if program.exists() => DescribeError::NoInterpreter { program },
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DescribeError::Missing { program },
        io::ErrorKind::PermissionDenied => {
            let reason = match program.metadata() {
                Ok(found) if found.is_dir() => "it is a folder".to_owned(),
                Ok(found) if found.permissions().mode() & 0o111 == 0 => {
                    format!("its mode is {:04o}; chmod +x it", found.permissions().mode() & 0o7777)
                }
                Ok(_) | Err(_) => "permission denied".to_owned(),
            };
            DescribeError::NotExecutable { program, reason }
        }
        _ if source.raw_os_error() == Some(nix::libc::ENOEXEC) => DescribeError::NotExecutable {
            program,
            reason: "it is neither a program of this machine nor a script with a #! line".to_owned(),
        },
        _ => DescribeError::Spawn { program, source },
    }
}

fn judge(program: &Path, heard: &Heard, after: Duration) -> Result<Manifest, DescribeError> {
    let program = program.to_owned();
    let stderr = last_lines(&heard.stderr);
    if heard.stdout.len() > MAX_MANIFEST {
        let error = ManifestError::Long { length: heard.stdout.len() };
        return Err(DescribeError::NoManifest { program, error, stderr });
    }
    match heard.end {
        None => Err(DescribeError::Late { program, after, stderr }),
        Some(status) if !status.success() => {
            Err(DescribeError::Ended { program, end: in_words(status), stderr })
        }
        Some(_) => Manifest::parse(&heard.stdout).map_err(|error| DescribeError::NoManifest {
            program,
            error,
            stderr,
        }),
    }
}

/// How it ended.
pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => {
            Signal::try_from(signal).map_or(format!("signal {signal}"), |signal| signal.to_string())
        }
        (None, None) => status.to_string(),
    }
}

/// Of what a program wrote to standard error, for people.
pub(crate) fn last_lines(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().take(200).map(printable).collect())
        .collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}
