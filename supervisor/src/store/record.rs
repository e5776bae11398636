//! What must survive a restart of the watchdog beside states: settings and their verdicts, what the operator
//! wants, registrations. JSON in the envelope of a state file, saved and found again in the same way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchdog_protocol::{Incarnation, Sequence};

use super::envelope::{Envelope, Kind};
pub use super::kept::{LoadError, Loaded, SetAside};
use super::writer::Writer;

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

/// The name of the record at `path`; `None`: it is no record of this folder.
pub fn name_of<'a>(folder: &Path, path: &'a Path) -> Option<&'a str> {
    path.strip_prefix(folder).ok()?.to_str()?.strip_suffix(".record")
}

/// The newest whole record of this name, as a state is found again. Blocks.
///
/// # Errors
/// [`RecordError`]; nothing was changed then.
pub fn load<T: DeserializeOwned>(
    writer: &mut Writer,
    folder: &Path,
    name: &str,
) -> Result<Loaded<T>, RecordError> {
    let path = path(folder, name);
    let parse = |content: &[u8]| {
        serde_json::from_slice(content).map_err(|source| RecordError::Content { path: path.clone(), source })
    };
    Ok(match writer.load(Kind::Record, &path, VERSION)?.loaded {
        Loaded::Fresh { set_aside } => Loaded::Fresh { set_aside },
        Loaded::Restored((_, content)) => Loaded::Restored(parse(&content)?),
        Loaded::Recovered { content: (_, content), set_aside } => {
            Loaded::Recovered { content: parse(&content)?, set_aside }
        }
    })
}

/// A record, for [`Writer::put`] at [`path`].
pub(crate) fn envelope<T: Serialize>(record: &T) -> Envelope {
    let content = serde_json::to_vec(record).expect("records are plain data with text keys");
    Envelope {
        kind: Kind::Record,
        version: VERSION,
        incarnation: Incarnation::NONE,
        sequence: Sequence::NONE,
        content: Arc::new(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kept;
    use crate::store::replace::replace_keeping;

    fn save<T: Serialize>(folder: &Path, name: &str, record: &T) {
        let path = path(folder, name);
        replace_keeping(&path, &kept::previous(&path), &[&envelope(record).encode()]).unwrap();
    }

    fn loaded<T: DeserializeOwned>(folder: &Path) -> Result<Loaded<T>, RecordError> {
        load(&mut Writer::open(folder).unwrap().writer, folder, "a")
    }

    #[test]
    fn a_record_comes_back_and_a_damaged_one_gives_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(loaded::<u32>(folder.path()).unwrap(), Loaded::Fresh { .. }));
        save(folder.path(), "a", &1u32);
        save(folder.path(), "a", &2u32);
        assert!(matches!(loaded(folder.path()).unwrap(), Loaded::Restored(2u32)));
        std::fs::write(path(folder.path(), "a"), b"damaged").unwrap();
        assert!(matches!(loaded(folder.path()).unwrap(), Loaded::Recovered { content: 1u32, .. }));
    }

    #[test]
    fn a_whole_record_of_something_else_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "a", &"text");
        let error = loaded::<u32>(folder.path()).unwrap_err();
        assert!(error.to_string().contains("a.record"), "{error}");
    }
}
