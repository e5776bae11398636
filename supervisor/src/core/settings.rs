//! Settings, performed: what the [`SettingsUpdater`] decides is written, told and shown.

mod view;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde_json::Value;
use watchdog_lifecycle::settings::history::Author;
use watchdog_lifecycle::settings::{
    Notice, Outcome as SetResult, RollbackError, SetError, SettingsUpdater, Version,
};
use watchdog_lifecycle::values::{Change, Values};
use watchdog_lifecycle::{Present, Proposal, Refusal};
use watchdog_protocol::control::{self, Failure, FailureKind, Outcome, SetOutcome};
use watchdog_protocol::session::{Initial, ToService, Verdict};
use watchdog_protocol::status::VerdictStatus;
use watchdog_protocol::{Incarnation, RequestId, Revision, ServiceName};

use super::events::Entry as Logged;
use super::session::content;
use super::verbs::Asked;
use super::waiting::{Target, end};
use super::{Core, wall_time};
use crate::config::schema::{Invalid, Schema};
use crate::config::secret_file::{delivered, fitting};
use crate::config::{ServiceSpec, SettingPath};
use crate::store::envelope::Envelope;
use crate::store::record;
use crate::store::writer::{ChangeNumber, Done};

/// One service's settings.
#[derive(Debug)]
pub(super) struct Settings {
    /// Whose, for errors.
    service: ServiceName,
    /// Boxed: most entries of the table it is in have none.
    pub(super) updater: Box<SettingsUpdater>,
    pub(super) schema: Schema,
    /// Writes on their way, oldest first.
    writing: Vec<(ChangeNumber, Version)>,
    /// The record as it was last given to the disk, and whether it got there.
    last: Option<Envelope>,
    /// What the file says by now, while a revision before it is not judged.
    table_waits: Option<Values>,
}

/// Somebody waits for what becomes of a set.
#[derive(Debug)]
pub(super) struct SetWaiter {
    service: ServiceName,
    request: RequestId,
    /// Once it is on disk.
    saved: bool,
    /// Wants the verdict too.
    wants_verdict: bool,
    failed: Option<String>,
}

/// Calls the updater with its schema's check and the time, and lets the outcome out.
macro_rules! at_present {
    ($settings:expr, |$updater:ident, $present:ident| $call:expr) => {{
        let settings: &mut Settings = $settings;
        let Settings { updater: $updater, schema, .. } = settings;
        let check = |values: &Value| {
            let table = values.as_object().cloned().unwrap_or_default();
            fitting(schema, table).map_err(|wrong| in_words(&wrong))
        };
        let $present = &Present { check: &check, at: wall_time() };
        $call
    }};
}

impl Settings {
    pub(super) fn new(service: &ServiceName, updater: SettingsUpdater, schema: Schema) -> Self {
        Self {
            service: service.clone(),
            updater: Box::new(updater),
            schema,
            writing: Vec::new(),
            last: None,
            table_waits: None,
        }
    }

    /// The file's table, as it is now.
    pub(super) fn file_changed(&mut self, file: Values) -> Result<Revision, String> {
        at_present!(self, |updater, present| updater.file_changed(file, present))
            .map_err(|err| err.to_string())
    }

    /// Its table says this from now on. While a running process has not judged the revision before, it waits.
    pub(super) fn table(&mut self, spec: &ServiceSpec) -> Result<Revision, String> {
        let file = Values::new(spec.settings.values.clone());
        let changed = at_present!(self, |updater, present| updater.file_changed(file.clone(), present));
        self.table_waits = matches!(changed, Err(SetError::Busy { .. })).then_some(file);
        changed.map_err(|err| err.to_string())
    }

    /// Whether what was set fits over this table, by this schema.
    pub(super) fn fit(&self, spec: &ServiceSpec, schema: &Schema) -> Result<(), Failure> {
        let check = |values: &Value| {
            let table = values.as_object().cloned().unwrap_or_default();
            fitting(schema, table).map_err(|wrong| in_words(&wrong))
        };
        let file = Values::new(spec.settings.values.clone());
        self.updater.fits(&file, &check).map_err(|err| {
            let text = format!(
                "{}: what was set over the file does not fit it: {err}; nothing was changed",
                self.service
            );
            let hint =
                format!("watchdog get {} --origin; watchdog unset goes back to the file", self.service);
            Failure::new(FailureKind::Configuration, text).hint(hint)
        })
    }

