//! What receivers send back to the operator: the core's ends of its lanes, each in its turn.
//!
//! A receiver may send whatever it likes, as fast as it can: a turn is a few packets of one lane, then the others have
//! theirs, and nothing is copied that nobody waits for.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::ops::Bound;
use std::task::Poll;

use watchdog_protocol::LaneEpoch;
use watchdog_protocol::lane::Direction;
use watchdog_protocol::limits::MAX_PACKET;
use watchdog_seqpacket::{AsyncSeqpacket, Received};

use super::Lane;
use super::packet::{Found, Packet};

/// Packets of one lane that are taken before the other lanes, and all else that the core does, have their turn.
const PACKETS_A_TURN: usize = 16;

/// The core's ends of the lanes it sends on.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    watched: BTreeMap<LaneEpoch, Watched>,
    /// Whose turn was the last one.
    served: Option<LaneEpoch>,
}

#[derive(Debug)]
struct Watched {
    end: AsyncSeqpacket,
    /// Its receiver sent what is no answer.
    is_broken: bool,
}

/// How a lane was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Its turn ended, and something may be left.
    Perhaps,
    /// Nothing is there.
    Nothing,
    /// Nothing ever comes: a process has shut it, or it can't be read. It is not watched any more.
    End,
}

impl Answers {
    pub(crate) fn is_watching(&self, lane: LaneEpoch) -> bool {
        self.watched.contains_key(&lane)
    }

    /// Watches a lane from now on. `end`: of [`Lane::watch_answers`].
    pub(crate) fn watch(&mut self, lane: LaneEpoch, end: AsyncSeqpacket) {
        self.watched.insert(lane, Watched { end, is_broken: false });
    }

    pub(crate) fn forget(&mut self, lane: LaneEpoch) {
        self.watched.remove(&lane);
    }

