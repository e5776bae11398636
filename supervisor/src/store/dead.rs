//! Dead letters: `state/dead/SERVICE/ID.letter`, a file each, so that one is moved, put back or dropped without a
//! byte of another.
//!
//! The name is the message's id: moved twice, as by a core that was killed in the middle, it is there once.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use watchdog_protocol::dead::{DeadLetter, WholeDeadLetter};
use watchdog_protocol::limits::{MAX_DEAD_LETTER_BYTES, MAX_DEAD_LETTERS};
use watchdog_protocol::{MessageId, Sequence, ServiceName};

use super::envelope::{self, Kind};
use super::replace::{self, ReplaceError};

const SUFFIX: &str = ".letter";

/// Of the content. It stays 1 as long as fields are only added at its end.
const VERSION: u32 = 1;

/// Why a message was not moved. It is where it was.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no room.
    #[error("the dead letters of `{service}` are full: {letters} with {bytes} bytes")]
    Full {
        /// Whose.
        service: ServiceName,
        /// How many there are.
        letters: usize,
        /// What they take on disk.
        bytes: u64,
    },
    /// The folder.
    #[error("cannot make or read the folder {path:?}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

/// Why a letter was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none of this id.
    #[error("there is no dead letter {id} of `{service}`")]
    Absent {
        /// Whose.
        service: ServiceName,
        /// Which.
        id: MessageId,
    },
    /// The file or folder.
    #[error("cannot read {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no whole letter. It is left as it is.
    #[error("{path:?} is damaged, and left as it is: {damage}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In what way.
        damage: String,
    },
}

pub(crate) fn folder(state: &Path, service: &ServiceName) -> PathBuf {
    state.join("dead").join(service.as_str())
}

fn path(state: &Path, service: &ServiceName, id: MessageId) -> PathBuf {
    folder(state, service).join(format!("{id}{SUFFIX}"))
}

/// Keeps a letter, durably. Blocks for as long as the disk takes.
///
/// # Errors
/// [`MoveError`].
pub fn bury(state: &Path, whole: &WholeDeadLetter) -> Result<(), MoveError> {
    let service = &whole.letter.receiver;
    let folder = folder(state, service);
    let failed = |source| MoveError::Folder { path: folder.clone(), source };
    make(&folder).map_err(failed)?;
    let path = path(state, service, whole.letter.id);
    if !path.exists() {
        let files = files(&folder).map_err(failed)?;
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        if files.len() >= MAX_DEAD_LETTERS || bytes + whole.letter.size > MAX_DEAD_LETTER_BYTES {
            return Err(MoveError::Full { service: service.clone(), letters: files.len(), bytes });
        }
    }
    let content = postcard::to_stdvec(whole).expect("letters hold nothing postcard can't write");
    let last = whole.letter.deaths.last().map(|death| death.incarnation).unwrap_or_default();
    replace::replace(&path, &envelope::encode(Kind::DeadLetter, VERSION, last, Sequence::NONE, &content))?;
    Ok(())
}

/// All letters of a service without their payloads, and what could not be read; in the order they were moved.
///
/// # Errors
/// [`ReadError::Read`] of the folder. None there is none.
pub fn list(state: &Path, service: &ServiceName) -> Result<(Vec<DeadLetter>, Vec<ReadError>), ReadError> {
    let folder = folder(state, service);
    let files = match files(&folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(ReadError::Read { path: folder, source }),
    };
    let (mut letters, mut unread) = (Vec::new(), Vec::new());
    for (path, _) in files {
        match read_file(&path) {
            Ok(whole) => letters.push(whole.letter),
            Err(error) => unread.push(error),
        }
    }
    letters.sort_by_key(|letter| (letter.moved_us, letter.id));
    Ok((letters, unread))
}

/// One letter.
///
/// # Errors
/// [`ReadError`].
pub fn read(state: &Path, service: &ServiceName, id: MessageId) -> Result<WholeDeadLetter, ReadError> {
    read_file(&path(state, service, id)).map_err(|error| match error {
        ReadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ReadError::Absent { service: service.clone(), id }
        }
        other => other,
    })
}

/// Takes a letter away, durably. None there is fine.
///
/// # Errors
/// [`ReplaceError`].
pub fn remove(state: &Path, service: &ServiceName, id: MessageId) -> Result<(), ReplaceError> {
    replace::remove(&path(state, service, id))
}

