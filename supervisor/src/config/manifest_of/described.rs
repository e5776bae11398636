//! A program that is listened to until it ends.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How often the end of a program is looked for whose pipes somebody else holds open.
const GLANCE: Duration = Duration::from_millis(20);

/// Of standard error, the end is kept.
const MAX_STDERR: usize = 16 * 1024;

/// What a described program left behind.
pub(crate) struct Heard {
    /// At most one byte more than was to be read.
    pub(crate) stdout: Vec<u8>,
    /// Its end.
    pub(crate) stderr: Vec<u8>,
    /// `None`: it did not end.
    pub(crate) end: Option<ExitStatus>,
}

/// A child that is killed and reaped when dropped.
pub(crate) struct Described(pub(crate) Child);

impl Described {
    /// Reads both outputs until the program ended and said all, until it said more than `most` bytes, or until time is
    /// up.
    pub(crate) fn listen(&mut self, timeout: Duration, most: usize) -> io::Result<Heard> {
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
            read_some(&mut stdout, &mut heard.stdout, most + 1)?;
            while read_some(&mut stderr, &mut heard.stderr, 2 * MAX_STDERR)? {
                let surplus = heard.stderr.len().saturating_sub(MAX_STDERR);
                heard.stderr.drain(..surplus);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.end.is_some() || heard.stdout.len() > most || left.is_zero() {
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
    pub(crate) fn kill(&mut self) {
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

fn never_wait(pipe: &impl AsFd) -> io::Result<()> {
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
