use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::frame::{Found, Kind, Marker, Record, append, room, scan, segment_head};
use super::replay::{Known, Newest, Place, replay};
use super::*;
use watchdog_protocol::{Incarnation, Sequence};

use crate::store::envelope;
use crate::store::replace::Step;
use crate::store::{Fault, child_killed_at, killed_at, plan};

const MARKER: Marker = *b"\x01\x02\x03\x04\x05\x06\x07\x08";

/// What is recorded of a file, one after the other.
#[derive(Debug, Clone)]
enum Op {
    Content(usize, Vec<u8>),
    Settled(usize),
    Complete,
}

const FILES: [&str; 3] = ["a.snapshot", "settings/a.record", "b.snapshot"];

/// A segment, and where each of its records ends.
fn written(ops: &[Op]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = segment_head(MARKER);
    let mut ends = Vec::new();
    for op in ops {
        let (kind, file, content): (_, _, &[u8]) = match op {
            Op::Content(file, content) => (Kind::Content, FILES[*file], content),
            Op::Settled(file) => (Kind::Settled, FILES[*file], &[]),
            Op::Complete => (Kind::Complete, "", &[]),
        };
        append(&mut bytes, MARKER, &Record { kind, recovered: false, at: 7, file, content });
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// What each file is to hold after these: `None` what it holds itself.
fn expected(ops: &[Op]) -> BTreeMap<&'static str, Option<Vec<u8>>> {
    let mut files = BTreeMap::new();
    for op in ops {
        match op {
            Op::Content(file, content) => drop(files.insert(FILES[*file], Some(content.clone()))),
            Op::Settled(file) => drop(files.insert(FILES[*file], None)),
            Op::Complete => {}
        }
    }
    files
}

fn content_of(known: &Known<Place>, bytes: &[u8]) -> Option<Vec<u8>> {
    let Newest::Journal { newest, .. } = &known.newest else { return None };
    let start = usize::try_from(newest.offset).unwrap();
    Some(bytes[start..start + newest.length as usize].to_vec())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..FILES.len(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(f, c)| Op::Content(f, c)),
        2 => (0..FILES.len()).prop_map(Op::Settled),
        1 => Just(Op::Complete),
    ];
    proptest::collection::vec(op, 1..8)
}

proptest! {
    #[test]
    fn a_segment_cut_off_anywhere_says_what_its_whole_records_say_and_nothing_is_damaged(ops in ops()) {
        let (bytes, ends) = written(&ops);
        for length in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            let replay = replay(&bytes[..length]).unwrap();
            prop_assert_eq!(replay.damaged, 0, "cut off at {}", length);
            let found: BTreeMap<_, _> = replay
                .files
                .iter()
                .map(|(file, known)| (file.as_str(), content_of(known, &bytes)))
                .collect();
            prop_assert_eq!(found, expected(&ops[..whole]));
            prop_assert!(replay.files.values().all(|known| !known.recovered));
            let end = whole.checked_sub(1).map_or(SEGMENT_HEAD, |last| ends[last]);
            let rest = if length < SEGMENT_HEAD { length } else { length - end };
            prop_assert_eq!(replay.cut_off, rest as u64);
        }
    }

    #[test]
    fn with_any_bit_flipped_each_file_has_its_newest_content_or_it_is_told_that_it_has_not(ops in ops()) {
        let (mut bytes, _) = written(&ops);
        let expected = expected(&ops);
        let bits = bytes.len() * 8;
        let end = bytes.len() as u64;
        bytes.extend(room(MARKER, end..end + 64));
        for bit in 0..bits {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A flip in the head may make it another format's, with a checksum that does not fit.
            let replay = replay(&flipped).unwrap();
            for (file, content) in &expected {
                match replay.files.get(*file) {
                    Some(known) => prop_assert!(
                        known.recovered || content_of(known, &flipped) == *content,
                        "bit {}: {}", bit, file
                    ),
                    None => prop_assert!(replay.anybodys, "bit {}: {}", bit, file),
                }
            }
        }
    }

    /// A power cut: of the last write any sectors are on the disk, in any order.
    #[test]
    fn a_last_write_of_which_any_sectors_are_missing_is_no_damage(
        before in ops(),
        last in proptest::collection::vec((0..FILES.len(), 0..2000usize, any::<u8>()), 1..5),
        missing in proptest::collection::vec(any::<bool>(), 20),
        behind in 0..2000usize,
    ) {
        let (mut bytes, _) = written(&before);
        let acknowledged = bytes.len();
        let mut records = Vec::new();
        for (file, size, byte) in last {
            let (begin, content) = (bytes.len(), vec![byte; size]);
            let record = Record { kind: Kind::Content, recovered: false, at: 8, file: FILES[file], content: &content };
            append(&mut bytes, MARKER, &record);
            records.push((begin..bytes.len(), FILES[file], content));
        }
        let (written, end) = (bytes.clone(), bytes.len());
        bytes.extend(room(MARKER, end as u64..(end + behind) as u64));
        let untouched = room(MARKER, 0..bytes.len() as u64);
        let first = acknowledged / 512;
        for sector in (0..missing.len()).filter(|sector| missing[*sector]) {
            let places = ((first + sector) * 512).max(acknowledged)..((first + sector + 1) * 512).min(end);
            if !places.is_empty() {
                bytes[places.clone()].copy_from_slice(&untouched[places]);
            }
        }
        let replay = replay(&bytes).unwrap();
        prop_assert_eq!((replay.damaged, replay.anybodys), (0, false));
        prop_assert!(replay.files.values().all(|known| !known.recovered));
        let mut expected = expected(&before);
        for (places, file, content) in records {
            if bytes[places.clone()] == written[places] {
                expected.insert(file, Some(content));
            }
        }
        let found: BTreeMap<_, _> =
            replay.files.iter().map(|(file, known)| (file.as_str(), content_of(known, &bytes))).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut segment = segment_head(MARKER);
        segment.extend_from_slice(&bytes);
        prop_assert!(scan(&segment).is_ok());
        prop_assert!(replay(&bytes).is_ok());
    }
}