    /// Waits until something is there, and says in which lane: those behind the one that was served last come first.
    /// Cancel safe: it takes nothing.
    pub(crate) async fn arrived(&self) -> LaneEpoch {
        poll_fn(|context| {
            let last = self.served.map_or(Bound::Unbounded, Bound::Excluded);
            for (lane, watched) in self.watched.range((last, Bound::Unbounded)).chain(&self.watched) {
                // An error is the runtime's end, and nobody is left to tell.
                if let Poll::Ready(Ok(_)) = watched.end.poll_readable(context) {
                    return Poll::Ready(*lane);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A lane's turn: what is in its next packets, message by message.
    pub(crate) fn take(&mut self, lane: &Lane, heed: impl FnMut(Found<'_>)) -> Left {
        self.served = Some(lane.epoch);
        let left = self.take_packets(lane, PACKETS_A_TURN, AsyncSeqpacket::try_take, heed);
        if left == Left::End {
            self.forget(lane.epoch);
        }
        left
    }

    /// All that is there when its receiver has ended; not more, whoever else has its end and goes on writing.
    pub(crate) fn take_last(&mut self, lane: &Lane, heed: impl FnMut(Found<'_>)) {
        // Also what the runtime has not seen yet.
        let take = |end: &AsyncSeqpacket, buffer: &mut [u8], wanted| end.socket().take(buffer, wanted);
        self.take_packets(lane, lane.answers_left(), take, heed);
    }

    fn take_packets(
        &mut self,
        lane: &Lane,
        most: usize,
        take: impl Fn(&AsyncSeqpacket, &mut [u8], usize) -> io::Result<Received>,
        mut heed: impl FnMut(Found<'_>),
    ) -> Left {
        let Some(Watched { end, is_broken }) = self.watched.get_mut(&lane.epoch) else {
            return Left::Nothing;
        };
        let mut broken = |what: &str| {
            // One that sends nothing else does not fill the log.
            if !std::mem::replace(is_broken, true) {
                tracing::warn!("{} answered the operator by {what}", lane.receiver);
            }
        };
        let mut buffer = vec![0; MAX_PACKET];
        for _ in 0..most {
            match take(end, &mut buffer, 1) {
                Ok(Received::Packet(received)) => {
                    match Packet::check(&buffer[..received.length], received.descriptors.first()) {
                        Ok(packet) if packet.header.direction == Direction::Replies => {
                            packet.messages().for_each(&mut heed);
                        }
                        Ok(_) => broken("questions"),
                        Err(error) => broken(&error.to_string()),
                    }
                }
                Ok(Received::Oversize { .. } | Received::TooManyDescriptors | Received::Empty) => {
                    broken("a packet that is none");
                }
                Ok(Received::End) => return Left::End,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Left::Nothing,
                Err(error) => {
                    tracing::error!("the answers of {} can't be read: {error}", lane.receiver);
                    return Left::End;
                }
            }
        }
        Left::Perhaps
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::pin::pin;
    use std::time::Duration;

    use watchdog_protocol::lane::{Envelope, Kind, Packer, Place};
    use watchdog_protocol::{Contract, MessageNumber, ServiceName};

    use super::*;

    const SIZE: usize = 1 << 20;

    /// An operator's lane to a service, watched.
    fn lane(answers: &mut Answers, receiver: &str) -> Lane {
        let lane = Lane::make(&ServiceName::operator(), &receiver.parse().unwrap(), Contract(Vec::new()), 0);
        let lane = lane.unwrap();
        lane.receiver_end.set_send_bound(SIZE).unwrap();
        answers.watch(lane.epoch, lane.watch_answers(SIZE).unwrap());
        lane
    }

    fn answer(lane: &Lane, number: u64) {
        let number = MessageNumber::from_stored(number);
        let (kind, place) = (Kind::Answer, Place::Inline);
        let envelope =
            Envelope { kind, number, sent_at: 0, left: 0, length: 0, place, trace: None, again: false };
        let mut packet = Packer::new(Direction::Replies);
        assert!(packet.push(&envelope, b""));
        send(lane, packet.bytes());
    }

    fn send(lane: &Lane, bytes: &[u8]) {
        lane.receiver_end.send(&[IoSlice::new(bytes)], &[]).unwrap();
    }

    async fn arrived(answers: &Answers) -> LaneEpoch {
        tokio::time::timeout(Duration::from_secs(50), answers.arrived()).await.expect("something is there")
    }

    /// Whether nothing is there, when the runtime has looked.
    async fn is_quiet(answers: &Answers) -> bool {
        let mut arrived = pin!(answers.arrived());
        for _ in 0..100 {
            tokio::task::yield_now().await;
            if tokio::time::timeout(Duration::ZERO, &mut arrived).await.is_ok() {
                return false;
            }
        }
        true
    }

    fn numbers(answers: &mut Answers, lane: &Lane) -> (Vec<u64>, Left) {
        let mut numbers = Vec::new();
        let left = answers.take(lane, |found| numbers.push(found.envelope.number.get()));
        (numbers, left)
    }

    #[tokio::test]
    async fn each_lane_has_its_turn_however_much_another_has() {
        let mut answers = Answers::default();
        let lanes = ["a", "b", "c"].map(|name| lane(&mut answers, name));
        let packets = PACKETS_A_TURN as u64 * 3;
        for lane in &lanes {
            (1..=packets).for_each(|number| answer(lane, number));
        }
        let mut turns = Vec::new();
        let mut taken = BTreeMap::<_, Vec<u64>>::new();
        for _ in 0..9 {
            let epoch = arrived(&answers).await;
            let lane = lanes.iter().find(|lane| lane.epoch == epoch).unwrap();
            let (numbers, left) = numbers(&mut answers, lane);
            assert_eq!((numbers.len(), left), (PACKETS_A_TURN, Left::Perhaps));
            taken.entry(epoch).or_default().extend(numbers);
            turns.push(epoch);
        }
        assert_eq!(turns[..3], turns[3..6]);
        assert_eq!(turns[..3], turns[6..]);
        assert!(taken.values().all(|numbers| numbers.iter().copied().eq(1..=packets)) && taken.len() == 3);
        for lane in &lanes {
            assert_eq!(numbers(&mut answers, lane), (Vec::new(), Left::Nothing));
        }
        assert!(is_quiet(&answers).await);
        answer(&lanes[1], 7);
        assert_eq!(arrived(&answers).await, lanes[1].epoch);
    }

    #[tokio::test]
    async fn a_lane_that_was_shut_is_read_to_its_end_once_and_hides_no_other() {
        let mut answers = Answers::default();
        let (shut, other) = (lane(&mut answers, "a"), lane(&mut answers, "b"));
        answer(&shut, 3);
        shut.receiver_end.shut_sending().unwrap();
        assert_eq!(arrived(&answers).await, shut.epoch);
        assert_eq!(numbers(&mut answers, &shut), (vec![3], Left::End));
        assert!(!answers.is_watching(shut.epoch));
        assert!(is_quiet(&answers).await);
        answer(&other, 1);
        assert_eq!(arrived(&answers).await, other.epoch);
        assert_eq!(numbers(&mut answers, &other), (vec![1], Left::Nothing));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_passed_over() {
        let mut answers = Answers::default();
        let lane = lane(&mut answers, "a");
        send(&lane, b"garbage");
        let mut questions = Packer::new(Direction::Requests);
        let number = MessageNumber::from_stored(1);
        let (kind, place) = (Kind::Ask, Place::Inline);
        let ask = Envelope { kind, number, sent_at: 0, left: 0, length: 0, place, trace: None, again: false };
        assert!(questions.push(&ask, b""));
        send(&lane, questions.bytes());
        answer(&lane, 5);
        arrived(&answers).await;
        assert_eq!(numbers(&mut answers, &lane), (vec![5], Left::Nothing));
    }

    #[tokio::test]
    async fn the_last_ones_are_all_that_are_there_and_no_more_than_that() {
        let mut answers = Answers::default();
        let lane = lane(&mut answers, "a");
        (1..=200).for_each(|number| answer(&lane, number));
        let mut taken = 0;
        answers.take_last(&lane, |_| {
            taken += 1;
            // Somebody else has its end, and is as fast.
            if taken < 10_000 {
                answer(&lane, 1000 + taken);
            }
        });
        assert!((200..1000).contains(&taken), "{taken}");
    }
}
