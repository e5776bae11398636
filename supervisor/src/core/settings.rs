//! Settings, performed: what the [`SettingsUpdater`] decides is written, told and shown.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use watchdog_lifecycle::Refusal;
use watchdog_lifecycle::settings::{Notice, Outcome as SetResult, SetError, SettingsUpdater, Version};
use watchdog_lifecycle::values::{Change, Values};
use watchdog_protocol::control::{self, Failure, FailureKind, Outcome, SetOutcome, SettingsView};
use watchdog_protocol::session::{Initial, ToService, Verdict};
use watchdog_protocol::status::{SettingsStatus, VerdictStatus};
use watchdog_protocol::{Incarnation, RequestId, Revision, ServiceName};

use super::Core;
use super::events::Entry as Logged;
use super::session::content;
use super::verbs::Asked;
use super::waiting::{Target, end};
use crate::config::SettingPath;
use crate::config::schema::{Invalid, Schema};
use crate::store::record;
use crate::store::writer::{ChangeNumber, Done};

/// One service's settings.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) updater: SettingsUpdater,
    pub(super) schema: Schema,
    /// Writes on their way, oldest first.
    writing: Vec<(ChangeNumber, Version)>,
    /// The record as it was last given to the disk, and whether it got there.
    last: Vec<u8>,
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

/// Calls the updater with its schema's check, and lets the outcome out.
macro_rules! with_check {
    ($settings:expr, |$updater:ident, $check:ident| $call:expr) => {{
        let Settings { updater: $updater, schema, .. } = $settings;
        let check = fits(schema);
        let $check: &dyn Fn(&serde_json::Value) -> Result<(), String> = &check;
        $call
    }};
}

impl Settings {
    pub(super) fn new(updater: SettingsUpdater, schema: Schema) -> Self {
        Self { updater, schema, writing: Vec::new(), last: Vec::new() }
    }

    /// The file's table, as it is now.
    pub(super) fn file_changed(&mut self, file: Values) -> Result<(), String> {
        with_check!(self, |updater, check| updater.file_changed(file, check))
            .map(drop)
            .map_err(|err| err.to_string())
    }
}

