//! The page the receiver of a lane writes: how far it is, and how long messages were under way.
#![expect(unsafe_code, reason = "the promise that the layout is atomics only")]

use std::os::fd::{BorrowedFd, OwnedFd};

use watchdog_protocol::MessageNumber;

use crate::atomic::{AtomicU64, Ordering};
use crate::latch::Latch;
use crate::page::{self, Access, Head, Layout, Mapping, PageError, load};
use crate::propagation::{BUCKETS, Moments, Propagation, bucket};

#[repr(C)]
#[derive(Debug)]
struct Cells {
    head: Head,
    taken: AtomicU64,
    done: AtomicU64,
    consumed: AtomicU64,
    memfd_consumed: AtomicU64,
    handed: AtomicU64,
    redelivered: AtomicU64,
    /// Count, mean, M2, largest, and the bucket of the last measurement.
    measured: Latch<5>,
    buckets: [AtomicU64; BUCKETS],
}

// SAFETY: repr(C), the head first, atomics only.
unsafe impl Layout for Cells {
    const KIND: u64 = u64::from_be_bytes(*b"wdlanerc");
}

/// How far a receiver is. Each mark is the number of a message; all up to it have passed.
///
/// The order within a message is *taken, work, done, consume*, and is part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Handed to the handler, or about to be.
    pub taken: MessageNumber,
    /// The handler asked for the next event after it.
    pub done: MessageNumber,
    /// Its packet has left the lane; the last number of that packet.
    pub consumed: MessageNumber,
}

/// What a receiver counted, over all its incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Messages handed to a handler, those handed again included.
    pub handed: u64,
    /// Messages handed again after a death.
    pub redelivered: u64,
    /// Bytes of memfd payloads whose packets have left the lane.
    pub memfd_consumed: u64,
}

/// The receiver's page, writable. One process has it at a time, and changes it from one place.
#[derive(Debug)]
pub struct ReceiverPage(Mapping<Cells>);

impl ReceiverPage {
    /// A new page, sealed against resizing.
    ///
    /// # Errors
    /// [`PageError::Make`].
    pub fn create() -> Result<OwnedFd, PageError> {
        page::create::<Cells>()
    }

    /// Maps a page in order to write it, and finishes what a killed writer began.
    ///
    /// # Errors
    /// [`PageError`] when it is not this page, or the descriptor can't be written through.
    pub fn map_rw(page: BorrowedFd<'_>) -> Result<Self, PageError> {
        let cells: Mapping<Cells> = Mapping::new(page, Access::Write)?;
        cells.finish();
        Ok(Self(cells))
    }

    /// Marks a message as taken: before the handler gets it.
    pub fn mark_taken(&mut self, number: MessageNumber) {
        self.0.taken.store(number.get(), Ordering::Release);
    }

    /// Marks a message as done: after the handler asked for the next event.
    pub fn mark_done(&mut self, number: MessageNumber) {
        self.0.done.store(number.get(), Ordering::Release);
    }

    /// Marks a packet as consumed, by its last number, and counts the memfd payloads that were beside it.
    pub fn mark_consumed(&mut self, last: MessageNumber, memfd_bytes: u64) {
        self.0.consumed.store(last.get(), Ordering::Release);
        add(&self.0.memfd_consumed, memfd_bytes);
    }

    /// Counts a message that is handed to a handler for the first time, this many nanoseconds after its sender
    /// accepted it.
    pub fn count_handed(&mut self, waited_ns: u64) {
        add(&self.0.handed, 1);
        self.0.measure(waited_ns);
    }

    /// Counts a message that is handed again after a death. How long it was under way was measured before.
    pub fn count_handed_again(&mut self) {
        add(&self.0.handed, 1);
        add(&self.0.redelivered, 1);
    }

    /// How far this lane is.
    pub fn marks(&self) -> Marks {
        self.0.marks()
    }

