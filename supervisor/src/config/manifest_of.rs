//! A service's manifest: its program is run once with `WATCHDOG_DESCRIBE=1` and says what it is.
//!
//! The answer is kept under the identity of what was run, so a program that did not change is not run again. An
//! identity can't see everything (a library, a module that a script imports); therefore the hash of the manifest
//! is compared again when the service says hello.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::MAX_MANIFEST;
use watchdog_protocol::manifest::{DESCRIBE, Manifest, ManifestError, fnv1a};

use super::launch::NoExecutable;
use super::spec::ServiceSpec;

/// A program that has not described itself by then is killed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often the end of a program is looked for whose pipes somebody else holds open.
const GLANCE: Duration = Duration::from_millis(20);

/// Of standard error, the end is kept.
const MAX_STDERR: usize = 16 * 1024;

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

fn indented(lines: &[String]) -> String {
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
    let file = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some(format!(
            "{}:{}:{}:{}.{:09}",
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec()
        ))
    };
    let launch = &spec.launch;
    let mut identity = format!("{program:?} {}", file(program)?);
    for arg in &launch.args {
        write!(identity, " {arg:?} {}", file(&launch.dir.join(arg)).unwrap_or_default()).ok()?;
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
    let launch = &spec.launch;
    let mut command = Command::new(program);
    command
        .arg0(&launch.program)
        .args(&launch.args)
        .env_clear()
        .envs(environment)
        .env(DESCRIBE, "1")
        .current_dir(&launch.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = &launch.user {
        let no_user = || DescribeError::NoUser { user: user.clone() };
        let (uid, gid) = account(user).ok_or_else(no_user)?;
        command.uid(uid).gid(gid);
    }
    let mut child = Described(command.spawn().map_err(|source| not_spawned(program, &launch.dir, source))?);
    let heard =
        child.listen(timeout).map_err(|source| DescribeError::Spawn { program: program.into(), source });
    // Whatever it started goes with it, before its number can be anyone else's.
    child.kill();
    judge(program, &heard?, timeout)
}

fn account(user: &str) -> Option<(u32, u32)> {
    let known = match user.parse::<u32>() {
        Ok(uid) => match nix::unistd::User::from_uid(uid.into()) {
            Ok(None) => return Some((uid, uid)),
            known => known,
        },
        Err(_) => nix::unistd::User::from_name(user),
    };
    known.ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
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

/// What a described program left behind.
struct Heard {
    /// At most one byte more than a manifest may have.
    stdout: Vec<u8>,
    /// Its end.
    stderr: Vec<u8>,
    end: Option<ExitStatus>,
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
            let end = match (status.code(), status.signal()) {
                (Some(code), _) => format!("code {code}"),
                (None, Some(signal)) => {
                    Signal::try_from(signal).map_or(format!("signal {signal}"), |signal| signal.to_string())
                }
                (None, None) => status.to_string(),
            };
            Err(DescribeError::Ended { program, end, stderr })
        }
        Some(_) => Manifest::parse(&heard.stdout).map_err(|error| DescribeError::NoManifest {
            program,
            error,
            stderr,
        }),
    }
}

fn last_lines(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().take(200).map(printable).collect())
        .collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// A child that is killed and reaped when dropped.
struct Described(Child);

