//! What a revision is made of.

use serde::{Deserialize, Serialize};
use watchdog_protocol::{Incarnation, RequestId, Revision};

use super::history::Author;
use super::{Version, first_version};
use crate::values::{Change, Overrides, PathError, Values};

/// The values of one revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Edition {
    pub(super) revision: Revision,
    pub(super) base: Values,
    pub(super) overrides: Overrides,
}

/// The revision that waits for its verdict.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) revision: Revision,
    pub(super) base: Values,
    /// Before its sets.
    pub(super) before: Overrides,
    pub(super) sets: Vec<Set>,
    /// Who started with it.
    pub(super) started: Option<Incarnation>,
    #[serde(skip, default = "first_version")]
    pub(super) made: Version,
}

/// A set, unset or rollback. What has a default was added to the record later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Set {
    pub(super) request: RequestId,
    pub(super) changes: Vec<Change>,
    #[serde(default)]
    pub(super) author: Author,
    /// Only if this is the newest revision when its turn comes.
    #[serde(default)]
    pub(super) on: Option<Revision>,
    /// The one it made; [`Revision::NONE`] while it waits.
    #[serde(default)]
    pub(super) revision: Revision,
    /// One that was found on disk may have been acknowledged by an older core: it is never withdrawn.
    #[serde(skip)]
    pub(super) made: Version,
}

#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) incarnation: Incarnation,
    /// What it started with, or accepted last as far as a new core knows; `None` once it refused that.
    pub(super) holds: Option<Revision>,
    /// The values of that, where this core knows them.
    pub(super) values: Option<Values>,
    /// What was delivered to it since it started, or since this core knows it.
    pub(super) sent: Option<Revision>,
    pub(super) is_ready: bool,
}

impl Edition {
    pub(super) fn values(&self) -> Values {
        self.overrides.over(&self.base).expect("checked when the revision was made")
    }
}

impl Set {
    /// What is set once it came to this. A rollback leaves nothing of what was set before.
    pub(super) fn upon(&self, overrides: &Overrides) -> Result<Overrides, PathError> {
        match self.author {
            Author::Rollback { .. } => Ok(overrides.only(&self.changes, self.revision)),
            Author::Unknown | Author::File | Author::Set(_) | Author::Fallback { .. } => {
                overrides.with(&self.changes, self.revision)
            }
        }
    }
}

impl Pending {
    pub(super) fn overrides(&self) -> Overrides {
        self.sets
            .iter()
            .try_fold(self.before.clone(), |overrides, set| set.upon(&overrides))
            .expect("checked when each set joined")
    }

    pub(super) fn edition(&self) -> Edition {
        Edition { revision: self.revision, base: self.base.clone(), overrides: self.overrides() }
    }
}
