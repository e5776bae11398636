//! The newest revisions: who made each, what it changed, what became of it.
//!
//! A revision is kept as what it changed against the one before, so that a small change of large settings costs
//! little. The values of an older one are found by undoing, from the newest back.
//!
//! Absent: a revision that was withdrawn before it was on disk; two revisions that are both pending.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};
use watchdog_protocol::Revision;
use watchdog_protocol::limits::MAX_SETTINGS;

use crate::cause::Actor;
use crate::moment::WallTime;
use crate::values::{Difference, Values, differences};

/// Revisions that are kept.
pub const MAX_REVISIONS: usize = 50;

/// Bytes of all changed values that are kept: the record is written whole with each revision. One revision changes
/// at most all old values to all new ones, so four of them always fit.
const MAX_BYTES: usize = 8 * MAX_SETTINGS;

/// Who made a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Author {
    /// Not known: a build that kept no history made it.
    #[default]
    Unknown,
    /// What the configuration says, first or changed.
    File,
    /// Somebody set or unset values.
    Set(Actor),
    /// Somebody went back to older values.
    Rollback {
        /// Who.
        by: Actor,
        /// To the values of this revision.
        to: Revision,
    },
    /// The values before, once a revision was refused.
    Fallback {
        /// What was refused.
        refused: Revision,
    },
}

/// What became of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ruling {
    /// It waits for its verdict.
    Pending,
    /// It was in force, or is.
    Applied,
    /// It was not taken.
    Refused {
        /// In the service's words.
        reason: String,
    },
    /// Another was made before any process had it; what it changed is in that one too.
    Superseded {
        /// By this one.
        by: Revision,
    },
}

/// One revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub revision: Revision,
    /// When it was made; `None`: not known.
    pub at: Option<WallTime>,
    /// Who made it.
    pub author: Author,
    /// Against the one before it. Values that the schema fills in are not among them.
    pub changes: Vec<Difference>,
    /// What became of it.
    pub ruling: Ruling,
}

impl fmt::Display for Ruling {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => out.write_str("pending"),
            Self::Applied => out.write_str("applied"),
            Self::Refused { reason } => write!(out, "refused: {reason}"),
            Self::Superseded { by } => write!(out, "superseded by {by}"),
        }
    }
}

impl Entry {
    fn length(&self) -> usize {
        self.changes.iter().map(Difference::length).sum()
    }
}

/// Oldest first. The newest entry is the newest revision.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct History(VecDeque<Entry>);

impl History {
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, revision: Revision) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.revision == revision)
    }

    /// Who made the newest.
    pub(super) fn author(&self) -> Author {
        self.0.back().map_or(Author::Unknown, |entry| entry.author.clone())
    }

    /// A new revision, and the values before and after it.
    pub(super) fn enter(
        &mut self,
        revision: Revision,
        at: Option<WallTime>,
        author: Author,
        values: [&Values; 2],
        ruling: Ruling,
    ) {
        for entry in self.0.iter_mut().filter(|entry| entry.ruling == Ruling::Pending) {
            entry.ruling = Ruling::Superseded { by: revision };
        }
        let changes = differences(values[0], values[1]);
        self.0.push_back(Entry { revision, at, author, changes, ruling });
        let mut length: usize = self.0.iter().map(Entry::length).sum();
        while self.0.len() > MAX_REVISIONS || (length > MAX_BYTES && self.0.len() > 1) {
            length -= self.0.pop_front().map_or(0, |forgotten| forgotten.length());
        }
    }

    /// This became of it.
    pub(super) fn rule(&mut self, revision: Revision, ruling: Ruling) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.revision == revision) {
            entry.ruling = ruling;
        }
    }

    /// Forgets this revision and all after it, and gives the values before it.
    pub(super) fn withdraw(&mut self, from: Revision, newest: Values) -> Values {
        let mut values = newest;
        let stays = self.0.partition_point(|entry| entry.revision < from);
        for entry in self.0.split_off(stays).iter().rev() {
            entry.changes.iter().for_each(|change| values.undo(change));
        }
        if let Some(entry) = self.0.back_mut()
            && matches!(entry.ruling, Ruling::Superseded { by } if by >= from)
        {
            entry.ruling = Ruling::Pending;
        }
        values
    }

    /// Each with its values, newest first.
    pub(super) fn back_from(&self, newest: Values) -> impl Iterator<Item = (&Entry, Values)> {
        let mut values = newest;
        self.0.iter().rev().map(move |entry| {
            let its = values.clone();
            entry.changes.iter().for_each(|change| values.undo(change));
            (entry, its)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(step: u64, text: &str) -> Values {
        Values::new(json!({"step": step, "text": text}).as_object().unwrap().clone())
    }

    fn grown(count: u64, text: impl Fn(u64) -> String) -> (History, Values) {
        let mut history = History::default();
        let mut before = Values::default();
        for step in 1..=count {
            let after = values(step, &text(step));
            let revision = Revision::from_stored(step);
            history.enter(revision, None, Author::File, [&before, &after], Ruling::Applied);
            before = after;
        }
        (history, before)
    }

    #[test]
    fn the_newest_fifty_are_kept_with_the_values_of_each() {
        let (history, newest) = grown(60, |_| "same".into());
        let found: Vec<_> =
            history.back_from(newest).map(|(entry, its)| (entry.revision.get(), its)).collect();
        let expected: Vec<_> = (11..=60).rev().map(|step| (step, values(step, "same"))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn large_values_are_kept_as_far_as_their_bytes_allow_and_four_always() {
        let whole =
            |step| char::from(b'a' + u8::try_from(step % 26).unwrap()).to_string().repeat(MAX_SETTINGS - 100);
        let (history, _) = grown(12, whole);
        assert_eq!(history.entries().map(|entry| entry.revision.get()).collect::<Vec<_>>(), [9, 10, 11, 12]);
    }

    #[test]
    fn what_is_withdrawn_leaves_what_it_came_after_as_it_was() {
        let (mut history, before) = grown(3, |_| "same".into());
        for step in 4..=6 {
            let [one, other] = [step - 1, step].map(|step| values(step, "same"));
            let revision = Revision::from_stored(step);
            history.enter(revision, None, Author::File, [&one, &other], Ruling::Pending);
        }
        assert_eq!(history.withdraw(Revision::from_stored(5), values(6, "same")), values(4, "same"));
        let newest = history.entries().next_back().unwrap();
        assert_eq!((newest.revision.get(), &newest.ruling), (4, &Ruling::Pending));
        assert_eq!(history.withdraw(Revision::from_stored(4), values(4, "same")), before);
    }
}
