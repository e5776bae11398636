//! The bytes of a state file or record: header, content, checksum. No I/O.
//!
//! ```text
//! offset  0  magic        8 bytes: what kind of file
//!         8  format       u32    of this table; 1
//!        12  version      u32    of the content
//!        16  incarnation  u64    that wrote it
//!        24  sequence     u64    of the content
//!        32  length       u64    of the content
//!        40  content
//!   40 + length  checksum u32    CRC-32 of everything before it
//! ```
//! All numbers are little-endian. Magic first, format second and checksum last hold for every format to come:
//! so damage in the format field is damage, and only an intact file of a newer watchdog is called newer.

use std::sync::Arc;

use watchdog_protocol::{Incarnation, Sequence};

/// The format this watchdog writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;
const HEADER: usize = 40;
const CHECKSUM: usize = 4;

/// What an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A service's state.
    State,
    /// A record of the watchdog's own.
    Record,
    /// A message that killed its receivers.
    DeadLetter,
}

impl Kind {
    const fn magic(self) -> [u8; 8] {
        // A byte above 127 and both line ends: a file that went through a text conversion is known at once.
        match self {
            Self::State => *b"\x89WDS\r\n\x1a\n",
            Self::Record => *b"\x89WDR\r\n\x1a\n",
            Self::DeadLetter => *b"\x89WDD\r\n\x1a\n",
        }
    }
}

/// What a file says of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Of the content, as its owner numbers it.
    pub version: u32,
    /// Which process wrote it.
    pub incarnation: Incarnation,
    /// Of the content.
    pub sequence: Sequence,
    /// Of the content, in bytes.
    pub length: u64,
}

/// Bytes that are no envelope this watchdog can open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than any envelope.
    #[error("{length} bytes are less than a header")]
    Short {
        /// How many there are.
        length: usize,
    },
    /// Some other kind of file.
    #[error("not a file of this kind")]
    Magic,
    /// Cut short, changed, or with something behind it.
    #[error("the checksum does not fit")]
    Checksum,
    /// The header's length is not the content's.
    #[error("the header tells of {expected} bytes, {found} are there")]
    Length {
        /// What the header says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Intact, and written by a newer watchdog.
    #[error("format {found} is newer than {FORMAT}, the newest this watchdog knows")]
    Newer {
        /// Its format.
        found: u32,
    },
}

/// A file as it is to be. It is encoded where it is written: whoever decides that it is has no time for the checksum of
/// megabytes, nor for a copy of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What it holds.
    pub kind: Kind,
    /// Of the content, as its owner numbers it.
    pub version: u32,
    /// Which process wrote it.
    pub incarnation: Incarnation,
    /// Of the content.
    pub sequence: Sequence,
    /// The content. Shared with whoever holds it in memory.
    pub content: Arc<Vec<u8>>,
}

impl Envelope {
    /// The bytes of the file, in three parts: header, content, checksum.
    pub fn with_parts<T>(&self, act: impl FnOnce(&[&[u8]]) -> T) -> T {
        let Self { kind, version, incarnation, sequence, content } = self;
        let (header, checksum) = around(*kind, *version, *incarnation, *sequence, content);
        act(&[&header, content, &checksum])
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        self.with_parts(|parts| parts.concat())
    }
}

/// The whole file for `content`; the header's length is taken from it.
pub fn encode(
    kind: Kind,
    version: u32,
    incarnation: Incarnation,
    sequence: Sequence,
    content: &[u8],
) -> Vec<u8> {
    let (header, checksum) = around(kind, version, incarnation, sequence, content);
    [&header, content, &checksum].concat()
}

/// What is written before and behind `content`.
fn around(
    kind: Kind,
    version: u32,
    incarnation: Incarnation,
    sequence: Sequence,
    content: &[u8],
) -> (Vec<u8>, [u8; CHECKSUM]) {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&kind.magic());
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&version.to_le_bytes());
    header.extend_from_slice(&incarnation.get().to_le_bytes());
    header.extend_from_slice(&sequence.get().to_le_bytes());
    header.extend_from_slice(&(content.len() as u64).to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header);
    checksum.update(content);
    (header, checksum.finalize().to_le_bytes())
}

