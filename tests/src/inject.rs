//! Death or failure at a chosen system call: `strace` stands beside a process and brings it about there.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::proc::Process;
use crate::until::until;

/// A process that is killed when it enters a system call for the nth time.
///
/// Dropping it lets a process that never got there go on undisturbed.
#[derive(Debug)]
pub struct Doomed {
    _strace: Strace,
}

impl Doomed {
    /// From when this returns on, calls are counted, each thread's by itself, the first one being 1.
    ///
    /// # Panics
    /// When there is no `strace`, or it may not trace the process.
    pub fn at(process: Process, call: &str, nth: usize) -> Self {
        Self { _strace: Strace::attach(process, call, &format!("signal=KILL:when={nth}")) }
    }
}

/// A process whose system calls of one kind all fail, or all take their time. Dropping it ends that.
#[derive(Debug)]
pub struct Hampered {
    _strace: Strace,
}

impl Hampered {
    /// None is made, each fails with this error, like `EIO`.
    ///
    /// # Panics
    /// When there is no `strace`, or it may not trace the process.
    pub fn failing(process: Process, call: &str, error: &str) -> Self {
        Self { _strace: Strace::attach(process, call, &format!("error={error}")) }
    }

    /// Each takes so much longer.
    ///
    /// # Panics
    /// As [`failing`](Self::failing).
    pub fn slow(process: Process, call: &str, by: Duration) -> Self {
        Self { _strace: Strace::attach(process, call, &format!("delay_enter={}", by.as_micros())) }
    }
}

#[derive(Debug)]
struct Strace(Child);

impl Strace {
    fn attach(process: Process, call: &str, what: &str) -> Self {
        let strace = Command::new("strace")
            .args(["-q", "-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:{what}"), "-p", &process.pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("strace, which tests/run installs");
        let this = Self(strace);
        until("strace has all threads", || format!("{process:?}"), || all_traced(process.pid).then_some(()));
        this
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Its end, even a sudden one, detaches it.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn all_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { return true };
        let of =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        // The first call that failed may have been its end already.
        of("State:").starts_with(['Z', 'X']) || of("TracerPid:") != "0"
    })
}
