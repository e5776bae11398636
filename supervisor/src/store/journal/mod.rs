//! The journal: what changes often is appended to one file, many changes with one fdatasync, and goes to its own
//! file when there is time.
//!
//! ```text
//!              ┌ Commit: appended, fdatasync ─► acknowledged
//! content ─► journal-N ─┬─ settle: the file and the one before replaced, both folders synced ─► a mark
//!              │        └─ Rotation: what is in no file yet is copied to journal-N+1, synced, then N is removed
//!              └ read again by a new core: `replay`
//! ```
//! A [`Commit`] and a [`Rotation`] are plain data that a thread takes away and brings back; the one that owns the
//! [`Journal`] is the event loop. At most one of both is on its way.
//!
//! Rules, each of which was broken by something once:
//! - A new core trusts no byte for being readable: it may be in the page cache alone. What is in no file is copied to a
//!   new segment, which is synced before anybody is answered.
//! - The same at once after a failed write or fdatasync: the kernel may call the second one of the same file good.
//! - A new segment counts from its record *complete* on, and then alone: there is never a doubt which one does.
//! - A segment is removed only when the next one, or all files, and their folder are synced.
//! - A last write that was cut off is no damage. Everything else that is no record is: the segment is set aside, and
//!   whoever lost its newest content is told so.

mod frame;
mod replay;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) use frame::Newer;
pub(super) use frame::is_recordable;
use frame::{Kind, Marker, Record, SEGMENT_HEAD};
use replay::{Known, Newest, Replay, replay};
pub(super) use segment::Extent;
use segment::{Batch, Segment, make_room};

use super::envelope::{Damage, Envelope};
use super::kept::{self, SetAside};
use super::replace::{ReplaceError, Step, step};

/// A segment this long is emptied into the files. About the same work as a thousand small states in files of their own.
const SIZE: u64 = 4 * 1024 * 1024;

/// Why the journal of a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It can't be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Which file, or the folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A newer watchdog wrote it.
    #[error("{path:?} stays as it is, and nothing is started")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// In what way.
        #[source]
        source: Newer,
    },
}

/// What the event loop knows of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    files: BTreeMap<String, Known<Extent>>,
    /// Any file that nothing was recorded of may have lost its newest content.
    anybodys: bool,
    /// `None`: a new one must be made before anything is appended.
    segment: Option<Segment>,
    /// Segments that count no more once a new one is complete.
    old: Vec<Old>,
    next_number: u64,
    /// How long the segment was when it was made.
    length_at_first: u64,
    /// The length at which the segment is emptied.
    full_at: u64,
    set_aside: Vec<SetAside>,
}

#[derive(Debug, Clone)]
struct Old {
    path: PathBuf,
    is_damaged: bool,
}

/// What the journal knows of a file.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// The file itself counts.
    File {
        /// Its name was synced; else it has to be written anew before anybody is answered for it.
        is_durable: bool,
    },
    /// This counts.
    Journal { newest: &'a Extent, before: Option<&'a Extent> },
}

/// What is recorded of a file.
#[derive(Debug)]
pub(super) enum What {
    /// Its content.
    Content(Envelope),
    /// That the file itself counts.
    Settled,
}

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Commit {
    path: PathBuf,
    file: Arc<File>,
    marker: Marker,
    end: u64,
    room: u64,
    records: Vec<(String, What, bool)>,
    durability: Durability,
}

/// Whether somebody waits for the records of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// They are on disk when it ends.
    Disk,
    /// The next one with [`Disk`](Self::Disk) syncs them too; lost, they cost work, no content.
    Later,
}

/// Records that are appended.
#[derive(Debug)]
pub(super) struct Committed {
    end: u64,
    room: u64,
    contents: Vec<(String, Option<Extent>)>,
}

/// A new segment on its way.
#[derive(Debug)]
pub(super) struct Rotation {
    folder: PathBuf,
    number: u64,
    files: BTreeMap<String, Known<Extent>>,
    old: Vec<Old>,
}

/// A new segment, complete and synced.
#[derive(Debug)]
pub(super) struct Rotated {
    segment: Segment,
    files: BTreeMap<String, Known<Extent>>,
    /// Older segments that are still there.
    left: Vec<Old>,
    set_aside: Vec<SetAside>,
}

/// What was found, and could be made of it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) journal: Journal,
    /// Why there is no new segment yet: everything waits for one.
    pub(super) failed: Option<ReplaceError>,
    /// Bytes of a last write that was cut off.
    pub(super) cut_off: u64,
}

