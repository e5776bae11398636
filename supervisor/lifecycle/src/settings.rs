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
//! - A **rollback** is a set whose values are those of an older revision.
//! - One revision is **pending** at a time. A set that comes while a process has it, or is about to, waits, and is
//!   merged on what is in force then. While no process runs, sets join the pending revision.
//! - The **initial** value of an incarnation is the pending revision, else the one in force. `ready` accepts it.
//! - An end between delivery and verdict refuses it. So a revision that kills its service is tried once. Only when
//!   no other was ever accepted it stays pending: there is nothing to go back to.
//! - Whatever changes the record makes a new **version** of it, which the caller writes down; nothing that must
//!   be durable first leaves by [`SettingsUpdater::notices`] before [`SettingsUpdater::written`] says that it is.
//!
//! - The **history** says who made each of the newest revisions, what it changed and what became of it. It is part of
//!   the record: a revision and its entry are on disk together or not at all.
//! - A set may be made **on** a revision: it is made only if that is the newest still, when it comes and when its turn
//!   comes. Of several on the same one, one is made.
//!
//! Absent: a revision that is used twice; a delivered set that is not on disk; a value in force that nobody
//! accepted.

pub mod history;
mod notice;
mod revision;
mod rollback;
mod set;
mod verdict;

use std::collections::VecDeque;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use watchdog_protocol::{RequestId, Revision};

use self::history::{Author, Entry, History, Ruling};
pub use self::notice::{Notice, Outcome, Refused, SetError, Standing};
use self::revision::{Edition, Pending, Running, Set};
pub use self::rollback::RollbackError;
pub use self::set::Proposal;
use crate::moment::WallTime;
use crate::values::{Overrides, SettingPath, Values};

/// Whether values fit the service's schema, and what they are with its defaults filled in; the error says where and
/// what was expected.
pub type Check<'a, E> = &'a dyn Fn(&Value) -> Result<Value, E>;

/// What everything here is decided with.
pub struct Present<'a, E> {
    /// The schema, as it is now.
    pub check: Check<'a, E>,
    /// For the history.
    pub at: WallTime,
}

impl<E> std::fmt::Debug for Present<'_, E> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Present").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave it: it is the schema's default.
    Default,
    /// The file.
    File,
    /// It was set over the file; since which revision, where that was noted.
    Set {
        /// The revision.
        since: Option<Revision>,
    },
}

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
#[serde(from = "Stored")]
pub struct SettingsUpdater {
    newest: Revision,
    /// What the file said last.
    file: Values,
    accepted: Option<Edition>,
    pending: Option<Pending>,
    waiting: VecDeque<Set>,
    outcomes: VecDeque<(RequestId, Outcome)>,
    refusal: Option<Refused>,
    history: History,
    /// What follows is known to this core only.
    #[serde(skip)]
    running: Option<Running>,
    #[serde(skip)]
    version: Version,
    #[serde(skip)]
    durable: Version,
    #[serde(skip)]
    notices: VecDeque<(Version, Notice)>,
}

/// As it is found on disk, written by this build or an older one.
#[derive(Deserialize)]
struct Stored {
    newest: Revision,
    file: Values,
    accepted: Option<Edition>,
    pending: Option<Pending>,
    waiting: VecDeque<Set>,
    outcomes: VecDeque<(RequestId, Outcome)>,
    refusal: Option<Refused>,
    #[serde(default)]
    history: History,
}

impl From<Stored> for SettingsUpdater {
    fn from(stored: Stored) -> Self {
        let Stored { newest, file, accepted, pending, waiting, outcomes, refusal, history } = stored;
        let mut found = Self {
            newest,
            file,
            accepted,
            pending,
            waiting,
            outcomes,
            refusal,
            history,
            running: None,
            version: first_version(),
            durable: Version::default(),
            notices: VecDeque::new(),
        };
        found.begin_history();
        found
    }
}

/// A record that was just read is not yet known to be on disk: what a dead core left may be in the page cache only.
fn first_version() -> Version {
    Version(1)
}

