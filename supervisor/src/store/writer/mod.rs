//! Durable writes apart from the event loop: a disk that takes five seconds delays an acknowledgement, never a
//! decision.
//!
//! ```text
//! put ─┬─ up to 256 KiB ─► the next commit of the journal, with all others that wait
//!      └─ longer ─────────► its file, on a thread of its own; what that left over is for the next one
//! settle, close, or a journal that is full ─► what is in the journal goes to the files
//! ```
//! One owner, the event loop, [`put`](Writer::put)s contents and awaits [`ended`](Writer::ended). Per file at most one
//! job is on its way, and at most one content waits behind it: the newest, which stands for all it replaced. So the
//! journal and the file never race each other.

mod job;
mod load;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::envelope::Envelope;
use super::journal::{Content, Durability, Journal, JournalError, What, is_recordable};
use super::kept::SetAside;
use super::replace::{ReplaceError, Spare};
use job::{InJournal, Job, JobEnd};
pub use load::Found;

/// Files written at the same time, each on a thread of its own. More would not make a disk faster: its flushes are
/// what takes time, and it gathers them. Fewer would let one slow file system hold up the files of another.
const AT_ONCE: usize = 16;

/// A content longer than this goes to its own file at once: to write it twice would cost more than its two flushes.
const DIRECT: usize = 256 * 1024;

/// What one commit takes at most, unless one content alone is longer: it is held in memory once more.
const COMMIT: usize = 4 * 1024 * 1024;

/// Numbers the contents of one writer, across all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(u64);

/// A content came to its end.
#[derive(Debug)]
pub struct Done {
    /// Of which file.
    pub path: PathBuf,
    /// Every content of this file up to this number has this outcome: those that newer ones replaced included.
    pub up_to: ChangeNumber,
    /// Durable, or why not: then what was there before still is, and nothing repeats it by itself.
    pub outcome: Result<(), Arc<ReplaceError>>,
}

/// Something came to its end.
#[derive(Debug)]
pub enum Ended {
    /// A content.
    Change(Done),
    /// A file was to get what the journal has of it. It stays in the journal when that failed.
    Settled {
        /// Which file.
        path: PathBuf,
        /// Whether it did.
        outcome: Result<(), ReplaceError>,
    },
    /// Work of the journal's own that nobody waits for.
    Journal {
        /// What went wrong; it is tried again with the next content.
        outcome: Result<(), Arc<ReplaceError>>,
    },
}

#[derive(Debug)]
struct Pending {
    content: Envelope,
    number: ChangeNumber,
}

/// The durable writes of one event loop, into one state folder.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    journal: Journal,
    last: u64,
    running: JoinSet<JobEnd>,
    /// Jobs on their way that write a file, not the journal.
    on_files: usize,
    /// A commit or rotation is on its way.
    is_journal_busy: bool,
    /// Every file with a job on its way or a content that waits for one.
    files: HashMap<PathBuf, Option<Pending>>,
    /// Files whose content waits for the next commit.
    for_journal: VecDeque<PathBuf>,
    /// Files whose content waits for a thread.
    for_file: VecDeque<PathBuf>,
    /// What the last long content of each file left over for the next.
    spares: HashMap<PathBuf, Spare>,
    /// Files that are to get what the journal has of them, once nothing of them is on its way.
    to_settle: BTreeSet<PathBuf>,
    /// Files that hold their newest content, and the journal does not know it on disk: with the contents that wait for
    /// it.
    marks: Vec<(PathBuf, Option<ChangeNumber>)>,
    /// Everything in the journal goes to the files, then a new segment begins.
    is_emptying: bool,
    is_closed: bool,
    ended: VecDeque<Ended>,
    /// While many files are loaded.
    listing: Option<load::Listing>,
}

/// What was found in a state folder.
#[derive(Debug)]
pub struct Opened {
    /// Its writer.
    pub writer: Writer,
    /// Why the journal takes nothing yet: it is tried again with each content.
    pub failed: Option<ReplaceError>,
    /// Bytes of a last write that was cut off; nobody was promised anything of it.
    pub cut_off: u64,
}

