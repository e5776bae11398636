//! Processes of `probe-stamp`, and when each came to life.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
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
        old.process.signal(Signal::SIGKILL);
        let next = self.next();
        (next.at.saturating_sub(begin), next)
    }

    /// The next processes in `main`, this many.
    pub(crate) fn next_of(&self, count: usize) -> Vec<Stamp> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Kills all of them and gives the time until as many others are in `main`, with those.
    pub(crate) fn kill_all(&self, old: &[Stamp]) -> (Duration, Vec<Stamp>) {
        let begin = now();
        for stamp in old {
            stamp.process.signal(Signal::SIGKILL);
        }
        let next = self.next_of(old.len());
        (last(&next).saturating_sub(begin), next)
    }
}

/// When the last of them came to life.
pub(crate) fn last(stamps: &[Stamp]) -> Duration {
    stamps.iter().map(|stamp| stamp.at).max().expect("one at least")
}

/// The monotonic clock, as the stamps have it.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("nanoseconds"))
}
