//! Why something ended or was refused: a closed list, each with its evidence, in words an operator understands.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchdog_protocol::{Incarnation, Revision, ServiceName};

use crate::event::Verb;
use crate::moment::{Moment, Span};

/// Who asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// A person or script at the control socket; the uid is the kernel's word.
    Operator {
        /// Whose process it was.
        uid: u32,
    },
    /// A service with a grant.
    Service(ServiceName),
    /// The watchdog itself.
    Watchdog,
}

impl fmt::Display for Actor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { uid } => write!(out, "operator (uid {uid})"),
            Self::Service(name) => write!(out, "service `{name}`"),
            Self::Watchdog => out.write_str("the watchdog"),
        }
    }
}

/// How a process ended, as the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It called `exit`.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Its number.
        signal: i32,
        /// A core file was written.
        dumped: bool,
    },
    /// The kernel killed it for memory.
    Oom {
        /// The counter that says so.
        evidence: String,
    },
    /// Nobody can tell: its report was lost with a keeper.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(out, "exit code {code}"),
            Self::Signal { signal, dumped } => {
                match signal_name(*signal) {
                    Some(name) => write!(out, "killed by {name} (signal {signal})")?,
                    None => write!(out, "killed by signal {signal}")?,
                }
                if *dumped { out.write_str(", core dumped") } else { Ok(()) }
            }
            Self::Oom { evidence } => write!(out, "killed by the kernel for lack of memory ({evidence})"),
            Self::Unknown => out.write_str("ended, nobody saw how"),
        }
    }
}

/// An end as the core reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// How.
    pub exit: Exit,
    /// The last lines of its standard error, oldest first.
    pub last_lines: Vec<String>,
    /// The error an SDK service said it ends with.
    pub last_word: Option<String>,
}

impl From<Exit> for ExitReport {
    fn from(exit: Exit) -> Self {
        Self { exit, last_lines: Vec::new(), last_word: None }
    }
}

/// Why a dependency is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// Somebody stopped it.
    Stopped,
    /// It failed for good.
    Failed,
}

/// Why the watchdog itself ends a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchdogReason {
    /// It shuts down.
    Shutdown,
    /// It found a process that it had no record of.
    Unrecorded,
}

/// Why something ended or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It ended by itself.
    ExitCode {
        /// 0: it says all is well.
        code: i32,
    },
    /// A signal that the watchdog did not send.
    Signal {
        /// Its number.
        signal: i32,
        /// A core file was written.
        dumped: bool,
    },
    /// The kernel killed it for memory.
    Oom {
        /// The counter that says so.
        evidence: String,
    },
    /// It ended unseen: the report was lost with a keeper.
    Unseen,
    /// It gave no sign of life.
    Hung {
        /// Signs missed in a row.
        missed: u32,
        /// Time between two signs.
        interval: Duration,
    },
    /// It asked to be taken for hung.
    CalledHung,
    /// It said that it ends by itself, and did not in time.
    Leaving,
    /// It called itself failing for longer than allowed.
    Failing {
        /// In its words.
        reason: String,
        /// For how long.
        lasted: Duration,
    },
    /// It could not be spawned.
    Spawn {
        /// Which step, for example `exec`.
        step: String,
        /// What and why, path included.
        reason: String,
    },
    /// It did not say ready in time.
    NotReady {
        /// For how long it was given time.
        waited: Duration,
        /// The last progress it told.
        progress: Option<String>,
    },
    /// It ended in good order, but before it was ready.
    EndedEarly,
    /// Its state can't be used.
    State {
        /// Which file and why.
        reason: String,
    },
    /// It broke the session protocol.
    Protocol {
        /// What was wrong.
        reason: String,
    },
    /// It failed too often: a crash loop.
    Limit {
        /// How often.
        failures: u32,
        /// Within which time.
        window: Duration,
        /// The last failure.
        last: Box<Cause>,
    },
    /// What it requires is not there.
    Dependency {
        /// The first cause, not the nearest link.
        on: ServiceName,
        /// What became of it.
        absence: Absence,
    },
    /// It restarts with another member of its group.
    Group {
        /// Which group.
        group: ServiceName,
        /// Who failed.
        member: ServiceName,
    },
    /// Its group failed, and it with it.
    GroupFailed {
        /// Which group.
        group: ServiceName,
        /// Who failed last.
        member: ServiceName,
        /// So many failures within this time; `None`: the member was given up by its own policy.
        limit: Option<(u32, Duration)>,
        /// The last failure.
        last: Box<Cause>,
    },
    /// Its settings were refused.
    Settings {
        /// Which; `None` when the process ended with exit code 78 and named none.
        revision: Option<Revision>,
        /// In the service's words, or the schema's.
        reason: String,
    },
    /// Somebody asked for it.
    Operator {
        /// Who.
        by: Actor,
        /// For what.
        verb: Verb,
    },
    /// The watchdog ended it.
    Watchdog {
        /// Why.
        reason: WatchdogReason,
    },
}

