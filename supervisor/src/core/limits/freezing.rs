//! Services that stand still.
//!
//! It is of the process, and kept nowhere but in the kernel: the next process of the service runs, and a new core looks.
//! Whatever is to end is thawed first. A freeze takes until all stands still, on a thread; a thaw is done at once, and one
//! that comes in between undoes the freeze when that is done.

use std::io;
use std::sync::Arc;

use watchdog_lifecycle::Actor;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::resources::Support;
use watchdog_protocol::{Incarnation, ServiceName};

use super::{Worked, because};
use crate::core::events::Entry as Logged;
use crate::core::verbs::Asked;
use crate::core::waiting::{Look, Target, end};
use crate::core::{Core, chain};
use crate::processes::{Members, Process};

/// A call that waits until processes stand still.
#[derive(Debug)]
pub(in crate::core) struct Freezing {
    services: Vec<(ServiceName, Incarnation)>,
    failed: Option<String>,
}

/// Whether a service's processes stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Still {
    Runs,
    /// A thread is at it.
    Freezing,
    /// Somebody asked for it.
    Frozen,
}

impl Core {
    /// `freeze`: all or, when one does not run, none.
    pub(in crate::core) fn freeze_asked(
        &mut self,
        asked: Asked,
        named: &[ServiceName],
        reason: Option<&str>,
    ) {
        let services = self.named_services(named);
        if let Support::Refused(why) = self.limiting.means.freeze_support() {
            let failure = Failure::new(FailureKind::Failed, format!("nothing can be frozen here: {why}"));
            return end(&asked.replies, Err(failure));
        }
        if let Some(down) = services.iter().find(|name| self.entry(name).process.is_none()) {
            let text = format!("{down} is not running");
            return end(&asked.replies, Err(Failure::new(FailureKind::NotRunning, text)));
        }
        for service in &services {
            self.freeze(&asked.by, service, reason);
        }
        let services = services.into_iter().map(|name| (name.clone(), self.newest(&name))).collect();
        self.wait_for(asked, Target::Frozen(Freezing { services, failed: None }), Vec::new());
    }

    /// On a thread: it takes until all of it stands still.
    fn freeze(&mut self, by: &Actor, service: &ServiceName, reason: Option<&str>) {
        let members = self.members(service);
        let incarnation = self.newest(service);
        let entry = self.entry_mut(service);
        if entry.still != Still::Runs {
            return;
        }
        entry.still = Still::Freezing;
        let told = Logged::of(service, "frozen", format!("frozen{}", because(reason))).at(incarnation).by(by);
        let (means, service) = (Arc::clone(&self.limiting.means), service.clone());
        self.limiting.work.spawn_blocking(move || {
            let outcome = means.freeze(&service, &|| members.pids().unwrap_or_default());
            Worked::Frozen { service, incarnation, told: Box::new(told), outcome }
        });
    }

    pub(super) fn was_frozen(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        told: Logged,
        outcome: io::Result<()>,
    ) {
        let Some(entry) = self.entries.get_mut(service) else { return };
        let is_wanted = entry.still == Still::Freezing
            && entry.process.as_ref().is_some_and(|process| process.incarnation == incarnation);
        match outcome {
            Ok(()) if is_wanted => {
                entry.still = Still::Frozen;
                self.events.add(told);
            }
            // It was thawed meanwhile, or is about to end.
            Ok(()) => self.thaw_for_sure(service),
            Err(err) => {
                self.thaw_for_sure(service);
                let text = format!("{service} can't be frozen: {}", chain(&err));
                for waiter in &mut self.waiters {
                    if let Target::Frozen(freezing) = &mut waiter.target
                        && freezing.services.iter().any(|(name, _)| name == service)
                    {
                        freezing.failed = Some(text.clone());
                    }
                }
            }
        }
    }

    /// `thaw`. One that is not frozen is what was asked for.
    pub(in crate::core) fn thaw_asked(&mut self, asked: &Asked, named: &[ServiceName], reason: Option<&str>) {
        let services = self.named_services(named);
        for service in &services {
            if self.entry(service).still == Still::Runs {
                continue;
            }
            if let Err(err) = self.thaw(service) {
                let text = format!("{service} can't be thawed: {}", chain(&err));
                return end(&asked.replies, Err(Failure::new(FailureKind::Failed, text)));
            }
            let incarnation = self.newest(service);
            let text = format!("thawed{}", because(reason));
            self.events.add(Logged::of(service, "thawed", text).at(incarnation).by(&asked.by));
        }
        end(&asked.replies, Ok(Outcome::Status(Box::new(self.status(&services)))));
    }

    fn thaw(&mut self, service: &ServiceName) -> io::Result<()> {
        let members = self.members(service);
        self.limiting.means.thaw(service, &|| members.pids().unwrap_or_default())?;
        self.entry_mut(service).still = Still::Runs;
        Ok(())
    }

    fn thaw_for_sure(&mut self, service: &ServiceName) {
        if let Err(err) = self.thaw(service) {
            tracing::warn!("{service}: cannot thaw it: {}", chain(&err));
        }
    }

    /// What is to end must run for it.
    pub(in crate::core) fn thaw_to_end(&mut self, service: &ServiceName) {
        if self.entry(service).still != Still::Runs {
            self.thaw_for_sure(service);
        }
    }

    pub(in crate::core) fn look_at_freezing(&self, freezing: &Freezing) -> Look {
        if let Some(text) = &freezing.failed {
            return Look::Failed(Failure::new(FailureKind::Failed, text.clone()));
        }
        let is_freezing = |(name, _): &&(ServiceName, Incarnation)| {
            self.entries.get(name).is_some_and(|it| it.still == Still::Freezing)
        };
        match freezing.services.iter().find(is_freezing) {
            Some((name, _)) => Look::Waits(format!("{name}: not all of it stands still yet")),
            None => {
                let names: Vec<_> = freezing.services.iter().map(|(name, _)| name.clone()).collect();
                Look::Done(Outcome::Status(Box::new(self.status(&names))))
            }
        }
    }

    /// Without a cgroup all of `/proc` is read, unless its first process runs.
    pub(super) fn stands_still(&self, service: &ServiceName) -> bool {
        let members = self.members(service);
        let leader = self.entry(service).process.as_ref().map(|process| process.pid.cast_signed());
        let runs = |pid| Process::read(pid).is_ok_and(|process| !matches!(process.state, 'T' | 'D'));
        if matches!(members, Members::Below { .. }) && leader.is_some_and(runs) {
            return false;
        }
        self.limiting.means.is_frozen(service, &|| members.pids().unwrap_or_default())
    }
}
