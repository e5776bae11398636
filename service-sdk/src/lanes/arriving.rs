//! The receiver's end of one lane.
//!
//! ```text
//!  peek ─ check ─▶ head: one message a turn ─▶ taken ─ work ─ done ─┬▶ the next of the packet
//!                                                                   └▶ consume
//! ```
//! The order *taken, work, done, consume* is part of the protocol: any other loses or doubles messages when a
//! process dies in between. What is deferred keeps its packet, and those behind it, in the lane; the next one is peeked
//! behind them.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use watchdog_protocol::lane::{self, Direction, Envelope, EnvelopeError, Kind, PACKET_HEADER, Place};
use watchdog_protocol::session::LaneIn;
use watchdog_protocol::{MessageId, MessageNumber};
use watchdog_seqpacket::payload::{self, PayloadError};
use watchdog_seqpacket::{
    AsyncSeqpacket, Marks, Readable, Received, ReceiverPage, SenderPageReader, Seqpacket,
};

use super::answers::Answers;
use super::head::{Head, Next};
use super::turns::Turn;
use super::unfinished::{Spent, Unfinished};
use super::{AdoptError, Bounds, LANE_PACKET};
use crate::delivery::Delivery;
use crate::message::{Asks, DecodeError, Message};
use crate::reply::{Encoded, ReplyPort};
use crate::session::{LaneEnds, chain, may_pass};

/// Packets that are none, in one turn: more of them wait for the next.
const BAD_PACKETS_A_TURN: usize = 16;

/// A packet up to this is copied out of the buffer it was read into; a longer one takes the buffer along.
const COPIED: usize = 4096;

/// A lane to this service's inbox.
pub(super) struct Arriving {
    lane: LaneIn,
    socket: Arc<AsyncSeqpacket>,
    page: ReceiverPage,
    peer: SenderPageReader,
    bounds: Bounds,
    pub(super) answers: Arc<Answers>,
    pub(super) turn: Arc<Turn>,
    waker: Waker,
    /// What the page said when this process got the lane, until the first packet that no older process had taken.
    old: Option<Marks>,
    head: Option<Head>,
    /// The head's packet, at the start of it.
    packet: Vec<u8>,
    /// Bytes of the head's packet.
    length: usize,
    /// What is beside it.
    beside: Option<Vec<u8>>,
    /// Dead letters that are still in the lane.
    buried: BTreeSet<MessageNumber>,
    /// Handed over, and not done.
    in_hand: Option<MessageNumber>,
    unfinished: Unfinished,
    /// As the page says.
    taken: MessageNumber,
    /// The last number that this process has peeked.
    peeked: MessageNumber,
    /// What was found behind the packets of the unfinished is none of a lane: it is skipped when it is at the head.
    is_bad_behind: bool,
    violations: u64,
    /// Nothing more is read from it.
    is_stopped: bool,
}

/// What a look for a packet found.
enum Load {
    Head,
    BadPackets,
    Nothing,
    /// Nobody may send any more, and all is done.
    End,
}

/// What a turn of a lane yields.
pub(super) enum Yield<M> {
    /// A message. The lane is in hand until it is done.
    Message(M, Delivery),
    /// It had only what is skipped, and may have more.
    Again,
    /// Nothing now: it comes to the line by itself.
    Nothing,
    /// Nothing, and nothing will come: its sender may send no more, and all of it is done.
    Drained,
}

