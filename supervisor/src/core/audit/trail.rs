//! Where each record of the audit lies, and what is to be done next. Pure: of disks it is told, the time is an argument.
//!
//! ```text
//! record ─► held ─► journal ─┬─ on disk ─► answered
//!            ▲               └─ then it is copied to the file ─► to be read ─► now and then synced ─┐
//!            └── held no more ◄─────────────────────────────────────────────────────────────────────┘
//! ```
//! What is held is the content of a record file, as a service's state is: the journal takes it whole with each commit,
//! the newest stands for all before it. It is short, since the file is synced before it gets long; so it costs the
//! disk what one record alone would, a page or two. A record that the journal can't take is synced in the file before it
//! is answered.
//!
//! A call that is repeated to the next core, since its answer went with the one before, has one record, if that was in
//! the journal: only then may it have been answered.

use std::collections::VecDeque;

use watchdog_lifecycle::Moment;

/// Bytes held at which the file is synced: as long as the journal's commit is of a few pages.
const SYNC: usize = 8 * 1024;

/// Bytes held at most, a few thousand records: what comes while a disk is slow, or the file can't be written.
const HELD: usize = 1024 * 1024;

/// The records that are not known to be on disk in the file, and who waits for theirs.
#[derive(Debug)]
pub(super) struct Trail<A, K> {
    next: u64,
    held: VecDeque<Held>,
    size: usize,
    /// Records of an older core's whose answers may not have got out, each with what its call and result were.
    unsure: Vec<(u64, K)>,
    /// In the order of their records.
    waiting: VecDeque<Waiting<A>>,
    journal: Place,
    file: Place,
    /// All up to this one were written to the file.
    given: u64,
    is_copying: bool,
    /// Only a new file helps.
    is_spoiled: bool,
    /// Up to this one it was tried, and failed.
    tried: u64,
    is_closing: bool,
}

/// A line, and its record's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) line: Vec<u8>,
}

#[derive(Debug)]
struct Waiting<A> {
    number: u64,
    until: Moment,
    answer: A,
}

/// How far a place has come.
#[derive(Debug, Default)]
struct Place {
    /// On disk there, up to this one; or no more, since they are in the file.
    durable: u64,
    /// Not on disk there, up to this one, and nothing that is under way will bring them.
    refused: u64,
    why: String,
}

/// What the file is to be given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) way: Way,
    pub(super) lines: Vec<u8>,
    pub(super) up_to: u64,
}

/// In which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Append,
    /// And then everything that was appended is to be on disk.
    Sync,
    /// The lines that are there already left out, in a new file, on disk.
    Anew,
}

/// Why a record is not on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// So many are held that it was not even taken.
    NoRoom(String),
    Refused(String),
    /// It may still get there.
    Late,
}

impl<A, K: PartialEq> Trail<A, K> {
    /// What an older core left: what the journal has, which of that may not have been answered, and the highest number of
    /// all.
    pub(super) fn found(held: VecDeque<Held>, unsure: Vec<(u64, K)>, newest: u64) -> Self {
        let synced = held.front().map_or(newest, |first| first.number.saturating_sub(1));
        Self {
            next: newest + 1,
            size: held.iter().map(|held| held.line.len()).sum(),
            // What the file has of it may be there for readers alone.
            is_spoiled: !held.is_empty(),
            held,
            unsure,
            waiting: VecDeque::new(),
            journal: Place { durable: newest, ..Place::default() },
            file: Place { durable: synced, ..Place::default() },
            given: newest,
            is_copying: false,
            tried: 0,
            is_closing: false,
        }
    }

    /// What was found there may be gone with the host: nothing was synced anew.
    pub(super) fn with_doubtful_journal(mut self) -> Self {
        self.journal = Place { refused: self.newest(), ..Place::default() };
        self
    }

    /// There is no journal: what is in the file is what there is.
    pub(super) fn without_journal(mut self) -> Self {
        self.journal = Place { refused: u64::MAX, ..Place::default() };
        self
    }

    /// Takes a record; its number is given to `line`. Whoever waits for its answer does so until then. One with the `key`
    /// of a record that is there already, and was not answered, is that one.
    ///
    /// # Errors
    /// There is no room; who waits, if anybody.
    pub(super) fn record(
        &mut self,
        key: &K,
        line: impl FnOnce(u64) -> Vec<u8>,
        answer: Option<A>,
        until: Moment,
    ) -> Result<(), (Option<A>, Lost)> {
        let number = match self.unsure.iter().position(|(_, other)| other == key) {
            Some(at) => self.unsure.swap_remove(at).0,
            None => {
                let line = line(self.next);
                if self.size + line.len() > HELD {
                    return Err((answer, Lost::NoRoom(self.file.why.clone())));
                }
                let number = self.next;
                self.next += 1;
                self.size += line.len();
                self.held.push_back(Held { number, line });
                number
            }
        };
        if let Some(answer) = answer {
            let at = self.waiting.partition_point(|waiting| waiting.number <= number);
            self.waiting.insert(at, Waiting { number, until, answer });
        }
        Ok(())
    }

