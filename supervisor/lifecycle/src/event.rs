//! What happens to a service, and what is to be done about it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchdog_protocol::session::{Health, Progress};
use watchdog_protocol::{Incarnation, Revision, ServiceName};

use crate::cause::{Actor, Cause, End, ExitReport};
use crate::host::{Excuse, HostLook};
use crate::moment::Span;

/// What an operator, or a service with a grant, may ask for. Every verb is legal in every phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Wants it up. Clears a failure, ends a backoff, runs again what is completed.
    Start,
    /// Wants it down, after what depends on it, with time to save. Stays so until somebody starts it.
    Stop,
    /// Wants it down at once. Stays so until somebody starts it.
    Kill,
    /// Wants it up, in a new incarnation. What depends on it keeps running: its lanes hold.
    Restart,
    /// Forgets failures. What failed or waits starts again, if it is wanted up.
    Reset,
    /// Wants it down, with time to save, as one instance too many. Nobody waits for it, nobody is held up by it.
    Scale,
    /// Its configuration changed: a process ends, with time to save, and another starts; what failed or waits is tried
    /// again. What is wanted stays as it is, and what is completed too.
    Reload,
    /// Its configuration is gone: wants it down, with time to save. Nobody waits for it; what requires it and goes too
    /// stops before it.
    Remove,
}

impl fmt::Display for Verb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Reset => "reset",
            Self::Scale => "scale",
            Self::Reload => "reload",
            Self::Remove => "removal",
        })
    }
}

/// One input of [`Service::step`](crate::Service::step).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody asks.
    Asked {
        /// For what.
        verb: Verb,
        /// Who.
        by: Actor,
    },
    /// Something happened to one of its processes.
    Fact {
        /// Which one. A fact about any but the current one changes nothing.
        incarnation: Incarnation,
        /// What.
        fact: Fact,
    },
    /// What the other services and its group allow; the [`Roster`](crate::Roster) says it, nobody else.
    Gate(Gate),
    /// Time passed.
    Tick,
    /// Time passed and nobody looked: the host was suspended, or the core stopped or starved. What was due meanwhile
    /// gets its time anew.
    Paused {
        /// For so long.
        lasted: Duration,
    },
    /// A new core took over: what may not have been performed is commanded again.
    TookOver,
    /// How its life is watched has changed, from a probe or nothing to a probe or nothing.
    WatchedAnew,
}

/// What happened to one process.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// It runs its program. The core also says it for each living process it finds at a takeover.
    Spawned,
    /// It does not and will not; nothing of it is left.
    SpawnFailed {
        /// Which step, for example `exec`.
        step: String,
        /// What and why, path included.
        reason: String,
    },
    /// There is nothing it could start with. Said instead of spawning; nothing of it is left.
    Refused(Refusal),
    /// It is ready: its session or its notification says so, or its probe.
    Ready,
    /// Its leader ended. The core has read its session to the end and applied what it found.
    Exited(ExitReport),
    /// Nothing of it is left: only now may the next one be spawned.
    Gone,
    /// What is still left, after [`Command::NameSurvivors`].
    Survivors {
        /// Their pids, not empty.
        pids: Vec<u32>,
    },
    /// The level it raised.
    Health(Health),
    /// How far its start or stop has come; extends the deadline by up to the timeout again.
    Progress(Progress),
    /// It asks for at least so much more time for the start or stop under way.
    NeedsTime {
        /// From now on.
        at_least: Duration,
    },
    /// What it does now, in its words; `None`: nothing any more. For people; nothing follows from it.
    Says(Option<String>),
    /// Another of its processes is the one that counts, once the present one has ended; `None`: none is.
    MainIs(Option<u32>),
    /// It says that it is about to end by itself.
    Leaving,
    /// A sign of life: its own task's heartbeat or notification, or the answer to a probe.
    Heartbeat,
    /// A probe for life was not answered.
    ProbeMissed,
    /// What was seen of it and its host, after [`Command::LookAtHost`].
    Host(HostLook),
    /// It asks to be taken for hung, at once; heeded where its life is watched.
    CalledHung,
    /// It refused the settings it was started with, before it was ready.
    SettingsRefused {
        /// Which.
        revision: Revision,
        /// In its words.
        reason: String,
        /// What is left to start with.
        fallback: Fallback,
    },
    /// It broke the session protocol; its session is closed.
    ProtocolBroken {
        /// What was wrong.
        reason: String,
    },
}