    /// All counts.
    pub fn stats(&self) -> ReceiverStats {
        self.0.stats()
    }

    /// How long messages were under way.
    pub fn propagation(&self) -> Propagation {
        self.0.propagation()
    }
}

/// The receiver's page, for all others.
#[derive(Debug)]
pub struct ReceiverPageReader(Mapping<Cells>);

impl ReceiverPageReader {
    /// Maps a page in order to read it; a read-only descriptor will do.
    ///
    /// # Errors
    /// [`PageError`] when it is not this page.
    pub fn map_ro(page: BorrowedFd<'_>) -> Result<Self, PageError> {
        Mapping::new(page, Access::Read).map(Self)
    }

    /// How far the receiver is. Of a living one each mark is right by itself, and an older one than the next
    /// read here; of a dead one they are its last.
    pub fn marks(&self) -> Marks {
        self.0.marks()
    }

    /// All counts.
    pub fn stats(&self) -> ReceiverStats {
        self.0.stats()
    }

    /// How long messages were under way. Whole also while the receiver writes, and when it was killed writing.
    pub fn propagation(&self) -> Propagation {
        self.0.propagation()
    }
}

impl Cells {
    fn marks(&self) -> Marks {
        // In the reverse of the order they are written in, so that none is read ahead of the one before it.
        let consumed = MessageNumber::from_stored(load(&self.consumed));
        let done = MessageNumber::from_stored(load(&self.done));
        let taken = MessageNumber::from_stored(load(&self.taken));
        Marks { taken, done, consumed }
    }

    fn stats(&self) -> ReceiverStats {
        ReceiverStats {
            handed: load(&self.handed),
            redelivered: load(&self.redelivered),
            memfd_consumed: load(&self.memfd_consumed),
        }
    }

    fn measure(&self, waited_ns: u64) {
        let (moments, _) = decode(self.measured.read());
        self.announce(moments.with(waited_ns), bucket(waited_ns));
        self.count_in(bucket(waited_ns));
    }

    /// Half of a measurement. It says where the other half goes, so that anyone can finish it.
    fn announce(&self, moments: Moments, bucket: usize) {
        let Moments { count, mean, m2, largest } = moments;
        self.measured.write([count, mean.to_bits(), m2.to_bits(), largest, bucket as u64]);
    }

    /// The other half. Its store is after the announcement's: who sees it sees both.
    fn count_in(&self, bucket: usize) {
        add(&self.buckets[bucket], 1);
    }

    /// A writer killed between the two halves left the histogram one behind.
    fn finish(&self) {
        let (moments, last) = decode(self.measured.read());
        let counted = self.buckets.iter().fold(0_u64, |sum, bucket| sum.wrapping_add(load(bucket)));
        if moments.count == counted.wrapping_add(1) {
            self.count_in(last);
        }
    }

    fn propagation(&self) -> Propagation {
        let (words, mut buckets) = self.measured.read_beside(|| {
            let mut buckets = Box::new([0; BUCKETS]);
            for (copy, bucket) in buckets.iter_mut().zip(&self.buckets) {
                *copy = load(bucket);
            }
            buckets
        });
        let (moments, last) = decode(words);
        let counted = buckets.iter().fold(0_u64, |sum, bucket| sum.wrapping_add(*bucket));
        if moments.count == counted.wrapping_add(1) {
            buckets[last] += 1; // as `finish` does
        }
        Propagation::new(moments, buckets)
    }
}

/// Moments and last bucket, the latter within bounds whatever the page says.
fn decode([count, mean, m2, largest, last]: [u64; 5]) -> (Moments, usize) {
    let moments = Moments { count, mean: f64::from_bits(mean), m2: f64::from_bits(m2), largest };
    (moments, usize::try_from(last).unwrap_or(usize::MAX).min(BUCKETS - 1))
}

/// There is one writer, so no read-modify-write is needed.
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Release);
}
