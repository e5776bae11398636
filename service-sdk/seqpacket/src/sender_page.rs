//! The page the sender of a lane writes: its next number, and counts.
#![expect(unsafe_code, reason = "the promise that the layout is atomics only")]

use std::os::fd::{BorrowedFd, OwnedFd};

use watchdog_protocol::MessageNumber;

use crate::atomic::{AtomicU64, Ordering};
use crate::page::{self, Access, Head, Layout, Mapping, PageError, load};

#[repr(C)]
#[derive(Debug)]
struct Cells {
    head: Head,
    reserved: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    asks: AtomicU64,
    memfd_bytes: AtomicU64,
    refused: AtomicU64,
}

// SAFETY: repr(C), the head first, atomics only.
unsafe impl Layout for Cells {
    const KIND: u64 = u64::from_be_bytes(*b"wdlanesn");
}

/// What a sender counted, over all its incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderStats {
    /// Messages the kernel has taken, asks included.
    pub messages: u64,
    /// Their payloads, in bytes, memfds included.
    pub bytes: u64,
    /// Those of them that wait for an answer.
    pub asks: u64,
    /// Bytes of memfd payloads ever put into the lane. Less what the receiver has consumed of them, they count
    /// against the lane's bound, for the kernel does not count them.
    pub memfd_bytes: u64,
    /// Sends that found the lane full and gave the message back.
    pub refused: u64,
}

/// The sender's page, writable.
#[derive(Debug)]
pub struct SenderPage(Mapping<Cells>);

impl SenderPage {
    /// A new page, sealed against resizing.
    ///
    /// # Errors
    /// [`PageError::Make`].
    pub fn create() -> Result<OwnedFd, PageError> {
        page::create::<Cells>()
    }

    /// Maps a page in order to write it.
    ///
    /// # Errors
    /// [`PageError`] when it is not this page, or the descriptor can't be written through.
    pub fn map_rw(page: BorrowedFd<'_>) -> Result<Self, PageError> {
        Mapping::new(page, Access::Write).map(Self)
    }

    /// Takes `count` numbers in a row, at least one, and returns the first; the first ever is
    /// [`MessageNumber::FIRST`].
    ///
    /// To be called *before* the packet is sent: a sender killed in between leaves a gap, which is legal, while
    /// one that counts afterwards gives a number twice, and the receiver skips the second message as done.
    /// No number is given twice, by whatever incarnation, thread or mapping.
    pub fn reserve(&self, count: u64) -> MessageNumber {
        debug_assert!(count > 0, "no number is needed");
        MessageNumber::from_stored(self.0.reserved.fetch_add(count, Ordering::AcqRel)).next()
    }

    /// Gives back numbers of a packet that the kernel did not take, so that what is reserved and not done is what
    /// is queued. They stay a gap when other numbers were reserved meanwhile.
    ///
    /// Nobody has seen them: of all numbers, only one that was never sent may be used for another message.
    pub fn give_back(&self, first: MessageNumber, count: u64) {
        let before = first.get() - 1;
        // An error is the gap.
        let _ = self.0.reserved.compare_exchange(before + count, before, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Counts what the kernel has taken: messages, the bytes of their payloads, and how many of them are asks.
    pub fn count_sent(&self, messages: u64, bytes: u64, asks: u64) {
        self.0.messages.fetch_add(messages, Ordering::Release);
        self.0.bytes.fetch_add(bytes, Ordering::Release);
        self.0.asks.fetch_add(asks, Ordering::Release);
    }

    /// Counts memfd payloads that are about to be sent.
    pub fn count_memfd(&self, bytes: u64) {
        self.0.memfd_bytes.fetch_add(bytes, Ordering::Release);
    }

    /// Takes back what [`count_memfd`](Self::count_memfd) counted: the packet did not go.
    pub fn uncount_memfd(&self, bytes: u64) {
        self.0.memfd_bytes.fetch_sub(bytes, Ordering::Release);
    }

    /// Sets the memfd payloads to what the receiver has consumed of them. To be called when nothing is
    /// outstanding: what a sender counted and then could not send, for it was killed, would fill the lane for
    /// ever.
    pub fn settle_memfd(&self, consumed: u64) {
        self.0.memfd_bytes.store(consumed, Ordering::Release);
    }

    /// Counts a send that gave its message back because the lane was full.
    pub fn count_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Release);
    }

    /// The largest number reserved; [`MessageNumber::NONE`] before the first.
    pub fn reserved(&self) -> MessageNumber {
        reserved(&self.0)
    }

    /// All counts.
    pub fn stats(&self) -> SenderStats {
        stats(&self.0)
    }
}

/// The sender's page, for all others.
#[derive(Debug)]
pub struct SenderPageReader(Mapping<Cells>);

impl SenderPageReader {
    /// Maps a page in order to read it; a read-only descriptor will do.
    ///
    /// # Errors
    /// [`PageError`] when it is not this page.
    pub fn map_ro(page: BorrowedFd<'_>) -> Result<Self, PageError> {
        Mapping::new(page, Access::Read).map(Self)
    }

    /// The largest number reserved; [`MessageNumber::NONE`] before the first.
    pub fn reserved(&self) -> MessageNumber {
        reserved(&self.0)
    }

    /// All counts.
    pub fn stats(&self) -> SenderStats {
        stats(&self.0)
    }
}

fn reserved(cells: &Cells) -> MessageNumber {
    MessageNumber::from_stored(load(&cells.reserved))
}

fn stats(cells: &Cells) -> SenderStats {
    SenderStats {
        messages: load(&cells.messages),
        bytes: load(&cells.bytes),
        asks: load(&cells.asks),
        memfd_bytes: load(&cells.memfd_bytes),
        refused: load(&cells.refused),
    }
}