/// Why there is nothing to start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Its settings do not fit.
    Settings {
        /// Which.
        revision: Revision,
        /// Path, value and what was expected.
        reason: String,
    },
    /// Its state can't be used, and nothing may be overwritten.
    State {
        /// File and why.
        reason: String,
    },
    /// As it is configured it can't be started: what it names is not there.
    Configuration {
        /// What.
        reason: String,
    },
}

/// What a service that refused its settings can start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The values accepted last, under a new revision.
    Revision(Revision),
    /// Nothing: no other values were ever accepted.
    None,
}

/// What the other services allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may run.
    Open,
    /// It may not start yet, or not stop yet. What runs stays.
    Waiting,
    /// It must not run, and nothing that depends on it does any more.
    Shut {
        /// Why.
        cause: Cause,
        /// With how much patience.
        haste: Haste,
    },
    /// Its group failed: it must not run, and counts as failed itself. Nothing that depends on it runs any more.
    GivenUp {
        /// Why.
        cause: Cause,
    },
}

/// How much time a stop gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Haste {
    /// The stop timeout, to save.
    Orderly,
    /// None: everything is killed.
    AtOnce,
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Until it answers once: then [`Fact::Ready`].
    Ready,
    /// For ever: each answer is a [`Fact::Heartbeat`], each silence a [`Fact::ProbeMissed`].
    Alive,
}

/// One output of a step. Those of one service are performed in their order; each may come twice (after a
/// takeover) and must then do no more than once.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make this incarnation. Answered by `Spawned`, `SpawnFailed` or `Refused`.
    Spawn {
        /// The next one.
        incarnation: Incarnation,
    },
    /// Ask it to end: the session's stop event or the stop signal to its group, and CONT if it is stopped.
    /// Answered by `Exited`.
    AskStop {
        /// Which.
        incarnation: Incarnation,
    },
    /// Kill everything of it and watch until nothing is left. Answered by `Gone`, at once if nothing is.
    KillAll {
        /// Which.
        incarnation: Incarnation,
    },
    /// Look for what is still left of it. Answered by `Survivors` or `Gone`.
    NameSurvivors {
        /// Which.
        incarnation: Incarnation,
    },
    /// Start asking.
    StartProbe {
        /// Whom.
        incarnation: Incarnation,
        /// What for.
        purpose: Purpose,
    },
    /// Stop asking.
    StopProbe {
        /// Whom.
        incarnation: Incarnation,
    },
    /// Look at it and its host: a sign of life was missed. Answered by [`Fact::Host`].
    LookAtHost {
        /// Which.
        incarnation: Incarnation,
    },
    /// An entry of the event log.
    Log(Occurrence),
}

/// What the event log says of a service. A step that changed what a new core must know has at least one.
#[derive(Debug, Clone, PartialEq)]
pub enum Occurrence {
    /// Somebody asked.
    Asked {
        /// For what.
        verb: Verb,
        /// Who.
        by: Actor,
    },
    /// An incarnation is being made.
    Starting {
        /// Which.
        incarnation: Incarnation,
    },
    /// It is ready.
    Ready {
        /// Which.
        incarnation: Incarnation,
        /// Since it was spawned.
        took: Duration,
    },
    /// Its end has begun.
    Stopping {
        /// Which.
        incarnation: Incarnation,
        /// Why.
        cause: Cause,
    },
    /// It did not end in time and is killed.
    Killing {
        /// Which.
        incarnation: Incarnation,
        /// How long it was given.
        waited: Duration,
    },
    /// It gives no sign of life, and is left alone for now.
    Excused {
        /// Which.
        incarnation: Incarnation,
        /// Signs missed in a row.
        missed: u32,
        /// Why.
        excuse: Excuse,
    },
    /// Killed, and still there. Nothing is started until they are gone.
    Survivors {
        /// Which.
        incarnation: Incarnation,
        /// Who.
        pids: Vec<u32>,
    },
    /// Nothing of it is left.
    Ended(Box<End>),
    /// The next start waits.
    Backoff {
        /// For so long.
        wait: Duration,
        /// Failures in a row.
        streak: u32,
    },
    /// Given up until `reset` or `start`.
    Failed {
        /// Why.
        cause: Cause,
    },
    /// It did its work and ended.
    Completed,
    /// Nothing runs and nothing is tried.
    Stopped,
    /// It raised a level.
    Health {
        /// Which.
        incarnation: Incarnation,
        /// The level.
        health: Health,
    },
    /// It told how far it has come.
    Progress {
        /// Which.
        incarnation: Incarnation,
        /// How far.
        progress: Progress,
    },
}

