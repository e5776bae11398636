//! Logs of services, read from near their end on, across rotations: from the files, so that it works while no watchdog
//! runs. What is in a file, and what older ones are called, is its [`Kind`]'s to say.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use watchdog_protocol::ServiceName;

/// One kind of log.
pub trait Kind {
    /// What a line is.
    type Record;

    /// The file of a service that is being written, or its `number`-th older one. `None`: there is none.
    ///
    /// # Errors
    /// Opening it.
    fn open(&self, service: &ServiceName, number: u32) -> io::Result<Option<LogFile>>;

    /// A line, without its end. `before`: the time of the record before it.
    fn record(&self, service: &ServiceName, line: &[u8], before: &str) -> Self::Record;

    /// When it was, as text: times of one kind sort so.
    fn time(record: &Self::Record) -> &str;
}

/// A file of a log.
#[derive(Debug)]
pub enum LogFile {
    /// As it is on the disk.
    Plain(File),
    /// It was compressed: what it holds. Nothing is written to it any more.
    Unpacked(Cursor<Vec<u8>>),
}

impl LogFile {
    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.size()),
            Self::Unpacked(bytes) => Ok(bytes.get_ref().len() as u64),
        }
    }

    /// Of one that may still be written to.
    fn inode(&self) -> io::Result<Option<u64>> {
        match self {
            Self::Plain(file) => Ok(Some(file.metadata()?.ino())),
            Self::Unpacked(_) => Ok(None),
        }
    }

    /// So many bytes from a place on, or all up to the end.
    fn bytes(&mut self, from: u64, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::Plain(file) => {
                file.seek(SeekFrom::Start(from))?;
                file.take(count).read_to_end(&mut bytes)?;
            }
            Self::Unpacked(all) => {
                all.set_position(from);
                all.take(count).read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

/// How much is read back.
#[derive(Debug, Clone, Copy)]
pub struct Back {
    /// At most so many records, of all services together.
    pub records: usize,
    /// At most so many bytes of each service's files.
    pub bytes: u64,
}

impl Back {
    /// So many records, however long they are.
    pub fn records(records: usize) -> Self {
        Self { records, bytes: u64::MAX }
    }
}

/// The logs of some services, read from near their end on.
#[derive(Debug)]
pub struct Follow<K> {
    kind: K,
    places: BTreeMap<ServiceName, Place>,
}

/// How far the log of one service was read.
#[derive(Debug, Default)]
struct Place {
    /// The file being read; kept open, so that its end is read also after it got another name.
    file: Option<LogFile>,
    /// Its first byte that was not read.
    offset: u64,
    /// The time of the last record.
    time: String,
}

impl<K: Kind> Follow<K> {
    /// The last records of these services, of all together, in the order of time; across rotations. And the place to
    /// go on from. A service without a log has none.
    ///
    /// # Errors
    /// Reading a file.
    pub fn start(kind: K, services: &[ServiceName], back: Back) -> io::Result<(Self, Vec<K::Record>)> {
        let mut records = Vec::new();
        let mut places = BTreeMap::new();
        for service in services {
            let (place, last) = last_of(&kind, service, back)?;
            records.extend(last);
            places.insert(service.clone(), place);
        }
        // Stable: records of one service keep their order, which is the file's.
        records.sort_by(|a, b| K::time(a).cmp(K::time(b)));
        records.drain(..records.len().saturating_sub(back.records));
        Ok((Self { kind, places }, records))
    }

    /// As [`start`](Self::start), of what is wanted, however much else is in between.
    ///
    /// # Errors
    /// Reading a file.
    pub fn start_where(
        mut kind: K,
        services: &[ServiceName],
        back: Back,
        wanted: impl Fn(&K::Record) -> bool,
    ) -> io::Result<(Self, Vec<K::Record>)> {
        let mut asked = back.records;
        loop {
            let (follow, mut records) = Self::start(kind, services, Back { records: asked, ..back })?;
            let all = records.len() < asked;
            records.retain(&wanted);
            if all || records.len() >= back.records {
                records.drain(..records.len().saturating_sub(back.records));
                return Ok((follow, records));
            }
            kind = follow.kind;
            asked = asked.saturating_mul(2);
        }
    }

    /// What was written since, in the order of time; nothing when nothing was. Asked every tenth of a second it
    /// misses nothing, unless a log is rotated so often in between that its oldest file is gone.
    ///
    /// # Errors
    /// Reading a file.
    pub fn more(&mut self) -> io::Result<Vec<K::Record>> {
        let mut records = Vec::new();
        for (service, place) in &mut self.places {
            place.more(&self.kind, service, &mut records)?;
        }
        records.sort_by(|a, b| K::time(a).cmp(K::time(b)));
        Ok(records)
    }
}

impl Place {
    fn more<K: Kind>(
        &mut self,
        kind: &K,
        service: &ServiceName,
        records: &mut Vec<K::Record>,
    ) -> io::Result<()> {
        let Some(file) = &self.file else {
            self.file = kind.open(service, 0)?;
            self.offset = 0;
            return if self.file.is_some() { self.read(kind, service, records) } else { Ok(()) };
        };
        let ours = file.inode()?;
        // Which of the files it is now, looked up before its end is read: what is renamed in between is at its end.
        let mut number = 0;
        let mut newer: Vec<(u64, LogFile)> = Vec::new();
        let known = loop {
            let Some(candidate) = kind.open(service, number)? else { break false };
            // One that was compressed meanwhile was read to its end before, or is ours.
            let Some(inode) = candidate.inode()? else { break false };
            if Some(inode) == ours {
                break true;
            }
            // Met again one place further: a rotation in between.
            if newer.last().is_none_or(|(last, _)| *last != inode) {
                newer.push((inode, candidate));
            }
            number += 1;
        };
        self.read(kind, service, records)?;
        if !known && newer.is_empty() {
            // In the middle of a rotation, or all were removed: seen next time.
            return Ok(());
        }
        for (_, file) in newer.into_iter().rev() {
            self.file = Some(file);
            self.offset = 0;
            self.read(kind, service, records)?;
        }
        Ok(())
    }

    /// Every whole record from the offset on.
    fn read<K: Kind>(
        &mut self,
        kind: &K,
        service: &ServiceName,
        records: &mut Vec<K::Record>,
    ) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let length = file.length()?;
        if length < self.offset {
            // Cut: an unfinished batch that is written again, or somebody emptied it.
            self.offset = length;
        }
        let mut bytes = file.bytes(self.offset, length - self.offset)?;
        bytes.truncate(whole(&bytes));
        self.offset += bytes.len() as u64;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let record = kind.record(service, without_end(line), &self.time);
            K::time(&record).clone_into(&mut self.time);
            records.push(record);
        }
        Ok(())
    }
}

