//! What must survive a restart of the watchdog beside states: settings and their verdicts, what the operator
//! wants, registrations. JSON in the envelope of a state file, saved and found again in the same way.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchdog_protocol::{Incarnation, Sequence};

use super::envelope::{self, Kind};
use super::kept;
pub use super::kept::{LoadError, Loaded, SetAside};
use super::replace::{ReplaceError, replace_keeping};
use super::writer::Change;

/// Of the records' content. It stays 1 as long as fields are only added, each with a default.
const VERSION: u32 = 1;

/// Why a record was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file itself.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Whole, but not a record of this kind.
    #[error("{path:?} is whole but holds something else than expected")]
    Content {
        /// Which file.
        path: PathBuf,
        /// In what way.
        #[source]
        source: serde_json::Error,
    },
}

/// Where the record of this name lies.
pub fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.record"))
}

/// The change that saves a record, for [`Writer::put`](super::writer::Writer::put) at [`path`].
pub fn saving<T: Serialize>(record: &T) -> Change {
    Change::ReplaceKeeping(encode(record))
}

/// Saves durably and keeps the one before. Blocks; the event loop gives [`saving`] to the writer instead.
///
/// # Errors
/// [`ReplaceError`]; what was there still is.
pub fn save_record<T: Serialize>(folder: &Path, name: &str, record: &T) -> Result<(), ReplaceError> {
    let path = path(folder, name);
    replace_keeping(&path, &kept::previous(&path), &encode(record))
}

/// The newest whole record of this name, as a state is found again.
///
/// # Errors
/// [`RecordError`]; nothing was changed then.
pub fn load_record<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Loaded<T>, RecordError> {
    let path = path(folder, name);
    let parse = |content: &[u8]| {
        serde_json::from_slice(content).map_err(|source| RecordError::Content { path: path.clone(), source })
    };
    Ok(match kept::load(Kind::Record, &path, VERSION)? {
        Loaded::Fresh { set_aside } => Loaded::Fresh { set_aside },
        Loaded::Restored((_, content)) => Loaded::Restored(parse(&content)?),
        Loaded::Recovered { content: (_, content), set_aside } => {
            Loaded::Recovered { content: parse(&content)?, set_aside }
        }
    })
}

/// The names of all records in a folder, in order. No folder: none.
///
/// # Errors
/// Reading the folder.
pub fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        // A record whose newest file was set aside has only the one before.
        if let Some(name) = name.strip_suffix(".record").or_else(|| name.strip_suffix(".record.previous")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let content = serde_json::to_vec(record).expect("records are plain data with text keys");
    envelope::encode(Kind::Record, VERSION, Incarnation::NONE, Sequence::NONE, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_damaged_one_gives_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(load_record::<u32>(folder.path(), "a").unwrap(), Loaded::Fresh { .. }));
        save_record(folder.path(), "a", &1u32).unwrap();
        save_record(folder.path(), "a", &2u32).unwrap();
        assert!(matches!(load_record(folder.path(), "a").unwrap(), Loaded::Restored(2u32)));
        std::fs::write(path(folder.path(), "a"), b"damaged").unwrap();
        assert!(matches!(load_record(folder.path(), "a").unwrap(), Loaded::Recovered { content: 1u32, .. }));
        assert_eq!(names(folder.path()).unwrap(), ["a"]);
    }

    #[test]
    fn a_whole_record_of_something_else_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        save_record(folder.path(), "a", &"text").unwrap();
        let error = load_record::<u32>(folder.path(), "a").unwrap_err();
        assert!(error.to_string().contains("a.record"), "{error}");
    }

    #[test]
    fn the_names_of_a_folder_are_found_and_no_folder_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(names(&folder.path().join("absent")).unwrap().is_empty());
        save_record(folder.path(), "b", &1u32).unwrap();
        save_record(folder.path(), "a", &1u32).unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["a", "b"]);
    }
}
