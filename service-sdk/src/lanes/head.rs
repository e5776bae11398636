//! The packet at the head of a lane: which of its messages are handed over, and how. No I/O.
//!
//! The page decides redelivery here, and nowhere else: what an older process had taken and not done comes again, and
//! says so. What it had done is passed over inside the packet that the mark is a number of, and not beyond: a page that
//! lies makes messages come again, and loses none.

use std::collections::BTreeSet;
use std::ops::Range;

use watchdog_protocol::MessageNumber;
use watchdog_protocol::lane::{self, Envelope, Header, Kind, PACKET_HEADER};
use watchdog_seqpacket::Marks;

use crate::message::Asks;

/// A checked packet, and how far it is handled.
#[derive(Debug)]
pub(super) struct Head {
    header: Header,
    left: usize,
    at: usize,
    /// Of an older process, when it is a number of this packet.
    done: Option<MessageNumber>,
    /// In the same way, or beyond this packet.
    taken: MessageNumber,
}

/// What becomes of one message.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// It is handed over; `again`: it was in hand before.
    Hand { envelope: Envelope, payload: Range<usize>, again: bool },
    /// An older process handled it.
    Done(MessageNumber),
    /// It is a dead letter.
    Buried(MessageNumber),
    /// An ask that an older process had in hand: at most once.
    Taken(MessageNumber),
    /// An ask whose deadline has passed.
    Expired(MessageNumber),
}

impl Head {
    /// Of a packet that was checked. `old`: what the page said when this process got the lane; for the packets that an
    /// older process may have taken.
    pub(super) fn new(header: Header, old: Option<Marks>) -> Self {
        let within = |number: MessageNumber| (header.first..=header.last).contains(&number).then_some(number);
        let old = old.unwrap_or_default();
        Self { header, left: header.count, at: PACKET_HEADER, done: within(old.done), taken: old.taken }
    }

    /// The number of the packet's last message.
    pub(super) fn last(&self) -> MessageNumber {
        self.header.last
    }

