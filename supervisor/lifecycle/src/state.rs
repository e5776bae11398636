//! [`StateSaver`]: one service's state, each version of it a sequence that only grows.
//!
//! ```text
//!   update ──► received ──► waits, at most the save interval; not at all when a `save` waits for it
//!                │            │
//!                │ the next   ▼
//!                │ takes its  being written ──► synced: on disk, and so are all before it
//!                └ place         │
//!                                └──► failed: told, and tried again after the save interval, in a new file
//! ```
//!
//! - One write at a time, always of the newest: what is overtaken while it waits is never written.
//! - Only the current incarnation may update, until the next one starts: its last word may be read after its end.
//! - After an end nothing waits. What was never updated is written once too, as sequence 0: the initial value,
//!   which is no change, so a start from it is still a fresh one.
//!
//! Absent: the bytes' meaning; a write of something older than what is on disk.

use std::sync::Arc;
use std::time::Duration;

use watchdog_protocol::session::{StateOrigin, Urgency};
use watchdog_protocol::{Incarnation, Sequence};

use crate::moment::Moment;

/// How far the disk may be behind, unless configured.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// One version of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Who wrote it.
    pub incarnation: Incarnation,
    /// Its number; [`Sequence::NONE`] is the initial value.
    pub sequence: Sequence,
    /// `State::VERSION` of the program that wrote it.
    pub version: u32,
    /// Its content. Shared: it is held, written and sent at the same time.
    pub content: Arc<Vec<u8>>,
}

/// What an incarnation starts with: a `StateHandler` is built from it on the other side of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Where it comes from.
    pub origin: StateOrigin,
    /// The state.
    pub snapshot: Snapshot,
}

/// What the service is answered at once, unless its `save` is being written: then it is answered by the end of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is the newest now, and not on disk.
    Newest,
    /// It was here before: a new core's question, answered twice. On disk it is not yet.
    Again,
    /// It is on disk, or a newer one is.
    Synced,
}

/// Why an update is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It comes from another process than the current one.
    #[error(
        "state {sequence} of incarnation {incarnation} comes too late: incarnation {current} has started"
    )]
    Stale {
        /// Who sent it.
        incarnation: Incarnation,
        /// Its number.
        sequence: Sequence,
        /// The current one.
        current: Incarnation,
    },
    /// Its number is not larger than the newest.
    #[error("state {sequence} is not newer than {newest}")]
    Backwards {
        /// Its number.
        sequence: Sequence,
        /// The newest known.
        newest: Sequence,
    },
}

/// The state of one service. It lives in the core alone: after a takeover the newest comes from disk, and
/// again from the service.
#[derive(Debug, Clone)]
pub struct StateSaver {
    interval: Duration,
    origin: StateOrigin,
    newest: Snapshot,
    current: Incarnation,
    disk: Disk,
    /// Whether the newest has to be written, and when.
    due: Due,
    writing: Option<Sequence>,
    failure: Option<String>,
}

/// What is known to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Nothing,
    Synced { sequence: Sequence, at: Option<Moment> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It is on disk, or not worth a write.
    Never,
    /// Somebody waits.
    Now,
    At(Moment),
}

impl StateSaver {
    /// Made on registration, with the initial value, when nothing is on disk.
    pub fn new(version: u32, initial: Vec<u8>, interval: Duration) -> Self {
        let newest = Snapshot {
            incarnation: Incarnation::NONE,
            sequence: Sequence::NONE,
            version,
            content: Arc::new(initial),
        };
        Self {
            interval,
            origin: StateOrigin::Fresh,
            newest,
            current: Incarnation::NONE,
            disk: Disk::Nothing,
            due: Due::Never,
            writing: None,
            failure: None,
        }
    }

    /// How far the disk may be behind, from the next update on.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Made with what was found on disk, synced anew. An initial value found there is still a fresh start: it is
    /// the program that knows it best.
    pub fn found(self, snapshot: Snapshot, origin: StateOrigin) -> Self {
        let disk = Disk::Synced { sequence: snapshot.sequence, at: None };
        if snapshot.sequence == Sequence::NONE {
            return Self { disk, ..self };
        }
        Self { current: snapshot.incarnation, newest: snapshot, origin, disk, ..self }
    }

    /// As [`found`](Self::found), where it could not be synced anew: it is not on disk, and is written once more.
    pub fn found_unsynced(self, snapshot: Snapshot, origin: StateOrigin, now: Moment) -> Self {
        let due = Due::At(now.after(self.interval));
        Self { disk: Disk::Nothing, due, ..self.found(snapshot, origin) }
    }

    /// What the next incarnation starts with: the newest known, on disk or not.
    pub fn handler(&self) -> Handler {
        Handler { origin: self.origin, snapshot: self.newest.clone() }
    }