impl Cause {
    /// The word for it in logs and `--json`, from a closed list.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ExitCode { .. } => "exit-code",
            Self::Signal { .. } => "signal",
            Self::Oom { .. } => "oom",
            Self::Unseen => "unseen",
            Self::Hung { .. } | Self::CalledHung | Self::Leaving => "hung",
            Self::Failing { .. } => "failing",
            Self::Spawn { .. } => "spawn",
            Self::NotReady { .. } | Self::EndedEarly => "not-ready",
            Self::State { .. } => "state",
            Self::Protocol { .. } => "protocol",
            Self::Limit { .. } => "limit",
            Self::Dependency { .. } => "dependency",
            Self::Group { .. } | Self::GroupFailed { .. } => "group",
            Self::Settings { .. } => "settings",
            Self::Operator { .. } => "operator",
            Self::Watchdog { .. } => "watchdog",
        }
    }

    /// Somebody wanted this end: it is no failure, and no message is to blame.
    pub fn was_asked_for(&self) -> bool {
        match self {
            Self::Operator { .. }
            | Self::Watchdog { .. }
            | Self::Dependency { .. }
            | Self::Group { .. }
            | Self::GroupFailed { .. } => true,
            Self::ExitCode { .. }
            | Self::Signal { .. }
            | Self::Oom { .. }
            | Self::Unseen
            | Self::Hung { .. }
            | Self::CalledHung
            | Self::Leaving
            | Self::Failing { .. }
            | Self::Spawn { .. }
            | Self::NotReady { .. }
            | Self::EndedEarly
            | Self::State { .. }
            | Self::Protocol { .. }
            | Self::Limit { .. }
            | Self::Settings { .. } => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode { code } => write!(out, "ended by itself with exit code {code}"),
            Self::Signal { signal, dumped } => {
                write!(out, "{}", Exit::Signal { signal: *signal, dumped: *dumped })
            }
            Self::Oom { evidence } => write!(out, "{}", Exit::Oom { evidence: evidence.clone() }),
            Self::Unseen => write!(out, "{}", Exit::Unknown),
            Self::Hung { missed, interval } => {
                write!(out, "hung: {missed} signs of life missed, one is due every {}", Span(*interval))
            }
            Self::CalledHung => out.write_str("hung: it asked for the end itself"),
            Self::Leaving => out.write_str("said that it ends by itself"),
            Self::Failing { reason, lasted } => {
                write!(out, "called itself failing for {}: {reason}", Span(*lasted))
            }
            Self::Spawn { step, reason } => write!(out, "could not be started, step {step}: {reason}"),
            Self::NotReady { waited, progress: None } => write!(out, "not ready within {}", Span(*waited)),
            Self::NotReady { waited, progress: Some(text) } => {
                write!(out, "not ready within {}; last progress: {text}", Span(*waited))
            }
            Self::EndedEarly => out.write_str("ended with exit code 0 before it was ready"),
            Self::State { reason } => write!(out, "its state can't be used: {reason}"),
            Self::Protocol { reason } => write!(out, "broke the session protocol: {reason}"),
            Self::Limit { failures, window, last } => {
                write!(out, "crash loop: {failures} failures within {}, the last one: {last}", Span(*window))
            }
            Self::Dependency { on, absence: Absence::Stopped } => {
                write!(out, "requires `{on}`, which is stopped")
            }
            Self::Dependency { on, absence: Absence::Failed } => write!(out, "requires `{on}`, which failed"),
            Self::Group { group, member } => write!(out, "restarted with `{member}` of group `{group}`"),
            Self::GroupFailed { group, member, limit: Some((failures, window)), last } => write!(
                out,
                "group `{group}` failed: {failures} failures within {}, the last one of `{member}`: {last}",
                Span(*window)
            ),
            Self::GroupFailed { group, member, limit: None, last } => {
                write!(out, "group `{group}` failed with `{member}`: {last}")
            }
            Self::Settings { revision: Some(revision), reason } => {
                write!(out, "settings revision {revision} refused: {reason}")
            }
            Self::Settings { revision: None, reason } => write!(out, "settings refused: {reason}"),
            Self::Operator { by, verb } => write!(out, "{verb} by {by}"),
            Self::Watchdog { reason: WatchdogReason::Shutdown } => out.write_str("the watchdog shuts down"),
            Self::Watchdog { reason: WatchdogReason::Unrecorded } => {
                out.write_str("the watchdog had no record of this process")
            }
        }
    }
}

/// How far the watchdog had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manner {
    /// The process ended before anybody asked it to.
    ByItself,
    /// It was asked to stop, and did in time.
    Asked,
    /// It was killed.
    Killed,
}

/// The end of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whose.
    pub incarnation: Incarnation,
    /// When nothing of it was left.
    pub at: Moment,
    /// Why.
    pub cause: Cause,
    /// How far the watchdog had to go.
    pub manner: Manner,
    /// How long it had been ready; `None`: it never was.
    pub ready_for: Option<Duration>,
    /// What the kernel and the process said; `None`: there never was a process.
    pub report: Option<ExitReport>,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.cause)?;
        match (&self.report, self.manner) {
            // The cause says it already.
            (None, _) | (Some(_), Manner::ByItself) => {}
            (Some(report), Manner::Asked) => write!(out, "; ended in time ({})", report.exit)?,
            (Some(report), Manner::Killed) => write!(out, "; had to be killed ({})", report.exit)?,
        }
        match &self.report {
            Some(ExitReport { last_word: Some(word), .. }) => write!(out, "; last word: {word}"),
            Some(ExitReport { last_word: None, .. }) | None => Ok(()),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    // The numbers of x86, arm and riscv.
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    NAMES.get(usize::try_from(signal).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_reads_as_words() {
        let signal = |signal, dumped| Cause::Signal { signal, dumped }.to_string();
        assert_eq!(signal(11, true), "killed by SIGSEGV (signal 11), core dumped");
        assert_eq!(signal(40, false), "killed by signal 40");
        assert_eq!(signal(0, false), "killed by signal 0");
        let last = Box::new(Cause::ExitCode { code: 1 });
        let looped = Cause::Limit { failures: 6, window: Duration::from_secs(60), last };
        assert_eq!(
            looped.to_string(),
            "crash loop: 6 failures within 60s, the last one: ended by itself with exit code 1"
        );
        let stop = Cause::Operator { by: Actor::Operator { uid: 1000 }, verb: Verb::Stop };
        assert_eq!(stop.to_string(), "stop by operator (uid 1000)");
    }
}
