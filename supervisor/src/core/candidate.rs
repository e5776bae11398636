//! Another build that is to become the core: its file, and what it says when it is asked.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use watchdog_keeper::failure::explain;
use watchdog_keeper::protocol::FailedStep;
use watchdog_protocol::control::{Failure, FailureKind};
use watchdog_seqpacket::payload;

use super::build::{Build, CANNOT, Found};
use crate::config::manifest_of::{Described, last_lines};
use crate::run::CHECK;

/// A build that has not answered by then is none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What it says of itself is some hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;

const ANEW: &str = "to change to it all the same, `watchdog shutdown` and `run` it anew";

/// Which file is asked, and what it would go on from.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) runtime: PathBuf,
    /// For its standard input.
    pub(super) notes: Vec<u8>,
    pub(super) found: Found,
}

/// A file that can become the core.
#[derive(Debug)]
pub(super) struct Candidate {
    /// What the keeper runs: the file that was asked, whatever its path leads to by then.
    pub(super) executable: OwnedFd,
    pub(super) build: Build,
}

/// Opens the file, runs it once and asks what it can go on from. Blocks, for seconds if the file hangs.
///
/// # Errors
/// What the operator is told.
pub(super) fn ask(question: &Question) -> Result<Candidate, Failure> {
    let program = &question.program;
    let wrong = |text: String| Failure::new(FailureKind::Usage, text);
    let failed = |text: String| Failure::new(FailureKind::Failed, text);
    let metadata =
        fs::metadata(program).map_err(|err| wrong(format!("cannot use {}: {err}", program.display())))?;
    if !metadata.is_file() {
        return Err(wrong(format!("{} is no regular file", program.display())));
    }
    // To be run, not read: it may be executable alone.
    let executable = File::options()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_CLOEXEC).bits())
        .open(program)
        .map_err(|err| wrong(format!("cannot open {}: {err}", program.display())))?;
    if is_script(program) {
        let text = format!("{} is a script; a core is a program that the kernel runs", program.display());
        return Err(wrong(text).hint("name the watchdog's own file"));
    }
    let notes = payload::seal(&question.notes)
        .map_err(|err| failed(format!("cannot keep the notes for {}: {err}", program.display())))?;
    let mut notes = File::from(notes);
    notes
        .rewind()
        .map_err(|err| failed(format!("cannot keep the notes for {}: {err}", program.display())))?;
    let mut command = Command::new(format!("/proc/self/fd/{}", executable.as_raw_fd()));
    command
        .arg0(program)
        .arg(CHECK)
        .args([&question.config, &question.runtime])
        .stdin(Stdio::from(notes))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = Described(command.spawn().map_err(|err| {
        let errno = err.raw_os_error().unwrap_or(nix::libc::EIO);
        failed(format!("cannot run {}: {}", program.display(), explain(program, &FailedStep::Exec, errno)))
    })?);
    let heard = child.listen(TIMEOUT, MAX_ANSWER);
    child.kill();
    let heard = heard.map_err(|err| failed(format!("cannot listen to {}: {err}", program.display())))?;
    let said = indented(&last_lines(&heard.stderr));
    let build = match heard.end {
        None => {
            let text = format!("{} was asked what it is and did not answer within", program.display());
            return Err(failed(format!("{text} {} s{said}", TIMEOUT.as_secs())));
        }
        Some(end) if end.code() == Some(i32::from(CANNOT)) => {
            let failure = failed(format!("{} can't go on from what is there{said}", program.display()));
            return Err(failure.hint(ANEW));
        }
        Some(end) if !end.success() => {
            let text = format!("{} can't become the core: asked what it is, it ended by", program.display());
            return Err(failed(format!("{text} {end}{said}")));
        }
        Some(_) => serde_json::from_slice::<Build>(&heard.stdout).map_err(|_| {
            failed(format!("{} is no watchdog: asked what it is, it said something else", program.display()))
        })?,
    };
    match build.objection(question.found) {
        Some(objection) => {
            let text = format!("{} (release {}) {objection}", program.display(), build.release);
            Err(failed(text).hint(ANEW))
        }
        None => Ok(Candidate { executable: executable.into(), build }),
    }
}

fn is_script(program: &Path) -> bool {
    let mut mark = [0; 2];
    File::open(program).and_then(|mut file| file.read_exact(&mut mark)).is_ok() && mark == *b"#!"
}

pub(super) fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  stderr: {line}")).collect()
}

/// Where the file lies that the keeper was started from; there may be another one by now.
pub(super) fn usual() -> io::Result<PathBuf> {
    std::env::args_os()
        .next()
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("this core was started without its name"))
}