    /// The highest number that was given.
    pub(super) fn newest(&self) -> u64 {
        self.next - 1
    }

    /// All that the journal is to have.
    pub(super) fn content(&self) -> Vec<u8> {
        self.lines(0, self.newest())
    }

    /// The journal has a content with all up to this one on disk, or can't.
    pub(super) fn journal_ended(&mut self, up_to: u64, outcome: Result<(), String>) {
        self.journal.ended(up_to, outcome);
    }

    /// What the file is to be given now; it ends with [`copied`](Self::copied).
    pub(super) fn next_copy(&mut self) -> Option<Copy> {
        let up_to = self.decided();
        let has_some = self.held.front().is_some_and(|first| first.number <= up_to);
        // What failed is tried again when there is more to write, or somebody depends on it.
        let is_vain = self.is_spoiled && up_to <= self.tried && !self.is_awaited();
        if self.is_copying || is_vain || !has_some {
            return None;
        }
        let wants_sync = self.size >= SYNC || self.is_closing || self.is_awaited();
        let (way, after) = match (self.is_spoiled, wants_sync) {
            (true, _) => (Way::Anew, 0),
            (false, true) => (Way::Sync, self.given),
            (false, false) if self.given < up_to => (Way::Append, self.given),
            (false, false) => return None,
        };
        self.is_copying = true;
        Some(Copy { way, lines: self.lines(after, up_to), up_to })
    }

    /// The file was given what was asked for, or could not.
    pub(super) fn copied(&mut self, way: Way, up_to: u64, outcome: Result<(), String>) {
        self.is_copying = false;
        self.is_spoiled = outcome.is_err();
        match &outcome {
            Ok(()) => self.given = up_to,
            Err(why) => {
                self.tried = up_to;
                self.file.why.clone_from(why);
            }
        }
        match way {
            Way::Append => {}
            Way::Sync | Way::Anew => {
                if outcome.is_ok() {
                    let kept = self.held.iter().take_while(|held| held.number <= up_to).count();
                    self.size -= self.held.drain(..kept).map(|held| held.line.len()).sum::<usize>();
                }
                self.file.ended(up_to, outcome);
            }
        }
    }

    /// Who is to be answered, in order, and whether the record is on disk.
    pub(super) fn answers(&mut self, now: Moment) -> Vec<(A, Result<(), Lost>)> {
        let mut answers = Vec::new();
        while let Some(Waiting { number, until, .. }) = self.waiting.front() {
            let fate = if *number <= self.journal.durable.max(self.file.durable) {
                Ok(())
            } else if *number <= self.journal.refused.min(self.file.refused) {
                Err(Lost::Refused(self.reasons()))
            } else if *until <= now {
                Err(Lost::Late)
            } else {
                break;
            };
            answers.extend(self.waiting.pop_front().map(|waiting| (waiting.answer, fate)));
        }
        answers
    }

    /// When the next one has waited for too long.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.waiting.front().map(|waiting| waiting.until)
    }

    /// Nothing is to be held any more, if the file can be written: what failed is tried once more.
    pub(super) fn close(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.tried = 0;
        }
    }

    /// Nobody waits, and nothing is held that the file could be given. Of one that [closes](Self::close).
    pub(super) fn is_settled(&self) -> bool {
        let is_vain = self.is_spoiled && self.decided() <= self.tried;
        !self.is_copying && self.waiting.is_empty() && (self.held.is_empty() || is_vain)
    }

    /// Somebody waits for a record that the journal can't take.
    fn is_awaited(&self) -> bool {
        let only_the_file = |number: u64| {
            number <= self.journal.refused
                && number > self.journal.durable
                && number > self.file.durable
                && number > self.file.refused
        };
        self.waiting.iter().any(|waiting| only_the_file(waiting.number))
    }

    fn reasons(&self) -> String {
        let why = [&self.journal.why, &self.file.why].into_iter().filter(|why| !why.is_empty());
        why.map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// Up to this one, the journal has them or can't: nothing is read in the file that a core after this one would not know
    /// of.
    fn decided(&self) -> u64 {
        self.journal.durable.max(self.journal.refused).min(self.newest())
    }

    fn lines(&self, after: u64, up_to: u64) -> Vec<u8> {
        let lines = self.held.iter().filter(|held| after < held.number && held.number <= up_to);
        lines.flat_map(|held| held.line.iter().copied()).collect()
    }
}

impl Place {
    fn ended(&mut self, up_to: u64, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.durable = self.durable.max(up_to),
            Err(why) => {
                self.refused = self.refused.max(up_to);
                self.why = why;
            }
        }
    }
}

#[cfg(test)]
mod tests;