fn read_file(path: &Path) -> Result<WholeDeadLetter, ReadError> {
    let bytes = fs::read(path).map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
    let damaged = |damage: String| ReadError::Damaged { path: path.to_owned(), damage };
    let (_, content) =
        envelope::decode(Kind::DeadLetter, &bytes).map_err(|error| damaged(error.to_string()))?;
    postcard::from_bytes(content).map_err(|error| damaged(error.to_string()))
}

/// The letters in a folder, and what each takes.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(files)
}

/// Makes the folder and the one above it, durably.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for made in folder.ancestors().skip(1).take(2) {
        fs::File::open(made)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::dead::DeathRecord;
    use watchdog_protocol::{Incarnation, LaneEpoch, MessageNumber};

    use super::*;
    use crate::store::{child_killed_at, killed_at};

    fn whole(number: u64, payload: usize) -> WholeDeadLetter {
        let letter = DeadLetter {
            id: MessageId { epoch: LaneEpoch::from_stored(7), number: MessageNumber::from_stored(number) },
            receiver: "b".parse().unwrap(),
            sender: "a".parse().unwrap(),
            message: Some("Say".into()),
            asked: false,
            size: payload as u64,
            moved_us: number,
            deaths: vec![DeathRecord { incarnation: Incarnation::FIRST, cause: "fell".into() }],
        };
        WholeDeadLetter { letter, payload: vec![7; payload] }
    }

    fn b() -> ServiceName {
        "b".parse().unwrap()
    }

    #[test]
    fn a_letter_moved_twice_is_there_once_until_it_is_removed() {
        let state = tempfile::tempdir().unwrap();
        assert!(list(state.path(), &b()).unwrap().0.is_empty());
        let (one, two) = (whole(1, 3), whole(2, 0));
        for letter in [&two, &one, &one] {
            bury(state.path(), letter).unwrap();
        }
        let (letters, unread) = list(state.path(), &b()).unwrap();
        assert_eq!(letters, [one.letter.clone(), two.letter.clone()]);
        assert!(unread.is_empty());
        assert_eq!(read(state.path(), &b(), one.letter.id).unwrap(), one);
        remove(state.path(), &b(), one.letter.id).unwrap();
        assert!(matches!(read(state.path(), &b(), one.letter.id), Err(ReadError::Absent { .. })));
        assert_eq!(list(state.path(), &b()).unwrap().0, [two.letter]);
    }

    #[test]
    fn full_is_full_but_for_what_is_there_already() {
        let state = tempfile::tempdir().unwrap();
        let large = MAX_DEAD_LETTER_BYTES as usize / 2;
        bury(state.path(), &whole(1, large)).unwrap();
        assert!(matches!(bury(state.path(), &whole(2, large)), Err(MoveError::Full { letters: 1, .. })));
        bury(state.path(), &whole(1, large)).unwrap();
        bury(state.path(), &whole(3, 10)).unwrap();
    }

    #[test]
    fn a_damaged_letter_is_told_of_and_left() {
        let state = tempfile::tempdir().unwrap();
        let one = whole(1, 3);
        bury(state.path(), &one).unwrap();
        let path = path(state.path(), &b(), one.letter.id);
        let mut bytes = fs::read(&path).unwrap();
        bytes[50] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (letters, unread) = list(state.path(), &b()).unwrap();
        assert!(letters.is_empty());
        assert!(matches!(&unread[..], [ReadError::Damaged { .. }]));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    /// Runs itself as a child that is killed before each step in turn.
    #[test]
    fn a_kill_before_any_step_leaves_no_letter_or_a_whole_one() {
        let one = whole(1, 100);
        if let Some(state) = killed_at() {
            bury(Path::new(&state), &one).unwrap();
            return;
        }
        let mut kept = 0;
        for step in 1.. {
            let state = tempfile::tempdir().unwrap();
            let test = "store::dead::tests::a_kill_before_any_step_leaves_no_letter_or_a_whole_one";
            let killed = child_killed_at(test, step, state.path().to_str().unwrap());
            match read(state.path(), &b(), one.letter.id) {
                Ok(found) => {
                    assert_eq!(found, one);
                    kept += 1;
                }
                Err(error) => assert!(matches!(error, ReadError::Absent { .. }), "{error}"),
            }
            if !killed {
                break;
            }
        }
        assert_eq!(kept, 2, "after the rename, and at the end");
    }
}
