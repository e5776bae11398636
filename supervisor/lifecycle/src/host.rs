//! What excuses a service that gives no sign of life: the host, not it, is to blame.
//!
//! Signs that were missed are looked into before anything is killed. A service that wanted to run and was not let, or
//! that waits for a machine short of memory or disk, is looked at again at its next miss. One that sleeps, or that has
//! the processor and says nothing, is hung, however busy the others are.

use std::fmt;
use std::time::Duration;

/// What was seen of a service and its host since the miss before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostLook {
    /// The time it is about.
    pub over: Duration,
    /// Its cgroup is frozen.
    pub frozen: bool,
    /// How long its threads ran, all together.
    pub ran: Duration,
    /// How long its threads were ready to run and were not let, as far as they ran since.
    pub waited: Duration,
    /// One of its threads is ready to run now. The kernel counts its wait when it is over.
    pub queued: bool,
    /// One of its processes is in a wait of the kernel that no signal ends.
    pub blocked: bool,
    /// How long all of the host stood still for lack of memory (pressure stall, `full`).
    pub memory: Duration,
    /// How long all of the host stood still for its disks.
    pub io: Duration,
}

/// Why a service that gives no sign of life is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// Somebody froze it.
    Frozen,
    /// It was not let run.
    Cpu {
        /// For so long.
        waited: Duration,
        /// Of this time.
        over: Duration,
    },
    /// The host stood still for lack of memory.
    Memory {
        /// For so long.
        stalled: Duration,
        /// Of this time.
        over: Duration,
    },
    /// The host stood still for its disks.
    Io {
        /// For so long.
        stalled: Duration,
        /// Of this time.
        over: Duration,
    },
}

impl HostLook {
    /// What excuses it, if anything does.
    pub fn excuse(&self) -> Option<Excuse> {
        // Part of the time that counts as starving.
        let much = self.over / 4;
        let Self { over, memory, io, .. } = *self;
        let waiting = if self.queued { over.saturating_sub(self.ran) } else { Duration::ZERO };
        let waited = self.waited.max(waiting);
        if self.frozen {
            Some(Excuse::Frozen)
        } else if over.is_zero() {
            None
        } else if waited >= much && waited > self.ran {
            Some(Excuse::Cpu { waited, over })
        } else if self.blocked && memory >= much {
            Some(Excuse::Memory { stalled: memory, over })
        } else if self.blocked && io >= much {
            Some(Excuse::Io { stalled: io, over })
        } else {
            None
        }
    }
}

impl fmt::Display for Excuse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => out.write_str("it is frozen"),
            Self::Cpu { waited, over } => {
                write!(out, "it waited {waited:.0?} of {over:.0?} for a processor")
            }
            Self::Memory { stalled, over } => {
                write!(out, "the host stood still for lack of memory, {stalled:.0?} of {over:.0?}")
            }
            Self::Io { stalled, over } => {
                write!(out, "the host stood still for its disks, {stalled:.0?} of {over:.0?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn look() -> HostLook {
        HostLook { over: SECOND, ..HostLook::default() }
    }

    #[test]
    fn one_that_sleeps_is_not_excused_by_a_busy_host() {
        assert_eq!(look().excuse(), None);
        assert_eq!(HostLook { memory: SECOND, io: SECOND, ..look() }.excuse(), None);
    }

    #[test]
    fn one_that_wanted_to_run_and_was_not_let_is_excused_one_that_runs_is_not() {
        let waited = Duration::from_millis(600);
        let starved = HostLook { waited, ran: Duration::from_millis(30), ..look() };
        assert_eq!(starved.excuse(), Some(Excuse::Cpu { waited, over: SECOND }));
        assert_eq!(starved.excuse().unwrap().to_string(), "it waited 600ms of 1s for a processor");
        assert_eq!(HostLook { ran: Duration::from_millis(700), ..starved }.excuse(), None);
        assert_eq!(HostLook { waited: Duration::from_millis(200), ..starved }.excuse(), None);
        let still = HostLook { queued: true, ran: Duration::from_millis(10), ..look() };
        let waited = Duration::from_millis(990);
        assert_eq!(still.excuse(), Some(Excuse::Cpu { waited, over: SECOND }), "it waits still");
        assert_eq!(HostLook { ran: SECOND, ..still }.excuse(), None, "it runs in circles");
    }

    #[test]
    fn one_that_the_kernel_holds_is_excused_while_the_host_stands_still() {
        let blocked = HostLook { blocked: true, ..look() };
        let stalled = Duration::from_millis(300);
        assert_eq!(blocked.excuse(), None);
        assert_eq!(
            HostLook { memory: stalled, ..blocked }.excuse(),
            Some(Excuse::Memory { stalled, over: SECOND })
        );
        assert_eq!(HostLook { io: stalled, ..blocked }.excuse(), Some(Excuse::Io { stalled, over: SECOND }));
    }

    #[test]
    fn one_that_is_frozen_is_excused_at_the_first_look() {
        assert_eq!(HostLook { frozen: true, ..HostLook::default() }.excuse(), Some(Excuse::Frozen));
    }
}