impl Journal {
    /// Reads the journal of a state folder. What is in no file of its own is copied to a new segment, synced before
    /// this returns. Blocks.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then. A disk that takes no new segment is no error: what is known can be
    /// read, and each commit tries again.
    pub(super) fn open(folder: &Path) -> Result<Opened, JournalError> {
        let read = read_all(folder)?;
        let next_number = read.last().map_or(1, |(number, ..)| number + 1);
        // The newest complete one. None is: the first there ever was, or the only one, damaged.
        let counts = read.iter().rposition(|(.., replay)| replay.is_complete).or(read.len().checked_sub(1));
        let mut journal = Self {
            folder: folder.to_owned(),
            files: BTreeMap::new(),
            anybodys: false,
            segment: None,
            old: Vec::new(),
            next_number,
            length_at_first: 0,
            full_at: SIZE,
            set_aside: Vec::new(),
        };
        let mut cut_off = 0;
        for (at, (_, path, replay)) in read.into_iter().enumerate() {
            journal.old.push(Old { path: path.clone(), is_damaged: replay.damaged > 0 });
            if Some(at) == counts {
                let file =
                    File::open(&path).map_err(|source| JournalError::Read { path: path.clone(), source })?;
                let file = Arc::new(file);
                let extent = |place| Extent { segment: path.clone(), file: Arc::clone(&file), place };
                journal.files =
                    replay.files.into_iter().map(|(name, known)| (name, known.map(extent))).collect();
                journal.anybodys = replay.anybodys;
                cut_off = replay.cut_off;
            }
        }
        let is_needed =
            journal.files.values().any(Known::is_live) || journal.old.iter().any(|old| old.is_damaged);
        let failed = if is_needed {
            let rotated = journal.rotation().run();
            rotated.map(|rotated| journal.rotated(rotated)).err()
        } else {
            None
        };
        Ok(Opened { journal, failed, cut_off })
    }

    /// Where the newest content of a file lies.
    pub(super) fn content(&self, file: &str) -> Content<'_> {
        match self.files.get(file).map(|known| &known.newest) {
            Some(Newest::Journal { newest, before }) => Content::Journal { newest, before: before.as_ref() },
            Some(Newest::Settled) => Content::File { is_durable: true },
            Some(Newest::Unsettled) | None => Content::File { is_durable: false },
        }
    }

    /// Something newer of this file was, or may have been, damaged.
    pub(super) fn is_recovered(&self, file: &str) -> bool {
        self.files.get(file).map_or(self.anybodys, |known| known.recovered)
    }

    /// The segments that were set aside when this was opened.
    pub(super) fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }

    /// The files whose newest content is in the journal alone.
    pub(super) fn live(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, known)| known.is_live()).map(|(file, _)| file.as_str())
    }

    /// A new segment must be made before anything is appended.
    pub(super) fn is_without_segment(&self) -> bool {
        self.segment.is_none()
    }

    /// It has grown so long that it is to be emptied.
    pub(super) fn is_full(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.end >= self.full_at)
    }

    /// Something was appended: a new segment would be shorter.
    pub(super) fn is_worn(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.end > self.length_at_first)
    }

    /// It could not be emptied: not tried again before it has grown as much once more.
    pub(super) fn stays_full(&mut self) {
        self.full_at = self.segment.as_ref().map_or(0, |segment| segment.end) + SIZE;
    }

    /// Where the file's newest content lies.
    pub(super) fn where_is(&self, file: &str) -> PathBuf {
        match self.content(file) {
            Content::File { .. } => self.folder.join(file),
            Content::Journal { newest, .. } => newest.segment.clone(),
        }
    }

    /// When it was recorded.
    pub(super) fn recorded_at(&self, file: &str) -> Option<SystemTime> {
        match self.content(file) {
            Content::File { .. } => None,
            Content::Journal { newest, .. } => Some(UNIX_EPOCH + Duration::from_micros(newest.place.at)),
        }
    }

    /// The file itself holds its newest content, durably.
    pub(super) fn settled(&mut self, file: &str) {
        let recovered = self.is_recovered(file);
        self.files.insert(file.to_owned(), Known { newest: Newest::Settled, recovered });
    }

    /// Records to append, for a thread; it ends with [`committed`](Self::committed) or [`failed`](Self::failed).
    ///
    /// # Panics
    /// [Without a segment](Self::is_without_segment).
    pub(super) fn commit(&self, records: Vec<(String, What)>, durability: Durability) -> Commit {
        let Segment { path, file, marker, end, room } =
            self.segment.as_ref().expect("the caller made sure that there is one");
        let with_flag = |(name, what): (String, What)| {
            let recovered = matches!(what, What::Settled) && self.is_recovered(&name);
            (name, what, recovered)
        };
        Commit {
            path: path.clone(),
            file: Arc::clone(file),
            marker: *marker,
            end: *end,
            room: *room,
            records: records.into_iter().map(with_flag).collect(),
            durability,
        }
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        if let Some(segment) = &mut self.segment {
            segment.end = committed.end;
            segment.room = committed.room;
        }
        for (file, extent) in committed.contents {
            let Some(extent) = extent else { continue };
            let known = self.files.remove(&file);
            self.files.insert(file, Known::recorded(known, extent, false));
        }
    }

    /// A commit failed: nothing is appended to that segment ever again.
    pub(super) fn failed(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.old.push(Old { path: segment.path, is_damaged: false });
        }
    }

    /// A new segment to make, for a thread; it ends with [`rotated`](Self::rotated), or failed and changed nothing.
    pub(super) fn rotation(&mut self) -> Rotation {
        let number = self.next_number;
        self.next_number += 1;
        let present =
            self.segment.iter().map(|segment| Old { path: segment.path.clone(), is_damaged: false });
        let old = self.old.iter().cloned().chain(present).collect();
        Rotation { folder: self.folder.clone(), number, files: self.files.clone(), old }
    }

    pub(super) fn rotated(&mut self, rotated: Rotated) {
        let Rotated { segment, files, left, set_aside } = rotated;
        for (file, known) in files {
            // One that was settled meanwhile: its mark goes to the new segment with the next commit.
            let present = self.files.get(&file).is_some_and(Known::is_live);
            if present || !known.is_live() {
                self.files.insert(file, known);
            }
        }
        self.length_at_first = segment.end;
        self.full_at = segment.end + SIZE;
        self.segment = Some(segment);
        self.old = left;
        self.set_aside.extend(set_aside);
    }
}

