//! A status, in the words that scenarios ask in.

use std::ops::Deref;

use watchdog_protocol::Incarnation;
use watchdog_protocol::status::{PhaseStatus, ServiceStatus, Status, VerdictStatus};

use crate::proc::Process;

/// What `watchdog status --json` showed at one moment.
#[derive(Debug, Clone)]
pub struct Seen(pub Status);

/// One service in it.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a>(&'a ServiceStatus);

impl Deref for Seen {
    type Target = Status;

    fn deref(&self) -> &Status {
        &self.0
    }
}

impl Deref for Service<'_> {
    type Target = ServiceStatus;

    fn deref(&self) -> &ServiceStatus {
        self.0
    }
}

impl Seen {
    /// The service of that name, when it is registered.
    pub fn find(&self, name: &str) -> Option<Service<'_>> {
        self.services.iter().find(|service| service.name.as_str() == name).map(Service)
    }

    /// The service of that name.
    ///
    /// # Panics
    /// When it is not registered.
    #[track_caller]
    pub fn of(&self, name: &str) -> Service<'_> {
        self.find(name).unwrap_or_else(|| panic!("`{name}` is not in the status: {:#?}", self.0))
    }

    /// Whether all of them are ready.
    pub fn all_ready(&self) -> bool {
        self.services.iter().all(|service| service.phase == PhaseStatus::Ready)
    }
}

impl<'a> Service<'a> {
    /// Whether it is in this phase.
    pub fn is(&self, phase: PhaseStatus) -> bool {
        self.phase == phase
    }

    /// Whether it is at work.
    pub fn is_ready(&self) -> bool {
        self.is(PhaseStatus::Ready)
    }

    /// Whether a later process than this one is at work.
    pub fn is_ready_after(&self, old: Incarnation) -> bool {
        self.is_ready() && self.incarnation > old
    }

    /// The name of the last end's cause; empty when there was none.
    pub fn cause(&self) -> &'a str {
        self.0.last_end.as_ref().map_or("", |end| &end.cause)
    }

    /// The words of the last end; empty when there was none.
    pub fn why(&self) -> &'a str {
        self.0.last_end.as_ref().map_or("", |end| &end.why)
    }

    /// Its process.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn process(&self) -> Process {
        self.pid
            .and_then(Process::of)
            .unwrap_or_else(|| panic!("`{}` has no process: {:#?}", self.name, self.0))
    }

    /// Whether its newest settings have this verdict.
    pub fn settings_are(&self, verdict: VerdictStatus) -> bool {
        self.settings.as_ref().is_some_and(|settings| settings.verdict == verdict)
    }

    /// The names it waits for.
    pub fn blocked_by(&self) -> Vec<&'a str> {
        self.0.blocked_by.iter().map(|name| name.as_str()).collect()
    }
}
