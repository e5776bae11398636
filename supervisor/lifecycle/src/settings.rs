//! [`SettingsUpdater`]: one service's settings, each version of them a revision that only grows.
//!
//! ```text
//!   set ──► checked ──► in the record ──► written ──► acknowledged ──► delivered ──► accepted: in force
//!             │                              │                             │
//!             ▼                              ▼                             └──► refused: a new revision with
//!          an error                     a failed write:                         the values before it
//!                                       withdrawn, an error
//! ```
//!
//! - One revision is **pending** at a time. A set that comes while a process has it, or is about to, waits, and is
//!   merged on what is in force then. While no process runs, sets join the pending revision.
//! - The **initial** value of an incarnation is the pending revision, else the one in force. `ready` accepts it.
//! - An end between delivery and verdict refuses it. So a revision that kills its service is tried once. Only when
//!   no other was ever accepted it stays pending: there is nothing to go back to.
//! - Whatever changes the record makes a new **version** of it, which the caller writes down; nothing that must
//!   be durable first leaves by [`SettingsUpdater::notices`] before [`SettingsUpdater::written`] says that it is.
//!
//! Absent: a revision that is used twice; a delivered set that is not on disk; a value in force that nobody
//! accepted.

mod notice;
mod revision;
mod verdict;

use std::collections::VecDeque;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use watchdog_protocol::limits::MAX_SETTINGS;
use watchdog_protocol::{RequestId, Revision};

pub use self::notice::{Notice, Outcome, Refused, SetError, Standing};
use self::revision::{Edition, Pending, Running, Set};
use crate::values::{Change, Overrides, Values};

/// Outcomes kept for repeated requests. Whoever repeats does so within seconds; this many sets of one service
/// take longer.
const MAX_OUTCOMES: usize = 256;

/// Sets that may wait for one verdict. More come only from a loop that does not look at its answers.
const MAX_WAITING: usize = 64;

/// Whether values fit the service's schema; the error says where and what was expected.
pub type Check<'a, E> = &'a dyn Fn(&Value) -> Result<(), E>;

/// One version of the record. Versions are counted anew by each core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(u64);

/// What an incarnation starts with: a `SettingsReader` is built from it on the other side of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Its number.
    pub revision: Revision,
    /// All values, as JSON text.
    pub json: String,
}

/// The settings of one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SettingsUpdater {
    newest: Revision,
    /// What the file said last.
    file: Values,
    accepted: Option<Edition>,
    pending: Option<Pending>,
    waiting: VecDeque<Set>,
    outcomes: VecDeque<(RequestId, Outcome)>,
    refusal: Option<Refused>,
    /// What follows is known to this core only.
    #[serde(skip)]
    running: Option<Running>,
    #[serde(skip, default = "first_version")]
    version: Version,
    #[serde(skip)]
    durable: Version,
    #[serde(skip)]
    notices: VecDeque<(Version, Notice)>,
}

/// A record that was just read is not yet known to be on disk: what a dead core left may be in the page cache only.
fn first_version() -> Version {
    Version(1)
}

impl SettingsUpdater {
    /// Made on registration, with the initial value: the table of the configuration, checked against the schema,
    /// whose defaults the service itself fills in.
    pub fn new(file: Values) -> Self {
        Self {
            newest: Revision::FIRST,
            file: file.clone(),
            accepted: None,
            pending: Some(Pending {
                revision: Revision::FIRST,
                base: file,
                before: Overrides::default(),
                sets: Vec::new(),
                started: None,
                made: first_version(),
            }),
            waiting: VecDeque::new(),
            outcomes: VecDeque::new(),
            refusal: None,
            running: None,
            version: first_version(),
            durable: Version::default(),
            notices: VecDeque::new(),
        }
    }

    /// The version to write down, if the newest is not. The record is this value itself.
    pub fn unwritten(&self) -> Option<Version> {
        (self.version > self.durable).then_some(self.version)
    }

    /// This version, and so each before it, is on disk.
    pub fn written(&mut self, version: Version) {
        self.durable = self.durable.max(version);
    }

