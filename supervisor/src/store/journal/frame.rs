//! The bytes of a segment: a head, then records, one behind the other. No I/O.
//!
//! ```text
//! segment   0  magic     8 bytes
//!           8  format    u32   of this table; 1
//!          12  marker    8 bytes, chance: what every record of this segment begins with
//!          20  checksum  u32   CRC-32 of everything before it
//! record    0  marker    8 bytes
//!           8  kind      u8    1 content, 2 settled, 3 complete
//!           9  recovered u8    1: something newer of this file was damaged
//!          10  reserved  u16   0
//!          12  length    u32   of the content
//!          16  at        u64   µs since 1970, when it was written
//!          24  file      92 bytes, padded with zeros: its path in the state folder
//!         116  checksum  u32   CRC-32 of the head, everything before it
//!         120  content
//! 120 + length checksum  u32   CRC-32 of head and content
//! ```
//! All numbers are little-endian. The head has a checksum of its own, so that a damaged content still says whose it
//! was. The marker is chance: no content a service could think of looks like a record of somebody else.
//!
//! Behind the last record there may be room: bytes made of the marker, each the complement of `marker[offset % 8]`.
//! They are what a write into them that did not come to its end leaves in the sectors it did not reach, and tell it
//! from damage.

/// The format this watchdog writes, and the newest it reads.
const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"\x89WDJ\r\n\x1a\n";

/// What a disk writes whole or not at all, at least.
const SECTOR: usize = 512;

/// Of a segment, in bytes.
pub(super) const SEGMENT_HEAD: usize = 24;
const HEAD: usize = 120;
const FILE: std::ops::Range<usize> = 24..116;
const CHECKSUM: usize = 4;

/// What a record begins with.
pub(super) type Marker = [u8; 8];

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file is to hold this.
    Content,
    /// What was recorded of the file before this is in the file itself, durably.
    Settled,
    /// All that is to be known was recorded before this: an older segment counts no more.
    Complete,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    /// Something newer of this file was damaged.
    pub(super) recovered: bool,
    /// µs since 1970.
    pub(super) at: u64,
    /// The file's path in the state folder; empty when complete.
    pub(super) file: &'a str,
    pub(super) content: &'a [u8],
}

/// What was found at a place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole record; its content begins there.
    Record { record: Record<'a>, content_at: usize },
    /// Bytes that are no record, and never were cut off while they were written.
    Damage { at: usize, length: usize, file: Option<&'a str> },
    /// The last write did not come to its end.
    CutOff { length: usize },
}

/// Why a segment can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal format {found} is newer than {FORMAT}, the newest this watchdog knows")]
pub struct Newer {
    /// Its format.
    pub found: u32,
}

/// The longest path of a file that can be recorded.
pub(in crate::store) fn is_recordable(file: &str) -> bool {
    !file.is_empty() && file.len() <= FILE.len() && !file.contains('\0')
}

/// The room from one place of a segment to another.
pub(super) fn room(marker: Marker, places: std::ops::Range<u64>) -> Vec<u8> {
    places.map(|at| room_at(marker, at)).collect()
}

/// Nothing but room is in these bytes, the first of which is at this place.
fn is_room(bytes: &[u8], marker: Marker, at: usize) -> bool {
    let pattern: Marker = std::array::from_fn(|after| room_at(marker, (at + after) as u64));
    let mut words = bytes.chunks_exact(pattern.len());
    words.all(|word| word == pattern) && words.remainder() == &pattern[..words.remainder().len()]
}

fn room_at(marker: Marker, at: u64) -> u8 {
    !marker[(at % 8) as usize]
}

/// The first bytes of a segment.
pub(super) fn segment_head(marker: Marker) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEAD);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&marker);
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Appends a record to `out` and says where in it the content lies.
///
/// # Panics
/// When the file's name [is not recordable](is_recordable), or the content is longer than 4 GiB.
pub(super) fn append(out: &mut Vec<u8>, marker: Marker, record: &Record<'_>) -> usize {
    let Record { kind, recovered, at, file, content } = record;
    assert!(file.len() <= FILE.len(), "the caller looked at the name's length");
    let length = u32::try_from(content.len()).expect("the caller bounds the content");
    let start = out.len();
    out.reserve(HEAD + content.len() + CHECKSUM);
    out.extend_from_slice(&marker);
    out.push(match kind {
        Kind::Content => 1,
        Kind::Settled => 2,
        Kind::Complete => 3,
    });
    out.push(u8::from(*recovered));
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(file.as_bytes());
    out.resize(start + FILE.end, 0);
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    let content_at = out.len();
    out.extend_from_slice(content);
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    content_at
}

/// Everything in a segment, in its order.
///
/// A write that did not come to its end leaves a segment that stops within a record, or goes on with zeros, or has
/// sectors of room where it has others: what was synced has none. Every other byte that is neither record nor room is
/// damage. A damaged head of the segment costs nothing: the first record has the marker too.
///
/// # Errors
/// [`Newer`]: written by a newer watchdog.
pub(super) fn scan(bytes: &[u8]) -> Result<Vec<Found<'_>>, Newer> {
    let Some(marker) = marker(bytes)? else {
        return Ok(vec![Found::CutOff { length: bytes.len() }]);
    };
    let mut found = Vec::new();
    let mut at = SEGMENT_HEAD;
    while at < bytes.len() {
        match read(&bytes[at..], marker) {
            Read::Record(record, size) => {
                found.push(Found::Record { record, content_at: at + HEAD });
                at += size;
            }
            Read::CutOff => {
                found.push(Found::CutOff { length: bytes.len() - at });
                break;
            }
            // The end of most segments, and longer than all their records.
            Read::Nothing { .. } if is_room(&bytes[at..], marker, at) => break,
            Read::Nothing { file } => {
                let end = next_record(bytes, marker, at + 1);
                let gap = Gap { bytes, marker, at, end };
                let length = gap.length();
                if !gap.is_of_a_write() {
                    found.push(Found::Damage { at, length, file });
                } else if length > 0 {
                    found.push(Found::CutOff { length });
                }
                at = end;
            }
        }
    }
    Ok(found)
}

