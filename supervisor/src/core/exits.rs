//! How a process ends, seen from the core.
//!
//! ```text
//! keeper: Exited ─► drain the session ─► its last word is applied ─► lanes taken back, senders told
//!                                                                 ─► Fact::Exited ─► KillAll
//! KillAll ─► group and cgroup killed ─► look until nothing is left ─► Fact::Gone ─► the next spawn
//! ```
//! The report is acknowledged to the keeper when the note that follows from it is written: a core killed in between
//! leaves it to the next one, which gets it again.

use std::time::Duration;

use nix::sys::signal::Signal;
use watchdog_keeper::failure::explain;
use watchdog_keeper::protocol::{self, ExitStatus, FailedStep, FromKeeper, ToKeeper, Whom};
use watchdog_lifecycle::{Exit, Fact, Kind};
use watchdog_protocol::session::ToService;
use watchdog_protocol::{Incarnation, ServiceName};
use watchdog_seqpacket::Marks;

use super::events::Entry as Event;
use super::limits::Still;
use super::{Core, CoreError, Process, now, started_at};
use crate::processes::{Identity, Members, ProcessTable, ownership};

/// How often something killed is looked at until it is gone. A kill takes effect within a millisecond, unless the
/// process is in the kernel.
pub(super) const LOOK: Duration = Duration::from_millis(2);

/// An exit that was reported and whose session may still hold the last word.
#[derive(Debug)]
pub(super) struct Ending {
    report: Box<protocol::ExitReport>,
}

impl Ending {
    /// Whose.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.report.incarnation
    }
}

impl Core {
    /// A message of the keeper, after the hand-over.
    pub(super) async fn keeper_said(&mut self, message: FromKeeper) -> Result<(), CoreError> {
        match message {
            FromKeeper::Spawned(child) => self.spawned(&child).await?,
            FromKeeper::SpawnFailed { service, incarnation, step, errno } => {
                self.spawn_failed(&service, incarnation, &step, errno).await?;
            }
            FromKeeper::Exited(report) => self.exited(report).await?,
            FromKeeper::OrphanReaped { .. } => self.look_at_clearing().await?,
            FromKeeper::Orphans(pids) => self.orphans = pids,
            FromKeeper::Signalled { signal } => self.signalled(signal),
            FromKeeper::Refused(refusal) => {
                self.events.add(Event::new("keeper", format!("the keeper refused a request: {refusal:?}")));
            }
            FromKeeper::Hello(_)
            | FromKeeper::Descriptors(_)
            | FromKeeper::HandedOver
            | FromKeeper::Replaced { .. }
            | FromKeeper::Safe { .. } => {
                self.events.add(Event::new("keeper", "the keeper repeated its hand-over; ignored"));
            }
        }
        Ok(())
    }

    async fn spawned(&mut self, child: &protocol::Child) -> Result<(), CoreError> {
        let Some(entry) = self.entries.get_mut(&child.service) else { return Ok(()) };
        if entry.process.as_ref().is_some_and(|before| before.incarnation == child.incarnation) {
            self.write_adopted(child);
        }
        let entry = self.entry_mut(&child.service);
        entry.process = Some(Process { incarnation: child.incarnation, pid: child.pid });
        entry.spawning = None;
        let early = std::mem::take(&mut entry.early);
        entry.last_pid = Some(child.pid);
        entry.started = Some(started_at(child.start_time));
        self.limit_born(&child.service);
        let is_late = self.clearing.get(&child.service) == Some(&child.incarnation);
        self.fact(&child.service, child.incarnation, Fact::Spawned);
        self.heed_notifications(&child.service)?;
        self.watch_log(&child.service, child.incarnation);
        if is_late {
            // Its end was decided before its birth was told.
            self.signal(&child.service, child.incarnation, Signal::SIGKILL, Whom::Group).await?;
        }
        for event in early {
            self.heed(&child.service, child.incarnation, event).await?;
        }
        Ok(())
    }

    async fn spawn_failed(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        step: &FailedStep,
        errno: i32,
    ) -> Result<(), CoreError> {
        self.acknowledge.push((service.clone(), incarnation));
        let Some(entry) = self.entries.get_mut(service) else { return Ok(()) };
        let _ = entry.spawning.take_if(|spawning| *spawning == incarnation);
        entry.early.clear();
        let program = entry.spec.launch.executable(&entry.spec.launch.environment(std::env::vars_os()));
        let program = program.unwrap_or_else(|_| entry.spec.launch.program.clone());
        let failure = explain(&program, step, errno);
        self.close_session(service, incarnation).await?;
        self.take_lanes_back(service, incarnation);
        self.fact(
            service,
            incarnation,
            Fact::SpawnFailed { step: failure.step(), reason: failure.to_string() },
        );
        Ok(())
    }

