//! The envelope of a lane, version 1: little-endian, fixed offsets, read without copying.
//!
//! ```text
//! packet   0 version=1 | 1 direction | 2..4 count | 4..8 zero | 8..16 number of the first message
//! message  0 kind | 1 flags | 2..4 zero | 4..8 payload length | 8..16 number
//!          16..24 sent at, ns of the monotonic clock | 24..32 time left until the deadline, ns; 0: none
//!          [25 bytes of trace context when flagged] payload, or nothing when it is beside the packet
//! ```
//! Requests travel sender → receiver in numbers that grow from message to message; replies travel back and
//! carry the number of the ask they answer. A message whose payload is beside the packet is alone in it.

use crate::MessageNumber;
use crate::limits::{MAX_BATCH, MAX_PACKET};
use crate::trace::{TRACE, TraceContext};

/// Bytes of a packet's header.
pub const PACKET_HEADER: usize = 16;
/// Bytes of a message's header without trace context.
pub const MESSAGE_HEADER: usize = 32;
/// The version this crate writes, and the only one it reads.
pub const ENVELOPE_VERSION: u8 = 1;

const FLAG_TRACE: u8 = 1;
const FLAG_BESIDE: u8 = 2;
const FLAG_AGAIN: u8 = 4;

/// Which way a packet travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Sender to receiver.
    Requests,
    /// Receiver to sender.
    Replies,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message without reply: delivered at least once.
    Tell,
    /// A message with a reply: delivered at most once.
    Ask,
    /// The reply.
    Answer,
    /// The handler dropped its reply.
    Dropped,
    /// The ask came to its turn after its deadline and was skipped.
    Skipped,
}

impl Kind {
    fn direction(self) -> Direction {
        match self {
            Self::Tell | Self::Ask => Direction::Requests,
            Self::Answer | Self::Dropped | Self::Skipped => Direction::Replies,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Tell => 1,
            Self::Ask => 2,
            Self::Answer => 3,
            Self::Dropped => 4,
            Self::Skipped => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Tell,
            2 => Self::Ask,
            3 => Self::Answer,
            4 => Self::Dropped,
            5 => Self::Skipped,
            _ => return None,
        })
    }
}

/// All of a message but its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// Its number, or that of the ask it answers.
    pub number: MessageNumber,
    /// When the sender accepted it: nanoseconds of the monotonic clock.
    pub sent_at: u64,
    /// Nanoseconds left until its deadline when it was accepted; 0: none.
    pub left: u64,
    /// Bytes of its payload.
    pub length: u32,
    /// Whether the payload is a sealed memfd beside the packet.
    pub place: Place,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// It was in hand before, under another number: a dead letter put back.
    pub again: bool,
}

/// Where a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the packet.
    Inline,
    /// In the sealed memfd beside the packet.
    Beside,
}

impl Envelope {
    /// The moment after which nobody waits for it: nanoseconds of the monotonic clock.
    pub fn deadline(&self) -> Option<u64> {
        (self.left != 0).then(|| self.sent_at.saturating_add(self.left))
    }

    fn header(&self) -> usize {
        MESSAGE_HEADER + if self.trace.is_some() { TRACE } else { 0 }
    }
}

/// What is wrong with a packet of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It ends in the middle of a header or payload.
    #[error("the packet ends at byte {at} in the middle of a message")]
    Short {
        /// Where it ends.
        at: usize,
    },
    /// A version this crate does not read.
    #[error("envelope version {found}, this end reads {ENVELOPE_VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A field that holds what it can't.
    #[error("byte {at} of the packet can't be {found}")]
    Field {
        /// Where.
        at: usize,
        /// What it holds.
        found: u8,
    },
    /// No message, more than fit, or fewer than the header says.
    #[error("the packet says it holds {said} messages and holds {found}")]
    Count {
        /// In the header.
        said: usize,
        /// In the packet.
        found: usize,
    },
    /// Numbers that do not grow, or a first that is not the header's.
    #[error("message number {found} after {before}")]
    Number {
        /// The number found.
        found: MessageNumber,
        /// The one before it, or the header's.
        before: MessageNumber,
    },
}

/// Packs messages of one direction into one packet.
#[derive(Debug)]
pub struct Packer {
    bytes: Vec<u8>,
    count: usize,
}

