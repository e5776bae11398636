//! Death at a chosen system call: `strace` stands beside a process and kills it there.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::proc::Process;
use crate::until::until;

/// A process that is killed when it enters a system call for the nth time.
///
/// Dropping it lets a process that never got there go on undisturbed.
#[derive(Debug)]
pub struct Doomed {
    strace: Child,
}

impl Doomed {
    /// From when this returns on, calls are counted, each thread's by itself, the first one being 1.
    ///
    /// # Panics
    /// When there is no `strace`, or it may not trace the process.
    pub fn at(process: Process, call: &str, nth: usize) -> Self {
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let strace = Command::new("strace")
            .args(["-q", "-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])
            .args(["-p", &process.pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("strace, which tests/run installs");
        let this = Self { strace };
        until("strace has all threads", || format!("{process:?}"), || all_traced(process.pid).then_some(()));
        this
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        // Its end, even a sudden one, detaches it.
        let _ended = self.strace.kill();
        let _reaped = self.strace.wait();
    }
}

fn all_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    })
}