    async fn exited(&mut self, report: protocol::ExitReport) -> Result<(), CoreError> {
        if self.entries.contains_key(&report.service) && self.has_words_left(&report) {
            return Ok(());
        }
        self.exited_at_last(report).await
    }

    /// Nothing that its process said by notifications is left unheard.
    pub(super) async fn exited_at_last(&mut self, report: protocol::ExitReport) -> Result<(), CoreError> {
        if self.entries.get(&report.service).is_some_and(|entry| entry.cgroup.is_none()) {
            self.orphans.clone_from(&report.orphans);
        }
        let (service, incarnation) = (report.service.clone(), report.incarnation);
        let Some(entry) = self.entries.get_mut(&service) else {
            self.acknowledge.push((service, incarnation));
            return Ok(());
        };
        if entry.spawning.take_if(|spawning| *spawning == incarnation).is_some() {
            // Asked for by an older core: its birth was told to that one. What it said comes before its end.
            for event in std::mem::take(&mut entry.early) {
                self.heed(&service, incarnation, event).await?;
            }
        }
        let entry = self.entry_mut(&service);
        match &entry.session {
            Some(session) if session.incarnation() == report.incarnation && !session.is_ended() => {
                session.drain();
                entry.ending = Some(Ending { report: Box::new(report) });
            }
            _ => self.end(report).await?,
        }
        Ok(())
    }

    /// The session told all it will ever tell.
    pub(super) async fn session_ended(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        let Some(entry) = self.entries.get_mut(service) else { return Ok(()) };
        match entry.ending.take() {
            Some(ending) if ending.report.incarnation == incarnation => self.end(*ending.report).await,
            // End of file before the keeper has told: the report is on its way.
            other => {
                entry.ending = other;
                if let Some(session) = entry.session.as_mut().filter(|s| s.incarnation() == incarnation) {
                    session.mark_ended();
                }
                Ok(())
            }
        }
    }

    async fn end(&mut self, report: protocol::ExitReport) -> Result<(), CoreError> {
        let (service, incarnation) = (report.service.clone(), report.incarnation);
        self.acknowledge.push((service.clone(), incarnation));
        self.close_session(&service, incarnation).await?;
        self.take_lanes_back(&service, incarnation);
        self.settings_ended(&service, incarnation);
        let exit = match report.status {
            ExitStatus::Code(code) => Exit::Code(code),
            ExitStatus::Signal { signal, core_dumped } => match self.out_of_memory(&service, signal) {
                Some(evidence) => Exit::Oom { evidence },
                None => Exit::Signal { signal, dumped: core_dumped },
            },
        };
        let last_lines = self.capture.last_lines(&service).await;
        let entry = self.entry_mut(&service);
        if entry.process.as_ref().is_some_and(|process| process.incarnation == incarnation) {
            entry.process = None;
            entry.still = Still::Runs;
        }
        let last_word = entry.last_word.take();
        let report = watchdog_lifecycle::ExitReport { exit, last_lines, last_word };
        self.fact(&service, incarnation, Fact::Exited(report));
        Ok(())
    }

    /// Nobody holds the ends any more: each sender is told what its receiver had taken, each receiver keeps what
    /// is queued.
    fn take_lanes_back(&mut self, service: &ServiceName, incarnation: Incarnation) {
        // An answer that is there counts.
        self.take_last_answers(service);
        let at = now().as_nanos();
        let mut told = Vec::new();
        for lane in self.lanes.arriving_at(service).filter(|lane| lane.given_to() == Some(incarnation)) {
            told.push((lane.sender.clone(), lane.epoch, lane.take_back(at)));
        }
        for lane in self.lanes.leaving(service) {
            lane.close_handle();
        }
        for (sender, lane, Marks { taken, done, .. }) in told {
            self.questions_died(lane, taken, done);
            self.tell(&sender, &ToService::PeerDied { lane, incarnation, taken, done }, Vec::new());
        }
    }

    /// Performs `KillAll`.
    pub(super) async fn kill_all(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        self.thaw_to_end(service);
        self.clearing.insert(service.clone(), incarnation);
        let entry = self.entry(service);
        if entry.process.as_ref().is_some_and(|process| process.incarnation == incarnation) {
            self.signal(service, incarnation, Signal::SIGKILL, Whom::Group).await?;
        }
        self.look_at_clearing().await
    }

    /// Performs `NameSurvivors`.
    pub(super) async fn name_survivors(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        let pids = self.left_of(service)?;
        let fact = if pids.is_empty() { Fact::Gone } else { Fact::Survivors { pids } };
        if fact == Fact::Gone {
            self.clearing.remove(service);
        }
        self.fact(service, incarnation, fact);
        Ok(())
    }