impl Packer {
    /// An empty packet.
    pub fn new(direction: Direction) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(ENVELOPE_VERSION);
        bytes.push(match direction {
            Direction::Requests => 1,
            Direction::Replies => 2,
        });
        bytes.resize(PACKET_HEADER, 0);
        Self { bytes, count: 0 }
    }

    /// Appends one message, or says that it does not fit behind what is there.
    ///
    /// `payload` is empty when the payload is beside the packet; such a message fits an empty packet only.
    #[must_use = "a message that does not fit is not in the packet"]
    pub fn push(&mut self, envelope: &Envelope, payload: &[u8]) -> bool {
        let size = envelope.header() + payload.len();
        let alone = envelope.place == Place::Beside;
        if self.count > 0 && (alone || self.bytes.len() + size > MAX_PACKET || self.count >= MAX_BATCH) {
            return false;
        }
        if self.count == 0 {
            self.bytes[8..16].copy_from_slice(&envelope.number.get().to_le_bytes());
        }
        self.count += 1;
        let count = u16::try_from(self.count).expect("at most MAX_BATCH");
        self.bytes[2..4].copy_from_slice(&count.to_le_bytes());
        let mut flags = 0;
        if envelope.trace.is_some() {
            flags |= FLAG_TRACE;
        }
        if alone {
            flags |= FLAG_BESIDE;
        }
        if envelope.again {
            flags |= FLAG_AGAIN;
        }
        let mut head = [0; MESSAGE_HEADER];
        head[0] = envelope.kind.byte();
        head[1] = flags;
        head[4..8].copy_from_slice(&envelope.length.to_le_bytes());
        head[8..16].copy_from_slice(&envelope.number.get().to_le_bytes());
        head[16..24].copy_from_slice(&envelope.sent_at.to_le_bytes());
        head[24..32].copy_from_slice(&envelope.left.to_le_bytes());
        self.bytes.extend_from_slice(&head);
        if let Some(trace) = &envelope.trace {
            self.bytes.extend_from_slice(&trace.to_bytes());
        }
        self.bytes.extend_from_slice(payload);
        true
    }

    /// How many messages are in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// No message is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The packet so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties it for the next packet of the same direction, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(PACKET_HEADER);
        self.bytes[2..PACKET_HEADER].fill(0);
        self.count = 0;
    }
}

/// What a packet's header says, after the whole packet was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which way it travels.
    pub direction: Direction,
    /// How many messages it holds, at least one.
    pub count: usize,
    /// The number of its first message.
    pub first: MessageNumber,
    /// The number of its last message.
    pub last: MessageNumber,
}

/// Checks a whole packet before anything of it is handled, so that a bad end does not follow a good start.
///
/// # Errors
/// [`EnvelopeError`] says what is wrong and where.
pub fn check(packet: &[u8]) -> Result<Header, EnvelopeError> {
    if packet.len() < PACKET_HEADER {
        return Err(EnvelopeError::Short { at: packet.len() });
    }
    if packet[0] != ENVELOPE_VERSION {
        return Err(EnvelopeError::Version { found: packet[0] });
    }
    let direction = match packet[1] {
        1 => Direction::Requests,
        2 => Direction::Replies,
        found => return Err(EnvelopeError::Field { at: 1, found }),
    };
    let said = usize::from(u16::from_le_bytes([packet[2], packet[3]]));
    let first = MessageNumber::from_stored(word(packet, 8));
    let mut at = PACKET_HEADER;
    let mut found = 0;
    let mut before = first;
    while at < packet.len() {
        let (envelope, payload) = read(packet, at)?;
        if envelope.kind.direction() != direction {
            return Err(EnvelopeError::Field { at, found: packet[at] });
        }
        let number = envelope.number;
        let grows = if found == 0 { number == first } else { number > before };
        if direction == Direction::Requests && !grows {
            return Err(EnvelopeError::Number { found: number, before });
        }
        before = number;
        found += 1;
        at = payload.end;
        if envelope.place == Place::Beside && (said != 1 || at != packet.len()) {
            return Err(EnvelopeError::Count { said, found: 1 });
        }
    }
    if said == 0 || said != found || said > MAX_BATCH {
        return Err(EnvelopeError::Count { said, found });
    }
    Ok(Header { direction, count: said, first, last: before })
}

