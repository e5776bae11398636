//! What the core itself puts into a lane: an operator's messages, and dead letters that go back.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::time::Duration;

use watchdog_protocol::lane::{Direction, Envelope, Kind, Packer, Place};
use watchdog_protocol::limits::{MAX_INLINE, PACKET_OVERHEAD};
use watchdog_protocol::{MessageNumber, ServiceName};
use watchdog_seqpacket::clock::monotonic_ns;
use watchdog_seqpacket::{AsyncSeqpacket, PageError, SenderPage, payload};

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
    #[error("a process has shut the lane")]
    Shut,
    #[error("it can't be sent")]
    Send(#[source] io::Error),
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
                    io::ErrorKind::BrokenPipe => PostError::Shut,
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

    /// How many packets of answers may be there, at most.
    pub(crate) fn answers_left(&self) -> usize {
        // Each is charged for much more than this.
        self.receiver_end.outstanding().unwrap_or_default() / (PACKET_OVERHEAD / 2)
    }
}
