//! The loop: one input at a time, decided on, noted, performed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;
use watchdog_keeper::protocol::{FromKeeper, ToKeeper, Whom};
use watchdog_lifecycle::{
    Chance, Command, Event, Fact, Haste, Kind, Liveness, Occurrence, Purpose, ServiceCommand, Wanted,
};
use watchdog_protocol::control::{Failure, FailureKind};
use watchdog_protocol::session::ToService;
use watchdog_protocol::{Incarnation, LaneEpoch, ServiceName};

use super::candidate::Candidate;
use super::control::{ControlCall, Hours};
use super::events::Entry as Logged;
use super::exits::LOOK;
use super::note::Noted;
use super::registration::{Described, next_described};
use super::reload::Worked;
use super::session::FromSession;
use super::upgrade::Leave;
use super::words::Said;
use super::{Core, CoreError, Shutdown, chain, limits, now};
use crate::capture::{Sign, SignOf};
use crate::config::LogSigns;
use crate::notify::Notified;
use crate::probe::Heard;
use crate::store::record;
use crate::store::writer::{ChangeNumber, Done, Ended};

/// Where inputs come from, apart from the keeper and the store, which the core asks itself.
pub(super) struct Inputs {
    pub(super) sessions: mpsc::Receiver<FromSession>,
    pub(super) notifications: mpsc::Receiver<Notified>,
    pub(super) signs: mpsc::Receiver<Sign>,
    pub(super) calls: mpsc::Receiver<ControlCall>,
    pub(super) said: Said,
}

/// Facts decided on before the next input. An end and the start after it are a handful; a start that fails at once,
/// and is tried again at once as it was configured, never ends, and must not make the core deaf.
const FACTS_A_TURN: usize = 32;

/// Messages of the keeper taken in one turn, if they are there: others have to say something too.
const MESSAGES_A_TURN: usize = 16;

/// How long a turn that asked for a start may leave undone what is owed after it.
const DEBT: Duration = Duration::from_millis(1);

enum Input {
    Keeper(FromKeeper),
    Session(FromSession),
    Call(ControlCall),
    Notified(Notified),
    Sign(Sign),
    Stored(Ended),
    /// The audit's file was given what it lacked, or could not, and why.
    Audited(Option<String>),
    Probe(Heard),
    Described(Box<Described>),
    Candidate(Result<Candidate, Failure>),
    Reload(Box<Worked>),
    /// Limits were put in force, or a service stands still.
    Limiting(limits::Worked),
    /// Something was sent back to the operator on this lane.
    Answer(LaneEpoch),
    /// This core said something that is to be remembered.
    Said(Box<Logged>),
    Timer,
    /// Nothing came, and facts are left to decide on.
    Facts,
}

/// Why the loop ended.
pub(super) enum End {
    /// Everything is stopped: the exit code of the whole watchdog.
    Finished(u8),
    /// Another build takes over.
    Replaced(Leave),
}