/// Header and content of a whole file.
///
/// # Errors
/// [`Damage`]: every truncation, every appended byte and every flipped bit is one.
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<(Header, &[u8]), Damage> {
    if bytes.len() < HEADER + CHECKSUM {
        return Err(Damage::Short { length: bytes.len() });
    }
    if bytes[..8] != kind.magic() {
        return Err(Damage::Magic);
    }
    let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if crc32fast::hash(covered) != u32_at(checksum, 0) {
        return Err(Damage::Checksum);
    }
    let format = u32_at(covered, 8);
    if format > FORMAT {
        return Err(Damage::Newer { found: format });
    }
    let content = &covered[HEADER..];
    let header = Header {
        version: u32_at(covered, 12),
        incarnation: Incarnation::from_stored(u64_at(covered, 16)),
        sequence: Sequence::from_stored(u64_at(covered, 24)),
        length: u64_at(covered, 32),
    };
    if header.length != content.len() as u64 {
        return Err(Damage::Length { expected: header.length, found: content.len() as u64 });
    }
    Ok((header, content))
}

/// What is wrong with the bytes of a file of any kind; `None`: it is whole.
pub fn damage(bytes: &[u8]) -> Option<Damage> {
    match decode(Kind::State, bytes) {
        Err(Damage::Magic) => decode(Kind::Record, bytes).err(),
        other => other.err(),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(version: u32, incarnation: u64, sequence: u64, content: &[u8]) -> Vec<u8> {
        encode(
            Kind::State,
            version,
            Incarnation::from_stored(incarnation),
            Sequence::from_stored(sequence),
            content,
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            version: u32, incarnation: u64, sequence: u64, content in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = envelope(version, incarnation, sequence, &content);
            let (header, found) = decode(Kind::State, &bytes).unwrap();
            prop_assert_eq!(found, &content[..]);
            prop_assert_eq!(header.version, version);
            prop_assert_eq!(header.incarnation.get(), incarnation);
            prop_assert_eq!(header.sequence.get(), sequence);
        }

        #[test]
        fn any_bytes_are_an_envelope_or_damage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(Kind::State, &bytes).is_err());
        }
    }

    #[test]
    fn every_truncation_is_damage() {
        let bytes = envelope(3, 7, 9, b"forty-two bytes of some state or another..");
        for length in 0..bytes.len() {
            assert!(decode(Kind::State, &bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage_and_none_is_taken_for_a_newer_format() {
        let bytes = envelope(3, 7, 9, b"forty-two bytes of some state or another..");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damage = decode(Kind::State, &flipped).unwrap_err();
            assert!(!matches!(damage, Damage::Newer { .. }), "bit {bit}");
        }
    }

    #[test]
    fn zeros_more_bytes_and_another_kind_are_damage() {
        assert_eq!(decode(Kind::State, &[0; 4096]), Err(Damage::Magic));
        let mut bytes = envelope(1, 1, 1, b"x");
        assert_eq!(decode(Kind::Record, &bytes), Err(Damage::Magic));
        bytes.push(0);
        assert_eq!(decode(Kind::State, &bytes), Err(Damage::Checksum));
    }

    #[test]
    fn an_intact_file_of_a_newer_format_is_called_newer() {
        let mut bytes = envelope(1, 1, 1, b"x");
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode(Kind::State, &bytes), Err(Damage::Newer { found: 2 }));
    }

    /// The bytes of format 1, for ever: what any watchdog once wrote, every later one reads.
    #[test]
    fn format_1_is_these_bytes() {
        let golden = [
            0x89, b'W', b'D', b'S', b'\r', b'\n', 0x1a, b'\n', // magic
            1, 0, 0, 0, // format
            2, 0, 0, 0, // version
            3, 0, 0, 0, 0, 0, 0, 0, // incarnation
            4, 0, 0, 0, 0, 0, 0, 0, // sequence
            2, 0, 0, 0, 0, 0, 0, 0, // length
            b'h', b'i', // content
            0x1a, 0x75, 0xd3, 0xe0, // checksum
        ];
        assert_eq!(envelope(2, 3, 4, b"hi"), golden);
    }
}
