//! The floor of a restart: a bare parent that waits on a pidfd and starts the next one.

use std::env;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use watchdog_tests::proc::Process;

/// Where processes of `probe-stamp` say that they are in `main`.
#[derive(Debug)]
pub(crate) struct Stamps {
    socket: UnixDatagram,
}

/// One process that said so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// The monotonic clock, first thing in `main`.
    pub(crate) at: Duration,
    /// Its process.
    pub(crate) process: Process,
}

impl Stamps {
    /// Listens at this path.
    pub(crate) fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
        Self { socket }
    }

    /// The next process in `main`.
    pub(crate) fn next(&self) -> Stamp {
        let mut bytes = [0; 64];
        let length = self.socket.recv(&mut bytes).expect("a process starts within a minute");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().expect("a number")).collect();
        let pid = u32::try_from(numbers[2]).expect("a process number");
        let nanos = u32::try_from(numbers[1]).expect("nanoseconds");
        Stamp { at: Duration::new(numbers[0], nanos), process: Process::of(pid).expect("it waits") }
    }

    /// Kills a process and gives the time until the next one is in `main`, with that one.
    pub(crate) fn kill(&self, old: Stamp) -> (Duration, Stamp) {
        let begin = now();
        old.process.signal(nix::sys::signal::Signal::SIGKILL);
        let next = self.next();
        (next.at.saturating_sub(begin), next)
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("nanoseconds"))
}

/// A process of this program that keeps `program` alive, until dropped.
#[derive(Debug)]
pub(crate) struct Parent(Child);

impl Parent {
    /// Starts it; `program` says to `stamps` when it lives.
    pub(crate) fn start(program: &Path, stamps: &Path) -> Self {
        let mut command = Command::new(env::current_exe().expect("the path of this program"));
        Self(command.arg("respawn").arg(program).env("STAMP_TO", stamps).spawn().expect("this program runs"))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The bare parent: starts `program` again each time it ends, and does nothing else. The standard library
/// spawns as `vfork` does, by `posix_spawn`: nothing is copied.
pub(crate) fn parent(program: &str) {
    loop {
        let mut child = Command::new(program).spawn().expect("the program runs");
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a child of ours");
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("a pidfd can be polled");
        child.wait().expect("it ended");
    }
}