#[test]
fn the_one_before_is_known_until_the_file_has_it() {
    let content = |byte| Op::Content(0, vec![byte]);
    let place = |ops: &[Op]| replay(&written(ops).0).unwrap().files.remove(FILES[0]).unwrap();
    let Newest::Journal { before, .. } = place(&[content(1), content(2)]).newest else { panic!("settled") };
    assert!(before.is_some());
    let Newest::Journal { before, .. } = place(&[content(1), Op::Settled(0), content(2)]).newest else {
        panic!("settled")
    };
    assert_eq!(before, None);
}

#[test]
fn zeros_behind_the_last_record_are_a_write_that_was_cut_off_and_before_another_they_are_damage() {
    let (mut bytes, _) = written(&[Op::Content(0, vec![1])]);
    let end = bytes.len();
    bytes.resize(end + 4096, 0);
    let cut = replay(&bytes).unwrap();
    assert_eq!((cut.damaged, cut.cut_off), (0, 4096));
    append(
        &mut bytes,
        MARKER,
        &Record { kind: Kind::Settled, recovered: false, at: 0, file: FILES[1], content: &[] },
    );
    let damaged = replay(&bytes).unwrap();
    assert_eq!((damaged.damaged, damaged.cut_off), (4096, 0));
    assert!(damaged.anybodys && damaged.files[FILES[0]].recovered && !damaged.files[FILES[1]].recovered);
}

#[test]
fn room_behind_the_last_record_says_nothing_and_something_within_it_is_damage() {
    let (mut bytes, _) = written(&[Op::Content(0, vec![1])]);
    let whole = replay(&bytes).unwrap();
    let end = bytes.len();
    bytes.extend(room(MARKER, end as u64..4096));
    assert_eq!(replay(&bytes).unwrap(), whole);
    bytes[3000] ^= 1;
    // The sectors before it may be what a last write did not reach, but its head lies in the first of them.
    assert_eq!(replay(&bytes).unwrap().damaged, 0);
    bytes[end] ^= 1;
    bytes[end + 100] ^= 1;
    assert_eq!(replay(&bytes).unwrap().damaged, (3001 - end) as u64);
}

#[test]
fn a_disk_without_a_place_for_room_keeps_what_it_has_a_place_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal-1");
    fs::write(&path, []).unwrap();
    let read_only = fs::File::open(&path).unwrap();
    assert_eq!(segment::make_room(&read_only, MARKER, 100, 100), 100);
    let file = fs::File::options().write(true).open(&path).unwrap();
    assert_eq!(segment::make_room(&file, MARKER, 100, 100), 256 * 1024);
    assert_eq!(fs::metadata(&path).unwrap().len(), 256 * 1024);
    assert_eq!(segment::make_room(&file, MARKER, 200, 256 * 1024), 256 * 1024);
    assert_eq!(segment::make_room(&file, MARKER, 256 * 1024, 256 * 1024), 512 * 1024);
}

/// A service keeps what it likes in its state: also a journal of somebody else's settings.
#[test]
fn a_record_within_a_damaged_content_is_not_taken_for_one() {
    let mut forged = segment_head(*b"forgery!");
    append(
        &mut forged,
        *b"forgery!",
        &Record { kind: Kind::Content, recovered: false, at: 0, file: "settings/b.record", content: b"evil" },
    );
    let (mut bytes, ends) = written(&[Op::Content(0, forged), Op::Content(1, vec![1])]);
    bytes[ends[0] - 1] ^= 1;
    let replay = replay(&bytes).unwrap();
    assert_eq!(replay.files.keys().collect::<Vec<_>>(), [FILES[0], FILES[1]]);
    assert!(replay.files[FILES[0]].recovered);
}

