//! What a segment says of each file: the newest content, the one before, or that the file itself counts. No I/O.

use std::collections::BTreeMap;

use super::frame::{Found, Kind, Newer, Record, scan};

/// Where a content lies in its segment, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) length: u32,
    /// µs since 1970.
    pub(super) at: u64,
}

/// Where the newest content of a file lies. `P` says where in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Newest<P> {
    /// In the file itself, durably; or there is none, durably.
    Settled,
    /// In the file itself, as far as can be told: nobody vouches for it.
    Unsettled,
    /// In the journal; the one before too, unless that is in the file.
    Journal { newest: P, before: Option<P> },
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known<P> {
    pub(super) newest: Newest<P>,
    /// Something newer was damaged.
    pub(super) recovered: bool,
}

/// What a segment says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) files: BTreeMap<String, Known<Place>>,
    /// No older segment counts.
    pub(super) is_complete: bool,
    /// Bytes that are no records and once were.
    pub(super) damaged: u64,
    /// Bytes of a last write that did not come to its end.
    pub(super) cut_off: u64,
    /// Something is damaged, and whose it was can't be told: any file that nothing was recorded of later may have
    /// lost its newest content.
    pub(super) anybodys: bool,
}

impl<P> Known<P> {
    /// A new content was recorded.
    pub(super) fn recorded(known: Option<Self>, newest: P, recovered: bool) -> Self {
        let before = match known {
            Some(Self { newest: Newest::Journal { newest, .. }, .. }) => Some(newest),
            Some(Self { newest: Newest::Settled | Newest::Unsettled, .. }) | None => None,
        };
        Self { newest: Newest::Journal { newest, before }, recovered }
    }
}

/// Reads a whole segment.
///
/// # Errors
/// [`Newer`].
pub(super) fn replay(bytes: &[u8]) -> Result<Replay, Newer> {
    let mut replay = Replay::default();
    for found in scan(bytes)? {
        match found {
            Found::Record { record, content_at } => replay.take(&record, content_at),
            Found::Damage { length, file, .. } => {
                replay.damaged += length as u64;
                match file {
                    Some(file) => replay.lose(file),
                    None => {
                        replay.anybodys = true;
                        replay.files.values_mut().for_each(|known| known.recovered = true);
                    }
                }
            }
            Found::CutOff { length } => replay.cut_off += length as u64,
        }
    }
    Ok(replay)
}

impl Replay {
    fn take(&mut self, record: &Record<'_>, content_at: usize) {
        let Record { kind, recovered, at, file, content } = *record;
        match kind {
            Kind::Content => {
                let length = u32::try_from(content.len()).expect("its length is a u32 of the record");
                let place = Place { offset: content_at as u64, length, at };
                let before = self.files.remove(file);
                self.files.insert(file.to_owned(), Known::recorded(before, place, recovered));
            }
            Kind::Settled => {
                self.files.insert(file.to_owned(), Known { newest: Newest::Settled, recovered });
            }
            Kind::Complete => self.is_complete = true,
        }
    }

    /// A content of this file was here and is damaged.
    fn lose(&mut self, file: &str) {
        let nothing = || Known { newest: Newest::Unsettled, recovered: true };
        self.files.entry(file.to_owned()).or_insert_with(nothing).recovered = true;
    }
}
