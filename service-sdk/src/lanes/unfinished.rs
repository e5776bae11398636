//! What of a lane is handed over and not done: how far *done* may be marked, and which packets may leave. No I/O.
//!
//! ```text
//!   lane   [ 1 2 3 ] [ 4 5 ] [ 6 7 8 …          2 and 5 deferred, 7 in hand
//!   done ≤ 1 ┘ └ nothing leaves before 2 is done
//! ```
//! *Done* is the longest prefix without a gap: after a death what is deferred comes again, and with it all that was
//! handed over behind it, each marked as redelivered.

use std::collections::{BTreeSet, VecDeque};

use watchdog_protocol::MessageNumber;
use watchdog_protocol::lane::PACKET_HEADER;
use watchdog_protocol::limits::MAX_DEFERRED;

/// A packet whose messages have all had their turn, and that is still in the lane.
#[derive(Debug)]
pub(super) struct Spent {
    /// Its bytes.
    pub(super) length: usize,
    /// Its first bytes: it is consumed only if it is found at the head.
    pub(super) head: [u8; PACKET_HEADER],
    /// The number of its last message.
    pub(super) last: MessageNumber,
    /// Bytes beside it.
    pub(super) beside: u64,
}

/// The deferred deliveries of a lane, and the packets they keep in it.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    deferred: BTreeSet<MessageNumber>,
    /// In the order they are in the lane.
    spent: VecDeque<Spent>,
    /// All up to here are done or deferred.
    passed: MessageNumber,
}

impl Unfinished {
    /// A message is done, and all before it are done or deferred. The mark to be set.
    pub(super) fn pass(&mut self, number: MessageNumber) -> MessageNumber {
        // A dead letter that was put back may come behind a larger number.
        self.passed = self.passed.max(number);
        self.done()
    }

    /// As [`pass`](Self::pass), but the message is kept open.
    pub(super) fn defer(&mut self, number: MessageNumber) -> MessageNumber {
        self.deferred.insert(number);
        self.pass(number)
    }

    /// A deferred one is done. The mark to be set; `None`: it was none.
    pub(super) fn finish(&mut self, number: MessageNumber) -> Option<MessageNumber> {
        self.deferred.remove(&number).then(|| self.done())
    }

    /// The longest prefix without a gap. A number before the first open one stands for it: gaps are legal.
    fn done(&self) -> MessageNumber {
        match self.deferred.first() {
            Some(first) => MessageNumber::from_stored(first.get() - 1),
            None => self.passed,
        }
    }

    /// A packet has had its turns.
    pub(super) fn spend(&mut self, spent: Spent) {
        self.spent.push_back(spent);
    }

    /// The packet at the head of the lane, if it may leave.
    pub(super) fn leaving(&mut self) -> Option<Spent> {
        let done = self.done();
        if self.spent.front()?.last <= done { self.spent.pop_front() } else { None }
    }

    /// Bytes of the packets in the lane that have had their turns: where the next one begins.
    pub(super) fn offset(&self) -> usize {
        self.spent.iter().map(|spent| spent.length).sum()
    }

    /// Nothing more may be handed over.
    pub(super) fn is_full(&self) -> bool {
        self.deferred.len() >= MAX_DEFERRED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> MessageNumber {
        MessageNumber::from_stored(number)
    }

    fn spent(last: u64) -> Spent {
        Spent { length: 100, head: [0; PACKET_HEADER], last: number(last), beside: 0 }
    }

    #[test]
    fn done_is_the_longest_prefix_without_a_gap_whatever_the_order() {
        let mut lane = Unfinished::default();
        assert_eq!(lane.pass(number(1)), number(1));
        assert_eq!(lane.defer(number(2)), number(1));
        assert_eq!(lane.pass(number(3)), number(1));
        assert_eq!(lane.defer(number(7)), number(1));
        assert_eq!(lane.pass(number(8)), number(1));
        assert_eq!(lane.finish(number(2)), Some(number(6)));
        assert_eq!(lane.finish(number(2)), None);
        assert_eq!(lane.finish(number(7)), Some(number(8)));
    }

    #[test]
    fn a_packet_leaves_when_it_and_all_before_it_are_done() {
        let mut lane = Unfinished::default();
        lane.defer(number(1));
        lane.pass(number(2));
        lane.spend(spent(2));
        lane.pass(number(3));
        lane.spend(spent(3));
        assert!(lane.leaving().is_none());
        assert_eq!(lane.offset(), 200);
        lane.finish(number(1));
        assert_eq!(lane.leaving().map(|spent| spent.last), Some(number(2)));
        assert_eq!(lane.leaving().map(|spent| spent.last), Some(number(3)));
        assert!(lane.leaving().is_none());
        assert_eq!(lane.offset(), 0);
    }
}