    /// Changes as they were typed.
    fn parse(&self, changes: Vec<control::Change>) -> Result<Vec<Change>, Failure> {
        let parse = |change: control::Change| {
            let wrong = |text: String| self.wrong(&text);
            let value = match &change.value {
                None => None,
                Some(text) => {
                    let path: SettingPath = change.path.parse().map_err(|err| wrong(format!("{err}")))?;
                    let value = self.schema.parse_value(&path, text).map_err(|err| {
                        let failure = wrong(err.to_string());
                        Failure { hint: err.hint(), ..failure }
                    })?;
                    // The core may read what the caller may not.
                    if self.schema.has_reference(path.keys(), &value) {
                        let failure = wrong(format!("only the configuration can name a file for `{path}`"));
                        return Err(failure.hint(format!("watchdog set {} {path}=@FILE", self.service)));
                    }
                    Some(value)
                }
            };
            let path = change.path.parse().map_err(|err| wrong(format!("{err}")))?;
            Ok(Change { path, value })
        };
        changes.into_iter().map(parse).collect()
    }

    /// Why a change was not made.
    fn refusal(&self, err: &SetError<String>) -> Failure {
        let Self { service, .. } = self;
        let stays = self.what_stays();
        let history = || format!("watchdog history {service}");
        match err {
            SetError::Busy { .. } => Failure::new(FailureKind::TryAgain, format!("{service}: {err}"))
                .hint("try again when it has answered"),
            SetError::Moved { .. } => {
                let message = format!("{service}: {err}; nothing was changed, {stays}");
                Failure::new(FailureKind::TryAgain, message).hint(history())
            }
            SetError::Rollback(RollbackError::Unknown { .. } | RollbackError::NeverInForce { .. }) => {
                Failure::new(FailureKind::Usage, format!("{service}: {err}; {stays}")).hint(history())
            }
            SetError::Rollback(RollbackError::NothingBefore { .. }) => {
                Failure::new(FailureKind::Failed, format!("{service}: {err}; {stays}"))
            }
            SetError::Rollback(RollbackError::FileDecides { .. })
            | SetError::Empty
            | SetError::Path(_)
            | SetError::Schema(_)
            | SetError::Long { .. } => self.wrong(&err.to_string()),
        }
    }

    fn wrong(&self, text: &str) -> Failure {
        let message = format!("{}: {text}; {}", self.service, self.what_stays());
        Failure::new(FailureKind::Configuration, message)
    }

    fn what_stays(&self) -> String {
        match self.updater.in_force() {
            Some((revision, _)) => format!("revision {revision} stays in force"),
            None => format!("revision {} stays pending", self.updater.standing().revision),
        }
    }
}

