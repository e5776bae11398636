//! State, performed: what the [`StateSaver`] decides is written, answered and shown.

mod value;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use watchdog_lifecycle::Kind;
use watchdog_lifecycle::Refusal;
use watchdog_lifecycle::phase::Phase;
use watchdog_lifecycle::state::{Received, Snapshot, StateSaver};
use watchdog_protocol::control::{Failure, FailureKind, Outcome, StateView};
use watchdog_protocol::session::{Content, StateOrigin, Stored, ToService, Urgency};
use watchdog_protocol::status::StateStatus;
use watchdog_protocol::{Incarnation, Sequence, ServiceName};

use super::events::Entry as Logged;
use super::session::content;
use super::verbs::Asked;
use super::waiting::{Target, end};
use super::{Core, chain, now};
use crate::store::envelope::{self, Envelope};
use crate::store::snapshot;
use crate::store::writer::{ChangeNumber, Done, Found};

/// One service's state.
#[derive(Debug)]
pub(super) struct State {
    /// `Err`: what is on disk can't be used, and nothing may be overwritten.
    saver: Result<Box<StateSaver>, String>,
    /// The newest version its program can read.
    pub(super) known: u32,
    /// The write on its way.
    writing: Option<(ChangeNumber, OnDisk)>,
    /// What is on disk.
    on_disk: Option<OnDisk>,
}

/// What is known of a state on disk, without its content.
#[derive(Debug, Clone, Copy)]
struct OnDisk {
    version: u32,
    incarnation: Incarnation,
    sequence: Sequence,
    bytes: u64,
    written: Option<SystemTime>,
}

impl OnDisk {
    /// `None`: when it was written can't be told.
    fn age_ms(&self) -> Option<u64> {
        let age = self.written?.elapsed().ok()?;
        u64::try_from(age.as_millis()).ok()
    }
}

impl State {
    /// A process of the service went on through a change of cores.
    pub(super) fn resumed(&mut self, incarnation: Incarnation) {
        if let Ok(saver) = &mut self.saver {
            saver.started(incarnation);
        }
    }

    /// How far the disk may be behind, from the next update on.
    pub(super) fn set_interval(&mut self, interval: std::time::Duration) {
        if let Ok(saver) = &mut self.saver {
            saver.set_interval(interval);
        }
    }

    /// The process that wrote the newest.
    pub(super) fn last_incarnation(&self) -> Incarnation {
        self.saver.as_ref().map_or(Incarnation::NONE, |saver| saver.newest().incarnation)
    }
}

impl Core {
    pub(super) fn state_path(&self, service: &ServiceName) -> PathBuf {
        snapshot::path(&self.config.watchdog.state, service)
    }

    /// Finds a service's state on disk; `None` when it has none.
    pub(super) fn load_state(&mut self, service: &ServiceName) -> Option<State> {
        let entry = self.entry(service);
        let manifest = entry.manifest.as_ref()?.state.clone()?;
        let fresh = StateSaver::new(manifest.version, manifest.initial, entry.spec.save_interval);
        let folder = self.config.watchdog.state.clone();
        let mut on_disk = None;
        // Whether a version is too new is the program's to say: it may have been built anew since it described itself.
        let saver = match snapshot::load(&mut self.store, &folder, service, u32::MAX) {
            Ok(found) => {
                for aside in found.loaded.set_aside() {
                    let text = format!(
                        "a state file is damaged ({}) and was set aside as {}",
                        aside.damage,
                        aside.now.display()
                    );
                    self.events.add(Logged::of(service, "state", text).because("state"));
                }
                on_disk = found.loaded.peek().map(|state| OnDisk {
                    version: state.version,
                    incarnation: state.incarnation,
                    sequence: state.sequence,
                    bytes: state.content.len() as u64,
                    written: found.written,
                });
                Ok(Box::new(self.found(service, fresh, found)))
            }
            Err(err) => {
                let text = format!("its state can't be used, and is left as it is: {}", chain(&err));
                self.events.add(Logged::of(service, "state", text).because("state"));
                Err(chain(&err))
            }
        };
        Some(State { saver, known: manifest.version, writing: None, on_disk })
    }

    fn found(
        &mut self,
        service: &ServiceName,
        fresh: StateSaver,
        found: Found<snapshot::Snapshot>,
    ) -> StateSaver {
        let origin = found.loaded.origin();
        let is_durable = found.is_durable;
        let Some(found) = found.loaded.content() else { return fresh };
        let found = Snapshot {
            incarnation: found.incarnation,
            sequence: found.sequence,
            version: found.version,
            content: found.content.into(),
        };
        if origin == StateOrigin::Recovered {
            let text = format!(
                "the newest state was damaged: recovered the one before, sequence {}",
                found.sequence
            );
            self.events.add(Logged::of(service, "state", text).because("state"));
        }
        if is_durable { fresh.found(found, origin) } else { fresh.found_unsynced(found, origin, now()) }
    }

