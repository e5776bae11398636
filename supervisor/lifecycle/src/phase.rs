//! The phases of a service, each with the data that only it has.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchdog_protocol::Incarnation;
use watchdog_protocol::session::{Health, Progress};

use crate::cause::{Actor, Cause, ExitReport, Manner};
use crate::moment::Moment;
use crate::policy::MAX_EXTENSION;

/// What the operator wants: the one field that nothing else changes, neither a dependant nor a restart of the
/// watchdog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Running.
    Up,
    /// Not running.
    Down {
        /// Who wanted it so.
        by: Actor,
        /// By stop or kill.
        verb: crate::event::Verb,
    },
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// No process. It starts as soon as it is wanted up and the others allow it.
    Stopped {
        /// Since when.
        since: Moment,
    },
    /// A process that is not ready, perhaps not yet spawned.
    Starting(Starting),
    /// A process at work.
    Ready(Ready),
    /// An incarnation that ends: asked to, killed, or dead with something of it still left.
    Stopping(Box<Stopping>),
    /// No process until the wait is over.
    Backoff {
        /// Since when.
        since: Moment,
        /// Until when.
        until: Moment,
    },
    /// No process; given up until `reset`, `start` or `restart`.
    Failed {
        /// Since when.
        since: Moment,
        /// Why.
        cause: Cause,
    },
    /// No process; it did its work.
    Completed {
        /// Since when.
        since: Moment,
    },
}

/// An incarnation on its way up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Starting {
    /// Which.
    pub incarnation: Incarnation,
    /// When its spawn was commanded.
    pub since: Moment,
    /// When it must be ready.
    pub deadline: Deadline,
    /// How far the spawn has come.
    pub spawn: Spawn,
    /// What it said last of its progress.
    pub progress: Option<Progress>,
    /// The level it raised.
    pub health: Health,
}

/// How far a spawn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spawn {
    /// Commanded.
    Commanded,
    /// The program runs.
    Done,
}

/// An incarnation at work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Which.
    pub incarnation: Incarnation,
    /// When its spawn was commanded.
    pub started: Moment,
    /// Since when it is ready.
    pub since: Moment,
    /// The level it raised.
    pub health: Health,
    /// Since when it is at that level.
    pub health_since: Moment,
    /// Signs of life.
    pub pulse: Pulse,
}

/// Signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulse {
    /// Nobody looks.
    Unwatched,
    /// Heartbeats.
    Beating {
        /// Until when the next one must come.
        due: Moment,
        /// Missed in a row.
        missed: u32,
    },
    /// Answers to a probe.
    Probed {
        /// Missed in a row.
        missed: u32,
    },
}

/// An incarnation that ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopping {
    /// Which.
    pub incarnation: Incarnation,
    /// Since when.
    pub since: Moment,
    /// How long it had been ready; `None`: it never was.
    pub ready_for: Option<Duration>,
    /// Why it ends.
    pub cause: Cause,
    /// How far the watchdog had to go.
    pub manner: Manner,
    /// What is being done about it.
    pub stage: Stage,
    /// What comes after.
    pub next: Next,
    /// Its leader's end, once seen.
    pub report: Option<ExitReport>,
    /// What it said last of its progress.
    pub progress: Option<Progress>,
}

/// What is being done about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Asked to end.
    Asked {
        /// Then it is killed.
        deadline: Deadline,
    },
    /// It said that it ends by itself.
    Leaving {
        /// Then it is killed.
        deadline: Deadline,
    },
    /// Everything of it is being killed: it did not end in time, or it ended and left something behind.
    Killing {
        /// When to look for survivors.
        look_at: Moment,
        /// Who was still there at the last look.
        survivors: Vec<u32>,
    },
}

/// What comes after an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// What the restart policy says of the cause.
    AsPolicySays,
    /// A start, whatever the cause: somebody asked for one meanwhile.
    Again,
    /// A start with the settings accepted last. Counts as a failure, so that it can't go on for ever.
    FallBack,
    /// None before somebody asks for it: another try would end the same way.
    Never,
}