impl<P> Known<P> {
    fn is_live(&self) -> bool {
        matches!(self.newest, Newest::Journal { .. })
    }

    fn map<Q>(self, place: impl Fn(P) -> Q) -> Known<Q> {
        let newest = match self.newest {
            Newest::Settled => Newest::Settled,
            Newest::Unsettled => Newest::Unsettled,
            Newest::Journal { newest, before } => {
                Newest::Journal { newest: place(newest), before: before.map(place) }
            }
        };
        Known { newest, recovered: self.recovered }
    }
}

impl Commit {
    /// Appends and syncs. Blocks.
    ///
    /// # Errors
    /// [`ReplaceError`]; the segment must not be appended to again.
    pub(super) fn run(self) -> Result<Committed, ReplaceError> {
        let at = now();
        let mut batch = Batch::new(self.marker, self.end);
        let mut contents = Vec::new();
        for (file, what, recovered) in self.records {
            let (kind, content) = match &what {
                What::Content(content) => (Kind::Content, content.encode()),
                What::Settled => (Kind::Settled, Vec::new()),
            };
            let place = batch.push(&Record { kind, recovered, at, file: &file, content: &content });
            let extent = Extent { segment: self.path.clone(), file: Arc::clone(&self.file), place };
            contents.push((file, matches!(what, What::Content(_)).then_some(extent)));
        }
        step(Step::Write, &self.path, || self.file.write_all_at(batch.bytes(), self.end))?;
        let end = batch.end();
        let room = make_room(&self.file, self.marker, end, self.room);
        match self.durability {
            Durability::Disk => step(Step::Sync, &self.path, || self.file.sync_data())?,
            Durability::Later => {}
        }
        Ok(Committed { end, room, contents })
    }
}