impl Writer {
    /// Takes over the state folder. What an older core left in the journal is synced anew before this returns. Blocks.
    ///
    /// # Errors
    /// `JournalError`: a journal that can't be read, or one of a newer watchdog. Nothing was changed then.
    pub fn open(folder: &Path) -> Result<Opened, JournalError> {
        let opened = Journal::open(folder)?;
        let writer = Self {
            folder: folder.to_owned(),
            journal: opened.journal,
            last: 0,
            running: JoinSet::new(),
            on_files: 0,
            is_journal_busy: false,
            files: HashMap::new(),
            for_journal: VecDeque::new(),
            for_file: VecDeque::new(),
            spares: HashMap::new(),
            to_settle: BTreeSet::new(),
            marks: Vec::new(),
            is_emptying: false,
            is_closed: false,
            ended: VecDeque::new(),
            listing: None,
        };
        Ok(Opened { writer, failed: opened.failed, cut_off: opened.cut_off })
    }

    /// Segments of the journal that were found damaged.
    pub fn set_aside(&self) -> &[SetAside] {
        self.journal.set_aside()
    }

    /// Gives the file at `path` a new content, durably, as soon as the job before it is done; the one before is kept.
    /// A content that still waits is replaced by this one. Returns at once; must be called within a tokio runtime.
    pub fn put(&mut self, path: &Path, content: Envelope) -> ChangeNumber {
        self.last += 1;
        let number = ChangeNumber(self.last);
        let pending = Some(Pending { content, number });
        match self.files.get_mut(path) {
            Some(waiting) => *waiting = pending,
            None => {
                self.files.insert(path.to_owned(), pending);
                self.enqueue(path);
                self.start();
            }
        }
        number
    }

    /// Has the file get what the journal has of it, once nothing of it is on its way, and keeps no room for another
    /// content.
    pub fn settle(&mut self, path: &Path) {
        if name(&self.folder, path).is_some() {
            self.to_settle.insert(path.to_owned());
            self.start();
        }
    }

    /// No further content of the file is expected: what its last one left over goes. Not needed behind
    /// [`settle`](Self::settle) or [`close`](Self::close).
    pub fn leave_nothing_over(&mut self, path: &Path) {
        if self.spares.contains_key(path) {
            self.settle(path);
        }
    }

    /// Has every file get what the journal has of it, and leaves a journal that holds no content.
    pub fn close(&mut self) {
        if !self.is_closed {
            self.is_closed = true;
            self.empty();
            self.start();
        }
    }

    /// Has every file get what the journal has of it, and begins a journal that holds nothing of before: no core will
    /// read there what a file had once. It is [under way](Self::is_renewing) until then.
    pub fn renew(&mut self) {
        if !self.is_emptying {
            self.empty();
            self.start();
        }
    }

    /// The journal is being renewed.
    pub fn is_renewing(&self) -> bool {
        self.is_emptying
    }