/// What a deadline leaves at least after a pause: to hear what was said meanwhile.
const GRACE: Duration = Duration::from_secs(5);

/// A deadline that progress extends: each report by up to the timeout again, all together to at most ten times
/// the timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    from: Moment,
    timeout: Duration,
    at: Moment,
}

impl Deadline {
    /// `timeout` from now.
    pub fn new(now: Moment, timeout: Duration) -> Self {
        Self { from: now, timeout, at: now.after(timeout) }
    }

    /// When it is over.
    pub fn at(&self) -> Moment {
        self.at
    }

    pub(crate) fn extend(&mut self, now: Moment) {
        self.extend_by(now, self.timeout);
    }

    /// By as much as was asked for, and no further than progress would.
    pub(crate) fn extend_by(&mut self, now: Moment, at_least: Duration) {
        let latest = self.from.after(self.timeout.saturating_mul(MAX_EXTENSION));
        self.at = self.at.max(now.after(at_least).min(latest));
    }

    /// A time that does not count. What answers to it may have come meanwhile and is yet to be heard.
    pub(crate) fn pause(&mut self, now: Moment, lasted: Duration) {
        self.from = self.from.after(lasted);
        self.at = self.at.after(lasted).max(now.after(self.timeout.min(GRACE)));
    }

    pub(crate) fn waited(&self, now: Moment) -> Duration {
        now.since(self.from)
    }
}

/// The phases of which something lives, or may. Whoever asks for them decides nothing for the others.
pub(crate) enum Live<'a> {
    Starting(&'a mut Starting),
    Ready(&'a mut Ready),
    Stopping(&'a mut Stopping),
}

impl Phase {
    pub(crate) fn live(&mut self) -> Option<Live<'_>> {
        match self {
            Self::Starting(starting) => Some(Live::Starting(starting)),
            Self::Ready(ready) => Some(Live::Ready(ready)),
            Self::Stopping(stopping) => Some(Live::Stopping(stopping)),
            Self::Stopped { .. } | Self::Backoff { .. } | Self::Failed { .. } | Self::Completed { .. } => {
                None
            }
        }
    }

    /// The incarnation of which something lives, or may.
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Starting(starting) => Some(starting.incarnation),
            Self::Ready(ready) => Some(ready.incarnation),
            Self::Stopping(stopping) => Some(stopping.incarnation),
            Self::Stopped { .. } | Self::Backoff { .. } | Self::Failed { .. } | Self::Completed { .. } => {
                None
            }
        }
    }

    /// Since when it lasts.
    pub fn since(&self) -> Moment {
        match self {
            Self::Starting(starting) => starting.since,
            Self::Ready(ready) => ready.since,
            Self::Stopping(stopping) => stopping.since,
            Self::Stopped { since }
            | Self::Backoff { since, .. }
            | Self::Failed { since, .. }
            | Self::Completed { since } => *since,
        }
    }

    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stopped { .. } => "stopped",
            Self::Starting(_) => "starting",
            Self::Ready(_) => "ready",
            Self::Stopping(_) => "stopping",
            Self::Backoff { .. } => "backoff",
            Self::Failed { .. } => "failed",
            Self::Completed { .. } => "completed",
        }
    }

    /// Processes that were killed and are still there; empty when none are known.
    pub fn survivors(&self) -> &[u32] {
        match self {
            Self::Stopping(stopping) => stopping.stage.survivors(),
            Self::Stopped { .. }
            | Self::Starting(_)
            | Self::Ready(_)
            | Self::Backoff { .. }
            | Self::Failed { .. }
            | Self::Completed { .. } => &[],
        }
    }
}

impl Stage {
    /// Processes that were killed and are still there.
    pub fn survivors(&self) -> &[u32] {
        match self {
            Self::Asked { .. } | Self::Leaving { .. } => &[],
            Self::Killing { survivors, .. } => survivors,
        }
    }
}
