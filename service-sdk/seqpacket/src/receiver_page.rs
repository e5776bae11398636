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
    in_hand: AtomicU64,
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

    /// Says which message is in hand, before anything of it is looked at; [`MessageNumber::NONE`]: none is, though some
    /// are not done. One that is done is in nobody's hand.
    pub fn mark_in_hand(&mut self, number: MessageNumber) {
        self.0.in_hand.store(number.get(), Ordering::Release);
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

    /// The message that was last said to be in hand.
    pub fn in_hand(&self) -> MessageNumber {
        MessageNumber::from_stored(load(&self.0.in_hand))
    }

    /// All counts.
    pub fn stats(&self) -> ReceiverStats {
        self.0.stats()
    }

    /// How long messages were under way: count, mean and spread of one moment, also while the receiver writes and
    /// when it was killed writing. The percentiles of a busy lane may know of a few messages more.
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

    /// The other half.
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
        let (moments, last) = decode(self.measured.read());
        // Read after the moments, so that all they tell of is in, but the last one perhaps; of a busy lane there
        // may be a few more already.
        let mut buckets = Box::new([0; BUCKETS]);
        for (copy, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *copy = load(bucket);
        }
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// What the writer that is killed measures: always the same, so that mean and spread are known.
    const TIME: u64 = 1000;

    #[test]
    fn a_writer_killed_between_the_halves_of_a_measurement_loses_none() {
        let page = ReceiverPage::create().unwrap();
        let mut first = ReceiverPage::map_rw(page.as_fd()).unwrap();
        first.count_handed(TIME);
        let (moments, _) = decode(first.0.measured.read());
        first.0.announce(moments.with(70), bucket(70));
        drop(first);
        let reader = ReceiverPageReader::map_ro(page.as_fd()).unwrap();
        let seen = reader.propagation();
        assert_eq!((seen.count(), seen.counted()), (2, 2));
        assert!(seen.p50_ns().unwrap() < 80, "the half that was not written is known");
        let next = ReceiverPage::map_rw(page.as_fd()).unwrap();
        assert_eq!(load(&next.0.buckets[bucket(70)]), 1);
        assert_eq!(next.propagation(), seen);
        drop(next);
        let again = ReceiverPage::map_rw(page.as_fd()).unwrap();
        assert_eq!(again.propagation(), seen, "it is finished once");
    }

    #[test]
    fn readers_see_whole_statistics_while_a_writer_writes_and_after_it_was_killed() {
        let page = ReceiverPage::create().unwrap();
        let reader = ReceiverPageReader::map_ro(page.as_fd()).unwrap();
        let mut count = 0;
        for _ in 0..20 {
            let writer = "receiver_page::tests::write_until_killed";
            let mut writer = Command::new(std::env::current_exe().unwrap())
                .args([writer, "--exact", "--ignored", "--nocapture"])
                .stdin(Stdio::from(page.try_clone().unwrap()))
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            let target = count + 1000;
            while count < target {
                assert!(Instant::now() < deadline, "the writer came to {count} of {target}");
                count = check(&reader, count);
            }
            writer.kill().unwrap();
            writer.wait().unwrap();
            count = check(&reader, count);
            assert_eq!(reader.propagation().counted(), count);
        }
        let mut last = ReceiverPage::map_rw(page.as_fd()).unwrap();
        last.count_handed(TIME);
        assert_eq!(check(&reader, count), count + 1);
    }

    /// Checks what is seen at one moment, and that it is not older than what was seen before.
    fn check(reader: &ReceiverPageReader, at_least: u64) -> u64 {
        let times = reader.propagation();
        let count = times.count();
        assert!(count >= at_least);
        assert!(times.counted() >= count, "{} in the histogram, {count} counted", times.counted());
        if count > 0 {
            assert_eq!((times.mean_ns(), times.max_ns()), (Some(TIME as f64), Some(TIME)));
        }
        if count > 1 {
            assert_eq!(times.standard_deviation_ns(), Some(0.0));
        }
        let marks = reader.marks();
        assert!(marks.consumed <= marks.done && marks.done <= marks.taken, "{marks:?}");
        count
    }

    #[test]
    #[ignore = "the process that the test above starts and kills; its page is standard input"]
    fn write_until_killed() {
        let mut page = ReceiverPage::map_rw(std::io::stdin().as_fd()).unwrap();
        loop {
            let next = page.marks().taken.next();
            page.mark_taken(next);
            page.count_handed(TIME);
            page.mark_done(next);
            page.mark_consumed(next, 0);
        }
    }
}