    /// A version could not be written; one is written at a time. Sets that are not on disk are withdrawn;
    /// everything else happened already and is written with the next version.
    pub fn write_failed<E: Display>(&mut self, reason: &str, check: Check<'_, E>) {
        self.touch();
        let mut lost = self.take_late();
        lost.extend(self.waiting.iter().filter(|set| set.made > self.durable).cloned());
        self.waiting.retain(|set| set.made <= self.durable);
        for Set { request, .. } in lost {
            self.notices.retain(|(_, notice)| !notice.is_saved(request));
            let reason = reason.to_owned();
            // No outcome is kept: the same request may be tried again.
            self.notices.push_back((Version::default(), Notice::NotSaved { request, reason }));
        }
        self.promote(check);
    }

    /// What is to be told now. To be asked after each call that changes something.
    pub fn notices(&mut self) -> Vec<Notice> {
        let durable = self.durable;
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.notices).into_iter().partition(|(version, _)| *version <= durable);
        self.notices = later;
        let mut notices: Vec<_> = due.into_iter().map(|(_, notice)| notice).collect();
        if let (Some(running), Some(pending)) = (&mut self.running, &self.pending) {
            let is_durable = pending.made <= durable && pending.sets.iter().all(|set| set.made <= durable);
            let is_initial = pending.started == Some(running.incarnation) && !running.is_ready;
            // Who refused what it started with is about to end.
            let is_leaving = running.holds.is_none();
            if is_durable && !is_initial && !is_leaving && running.sent != Some(pending.revision) {
                running.sent = Some(pending.revision);
                notices.push(Notice::Deliver {
                    incarnation: running.incarnation,
                    revision: pending.revision,
                    json: pending.edition().values().to_json(),
                });
            }
        }
        notices
    }

    /// Changes several keys, all or none.
    ///
    /// The answer is [`Notice::Saved`], once it is on disk, also to a request that was made before.
    ///
    /// # Errors
    /// [`SetError`]; nothing changed then.
    pub fn set<E: Display>(
        &mut self,
        request: RequestId,
        changes: Vec<Change>,
        check: Check<'_, E>,
    ) -> Result<(), SetError<E>> {
        if let Some(outcome) = self.outcome(request) {
            self.tell(Notice::Saved { request, outcome });
            return Ok(());
        }
        if changes.is_empty() {
            return Err(SetError::Empty);
        }
        // As if all that waits were accepted: that is what the caller sees and means to change.
        let (base, mut overrides) = self.expected();
        for set in &self.waiting {
            // One that no longer fits is refused when its turn comes.
            overrides = overrides.with(&set.changes).unwrap_or(overrides);
        }
        let values = overrides.with(&changes)?.over(&base)?;
        let length = values.to_json().len();
        if length > MAX_SETTINGS {
            return Err(SetError::Long { length });
        }
        check(&values.to_value()).map_err(SetError::Schema)?;
        if self.waiting.len() >= MAX_WAITING {
            return Err(SetError::Busy { waiting: MAX_WAITING, on: self.newest });
        }
        self.touch();
        self.waiting.push_back(Set { request, changes, made: self.version });
        self.promote(check);
        let outcome = self.outcome(request).unwrap_or(Outcome::Waiting);
        self.tell(Notice::Saved { request, outcome });
        Ok(())
    }

    /// The file says something else than before, with the next life of the watchdog or a reload: a new revision,
    /// with what was set still over it.
    ///
    /// # Errors
    /// [`SetError`] when what was set does not fit the new file or schema, or a running service has not judged the
    /// pending revision; nothing changed then.
    pub fn file_changed<E: Display>(
        &mut self,
        file: Values,
        check: Check<'_, E>,
    ) -> Result<Revision, SetError<E>> {
        if file == self.file {
            return Ok(self.newest);
        }
        if let (Some(_), Some(pending)) = (&self.running, &self.pending) {
            return Err(SetError::Busy { waiting: self.waiting.len(), on: pending.revision });
        }
        let (before, sets) = match (&self.pending, &self.accepted) {
            (Some(pending), _) => (pending.before.clone(), pending.sets.clone()),
            (None, Some(accepted)) => (accepted.overrides.clone(), Vec::new()),
            (None, None) => (Overrides::default(), Vec::new()),
        };
        // Without its sets too: they may be refused or withdrawn, and what is left must fit.
        let mut overrides = before.clone();
        check(&overrides.over(&file)?.to_value()).map_err(SetError::Schema)?;
        for set in &sets {
            overrides = overrides.with(&set.changes)?;
            check(&overrides.over(&file)?.to_value()).map_err(SetError::Schema)?;
        }
        self.touch();
        self.file = file.clone();
        let revision = self.next_revision();
        self.pending =
            Some(Pending { revision, base: file, before, sets, started: None, made: self.version });
        Ok(revision)
    }

    /// What became of a set; `None` when it was never made, could not be written, or is long forgotten.
    pub fn outcome(&self, request: RequestId) -> Option<Outcome> {
        let is_it = |set: &Set| set.request == request;
        if self.waiting.iter().any(is_it) {
            return Some(Outcome::Waiting);
        }
        match &self.pending {
            Some(pending) if pending.sets.iter().any(is_it) => {
                Some(Outcome::Pending { revision: pending.revision })
            }
            Some(_) | None => {
                let settled = self.outcomes.iter().find(|(id, _)| *id == request);
                settled.map(|(_, outcome)| outcome.clone())
            }
        }
    }

    /// Where they stand.
    pub fn standing(&self) -> Standing {
        let revision = self.newest_edition().revision;
        Standing {
            revision,
            is_pending: self.pending.is_some(),
            refusal: self.refusal.clone().filter(|refusal| refusal.in_force == revision),
            waiting: self.waiting.len(),
        }
    }

    /// The revision in force and its values; `None` until one was accepted.
    pub fn in_force(&self) -> Option<(Revision, Values)> {
        self.accepted.as_ref().map(|edition| (edition.revision, edition.values()))
    }

    /// The values of the newest revision.
    pub fn values(&self) -> Values {
        self.newest_edition().values()
    }

    /// What was set over the file, in the newest revision.
    pub fn overrides(&self) -> Overrides {
        self.newest_edition().overrides
    }

    fn newest_edition(&self) -> Edition {
        match (&self.pending, &self.accepted) {
            (Some(pending), _) => pending.edition(),
            (None, Some(accepted)) => accepted.clone(),
            (None, None) => unreachable!("without an accepted revision one is pending: refuse() keeps it"),
        }
    }

    /// File and overrides as they will be if the pending revision is accepted.
    fn expected(&self) -> (Values, Overrides) {
        let edition = self.newest_edition();
        (edition.base, edition.overrides)
    }

    fn touch(&mut self) {
        self.version.0 += 1;
    }

    fn tell(&mut self, notice: Notice) {
        self.notices.push_back((self.version, notice));
    }

    fn next_revision(&mut self) -> Revision {
        self.newest = self.newest.next();
        self.newest
    }

    /// Takes the sets that are not on disk out of the pending revision, which is then another one, or none.
    fn take_late(&mut self) -> Vec<Set> {
        let Some(mut pending) = self.pending.take() else { return Vec::new() };
        // They came last, so what stays does not build on them.
        let on_disk = pending.sets.iter().take_while(|set| set.made <= self.durable).count();
        let late = pending.sets.split_off(on_disk);
        let is_needed = !pending.sets.is_empty()
            || self.accepted.as_ref().is_none_or(|accepted| {
                (&accepted.base, &accepted.overrides) != (&pending.base, &pending.before)
            });
        if late.is_empty() {
            self.pending = Some(pending);
        } else if is_needed {
            let revision = self.next_revision();
            self.pending = Some(Pending { revision, started: None, made: self.version, ..pending });
        }
        late
    }

    /// Makes what waits pending: the first one while a process runs, else all.
    fn promote<E: Display>(&mut self, check: Check<'_, E>) {
        while self.pending.is_none() || self.running.is_none() {
            let Some(set) = self.waiting.pop_front() else { return };
            self.touch();
            let (base, overrides) = self.expected();
            let fits = overrides
                .with(&set.changes)
                .and_then(|overrides| overrides.over(&base))
                .map_err(|err| err.to_string())
                .and_then(|values| check(&values.to_value()).map_err(|err| err.to_string()));
            if let Err(reason) = fits {
                let in_force = self.newest_edition().revision;
                self.settle(set.request, Outcome::Refused { revision: None, reason, in_force });
                continue;
            }
            let revision = self.next_revision();
            let made = self.version;
            match &mut self.pending {
                Some(pending) => {
                    pending.revision = revision;
                    pending.made = made;
                    pending.started = None;
                    pending.sets.push(set);
                }
                None => {
                    let sets = vec![set];
                    self.pending =
                        Some(Pending { revision, base, before: overrides, sets, started: None, made });
                }
            }
        }
    }

    fn settle(&mut self, request: RequestId, outcome: Outcome) {
        while self.outcomes.len() >= MAX_OUTCOMES {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back((request, outcome.clone()));
        self.tell(Notice::Settled { request, outcome });
    }
}