    /// Says gone of everything that was killed and of which nothing is left; kills again what is.
    pub(super) async fn look_at_clearing(&mut self) -> Result<(), CoreError> {
        let clearing: Vec<_> = self
            .clearing
            .iter()
            .filter(|(service, _)| {
                let entry = self.entry(service);
                entry.process.is_none() && entry.spawning.is_none() && entry.ending.is_none()
            })
            .map(|(service, incarnation)| (service.clone(), *incarnation))
            .collect();
        for (service, incarnation) in clearing {
            let entry = self.entry(&service);
            let left = match &entry.cgroup {
                Some(cgroup) => {
                    let populated = cgroup.populated().unwrap_or(false);
                    if populated && let Err(err) = cgroup.kill() {
                        tracing::warn!("{service}: cannot kill its cgroup: {err}");
                    }
                    self.entry_mut(&service).cgroup_worn |= populated;
                    populated
                }
                None if self.orphans.is_empty() => false,
                None => self.kill_orphans(&service).await?,
            };
            if !left {
                self.clearing.remove(&service);
                self.fact(&service, incarnation, Fact::Gone);
            }
        }
        Ok(())
    }

    /// Whether something that was killed must be looked at again.
    pub(super) fn is_clearing(&self) -> bool {
        !self.clearing.is_empty()
    }

    /// Without a cgroup: what the service left behind was adopted by the keeper. `true`: something is left.
    async fn kill_orphans(&mut self, service: &ServiceName) -> Result<bool, CoreError> {
        let left = self.left_of(service)?;
        for pid in &left {
            let signal = Signal::SIGKILL as i32;
            self.keeper
                .send(&ToKeeper::SignalOrphan { pid: *pid, signal }, &[])
                .await
                .map_err(CoreError::Keeper)?;
        }
        // The level behind the hints: who is adopted now, also what these leave behind in turn.
        self.keeper.send(&ToKeeper::Orphans, &[]).await.map_err(CoreError::Keeper)?;
        Ok(!left.is_empty())
    }

    /// The processes of a service that still live, its leader included.
    pub(super) fn left_of(&self, service: &ServiceName) -> Result<Vec<u32>, CoreError> {
        let pids = match self.members(service) {
            Members::InCgroup(cgroup) => cgroup.pids().unwrap_or_default(),
            members @ Members::Below { .. } => members.pids().map_err(CoreError::Proc)?,
        };
        Ok(pids.into_iter().map(i32::cast_unsigned).collect())
    }

    /// How its processes are found.
    pub(super) fn members(&self, service: &ServiceName) -> Members {
        match &self.entry(service).cgroup {
            Some(cgroup) => Members::InCgroup(cgroup.clone()),
            None => Members::Below {
                keeper: self.keeper_hello.pid.cast_signed(),
                core: std::process::id().cast_signed(),
                sessions: self.sessions_of_processes(),
                service: service.clone(),
            },
        }
    }

    /// The sessions of all leaders, also of those that just ended: the session's number is their pid.
    pub(super) fn sessions_of_processes(&self) -> ownership::Sessions {
        self.entries
            .iter()
            .filter_map(|(name, entry)| Some((entry.last_pid?.cast_signed(), name.clone())))
            .collect()
    }

    /// Sends a signal by way of the keeper, which alone knows that the pid is still the process.
    pub(super) async fn signal(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        signal: Signal,
        whom: Whom,
    ) -> Result<(), CoreError> {
        let signal = signal as i32;
        let message = ToKeeper::Signal { service: service.clone(), incarnation, signal, whom };
        self.keeper.send(&message, &[]).await.map_err(CoreError::Keeper)
    }

    /// After the keeper's end: sends a signal to all that is left of a service, itself.
    pub(super) fn signal_left(&self, service: &ServiceName, signal: Signal, whose: Whose) {
        if whose == Whose::Programs && self.entry(service).spec.kind() == Kind::Service {
            return;
        }
        for process in self.left_without_keeper(service) {
            // One that is gone needs no signal.
            let _ = process.signal(signal);
        }
    }

    /// After the keeper's end: something of the service lives.
    pub(super) fn is_left(&self, service: &ServiceName) -> bool {
        !self.left_without_keeper(service).is_empty()
    }

    fn left_without_keeper(&self, service: &ServiceName) -> Vec<Identity> {
        if let Some(cgroup) = &self.entry(service).cgroup {
            let pids = cgroup.pids().unwrap_or_default();
            return pids.into_iter().filter_map(|pid| Identity::of(pid).ok()).collect();
        }
        // Nobody is the keeper's child any more: its session and its environment tell whose a process is.
        let Ok(table) = ProcessTable::read() else { return Vec::new() };
        let sessions = self.sessions_of_processes();
        table
            .all()
            .filter(|process| !process.is_dead() && sessions.get(&process.session) == Some(service))
            .map(|process| process.identity)
            .collect()
    }
}

/// Whom a signal after the keeper's end is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Plain programs: an SDK service is asked over its session.
    Programs,
    All,
}
