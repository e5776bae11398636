//! What a thread does for the writer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ChangeNumber;
use crate::store::envelope::{self, Damage, Envelope};
use crate::store::journal::{Committed, Extent, Rotated};
use crate::store::kept;
use crate::store::replace::{
    ReplaceError, Spare, Step, replace, replace_both, replace_keeping, replace_reusing, step,
};

/// One file to write.
#[derive(Debug)]
pub(super) enum Job {
    /// A long content; what the journal has goes to the file first, so that it is the one before.
    Direct {
        path: PathBuf,
        number: ChangeNumber,
        content: Envelope,
        first: Option<InJournal>,
        spare: Option<Spare>,
    },
    /// What the journal has. No content is expected: what the last one left over is removed.
    Settle { path: PathBuf, contents: Option<InJournal>, spare: Option<Spare> },
}

/// What the journal has of one file.
#[derive(Debug)]
pub(super) struct InJournal {
    pub(super) newest: Extent,
    pub(super) before: Option<Extent>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum JobEnd {
    Committed {
        waiting: Vec<(PathBuf, ChangeNumber)>,
        outcome: Result<Committed, ReplaceError>,
    },
    Rotated(Result<Rotated, ReplaceError>),
    Direct {
        path: PathBuf,
        number: ChangeNumber,
        outcome: Result<Option<Spare>, ReplaceError>,
        was_in_journal: bool,
    },
    Settled {
        path: PathBuf,
        outcome: Result<(), ReplaceError>,
        was_in_journal: bool,
    },
}

impl Job {
    pub(super) fn run(self) -> JobEnd {
        match self {
            Self::Direct { path, number, content, first, spare } => {
                let outcome =
                    first.as_ref().map_or(Ok(()), |contents| contents.settle(&path)).and_then(|()| {
                        content
                            .with_parts(|parts| replace_reusing(&path, &kept::previous(&path), parts, spare))
                    });
                JobEnd::Direct { path, number, outcome, was_in_journal: first.is_some() }
            }
            Self::Settle { path, contents, spare } => {
                drop(spare);
                let outcome = contents.as_ref().map_or(Ok(()), |contents| contents.settle(&path));
                JobEnd::Settled { path, outcome, was_in_journal: contents.is_some() }
            }
        }
    }
}

impl InJournal {
    /// Puts it into the file, and the one before beside it. Done twice it is the same as once.
    fn settle(&self, path: &Path) -> Result<(), ReplaceError> {
        let newest = self.newest.read()?;
        match step(Step::Read, path, || fs::read(path)) {
            // By a core that was killed before the journal knew it: perhaps not durable under its name.
            Ok(present) if present == newest => return replace(path, &newest),
            Ok(present) => match envelope::damage(&present) {
                None => {}
                Some(newer @ Damage::Newer { .. }) => {
                    let source = io::Error::other(newer);
                    return Err(ReplaceError { step: Step::Rename, path: path.to_owned(), source });
                }
                Some(_) => drop(step(Step::KeepPrevious, path, || kept::aside(path))?),
            },
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match &self.before {
            Some(before) => replace_both(path, &newest, &kept::previous(path), &before.read()?),
            None => replace_keeping(path, &kept::previous(path), &[&newest]),
        }
    }
}