impl Occurrence {
    /// The word for it in the event log, from a closed list.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Asked { .. } => "asked",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Stopping { .. } => "stopping",
            Self::Killing { .. } => "killing",
            Self::Excused { .. } => "excused",
            Self::Survivors { .. } => "survivors",
            Self::Ended(_) => "ended",
            Self::Backoff { .. } => "backoff",
            Self::Failed { .. } => "failed",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Health { .. } => "health",
            Self::Progress { .. } => "progress",
        }
    }

    /// Why, where there is a why.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Stopping { cause, .. } | Self::Failed { cause } => Some(cause),
            Self::Ended(end) => Some(&end.cause),
            Self::Asked { .. }
            | Self::Starting { .. }
            | Self::Ready { .. }
            | Self::Killing { .. }
            | Self::Survivors { .. }
            | Self::Excused { .. }
            | Self::Backoff { .. }
            | Self::Completed
            | Self::Stopped
            | Self::Health { .. }
            | Self::Progress { .. } => None,
        }
    }

    /// The process it is about, where it is about one.
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Starting { incarnation }
            | Self::Ready { incarnation, .. }
            | Self::Stopping { incarnation, .. }
            | Self::Killing { incarnation, .. }
            | Self::Survivors { incarnation, .. }
            | Self::Excused { incarnation, .. }
            | Self::Health { incarnation, .. }
            | Self::Progress { incarnation, .. } => Some(*incarnation),
            Self::Ended(end) => Some(end.incarnation),
            Self::Asked { .. }
            | Self::Backoff { .. }
            | Self::Failed { .. }
            | Self::Completed
            | Self::Stopped => None,
        }
    }
}

impl fmt::Display for Occurrence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked { verb, by } => write!(out, "{verb} by {by}"),
            Self::Starting { .. } => out.write_str("starting"),
            Self::Ready { took, .. } => write!(out, "ready after {}", Span(*took)),
            Self::Stopping { cause, .. } => write!(out, "stopping: {cause}"),
            Self::Killing { waited, .. } => write!(out, "still there after {}: killed", Span(*waited)),
            Self::Excused { missed, excuse, .. } => {
                write!(out, "{missed} signs of life missed, and left alone: {excuse}")
            }
            Self::Survivors { pids, .. } => {
                let pids = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                write!(out, "killed and still there, nothing is started until they are gone: {pids}")
            }
            Self::Ended(end) => write!(out, "{end}"),
            Self::Backoff { wait, streak } => {
                write!(out, "next try in {}, {streak} failures in a row", Span(*wait))
            }
            Self::Failed { cause } => write!(out, "failed: {cause}"),
            Self::Completed => out.write_str("did its work and ended"),
            Self::Stopped => out.write_str("stopped"),
            Self::Health { health: Health::Ok, .. } => out.write_str("all is well"),
            Self::Health { health: Health::Degraded { reason }, .. } => write!(out, "degraded: {reason}"),
            Self::Health { health: Health::Failing { reason }, .. } => write!(out, "failing: {reason}"),
            Self::Progress { progress: Progress { fraction: Some(part), text }, .. } => {
                write!(out, "{:.0} %: {text}", part * 100.0)
            }
            Self::Progress { progress: Progress { fraction: None, text }, .. } => out.write_str(text),
        }
    }
}

/// Which service a roster's command is for.
pub type ServiceCommand = (ServiceName, Command);