impl Rotation {
    /// Makes the segment and removes those before it. Blocks.
    ///
    /// # Errors
    /// [`ReplaceError`]; what counted before still does.
    pub(super) fn run(self) -> Result<Rotated, ReplaceError> {
        let marker = fastrand::u64(..).to_le_bytes();
        let mut batch = Batch::new(marker, SEGMENT_HEAD as u64);
        let mut copied = BTreeMap::new();
        for (file, known) in self.files {
            let mut copy = |extent: &Extent| {
                let content = extent.read()?;
                let record = Record {
                    kind: Kind::Content,
                    recovered: known.recovered,
                    at: extent.place.at,
                    file: &file,
                    content: &content,
                };
                Ok::<_, ReplaceError>(batch.push(&record))
            };
            let newest = match &known.newest {
                Newest::Journal { newest, before } => {
                    let before = before.as_ref().map(&mut copy).transpose()?;
                    Newest::Journal { newest: copy(newest)?, before }
                }
                Newest::Settled => {
                    let recovered = known.recovered;
                    batch.push(&Record {
                        kind: Kind::Settled,
                        recovered,
                        at: now(),
                        file: &file,
                        content: &[],
                    });
                    Newest::Settled
                }
                Newest::Unsettled => continue,
            };
            copied.insert(file, Known { newest, recovered: known.recovered });
        }
        batch.push(&Record { kind: Kind::Complete, recovered: false, at: now(), file: "", content: &[] });
        let segment = Segment::create(&self.folder, self.number, marker, batch.bytes())?;
        let extent = |place| Extent { segment: segment.path.clone(), file: Arc::clone(&segment.file), place };
        let files = copied.into_iter().map(|(file, known)| (file, known.map(extent))).collect();
        let (mut left, mut set_aside) = (Vec::new(), Vec::new());
        for old in self.old {
            let gone = if old.is_damaged {
                let aside = kept::aside(&old.path);
                aside.map(|now| {
                    set_aside.push(SetAside { was: old.path.clone(), now, damage: Damage::Checksum });
                })
            } else {
                step(Step::Remove, &old.path, || fs::remove_file(&old.path)).map_err(|err| err.source)
            };
            match gone {
                Err(err) if err.kind() != io::ErrorKind::NotFound => left.push(old),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Rotated { segment, files, left, set_aside })
    }
}

/// Looks whether a core could [open](Journal::open) the journal of a state folder. Changes nothing.
///
/// # Errors
/// [`JournalError`].
pub(crate) fn check(folder: &Path) -> Result<(), JournalError> {
    let unreadable = |path: &Path, source| JournalError::Read { path: path.to_owned(), source };
    for (_, path) in segment::list(folder).map_err(|source| unreadable(folder, source))? {
        let (mut file, mut head) =
            (File::open(&path).map_err(|source| unreadable(&path, source))?, Vec::new());
        let read = Read::by_ref(&mut file).take(SEGMENT_HEAD as u64).read_to_end(&mut head);
        // The rest is the core's to understand; here, only whether the disk gives it.
        read.and_then(|_| io::copy(&mut file, &mut io::sink()))
            .map_err(|source| unreadable(&path, source))?;
        frame::check(&head).map_err(|source| JournalError::Newer { path, source })?;
    }
    Ok(())
}

/// The newest content of the file at `path`, wherever it lies; `None`: there is none. Of a folder that no watchdog writes
/// to; changes nothing.
///
/// # Errors
/// [`JournalError`].
pub(crate) fn newest(folder: &Path, path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    let read = read_all(folder)?;
    let counts = read.iter().rposition(|(.., replay)| replay.is_complete).or(read.len().checked_sub(1));
    let name = path.strip_prefix(folder).ok().and_then(Path::to_str).unwrap_or_default();
    let recorded = counts.and_then(|at| Some((&read[at].1, read[at].2.files.get(name)?)));
    let (read_from, place) = match recorded {
        Some((segment, Known { newest: Newest::Journal { newest, .. }, .. })) => {
            (segment.as_path(), Some(newest))
        }
        Some(_) | None => (path, None),
    };
    match (fs::read(read_from), place) {
        (Ok(bytes), None) => Ok(Some(bytes)),
        (Ok(bytes), Some(place)) => {
            let start = usize::try_from(place.offset).unwrap_or(usize::MAX);
            Ok(bytes.get(start..start.saturating_add(place.length as usize)).map(<[u8]>::to_vec))
        }
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        (Err(source), _) => Err(JournalError::Read { path: read_from.to_owned(), source }),
    }
}

/// Every segment, oldest first.
fn read_all(folder: &Path) -> Result<Vec<(u64, PathBuf, Replay)>, JournalError> {
    let unreadable = |path: &Path, source| JournalError::Read { path: path.to_owned(), source };
    let segments = segment::list(folder).map_err(|source| unreadable(folder, source))?;
    let read = |(number, path): (u64, PathBuf)| {
        let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
        let replay = replay(&bytes).map_err(|source| JournalError::Newer { path: path.clone(), source })?;
        Ok((number, path, replay))
    };
    segments.into_iter().map(read).collect()
}

/// µs since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