impl Core {
    /// Until everything is stopped, or until another build is to take over.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) -> Result<End, CoreError> {
        loop {
            self.settle().await?;
            self.join_ended();
            if self.is_finished() {
                return Ok(End::Finished(0));
            }
            if let Some(leave) = self.upgrade.due() {
                return Ok(End::Replaced(leave));
            }
            let input = self.next_input(inputs).await?;
            self.take(input).await?;
        }
    }

    async fn next_input(&mut self, inputs: &mut Inputs) -> Result<Input, CoreError> {
        let wake = self.next_wake();
        tokio::select! {
            // Whoever has something to say has the same chance: a service that dies all the time makes neither the
            // others nor an operator wait.
            message = self.keeper.next() => Ok(Input::Keeper(message.map_err(CoreError::Keeper)?)),
            Some(told) = inputs.sessions.recv() => Ok(Input::Session(told)),
            Some(notified) = inputs.notifications.recv() => Ok(Input::Notified(notified)),
            Some(sign) = inputs.signs.recv() => Ok(Input::Sign(sign)),
            ended = self.store.ended() => Ok(Input::Stored(ended)),
            failed = self.audit.copied() => Ok(Input::Audited(failed)),
            heard = self.probes.heard() => Ok(Input::Probe(heard)),
            described = next_described(&mut self.describing) => Ok(Input::Described(Box::new(described))),
            lane = self.answers.arrived() => Ok(Input::Answer(lane)),
            candidate = self.upgrade.answered() => Ok(Input::Candidate(candidate)),
            worked = self.reloads.worked() => Ok(Input::Reload(Box::new(worked))),
            worked = self.limiting.worked() => Ok(Input::Limiting(worked)),
            Some(call) = inputs.calls.recv() => Ok(Input::Call(call)),
            entry = inputs.said.next() => Ok(Input::Said(Box::new(entry))),
            // Not at once: until this task waits, no socket is looked at and no other task runs.
            () = tokio::task::yield_now(), if !self.pending.is_empty() => Ok(Input::Facts),
            () = tokio::time::sleep_until(wake) => Ok(Input::Timer),
        }
    }

    /// Lets go of tasks that have ended: a session each, an answer to an operator.
    fn join_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the core failed");
            }
        }
    }

    async fn take(&mut self, input: Input) -> Result<(), CoreError> {
        self.look_at_clock().await?;
        match input {
            Input::Keeper(message) => self.keeper_says(message).await,
            Input::Session(told) => self.session_said(told).await,
            Input::Call(call) => {
                self.call(call).await?;
                // Whoever is answered finds in the log what was done.
                self.events.write_out();
                Ok(())
            }
            Input::Notified(notified) => self.notified(notified).await,
            Input::Sign(sign) => {
                let fact = match sign.of {
                    SignOf::Ready => Fact::Ready,
                    SignOf::Alive => Fact::Heartbeat,
                };
                self.fact(&sign.service, sign.incarnation, fact);
                Ok(())
            }
            Input::Stored(ended) => {
                self.store_said(ended);
                Ok(())
            }
            Input::Audited(failed) => {
                self.audit_copied(failed);
                Ok(())
            }
            Input::Probe(heard) => {
                self.heard(&heard);
                Ok(())
            }
            Input::Described(described) => self.described(*described).await,
            Input::Candidate(candidate) => {
                self.upgrade.heard(candidate);
                Ok(())
            }
            Input::Reload(worked) => self.reload_worked(*worked).await,
            Input::Limiting(worked) => {
                self.limiting_worked(worked);
                Ok(())
            }
            Input::Answer(lane) => self.take_answers(lane).await,
            Input::Said(entry) => {
                self.events.add(*entry);
                Ok(())
            }
            Input::Facts => Ok(()),
            Input::Timer => {
                let commands = self.roster.tick(now(), self.chance());
                self.perform_all(commands).await?;
                self.look_at_clearing().await?;
                self.save_due_states();
                self.slack.give_back(Instant::now());
                Ok(())
            }
        }
    }

    /// What the keeper says, and what it has said behind that. The ends of many at once, as at a shutdown, are
    /// decided on one after the other all the same; what is owed after a turn is done once for all of them.
    async fn keeper_says(&mut self, message: FromKeeper) -> Result<(), CoreError> {
        self.keeper_said(message).await?;
        for _ in 1..MESSAGES_A_TURN {
            self.decide().await?;
            if self.is_starting || !self.pending.is_empty() || self.shutdown_asked.is_some() {
                break;
            }
            let Some(message) = self.keeper.try_next().map_err(CoreError::Keeper)? else { break };
            self.keeper_said(message).await?;
        }
        Ok(())
    }

    /// When to wake if nothing happens.
    fn next_wake(&self) -> Instant {
        let present = now();
        let in_time = |at: watchdog_lifecycle::Moment| Instant::now() + at.since(present);
        let far = Instant::now() + Duration::from_secs(3600);
        [
            self.roster.next_deadline().map(in_time),
            self.is_clearing().then(|| Instant::now() + LOOK),
            self.is_in_debt().then(|| Instant::now() + DEBT),
            self.next_state_due().map(in_time),
            self.next_waiter_due().map(in_time),
            self.audit.next_due().map(in_time),
            self.slack.due(),
        ]
        .into_iter()
        .flatten()
        .fold(far, Instant::min)
    }

    /// Decides on facts until performing brings up no further one, or for a turn. Then what is owed after the notes.
    pub(super) async fn settle(&mut self) -> Result<(), CoreError> {
        if let Some(haste) = self.shutdown_asked.take() {
            let commands = self.roster.shutdown(haste, now(), self.chance());
            self.perform_all(commands).await?;
        }
        self.decide().await?;
        if std::mem::take(&mut self.is_starting) {
            // The kernel wakes the keeper on this core's processor, sure that this core is about to sleep: a start
            // would wait for all that follows. It waits for the next turn instead, which `Spawned` brings.
            return Ok(());
        }
        self.events.write_out();
        for (service, incarnation) in std::mem::take(&mut self.acknowledge) {
            let message = ToKeeper::AckExit { service, incarnation };
            self.keeper.send(&message, &[]).await.map_err(CoreError::Keeper)?;
        }
        self.look_at_reload().await?;
        self.answer_waiters();
        self.keep_audit();
        Ok(())
    }

    /// What ended is on its way to the disk, and answered once it is there.
    pub(super) fn keep_audit(&mut self) {
        if let Some(content) = self.audit.take_in() {
            let number = self.store.put(self.audit.recent(), content);
            self.audit.was_put(number);
        }
        self.audit.go_on();
    }

    fn audit_copied(&mut self, failed: Option<String>) {
        if let Some(reason) = failed {
            self.events.add(Logged::new("disk", format!("the audit: {reason}")));
        }
    }

    /// Decides on facts until performing brings up no further one, or for a turn.
    pub(super) async fn decide(&mut self) -> Result<(), CoreError> {
        for _ in 0..FACTS_A_TURN {
            let Some((service, event)) = self.pending.pop_front() else { break };
            let says = matches!(event, Event::Fact { fact: Fact::Says(_) | Fact::MainIs(_), .. });
            let commands = self.roster.step(&service, event, now(), self.chance());
            if says {
                // Nothing is to be done about it, and the next core should know it.
                self.write_note(&service)?;
            }
            self.perform_all(commands).await?;
        }
        Ok(())
    }

    /// A turn ended before what it owed was done.
    fn is_in_debt(&self) -> bool {
        self.events.has_unwritten() || !self.acknowledge.is_empty()
    }

    pub(super) fn chance(&self) -> Chance {
        Chance::from_bits(fastrand::u64(..))
    }

    /// Notes first: a core that takes over from here must know what this one set out to do.
    pub(super) async fn perform_all(&mut self, commands: Vec<ServiceCommand>) -> Result<(), CoreError> {
        self.note_all(&commands)?;
        for (service, command) in commands {
            self.perform(&service, command).await?;
        }
        self.capture.begin();
        Ok(())
    }

    /// Notes what was decided.
    pub(super) fn note_all(&mut self, commands: &[ServiceCommand]) -> Result<(), CoreError> {
        // Before those of the members: a failure that is told again is known, one that was forgotten is not.
        self.write_groups()?;
        let mut noted: Option<&ServiceName> = None;
        for (service, _) in commands {
            if noted != Some(service) {
                self.write_note(service)?;
                self.keep_wanted(service);
                noted = Some(service);
            }
        }
        Ok(())
    }

    async fn perform(&mut self, service: &ServiceName, command: Command) -> Result<(), CoreError> {
        match command {
            Command::Spawn { incarnation } => self.spawn(service, incarnation).await,
            Command::AskStop { incarnation } => self.ask_stop(service, incarnation).await,
            Command::KillAll { incarnation } => self.kill_all(service, incarnation).await,
            Command::NameSurvivors { incarnation } => self.name_survivors(service, incarnation).await,
            Command::StartProbe { incarnation, purpose } => {
                self.start_probe(service, incarnation, purpose);
                Ok(())
            }
            Command::StopProbe { incarnation } => {
                self.probes.stop(service, incarnation);
                Ok(())
            }
            Command::LookAtHost { incarnation } => {
                self.look_at_host(service, incarnation);
                Ok(())
            }
            Command::Log(occurrence) => {
                self.add_event(service, &occurrence);
                if let Occurrence::Ended(end) = occurrence {
                    self.save_last_state(service, end.incarnation);
                }
                if self.rests(service) {
                    self.settle_files(service);
                }
                Ok(())
            }
        }
    }

    async fn ask_stop(&mut self, service: &ServiceName, incarnation: Incarnation) -> Result<(), CoreError> {
        self.thaw_to_end(service);
        if self.entry(service).spec.kind() == Kind::Service {
            self.tell(service, &ToService::Stop, Vec::new());
        } else {
            let signal = self.entry(service).spec.stop_signal;
            self.signal(service, incarnation, signal, Whom::Group).await?;
        }
        // One that was stopped sees neither event nor signal until it goes on.
        self.signal(service, incarnation, Signal::SIGCONT, Whom::Group).await
    }

    pub(super) fn add_event(&mut self, service: &ServiceName, occurrence: &Occurrence) {
        self.events.add(Logged::that(service, occurrence));
    }

    /// What a new core must know of a service, into memory that the keeper holds.
    pub(super) fn write_note(&mut self, service: &ServiceName) -> Result<(), CoreError> {
        let Some(record) = self.roster.get(service) else { return Ok(()) };
        let Some(entry) = self.entries.get_mut(service) else { return Ok(()) };
        let noted = Noted { service: record, built: entry.built };
        entry.note.write(&noted).map_err(|source| CoreError::Note { service: service.clone(), source })
    }

    fn write_groups(&mut self) -> Result<(), CoreError> {
        let groups: BTreeMap<_, _> = self.roster.groups().map(|(name, _, group)| (name, group)).collect();
        if groups.is_empty() {
            return Ok(());
        }
        self.groups_note.write(&groups).map_err(|source| CoreError::GroupsNote { source })
    }

    /// What the operator wants outlives a restart of the watchdog; so does the number of the newest process.
    fn keep_wanted(&mut self, service: &ServiceName) {
        let Some(record) = self.roster.get(service) else { return };
        let path = self.wanted_path(service);
        let kept = super::Kept { wanted: record.wanted().clone(), incarnation: record.incarnation() };
        let Some(entry) = self.entries.get_mut(service) else { return };
        // One that is removed: nobody wanted it down.
        if entry.leaving || entry.kept.as_ref() == Some(&kept) {
            return;
        }
        let wanted_changed = entry.kept.as_ref().is_none_or(|before| before.wanted != kept.wanted);
        let was_up = entry.kept.as_ref().is_none_or(|before| before.wanted == Wanted::Up);
        // A service that is wanted up and never was anything else needs no file to say so; nor is a crash loop
        // worth a write for each of its processes.
        if wanted_changed && !(was_up && kept.wanted == Wanted::Up) {
            entry.kept_change = Some(self.store.put(&path, record::envelope(&kept)));
        }
        entry.kept = Some(kept);
    }

    /// The keeper was asked to end: in good order, and at once when it is asked again. By SIGHUP it is asked to reload.
    pub(super) fn signalled(&mut self, signal: i32) {
        if signal == Signal::SIGHUP as i32 {
            return self.reload_signalled();
        }
        let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string());
        let haste = match self.shutdown {
            Shutdown::No => Haste::Orderly,
            Shutdown::Stopping => Haste::AtOnce,
        };
        let how = match haste {
            Haste::Orderly => "stopping every service",
            Haste::AtOnce => "killing what is left",
        };
        self.events.add(Logged::new("shutdown", format!("{name}: {how}")));
        self.begin_shutdown(haste);
    }

    pub(super) fn begin_shutdown(&mut self, haste: Haste) {
        self.shutdown = Shutdown::Stopping;
        self.shutdown_asked = Some(haste);
        self.hours.send_replace(Hours::Closing);
    }

    /// Nothing lives, nothing is being written: the watchdog may end.
    fn is_finished(&mut self) -> bool {
        let is_at_rest = self.shutdown == Shutdown::Stopping
            && self.roster.is_at_rest()
            && self.pending.is_empty()
            && !self.has_waiters();
        if !is_at_rest || !self.is_audit_closed() {
            return false;
        }
        self.store.close();
        self.store.is_idle()
    }

    /// The audit is all in its file, if that can be written, and the journal has nothing of it.
    fn is_audit_closed(&mut self) -> bool {
        self.audit.close();
        self.audit.go_on();
        if !self.audit.is_settled() {
            return false;
        }
        if let Some(content) = self.audit.last_content() {
            self.store.put(self.audit.recent(), content);
        }
        !self.store.is_busy(self.audit.recent())
    }

    fn store_said(&mut self, ended: Ended) {
        match ended {
            Ended::Change(done) => self.stored(done),
            Ended::Settled { outcome: Ok(()), .. } | Ended::Journal { outcome: Ok(()) } => {}
            Ended::Settled { path, outcome: Err(err) } => {
                let text = format!("{} stays in the journal: {}", path.display(), chain(&err));
                self.events.add(Logged::new("disk", text));
            }
            Ended::Journal { outcome: Err(err) } => {
                self.events.add(Logged::new("disk", format!("the journal: {}", chain(&*err))));
            }
        }
    }

    /// A write ended.
    fn stored(&mut self, done: Done) {
        let outcome = done.outcome.as_ref().map(drop).map_err(|err| chain(&**err));
        if !self.settings_stored(&done)
            && !self.state_stored(&done)
            && !self.limits_stored(&done)
            && !self.audit.stored(&done)
            && let Err(reason) = &outcome
        {
            self.events.add(Logged::new("disk", format!("cannot write {}: {reason}", done.path.display())));
        }
        self.stored.insert(done.path, (done.up_to, outcome));
    }

    /// Whether all these writes ended well.
    pub(super) fn are_durable(&self, changes: &[(PathBuf, ChangeNumber)]) -> bool {
        changes.iter().all(|(path, number)| self.stored.get(path).is_some_and(|(up_to, _)| up_to >= number))
    }

    /// What went wrong with the first of these that failed.
    pub(super) fn failed_change(&self, changes: &[(PathBuf, ChangeNumber)]) -> Option<Failure> {
        let failed = changes.iter().find_map(|(path, number)| match self.stored.get(path) {
            Some((up_to, Err(reason))) if up_to >= number => Some(reason),
            _ => None,
        })?;
        Some(Failure::new(FailureKind::Failed, format!("done, but not on disk: {failed}")))
    }

    /// Where it is kept what the operator wants of a service.
    pub(super) fn wanted_path(&self, service: &ServiceName) -> PathBuf {
        record::path(&self.config.watchdog.state.join("wanted"), service.as_str())
    }

    fn start_probe(&mut self, service: &ServiceName, incarnation: Incarnation, purpose: Purpose) {
        let spec = &self.entries.get(service).expect("the roster and the entries hold the same names").spec;
        let probe = match purpose {
            Purpose::Ready => &spec.ready_probe,
            Purpose::Alive => &spec.liveness_probe,
        };
        let probe = probe.as_ref().expect("the policy asks for a probe only where one is configured");
        self.probes.start(service, incarnation, purpose, probe, &spec.launch);
    }

    /// Looks for what a program says of itself in its output, where it is configured to.
    pub(super) fn watch_log(&self, service: &ServiceName, incarnation: Incarnation) {
        let spec = &self.entry(service).spec;
        if spec.log_signs == LogSigns::default() {
            return;
        }
        let beat = match spec.policy.liveness {
            Liveness::Heartbeat { interval } => interval / 2,
            Liveness::Unwatched | Liveness::Probe { .. } => Duration::ZERO,
        };
        self.capture.watch(service, incarnation, &spec.log_signs, beat);
    }

    fn heard(&mut self, heard: &Heard) {
        self.fact(&heard.service, heard.incarnation, heard.fact());
    }
}
