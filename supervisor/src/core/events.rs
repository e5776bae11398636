//! The one ordered event log: a JSON line each, numbered without a gap, in `events.jsonl` beside the log files.
//!
//! Entries of a turn of the event loop are written together, when all it decided is under way: writing and printing
//! them takes longer than asking for the next process does. What a core that is killed in between did not write,
//! the next one adds from what the notes say. Two files at most: at its limit the log becomes `events.jsonl.1` and begins
//! anew, its numbers going on.
//!
//! Nothing of it stays in memory: who asks is answered from the files, by a [`View`].

mod view;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use watchdog_lifecycle::{Actor, Occurrence};
use watchdog_protocol::control::Reply;
use watchdog_protocol::status::{EventRecord, Evidence};
use watchdog_protocol::{Incarnation, Revision, Sequence, ServiceName};

use super::{wall_time, words};
use crate::store::lines::{self, Lines};
pub(super) use view::View;

/// Entries that are shown; older ones are in the files. Of those that could not be written, at most so many are held.
const KEPT: usize = 10_000;

/// What an entry about the end of a process says it is.
const ENDED: &str = "ended";

/// What an entry says of a service that was given up.
const FAILED: &str = "failed";

/// How far the log tells of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// Its newest process.
    pub(crate) incarnation: Incarnation,
    /// Also of that one's end.
    pub(crate) is_ended: bool,
    /// Also that the service was given up after it.
    pub(crate) has_failed: bool,
}

/// What an entry is about; its number and time are the log's to give.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) service: Option<ServiceName>,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) what: &'static str,
    pub(crate) cause: Option<String>,
    pub(crate) text: String,
    pub(crate) revision: Option<Revision>,
    pub(crate) sequence: Option<Sequence>,
    pub(crate) evidence: Option<Box<Evidence>>,
}

impl Entry {
    /// About the watchdog itself.
    pub(crate) fn new(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, text: text.into(), ..Self::default() }
    }

    /// About a service.
    pub(crate) fn of(service: &ServiceName, what: &'static str, text: impl Into<String>) -> Self {
        Self { service: Some(service.clone()), ..Self::new(what, text) }
    }

    /// What the lifecycle tells of a service, with all it rests on.
    pub(crate) fn that(service: &ServiceName, occurrence: &Occurrence) -> Self {
        Self {
            service: Some(service.clone()),
            incarnation: occurrence.incarnation(),
            what: occurrence.kind(),
            cause: occurrence.cause().map(|cause| cause.kind().to_owned()),
            text: occurrence.to_string(),
            revision: occurrence.revision(),
            sequence: None,
            evidence: occurrence.evidence().map(Box::new),
        }
    }

    /// About one process of it.
    #[must_use]
    pub(crate) fn at(mut self, incarnation: Incarnation) -> Self {
        self.incarnation = Some(incarnation);
        self
    }

    /// For this reason.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Resting on this.
    #[must_use]
    pub(crate) fn resting_on(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(Box::new(evidence));
        self
    }

    /// Done by this one.
    #[must_use]
    pub(crate) fn by(self, actor: &Actor) -> Self {
        self.resting_on(Evidence { by: Some(actor.to_string()), ..Evidence::default() })
    }

    /// About this settings revision.
    #[must_use]
    pub(crate) fn revision(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct EventLog {
    lines: Lines,
    folder: PathBuf,
    next: u64,
    unwritten: Vec<EventRecord>,
    /// What could not be written.
    lost: VecDeque<EventRecord>,
    followers: Vec<mpsc::Sender<Reply>>,
}

fn path(folder: &Path) -> PathBuf {
    folder.join("events.jsonl")
}

/// The newest entries of the log in this folder, as many as are shown, oldest first; also while nobody writes it. A line
/// that was cut short is left out.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<EventRecord>> {
    lines::read(&path(folder), KEPT)
}

