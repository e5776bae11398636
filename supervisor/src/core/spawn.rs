//! How a start is performed: everything an incarnation is given, then the keeper's spawn request.
//!
//! In this order, so that a core killed at any point leaves something a new one can go on with: the note that says
//! *starting N* is written before (by the event loop), then the session is made and stored, its welcome
//! queued in it, then the keeper is asked. A new core that finds the note and no process asks again: the keeper
//! answers a repeat with what the first one came to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use watchdog_keeper::PidRecord;
use watchdog_keeper::protocol::{Attach, Child, ToKeeper};
use watchdog_lifecycle::{Fact, Refusal};
use watchdog_protocol::record::LOGGING;
use watchdog_protocol::session::{SESSION_VERSION, ToService, Welcome};
use watchdog_protocol::{Incarnation, ServiceName};
use watchdog_seqpacket::Seqpacket;

use super::launch::{self, NoLaunch, SESSION_NUMBER};
use super::session::Session;
use super::{Core, CoreError, stored};
use crate::capture;
use crate::config;
use crate::notify;
use crate::processes::leftovers;
use watchdog_lifecycle::Kind;

/// Why nothing was spawned.
enum NoSpawn {
    Refused(Refusal),
    Failed(NoLaunch),
    Core(CoreError),
}

impl From<NoLaunch> for NoSpawn {
    fn from(failed: NoLaunch) -> Self {
        Self::Failed(failed)
    }
}

