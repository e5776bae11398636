//! What waits to be read by the core. The keeper never waits for it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use watchdog_seqpacket::Seqpacket;

use crate::packet::{EncodeError, Packet};
use crate::protocol::FromKeeper;

/// Hints are left out while this much waits: a fork bomb beside a core that does not read must not grow the keeper.
const HINTS: usize = 256;

/// Packets in the order they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(Packet, Vec<Rc<OwnedFd>>)>,
}

/// What a [`flush`](Outbox::flush) came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All was sent.
    All,
    /// The socket is full.
    Full,
    /// The kernel is short of something for now: too many descriptors in flight, no memory.
    Later,
}

impl Outbox {
    pub(crate) fn push(&mut self, message: &FromKeeper, beside: Vec<Rc<OwnedFd>>) -> Result<(), EncodeError> {
        self.waiting.push_back((message.encode()?, beside));
        Ok(())
    }

    pub(crate) fn takes_hints(&self) -> bool {
        self.waiting.len() < HINTS
    }

    /// For the next core all is told anew.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Sends what goes without waiting. An error means that the core reads no more.
    pub(crate) fn flush(&mut self, socket: &Seqpacket) -> io::Result<Flushed> {
        while let Some((packet, beside)) = self.waiting.front() {
            let descriptors: Vec<BorrowedFd<'_>> =
                packet.payload.iter().map(AsFd::as_fd).chain(beside.iter().map(|fd| fd.as_fd())).collect();
            match socket.send(&[IoSlice::new(&packet.bytes)], &descriptors) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Full),
                Err(err) => match err.raw_os_error() {
                    Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM) => return Ok(Flushed::Later),
                    _ => return Err(err),
                },
            }
        }
        Ok(Flushed::All)
    }
}