    /// The next thing that came to its end; waits for ever while nothing is on its way. Cancel safe.
    pub async fn ended(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return ended;
            }
            match self.running.join_next().await {
                None => return future::pending().await,
                Some(Ok(end)) => self.take(end),
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(error) => unreachable!("no write is ever cancelled: {error}"),
                },
            }
            self.start();
        }
    }

    /// Something of this file is on its way, or waits to be.
    pub fn is_busy(&self, path: &Path) -> bool {
        let untold = |ended: &Ended| match ended {
            Ended::Change(Done { path: of, .. }) | Ended::Settled { path: of, .. } => of == path,
            Ended::Journal { .. } => false,
        };
        self.files.contains_key(path) || self.to_settle.contains(path) || self.ended.iter().any(untold)
    }

    /// Its newest content is in the journal, and not in the file.
    pub fn is_unsettled(&self, path: &Path) -> bool {
        name(&self.folder, path)
            .is_some_and(|file| matches!(self.journal.content(file), Content::Journal { .. }))
    }

    /// Where its newest content lies.
    pub fn where_is(&self, path: &Path) -> PathBuf {
        name(&self.folder, path).map_or_else(|| path.to_owned(), |file| self.journal.where_is(file))
    }

    /// Nothing is on its way and nothing waits. At the end of a shutdown: [`close`](Self::close), then
    /// `while !writer.is_idle()` await [`ended`](Self::ended).
    pub fn is_idle(&self) -> bool {
        self.files.is_empty()
            && self.to_settle.is_empty()
            && self.marks.is_empty()
            && self.ended.is_empty()
            && self.running.is_empty()
            && !self.is_emptying
    }

    /// The queue of what waits for this file now.
    fn enqueue(&mut self, path: &Path) {
        if self.is_direct(path) {
            self.for_file.push_back(path.to_owned());
        } else {
            self.for_journal.push_back(path.to_owned());
        }
    }

    fn is_direct(&self, path: &Path) -> bool {
        let waiting = self.files.get(path).and_then(Option::as_ref);
        name(&self.folder, path).is_none()
            || waiting.is_some_and(|pending| pending.content.content.len() > DIRECT)
    }

    fn take_pending(&mut self, path: &Path) -> Pending {
        self.files
            .get_mut(path)
            .and_then(Option::take)
            .expect("a queued file has a content that waits, and is queued once")
    }

    fn empty(&mut self) {
        self.is_emptying = true;
        self.to_settle.extend(self.journal.live().map(|file| self.folder.join(file)));
        self.to_settle.extend(self.spares.keys().cloned());
    }

    fn start(&mut self) {
        self.start_files();
        self.start_journal();
    }

    fn start_files(&mut self) {
        for _ in 0..self.for_file.len() {
            if self.on_files >= AT_ONCE {
                return;
            }
            let Some(path) = self.for_file.pop_front() else { break };
            if !self.is_direct(&path) {
                // A shorter one came while it waited.
                self.for_journal.push_back(path);
                continue;
            }
            let Pending { content, number } = self.take_pending(&path);
            let (first, spare) = (self.in_journal(&path), self.spares.remove(&path));
            self.spawn_file(Job::Direct { path, number, content, first, spare });
        }
        let idle: Vec<_> =
            self.to_settle.iter().filter(|path| !self.files.contains_key(*path)).cloned().collect();
        for path in idle {
            if self.on_files >= AT_ONCE {
                return;
            }
            self.to_settle.remove(&path);
            let (contents, spare) = (self.in_journal(&path), self.spares.remove(&path));
            if contents.is_none() && spare.is_none() {
                continue;
            }
            self.files.insert(path.clone(), None);
            self.spawn_file(Job::Settle { path, contents, spare });
        }
    }

    fn in_journal(&self, path: &Path) -> Option<InJournal> {
        match self.journal.content(name(&self.folder, path)?) {
            Content::File { .. } => None,
            Content::Journal { newest, before } => {
                Some(InJournal { newest: newest.clone(), before: before.cloned() })
            }
        }
    }

    fn spawn_file(&mut self, job: Job) {
        self.on_files += 1;
        self.running.spawn_blocking(move || job.run());
    }

    fn start_journal(&mut self) {
        if self.is_journal_busy {
            return;
        }
        if !self.is_emptying && self.journal.is_full() {
            self.empty();
            self.start_files();
        }
        if self.is_emptying && self.to_settle.is_empty() && self.on_files == 0 {
            if self.journal.is_worn() {
                return self.rotate();
            }
            self.is_emptying = false;
        }
        let awaited = !self.for_journal.is_empty() || self.marks.iter().any(|(_, number)| number.is_some());
        if !awaited && self.marks.is_empty() {
            return;
        }
        if !self.journal.is_without_segment() {
            self.commit(if awaited { Durability::Disk } else { Durability::Later });
        } else if awaited {
            self.rotate();
        } else {
            // The segment that is made with the next content holds them.
            self.marks.clear();
        }
    }

    fn rotate(&mut self) {
        let rotation = self.journal.rotation();
        self.is_journal_busy = true;
        self.running.spawn_blocking(move || JobEnd::Rotated(rotation.run()));
    }

    fn commit(&mut self, durability: Durability) {
        let (mut records, mut waiting, mut size) = (Vec::new(), Vec::new(), 0);
        for (path, number) in std::mem::take(&mut self.marks) {
            let file = name(&self.folder, &path).expect("it was in the journal").to_owned();
            records.push((file, What::Settled));
            waiting.extend(number.map(|number| (path, number)));
        }
        for _ in 0..self.for_journal.len() {
            let Some(path) = self.for_journal.pop_front() else { break };
            if self.is_direct(&path) {
                // A longer one came while it waited.
                self.for_file.push_back(path);
                continue;
            }
            let Pending { content, number } = self.take_pending(&path);
            size += content.content.len();
            let file = name(&self.folder, &path).expect("it is not direct").to_owned();
            records.push((file, What::Content(content)));
            waiting.push((path, number));
            if size >= COMMIT {
                break;
            }
        }
        let commit = self.journal.commit(records, durability);
        self.is_journal_busy = true;
        self.running.spawn_blocking(move || JobEnd::Committed { waiting, outcome: commit.run() });
        self.start_files();
    }

    fn take(&mut self, end: JobEnd) {
        match end {
            JobEnd::Committed { waiting, outcome } => {
                self.is_journal_busy = false;
                let outcome = outcome.map(|committed| self.journal.committed(committed)).map_err(Arc::new);
                if outcome.is_err() {
                    self.journal.failed();
                    // At once: what is known to be on disk goes where the next content can.
                    self.rotate();
                }
                if waiting.is_empty() {
                    self.ended.push_back(Ended::Journal { outcome: outcome.clone() });
                }
                for (path, up_to) in waiting {
                    self.change_ended(path, up_to, outcome.clone());
                }
            }
            JobEnd::Rotated(outcome) => {
                self.is_journal_busy = false;
                self.is_emptying = false;
                let outcome = outcome.map(|rotated| self.journal.rotated(rotated)).map_err(Arc::new);
                if let Err(error) = &outcome {
                    self.not_rotated(error);
                }
                self.ended.push_back(Ended::Journal { outcome });
            }
            JobEnd::Direct { path, number, outcome, was_in_journal } => {
                self.on_files -= 1;
                let outcome = outcome.map(|left| {
                    self.spares.extend(left.map(|spare| (path.clone(), spare)));
                    if self.is_closed {
                        self.leave_nothing_over(&path);
                    }
                });
                match (outcome, name(&self.folder, &path)) {
                    (Ok(()), Some(file)) if was_in_journal => {
                        // Not before the journal knows it: a new core would take what it has for the newest.
                        self.journal.settled(file);
                        self.marks.push((path, Some(number)));
                    }
                    (outcome, _) => self.change_ended(path, number, outcome.map_err(Arc::new)),
                }
            }
            JobEnd::Settled { path, outcome, was_in_journal } => {
                self.on_files -= 1;
                if let (true, Ok(()), Some(file)) = (was_in_journal, &outcome, name(&self.folder, &path)) {
                    self.journal.settled(file);
                    self.marks.push((path.clone(), None));
                }
                self.release(&path);
                self.ended.push_back(Ended::Settled { path, outcome });
            }
        }
    }

    /// There is no new segment: without an old one nothing that waits can be kept.
    fn not_rotated(&mut self, error: &Arc<ReplaceError>) {
        if !self.journal.is_without_segment() {
            return self.journal.stays_full();
        }
        for (path, number) in std::mem::take(&mut self.marks) {
            if let Some(number) = number {
                self.change_ended(path, number, Err(Arc::clone(error)));
            }
        }
        for path in std::mem::take(&mut self.for_journal) {
            if self.is_direct(&path) {
                self.for_file.push_back(path);
                continue;
            }
            let Pending { number, .. } = self.take_pending(&path);
            self.change_ended(path, number, Err(Arc::clone(error)));
        }
    }

    fn change_ended(&mut self, path: PathBuf, up_to: ChangeNumber, outcome: Result<(), Arc<ReplaceError>>) {
        self.release(&path);
        self.ended.push_back(Ended::Change(Done { path, up_to, outcome }));
    }

    /// Nothing of the file is on its way any more: what waits is next.
    fn release(&mut self, path: &Path) {
        match self.files.get(path) {
            Some(Some(_)) => self.enqueue(path),
            Some(None) => drop(self.files.remove(path)),
            None => unreachable!("a file stays in the table while a job of it is on its way"),
        }
    }
}

/// What the journal calls a file; `None` for one it can't record.
fn name<'a>(folder: &Path, path: &'a Path) -> Option<&'a str> {
    path.strip_prefix(folder).ok()?.to_str().filter(|file| is_recordable(file))
}