impl SettingsUpdater {
    /// Made on registration, with the initial value: the table of the configuration, checked against the schema,
    /// whose defaults the service itself fills in.
    pub fn new(file: Values, at: WallTime) -> Self {
        let mut history = History::default();
        let values = [&Values::default(), &file];
        history.enter(Revision::FIRST, Some(at), Author::File, values, Ruling::Pending);
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
            history,
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
    pub fn write_failed<E: Display>(&mut self, reason: &str, present: &Present<'_, E>) {
        self.touch();
        let mut lost = self.take_late(present.at);
        lost.extend(self.waiting.iter().filter(|set| set.made > self.durable).cloned());
        self.waiting.retain(|set| set.made <= self.durable);
        for Set { request, .. } in lost {
            self.notices.retain(|(_, notice)| !notice.is_saved(request));
            let reason = reason.to_owned();
            // No outcome is kept: the same request may be tried again.
            self.notices.push_back((Version::default(), Notice::NotSaved { request, reason }));
        }
        self.promote(present);
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

    /// The file says something else than before, with the next life of the watchdog or a reload: a new revision,
    /// with what was set still over it.
    ///
    /// # Errors
    /// [`SetError`] when what was set does not fit the new file or schema, or a running service has not judged the
    /// pending revision; nothing changed then.
    pub fn file_changed<E: Display>(
        &mut self,
        file: Values,
        present: &Present<'_, E>,
    ) -> Result<Revision, SetError<E>> {
        if file == self.file {
            return Ok(self.newest);
        }
        if let (Some(_), Some(pending)) = (&self.running, &self.pending) {
            return Err(SetError::Busy { waiting: self.waiting.len(), on: pending.revision });
        }
        self.fits(&file, present.check)?;
        let (before, sets) = self.set_over_the_file();
        self.touch();
        let old = self.values();
        self.file = file.clone();
        let revision = self.next_revision();
        self.pending =
            Some(Pending { revision, base: file, before, sets, started: None, made: self.version });
        self.enter(Author::File, &old, present.at);
        Ok(revision)
    }

    /// Whether what was set still fits over this table.
    ///
    /// # Errors
    /// [`SetError`] when it does not.
    pub fn fits<E: Display>(&self, file: &Values, check: Check<'_, E>) -> Result<(), SetError<E>> {
        let (mut overrides, sets) = self.set_over_the_file();
        // Without its sets too: they may be refused or withdrawn, and what is left must fit.
        check(&overrides.over(file)?.to_value()).map_err(SetError::Schema)?;
        for set in &sets {
            overrides = set.upon(&overrides)?;
            check(&overrides.over(file)?.to_value()).map_err(SetError::Schema)?;
        }
        Ok(())
    }

    /// What is set and accepted, and what is set and pending.
    fn set_over_the_file(&self) -> (Overrides, Vec<Set>) {
        match (&self.pending, &self.accepted) {
            (Some(pending), _) => (pending.before.clone(), pending.sets.clone()),
            (None, Some(accepted)) => (accepted.overrides.clone(), Vec::new()),
            (None, None) => (Overrides::default(), Vec::new()),
        }
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

    /// Where each value of the newest revision comes from. `filled` is all of them, with the schema's defaults.
    pub fn origins(&self, filled: &Values) -> Vec<(SettingPath, Origin)> {
        let edition = self.newest_edition();
        let given = edition.values();
        let origin = |path: &SettingPath| match edition.overrides.since(path) {
            _ if given.get(path).is_none() => Origin::Default,
            Some(since) => Origin::Set { since: (since != Revision::NONE).then_some(since) },
            None => Origin::File,
        };
        filled.leaves().into_iter().map(|(path, _)| (path.clone(), origin(&path))).collect()
    }

    /// The newest revisions, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.history.entries()
    }

    /// One of them.
    pub fn find(&self, revision: Revision) -> Option<&Entry> {
        self.history.find(revision)
    }

    /// The values of each of them, newest first.
    pub fn past(&self) -> impl Iterator<Item = (Revision, Values)> {
        self.history.back_from(self.values()).map(|(entry, values)| (entry.revision, values))
    }

    fn newest_edition(&self) -> Edition {
        match (&self.pending, &self.accepted) {
            (Some(pending), _) => pending.edition(),
            (None, Some(accepted)) => accepted.clone(),
            (None, None) => unreachable!("without an accepted revision one is pending: refuse() keeps it"),
        }
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

    /// The newest edition is a new revision; `old` are the values before it.
    fn enter(&mut self, author: Author, old: &Values, at: WallTime) {
        let ruling = if self.pending.is_some() { Ruling::Pending } else { Ruling::Applied };
        let Edition { revision, .. } = self.newest_edition();
        self.history.enter(revision, Some(at), author, [old, &self.values()], ruling);
    }

    /// A record without a history begins one with what it knows.
    fn begin_history(&mut self) {
        if !self.history.is_empty() {
            return;
        }
        let mut old = None;
        let pending = self.pending.as_ref().map(|pending| (pending.edition(), Ruling::Pending));
        for (edition, ruling) in
            self.accepted.clone().map(|edition| (edition, Ruling::Applied)).into_iter().chain(pending)
        {
            let values = edition.values();
            // What the first one changed is not known.
            let pair = [old.as_ref().unwrap_or(&values), &values];
            self.history.enter(edition.revision, None, Author::Unknown, pair, ruling);
            old = Some(values);
        }
    }
}
