//! What is told of settings: to the one who set them, to the service, to the event log.

use serde::{Deserialize, Serialize};
use watchdog_protocol::limits::MAX_SETTINGS;
use watchdog_protocol::{Incarnation, RequestId, Revision};

use super::rollback::RollbackError;
use crate::values::PathError;

/// What became of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It waits for the verdict on another.
    Waiting,
    /// Its revision waits for a verdict.
    Pending {
        /// Which.
        revision: Revision,
    },
    /// In force.
    Applied {
        /// Since which revision.
        revision: Revision,
    },
    /// Not taken.
    Refused {
        /// What was refused; `None` when it did not fit any more when its turn came.
        revision: Option<Revision>,
        /// In the service's words, or the schema's.
        reason: String,
        /// What holds instead; the same again when there was nothing to go back to.
        in_force: Revision,
    },
    /// Not made: when its turn came, another revision than the one it was to follow was the newest.
    Overtaken {
        /// The one it was to follow.
        on: Revision,
        /// The newest.
        newest: Revision,
    },
}

/// What the caller is to tell, all of it durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// To the one who set: it is on disk.
    Saved {
        /// Of the set.
        request: RequestId,
        /// Where it stands.
        outcome: Outcome,
    },
    /// To the one who set: this became of it.
    Settled {
        /// Of the set.
        request: RequestId,
        /// Applied, refused or overtaken.
        outcome: Outcome,
    },
    /// To the one who set: it could not be written, nothing changed.
    NotSaved {
        /// Of the set.
        request: RequestId,
        /// Step, path and cause.
        reason: String,
    },
    /// To the service: a new revision. May come again after a takeover, and is then answered again.
    Deliver {
        /// To whom.
        incarnation: Incarnation,
        /// Its number.
        revision: Revision,
        /// All values, as JSON text.
        json: String,
    },
    /// To the event log: this revision is in force.
    InForce {
        /// Which.
        revision: Revision,
    },
    /// To the event log: this revision was refused.
    Refused {
        /// Which.
        revision: Revision,
        /// In the service's words.
        reason: String,
        /// What holds instead.
        in_force: Revision,
    },
}

impl Notice {
    pub(super) fn is_saved(&self, of: RequestId) -> bool {
        matches!(self, Self::Saved { request, .. } if *request == of)
    }
}

/// Why a set is no revision.
#[derive(Debug, thiserror::Error)]
pub enum SetError<E> {
    /// No key at all.
    #[error("nothing to change")]
    Empty,
    /// A key leads nowhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The values do not fit.
    #[error("{0}")]
    Schema(E),
    /// The values are too long.
    #[error("the settings would have {length} bytes, at most {MAX_SETTINGS} are allowed")]
    Long {
        /// As JSON text.
        length: usize,
    },
    /// It was to follow another revision than the newest, or something is about to follow that one.
    #[error("the change was to follow revision {on}, but {}", what_came(*newest, *waiting))]
    Moved {
        /// As asked for.
        on: Revision,
        /// What is there.
        newest: Revision,
        /// Changes that wait for the verdict on that.
        waiting: usize,
    },
    /// There is nothing to go back to.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// Too much waits.
    #[error("{waiting} changes wait for the verdict on revision {on}")]
    Busy {
        /// How many.
        waiting: usize,
        /// The pending revision.
        on: Revision,
    },
}

fn what_came(newest: Revision, waiting: usize) -> String {
    match waiting {
        0 => format!("revision {newest} is the newest"),
        1 => format!("1 change waits for the verdict on revision {newest}"),
        _ => format!("{waiting} changes wait for the verdict on revision {newest}"),
    }
}

/// Where a service's settings stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The newest revision.
    pub revision: Revision,
    /// It waits for its verdict; else it is in force.
    pub is_pending: bool,
    /// The last refusal, as long as its consequence is the newest revision.
    pub refusal: Option<Refused>,
    /// Sets that wait behind it.
    pub waiting: usize,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was refused.
    pub revision: Revision,
    /// In the service's words.
    pub reason: String,
    /// The revision with the values before it.
    pub in_force: Revision,
}