impl EventLog {
    /// Opens the log and goes on where it ended. A last line that was cut short is closed and left.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = path(folder);
        let next = lines::last(&path)?.map_or(1, |last: EventRecord| last.number + 1);
        Ok(Self {
            lines: Lines::open(path)?,
            folder: folder.to_owned(),
            next,
            unwritten: Vec::new(),
            lost: VecDeque::new(),
            followers: Vec::new(),
        })
    }

    /// Adds an entry, to be written by [`write_out`](Self::write_out).
    pub(crate) fn add(&mut self, entry: Entry) {
        self.unwritten.push(EventRecord {
            number: self.next,
            at_us: wall_time().as_micros(),
            service: entry.service,
            incarnation: entry.incarnation,
            what: entry.what.to_owned(),
            cause: entry.cause,
            text: entry.text,
            revision: entry.revision,
            sequence: entry.sequence,
            evidence: entry.evidence,
        });
        self.next += 1;
    }

    /// Something was added and is not written.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Writes what was added, prints it, and tells who follows. A file that can't be written costs the entries their
    /// place on disk: they are held in memory, and the file is tried anew with the next ones.
    pub(crate) fn write_out(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        // The room for a burst goes with it.
        let records = std::mem::take(&mut self.unwritten);
        let written = self.lines.append(records.iter());
        for record in &records {
            let service = record.service.as_ref().map_or("watchdog", ServiceName::as_str);
            if !words::was_said(&record.what) {
                tracing::info!(target: "watchdog", "{service}: {}", record.text);
            }
            // A follower that does not keep up is let go: it asks again from the last number it saw.
            self.followers.retain(|follower| follower.try_send(Reply::Event(record.clone())).is_ok());
        }
        if let Err(err) = written {
            tracing::warn!(target: words::UNNOTED, "cannot write the event log {:?}: {err}", self.lines.path());
            self.lost.extend(records);
            self.lost.drain(..self.lost.len().saturating_sub(KEPT));
        }
    }

    /// All of it up to now, to be read apart from the event loop. Writes out what was added.
    pub(super) fn view(&mut self) -> View {
        self.write_out();
        View { folder: self.folder.clone(), lost: self.lost.iter().cloned().collect(), end: self.next }
    }

    /// How far the log tells of each service that has had a process. Blocks: for a start.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(crate) fn newest(&mut self) -> io::Result<BTreeMap<ServiceName, Told>> {
        let mut newest: BTreeMap<_, Told> = BTreeMap::new();
        for record in self.view().read(0, KEPT)? {
            let Some(service) = record.service else { continue };
            if let Some(incarnation) = record.incarnation {
                let told = newest.entry(service).or_default();
                if incarnation > told.incarnation {
                    *told = Told { incarnation, ..Told::default() };
                }
                told.is_ended |= incarnation == told.incarnation && record.what == ENDED;
            } else if let Some(told) = newest.get_mut(&service) {
                told.has_failed |= record.what == FAILED;
            }
        }
        Ok(newest)
    }

    /// Tells this one of every entry from now on.
    ///
    /// It is told of what is added from now on; what was added before must be written out.
    pub(crate) fn follow(&mut self, follower: mpsc::Sender<Reply>) {
        self.followers.push(follower);
    }
}

impl Drop for EventLog {
    /// What led to the end of a core is worth most.
    fn drop(&mut self) {
        self.write_out();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    #[test]
    fn the_newest_process_of_each_service_is_known_with_its_end_and_failure() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path()).unwrap();
        let (a, b): (ServiceName, ServiceName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let at = |n| Incarnation::from_stored(n);
        for (service, what, incarnation) in
            [(&a, "starting", 1), (&a, ENDED, 1), (&b, "starting", 4), (&b, ENDED, 4), (&a, "starting", 2)]
        {
            log.add(Entry::of(service, what, "").at(at(incarnation)));
        }
        log.add(Entry::of(&b, FAILED, ""));
        let told = |n, is_ended, has_failed| Told { incarnation: at(n), is_ended, has_failed };
        let expected = BTreeMap::from([(a, told(2, false, false)), (b, told(4, true, true))]);
        assert_eq!(log.newest().unwrap(), expected);
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path()).unwrap();
        log.add(Entry::new("started", "one"));
        log.add(Entry::new("started", "two"));
        drop(log);
        let path = folder.path().join("events.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"number\":3,").unwrap();
        let mut log = EventLog::open(folder.path()).unwrap();
        log.add(Entry::new("started", "three"));
        log.write_out();
        let mut log = EventLog::open(folder.path()).unwrap();
        let mut read = |after, last| {
            let seen = log.view().read(after, last).unwrap();
            seen.into_iter().map(|record| (record.number, record.text)).collect::<Vec<_>>()
        };
        let entry = |number, text: &str| (number, text.to_owned());
        assert_eq!(read(0, 100), [entry(1, "one"), entry(2, "two"), entry(3, "three")]);
        assert_eq!(read(0, 1), [entry(3, "three")]);
        assert_eq!(read(2, 9), [entry(3, "three")]);
    }

    #[test]
    fn what_could_not_be_written_is_held_and_shown_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path()).unwrap();
        let add = |log: &mut EventLog, text: &str| {
            log.add(Entry::new("started", text));
            log.write_out();
        };
        add(&mut log, "one");
        // As a disk that takes nothing: what is there can't be opened to append to.
        let path = path(folder.path());
        let aside = folder.path().join("aside");
        log.lines = Lines::closed(path.clone());
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        add(&mut log, "two");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        add(&mut log, "three");
        let until_here = log.view();
        add(&mut log, "four");
        let texts = |view: View| {
            let records = view.read(0, 100).unwrap();
            records.into_iter().map(|record| record.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(until_here), ["one", "two", "three"]);
        assert_eq!(texts(log.view()), ["one", "two", "three", "four"]);
        let mut again = EventLog::open(folder.path()).unwrap();
        assert_eq!(texts(again.view()), ["one", "three", "four"]);
    }
}
