//! The hand: bytes that are out of a service's pipe and not yet surely in its file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;
use watchdog_protocol::ServiceName;

use super::Stream;
use super::lines::End;
use crate::store::before;

/// Room for all buffers of a service's pipe, however small they are and however large the service made it.
const CAPACITY: i32 = 1024 * 1024;

/// What the first core makes and the keeper stores for all later ones.
#[derive(Debug)]
pub struct Hand {
    /// The end the bytes are consumed from.
    out: File,
    /// The end the bytes are taken into.
    into: OwnedFd,
    mark: File,
}

impl Hand {
    /// For the first core of a keeper.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let (out, into) = wide_pipe()?;
        let mark = memfd_create("watchdog-capture", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self::from_stored([out, into, mark]))
    }

    /// For a later core: the descriptors of [`descriptors`](Self::descriptors), in their order.
    pub fn from_stored([out, into, mark]: [OwnedFd; 3]) -> Self {
        Self { out: out.into(), into, mark: mark.into() }
    }

    /// What the keeper stores.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.out.as_fd(), self.into.as_fd(), self.mark.as_fd()]
    }

    /// Says whose bytes come next. Only while the hand is empty.
    pub(super) fn mark(&self, mark: &Mark) -> io::Result<()> {
        before("mark")?;
        self.mark.write_all_at(&mark.to_bytes(), 0)
    }

    /// Whose bytes are in the hand, while it is not empty.
    pub(super) fn marked(&self) -> io::Result<Option<Mark>> {
        let mut bytes = Vec::new();
        let mut file = &self.mark;
        io::Seek::rewind(&mut file)?;
        file.read_to_end(&mut bytes)?;
        Ok(Mark::from_bytes(&bytes))
    }

    /// Takes up to `length` bytes from the head of a service's pipe. Fewer when its buffers are too many.
    pub(super) fn take(&self, pipe: &OwnedFd, length: usize) -> io::Result<usize> {
        before("take")?;
        Ok(splice(pipe, None, &self.into, None, length, SpliceFFlags::SPLICE_F_NONBLOCK)?)
    }

    /// Empties the hand of exactly as many bytes as `scratch` has room for, which is all it holds: in one read, since
    /// between two a kill would leave a part.
    pub(super) fn consume(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        before("consume")?;
        let read = loop {
            match self.out.read(scratch) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == scratch.len() {
            Ok(())
        } else {
            Err(io::Error::other("the hand held less than was taken"))
        }
    }

    /// The end that bytes are peeked from.
    pub(super) fn out(&self) -> &File {
        &self.out
    }
}

/// A pipe of one's own, to look at another one's content without consuming it.
#[derive(Debug)]
pub(super) struct Peek {
    out: File,
    into: OwnedFd,
}

impl Peek {
    pub(super) fn new() -> io::Result<Self> {
        let (out, into) = wide_pipe()?;
        Ok(Self { out: out.into(), into })
    }

    /// Copies the first bytes of `pipe`, at most as many as `raw` has room for; 0 when it is empty.
    pub(super) fn at(&mut self, pipe: impl AsFd, raw: &mut [u8]) -> io::Result<usize> {
        let copied = match tee(pipe, &self.into, raw.len(), SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EAGAIN) => return Ok(0),
            copied => copied?,
        };
        self.out.read_exact(&mut raw[..copied])?;
        Ok(copied)
    }
}

fn wide_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (out, into) = pipe2(OFlag::O_CLOEXEC)?;
    // Refused above the user's sum: then a batch is what fits.
    let _ = fcntl(into.as_fd(), FcntlArg::F_SETPIPE_SZ(CAPACITY));
    Ok((out, into))
}

/// Whose bytes are in the hand, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) service: ServiceName,
    pub(super) stream: Stream,
    /// What the bytes end with, if not with a line end.
    pub(super) end: End,
    /// Of the file before they are appended.
    pub(super) length: u64,
}

impl Mark {
    /// Fixed in length, so that no part of an older, longer one shows behind it.
    fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..11].copy_from_slice(self.stream.word().as_bytes());
        bytes[11] = match self.end {
            End::Line => b'.',
            End::GoesOn => b'+',
        };
        let name = self.service.as_str().as_bytes();
        bytes[12..12 + name.len()].copy_from_slice(name);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&bytes[range]).ok();
        Some(Self {
            length: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            stream: Stream::from_word(text(8..11)?)?,
            end: if bytes[11] == b'+' { End::GoesOn } else { End::Line },
            service: text(12..Self::LENGTH)?.trim_end_matches('\0').parse().ok()?,
        })
    }

    const LENGTH: usize = 12 + watchdog_protocol::limits::MAX_NAME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_also_in_the_place_of_a_longer_one() {
        let hand = Hand::new().unwrap();
        assert_eq!(hand.marked().unwrap(), None);
        for name in ["a-rather-long-name", "a"] {
            let mark =
                Mark { service: name.parse().unwrap(), stream: Stream::Errors, end: End::GoesOn, length: 77 };
            hand.mark(&mark).unwrap();
            assert_eq!(hand.marked().unwrap(), Some(mark));
        }
    }

    #[test]
    fn a_peek_consumes_nothing_and_an_empty_pipe_is_no_wait() {
        let (read, write) = super::super::pipe().unwrap();
        let (mut peek, mut raw) = (Peek::new().unwrap(), [0; 8]);
        assert_eq!(peek.at(&read, &mut raw).unwrap(), 0);
        nix::unistd::write(&write, b"words").unwrap();
        for _ in 0..2 {
            assert_eq!(peek.at(&read, &mut raw).unwrap(), 5);
            assert_eq!(&raw[..5], b"words");
        }
    }
}
