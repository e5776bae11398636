//! One file of the journal: made, appended to, read from.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statvfs::fstatvfs;

use super::frame::{Marker, Record, SEGMENT_HEAD, append, room, segment_head};
use super::replay::Place;
use crate::store::replace::{ReplaceError, Step, step, sync_folder};

const NAME: &str = "journal-";

/// How much room a segment gets at once. A write within it changes no length, so that its fdatasync is one write of
/// the disk and not two (measured: 109 instead of 159 µs).
const ROOM: u64 = 256 * 1024;

/// A disk with less than this to spare gets no room.
const PLENTY: u64 = 16 * 1024 * 1024;

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) marker: Marker,
    /// Where the next record goes.
    pub(super) end: u64,
    /// Where its room ends.
    pub(super) room: u64,
}

/// A content in a segment. It stays readable after the segment's name is gone.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(super) segment: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) place: Place,
}

impl Extent {
    /// The content.
    ///
    /// # Errors
    /// [`ReplaceError`] with [`Step::Read`].
    pub(crate) fn read(&self) -> Result<Vec<u8>, ReplaceError> {
        let mut content = vec![0; self.place.length as usize];
        step(Step::Read, &self.segment, || self.file.read_exact_at(&mut content, self.place.offset))?;
        Ok(content)
    }
}

/// The segments in a folder, by number.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(NAME)?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

impl Segment {
    /// Makes the segment of this number with these bytes behind its head, durable under its name when this returns.
    pub(super) fn create(
        folder: &Path,
        number: u64,
        marker: Marker,
        records: &[u8],
    ) -> Result<Self, ReplaceError> {
        let path = folder.join(format!("{NAME}{number}"));
        let file = step(Step::Create, &path, || {
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)
        })?;
        let end = (SEGMENT_HEAD + records.len()) as u64;
        let mut room = end;
        let mut made = || {
            let head = segment_head(marker);
            step(Step::Write, &path, || {
                file.write_all_at(&head, 0)?;
                file.write_all_at(records, SEGMENT_HEAD as u64)
            })?;
            room = make_room(&file, marker, end, room);
            step(Step::Sync, &path, || file.sync_all())?;
            sync_folder(&path)
        };
        match made() {
            Ok(()) => Ok(Self { path, file: Arc::new(file), marker, end, room }),
            Err(error) => {
                // It is not complete to whoever finds it, if it can't be removed.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }
}

/// Makes room behind `end`, unless there is some, and says where it ends. For speed alone: none is made on a disk where
/// others may want the place.
pub(super) fn make_room(file: &File, marker: Marker, end: u64, present: u64) -> u64 {
    if end < present {
        return present;
    }
    let free = fstatvfs(file).map_or(0, |disk| disk.blocks_available() * disk.fragment_size());
    if free < PLENTY {
        return end;
    }
    let wanted = (end + 1).next_multiple_of(ROOM);
    match file.write_all_at(&room(marker, end..wanted), end) {
        Ok(()) => wanted,
        Err(_) => end,
    }
}

/// Records that go into a segment together.
#[derive(Debug)]
pub(super) struct Batch {
    marker: Marker,
    start: u64,
    bytes: Vec<u8>,
}

impl Batch {
    pub(super) fn new(marker: Marker, start: u64) -> Self {
        Self { marker, start, bytes: Vec::new() }
    }

    /// Appends a record, and says where its content will lie.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Place {
        let offset = append(&mut self.bytes, self.marker, record);
        let length = u32::try_from(record.content.len()).expect("a record's content is bounded");
        Place { offset: self.start + offset as u64, length, at: record.at }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the next one starts.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}
