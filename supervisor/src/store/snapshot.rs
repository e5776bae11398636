//! State files: `state/SERVICE.snapshot`, the one before beside it as `.snapshot.previous`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use watchdog_protocol::{Incarnation, Sequence, ServiceName};

use super::envelope::{self, Damage, Header, Kind};
use super::kept;
pub use super::kept::{LoadError, Loaded, SetAside};
use super::replace::ReplaceError;
use super::writer::{Found, Writer};

/// One state of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The service's `State::VERSION` when it wrote it.
    pub version: u32,
    /// Which process wrote it.
    pub incarnation: Incarnation,
    /// Its number.
    pub sequence: Sequence,
    /// The encoded state.
    pub content: Vec<u8>,
}

/// The bytes of a state file, as `watchdog state export` writes them too.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let Snapshot { version, incarnation, sequence, content } = snapshot;
    envelope::encode(Kind::State, *version, *incarnation, *sequence, content)
}

/// The state in the bytes of a state file.
///
/// # Errors
/// [`Damage`].
pub fn decode(bytes: &[u8]) -> Result<Snapshot, Damage> {
    let (header, content) = envelope::decode(Kind::State, bytes)?;
    Ok(unpack((header, content.to_vec())))
}

/// Where the newest state of a service lies.
pub fn path(folder: &Path, service: &ServiceName) -> PathBuf {
    folder.join(format!("{service}.snapshot"))
}

/// The service whose state lies at `path`; `None`: it is no state file of this folder.
pub fn service_of(folder: &Path, path: &Path) -> Option<ServiceName> {
    path.strip_prefix(folder).ok()?.to_str()?.strip_suffix(".snapshot")?.parse().ok()
}

/// The newest whole state of a service that knows versions up to `known`: the newest, else the one before, else
/// nothing. Blocks.
///
/// # Errors
/// [`LoadError`].
pub fn load(
    writer: &mut Writer,
    folder: &Path,
    service: &ServiceName,
    known: u32,
) -> Result<Found<Snapshot>, LoadError> {
    Ok(writer.load(Kind::State, &path(folder, service), known)?.map(unpack))
}

/// Puts the state out of use: the next start is a fresh one. The newest whole one stays beside it as
/// `.snapshot.reset`, in the place of an earlier one.
///
/// # Errors
/// [`ReplaceError`].
pub fn reset(folder: &Path, service: &ServiceName) -> Result<(), ReplaceError> {
    use super::replace::{Step, remove};
    let newest = path(folder, service);
    let aside = kept::with_suffix(&newest, "reset");
    let before = kept::previous(&newest);
    // The one before first: a kill in between leaves the newest in force, not the one before it.
    if newest.exists() {
        remove(&before)?;
    }
    for from in [&newest, &before] {
        match fs::rename(from, &aside) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ReplaceError { step: Step::Remove, path: from.clone(), source }),
        }
    }
    super::replace::sync_folder(&newest)
}

/// What `watchdog state show` tells of a state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What it says of itself.
    pub header: Header,
    /// When it was written, by the wall clock.
    pub written: SystemTime,
}

/// Why a state file can't be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// It can't be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is damaged or of a newer watchdog.
    #[error("{path:?} is not a whole state file")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In what way.
        #[source]
        source: Damage,
    },
}

/// What a state file says of itself; `None`: there is none. Changes nothing.
///
/// # Errors
/// [`DescribeError`].
pub fn describe(path: &Path) -> Result<Option<Description>, DescribeError> {
    let read =
        || -> io::Result<(Vec<u8>, SystemTime)> { Ok((fs::read(path)?, fs::metadata(path)?.modified()?)) };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DescribeError::Read { path: path.to_owned(), source }),
        Ok((bytes, written)) => match envelope::decode(Kind::State, &bytes) {
            Ok((header, _)) => Ok(Some(Description { header, written })),
            Err(source) => Err(DescribeError::Damaged { path: path.to_owned(), source }),
        },
    }
}

