//! What the core itself puts into a lane, and reads out of it: an operator's messages and their answers, and dead letters
//! that go back.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use watchdog_protocol::lane::{self, Direction, Envelope, Kind, PACKET_HEADER, Packer, Place};
use watchdog_protocol::limits::{MAX_INLINE, MAX_PACKET, PACKET_OVERHEAD};
use watchdog_protocol::{MessageNumber, ServiceName};
use watchdog_seqpacket::clock::monotonic_ns;
use watchdog_seqpacket::{AsyncSeqpacket, PageError, Received, SenderPage, payload};

use super::{Lane, LaneError};

/// A message to be put into a lane.
#[derive(Debug)]
pub(crate) struct Letter<'m> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'m [u8],
    /// After that it is skipped; `None`: never.
    pub(crate) left: Option<Duration>,
    /// It was in hand before, under another number.
    pub(crate) again: bool,
}

/// Why a message is not in the lane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("a page can't be mapped")]
    Page(#[from] PageError),
    #[error("the lane is full")]
    Full,
    #[error("it can't be sent")]
    Send(#[source] io::Error),
}

/// What a receiver sent back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) number: MessageNumber,
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

impl Lane {
    /// Whether the core is its sender, on an operator's behalf.
    pub(crate) fn is_operators(&self) -> bool {
        self.sender == ServiceName::operator()
    }

    /// The sender's end as the core's own, to be told when there is something to read.
    /// `size`: what the lane is to hold.
    pub(crate) fn watch_answers(&self, size: usize) -> Result<AsyncSeqpacket, LaneError> {
        self.reset(&self.sender_end, size)?;
        let end = self.sender_end.try_clone().map_err(LaneError::Copy)?;
        AsyncSeqpacket::new(end).map_err(LaneError::Watch)
    }

    /// Puts a message in, as its sender's, behind what is queued.
    pub(crate) fn post(&self, letter: &Letter<'_>) -> Result<MessageNumber, PostError> {
        let length = letter.payload.len();
        let is_beside = length > MAX_INLINE.min(self.size() / 2);
        let beside = if is_beside { length as u64 } else { 0 };
        let page = SenderPage::map_rw(self.sender_page.as_fd())?;
        self.has_room(&page, length)?;
        let number = page.reserve(1);
        let envelope = Envelope {
            kind: letter.kind,
            number,
            sent_at: monotonic_ns(),
            left: letter.left.map_or(0, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
            length: u32::try_from(length).expect("at most max_message"),
            place: if is_beside { Place::Beside } else { Place::Inline },
            trace: None,
            again: letter.again,
        };
        let mut packet = Packer::new(Direction::Requests);
        let fits = packet.push(&envelope, if is_beside { &[] } else { letter.payload });
        debug_assert!(fits, "the packet is empty");
        let sealed =
            if is_beside { Some(payload::seal(letter.payload).map_err(PostError::Send)?) } else { None };
        let descriptors: Vec<_> = sealed.iter().map(|sealed| sealed.as_fd()).collect();
        page.count_memfd(beside);
        match self.sender_end.send(&[IoSlice::new(packet.bytes())], &descriptors) {
            Ok(()) => {
                page.count_sent(1, length as u64, (letter.kind == Kind::Ask).into());
                Ok(number)
            }
            Err(error) => {
                page.uncount_memfd(beside);
                page.give_back(number, 1);
                Err(match error.kind() {
                    io::ErrorKind::WouldBlock => PostError::Full,
                    _ => PostError::Send(error),
                })
            }
        }
    }

    /// Whether so many bytes go in: always when nothing is there.
    fn has_room(&self, page: &SenderPage, length: usize) -> Result<(), PostError> {
        let used = self.used();
        if used == 0 && self.is_operators() {
            // Nobody else counts what lies beside: a receiver may have died consuming it.
            page.settle_memfd(self.taken.stats().memfd_consumed);
        }
        let all = used.saturating_add((length + PACKET_OVERHEAD) as u64);
        if used > 0 && all > self.size() as u64 { Err(PostError::Full) } else { Ok(()) }
    }

    /// What the receiver has sent back, as far as it is there: all of it, for nobody else reads it. Of a receiver that
    /// does not keep to the protocol, what can be read.
    pub(crate) fn read_answers(&self, limit: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            match self.sender_end.recv(&mut buffer, 1) {
                Ok(Received::Packet(received)) => {
                    let beside = received.descriptors.first();
                    self.unpack(&buffer[..received.length], beside, limit, &mut answers);
                }
                Ok(Received::Oversize { .. } | Received::TooManyDescriptors | Received::Empty) => {
                    tracing::warn!("{} answered the operator by a packet that is none", self.receiver);
                }
                Ok(Received::End) => return answers,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return answers,
                Err(error) => {
                    tracing::warn!("the answers of {} can't be read: {error}", self.receiver);
                    return answers;
                }
            }
        }
    }

    fn unpack(&self, packet: &[u8], beside: Option<&OwnedFd>, limit: usize, answers: &mut Vec<Answer>) {
        let header = match lane::check(packet) {
            Ok(header) if header.direction == Direction::Replies => header,
            Ok(_) | Err(_) => {
                return tracing::warn!("{} answered the operator by what is no answer", self.receiver);
            }
        };
        let mut at = PACKET_HEADER;
        for _ in 0..header.count {
            let (envelope, range) = lane::read(packet, at).expect("the packet was checked");
            at = range.end;
            let payload = match (envelope.place, beside) {
                (Place::Inline, _) => Ok(packet[range].to_vec()),
                (Place::Beside, None) => continue,
                (Place::Beside, Some(beside)) => payload::read(beside.as_fd(), envelope.length.into(), limit),
            };
            match payload {
                Ok(payload) => {
                    answers.push(Answer { number: envelope.number, kind: envelope.kind, payload });
                }
                Err(error) => tracing::warn!("an answer of {} can't be read: {error}", self.receiver),
            }
        }
    }
}
