//! Leaders from the request to the report, and orphans.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use watchdog_protocol::{Incarnation, ServiceName};

use super::Keeper;
use crate::descriptors::above_window;
use crate::leaders::{Leader, Phase};
use crate::pid_record::start_time;
use crate::protocol::{Attach, ExitReport, FailedStep, FromKeeper, MAX_ORPHANS, SpawnRequest};
use crate::raw;
use crate::reap::{self, Dead};
use crate::spawn::Starting;

/// Dead children reaped before the core is listened to again: a fork bomb must not make the keeper deaf.
const DEAD_A_TURN: usize = 256;

impl Keeper {
    pub(super) fn spawn(&mut self, request: &SpawnRequest, beside: &[OwnedFd]) {
        let (service, incarnation) = (request.service.clone(), request.incarnation);
        if let Some(end) = self.ends.get(&(service.clone(), incarnation)).cloned() {
            return self.tell(&end, Vec::new());
        }
        if let Some(leader) = self.leaders.get(&service) {
            if leader.incarnation != incarnation {
                let step = FailedStep::AnotherLives(leader.incarnation);
                let refused = FromKeeper::SpawnFailed { service, incarnation, step, errno: libc::EEXIST };
                return self.tell(&refused, Vec::new());
            }
            return self.tell_spawned(&service);
        }
        self.make_room(beside.len());
        let beside: Vec<BorrowedFd<'_>> = beside.iter().map(AsFd::as_fd).collect();
        match self.spawner.start(request, &beside, Instant::now()) {
            Ok(starting) => {
                let (pid, phase) = (starting.pid(), Phase::Starting(Box::new(starting)));
                let has_cgroup = request.descriptors.contains(&Attach::Cgroup);
                self.leaders.insert(service, Leader { incarnation, pid, has_cgroup, phase });
            }
            Err((step, errno)) => self.spawn_failed(service, incarnation, step, errno),
        }
    }

    fn spawn_failed(&mut self, service: ServiceName, incarnation: Incarnation, step: FailedStep, errno: i32) {
        let key = (service.clone(), incarnation);
        let failed = FromKeeper::SpawnFailed { service, incarnation, step, errno };
        self.tell(&failed, Vec::new());
        self.ends.insert(key, failed);
    }

    /// Nothing while it is on its way to exec: it is told then.
    fn tell_spawned(&mut self, service: &ServiceName) {
        if let Some((child, pidfd)) = self.leaders.get(service).and_then(|leader| leader.as_child(service)) {
            self.tell(&FromKeeper::Spawned(child), vec![pidfd]);
        }
    }

    pub(super) fn adopt(&mut self, service: &ServiceName, incarnation: Incarnation, pid: u32) {
        let key = (service.clone(), incarnation);
        let Some(FromKeeper::Exited(end)) = self.ends.get(&key).cloned() else { return };
        match self.orphan(pid) {
            // Without orphans told: it was born into a cgroup, and so was what it left behind.
            Some((pidfd, start_time)) if self.leaders.get(service).is_none() => {
                self.ends.remove(&key);
                let has_cgroup = end.orphans.is_empty();
                let phase = Phase::Running { pidfd: Rc::new(pidfd), start_time };
                self.leaders.insert(service.clone(), Leader { incarnation, pid, has_cgroup, phase });
                self.tell_spawned(service);
            }
            _ => self.tell(&FromKeeper::Exited(end), Vec::new()),
        }
    }

    /// A living orphan, with its start time.
    fn orphan(&self, pid: u32) -> Option<(OwnedFd, u64)> {
        if !self.is_orphan(pid) || !reap::children().is_ok_and(|children| children.contains(&pid)) {
            return None;
        }
        let pidfd = above_window(raw::pidfd_of(pid).ok()?).ok()?;
        Some((pidfd, start_time(pid).ok()?))
    }

    /// A child's pipe says something. At its end it runs its program, or its death follows and tells the rest.
    pub(super) fn exec_seen(&mut self, service: &ServiceName) {
        if self.leaders.starting_mut(service).is_some_and(Starting::look) {
            self.runs(service);
        }
    }

    fn runs(&mut self, service: &ServiceName) {
        if let Some(starting) = self.leaders.run(service) {
            self.spawner.retire(*starting);
            self.tell_spawned(service);
        }
    }

    pub(super) fn reap(&mut self, now: Instant) {
        self.may_be_dead = false;
        let mut reports = Vec::new();
        for turn in 0.. {
            match reap::next_dead() {
                Dead::Child(_) if turn == DEAD_A_TURN => {
                    self.may_be_dead = true;
                    break;
                }
                Dead::Child(pid) => reports.extend(self.bury(pid, now)),
                Dead::Nobody => break,
                Dead::NoChildren => {
                    if let Some(finish) = &mut self.finish {
                        finish.nobody_left();
                    }
                    break;
                }
            }
        }
        if reports.is_empty() {
            return;
        }
        // The list takes the kernel a walk over all children, and a restart waits for the report.
        let orphans =
            if reports.iter().all(|(_, has_cgroup)| *has_cgroup) { Vec::new() } else { self.orphans() };
        for (mut report, has_cgroup) in reports {
            if !has_cgroup {
                report.orphans.clone_from(&orphans);
            }
            let key = (report.service.clone(), report.incarnation);
            let end = FromKeeper::Exited(report);
            self.tell(&end, Vec::new());
            self.ends.insert(key, end);
        }
    }

    /// One dead child, not yet reaped. A leader's report, still without orphans, and whether it had a cgroup.
    fn bury(&mut self, pid: u32, now: Instant) -> Option<(ExitReport, bool)> {
        if self.core.process.as_ref().is_some_and(|core| core.pid == pid) {
            self.core_died(pid, now);
            return None;
        }
        let Some(service) = self.leaders.service_of(pid).cloned() else {
            if reap::reap(pid).is_some() && self.outbox.takes_hints() {
                self.tell(&FromKeeper::OrphanReaped { pid }, Vec::new());
            }
            return None;
        };
        let failure = match &self.leaders.get(&service)?.phase {
            Phase::Starting(starting) => starting.failure(),
            Phase::Running { .. } => None,
        };
        if failure.is_none() {
            self.runs(&service); // if it is not known yet: its exec was missed, or a signal ended it before
        }
        self.leaders.get(&service)?.kill_group();
        let (status, usage) = reap::reap(pid)?;
        let leader = self.leaders.remove(&service)?;
        let incarnation = leader.incarnation;
        if let Phase::Starting(starting) = leader.phase {
            self.spawner.retire(*starting);
        }
        if let Some((step, errno)) = failure {
            self.spawn_failed(service, incarnation, step, errno);
            return None;
        }
        let report = ExitReport { service, incarnation, pid, status, usage, orphans: Vec::new() };
        Some((report, leader.has_cgroup))
    }

    pub(super) fn is_orphan(&self, pid: u32) -> bool {
        let core = self.core.process.as_ref().map(|core| core.pid);
        core != Some(pid) && self.leaders.service_of(pid).is_none()
    }

    pub(super) fn orphans(&self) -> Vec<u32> {
        let children = reap::children().unwrap_or_default();
        children.into_iter().filter(|pid| self.is_orphan(*pid)).take(MAX_ORPHANS).collect()
    }
}
