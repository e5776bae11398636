//! [`Current`]: the file that is being written.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::rotation::Rotation;
use super::tail::{self, Last};
use super::{SinkError, fails};
use crate::format::Format;

/// How often it is looked whether the file still has its name: somebody may have removed or renamed it.
const LOOK: Duration = Duration::from_secs(1);

/// An open file, which ends with a whole line.
#[derive(Debug)]
pub(super) struct Current {
    path: PathBuf,
    file: File,
    length: u64,
    /// Milliseconds since 1970.
    last_write: u64,
    looked: Instant,
    /// A file, and no device or pipe: it has a length and an end.
    is_regular: bool,
}

/// What came of a write.
#[derive(Debug)]
pub(super) struct Written {
    /// So much of what was given is in the file: whole lines.
    pub(super) bytes: usize,
    /// Why it is not all.
    pub(super) error: Option<SinkError>,
}

impl Current {
    /// Opens or makes it, and its folder. What a killed process has left of a line at its end is cut off.
    pub(super) fn open(path: &Path) -> Result<Self, SinkError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| fails("make the folder", folder, &error))?;
        }
        let opening = |error| fails("open", path, &error);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(opening)?;
        let metadata = file.metadata().map_err(opening)?;
        let is_regular = metadata.is_file();
        let mut length = 0;
        if is_regular {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let busy = io::Error::other("another process or output writes to it");
                    return Err(fails("lock", path, &busy));
                }
                // A file system without locks.
                Err(TryLockError::Error(error)) => tracing::debug!(?path, %error, "the file can't be locked"),
            }
            length = tail::cut(&file, metadata.len()).map_err(|error| fails("mend", path, &error))?;
        }
        let last_write = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let last_write = last_write.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { path: path.to_owned(), file, length, last_write, looked: Instant::now(), is_regular })
    }

    /// It is what its name means, as far as one looked lately.
    pub(super) fn is_still(&mut self, path: &Path) -> bool {
        if self.looked.elapsed() < LOOK {
            return true;
        }
        self.looked = Instant::now();
        self.is_named(path)
    }

    pub(super) fn is_named(&self, path: &Path) -> bool {
        let (Ok(here), Ok(there)) = (self.file.metadata(), fs::metadata(path)) else { return false };
        (here.dev(), here.ino()) == (there.dev(), there.ino())
    }

    pub(super) fn last_write(&self) -> u64 {
        self.last_write
    }

    /// How much of these lines it takes; `None`: it is to be rotated.
    pub(super) fn room_for(&self, lines: &[u8], rotation: &Rotation, now: u64) -> Option<usize> {
        if self.is_regular {
            rotation.room_for(lines, self.length, self.last_write, now)
        } else {
            Some(lines.len())
        }
    }

    /// Appends whole lines, all or none of them as far as the file system lets it.
    pub(super) fn write(&mut self, lines: &[u8], now: u64) -> Written {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.length += lines.len() as u64;
                self.last_write = now;
                Written { bytes: lines.len(), error: None }
            }
            Err(error) => {
                let bytes = if self.is_regular { self.undo(lines) } else { 0 };
                Written { bytes, error: Some(fails("write", &self.path, &error)) }
            }
        }
    }

    /// Takes back a write that failed; how much of it is left when that can't be.
    pub(super) fn undo(&mut self, lines: &[u8]) -> usize {
        if self.file.set_len(self.length).is_ok() {
            return 0;
        }
        let length = self.file.metadata().map_or(self.length, |metadata| metadata.len());
        let there =
            usize::try_from(length.saturating_sub(self.length)).unwrap_or(usize::MAX).min(lines.len());
        // The rest of a line is cut off when the file is opened again.
        lines[..there].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
    }

    /// The last record of a service in it.
    pub(super) fn last_of(&self, format: Format, service: &str) -> Result<Option<Last>, SinkError> {
        if !self.is_regular {
            return Ok(None);
        }
        tail::last_of(&self.file, self.length, format, service)
            .map_err(|error| fails("read", &self.path, &error))
    }
}
