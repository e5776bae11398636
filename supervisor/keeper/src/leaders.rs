//! The processes the core asked for: at most one of each service.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use watchdog_protocol::{Incarnation, ServiceName};

use crate::protocol::{Child, Whom};
use crate::raw;
use crate::spawn::Starting;

/// One process of a service, not yet reaped.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) incarnation: Incarnation,
    pub(crate) pid: u32,
    /// Born into a cgroup: what it leaves behind is found there, and not among the orphans.
    pub(crate) has_cgroup: bool,
    pub(crate) phase: Phase,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Between clone and exec, or failed and not yet dead.
    Starting(Box<Starting>),
    /// It runs its program.
    Running { pidfd: Rc<OwnedFd>, start_time: u64 },
}

impl Leader {
    fn run(&mut self) -> Option<Box<Starting>> {
        let Phase::Starting(starting) = &self.phase else { return None };
        let running = Phase::Running { pidfd: starting.pidfd(), start_time: starting.start_time() };
        match std::mem::replace(&mut self.phase, running) {
            Phase::Starting(starting) => Some(starting),
            Phase::Running { .. } => None,
        }
    }

    /// Whoever has this pid, or leads this group, is meant: the leader is not reaped yet.
    pub(crate) fn signal(&self, signal: i32, whom: Whom) {
        let pid = self.pid as i32;
        match whom {
            // ESRCH: it leads no group, or not yet.
            Whom::Group if raw::kill(-pid, signal) != Err(libc::ESRCH) => {}
            _ => drop(raw::kill(pid, signal)),
        }
    }

    /// As a core is told, with its pidfd; None before exec.
    pub(crate) fn as_child(&self, service: &ServiceName) -> Option<(Child, Rc<OwnedFd>)> {
        match &self.phase {
            Phase::Starting(_) => None,
            Phase::Running { pidfd, start_time } => {
                let (service, incarnation) = (service.clone(), self.incarnation);
                let child = Child { service, incarnation, pid: self.pid, start_time: *start_time };
                Some((child, Rc::clone(pidfd)))
            }
        }
    }

    /// Ends what is left of its group. Before it is reaped: afterwards the number may be somebody else's.
    pub(crate) fn kill_group(&self) {
        let _ = raw::kill(-(self.pid as i32), libc::SIGKILL);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    all: BTreeMap<ServiceName, Leader>,
    /// Those on their way to exec: few, and looked at in each turn.
    starting: BTreeSet<ServiceName>,
}

impl Leaders {
    pub(crate) fn get(&self, service: &ServiceName) -> Option<&Leader> {
        self.all.get(service)
    }

    pub(crate) fn insert(&mut self, service: ServiceName, leader: Leader) {
        if let Phase::Starting(_) = leader.phase {
            self.starting.insert(service.clone());
        }
        let before = self.all.insert(service, leader);
        debug_assert!(before.is_none(), "a service never has two processes");
    }

    pub(crate) fn remove(&mut self, service: &ServiceName) -> Option<Leader> {
        self.starting.remove(service);
        self.all.remove(service)
    }

    /// Its program is seen to run. What its start needed, to be retired; None if that was done.
    pub(crate) fn run(&mut self, service: &ServiceName) -> Option<Box<Starting>> {
        self.starting.remove(service);
        self.all.get_mut(service).and_then(Leader::run)
    }

    pub(crate) fn service_of(&self, pid: u32) -> Option<&ServiceName> {
        self.all.iter().find(|(_, leader)| leader.pid == pid).map(|(service, _)| service)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Leader> {
        self.all.values()
    }

    /// Those on their way to exec.
    pub(crate) fn starting(&self) -> impl Iterator<Item = (&ServiceName, &Starting)> {
        self.starting.iter().filter_map(|service| match &self.all.get(service)?.phase {
            Phase::Starting(starting) => Some((service, &**starting)),
            Phase::Running { .. } => None,
        })
    }

    /// One of them.
    pub(crate) fn starting_mut(&mut self, service: &ServiceName) -> Option<&mut Starting> {
        match &mut self.all.get_mut(service)?.phase {
            Phase::Starting(starting) => Some(starting),
            Phase::Running { .. } => None,
        }
    }

    /// Those that run their program, as a core is told.
    pub(crate) fn running(&self) -> Vec<Child> {
        let running = self.all.iter().filter_map(|(service, leader)| leader.as_child(service));
        running.map(|(child, _)| child).collect()
    }
}
