//! Records that wait to be sent: bounded, numbered, and counted when there is no room. No I/O.

use std::collections::VecDeque;

use watchdog_protocol::limits::MAX_WAITING_RECORDS;
use watchdog_protocol::record::{DropReason, Dropped};

/// Records that go in one message: a packet that the kernel finds room for at once, whatever else is in the lane.
const CHUNK: usize = 32 * 1024;

/// Some records, one behind the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The number of the first.
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) bytes: Vec<u8>,
}

/// What waits, oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Of the next record.
    next: u64,
    full: u64,
    refused: u64,
    /// The counts that were sent last.
    told: (u64, u64),
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, next: 1, full: 0, refused: 0, told: (0, 0) }
    }

    /// Takes in one record. One that finds no room is counted, and takes no number.
    pub(super) fn push(&mut self, record: &[u8]) {
        if self.bytes + record.len() > MAX_WAITING_RECORDS {
            self.full += 1;
            return;
        }
        self.bytes += record.len();
        let number = self.next;
        self.next += 1;
        match self.chunks.back_mut() {
            Some(last) if last.bytes.len() + record.len() <= CHUNK => {
                last.count += 1;
                last.bytes.extend_from_slice(record);
            }
            _ => self.chunks.push_back(Chunk { first: number, count: 1, bytes: record.to_vec() }),
        }
    }

    /// Takes the oldest out. An empty chunk when only counts are to be told, `None` when nothing is.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.bytes.len();
            return Some(chunk);
        }
        let is_told = self.told == (self.full, self.refused);
        (!is_told).then(|| Chunk { first: self.next, ..Chunk::default() })
    }

    /// Puts back what could not go: it goes before all others.
    pub(super) fn put_back(&mut self, chunk: Chunk) {
        if chunk.count > 0 {
            self.bytes += chunk.bytes.len();
            self.chunks.push_front(chunk);
        }
    }

    /// What was taken can never go. Its numbers are missing where they would arrive, and counted here.
    pub(super) fn refuse(&mut self, chunk: &Chunk) {
        self.refused += chunk.count;
    }

    /// What was dropped so far.
    pub(super) fn dropped(&self) -> Vec<Dropped> {
        [(DropReason::Full, self.full), (DropReason::Refused, self.refused)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| Dropped { reason, count })
            .collect()
    }

    /// These counts went.
    pub(super) fn told(&mut self, dropped: &[Dropped]) {
        let of = |wanted| dropped.iter().find(|told| told.reason == wanted).map_or(0, |told| told.count);
        self.told = (of(DropReason::Full), of(DropReason::Refused));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.told == (self.full, self.refused)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Send,
        PutBack,
        Refuse,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => prop_oneof![1usize..200, 10_000usize..50_000].prop_map(Step::Push),
            2 => Just(Step::Send),
            1 => Just(Step::PutBack),
            1 => Just(Step::Refuse),
        ];
        vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn every_record_is_sent_once_in_order_or_counted(steps in steps()) {
            let (mut queue, mut pushed, mut sent, mut refused) = (Queue::new(), 0, Vec::new(), 0);
            let mut send = |queue: &mut Queue| {
                let Some(chunk) = queue.take() else { return };
                sent.extend((0..chunk.count).map(|at| chunk.first + at));
                queue.told(&queue.dropped());
            };
            for step in steps {
                match step {
                    Step::Push(length) => {
                        queue.push(&vec![0; length]);
                        pushed += 1;
                    }
                    Step::Send => send(&mut queue),
                    Step::PutBack => {
                        if let Some(chunk) = queue.take() {
                            queue.put_back(chunk);
                        }
                    }
                    Step::Refuse => {
                        if let Some(chunk) = queue.take() {
                            refused += chunk.count;
                            queue.refuse(&chunk);
                        }
                    }
                }
                prop_assert!(queue.bytes <= MAX_WAITING_RECORDS);
                prop_assert_eq!(queue.bytes, queue.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>());
            }
            while !queue.is_empty() {
                send(&mut queue);
            }
            prop_assert!(sent.is_sorted_by(|one, next| one < next), "{sent:?}");
            let of = |wanted| {
                queue.dropped().into_iter().find(|told| told.reason == wanted).map_or(0, |told| told.count)
            };
            prop_assert_eq!(of(DropReason::Refused), refused);
            prop_assert_eq!(sent.len() as u64 + refused + of(DropReason::Full), pushed);
            prop_assert_eq!(queue.next - 1, sent.len() as u64 + refused);
        }
    }

    #[test]
    fn counts_go_by_themselves_when_nothing_else_does() {
        let mut queue = Queue::new();
        queue.push(&vec![0; MAX_WAITING_RECORDS]);
        queue.push(&[0]);
        assert_eq!(queue.take().map(|chunk| (chunk.first, chunk.count)), Some((1, 1)));
        assert_eq!(queue.take().map(|chunk| (chunk.first, chunk.count)), Some((2, 0)));
        queue.told(&[Dropped { reason: DropReason::Full, count: 1 }]);
        assert!(queue.is_empty() && queue.take().is_none());
    }
}
