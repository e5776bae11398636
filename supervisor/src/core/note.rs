//! A [`Note`]: what a new core must know of one thing, kept in memory that the keeper holds.
//!
//! It outlives the core, not the keeper, and touches no disk: a write is two `pwrite`s into a memfd. Two slots
//! take turns, so a core killed in the middle of a write leaves the record before it whole.
//!
//! ```text
//! slot  0..8 turn | 8..12 length | 12..16 CRC-32 of turn, length and record | record
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Room for one record. A memfd takes only the pages that were written.
const SLOT: u64 = 1024 * 1024;
const HEAD: usize = 16;

/// What a service's note says: its lifecycle, and a digest of the files its process was started from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noted<S> {
    pub(crate) service: S,
    pub(crate) built: u64,
}

/// One record in memory the keeper holds.
#[derive(Debug)]
pub(crate) struct Note {
    file: File,
    turn: u64,
    last: Box<[u8]>,
}

impl Note {
    /// An empty one.
    pub(crate) fn create() -> io::Result<Self> {
        let fd = memfd_create(c"watchdog-note", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self { file: File::from(fd), turn: 0, last: Box::default() })
    }

    /// The one an older core kept, and its newest whole record. A whole record that can't be read is an error: to
    /// forget what it tells could start a second process beside a first.
    pub(crate) fn reopen<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<(Self, Option<T>)> {
        let file = File::from(fd);
        let newest =
            [read_slot(&file, 0)?, read_slot(&file, 1)?].into_iter().flatten().max_by_key(|(turn, _)| *turn);
        Ok(match newest {
            None => (Self { file, turn: 0, last: Box::default() }, None),
            Some((turn, bytes)) => {
                let record = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
                (Self { file, turn, last: bytes.into() }, Some(record))
            }
        })
    }

    /// Writes the record, if it differs from the one there.
    pub(crate) fn write<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
        if *bytes == *self.last && self.turn > 0 {
            return Ok(());
        }
        let turn = self.turn + 1;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        if u64::from(length) + HEAD as u64 > SLOT {
            return Err(io::Error::other("the record is larger than a note"));
        }
        let mut slot = Vec::with_capacity(HEAD + bytes.len());
        slot.extend_from_slice(&turn.to_le_bytes());
        slot.extend_from_slice(&length.to_le_bytes());
        slot.extend_from_slice(&[0; 4]);
        slot.extend_from_slice(&bytes);
        let sum = checksum(&slot);
        slot[12..16].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&slot, (turn % 2) * SLOT)?;
        self.turn = turn;
        self.last = bytes.into();
        Ok(())
    }

    /// What was written last; empty before the first time.
    pub(crate) fn record(&self) -> &[u8] {
        &self.last
    }

    /// What the keeper stores.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn checksum(slot: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..12]);
    hasher.update(&slot[HEAD..]);
    hasher.finalize()
}

/// The record of one slot with its turn; `None` when nothing whole is there.
fn read_slot(file: &File, which: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut head = [0; HEAD];
    match file.read_exact_at(&mut head, which * SLOT) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(err) => return Err(err),
    }
    let turn = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
    let length = u32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
    if turn == 0 || u64::from(length) + HEAD as u64 > SLOT {
        return Ok(None);
    }
    let mut slot = head.to_vec();
    slot.resize(HEAD + length as usize, 0);
    if file.read_exact_at(&mut slot[HEAD..], which * SLOT + HEAD as u64).is_err() {
        return Ok(None);
    }
    let said = u32::from_le_bytes(head[12..16].try_into().expect("four bytes"));
    Ok((checksum(&slot) == said).then(|| (turn, slot.split_off(HEAD))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopened(note: &Note) -> Option<String> {
        Note::reopen(note.fd().try_clone_to_owned().unwrap()).unwrap().1
    }

    #[test]
    fn the_newest_record_is_found_again() {
        let mut note = Note::create().unwrap();
        assert_eq!(reopened(&note), None);
        for text in ["one", "two", "a longer third", "4"] {
            note.write(&text.to_owned()).unwrap();
            assert_eq!(reopened(&note), Some(text.to_owned()));
        }
    }

    #[test]
    fn a_write_cut_short_leaves_the_record_before_it() {
        let mut note = Note::create().unwrap();
        note.write(&"before".to_owned()).unwrap();
        note.write(&"newest".to_owned()).unwrap();
        // Turn 3 goes to slot 1: its first bytes are there, the rest is the older record.
        for cut in 1..HEAD {
            let mut torn = 3_u64.to_le_bytes().to_vec();
            torn.extend_from_slice(&[9; 8]);
            note.file.write_all_at(&torn[..cut], SLOT).unwrap();
            assert_eq!(reopened(&note), Some("newest".to_owned()));
        }
    }
}