fn unpack((header, content): (Header, Vec<u8>)) -> Snapshot {
    let Header { version, incarnation, sequence, length: _ } = header;
    Snapshot { version, incarnation, sequence, content }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::replace::replace_keeping;

    fn counter() -> ServiceName {
        "counter".parse().unwrap()
    }

    fn state(sequence: u64, content: &[u8]) -> Snapshot {
        Snapshot {
            version: 2,
            incarnation: Incarnation::FIRST,
            sequence: Sequence::from_stored(sequence),
            content: content.to_vec(),
        }
    }

    fn save(folder: &Path, state: &Snapshot) {
        let path = path(folder, &counter());
        replace_keeping(&path, &kept::previous(&path), &[&encode(state)]).unwrap();
    }

    /// By a core of its own.
    fn load(folder: &Path, service: &ServiceName, known: u32) -> Result<Loaded<Snapshot>, LoadError> {
        let mut writer = Writer::open(folder).unwrap().writer;
        super::load(&mut writer, folder, service, known).map(|found| found.loaded)
    }

    fn saved(contents: &[&[u8]]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, content) in (1..).zip(contents) {
            save(folder.path(), &state(number, content));
        }
        folder
    }

    #[test]
    fn nothing_saved_is_fresh_and_what_is_saved_is_restored() {
        let folder = saved(&[]);
        assert!(
            matches!(load(folder.path(), &counter(), 2).unwrap(), Loaded::Fresh { set_aside } if set_aside.is_empty())
        );
        let folder = saved(&[b"one", b"two"]);
        let Loaded::Restored(found) = load(folder.path(), &counter(), 2).unwrap() else {
            panic!("not restored")
        };
        assert_eq!(found, state(2, b"two"));
    }

    #[test]
    fn a_damaged_newest_gives_the_one_before_and_is_set_aside_never_deleted() {
        let folder = saved(&[b"one", b"two"]);
        let newest = path(folder.path(), &counter());
        fs::write(&newest, b"").unwrap();
        let loaded = load(folder.path(), &counter(), 2).unwrap();
        assert_eq!(loaded.set_aside()[0].was, newest);
        assert_eq!(loaded.set_aside()[0].now, folder.path().join("counter.snapshot.bad-1"));
        let Loaded::Recovered { content, .. } = loaded else { panic!("not recovered") };
        assert_eq!(content, state(1, b"one"));
        assert!(folder.path().join("counter.snapshot.bad-1").exists());
        // The next save must not push the good one out for the bad one.
        save(folder.path(), &state(2, b"again"));
        fs::write(&newest, b"x").unwrap();
        assert_eq!(load(folder.path(), &counter(), 2).unwrap().content().unwrap(), state(1, b"one"));
        assert!(folder.path().join("counter.snapshot.bad-2").exists());
    }

    #[test]
    fn both_damaged_is_fresh_with_both_set_aside() {
        let folder = saved(&[b"one", b"two"]);
        fs::write(path(folder.path(), &counter()), [0; 64]).unwrap();
        fs::write(folder.path().join("counter.snapshot.previous"), b"short").unwrap();
        let Loaded::Fresh { set_aside } = load(folder.path(), &counter(), 2).unwrap() else {
            panic!("not fresh")
        };
        assert_eq!(set_aside.len(), 2);
    }

    #[test]
    fn a_newer_version_is_refused_and_nothing_changes() {
        let folder = saved(&[b"one", b"two"]);
        let error = load(folder.path(), &counter(), 1).unwrap_err();
        assert!(matches!(error, LoadError::NewerVersion { found: 2, known: 1, .. }), "{error}");
        // Also when it is the one before that is newer and the newest is damaged: nothing is renamed.
        fs::write(path(folder.path(), &counter()), b"damaged").unwrap();
        assert!(matches!(load(folder.path(), &counter(), 1), Err(LoadError::NewerVersion { .. })));
        assert_eq!(fs::read(path(folder.path(), &counter())).unwrap(), b"damaged");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_taken_for_damaged() {
        let folder = saved(&[b"one", b"two"]);
        crate::store::plan(1, Some("read"), crate::store::Fault::Errno(nix::libc::EIO));
        assert!(matches!(load(folder.path(), &counter(), 2), Err(LoadError::Read { .. })));
        assert_eq!(load(folder.path(), &counter(), 2).unwrap().content().unwrap(), state(2, b"two"));
    }

    #[test]
    fn what_is_written_anew_changes_neither_the_state_nor_the_one_before() {
        let folder = saved(&[b"one", b"two"]);
        assert_eq!(load(folder.path(), &counter(), 2).unwrap().content().unwrap(), state(2, b"two"));
        fs::remove_file(path(folder.path(), &counter())).unwrap();
        assert_eq!(load(folder.path(), &counter(), 2).unwrap().content().unwrap(), state(1, b"one"));
    }

    #[test]
    fn a_reset_is_a_fresh_start_and_keeps_the_last_state_beside() {
        let folder = saved(&[b"one", b"two"]);
        reset(folder.path(), &counter()).unwrap();
        assert!(matches!(load(folder.path(), &counter(), 2).unwrap(), Loaded::Fresh { .. }));
        let kept = decode(&fs::read(folder.path().join("counter.snapshot.reset")).unwrap()).unwrap();
        assert_eq!(kept, state(2, b"two"));
        reset(folder.path(), &counter()).unwrap();
    }

    #[test]
    fn a_description_tells_the_header_and_changes_nothing() {
        let folder = saved(&[]);
        let path = path(folder.path(), &counter());
        assert_eq!(describe(&path).unwrap(), None);
        save(folder.path(), &state(1, b"one"));
        let told = describe(&path).unwrap().unwrap();
        assert_eq!((told.header.version, told.header.sequence.get(), told.header.length), (2, 1, 3));
        fs::write(&path, b"damaged").unwrap();
        assert!(matches!(describe(&path), Err(DescribeError::Damaged { .. })));
        assert!(path.exists());
    }
}
