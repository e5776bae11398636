//! Which children are dead, how they ended, and which there are.
//!
//! A dead child keeps its pid until it is reaped, and only the keeper reaps: so a signal by pid, or to the group
//! of that number, reaches nobody else as long as the child is known here.
#![expect(unsafe_code, reason = "waitid with usage, which libc does not wrap")]

use std::io;

use crate::protocol::{ExitStatus, Usage};
use crate::raw::checked;

/// What waits to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dead {
    /// This child, still a zombie.
    Child(u32),
    /// Nobody now.
    Nobody,
    /// There are no children at all.
    NoChildren,
}

/// Looks for a dead child of any kind, adopted and cloned ones included, and leaves it as it is.
pub(crate) fn next_dead() -> Dead {
    match wait(libc::P_ALL, 0, libc::WNOWAIT) {
        Ok((info, _)) => {
            // SAFETY: filled in by waitid, or zero.
            match unsafe { info.si_pid() } {
                0 => Dead::Nobody,
                pid => Dead::Child(pid as u32),
            }
        }
        Err(libc::ECHILD) => Dead::NoChildren,
        Err(_) => Dead::Nobody,
    }
}

/// Reaps a dead child: its pid is free afterwards. None when it is not dead or no child.
pub(crate) fn reap(pid: u32) -> Option<(ExitStatus, Usage)> {
    let (info, usage) = wait(libc::P_PID, pid, 0).ok()?;
    // SAFETY: filled in by waitid, or zero.
    let (found, status) = unsafe { (info.si_pid(), info.si_status()) };
    if found == 0 {
        return None;
    }
    let status = match info.si_code {
        libc::CLD_EXITED => ExitStatus::Code(status),
        code => ExitStatus::Signal { signal: status, core_dumped: code == libc::CLD_DUMPED },
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
    };
    Some((status, usage))
}

fn wait(kind: libc::idtype_t, id: u32, more: libc::c_int) -> Result<(libc::siginfo_t, libc::rusage), i32> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL | more;
    // SAFETY: integers, for which zero is a value; the kernel fills what it is given room for.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let mut usage: libc::rusage = std::mem::zeroed();
        let args = [
            kind as usize,
            id as usize,
            (&raw mut info) as usize,
            flags as usize,
            (&raw mut usage) as usize,
            0,
        ];
        checked(libc::SYS_waitid, args)?;
        Ok((info, usage))
    }
}

/// All children of this, the only thread.
pub(crate) fn children() -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let list = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
    Ok(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}