    /// What an incarnation starts with.
    pub(super) fn initial_state(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        beside: &mut Vec<OwnedFd>,
    ) -> Result<Option<Stored>, Refusal> {
        let Some(state) = &mut self.entry_mut(service).state else { return Ok(None) };
        let saver = state.saver.as_mut().map_err(|reason| Refusal::State { reason: reason.clone() })?;
        let handler = saver.handler();
        let found = handler.snapshot;
        saver.started(incarnation);
        let bytes = if handler.origin == StateOrigin::Fresh { Vec::new() } else { found.content.to_vec() };
        let content = content(bytes, beside)
            .map_err(|err| Refusal::State { reason: format!("it can't be handed over: {err}") })?;
        Ok(Some(Stored { origin: handler.origin, sequence: found.sequence, version: found.version, content }))
    }

    /// The service sent its newest state.
    pub(super) fn state_update(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        (sequence, version): (Sequence, u32),
        urgency: Urgency,
        content: Content,
    ) {
        let Content::Inline(bytes) = content else {
            unreachable!("the session's task reads what lies beside")
        };
        let most = self.config.watchdog.max_message;
        let Some(state) = &mut self.entry_mut(service).state else {
            return self.broken(service, incarnation, "it sent a state, and described none".to_owned());
        };
        if bytes.len() > most {
            let reason =
                format!("its state has {} bytes, at most {most} are kept (max_message)", bytes.len());
            return self.tell(service, &ToService::StateFailed { sequence, reason }, Vec::new());
        }
        let Ok(saver) = &mut state.saver else { return };
        let update = Snapshot { incarnation, sequence, version, content: bytes.into() };
        match saver.update(update, urgency, now()) {
            Ok(Received::Newest | Received::Again) => {
                let is_being_written = self.save_state(service) == Some(sequence);
                // To be told twice wakes the service once more than it needs, just when the disk is to be asked.
                if urgency != Urgency::Now || !is_being_written {
                    self.tell(service, &ToService::StateReceived { sequence }, Vec::new());
                }
            }
            Ok(Received::Synced) => {
                let sequence = saver.synced_sequence();
                self.tell(service, &ToService::StateSynced { sequence }, Vec::new());
            }
            Err(err) => self.broken(service, incarnation, err.to_string()),
        }
    }

    /// Gives the newest to the disk, if it is time. Says which it gave.
    fn save_state(&mut self, service: &ServiceName) -> Option<Sequence> {
        let path = self.state_path(service);
        let entry = self.entries.get_mut(service).expect("the caller looked it up");
        let Some(State { saver: Ok(saver), writing, .. }) = entry.state.as_deref_mut() else { return None };
        let newest = saver.write(now())?;
        let on_its_way = OnDisk {
            version: newest.version,
            incarnation: newest.incarnation,
            sequence: newest.sequence,
            bytes: newest.content.len() as u64,
            written: None,
        };
        *writing = Some((self.store.put(&path, file_of(&newest)), on_its_way));
        Some(newest.sequence)
    }