    /// Every message has had its turn.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// The next message of the packet, at a moment of the monotonic clock; `None`: it is spent.
    pub(super) fn next(
        &mut self,
        packet: &[u8],
        buried: &BTreeSet<MessageNumber>,
        asks: Asks,
        now: u64,
    ) -> Option<Next> {
        if self.is_spent() {
            return None;
        }
        let (envelope, payload) = lane::read(packet, self.at).expect("the packet was checked");
        self.at = payload.end;
        self.left -= 1;
        let number = envelope.number;
        if self.done.is_some_and(|done| number <= done) {
            return Some(Next::Done(number));
        }
        if buried.contains(&number) {
            return Some(Next::Buried(number));
        }
        let was_taken = number <= self.taken;
        if envelope.kind == Kind::Ask {
            if was_taken && asks == Asks::Once {
                return Some(Next::Taken(number));
            }
            if envelope.deadline().is_some_and(|deadline| deadline < now) {
                return Some(Next::Expired(number));
            }
        }
        Some(Next::Hand { envelope, payload, again: was_taken || envelope.again })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchdog_protocol::lane::{Direction, Packer, Place};

    use super::*;

    const NOW: u64 = 1_000_000;

    fn number(number: u64) -> MessageNumber {
        MessageNumber::from_stored(number)
    }

    fn envelope(at: u64, kind: Kind) -> Envelope {
        Envelope {
            kind,
            number: number(at),
            sent_at: NOW,
            left: 50,
            length: 0,
            place: Place::Inline,
            trace: None,
            again: false,
        }
    }

    fn packet(messages: &[(u64, Kind)]) -> Vec<u8> {
        let mut packer = Packer::new(Direction::Requests);
        for (at, kind) in messages {
            assert!(packer.push(&envelope(*at, *kind), b""));
        }
        packer.bytes().to_vec()
    }

    /// What becomes of each message: `h`anded, handed `a`gain, `d`one, `b`uried, `t`aken, `e`xpired.
    fn fates(packet: &[u8], old: Option<Marks>, asks: Asks, now: u64) -> String {
        fates_without(&[], packet, old, asks, now)
    }

    /// The same, when these are dead letters.
    fn fates_without(buried: &[u64], packet: &[u8], old: Option<Marks>, asks: Asks, now: u64) -> String {
        let buried = buried.iter().map(|at| number(*at)).collect();
        let mut head = Head::new(lane::check(packet).unwrap(), old);
        let mut fates = String::new();
        while let Some(next) = head.next(packet, &buried, asks, now) {
            fates.push(match next {
                Next::Hand { again: false, .. } => 'h',
                Next::Hand { again: true, .. } => 'a',
                Next::Done(_) => 'd',
                Next::Buried(_) => 'b',
                Next::Taken(_) => 't',
                Next::Expired(_) => 'e',
            });
        }
        assert!(head.is_spent());
        fates
    }

    fn marks(taken: u64, done: u64) -> Option<Marks> {
        Some(Marks { taken: number(taken), done: number(done), consumed: MessageNumber::NONE })
    }

    const MIXED: [(u64, Kind); 5] =
        [(5, Kind::Tell), (6, Kind::Ask), (8, Kind::Tell), (9, Kind::Ask), (10, Kind::Tell)];

    #[test]
    fn a_packet_is_resumed_at_the_message_in_hand() {
        let packet = packet(&MIXED);
        let once = |taken, done| fates(&packet, marks(taken, done), Asks::Once, NOW);
        assert_eq!(once(0, 0), "hhhhh");
        assert_eq!(once(5, 0), "ahhhh");
        assert_eq!(once(6, 5), "dthhh");
        assert_eq!(once(8, 6), "ddahh");
        assert_eq!(once(10, 10), "ddddd");
    }

    #[test]
    fn an_idempotent_ask_in_hand_comes_again() {
        assert_eq!(fates(&packet(&MIXED), marks(6, 5), Asks::UntilAnswered, NOW), "dahhh");
    }

    #[test]
    fn marks_before_the_packet_say_nothing_and_marks_beyond_it_that_all_was_taken() {
        let packet = packet(&MIXED);
        for before in [marks(4, 4), marks(4, 3)] {
            assert_eq!(fates(&packet, before, Asks::Once, NOW), "hhhhh", "{before:?}");
        }
        assert_eq!(fates(&packet, marks(5, 4), Asks::Once, NOW), "ahhhh");
        // Nothing is passed over as done.
        for beyond in [marks(11, 4), marks(11, 11), marks(u64::MAX, u64::MAX)] {
            assert_eq!(fates(&packet, beyond, Asks::Once, NOW), "atata", "{beyond:?}");
        }
        assert_eq!(fates(&packet, marks(11, 6), Asks::Once, NOW), "ddata");
    }

    #[test]
    fn asks_past_their_deadline_are_skipped_and_tells_have_none() {
        assert_eq!(fates(&packet(&MIXED), None, Asks::Once, NOW + 50), "hhhhh");
        assert_eq!(fates(&packet(&MIXED), None, Asks::Once, NOW + 51), "heheh");
    }

    #[test]
    fn dead_letters_are_passed_over_and_nothing_else() {
        let packet = packet(&MIXED);
        assert_eq!(fates_without(&[6, 7, 9], &packet, marks(9, 5), Asks::Once, NOW), "dbabh");
        assert_eq!(fates_without(&[5, 10], &packet, marks(9, 8), Asks::UntilAnswered, NOW), "dddab");
    }

    proptest! {
        #[test]
        fn whatever_a_page_says_every_message_has_one_fate(
            count in 1u64..20, taken in 0u64..30, done in 0u64..30
        ) {
            let messages: Vec<_> = (0..count).map(|at| (3 + at, Kind::Tell)).collect();
            let fates = fates(&packet(&messages), marks(taken, done), Asks::Once, NOW);
            prop_assert_eq!(fates.len() as u64, count);
            prop_assert!(!fates.contains(['t', 'e']));
            // Done is only what the page says so of by a number of this packet.
            prop_assert!(!fates.contains('d') || (3..3 + count).contains(&done));
        }
    }
}
