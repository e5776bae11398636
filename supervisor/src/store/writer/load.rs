//! What a state folder holds of a file: in the journal, or in the file itself.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{DIRECT, Writer, name};
use crate::store::envelope::{self, Damage, Header, Kind};
use crate::store::journal::Content;
use crate::store::kept::{self, LoadError, Loaded};
use crate::store::replace::replace;

/// What was found of a file.
#[derive(Debug)]
pub struct Found<T> {
    /// Its newest whole content.
    pub loaded: Loaded<T>,
    /// It was synced, also under its name; else it is to be written anew before anybody is answered for it.
    pub is_durable: bool,
    /// When it was written, by the wall clock.
    pub written: Option<SystemTime>,
}

impl<T> Found<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { loaded: self.loaded.map(change), is_durable: self.is_durable, written: self.written }
    }
}

/// What is in the folders that files are loaded from, listed once: most services never had a record, and to find that out
/// file by file costs two calls of the kernel for each.
#[derive(Debug, Default)]
pub(super) struct Listing(HashMap<PathBuf, Option<HashSet<OsString>>>);

impl Listing {
    /// Neither the file nor the one before it was there. Of a folder that can't be listed nothing is known.
    fn lacks(&mut self, path: &Path) -> bool {
        let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else { return false };
        if !self.0.contains_key(folder) {
            self.0.insert(folder.to_owned(), names(folder).ok());
        }
        let before = kept::previous(path);
        self.0[folder].as_ref().is_some_and(|names| {
            !names.contains(file) && before.file_name().is_none_or(|before| !names.contains(before))
        })
    }
}

fn names(folder: &Path) -> io::Result<HashSet<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

impl Writer {
    /// Many are loaded next: until [`end_loading`](Self::end_loading), a file that is not in its folder now is taken to
    /// be in none. For a start, when nobody writes.
    pub(crate) fn begin_loading(&mut self) {
        self.listing = Some(Listing::default());
    }

    /// From here on each file is looked for.
    pub(crate) fn end_loading(&mut self) {
        self.listing = None;
    }

    /// The newest whole content of the file at `path`, else the one before, else nothing. Damaged files are renamed
    /// aside, never deleted. What nobody vouches for is written anew first: it may be in the page cache alone, left by
    /// a core that was killed. Blocks.
    ///
    /// # Errors
    /// [`LoadError`]: a file that can't be read, or one of a newer watchdog or service. Nothing was changed then, and
    /// whoever gets it must not put anything in its place.
    pub(crate) fn load(
        &mut self,
        kind: Kind,
        path: &Path,
        known: u32,
    ) -> Result<Found<(Header, Vec<u8>)>, LoadError> {
        let file = name(&self.folder, path);
        let recovered = file.is_some_and(|file| self.journal.is_recovered(file));
        let mut found = match file.map(|file| self.journal.content(file)) {
            Some(Content::Journal { newest, .. }) => {
                let bytes = newest
                    .read()
                    .map_err(|err| LoadError::Read { path: err.path.clone(), source: err.source })?;
                let content = opened(kind, path, known, &bytes)?;
                let written = file.and_then(|file| self.journal.recorded_at(file));
                let is_durable = !self.journal.is_without_segment();
                Found { loaded: Loaded::Restored(content), is_durable, written }
            }
            Some(Content::File { is_durable }) => self.load_file(kind, path, known, is_durable)?,
            None => self.load_file(kind, path, known, false)?,
        };
        if recovered {
            let damaged = self.journal.set_aside().iter().cloned();
            found.loaded = found.loaded.recovered(damaged);
        }
        Ok(found)
    }

    fn load_file(
        &mut self,
        kind: Kind,
        path: &Path,
        known: u32,
        is_durable: bool,
    ) -> Result<Found<(Header, Vec<u8>)>, LoadError> {
        if self.listing.as_mut().is_some_and(|listing| listing.lacks(path)) {
            return Ok(Found {
                loaded: Loaded::Fresh { set_aside: Vec::new() },
                is_durable: true,
                written: None,
            });
        }
        let loaded = kept::load(kind, path, known)?;
        let Some((header, content)) = loaded.peek() else {
            return Ok(Found { loaded, is_durable: true, written: None });
        };
        // Long ones go past the journal, which knows nothing of them.
        let is_durable = (is_durable && content.len() <= DIRECT && matches!(loaded, Loaded::Restored(_)))
            || {
                let bytes =
                    envelope::encode(kind, header.version, header.incarnation, header.sequence, content);
                let settled = replace(path, &bytes).is_ok();
                if let (true, Some(file)) = (settled, name(&self.folder, path)) {
                    self.journal.settled(file);
                    self.marks.push((path.to_owned(), None));
                }
                settled
            };
        let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Ok(Found { loaded, is_durable, written })
    }
}

fn opened(kind: Kind, path: &Path, known: u32, bytes: &[u8]) -> Result<(Header, Vec<u8>), LoadError> {
    match envelope::decode(kind, bytes) {
        Ok((header, _)) if header.version > known => {
            Err(LoadError::NewerVersion { path: path.to_owned(), found: header.version, known })
        }
        Ok((header, content)) => Ok((header, content.to_vec())),
        Err(Damage::Newer { found }) => Err(LoadError::NewerFormat { path: path.to_owned(), found }),
        // Its record was whole a moment ago.
        Err(damage) => {
            let source = io::Error::new(io::ErrorKind::InvalidData, damage);
            Err(LoadError::Read { path: path.to_owned(), source })
        }
    }
}