impl Described {
    /// Reads both outputs until the program ended and said all, until it said too much, or until time is up.
    fn listen(&mut self, timeout: Duration) -> io::Result<Heard> {
        let deadline = Instant::now() + timeout;
        let mut stdout = self.0.stdout.take();
        let mut stderr = self.0.stderr.take();
        if let Some(pipe) = &stdout {
            never_wait(pipe)?;
        }
        if let Some(pipe) = &stderr {
            never_wait(pipe)?;
        }
        let mut heard = Heard { stdout: Vec::new(), stderr: Vec::new(), end: None };
        loop {
            // In this order: what was written before the end is in the pipe when the end is seen.
            heard.end = self.ended()?;
            read_some(&mut stdout, &mut heard.stdout, MAX_MANIFEST + 1)?;
            while read_some(&mut stderr, &mut heard.stderr, 2 * MAX_STDERR)? {
                let surplus = heard.stderr.len().saturating_sub(MAX_STDERR);
                heard.stderr.drain(..surplus);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.end.is_some() || heard.stdout.len() > MAX_MANIFEST || left.is_zero() {
                return Ok(heard);
            }
            let mut awaited: Vec<PollFd<'_>> = Vec::new();
            awaited.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            awaited.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            let wait = PollTimeout::try_from(left.min(GLANCE)).unwrap_or(PollTimeout::ZERO);
            match poll(&mut awaited, wait) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// How it ended, if it did; it stays a zombie, so that its number stays its own.
    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags)? {
            WaitStatus::Exited(_, code) => Ok(Some(ExitStatus::from_raw(code << 8))),
            WaitStatus::Signaled(_, signal, _) => Ok(Some(ExitStatus::from_raw(signal as i32))),
            _ => Ok(None),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid is a positive i32"))
    }

    /// Its group, then itself: until it is reaped nobody else can have its number.
    fn kill(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        // Reaped already: the standard library then answers without a system call, and knows no pid to kill.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn never_wait(pipe: &impl std::os::fd::AsFd) -> io::Result<()> {
    // The flag is of our end: the program has the other one.
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what is there, up to `most` bytes in all; `false` when nothing more will or may come now. A pipe at its
/// end becomes `None`.
fn read_some(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    let Some(open) = pipe else { return Ok(false) };
    while into.len() < most {
        let before = into.len();
        let mut chunk = [0; 16 * 1024];
        let room = chunk.len().min(most - before);
        match open.read(&mut chunk[..room]) {
            Ok(0) => {
                *pipe = None;
                return Ok(false);
            }
            Ok(read) => into.extend_from_slice(&chunk[..read]),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;
    use crate::config::fixture::{Folder, manifest, prints};

    fn spec(folder: &Folder, table: &str) -> ServiceSpec {
        folder.config(&format!("[service.a]\n{table}\n")).services.into_values().next().unwrap()
    }

    /// What an operator reads when the service is this script.
    fn refused(script: &str) -> String {
        let folder = Folder::new();
        folder.script("a.sh", script);
        told(&folder, "exec = [\"/bin/sh\", \"a.sh\"]")
    }

    fn told(folder: &Folder, table: &str) -> String {
        let spec = spec(folder, table);
        let error = manifest_of(&spec, None).unwrap_err();
        let hint = error.hint(&spec.name).map(|hint| format!("\n  hint: {hint}"));
        folder.hide(&format!("{error}{}", hint.unwrap_or_default()))
    }

    #[test]
    fn a_service_describes_itself_in_its_own_surroundings() {
        let folder = Folder::new();
        let manifest = manifest(Some("{}"));
        fs::create_dir(folder.path().join("work")).unwrap();
        let script = format!(
            "[ \"$WATCHDOG_DESCRIBE$MODE\" = 1fast ] && [ ! -s /dev/stdin ] && [ \"${{PWD##*/}}\" = work ] && \
             [ -z \"$CARGO_MANIFEST_DIR\" ] && {}",
            prints(&manifest)
        );
        folder.script("work/a.sh", &script);
        let spec = spec(&folder, "exec = [\"sh\", \"a.sh\"]\ndir = \"work\"\nenv.MODE = \"fast\"");
        assert_eq!(manifest_of(&spec, None).unwrap(), manifest);
    }

    #[test]
    fn a_service_describes_itself_as_its_own_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = Folder::new();
        let manifest = manifest(None);
        folder.script("a.sh", &format!("[ \"$(id -u)\" = 65534 ] && {}", prints(&manifest)));
        let exec = "exec = [\"/bin/sh\", \"a.sh\"]";
        assert_eq!(manifest_of(&spec(&folder, &format!("{exec}\nuser = 65534")), None).unwrap(), manifest);
        assert!(matches!(manifest_of(&spec(&folder, exec), None), Err(DescribeError::Ended { .. })));
    }

    #[test]
    fn a_program_that_did_not_change_is_not_run_again() {
        let folder = Folder::new();
        let cache = folder.path().join("manifests");
        let (old, new) = (manifest(None), manifest(Some("{}")));
        folder.script("a.sh", &format!("echo >> ran\n{}", prints(&old)));
        let spec = spec(&folder, "exec = [\"/bin/sh\", \"a.sh\"]");
        let runs = || fs::read(folder.path().join("ran")).unwrap().len();
        assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), old);
        assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), old);
        assert_eq!(runs(), 1);
        folder.script("a.sh", &format!("echo >> ran\n{}", prints(&new)));
        assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), new);
        assert_eq!(runs(), 2);
        for file in fs::read_dir(&cache).unwrap() {
            fs::write(file.unwrap().path(), "damaged").unwrap();
        }
        assert_eq!(manifest_of(&spec, Some(&cache)).unwrap(), new);
        assert_eq!(runs(), 3);
    }

    #[test]
    fn what_a_described_program_started_goes_with_it() {
        let folder = Folder::new();
        let manifest = manifest(None);
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
        // It holds standard output and error open, too.
        folder.script("a.sh", &format!("sleep 1000 3> fifo &\n{}", prints(&manifest)));
        assert_eq!(manifest_of(&spec(&folder, "exec = [\"/bin/sh\", \"a.sh\"]"), None).unwrap(), manifest);
        // The pipe hangs up when nobody is left who has it open.
        let mut hangup = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut hangup, PollTimeout::try_from(60_000).unwrap()), Ok(1), "it lives");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let folder = Folder::new();
        folder.script("a.sh", "echo waiting >&2; exec sleep 1000");
        let spec = spec(&folder, "exec = [\"/bin/sh\", \"a.sh\"]");
        let environment = spec.launch.environment(std::env::vars_os());
        let late =
            describe(&spec, Path::new("/bin/sh"), &environment, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(&late, DescribeError::Late { after, .. } if after.as_millis() == 50), "{late}");
        let hint = late.hint(&spec.name).unwrap();
        insta::assert_snapshot!(hint, @"is it not built on the SDK? A plain program goes under [program.a]");
    }

    #[test]
    fn a_program_that_ends_badly_is_told_with_its_last_words() {
        insta::assert_snapshot!(refused("for n in 1 2 3 4 5 6; do echo line $n >&2; done; printf '\\033[1m' >&2; exit 3"), @r#"
        /bin/sh ended with code 3 when asked to describe itself
          stderr: line 3
          stderr: line 4
          stderr: line 5
          stderr: line 6
          stderr: �[1m
        "#);
        insta::assert_snapshot!(refused("kill -SEGV $$"), @"/bin/sh ended with SIGSEGV when asked to describe itself");
    }

    #[test]
    fn what_is_no_manifest_is_told_with_a_hint() {
        insta::assert_snapshot!(refused("echo usage: a >&2"), @r#"
        /bin/sh was asked to describe itself: it printed no manifest
          stderr: usage: a
          hint: is it not built on the SDK? A plain program goes under [program.a]
        "#);
        insta::assert_snapshot!(refused("echo '{\"watchdog_manifest\": 99}'"), @r#"
        /bin/sh was asked to describe itself: the manifest has format 99, this watchdog knows up to 1
          hint: it was built with a newer SDK than this watchdog's
        "#);
        assert!(refused("exec yes").contains("bytes, at most"));
    }

    #[test]
    fn each_mistake_about_a_program_has_its_own_message() {
        let folder = Folder::new();
        // Another process writes what is executed here.
        let write = "printf '#!/nowhere/sh\\n' > script; printf 'x\\001' > garbage; chmod 755 script garbage; \
                     printf x > plain; chmod 644 plain; mkdir folder";
        let written =
            Command::new("/bin/sh").args(["-c", write]).current_dir(folder.path()).status().unwrap();
        assert!(written.success());
        let mut texts = String::new();
        for table in [
            "exec = [\"./absent\"]",
            "exec = [\"no-such-program\"]\nenv.PATH = \"/nowhere\"",
            "exec = [\"./script\"]",
            "exec = [\"./garbage\"]",
            "exec = [\"./plain\"]",
            "exec = [\"./folder\"]",
            "exec = [\"/bin/sh\"]\ndir = \"gone\"",
            "exec = [\"/bin/sh\"]\nuser = \"no-such-user\"",
        ] {
            writeln!(texts, "{}", told(&folder, table)).unwrap();
        }
        insta::assert_snapshot!(texts, @r#"
        there is no file absent
          hint: build it, or correct `exec`
        there is no program `no-such-program` in PATH (/nowhere)
        script needs an interpreter that is not there: look at its first line
        garbage can't be executed: it is neither a program of this machine nor a script with a #! line
        plain can't be executed: its mode is 0644; chmod +x it
        folder can't be executed: it is a folder
        there is no folder gone to start it in
        there is no user `no-such-user` on this machine
        "#);
    }
}
