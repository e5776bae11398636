//! What is shown of settings: all of it through the schema, which knows what is secret.

use serde_json::Value;
use watchdog_lifecycle::settings::Origin;
use watchdog_lifecycle::settings::history::{Author, Entry, Ruling};
use watchdog_lifecycle::values::Values;
use watchdog_lifecycle::{Actor, WallTime};
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{
    Caller, Failure, FilePlace, RevisionAuthor, RevisionRecord, RevisionVerdict, SettingsView, ValueChange,
    ValueOrigin, ValueView,
};
use watchdog_protocol::status::{SettingsStatus, VerdictStatus};

use super::without_settings;
use crate::config::Place;
use crate::config::schema::Schema;
use crate::core::Core;

impl Core {
    pub(in crate::core) fn settings_view(&self, service: &ServiceName) -> Result<SettingsView, Failure> {
        let entry = self.entry(service);
        let settings = entry.settings.as_ref().ok_or_else(|| without_settings(service))?;
        let values = settings.updater.values();
        let filled = settings.schema.filled(values.as_map().clone());
        let filled = filled.as_object().cloned().map_or(values, Values::new);
        // A secret is one value, whatever is in it.
        let shown = Values::new(settings.schema.shown(filled.as_map().clone()));
        let values = settings.updater.origins(&shown).into_iter().filter_map(|(path, origin)| {
            let (value, json) = (filled.get(&path)?, shown.get(&path)?.to_string());
            let origin = match origin {
                Origin::Default => ValueOrigin::Default,
                Origin::Set { since } => ValueOrigin::Set { revision: since },
                Origin::File => {
                    let place = entry.spec.settings_value_place(path.keys(), value);
                    ValueOrigin::File { place: place.as_ref().map(file_place) }
                }
            };
            Some(ValueView { path: path.to_string(), json, origin })
        });
        let standing = self.settings_status(service).expect("it has settings");
        let overrides = settings.updater.overrides();
        Ok(SettingsView {
            revision: standing.revision,
            verdict: standing.verdict,
            json: shown.to_json(),
            overrides: overrides.paths().map(ToString::to_string).collect(),
            values: values.collect(),
        })
    }

    pub(in crate::core) fn settings_history(
        &self,
        service: &ServiceName,
    ) -> Result<Vec<RevisionRecord>, Failure> {
        let settings = self.entry(service).settings.as_ref().ok_or_else(|| without_settings(service))?;
        Ok(settings.updater.history().map(|entry| record(entry, &settings.schema)).collect())
    }

    pub(in crate::core) fn settings_status(&self, service: &ServiceName) -> Option<SettingsStatus> {
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

fn file_place(place: &Place) -> FilePlace {
    FilePlace { file: place.path().display().to_string(), line: place.line() as u64 }
}

fn record(entry: &Entry, schema: &Schema) -> RevisionRecord {
    let changes = entry.changes.iter().map(|change| {
        let text = |value: &Option<Value>| {
            let shown = |value: &Value| schema.shown_at(change.path.keys(), value.clone()).to_string();
            value.as_ref().map(shown)
        };
        ValueChange {
            path: change.path.to_string(),
            before: text(&change.before),
            after: text(&change.after),
        }
    });
    RevisionRecord {
        revision: entry.revision,
        at_us: entry.at.map(WallTime::as_micros),
        by: match &entry.author {
            Author::Unknown => RevisionAuthor::Unknown,
            Author::File => RevisionAuthor::File,
            Author::Set(by) => RevisionAuthor::Set { by: caller(by) },
            Author::Rollback { by, to } => RevisionAuthor::Rollback { by: caller(by), to: *to },
            Author::Fallback { refused } => RevisionAuthor::Fallback { refused: *refused },
        },
        changes: changes.collect(),
        verdict: match &entry.ruling {
            Ruling::Pending => RevisionVerdict::Pending,
            Ruling::Applied => RevisionVerdict::Applied,
            Ruling::Refused { reason } => RevisionVerdict::Refused { reason: reason.clone() },
            Ruling::Superseded { by } => RevisionVerdict::Superseded { by: *by },
        },
    }
}

fn caller(by: &Actor) -> Caller {
    match by {
        Actor::Operator { uid } => Caller::Operator { uid: *uid },
        Actor::Service(name) => Caller::Service { name: name.clone() },
        Actor::Watchdog => Caller::Watchdog,
    }
}
