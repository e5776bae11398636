//! What a new core must know of the one before it: survives processes, not the host.
//!
//! A file of the runtime folder is replaced atomically and never synced, since after a boot none of it is true
//! any more. It is read by the next core only, so the event loop may write it itself: a page-cache write.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::replace::{ReplaceError, replace_unsynced};

/// Puts `note` at `path` as JSON, whole at every instant.
///
/// # Errors
/// [`ReplaceError`].
pub fn leave<T: Serialize>(path: &Path, note: &T) -> Result<(), ReplaceError> {
    replace_unsynced(path, &serde_json::to_vec(note).expect("notes are plain data with text keys"))
}

/// What the last core left at `path`. Nothing when there is no file, or when it can't be read as a `T`: after a
/// power cut such a file may hold anything, and a start without it is a start after a boot.
///
/// # Errors
/// Reading the file.
pub fn find<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_and_damage_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        assert_eq!(find::<Vec<u32>>(&path).unwrap(), None);
        leave(&path, &[1, 2]).unwrap();
        assert_eq!(find::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2]));
        std::fs::write(&path, b"[1,").unwrap();
        assert_eq!(find::<Vec<u32>>(&path).unwrap(), None);
    }
}