/// The last records of one service, and the place behind them.
fn last_of<K: Kind>(kind: &K, service: &ServiceName, back: Back) -> io::Result<(Place, Vec<K::Record>)> {
    let Some(newest) = kind.open(service, 0)? else { return Ok((Place::default(), Vec::new())) };
    let mut files = Vec::new();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let (mut file, offset) = (newest, &mut 0);
    let mut bytes = back.bytes;
    loop {
        let left = Back { records: back.records - lines.len().min(back.records), bytes };
        let read = last_lines(&mut file, left)?;
        if files.is_empty() {
            *offset = read.behind;
        }
        bytes = bytes.saturating_sub(read.behind - read.from);
        lines.splice(0..0, read.lines);
        files.push(file);
        if lines.len() >= back.records || read.from > 0 {
            break;
        }
        let number = u32::try_from(files.len()).unwrap_or(u32::MAX);
        match kind.open(service, number)? {
            Some(older) => file = older,
            None => break,
        }
    }
    let mut time = String::new();
    let records = lines
        .iter()
        .map(|line| {
            let record = kind.record(service, line, &time);
            K::time(&record).clone_into(&mut time);
            record
        })
        .collect();
    Ok((Place { file: Some(files.swap_remove(0)), offset: *offset, time }, records))
}

/// Whole lines of a file, up to its end.
struct LastLines {
    lines: Vec<Vec<u8>>,
    /// Where reading began.
    from: u64,
    /// Behind the last line.
    behind: u64,
}

/// The last whole lines of a file. Read from its end in steps.
fn last_lines(file: &mut LogFile, back: Back) -> io::Result<LastLines> {
    const STEP: u64 = 64 * 1024;
    let length = file.length()?;
    let first = length.saturating_sub(back.bytes);
    let (mut start, mut bytes) = (length, Vec::new());
    // What a step brings goes before what is there: each longer than the one before, or a large file is copied many times.
    let mut step = STEP;
    loop {
        let end = whole(&bytes);
        // One more line end than lines: the one before the first.
        let enough = bytes[..end].iter().filter(|byte| **byte == b'\n').count() > back.records;
        if enough || start == first {
            let mut lines: Vec<Vec<u8>> = bytes[..end]
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| without_end(line).to_vec())
                .collect();
            if start > 0 && !lines.is_empty() {
                // It may have begun before.
                lines.remove(0);
            }
            lines.drain(..lines.len().saturating_sub(back.records));
            return Ok(LastLines { lines, from: start, behind: start + end as u64 });
        }
        let from = start.saturating_sub(step).max(first);
        step = step.saturating_mul(2);
        let mut more = file.bytes(from, start - from)?;
        if (more.len() as u64) < start - from {
            // It was cut meanwhile: what is behind is no longer there either.
            return last_lines(file, back);
        }
        more.append(&mut bytes);
        (start, bytes) = (from, more);
    }
}

/// How many of the bytes are whole lines.
pub(crate) fn whole(raw: &[u8]) -> usize {
    raw.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_end_with_the_last_line_end() {
        assert_eq!(whole(b"one\ntwo"), 4);
        assert_eq!(whole(b"one\ntwo\n"), 8);
        assert_eq!(whole(b"one"), 0);
    }
}