/// What the schema says against a value, in words.
fn fits(schema: &Schema) -> impl Fn(&serde_json::Value) -> Result<(), String> + '_ {
    |values| {
        let table = values.as_object().cloned().unwrap_or_default();
        schema
            .complete(table)
            .map(drop)
            .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

impl Core {
    fn settings_path(&self, service: &ServiceName) -> PathBuf {
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
        let reader = with_check!(settings, |updater, check| updater.started(incarnation, check));
        let refused = |reason: String| Refusal::Settings { revision: reader.revision, reason };
        let json = completed(&settings.schema, &reader.json).map_err(refused)?;
        let json = content(json.into_bytes(), beside).map_err(|err| refused(err.to_string()))?;
        self.flush_settings(service);
        Ok(Some(Initial { revision: reader.revision, json }))
    }

    /// The service said ready.
    pub(super) fn initial_settings_accepted(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if let Some(settings) = &mut self.entry_mut(service).settings {
            with_check!(settings, |updater, check| updater.ready(incarnation, check));
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
            with_check!(settings, |updater, check| updater.judged(incarnation, revision, verdict, check));
        if let Some(fact) = fact {
            self.fact(service, incarnation, fact);
        }
        self.flush_settings(service);
    }

    /// The service's process is gone, its last word applied.
    pub(super) fn settings_ended(&mut self, service: &ServiceName, incarnation: Incarnation) {
        if let Some(settings) = &mut self.entry_mut(service).settings {
            with_check!(settings, |updater, check| updater.ended(incarnation, check));
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
            with_check!(settings, |updater, check| updater.resumed(incarnation, holds, is_ready, check));
            self.flush_settings(service);
        }
    }

    /// Writes what changed and tells what may be told.
    pub(super) fn flush_settings(&mut self, service: &ServiceName) {
        let path = self.settings_path(service);
        let entry = self.entries.get_mut(service).expect("the caller looked it up");
        let Some(settings) = &mut entry.settings else { return };
        if let Some(version) = settings.updater.unwritten() {
            let bytes = record::encode(&settings.updater);
            if bytes != settings.last {
                settings.last.clone_from(&bytes);
                let change = self.store.put(&path, crate::store::writer::Change::ReplaceKeeping(bytes));
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
        let owner = self.entries.iter().find(|(name, entry)| {
            entry.settings.is_some()
                && done.path == record::path(&self.config.watchdog.state.join("settings"), name.as_str())
        });
        let Some(service) = owner.map(|(name, _)| name.clone()) else { return false };
        let settings = self.entry_mut(&service).settings.as_mut().expect("looked at above");
        let ended: Vec<_> = settings.writing.extract_if(.., |(change, _)| *change <= done.up_to).collect();
        if let Some((_, version)) = ended.last() {
            match &done.outcome {
                Ok(()) => settings.updater.written(*version),
                Err(err) => {
                    settings.last.clear();
                    let reason = super::chain(err);
                    with_check!(settings, |updater, check| updater.write_failed(&reason, check));
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
    pub(super) fn set(&mut self, asked: Asked, service: &ServiceName, changes: Vec<control::Change>) {
        match self.try_set(asked.id, service, changes) {
            Ok(()) => {
                let wants_verdict = asked.wait.is_some();
                let waiter = SetWaiter {
                    service: service.clone(),
                    request: asked.id,
                    saved: false,
                    wants_verdict,
                    failed: None,
                };
                self.events_of_set(service, &asked);
                self.wait_for(asked, Target::Settings(waiter), Vec::new());
                self.flush_settings(service);
            }
            Err(failure) => end(&asked.replies, Err(failure)),
        }
    }

    fn events_of_set(&mut self, service: &ServiceName, asked: &Asked) {
        let text = format!("settings changed by {}", asked.by);
        self.events.add(Logged::of(service, "settings", text));
    }

    fn try_set(
        &mut self,
        id: RequestId,
        service: &ServiceName,
        changes: Vec<control::Change>,
    ) -> Result<(), Failure> {
        let Some(settings) = &mut self.entry_mut(service).settings else {
            return Err(Failure::new(FailureKind::Usage, format!("{service} has no settings")));
        };
        let in_force = settings.updater.standing().revision;
        let wrong = |text: String| {
            let message = format!("{service}: {text}; revision {in_force} stays in force");
            Failure::new(FailureKind::Configuration, message)
        };
        let mut parsed = Vec::new();
        for change in changes {
            let value = match &change.value {
                None => None,
                Some(text) => {
                    let path: SettingPath = change.path.parse().map_err(|err| wrong(format!("{err}")))?;
                    let value = settings.schema.parse_value(&path, text);
                    Some(value.map_err(|err| invalid(&wrong, &err))?)
                }
            };
            let path = change.path.parse().map_err(|err| wrong(format!("{err}")))?;
            parsed.push(Change { path, value });
        }
        let outcome = with_check!(settings, |updater, check| updater.set(id, parsed, check));
        outcome.map_err(|err| match err {
            SetError::Busy { .. } => Failure::new(FailureKind::TryAgain, format!("{service}: {err}"))
                .hint("try again when it has answered"),
            err => wrong(err.to_string()),
        })
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
        let revision = settings.updater.standing().revision;
        let pending = |revision| {
            let outcome = SetOutcome { revision, verdict: VerdictStatus::Pending, refused: None };
            Look::Done(Outcome::Set(outcome))
        };
        let runs = self.entry(service).session.is_some();
        match settings.updater.outcome(waiter.request) {
            Some(SetResult::Applied { revision }) => Look::Done(Outcome::Set(SetOutcome {
                revision,
                verdict: VerdictStatus::Accepted,
                refused: None,
            })),
            Some(SetResult::Refused { revision, reason, in_force }) => {
                let refused = Some((reason, in_force));
                let revision = revision.unwrap_or(in_force);
                Look::Done(Outcome::Set(SetOutcome { revision, verdict: VerdictStatus::Refused, refused }))
            }
            Some(SetResult::Pending { revision }) if late || !runs || !waiter.wants_verdict => {
                pending(revision)
            }
            Some(SetResult::Waiting) | None if late || !waiter.wants_verdict => pending(revision),
            Some(SetResult::Pending { revision }) => {
                Look::Waits(format!("{service}: revision {revision} was delivered and waits for its verdict"))
            }
            Some(SetResult::Waiting) | None => {
                Look::Waits(format!("{service}: waits for the verdict on revision {revision}"))
            }
        }
    }

    pub(super) fn settings_view(&self, service: &ServiceName) -> Result<SettingsView, Failure> {
        let Some(settings) = &self.entry(service).settings else {
            return Err(Failure::new(FailureKind::Usage, format!("{service} has no settings")));
        };
        let values = settings.updater.values();
        let json = completed(&settings.schema, &values.to_json()).unwrap_or_else(|_| values.to_json());
        let standing = self.settings_status(service).expect("it has settings");
        let overrides = settings.updater.overrides();
        Ok(SettingsView {
            revision: standing.revision,
            verdict: standing.verdict,
            json,
            overrides: overrides.paths().map(ToString::to_string).collect(),
        })
    }

    pub(super) fn settings_status(&self, service: &ServiceName) -> Option<SettingsStatus> {
        let standing = self.entry(service).settings.as_ref()?.updater.standing();
        Some(SettingsStatus {
            revision: standing.revision,
            verdict: match (&standing.refusal, standing.is_pending) {
                (_, true) => VerdictStatus::Pending,
                (Some(_), false) => VerdictStatus::Refused,
                (None, false) => VerdictStatus::Accepted,
            },
            refused: standing.refusal.map(|refusal| refusal.reason),
            waiting: standing.waiting as u64,
        })
    }
}

/// The values with the schema's defaults filled in, as the service gets them.
fn completed(schema: &Schema, json: &str) -> Result<String, String> {
    let values = serde_json::from_str(json).map_err(|err| err.to_string())?;
    match schema.complete(values) {
        Ok(values) => Ok(values.to_string()),
        Err(wrong) => Err(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

fn invalid(wrong: &dyn Fn(String) -> Failure, err: &Invalid) -> Failure {
    let failure = wrong(err.to_string());
    match err.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