    /// An incarnation is about to start, or lives at a takeover: from now on only it may update.
    pub fn started(&mut self, incarnation: Incarnation) {
        self.current = self.current.max(incarnation);
    }

    /// An update arrived. Repeated ones are known by their number.
    ///
    /// # Errors
    /// [`UpdateError`]: it comes from an older incarnation, or its number goes back. Nothing changed then.
    pub fn update(
        &mut self,
        snapshot: Snapshot,
        urgency: Urgency,
        now: Moment,
    ) -> Result<Received, UpdateError> {
        let (incarnation, sequence) = (snapshot.incarnation, snapshot.sequence);
        if incarnation != self.current {
            return Err(UpdateError::Stale { incarnation, sequence, current: self.current });
        }
        let newest = self.newest.sequence;
        let received = if sequence > newest {
            self.newest = snapshot;
            self.origin = StateOrigin::Restored;
            Received::Newest
        } else if self.is_synced(sequence) {
            return Ok(Received::Synced);
        } else if self.writing == Some(sequence) {
            return Ok(Received::Again);
        } else if sequence == newest {
            Received::Again
        } else {
            return Err(UpdateError::Backwards { sequence, newest });
        };
        self.due = match (self.due, urgency) {
            (_, Urgency::Now) | (Due::Now, Urgency::Soon) => Due::Now,
            // The first change counts: a service that updates all the time is written all the same.
            (Due::At(at), Urgency::Soon) => Due::At(at),
            (Due::Never, Urgency::Soon) => Due::At(now.after(self.interval)),
        };
        Ok(received)
    }

    /// What to write now, if anything. It must end with [`synced`](Self::synced) or [`failed`](Self::failed).
    pub fn write(&mut self, now: Moment) -> Option<Snapshot> {
        if self.writing.is_some() {
            return None;
        }
        match self.due {
            Due::Now => {}
            Due::At(at) if at <= now => {}
            Due::At(_) | Due::Never => return None,
        }
        self.due = Due::Never;
        self.writing = Some(self.newest.sequence);
        Some(self.newest.clone())
    }

    /// When to ask for [`write`](Self::write), if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Moment> {
        match (self.writing, self.due) {
            (None, Due::At(at)) => Some(at),
            (None, Due::Now) => Some(Moment::from_nanos(0)),
            (Some(_), _) | (None, Due::Never) => None,
        }
    }

    /// The write is on disk: the service is told this number.
    pub fn synced(&mut self, sequence: Sequence, now: Moment) {
        self.writing = None;
        self.failure = None;
        if !self.is_synced(sequence) || self.disk == Disk::Nothing {
            self.disk = Disk::Synced { sequence, at: Some(now) };
        }
    }

    /// The write failed: the service is told so if it waits. The newest is tried again, in a new file.
    pub fn failed(&mut self, reason: impl Into<String>, now: Moment) {
        self.writing = None;
        self.failure = Some(reason.into());
        // Also when a save waits: the full disk that failed it is not freed by trying faster.
        self.due = Due::At(now.after(self.interval));
    }

    /// The incarnation ended, and its session was read to the end: whatever is not on disk goes there now.
    pub fn ended(&mut self, incarnation: Incarnation) {
        if incarnation == self.current && !self.is_settled() && self.writing != Some(self.newest.sequence) {
            self.due = Due::Now;
        }
    }

    /// The newest is on disk: a stop or shutdown has nothing more to wait for.
    pub fn is_settled(&self) -> bool {
        match self.disk {
            Disk::Nothing => false,
            Disk::Synced { sequence, .. } => sequence >= self.newest.sequence,
        }
    }

    /// Puts another state in place, as the next of the sequence; only while no process lives.
    pub fn import(&mut self, version: u32, content: Vec<u8>) {
        let sequence = self.newest.sequence.next();
        self.newest = Snapshot { incarnation: self.current, sequence, version, content: Arc::new(content) };
        self.origin = StateOrigin::Restored;
        self.due = Due::Now;
    }

    /// The newest known.
    pub fn newest(&self) -> &Snapshot {
        &self.newest
    }

    /// The newest on disk; [`Sequence::NONE`] when there is none.
    pub fn synced_sequence(&self) -> Sequence {
        match self.disk {
            Disk::Nothing => Sequence::NONE,
            Disk::Synced { sequence, .. } => sequence,
        }
    }

    /// When this core wrote it; `None` when it did not.
    pub fn synced_at(&self) -> Option<Moment> {
        match self.disk {
            Disk::Nothing => None,
            Disk::Synced { at, .. } => at,
        }
    }

    /// Why the last write failed, until one succeeds.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn is_synced(&self, sequence: Sequence) -> bool {
        match self.disk {
            Disk::Nothing => false,
            Disk::Synced { sequence: synced, .. } => synced >= sequence,
        }
    }
}