    pub(super) fn save_due_states(&mut self) {
        let present = now();
        let due = |saver: &StateSaver| saver.next_deadline().is_some_and(|at| at <= present);
        let services: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state.as_deref(), Some(State { saver: Ok(saver), .. }) if due(saver)))
            .map(|(name, _)| name.clone())
            .collect();
        for service in services {
            self.save_state(&service);
        }
    }

    pub(super) fn next_state_due(&self) -> Option<watchdog_lifecycle::Moment> {
        let due = |entry: &super::Entry| match entry.state.as_deref() {
            Some(State { saver: Ok(saver), .. }) => saver.next_deadline(),
            _ => None,
        };
        self.entries.values().filter_map(|entry| due(entry)).min()
    }

    /// The incarnation ended: what is not on disk goes there now, and all of it to a file of its own.
    pub(super) fn save_last_state(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if let Some(State { saver: Ok(saver), .. }) = self.entry_mut(service).state.as_deref_mut() {
            saver.ended(incarnation);
        }
        self.save_state(service);
    }

    /// Nothing of the service is to start: what the journal has of it goes to its files.
    pub(super) fn settle_files(&mut self, service: &ServiceName) {
        for path in [self.state_path(service), self.settings_path(service), self.wanted_path(service)] {
            self.store.settle(&path);
        }
    }

    /// Its last state is on its way to its file.
    pub(super) fn is_settling(&self, service: &ServiceName) -> bool {
        self.store.is_busy(&self.state_path(service))
    }

    /// A write of the store ended: `true` when it was of a state.
    pub(super) fn state_stored(&mut self, done: &Done) -> bool {
        let folder = &self.config.watchdog.state;
        let Some(service) = snapshot::service_of(folder, &done.path) else { return false };
        let Some(entry) = self.entries.get_mut(&service) else { return true };
        let Some(State { saver: Ok(saver), writing, on_disk, .. }) = entry.state.as_deref_mut() else {
            return true;
        };
        let Some((_, written)) = writing.take_if(|(change, _)| *change <= done.up_to) else { return true };
        let sequence = written.sequence;
        let answer = match &done.outcome {
            Ok(()) => {
                *on_disk = Some(OnDisk { written: Some(SystemTime::now()), ..written });
                saver.synced(sequence, now());
                ToService::StateSynced { sequence }
            }
            Err(err) => {
                let reason = chain(err);
                saver.failed(reason.clone(), now());
                let text = format!("state {sequence} could not be saved, it is tried again: {reason}");
                self.events.add(Logged::of(&service, "state", text).because("state"));
                ToService::StateFailed { sequence, reason }
            }
        };
        self.tell(&service, &answer, Vec::new());
        if self.save_state(&service).is_none() && self.rests(&service) {
            self.store.leave_nothing_over(&done.path);
        }
        true
    }

    pub(super) fn state_status(&self, service: &ServiceName) -> Option<StateStatus> {
        let state = self.entry(service).state.as_ref()?;
        Some(match &state.saver {
            Ok(saver) => StateStatus {
                sequence: saver.newest().sequence,
                synced: saver.synced_sequence(),
                version: saver.newest().version,
                bytes: saver.newest().content.len() as u64,
                age_ms: state.on_disk.as_ref().and_then(OnDisk::age_ms),
                failed: saver.failure().map(str::to_owned),
            },
            Err(reason) => StateStatus {
                sequence: Sequence::NONE,
                synced: Sequence::NONE,
                version: 0,
                bytes: 0,
                age_ms: None,
                failed: Some(reason.clone()),
            },
        })
    }

    fn has_state(&self, service: &ServiceName) -> Result<&State, Failure> {
        let entry = self.entry(service);
        let why = match entry.spec.kind() {
            Kind::Program => "it is a plain program: only what is built on the SDK has a state",
            Kind::Service => "its program's state type is ()",
        };
        let none = || Failure::new(FailureKind::Usage, format!("{service} has no state")).hint(why);
        entry.state.as_deref().ok_or_else(none)
    }

    /// Which version of its state is stored; `None`: none is.
    pub(super) fn stored_version(&self, service: &ServiceName) -> Option<u32> {
        let state = self.entry(service).state.as_ref()?;
        match (&state.on_disk, &state.writing) {
            (_, Some((_, on_its_way))) => Some(on_its_way.version),
            (on_disk, None) => on_disk.as_ref().map(|on_disk| on_disk.version),
        }
    }

    pub(super) fn state_show(&self, asked: &Asked, service: &ServiceName) {
        end(
            &asked.replies,
            self.has_state(service).and_then(|state| self.state_view(service, state)).map(Outcome::State),
        );
    }

    fn state_view(&self, service: &ServiceName, state: &State) -> Result<StateView, Failure> {
        let path = self.state_path(service);
        let Ok(saver) = &state.saver else { return unusable(&path) };
        let Some(on_disk) = &state.on_disk else {
            let message = format!("{service} has no state on disk yet");
            let hint = "it has its initial state until it changes it";
            return Err(Failure::new(FailureKind::Failed, message).hint(hint));
        };
        Ok(StateView {
            file: self.store.where_is(&path).display().to_string(),
            version: on_disk.version,
            incarnation: on_disk.incarnation.get(),
            sequence: on_disk.sequence,
            bytes: on_disk.bytes,
            age_ms: on_disk.age_ms().unwrap_or(0),
            newest: saver.newest().sequence,
        })
    }

    /// The newest known, as a state file.
    pub(super) fn state_export(&self, asked: &Asked, service: &ServiceName) {
        let exported = self.has_state(service).and_then(|state| match &state.saver {
            Ok(saver) => Ok(Outcome::Snapshot(file_of(saver.newest()).encode())),
            // It can't be used here, and is what somebody may want to look at elsewhere.
            Err(_) => std::fs::read(self.state_path(service))
                .map(Outcome::Snapshot)
                .map_err(|err| Failure::new(FailureKind::Failed, format!("{service}: {err}"))),
        });
        end(&asked.replies, exported);
    }

    /// Nothing of the service lives, nor will before somebody asks for it.
    pub(super) fn rests(&self, service: &ServiceName) -> bool {
        let phase = self.roster.get(service).map(watchdog_lifecycle::Service::phase);
        matches!(phase, Some(Phase::Stopped { .. } | Phase::Failed { .. } | Phase::Completed { .. }))
    }

    /// It [rests](Self::rests), or the failure says what it does.
    fn is_stopped(&self, service: &ServiceName) -> Result<(), Failure> {
        match self.roster.get(service).map(watchdog_lifecycle::Service::phase) {
            Some(_) if self.rests(service) => Ok(()),
            Some(phase) => {
                let message =
                    format!("{service} is {}; its state is changed only while it is stopped", phase.as_str());
                Err(Failure::new(FailureKind::Failed, message).hint(format!("watchdog stop {service}")))
            }
            None => Err(Failure::new(FailureKind::Failed, format!("{service} was unregistered"))),
        }
    }

    pub(super) fn state_import(&mut self, asked: Asked, service: &ServiceName, bytes: &[u8]) {
        if let Err(failure) = self.try_import(&asked, service, bytes) {
            return end(&asked.replies, Err(failure));
        }
        let durable = self.state_change(service);
        let answer = Outcome::Done(format!("{service} starts from the imported state"));
        self.wait_for(asked, Target::Durable { answer }, durable);
    }

    fn try_import(&mut self, asked: &Asked, service: &ServiceName, bytes: &[u8]) -> Result<(), Failure> {
        let known = self.has_state(service)?.known;
        self.is_stopped(service)?;
        let wrong = |text: String| {
            Failure::new(FailureKind::Failed, format!("{service}: nothing was imported: {text}"))
        };
        let found =
            snapshot::decode(bytes).map_err(|damage| wrong(format!("no whole state file: {damage}")))?;
        if found.version > known {
            return Err(wrong(format!(
                "the state has version {}, the program knows up to {known}",
                found.version
            )));
        }
        let (version, sequence) = (found.version, found.sequence);
        let Some(state) = &mut self.entry_mut(service).state else { return Ok(()) };
        if state.saver.is_err() {
            return Err(wrong("the state on disk can't be used and is not overwritten".to_owned())
                .hint(format!("watchdog state reset {service} sets it aside")));
        }
        if let Ok(saver) = &mut state.saver {
            saver.import(version, found.content);
        }
        let text = format!("state imported by {} (version {version}, was sequence {sequence})", asked.by);
        self.events.add(Logged::of(service, "state", text));
        self.save_state(service);
        Ok(())
    }

    /// The write on its way, to wait for.
    fn state_change(&self, service: &ServiceName) -> Vec<(PathBuf, ChangeNumber)> {
        let writing = self.entry(service).state.as_ref().and_then(|state| state.writing);
        writing.map(|(change, _)| (self.state_path(service), change)).into_iter().collect()
    }

    pub(super) fn state_reset(&mut self, asked: &Asked, service: &ServiceName) {
        end(&asked.replies, self.try_reset(asked, service));
    }

    fn try_reset(&mut self, asked: &Asked, service: &ServiceName) -> Result<Outcome, Failure> {
        self.has_state(service)?;
        self.is_stopped(service)?;
        if self.is_settling(service) {
            let message = format!("{service}: its last state is still being written");
            return Err(Failure::new(FailureKind::TryAgain, message));
        }
        if self.store.is_unsettled(&self.state_path(service)) {
            let message = format!("{service}: its last state could not be written to its file, and is kept");
            return Err(Failure::new(FailureKind::Failed, message).hint("watchdog events -n 20 tells why"));
        }
        snapshot::reset(&self.config.watchdog.state, service)
            .map_err(|err| Failure::new(FailureKind::Failed, format!("{service}: {}", chain(&err))))?;
        self.events.add(Logged::of(service, "state", format!("state reset by {}", asked.by)));
        let state = self.load_state(service);
        self.entry_mut(service).state = state.map(Box::new);
        Ok(Outcome::Done(format!("{service} starts from its initial state; the old one was set aside")))
    }
}

/// A state file.
fn file_of(state: &Snapshot) -> Envelope {
    let Snapshot { incarnation, sequence, version, content } = state;
    Envelope {
        kind: envelope::Kind::State,
        version: *version,
        incarnation: *incarnation,
        sequence: *sequence,
        content: Arc::clone(content),
    }
}

/// What a file that can't be used says of itself, or why it says nothing.
fn unusable(path: &Path) -> Result<StateView, Failure> {
    match snapshot::describe(path) {
        Ok(Some(found)) => Ok(StateView {
            file: path.display().to_string(),
            version: found.header.version,
            incarnation: found.header.incarnation.get(),
            sequence: found.header.sequence,
            bytes: found.header.length,
            age_ms: found
                .written
                .elapsed()
                .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            newest: Sequence::NONE,
        }),
        Ok(None) => {
            Err(Failure::new(FailureKind::Failed, format!("there is no state at {}", path.display())))
        }
        Err(err) => Err(Failure::new(FailureKind::Failed, chain(&err))),
    }
}