/// The bytes of format 1, for ever: what any watchdog once wrote, every later one reads.
#[test]
fn format_1_is_these_bytes() {
    let golden = include_bytes!("testdata/segment-1");
    let (bytes, _) = written(&[Op::Content(0, b"hi".to_vec()), Op::Settled(1), Op::Complete]);
    assert_eq!(bytes, golden);
    let found = scan(golden).unwrap();
    assert!(matches!(&found[0], Found::Record { record, .. } if record.content == b"hi" && record.at == 7));
    assert_eq!(found.len(), 3);
}

#[test]
fn a_segment_of_a_newer_format_is_refused_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut head = segment_head(MARKER);
    head[8] = 2;
    let end = head.len() - 4;
    let checksum = crc32fast::hash(&head[..end]);
    head[end..].copy_from_slice(&checksum.to_le_bytes());
    let path = folder.path().join("journal-1");
    fs::write(&path, &head).unwrap();
    assert!(matches!(Journal::open(folder.path()), Err(JournalError::Newer { .. })));
    assert!(matches!(check(folder.path()), Err(JournalError::Newer { .. })));
    assert_eq!(fs::read(&path).unwrap(), head);
}

/// The journal as the writer drives it, on this thread.
struct Driven {
    journal: Journal,
}

impl Driven {
    fn open(folder: &Path) -> Self {
        Self { journal: Journal::open(folder).unwrap().journal }
    }

    fn try_put(&mut self, records: &[(&str, &[u8])]) -> Result<(), ReplaceError> {
        if self.journal.is_without_segment() {
            self.rotate()?;
        }
        let envelope = |content: &[u8]| Envelope {
            kind: envelope::Kind::State,
            version: 1,
            incarnation: Incarnation::FIRST,
            sequence: Sequence::NONE,
            content: Arc::new(content.to_vec()),
        };
        let records =
            records.iter().map(|(file, content)| ((*file).to_owned(), What::Content(envelope(content))));
        match self.journal.commit(records.collect(), Durability::Disk).run() {
            Ok(committed) => {
                self.journal.committed(committed);
                Ok(())
            }
            Err(error) => {
                self.journal.failed();
                let _told = self.rotate();
                Err(error)
            }
        }
    }

    fn put(&mut self, file: &str, content: &[u8]) {
        self.try_put(&[(file, content)]).unwrap();
    }

    fn rotate(&mut self) -> Result<(), ReplaceError> {
        let rotated = self.journal.rotation().run()?;
        self.journal.rotated(rotated);
        Ok(())
    }

    fn newest(&self, file: &str) -> Option<Vec<u8>> {
        match self.journal.content(file) {
            Content::Journal { newest, .. } => Some(content_in(newest)),
            Content::File { .. } => None,
        }
    }
}

fn content_in(extent: &Extent) -> Vec<u8> {
    let bytes = extent.read().unwrap();
    envelope::decode(envelope::Kind::State, &bytes).unwrap().1.to_vec()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    segment::list(folder).unwrap().into_iter().map(|(_, path)| path).collect()
}

#[test]
fn what_was_committed_is_found_again_in_a_new_segment_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Driven::open(folder.path());
    assert!(segments(folder.path()).is_empty(), "nothing is written before there is anything to write");
    first.try_put(&[("a", b"1"), ("b", b"1")]).unwrap();
    first.put("a", b"2");
    let before = segments(folder.path());
    let second = Driven::open(folder.path());
    assert_eq!((second.newest("a").unwrap(), second.newest("b").unwrap()), (b"2".to_vec(), b"1".to_vec()));
    let Content::Journal { before: Some(one_before), .. } = second.journal.content("a") else {
        panic!("the one before is lost")
    };
    assert_eq!(content_in(one_before), b"1");
    let after = segments(folder.path());
    assert_eq!(after.len(), 1);
    assert_ne!(after, before, "what was found was not written anew");
}

#[test]
fn after_a_failed_sync_the_next_content_goes_to_another_file_and_the_failed_one_is_nowhere() {
    for step in ["write", "sync"] {
        let folder = tempfile::tempdir().unwrap();
        let mut driven = Driven::open(folder.path());
        driven.put("a", b"kept");
        let failed = segments(folder.path());
        plan(1, Some(step), Fault::Errno(nix::libc::EIO));
        assert!(driven.try_put(&[("a", b"failed")]).is_err());
        assert_eq!(driven.newest("a").unwrap(), b"kept");
        assert_ne!(segments(folder.path()), failed);
        assert_eq!(Driven::open(folder.path()).newest("a").unwrap(), b"kept", "{step}");
        driven = Driven::open(folder.path());
        driven.put("a", b"next");
        assert_eq!(Driven::open(folder.path()).newest("a").unwrap(), b"next");
    }
}