/// What is wrong with a packet or message. It is skipped; the lane goes on.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error("a packet without bytes")]
    Empty,
    #[error("a packet of {length} bytes")]
    Oversize { length: usize },
    #[error("a packet with more than one descriptor")]
    TooManyDescriptors,
    #[error("a packet that is none of a lane")]
    Envelope(#[source] EnvelopeError),
    #[error("a packet of answers")]
    Direction,
    #[error("a packet without the payload that should be beside it")]
    NothingBeside,
    #[error("a payload that can't be taken")]
    Payload(#[source] PayloadError),
    #[error("a message that can't be read")]
    Message(#[source] DecodeError),
}

impl Arriving {
    pub(super) fn adopt(
        lane: LaneIn,
        ends: LaneEnds,
        buried: BTreeSet<MessageNumber>,
        max_message: usize,
        turn: Arc<Turn>,
    ) -> Result<Self, AdoptError> {
        let LaneEnds { socket, own_page, peer_page } = ends;
        let socket = Seqpacket::from_fd(socket).map_err(AdoptError::Socket)?;
        let bounds = Bounds::of(max_message, &socket)?;
        let page = ReceiverPage::map_rw(own_page.as_fd()).map_err(AdoptError::Page)?;
        let peer = SenderPageReader::map_ro(peer_page.as_fd()).map_err(AdoptError::Page)?;
        let socket = Arc::new(AsyncSeqpacket::new(socket).map_err(AdoptError::Watch)?);
        let answers =
            Answers::new(lane.lane, lane.sender.clone(), Arc::clone(&socket), bounds, Arc::clone(&turn));
        // A mark that no sender has reached is none.
        let old = Some(page.marks()).filter(|old| old.taken <= peer.reserved());
        Ok(Self {
            taken: old.map_or(MessageNumber::NONE, |old| old.taken),
            old,
            lane,
            socket,
            page,
            peer,
            bounds,
            answers: Arc::new(answers),
            waker: Waker::from(Arc::clone(&turn)),
            turn,
            head: None,
            packet: Vec::new(),
            length: 0,
            beside: None,
            buried,
            in_hand: None,
            unfinished: Unfinished::default(),
            peeked: MessageNumber::NONE,
            is_bad_behind: false,
            violations: 0,
            is_stopped: false,
        })
    }

    /// Its turn: at most one message, at a moment of the monotonic clock. `buffer` is memory for a packet.
    pub(super) fn turn<M: Message>(&mut self, buffer: &mut Vec<u8>, now: u64) -> Yield<M> {
        if self.unfinished.is_full() {
            // It comes to the line when one of them is done.
            return Yield::Nothing;
        }
        if self.head.is_none() {
            match self.load(buffer) {
                Load::Head => {}
                Load::BadPackets => return Yield::Again,
                Load::Nothing => return Yield::Nothing,
                Load::End => return Yield::Drained,
            }
        }
        while let Some(next) = self.next_of_head(M::ASKS, now) {
            match next {
                Next::Hand { envelope, payload, again } => {
                    if let Some((message, delivery)) = self.hand(&envelope, payload, again, now) {
                        return Yield::Message(message, delivery);
                    }
                }
                Next::Done(number) => {
                    // The page says so already, and perhaps more.
                    self.unfinished.pass(number);
                }
                Next::Buried(number) => self.pass(number),
                Next::Taken(number) => self.skip(number),
                Next::Expired(number) => {
                    self.answers.send(Kind::Skipped, number, Encoded::default());
                    self.skip(number);
                }
            }
        }
        self.spend();
        if self.may_have_more() { Yield::Again } else { Yield::Nothing }
    }

    fn next_of_head(&mut self, asks: Asks, now: u64) -> Option<Next> {
        self.head.as_mut()?.next(&self.packet, &self.buried, asks, now)
    }

    fn hand<M: Message>(
        &mut self,
        envelope: &Envelope,
        payload: Range<usize>,
        again: bool,
        now: u64,
    ) -> Option<(M, Delivery)> {
        let number = envelope.number;
        // Before the payload is looked at: one that kills its reader is a message that was in hand, each time.
        self.take(number);
        self.page.mark_in_hand(number);
        if again {
            self.page.count_handed_again();
        }
        let reply =
            (envelope.kind == Kind::Ask).then(|| ReplyPort::new(Arc::clone(&self.answers) as _, number));
        let payload = match envelope.place {
            Place::Inline => &self.packet[payload],
            Place::Beside => self.beside.as_deref().expect("it was read with its packet"),
        };
        let message = match M::decode(payload, reply) {
            Ok(message) => message,
            Err(error) => {
                // Its reply, if it has one, went with it: that says that it was dropped.
                self.violation(&Violation::Message(error));
                self.pass(number);
                return None;
            }
        };
        let waited = now.saturating_sub(envelope.sent_at);
        if !again {
            self.page.count_handed(waited);
        }
        self.in_hand = Some(number);
        let delivery = Delivery {
            sender: self.lane.sender.clone(),
            id: MessageId { epoch: self.lane.lane, number },
            redelivered: again,
            waited: Duration::from_nanos(waited),
            is_ask: envelope.kind == Kind::Ask,
            trace: envelope.trace,
        };
        Some((message, delivery))
    }

    /// Passes over a message that nobody gets.
    fn skip(&mut self, number: MessageNumber) {
        self.take(number);
        self.pass(number);
    }

    /// The mark never goes back: what an older process had taken behind this one is still to come again, and to say so.
    fn take(&mut self, number: MessageNumber) {
        if number > self.taken {
            self.taken = number;
            self.page.mark_taken(number);
        }
    }

    fn pass(&mut self, number: MessageNumber) {
        let done = self.unfinished.pass(number);
        self.passed(number, done);
    }

    /// A message is in nobody's hand any more, and all up to `done` are done.
    fn passed(&mut self, number: MessageNumber, done: MessageNumber) {
        if done < number {
            // Else the mark says it.
            self.page.mark_in_hand(MessageNumber::NONE);
        }
        self.page.mark_done(done);
    }

    /// The message in hand is done, if there is one. Whether the lane is to have another turn.
    pub(super) fn finish(&mut self) -> bool {
        let Some(number) = self.in_hand.take() else { return false };
        self.pass(number);
        self.go_on()
    }

    /// The message in hand is kept open, and handed over no more. Its number, and whether the lane is to have another
    /// turn.
    pub(super) fn defer(&mut self) -> Option<(MessageNumber, bool)> {
        let number = self.in_hand.take()?;
        let done = self.unfinished.defer(number);
        self.passed(number, done);
        Some((number, self.go_on()))
    }

    /// A deferred one is done. Whether the lane is to have another turn.
    pub(super) fn finish_deferred(&mut self, number: MessageNumber) -> bool {
        let Some(done) = self.unfinished.finish(number) else { return false };
        self.page.mark_done(done);
        self.consume();
        self.head.is_some() || self.may_have_more()
    }

    fn go_on(&mut self) -> bool {
        if self.head.as_ref().is_some_and(Head::is_spent) {
            self.spend();
        }
        self.head.is_some() || self.may_have_more()
    }

    /// The packet in turn has had all of its turns.
    fn spend(&mut self) {
        let Some(head) = self.head.take() else { return };
        let beside = self.beside.take().map_or(0, |bytes| bytes.len() as u64);
        let found = self.packet[..PACKET_HEADER].try_into().expect("a checked packet has a header");
        self.unfinished.spend(Spent { length: self.length, head: found, last: head.last(), beside });
        self.consume();
    }

    /// Drops the packets at the head of the queue that are done, which must be those that were peeked.
    fn consume(&mut self) {
        while let Some(spent) = self.unfinished.leaving() {
            let mut found = [0; PACKET_HEADER];
            match self.socket.socket().consume(&mut found) {
                Ok(_) if found == spent.head => {
                    self.page.mark_consumed(spent.last, spent.beside);
                    self.is_bad_behind = false;
                }
                outcome => {
                    let (sender, lane) = (&self.lane.sender, self.lane.lane);
                    tracing::error!(%sender, %lane, ?outcome, "another process reads this lane, which is left to it");
                    self.is_stopped = true;
                }
            }
        }
    }

    /// Whether it must have another turn. If not, it comes to the line when a packet arrives.
    fn may_have_more(&mut self) -> bool {
        if self.is_bad_behind {
            return false;
        }
        while let Some(readable) = self.readable() {
            // Numbers are reserved before they are sent: when the last one has been peeked nothing is behind it,
            // which spares the call that would find nothing. The end has no number.
            if self.peer.reserved() > self.peeked || readable.is_closed() {
                return true;
            }
            readable.drained();
        }
        false
    }

    /// Peeks the first packet that has not had its turns.
    fn load(&mut self, buffer: &mut Vec<u8>) -> Load {
        buffer.resize(LANE_PACKET, 0);
        for _ in 0..BAD_PACKETS_A_TURN {
            let Some(readable) = self.readable() else { return Load::Nothing };
            let offset = self.unfinished.offset();
            let socket = self.socket.socket();
            let peeked =
                if offset == 0 { socket.peek(buffer, 1) } else { socket.peek_behind(offset, buffer, 1) };
            let violation = match peeked {
                Ok(Received::Packet(packet)) => {
                    match self.accept(&buffer[..packet.length], packet.descriptors.first()) {
                        Ok((head, beside)) => {
                            self.peeked = head.last();
                            self.head = Some(head);
                            self.beside = beside;
                            self.keep(buffer, packet.length);
                            return Load::Head;
                        }
                        Err(violation) => violation,
                    }
                }
                Ok(Received::Empty) => Violation::Empty,
                Ok(Received::Oversize { length }) => Violation::Oversize { length },
                Ok(Received::TooManyDescriptors) => Violation::TooManyDescriptors,
                Ok(Received::End) => {
                    // The other end was shut, or nobody has it: then the watchdog is gone too.
                    self.is_stopped = true;
                    return Load::End;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    readable.drained();
                    continue;
                }
                Err(error) if may_pass(&error) => {
                    tracing::error!(sender = %self.lane.sender, %error, "a lane waits for what is used up");
                    self.answers.look_later();
                    return Load::Nothing;
                }
                Err(error) => {
                    tracing::error!(sender = %self.lane.sender, %error, "a lane can't be read");
                    self.is_stopped = true;
                    return Load::Nothing;
                }
            };
            if offset > 0 {
                self.is_bad_behind = true;
                return Load::Nothing;
            }
            self.violation(&violation);
            // An error is that it is gone.
            let _ = self.socket.socket().consume(&mut []);
        }
        Load::BadPackets
    }

    /// `None`: nothing is queued, or it is not for this process to read.
    fn readable(&self) -> Option<Readable<'_>> {
        if self.is_stopped {
            return None;
        }
        match self.socket.poll_readable(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(Ok(readable)) => Some(readable),
            // An error is that the runtime shuts down.
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Checks a whole packet, before anything of it is handled, and reads what is beside it.
    fn accept(
        &mut self,
        packet: &[u8],
        descriptor: Option<&OwnedFd>,
    ) -> Result<(Head, Option<Vec<u8>>), Violation> {
        let header = lane::check(packet).map_err(Violation::Envelope)?;
        if header.direction != Direction::Requests {
            return Err(Violation::Direction);
        }
        let (first, _) = lane::read(packet, PACKET_HEADER).expect("the packet was checked");
        let beside = match first.place {
            Place::Inline => None,
            Place::Beside => match self.read_beside(&first, descriptor) {
                Ok(bytes) => Some(bytes),
                Err(violation) => {
                    if first.kind == Kind::Ask {
                        self.answers.send(Kind::Dropped, first.number, Encoded::default());
                    }
                    return Err(violation);
                }
            },
        };
        let old = self.old.filter(|old| header.first <= old.taken);
        self.old = old;
        Ok((Head::new(header, old), beside))
    }

    fn read_beside(&self, envelope: &Envelope, descriptor: Option<&OwnedFd>) -> Result<Vec<u8>, Violation> {
        let descriptor = descriptor.ok_or(Violation::NothingBeside)?;
        payload::read(descriptor.as_fd(), envelope.length.into(), self.bounds.max_message)
            .map_err(Violation::Payload)
    }

    /// Keeps a packet for the turns it has.
    fn keep(&mut self, buffer: &mut Vec<u8>, length: usize) {
        self.length = length;
        if length <= COPIED {
            self.packet.clear();
            self.packet.extend_from_slice(&buffer[..length]);
        } else {
            std::mem::swap(&mut self.packet, buffer);
        }
    }

    fn violation(&mut self, violation: &Violation) {
        self.violations += 1;
        // A sender that sends nothing else does not fill the log.
        if self.violations.is_power_of_two() {
            let (sender, lane, count) = (&self.lane.sender, self.lane.lane, self.violations);
            tracing::warn!(%sender, %lane, count, "skipped {}", chain(violation));
        }
    }
}
