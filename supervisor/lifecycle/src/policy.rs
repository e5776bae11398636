//! What the configuration decides about one service, as far as decisions need it.

use std::time::Duration;

use watchdog_protocol::ServiceName;

use crate::access::Access;
use crate::restart::Restart;

/// Who is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Built on the SDK: has a session, settings, state and an inbox.
    Service,
    /// Anything else.
    Program,
}

/// Whether its work has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It is there as long as it is wanted.
    Lasting,
    /// A task: it runs to its end, and whoever requires it waits for that.
    Once,
}

/// What makes a process ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It says so: over its session, or by a notification.
    Told,
    /// Its exec: nothing more can be known.
    Exec,
    /// A probe that answers.
    Probe,
}

/// How it is known to be alive, once it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// As long as its process is.
    Unwatched,
    /// It sends a heartbeat: its own task over the session, or a notification.
    Heartbeat {
        /// At least so often.
        interval: Duration,
    },
    /// A probe that answers; the core asks it so often, and reports each answer and each miss.
    Probe {
        /// Time between two questions.
        interval: Duration,
    },
}

/// Misses in a row, of heartbeats or probes, that make a service hung.
pub const MISSES: u32 = 3;

/// Progress extends a start or stop to at most so many times its timeout.
pub const MAX_EXTENSION: u32 = 10;

/// What the configuration decides about one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who is supervised.
    pub kind: Kind,
    /// Whether its work has an end. Default: it lasts.
    pub work: Work,
    /// What makes it ready. A task is not awaited before its end: it is ready at its exec.
    pub ready: Readiness,
    /// How it is known to be alive. Default: unwatched.
    pub liveness: Liveness,
    /// What follows an end.
    pub restart: Restart,
    /// Time from the spawn until it must be ready. Default 30 s.
    pub start_timeout: Duration,
    /// Time between asking it to stop and killing it. Default 10 s; 0 kills at once.
    pub stop_timeout: Duration,
    /// How long it may call itself failing until it is restarted. Default 60 s; `None`: for ever.
    pub failing_timeout: Option<Duration>,
    /// Must be ready before it starts, and stops after it.
    pub requires: Vec<ServiceName>,
    /// Starts before it and stops after it, where both do at all.
    pub after: Vec<ServiceName>,
    /// Who may talk to whom.
    pub access: Access,
}

impl Policy {
    /// The defaults of a service built on the SDK.
    pub fn service() -> Self {
        Self {
            kind: Kind::Service,
            work: Work::Lasting,
            ready: Readiness::Told,
            liveness: Liveness::Unwatched,
            restart: Restart::default(),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            failing_timeout: Some(Duration::from_secs(60)),
            requires: Vec::new(),
            after: Vec::new(),
            access: Access::default(),
        }
    }

    /// The defaults of a plain program: ready at its exec.
    pub fn program() -> Self {
        Self { kind: Kind::Program, ready: Readiness::Exec, ..Self::service() }
    }

    /// The defaults of a task.
    pub fn task(kind: Kind) -> Self {
        Self { kind, work: Work::Once, ready: Readiness::Exec, ..Self::service() }
    }
}