/// Reads the message whose header starts at byte `at`, and where its payload lies; the next one starts at the
/// range's end.
///
/// # Errors
/// [`EnvelopeError::Short`] or [`EnvelopeError::Field`].
pub fn read(packet: &[u8], at: usize) -> Result<(Envelope, std::ops::Range<usize>), EnvelopeError> {
    let short = EnvelopeError::Short { at: packet.len() };
    let head = packet.get(at..at + MESSAGE_HEADER).ok_or(short)?;
    let kind = Kind::from_byte(head[0]).ok_or(EnvelopeError::Field { at, found: head[0] })?;
    let flags = head[1];
    if flags & !(FLAG_TRACE | FLAG_BESIDE | FLAG_AGAIN) != 0 {
        return Err(EnvelopeError::Field { at: at + 1, found: flags });
    }
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let mut body = at + MESSAGE_HEADER;
    let trace = if flags & FLAG_TRACE == 0 {
        None
    } else {
        let bytes = packet.get(body..body + TRACE).ok_or(short)?;
        body += TRACE;
        // One of zeros is none: it says nothing, and costs nobody the message.
        TraceContext::from_bytes(bytes.try_into().expect("as long as a trace context"))
    };
    let place = if flags & FLAG_BESIDE == 0 { Place::Inline } else { Place::Beside };
    let inline = match place {
        Place::Inline => usize::try_from(length).map_err(|_| short)?,
        Place::Beside => 0,
    };
    let end = body.checked_add(inline).filter(|end| *end <= packet.len()).ok_or(short)?;
    let envelope = Envelope {
        kind,
        number: MessageNumber::from_stored(word(head, 8)),
        sent_at: word(head, 16),
        left: word(head, 24),
        length,
        place,
        trace,
        again: flags & FLAG_AGAIN != 0,
    };
    Ok((envelope, body..end))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(number: u64, length: usize, trace: bool) -> Envelope {
        Envelope {
            kind: Kind::Tell,
            number: MessageNumber::from_stored(number),
            sent_at: 7 + number,
            left: number % 3,
            length: u32::try_from(length).unwrap(),
            place: Place::Inline,
            trace: trace.then(|| TraceContext::from_bytes([9; TRACE]).expect("not zero")),
            again: false,
        }
    }

    #[test]
    fn version_1_is_these_bytes_for_ever() {
        let mut packet = Packer::new(Direction::Requests);
        assert!(packet.push(&envelope(5, 3, false), b"abc"));
        assert!(packet.push(&Envelope { kind: Kind::Ask, ..envelope(9, 2, true) }, b"de"));
        assert_eq!(packet.bytes(), include_bytes!("../testdata/envelope-1.bin"));
    }

    #[test]
    fn a_payload_beside_the_packet_is_alone_in_it() {
        let beside = Envelope { place: Place::Beside, ..envelope(1, 100_000, false) };
        let mut packet = Packer::new(Direction::Requests);
        assert!(packet.push(&beside, b""));
        assert!(!packet.push(&Envelope { number: MessageNumber::from_stored(2), ..beside }, b""));
        assert_eq!(check(packet.bytes()).unwrap().count, 1);
        let mut packet = Packer::new(Direction::Requests);
        assert!(packet.push(&envelope(1, 1, false), b"x"));
        assert!(!packet.push(&Envelope { number: MessageNumber::from_stored(2), ..beside }, b""));
    }

    #[test]
    fn a_message_that_is_put_back_says_so() {
        let mut packet = Packer::new(Direction::Requests);
        assert!(packet.push(&Envelope { again: true, ..envelope(5, 0, true) }, b""));
        assert!(read(packet.bytes(), PACKET_HEADER).unwrap().0.again);
    }

    #[test]
    fn numbers_that_do_not_grow_are_refused() {
        let mut packet = Packer::new(Direction::Requests);
        assert!(packet.push(&envelope(5, 0, false), b""));
        assert!(packet.push(&envelope(5, 0, false), b""));
        assert!(matches!(check(packet.bytes()), Err(EnvelopeError::Number { .. })));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_read(
            sizes in prop::collection::vec((0usize..300, any::<bool>()), 1..60), gap in 1u64..5
        ) {
            let mut packet = Packer::new(Direction::Requests);
            let mut sent = Vec::new();
            for (at, (size, trace)) in sizes.iter().enumerate() {
                let envelope = envelope(1 + gap * at as u64, *size, *trace);
                let payload = vec![at as u8; *size];
                prop_assert!(packet.push(&envelope, &payload));
                sent.push((envelope, payload));
            }
            let header = check(packet.bytes()).unwrap();
            prop_assert_eq!(header.count, sent.len());
            let mut at = PACKET_HEADER;
            for (envelope, payload) in sent {
                let (found, range) = read(packet.bytes(), at).unwrap();
                prop_assert_eq!(found, envelope);
                prop_assert_eq!(&packet.bytes()[range.clone()], &payload[..]);
                at = range.end;
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = check(&bytes);
        }

        #[test]
        fn a_cut_packet_is_refused(cut in 0usize..120) {
            let mut packet = Packer::new(Direction::Requests);
            prop_assert!(packet.push(&envelope(5, 30, false), &[1; 30]));
            prop_assert!(packet.push(&envelope(6, 10, true), &[2; 10]));
            prop_assume!(cut < packet.bytes().len());
            prop_assert!(check(&packet.bytes()[..cut]).is_err());
        }
    }
}