#[test]
fn a_disk_that_takes_no_new_segment_is_tried_again_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Driven::open(folder.path()).put("a", b"kept");
    plan(1, Some("create"), Fault::Errno(nix::libc::ENOSPC));
    let opened = Journal::open(folder.path()).unwrap();
    assert_eq!(opened.failed.unwrap().step, Step::Create);
    let mut driven = Driven { journal: opened.journal };
    assert_eq!(driven.newest("a").unwrap(), b"kept");
    plan(1, Some("sync folder"), Fault::Errno(nix::libc::EIO));
    assert!(driven.try_put(&[("a", b"failed")]).is_err());
    driven.put("a", b"next");
    assert_eq!(Driven::open(folder.path()).newest("a").unwrap(), b"next");
}

#[test]
fn a_segment_that_is_not_complete_counts_for_nothing_while_there_is_one_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut driven = Driven::open(folder.path());
    driven.put("a", b"1");
    driven.put("b", b"1");
    let first = segments(folder.path()).remove(0);
    let (whole, next) = (fs::read(&first).unwrap(), folder.path().join("journal-2"));
    drop(driven);
    // What the rotation of a core wrote that was killed: anything up to the record that makes it complete.
    let second = {
        let _copied = Driven::open(folder.path());
        fs::read(&next).unwrap()
    };
    let last = scan(&second).unwrap().pop();
    let Some(Found::Record { record, content_at }) = last else { panic!("it ends with {last:?}") };
    let end = content_at + record.content.len() + 4;
    for length in 0..end {
        fs::write(&first, &whole).unwrap();
        fs::write(&next, &second[..length]).unwrap();
        let found = Journal::open(folder.path()).unwrap().journal;
        let found = Driven { journal: found };
        assert_eq!(found.newest("a").unwrap(), b"1", "{length}");
        assert_eq!(found.newest("b").unwrap(), b"1", "{length}");
        for left in segments(folder.path()) {
            fs::remove_file(left).unwrap();
        }
    }
}

#[test]
fn a_damaged_segment_is_set_aside_and_only_who_lost_something_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut driven = Driven::open(folder.path());
    driven.put("a", b"older");
    driven.put("b", b"whole");
    driven.put("a", b"newer");
    let path = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|bytes| bytes == b"newer").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = Driven::open(folder.path());
    assert_eq!(found.newest("a").unwrap(), b"older");
    assert!(found.journal.is_recovered("a") && !found.journal.is_recovered("b"));
    let aside = &found.journal.set_aside()[0];
    assert_eq!(fs::read(&aside.now).unwrap(), bytes);
    // It is told until something newer is recorded, also by the core after the next.
    let mut again = Driven::open(folder.path());
    assert!(again.journal.is_recovered("a"));
    again.put("a", b"newest");
    assert!(!Driven::open(folder.path()).journal.is_recovered("a"));
}

/// What the child below acknowledges, in a file of its own.
fn acknowledge(folder: &Path, file: &str, value: u8) {
    fs::write(folder.join(format!("acknowledged-{file}")), [value]).unwrap();
}

/// Runs itself as a child that is killed before each step in turn.
#[test]
fn a_kill_before_any_step_loses_nothing_that_was_acknowledged() {
    let name = "store::journal::tests::a_kill_before_any_step_loses_nothing_that_was_acknowledged";
    if let Some(folder) = killed_at() {
        let folder = PathBuf::from(folder);
        let mut driven = Driven::open(&folder);
        for round in 1..=3u8 {
            driven.try_put(&[("a", &[round]), ("b", &[round])]).unwrap();
            acknowledge(&folder, "a", round);
            acknowledge(&folder, "b", round);
            driven.rotate().unwrap();
        }
        return;
    }
    for step in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let killed = child_killed_at(name, step, folder.path().to_str().unwrap());
        let found = Driven::open(folder.path());
        for file in ["a", "b"] {
            let acknowledged =
                fs::read(folder.path().join(format!("acknowledged-{file}"))).unwrap_or_default();
            let acknowledged = acknowledged.first().copied().unwrap_or_default();
            let value = found.newest(file).map_or(0, |content| content[0]);
            assert!(
                value == acknowledged || value == acknowledged + 1,
                "step {step}: {value}, {acknowledged}"
            );
        }
        if !killed {
            assert!(step > 20, "{step}: three commits of two steps, four segments of five");
            break;
        }
    }
}
