//! The operator's side: what is asked for, what waits, what becomes a revision.

use std::fmt::Display;

use watchdog_protocol::limits::MAX_SETTINGS;
use watchdog_protocol::{RequestId, Revision};

use super::history::Author;
use super::revision::{Edition, Pending, Set};
use super::{Notice, Outcome, Present, SetError, SettingsUpdater};
use crate::cause::Actor;
use crate::moment::WallTime;
use crate::values::Change;

/// Outcomes kept for repeated requests. Whoever repeats does so within seconds; this many sets of one service
/// take longer.
const MAX_OUTCOMES: usize = 256;

/// Sets that may wait for one verdict. More come only from a loop that does not look at its answers.
const MAX_WAITING: usize = 64;

/// Who asks for a change, and when it is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The same one again is told what became of the first.
    pub request: RequestId,
    /// For the history.
    pub by: Actor,
    /// Only if this is the newest revision; `None`: whichever is.
    pub on: Option<Revision>,
}

impl SettingsUpdater {
    /// Changes several keys, all or none.
    ///
    /// The answer is [`Notice::Saved`], once it is on disk, also to a request that was made before.
    ///
    /// # Errors
    /// [`SetError`]; nothing changed then.
    pub fn set<E: Display>(
        &mut self,
        proposal: Proposal,
        changes: Vec<Change>,
        present: &Present<'_, E>,
    ) -> Result<(), SetError<E>> {
        if self.is_told_again(proposal.request) {
            return Ok(());
        }
        self.is_on(proposal.on)?;
        if changes.is_empty() {
            return Err(SetError::Empty);
        }
        self.propose(proposal.request, Author::Set(proposal.by), proposal.on, changes, present)
    }

    /// A request that was made before gets its answer once more.
    pub(super) fn is_told_again(&mut self, request: RequestId) -> bool {
        let outcome = self.outcome(request);
        let is_known = outcome.is_some();
        if let Some(outcome) = outcome {
            self.tell(Notice::Saved { request, outcome });
        }
        is_known
    }

    /// What waits will change something, though it has no revision yet: whoever comes after it is too late.
    pub(super) fn is_on<E>(&self, on: Option<Revision>) -> Result<(), SetError<E>> {
        let (newest, waiting) = (self.newest_edition().revision, self.waiting.len());
        match on {
            Some(on) if on != newest || waiting > 0 => Err(SetError::Moved { on, newest, waiting }),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn propose<E: Display>(
        &mut self,
        request: RequestId,
        author: Author,
        on: Option<Revision>,
        changes: Vec<Change>,
        present: &Present<'_, E>,
    ) -> Result<(), SetError<E>> {
        let mut set = Set { request, changes, author, on, revision: Revision::NONE, made: self.version };
        // As if all that waits were accepted: that is what the caller sees and means to change.
        let Edition { base, mut overrides, .. } = self.newest_edition();
        for waiting in &self.waiting {
            // One that no longer fits is refused when its turn comes.
            overrides = waiting.upon(&overrides).unwrap_or(overrides);
        }
        let values = set.upon(&overrides)?.over(&base)?;
        let length = values.to_json().len();
        if length > MAX_SETTINGS {
            return Err(SetError::Long { length });
        }
        (present.check)(&values.to_value()).map_err(SetError::Schema)?;
        if self.waiting.len() >= MAX_WAITING {
            return Err(SetError::Busy { waiting: MAX_WAITING, on: self.newest });
        }
        self.touch();
        set.made = self.version;
        self.waiting.push_back(set);
        self.promote(present);
        let outcome = self.outcome(request).unwrap_or(Outcome::Waiting);
        self.tell(Notice::Saved { request, outcome });
        Ok(())
    }

    /// Takes the sets that are not on disk out of the pending revision, which is then another one, or none.
    pub(super) fn take_late(&mut self, at: WallTime) -> Vec<Set> {
        let Some(pending) = &mut self.pending else { return Vec::new() };
        let newest = pending.edition().values();
        // They came last, so what stays does not build on them.
        let on_disk = pending.sets.iter().take_while(|set| set.made <= self.durable).count();
        let late = pending.sets.split_off(on_disk);
        let Some(first) = late.first().map(|set| set.revision) else { return Vec::new() };
        let unchanged = self.accepted.as_ref().filter(|accepted| {
            pending.sets.is_empty()
                && (&accepted.base, &accepted.overrides) == (&pending.base, &pending.before)
        });
        if let Some(accepted) = unchanged {
            self.history.withdraw(accepted.revision.next(), newest);
            self.pending = None;
            // All it knew may have been withdrawn.
            self.begin_history();
        } else {
            let old = self.history.withdraw(first, newest);
            let author = self.history.author();
            let revision = self.next_revision();
            let made = self.version;
            self.pending =
                self.pending.take().map(|pending| Pending { revision, started: None, made, ..pending });
            self.enter(author, &old, at);
        }
        late
    }

    /// Makes what waits pending: the first one while a process runs, else all.
    pub(super) fn promote<E: Display>(&mut self, present: &Present<'_, E>) {
        while self.pending.is_none() || self.running.is_none() {
            let Some(mut set) = self.waiting.pop_front() else { return };
            self.touch();
            let edition = self.newest_edition();
            let in_force = edition.revision;
            set.revision = self.newest.next();
            if let Some(on) = set.on.take().filter(|on| *on != in_force) {
                self.settle(set.request, Outcome::Overtaken { on, newest: in_force });
                continue;
            }
            let fits = self.renewed(&set, present).and_then(|changes| {
                set.changes = changes;
                let values = set.upon(&edition.overrides)?.over(&edition.base)?;
                (present.check)(&values.to_value()).map(drop).map_err(SetError::Schema)
            });
            if let Err(err) = fits {
                let reason = err.to_string();
                self.settle(set.request, Outcome::Refused { revision: None, reason, in_force });
                continue;
            }
            let old = edition.values();
            let author = set.author.clone();
            let revision = self.next_revision();
            let made = self.version;
            let (base, before, sets) = match self.pending.take() {
                Some(pending) => (pending.base, pending.before, pending.sets),
                None => (edition.base, edition.overrides, Vec::new()),
            };
            let sets = sets.into_iter().chain([set]).collect();
            self.pending = Some(Pending { revision, base, before, sets, started: None, made });
            self.enter(author, &old, present.at);
        }
    }

    pub(super) fn settle(&mut self, request: RequestId, outcome: Outcome) {
        while self.outcomes.len() >= MAX_OUTCOMES {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back((request, outcome.clone()));
        self.tell(Notice::Settled { request, outcome });
    }
}
