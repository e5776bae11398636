//! Where tests make a step fail, or kill the process right before it.
//!
//! Outside tests [`before`] is nothing. A test plans one fault for its thread, or runs itself again as a child
//! that is killed before its n-th step: a real process, a real SIGKILL, what is left on disk is looked at
//! from outside.

use std::io;

/// A step of a sequence that may be interrupted comes next.
#[cfg(not(test))]
#[inline(always)]
#[expect(clippy::unnecessary_wraps, reason = "a test makes it fail")]
pub(crate) fn before(_step: &'static str) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use planned::{Fault, before, child_killed_at, killed_at, plan};

#[cfg(test)]
mod planned {
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::io;

    /// What happens at the planned step.
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Fault {
        Kill,
        Errno(i32),
    }

    thread_local! {
        static PLAN: Cell<Option<(usize, Option<&'static str>, Fault)>> = const { Cell::new(None) };
    }

    /// Plans a fault before the `nth` step from now on (1 is the next); with a name only such steps count.
    pub(crate) fn plan(nth: usize, only: Option<&'static str>, fault: Fault) {
        PLAN.set(Some((nth, only, fault)));
    }

    pub(crate) fn before(step: &'static str) -> io::Result<()> {
        let Some((left, only, fault)) = PLAN.get() else { return Ok(()) };
        if only.is_some_and(|only| only != step) {
            return Ok(());
        }
        if left > 1 {
            PLAN.set(Some((left - 1, only, fault)));
            return Ok(());
        }
        PLAN.set(None);
        match fault {
            Fault::Kill => {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
                unreachable!("killed")
            }
            Fault::Errno(number) => Err(io::Error::from_raw_os_error(number)),
        }
    }

    const KILL_AT: &str = "WATCHDOG_TEST_KILL_AT";

    /// In a child of [`child_killed_at`]: plans the kill and gives the argument. In the test itself: nothing.
    pub(crate) fn killed_at() -> Option<String> {
        let (nth, argument) =
            std::env::var(KILL_AT).ok()?.split_once(' ').map(|(a, b)| (a.parse(), b.to_owned()))?;
        plan(nth.unwrap(), None, Fault::Kill);
        Some(argument)
    }

    /// Runs `test` of this binary again as a child with `argument`; true when it was killed before its `nth`
    /// step, false when it came to its end.
    pub(crate) fn child_killed_at(test: &str, nth: usize, argument: &str) -> bool {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(KILL_AT, format!("{nth} {argument}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match (output.status.signal(), output.status.success()) {
            (Some(9), _) => true,
            (None, true) => {
                assert!(text.contains("1 passed"), "no such test: {test}\n{text}");
                false
            }
            _ => panic!("{test} failed as a child: {text}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}
