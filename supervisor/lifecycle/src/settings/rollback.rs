//! Back to the values of an older revision, as a new one.
//!
//! What is set then is the least that gives those values over the file as it is now. What the schema fills in is part
//! of the values: a setting that the file has now, and did not have then, is set to its default.

use std::fmt::Display;

use serde_json::Value;
use watchdog_protocol::Revision;

use super::history::{Author, Ruling};
use super::revision::Set;
use super::{Present, Proposal, SetError, SettingsUpdater};
use crate::values::{Change, Overrides, SettingPath, Values, changes_towards, differences};

/// Why there is nothing to go back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// It was never made, or is forgotten.
    #[error("revision {revision} is not in its history; one can go back to {there_are}")]
    Unknown {
        /// As asked for.
        revision: Revision,
        /// The revisions that were in force, in words.
        there_are: String,
    },
    /// No process ever ran with it.
    #[error("revision {revision} was never in force ({ruling}); one can go back to {there_are}")]
    NeverInForce {
        /// As asked for.
        revision: Revision,
        /// What became of it.
        ruling: Ruling,
        /// The revisions that were in force, in words.
        there_are: String,
    },
    /// Everything it knows has the same values.
    #[error("there are no values before those of revision {newest} in its history")]
    NothingBefore {
        /// The newest.
        newest: Revision,
    },
    /// No set over the present file gives these values.
    #[error("`{path}` can't go back to revision {revision}: only the configuration file can change it so")]
    FileDecides {
        /// The key.
        path: SettingPath,
        /// As asked for.
        revision: Revision,
    },
}

impl SettingsUpdater {
    /// Goes back to the values in force at `to`; `None`: to those in force before the newest change. As
    /// [`set`](Self::set) in all else.
    ///
    /// # Errors
    /// [`SetError`]; nothing changed then.
    pub fn roll_back<E: Display>(
        &mut self,
        proposal: Proposal,
        to: Option<Revision>,
        present: &Present<'_, E>,
    ) -> Result<(), SetError<E>> {
        if self.is_told_again(proposal.request) {
            return Ok(());
        }
        self.is_on(proposal.on)?;
        let (to, values) = self.target(to)?;
        let changes = self.changes_back(to, &values, present)?;
        let Proposal { request, by, on } = proposal;
        self.propose(request, Author::Rollback { by, to }, on, changes, present)
    }

    fn target(&self, to: Option<Revision>) -> Result<(Revision, Values), RollbackError> {
        let newest = self.newest_edition();
        let values = newest.values();
        let mut back = self.history.back_from(values.clone());
        let Some(revision) = to else {
            return back
                .find(|(entry, its)| entry.ruling == Ruling::Applied && *its != values)
                .map(|(entry, its)| (entry.revision, its))
                .ok_or(RollbackError::NothingBefore { newest: newest.revision });
        };
        match back.find(|(entry, _)| entry.revision == revision) {
            Some((entry, its)) if entry.ruling == Ruling::Applied => Ok((revision, its)),
            Some((entry, _)) => {
                let ruling = entry.ruling.clone();
                Err(RollbackError::NeverInForce { revision, ruling, there_are: self.were_in_force() })
            }
            None => Err(RollbackError::Unknown { revision, there_are: self.were_in_force() }),
        }
    }

    /// What to set over the file so that a service gets what it would get for these values.
    fn changes_back<E: Display>(
        &self,
        to: Revision,
        values: &Values,
        present: &Present<'_, E>,
    ) -> Result<Vec<Change>, SetError<E>> {
        let file = self.newest_edition().base;
        let wanted = (present.check)(&values.to_value()).map(table).map_err(SetError::Schema)?;
        // A file that fits only with what is set over it has no defaults filled in: then more is set.
        let from = (present.check)(&file.to_value()).map_or_else(|_| file.clone(), table);
        let decides = |path| RollbackError::FileDecides { path, revision: to };
        let changes = changes_towards(from.as_map(), wanted.as_map()).map_err(decides)?;
        // Defaults may depend on what is set beside them: what comes out is looked at, not hoped for.
        let got = Overrides::default().only(&changes, Revision::NONE).over(&file)?;
        let got = (present.check)(&got.to_value()).map(table).map_err(SetError::Schema)?;
        match differences(&got, &wanted).into_iter().next() {
            None => Ok(changes),
            Some(differs) => Err(decides(differs.path).into()),
        }
    }

    /// Its turn came: what it sets over the file that is accepted now, which need not be the one there was when it was
    /// asked for. Any other set is what it was.
    pub(super) fn renewed<E: Display>(
        &self,
        set: &Set,
        present: &Present<'_, E>,
    ) -> Result<Vec<Change>, SetError<E>> {
        match set.author {
            Author::Rollback { to, .. } => {
                let (to, values) = self.target(Some(to))?;
                self.changes_back(to, &values, present)
            }
            Author::Unknown | Author::File | Author::Set(_) | Author::Fallback { .. } => {
                Ok(set.changes.clone())
            }
        }
    }

    /// `1, 3-7`: the revisions one can go back to.
    fn were_in_force(&self) -> String {
        let applied = self.history.entries().filter(|entry| entry.ruling == Ruling::Applied);
        let mut runs: Vec<[Revision; 2]> = Vec::new();
        for revision in applied.map(|entry| entry.revision) {
            match runs.last_mut() {
                Some([_, last]) if last.next() == revision => *last = revision,
                _ => runs.push([revision, revision]),
            }
        }
        let words = runs.iter().map(|[first, last]| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        let words = words.collect::<Vec<_>>().join(", ");
        if words.is_empty() { "none".to_owned() } else { words }
    }
}

/// A program that was built anew without settings takes none at all, which is no table.
fn table(values: Value) -> Values {
    match values {
        Value::Object(table) => Values::new(table),
        _ => Values::default(),
    }
}
