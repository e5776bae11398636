//! A file and the one before it: how they are found again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::before;
use super::envelope::{self, Damage, Header, Kind};

/// The suffix of the one before.
pub(crate) fn previous(path: &Path) -> PathBuf {
    with_suffix(path, "previous")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().expect("a kept file is a file in a folder").to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// A damaged file that was renamed out of the way.
#[derive(Debug, Clone)]
pub struct SetAside {
    /// The name it had.
    pub was: PathBuf,
    /// The name it has now.
    pub now: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What was there to load.
#[derive(Debug)]
pub enum Loaded<T> {
    /// Nothing whole. Without anything set aside: nothing at all.
    Fresh {
        /// The damaged files, if there were any.
        set_aside: Vec<SetAside>,
    },
    /// The newest.
    Restored(T),
    /// The one before, since the newest was damaged, now or at an earlier load that nothing was saved after.
    Recovered {
        /// The one before.
        content: T,
        /// The damaged files.
        set_aside: Vec<SetAside>,
    },
}

impl<T> Loaded<T> {
    /// What was found, whichever it is.
    pub fn content(self) -> Option<T> {
        match self {
            Self::Fresh { .. } => None,
            Self::Restored(content) | Self::Recovered { content, .. } => Some(content),
        }
    }

    /// Where it comes from, as a service is told.
    pub fn origin(&self) -> watchdog_protocol::session::StateOrigin {
        use watchdog_protocol::session::StateOrigin;
        match self {
            Self::Fresh { .. } => StateOrigin::Fresh,
            Self::Restored(_) => StateOrigin::Restored,
            Self::Recovered { .. } => StateOrigin::Recovered,
        }
    }

    /// The damaged files that were set aside.
    pub fn set_aside(&self) -> &[SetAside] {
        match self {
            Self::Restored(_) => &[],
            Self::Fresh { set_aside } | Self::Recovered { set_aside, .. } => set_aside,
        }
    }

    /// What was found, to be looked at.
    pub fn peek(&self) -> Option<&T> {
        match self {
            Self::Fresh { .. } => None,
            Self::Restored(content) | Self::Recovered { content, .. } => Some(content),
        }
    }

    /// Something newer was elsewhere, and is damaged.
    pub(super) fn recovered(self, damaged: impl IntoIterator<Item = SetAside>) -> Self {
        match self {
            Self::Fresh { mut set_aside } => {
                set_aside.extend(damaged);
                Self::Fresh { set_aside }
            }
            Self::Restored(content) => Self::Recovered { content, set_aside: damaged.into_iter().collect() },
            Self::Recovered { content, mut set_aside } => {
                set_aside.extend(damaged);
                Self::Recovered { content, set_aside }
            }
        }
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Loaded<U> {
        match self {
            Self::Fresh { set_aside } => Loaded::Fresh { set_aside },
            Self::Restored(content) => Loaded::Restored(change(content)),
            Self::Recovered { content, set_aside } => {
                Loaded::Recovered { content: change(content), set_aside }
            }
        }
    }
}

/// Nothing was loaded and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read; that is not damage, it may be whole.
    #[error("cannot read {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Written by a newer watchdog.
    #[error("{path:?} was written by a newer watchdog (format {found}); it stays as it is")]
    NewerFormat {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Written by a newer program.
    #[error(
        "{path:?} holds version {found}, newer than {known}, the newest the program knows; it stays as it is"
    )]
    NewerVersion {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest the program knows.
        known: u32,
    },
    /// A damaged file could not be renamed out of the way.
    #[error("cannot set the damaged file {path:?} aside")]
    SetAside {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

enum Candidate {
    Absent,
    Whole(Header, Vec<u8>),
    Damaged(Damage),
}

/// The newest whole one of `path` and the one before it. Damaged ones are renamed to `.bad-N`; all is looked at
/// before anything is renamed, so a refusal changes nothing.
pub(super) fn load(kind: Kind, path: &Path, known: u32) -> Result<Loaded<(Header, Vec<u8>)>, LoadError> {
    let newest = candidate(kind, path, known)?;
    if let Candidate::Whole(header, content) = newest {
        return Ok(Loaded::Restored((header, content)));
    }
    let before = previous(path);
    let previous = candidate(kind, &before, known)?;
    let mut set_aside = Vec::new();
    for (path, candidate) in [(path, newest), (&before, previous)] {
        match candidate {
            Candidate::Absent => {}
            Candidate::Damaged(damage) => {
                let now =
                    aside(path).map_err(|source| LoadError::SetAside { path: path.to_owned(), source })?;
                set_aside.push(SetAside { was: path.to_owned(), now, damage });
            }
            Candidate::Whole(header, content) => {
                return Ok(Loaded::Recovered { content: (header, content), set_aside });
            }
        }
    }
    Ok(Loaded::Fresh { set_aside })
}

fn candidate(kind: Kind, path: &Path, known: u32) -> Result<Candidate, LoadError> {
    let bytes = match before("read").and_then(|()| fs::read(path)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Candidate::Absent),
        Err(source) => return Err(LoadError::Read { path: path.to_owned(), source }),
    };
    match envelope::decode(kind, &bytes) {
        Ok((header, _)) if header.version > known => {
            Err(LoadError::NewerVersion { path: path.to_owned(), found: header.version, known })
        }
        Ok((header, content)) => Ok(Candidate::Whole(header, content.to_vec())),
        Err(Damage::Newer { found }) => Err(LoadError::NewerFormat { path: path.to_owned(), found }),
        Err(damage) => Ok(Candidate::Damaged(damage)),
    }
}

/// Renames a damaged file out of the way.
pub(super) fn aside(path: &Path) -> io::Result<PathBuf> {
    aside_as(path, "bad")
}

/// Renames to the first free `.WORD-N`. Only one process writes in the folder, so free stays free.
pub(crate) fn aside_as(path: &Path, word: &str) -> io::Result<PathBuf> {
    let free = (1u32..)
        .map(|number| with_suffix(path, &format!("{word}-{number}")))
        .find(|name| !name.exists())
        .expect("fewer than four billion of them");
    before("set aside")?;
    fs::rename(path, &free)?;
    Ok(free)
}