/// What is no record, up to the next one or the segment's end.
struct Gap<'a> {
    bytes: &'a [u8],
    marker: Marker,
    at: usize,
    end: usize,
}

impl Gap<'_> {
    /// How much of it is not room.
    fn length(&self) -> usize {
        let last = (self.at..self.end).rev().find(|at| !self.is_room(*at));
        last.map_or(0, |last| last + 1 - self.at)
    }

    /// A write that did not come to its end, or none at all, explains it.
    fn is_of_a_write(&self) -> bool {
        let is_last = self.end == self.bytes.len();
        let rest = &self.bytes[self.at..];
        if is_last && (self.length() == 0 || rest.iter().all(|byte| *byte == 0)) {
            return true;
        }
        let end = match head(rest, self.marker) {
            _ if !is_last => self.end,
            Some(head) => self.bytes.len().min(self.at + HEAD + head.length + CHECKSUM),
            // One of the sectors that the head lies in was not reached.
            None => self.bytes.len().min(self.at + HEAD),
        };
        (self.at / SECTOR..end.div_ceil(SECTOR)).any(|sector| self.is_untouched(sector))
    }

    /// Of this sector, nothing was written behind the last whole record.
    fn is_untouched(&self, sector: usize) -> bool {
        let end = ((sector + 1) * SECTOR).min(self.bytes.len());
        (self.at.max(sector * SECTOR)..end).all(|at| self.is_room(at))
    }

    fn is_room(&self, at: usize) -> bool {
        self.bytes[at] == room_at(self.marker, at as u64)
    }
}

/// Whether this watchdog can read the segment that begins like this: its [`SEGMENT_HEAD`], or less.
///
/// # Errors
/// [`Newer`].
pub(super) fn check(head: &[u8]) -> Result<(), Newer> {
    marker(head).map(drop)
}

/// `None`: nothing was written yet, or not even the head of a segment came to its end.
fn marker(bytes: &[u8]) -> Result<Option<Marker>, Newer> {
    if bytes.len() < SEGMENT_HEAD {
        return Ok(None);
    }
    let (covered, checksum) = bytes[..SEGMENT_HEAD].split_at(SEGMENT_HEAD - CHECKSUM);
    if crc32fast::hash(covered).to_le_bytes() != checksum {
        let first = bytes.get(SEGMENT_HEAD..SEGMENT_HEAD + 8);
        return Ok(first.map(|marker| marker.try_into().expect("eight bytes")));
    }
    let format = u32::from_le_bytes(covered[8..12].try_into().expect("four bytes"));
    if format > FORMAT {
        return Err(Newer { found: format });
    }
    Ok(Some(covered[12..20].try_into().expect("eight bytes")))
}

enum Read<'a> {
    Record(Record<'a>, usize),
    /// The beginning of one, up to the end of the segment.
    CutOff,
    /// No record; whose it was, if its head is whole.
    Nothing {
        file: Option<&'a str>,
    },
}

fn read(bytes: &[u8], marker: Marker) -> Read<'_> {
    if bytes.len() < HEAD {
        let begins = bytes.iter().zip(&marker).all(|(byte, expected)| byte == expected);
        return if begins { Read::CutOff } else { Read::Nothing { file: None } };
    }
    let Some(Head { kind, recovered, length, at, file }) = head(bytes, marker) else {
        return Read::Nothing { file: None };
    };
    let Some(whole) = bytes.get(..HEAD + length + CHECKSUM) else { return Read::CutOff };
    let (covered, checksum) = whole.split_at(HEAD + length);
    if crc32fast::hash(covered).to_le_bytes() != checksum {
        return Read::Nothing { file: Some(file) };
    }
    let record = Record { kind, recovered, at, file, content: &covered[HEAD..] };
    Read::Record(record, whole.len())
}

/// The head of a record, whole.
struct Head<'a> {
    kind: Kind,
    recovered: bool,
    length: usize,
    at: u64,
    file: &'a str,
}

fn head(bytes: &[u8], marker: Marker) -> Option<Head<'_>> {
    let (covered, checksum) = bytes.get(..HEAD)?.split_at(HEAD - CHECKSUM);
    if covered[..marker.len()] != marker || crc32fast::hash(covered).to_le_bytes() != checksum {
        return None;
    }
    let kind = match covered[8] {
        1 => Kind::Content,
        2 => Kind::Settled,
        3 => Kind::Complete,
        _ => return None,
    };
    let name = &covered[FILE];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(Head {
        kind,
        recovered: covered[9] != 0,
        length: u32::from_le_bytes(covered[12..16].try_into().expect("four bytes")) as usize,
        at: u64::from_le_bytes(covered[16..24].try_into().expect("eight bytes")),
        file: std::str::from_utf8(&name[..end]).ok()?,
    })
}

/// Where the next record begins, whole or cut off; the end of the segment if none does.
fn next_record(bytes: &[u8], marker: Marker, from: usize) -> usize {
    (from..bytes.len().saturating_sub(HEAD - 1))
        .filter(|at| bytes[*at..].starts_with(&marker))
        .find(|at| match read(&bytes[*at..], marker) {
            Read::Record(..) | Read::CutOff => true,
            // Its head is whole: a second damaged one behind the first.
            Read::Nothing { file } => file.is_some(),
        })
        .unwrap_or(bytes.len())
}