/// What the schema says against values.
fn in_words(wrong: &[Invalid]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Core {
    pub(super) fn settings_path(&self, service: &ServiceName) -> PathBuf {
        record::path(&self.config.watchdog.state.join("settings"), service.as_str())
    }

    /// What an incarnation starts with.
    pub(super) fn initial_settings(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        beside: &mut Vec<OwnedFd>,
    ) -> Result<Option<Initial>, Refusal> {
        let Some(settings) = &mut self.entry_mut(service).settings else { return Ok(None) };
        let reader = at_present!(settings, |updater, present| updater.started(incarnation, present));
        let refused = |reason: String| Refusal::Settings { revision: reader.revision, reason };
        let json = completed(&settings.schema, &reader.json).map_err(refused)?;
        let json = content(json.into_bytes(), beside).map_err(|err| refused(err.to_string()))?;
        self.flush_settings(service);
        Ok(Some(Initial { revision: reader.revision, json }))
    }

    /// The service said ready.
    pub(super) fn initial_settings_accepted(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if let Some(settings) = &mut self.entry_mut(service).settings {
            at_present!(settings, |updater, present| updater.ready(incarnation, present));
            self.flush_settings(service);
        }
    }

    /// The service judged a revision.
    pub(super) fn verdict(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        revision: Revision,
        verdict: Verdict,
    ) {
        let Some(settings) = &mut self.entry_mut(service).settings else { return };
        let fact =
            at_present!(settings, |updater, present| updater.judged(incarnation, revision, verdict, present));
        if let Some(fact) = fact {
            self.fact(service, incarnation, fact);
        }
        self.flush_settings(service);
    }

    /// The service's process is gone, its last word applied.
    pub(super) fn settings_ended(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if let Some(settings) = &mut self.entry_mut(service).settings {
            at_present!(settings, |updater, present| updater.ended(incarnation, present));
            self.flush_settings(service);
        }
    }

    /// The service went on through a change of cores.
    pub(super) fn settings_resumed(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        holds: Revision,
        is_ready: bool,
    ) {
        if let Some(settings) = &mut self.entry_mut(service).settings {
            at_present!(settings, |updater, present| updater.resumed(incarnation, holds, is_ready, present));
            self.flush_settings(service);
        }
    }

    /// Writes what changed and tells what may be told.
    pub(super) fn flush_settings(&mut self, service: &ServiceName) {
        let path = self.settings_path(service);
        let entry = self.entries.get_mut(service).expect("the caller looked it up");
        let Some(settings) = &mut entry.settings else { return };
        if let Some(file) = settings.table_waits.take() {
            let changed =
                at_present!(settings, |updater, present| updater.file_changed(file.clone(), present));
            match changed {
                Err(SetError::Busy { .. }) => settings.table_waits = Some(file),
                Err(err) => {
                    let text = format!("its table's settings do not fit what was set: {err}");
                    self.events.add(Logged::of(service, "settings", text).because("settings"));
                }
                Ok(_) => {}
            }
        }
        if let Some(version) = settings.updater.unwritten() {
            let record = record::envelope(&settings.updater);
            if settings.last.as_ref() != Some(&record) {
                settings.last = Some(record.clone());
                let change = self.store.put(&path, record);
                settings.writing.push((change, version));
            } else if let Some((_, newest)) = settings.writing.last_mut() {
                // The same bytes are on their way.
                *newest = version;
            } else {
                settings.updater.written(version);
            }
        }
        let notices = settings.updater.notices();
        for notice in notices {
            self.settings_notice(service, notice);
        }
    }

    /// A write of the store ended: `true` when it was of settings.
    pub(super) fn settings_stored(&mut self, done: &Done) -> bool {
        let folder = self.config.watchdog.state.join("settings");
        let Some(service) = record::name_of(&folder, &done.path).and_then(|name| name.parse().ok()) else {
            return false;
        };
        let entry = self.entries.get_mut(&service);
        let Some(settings) = entry.and_then(|entry| entry.settings.as_mut()) else { return true };
        let ended: Vec<_> = settings.writing.extract_if(.., |(change, _)| *change <= done.up_to).collect();
        if let Some((_, version)) = ended.last() {
            match &done.outcome {
                Ok(()) => settings.updater.written(*version),
                Err(err) => {
                    settings.last = None;
                    let reason = super::chain(err);
                    at_present!(settings, |updater, present| updater.write_failed(&reason, present));
                }
            }
        }
        if let Err(err) = &done.outcome {
            let text = format!("settings could not be saved: {}", super::chain(err));
            self.events.add(Logged::of(&service, "settings", text));
        }
        self.flush_settings(&service);
        true
    }

    fn settings_notice(&mut self, service: &ServiceName, notice: Notice) {
        match notice {
            Notice::Saved { request, .. } => self.mark_set(request, |waiter| waiter.saved = true),
            Notice::Settled { request, .. } => self.mark_set(request, |waiter| waiter.saved = true),
            Notice::NotSaved { request, reason } => {
                self.mark_set(request, |waiter| waiter.failed = Some(reason.clone()));
            }
            Notice::Deliver { incarnation, revision, json } => {
                self.deliver(service, incarnation, revision, &json);
            }
            Notice::InForce { revision } => {
                let text = format!("settings revision {revision} is in force");
                self.events.add(Logged::of(service, "settings", text).revision(revision));
            }
            Notice::Refused { revision, reason, in_force } => {
                let text = format!(
                    "settings revision {revision} refused: {reason}; revision {in_force} has the values before it"
                );
                self.events.add(Logged::of(service, "settings", text).revision(revision).because("settings"));
            }
        }
    }

    fn deliver(&mut self, service: &ServiceName, incarnation: Incarnation, revision: Revision, json: &str) {
        let entry = self.entry(service);
        let current = entry.session.as_ref().is_some_and(|session| session.incarnation() == incarnation);
        let Some(settings) = entry.settings.as_ref().filter(|_| current) else { return };
        let mut beside = Vec::new();
        let json = completed(&settings.schema, json).unwrap_or_else(|_| json.to_owned());
        match content(json.into_bytes(), &mut beside) {
            Ok(json) => self.tell(service, &ToService::Settings { revision, json }, beside),
            Err(err) => tracing::error!("{service}: settings can't be delivered: {err}"),
        }
    }

    fn mark_set(&mut self, request: RequestId, mark: impl Fn(&mut SetWaiter)) {
        for waiter in &mut self.waiters {
            if let Target::Settings(set) = &mut waiter.target
                && set.request == request
            {
                mark(set);
            }
        }
    }

    /// `set` and `unset`.
    pub(super) fn set(
        &mut self,
        asked: Asked,
        service: &ServiceName,
        changes: Vec<control::Change>,
        if_revision: Option<Revision>,
    ) {
        let proposal = Proposal { request: asked.id, by: asked.by.clone(), on: if_revision };
        // Not the values: some are secret.
        let paths = changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ");
        let made = self.settings_of(service).and_then(|settings| {
            let changes = settings.parse(changes)?;
            let made = at_present!(settings, |updater, present| updater.set(proposal, changes, present));
            made.map_err(|err| settings.refusal(&err))
        });
        let text = format!("settings changed by {}: {paths}", asked.by);
        self.wait_for_verdict(asked, service, made, text);
    }

    /// `rollback`.
    pub(super) fn roll_back(
        &mut self,
        asked: Asked,
        service: &ServiceName,
        to: Option<Revision>,
        if_revision: Option<Revision>,
    ) {
        let proposal = Proposal { request: asked.id, by: asked.by.clone(), on: if_revision };
        let made = self.settings_of(service).and_then(|settings| {
            let made = at_present!(settings, |updater, present| updater.roll_back(proposal, to, present));
            made.map_err(|err| settings.refusal(&err))
        });
        let text = format!("settings rolled back by {}", asked.by);
        self.wait_for_verdict(asked, service, made, text);
    }

    fn settings_of(&mut self, service: &ServiceName) -> Result<&mut Settings, Failure> {
        self.entry_mut(service).settings.as_deref_mut().ok_or_else(|| without_settings(service))
    }

    fn wait_for_verdict(
        &mut self,
        asked: Asked,
        service: &ServiceName,
        made: Result<(), Failure>,
        text: String,
    ) {
        if let Err(failure) = made {
            return end(&asked.replies, Err(failure));
        }
        let waiter = SetWaiter {
            service: service.clone(),
            request: asked.id,
            saved: false,
            wants_verdict: asked.wait.is_some(),
            failed: None,
        };
        let settings = self.entry(service).settings.as_ref().expect("they were just changed");
        let mut entry = Logged::of(service, "settings", text).by(&asked.by);
        // One that waits for the verdict on another gets its number later.
        if let Some(SetResult::Pending { revision }) = settings.updater.outcome(asked.id) {
            entry = entry.revision(revision);
        }
        self.events.add(entry);
        self.wait_for(asked, Target::Settings(waiter), Vec::new());
        self.flush_settings(service);
    }

    pub(super) fn look_at_settings(&self, waiter: &SetWaiter, late: bool) -> super::waiting::Look {
        use super::waiting::Look;
        let service = &waiter.service;
        if let Some(reason) = &waiter.failed {
            let message = format!("{service}: nothing was changed: {reason}");
            return Look::Failed(Failure::new(FailureKind::Failed, message));
        }
        let Some(settings) = self.entries.get(service).and_then(|entry| entry.settings.as_ref()) else {
            return Look::Failed(Failure::new(FailureKind::Failed, format!("{service} was unregistered")));
        };
        if !waiter.saved {
            return Look::Waits(format!("{service}: the change is being written to disk"));
        }
        let updater = &settings.updater;
        let newest = updater.standing().revision;
        let done = |revision, verdict, refused| {
            let back_to = match updater.find(revision).map(|entry| &entry.author) {
                Some(Author::Rollback { to, .. }) => Some(*to),
                Some(Author::Unknown | Author::File | Author::Set(_) | Author::Fallback { .. }) | None => {
                    None
                }
            };
            Look::Done(Outcome::Set(SetOutcome { revision, verdict, refused, back_to }))
        };
        let runs = self.entry(service).session.is_some();
        let is_done = |late_or_down: bool| late_or_down || !waiter.wants_verdict;
        match updater.outcome(waiter.request) {
            Some(SetResult::Applied { revision }) => done(revision, VerdictStatus::Accepted, None),
            Some(SetResult::Refused { revision: Some(revision), reason, in_force }) => {
                done(revision, VerdictStatus::Refused, Some((reason, in_force)))
            }
            Some(SetResult::Refused { revision: None, reason, .. }) => {
                Look::Failed(settings.wrong(&format!("{reason}; nothing was changed")))
            }
            Some(SetResult::Overtaken { on, newest }) => {
                Look::Failed(settings.refusal(&SetError::Moved { on, newest, waiting: 0 }))
            }
            Some(SetResult::Pending { revision }) if is_done(late || !runs) => {
                done(revision, VerdictStatus::Pending, None)
            }
            Some(SetResult::Waiting) | None if is_done(late) => done(newest, VerdictStatus::Pending, None),
            Some(SetResult::Pending { revision }) => {
                Look::Waits(format!("{service}: revision {revision} was delivered and waits for its verdict"))
            }
            Some(SetResult::Waiting) | None => {
                Look::Waits(format!("{service}: waits for the verdict on revision {newest}"))
            }
        }
    }
}

fn without_settings(service: &ServiceName) -> Failure {
    Failure::new(FailureKind::Usage, format!("{service} has no settings"))
}

/// The values with the schema's defaults filled in and its secrets read, as the service gets them.
fn completed(schema: &Schema, json: &str) -> Result<String, String> {
    let values = serde_json::from_str(json).map_err(|err| err.to_string())?;
    match delivered(schema, values) {
        Ok(values) => Ok(values.to_string()),
        Err(wrong) => Err(in_words(&wrong)),
    }
}