impl From<CoreError> for NoSpawn {
    fn from(err: CoreError) -> Self {
        Self::Core(err)
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> NoSpawn {
    move |err| NoSpawn::Failed(NoLaunch { step, reason: err.to_string() })
}

impl Core {
    /// Performs `Spawn`. What fails before the keeper is asked becomes a fact like what fails there.
    pub(super) async fn spawn(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        if self.is_under_way(service, incarnation) {
            return Ok(());
        }
        let fact = match self.try_spawn(service, incarnation).await {
            Ok(()) => return Ok(()),
            Err(NoSpawn::Core(err)) => return Err(err),
            Err(NoSpawn::Refused(refusal)) => Fact::Refused(refusal),
            Err(NoSpawn::Failed(failed)) => {
                Fact::SpawnFailed { step: failed.step.to_owned(), reason: failed.reason }
            }
        };
        self.close_session(service, incarnation).await?;
        self.fact(service, incarnation, fact);
        Ok(())
    }

    /// A spawn may be commanded twice at a takeover, and must be performed once: a second session would be the end
    /// of the first one's, and so of the process that has it.
    fn is_under_way(&mut self, service: &ServiceName, incarnation: Incarnation) -> bool {
        let entry = self.entry_mut(service);
        if entry.spawning == Some(incarnation) {
            return true;
        }
        if entry.ending.as_ref().is_some_and(|ending| ending.incarnation() == incarnation) {
            return true;
        }
        if entry.process.as_ref().is_some_and(|process| process.incarnation == incarnation) {
            return true;
        }
        // The older core had asked the keeper, if somebody holds the service's end of the session it made: what came
        // of it is on its way. Else it was killed before it asked.
        let session = entry.session.as_ref().filter(|session| session.incarnation() == incarnation);
        let is_asked = session.is_some_and(|session| !session.is_deserted());
        if is_asked {
            entry.spawning = Some(incarnation);
        }
        is_asked
    }

    async fn try_spawn(&mut self, service: &ServiceName, incarnation: Incarnation) -> Result<(), NoSpawn> {
        self.take_next(service).await?;
        if let Some(reason) = self.unfit(service) {
            return Err(NoSpawn::Refused(Refusal::Configuration { reason }));
        }
        let built = config::built(&self.entry(service).spec.launch);
        self.entry_mut(service).built = built.unwrap_or(0);
        self.write_note(service)?;
        self.renew_cgroup(service).map_err(failed("cgroup"))?;
        self.move_dead_letters(service);
        self.make_outlets(service).await?;
        let given = self.given_limits(service);
        let prepared = self.prepare_limits(service, &given);
        let keeper_joins = self.keeper_joins();
        let entry = self.entry(service);
        let kind = entry.spec.kind();
        let notify = notify::address(self.keeper_hello.epoch, service);
        let is_there = self.entries.contains_key(LOGGING);
        let logging = launch::Logging { is_there, logs: &self.config.watchdog.logs };
        let mut request =
            launch::request(&entry.spec, incarnation, given, &prepared.rlimits, &notify, &logging)?;
        let record = self.pid_record(service).map_err(failed("pid record"))?;
        let session = match kind {
            Kind::Service => Some(self.open_session(service, incarnation).await?),
            Kind::Program => None,
        };
        let entry = self.entries.get_mut(service).expect("the roster and the entries hold the same names");
        let mut beside: Vec<BorrowedFd<'_>> = Vec::new();
        let mut attach = |what: Attach, fd| {
            request.descriptors.push(what);
            beside.push(fd);
        };
        let outlets = entry.outlets.as_ref().expect("made above");
        attach(Attach::Child(1), outlets.output.as_fd());
        attach(Attach::Child(2), outlets.errors.as_fd());
        attach(Attach::PidRecord, record.as_fd());
        if let Some(cgroup) = &entry.cgroup {
            attach(Attach::Cgroup, cgroup.folder().map_err(failed("cgroup"))?);
        }
        if keeper_joins {
            prepared.join.iter().for_each(|cgroup| attach(Attach::Join, cgroup.as_fd()));
        }
        if let Some(theirs) = &session {
            attach(Attach::Child(SESSION_NUMBER), theirs.as_fd());
        }
        entry.spawning = Some(incarnation);
        self.capture.starting(service, incarnation);
        self.keeper.send(&ToKeeper::Spawn(request), &beside).await.map_err(CoreError::Keeper)?;
        self.is_starting = true;
        Ok(())
    }

    /// A cgroup that was killed kills whatever is born into it from outside, on Linux 6.14 and later: the kernel
    /// compares the count of its kills with that of the cgroup the parent is in. A new folder has no count.
    fn renew_cgroup(&mut self, service: &ServiceName) -> io::Result<()> {
        let entry = self.entries.get_mut(service).expect("the roster and the entries hold the same names");
        let Some(tree) = &self.cgroups else { return Ok(()) };
        // Its counts are to be those of the next process.
        entry.cgroup_worn |= entry.cgroup.is_some() && self.limiting.means.oom_kills(service) > 0;
        if let Some(worn) = entry.cgroup.as_ref().filter(|_| entry.cgroup_worn) {
            worn.remove()?;
            entry.cgroup = None;
        }
        if entry.cgroup.is_none() {
            entry.cgroup = Some(tree.service(service)?);
            entry.cgroup_worn = false;
        }
        Ok(())
    }

    /// The pipes of its output, kept by the keeper before anything is written to them.
    async fn make_outlets(&mut self, service: &ServiceName) -> Result<(), NoSpawn> {
        if self.entry(service).outlets.is_some() {
            return Ok(());
        }
        let pipes = capture::pipes().map_err(failed("log pipes"))?;
        let message = ToKeeper::Store { name: stored::pipes(service) };
        let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
        self.keeper.send(&message, &fds).await.map_err(CoreError::Keeper)?;
        self.capture.first(service);
        let outlets = self.capture_from(service, pipes);
        self.entry_mut(service).outlets = Some(outlets);
        Ok(())
    }

    /// A session with its welcome queued in it. Returns the service's end.
    async fn open_session(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<Seqpacket, NoSpawn> {
        let mut beside = Vec::new();
        let welcome = self.welcome(service, incarnation, &mut beside)?;
        let (ours, theirs) = Seqpacket::pair().map_err(failed("session"))?;
        let name = stored::session(service, incarnation);
        self.keeper.send(&ToKeeper::Store { name }, &[ours.as_fd()]).await.map_err(CoreError::Keeper)?;
        let session =
            Session::open(service.clone(), incarnation, ours, &mut self.tasks, self.from_sessions.clone())
                .map_err(failed("session"))?;
        let unread = |_| unreachable!("a new session's outbox is empty");
        session.send(&ToService::Welcome(welcome), beside).unwrap_or_else(unread);
        self.entry_mut(service).session = Some(session);
        Ok(theirs)
    }

    fn welcome(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        beside: &mut Vec<OwnedFd>,
    ) -> Result<Welcome, NoSpawn> {
        let settings = self.initial_settings(service, incarnation, beside).map_err(NoSpawn::Refused)?;
        let state = self.initial_state(service, incarnation, beside).map_err(NoSpawn::Refused)?;
        let spec = &self.entry(service).spec;
        let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Ok(Welcome {
            version: SESSION_VERSION,
            service: service.clone(),
            incarnation,
            stop_timeout_ms: millis(spec.policy.stop_timeout),
            max_message: self.config.watchdog.max_message as u64,
            lane_bytes: watchdog_protocol::limits::DEFAULT_LANE_BYTES as u64,
            heartbeat_ms: match spec.policy.liveness {
                watchdog_lifecycle::Liveness::Heartbeat { interval } => Some(millis(interval)),
                watchdog_lifecycle::Liveness::Unwatched | watchdog_lifecycle::Liveness::Probe { .. } => None,
            },
            settings,
            state,
            grant: spec.control.iter().map(ToString::to_string).collect(),
        })
    }

    /// The file in which the child leaves its pid before it runs its program.
    fn pid_record(&self, service: &ServiceName) -> io::Result<File> {
        let path = leftovers::pid_file(&self.config.watchdog.runtime, service);
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    /// The pid record of a process that took the place of the one that wrote it.
    pub(super) fn write_adopted(&self, child: &Child) {
        let Child { service, incarnation, pid, start_time } = child;
        let record = PidRecord { incarnation: *incarnation, pid: *pid, start_time: *start_time };
        let path = leftovers::pid_file(&self.config.watchdog.runtime, service);
        if let Err(err) = std::fs::write(&path, record.to_bytes()) {
            tracing::warn!("{service}: cannot write {}: {err}", path.display());
        }
    }

    /// Ends the session of this process: the keeper's copy goes too. An end that is told once more, because the
    /// core that took note of it was killed, leaves the next process's alone.
    pub(super) async fn close_session(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        let session = &mut self.entry_mut(service).session;
        if session.take_if(|session| session.incarnation() == incarnation).is_some() {
            let name = stored::session(service, incarnation);
            self.keeper.send(&ToKeeper::Drop { name }, &[]).await.map_err(CoreError::Keeper)?;
        }
        Ok(())
    }
}
