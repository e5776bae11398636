//! Reading log files: from the folder, so that it works while no watchdog runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use watchdog_protocol::{Incarnation, ServiceName};

use super::Stream;
use super::log;

/// What the watchdog's record at the start of a process begins with.
const STARTING: &str = "starting incarnation ";

/// The watchdog's record at the start of a process.
pub(super) fn start_of(incarnation: Incarnation) -> String {
    format!("{STARTING}{incarnation}")
}

/// Characters of a record's time.
const STAMP: usize = 27;

/// One record of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub service: ServiceName,
    /// When, in UTC: `2026-11-24T09:00:00.123456Z`. As text these sort by time.
    pub time: String,
    /// Where it comes from; `None`: a line that no watchdog wrote. It has the time of the record before it.
    pub stream: Option<Stream>,
    /// The next record of this stream goes on with the same line.
    pub goes_on: bool,
    /// The line, without anything a terminal would obey.
    pub text: String,
}

impl Record {
    /// When, in microseconds since 1970; 0 where no watchdog wrote one.
    pub fn at_us(&self) -> u64 {
        let time = self.time.parse::<Timestamp>().map_or(0, Timestamp::as_microsecond);
        u64::try_from(time).unwrap_or(0)
    }

    /// The watchdog's note at the start of a process.
    fn is_start(&self) -> bool {
        self.stream == Some(Stream::Watchdog) && self.text.starts_with(STARTING)
    }

    fn parse(service: &ServiceName, line: &str, before: &str) -> Self {
        Self::parse_own(service, line).unwrap_or_else(|| Self {
            service: service.clone(),
            time: before.to_owned(),
            stream: None,
            goes_on: false,
            text: line.chars().filter(|character| !character.is_control() || *character == '\t').collect(),
        })
    }

    fn parse_own(service: &ServiceName, line: &str) -> Option<Self> {
        let (time, rest) = line.split_at_checked(STAMP)?;
        let (word, text) = rest.strip_prefix(' ')?.split_once(' ')?;
        let goes_on = word.ends_with('+');
        let stream = Stream::from_word(word.trim_end_matches('+'))?;
        if !time.ends_with('Z') {
            return None;
        }
        Some(Self {
            service: service.clone(),
            time: time.to_owned(),
            stream: Some(stream),
            goes_on,
            text: text.to_owned(),
        })
    }
}

/// The records without the watchdog's notes of starts, which `watchdog events` tells better.
pub fn printed(mut records: Vec<Record>) -> Vec<Record> {
    records.retain(|record| !record.is_start());
    records
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
pub struct Follow {
    folder: PathBuf,
    places: BTreeMap<ServiceName, Place>,
}

/// How far the log of one service was read.
#[derive(Debug, Default)]
struct Place {
    /// The file being read; kept open, so that its end is read also after it got another name.
    file: Option<File>,
    /// Its first byte that was not read.
    offset: u64,
    /// The time of the last record.
    time: String,
}

impl Follow {
    /// The last records of these services, of all together, in the order of time; across rotations. And the place to
    /// go on from. A service without a log has none.
    ///
    /// # Errors
    /// Reading a file.
    pub fn from_end(folder: &Path, services: &[ServiceName], back: Back) -> io::Result<(Self, Vec<Record>)> {
        let mut records = Vec::new();
        let mut places = BTreeMap::new();
        for service in services {
            let (place, last) = last_of(folder, service, back)?;
            records.extend(last);
            places.insert(service.clone(), place);
        }
        // Stable: records of one service keep their order, which is the file's.
        records.sort_by(|a, b| a.time.cmp(&b.time));
        records.drain(..records.len().saturating_sub(back.records));
        Ok((Self { folder: folder.to_owned(), places }, records))
    }

    /// As [`from_end`](Self::from_end), of what services [`printed`], however many notes are in between.
    ///
    /// # Errors
    /// Reading a file.
    pub fn from_end_of_printed(
        folder: &Path,
        services: &[ServiceName],
        back: Back,
    ) -> io::Result<(Self, Vec<Record>)> {
        let mut asked = back.records;
        loop {
            let (follow, records) = Self::from_end(folder, services, Back { records: asked, ..back })?;
            let all = records.len() < asked;
            let mut records = printed(records);
            if all || records.len() >= back.records {
                records.drain(..records.len().saturating_sub(back.records));
                return Ok((follow, records));
            }
            asked = asked.saturating_mul(2);
        }
    }

    /// What was written since, in the order of time; nothing when nothing was. Asked every tenth of a second it
    /// misses nothing, unless a log is rotated so often in between that its oldest file is gone.
    ///
    /// # Errors
    /// Reading a file.
    pub fn more(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for (service, place) in &mut self.places {
            place.more(&self.folder, service, &mut records)?;
        }
        records.sort_by(|a, b| a.time.cmp(&b.time));
        Ok(records)
    }
}

impl Place {
    fn more(&mut self, folder: &Path, service: &ServiceName, records: &mut Vec<Record>) -> io::Result<()> {
        let Some(file) = &self.file else {
            self.file = open(folder, service, 0)?;
            self.offset = 0;
            return if self.file.is_some() { self.read(service, records) } else { Ok(()) };
        };
        let ours = file.metadata()?.ino();
        // Which of the files it is now, looked up before its end is read: what is renamed in between is at its end.
        let mut number = 0;
        let mut newer: Vec<(u64, File)> = Vec::new();
        let known = loop {
            let Some(candidate) = open(folder, service, number)? else { break false };
            let inode = candidate.metadata()?.ino();
            if inode == ours {
                break true;
            }
            // Met again one place further: a rotation in between.
            if newer.last().is_none_or(|(last, _)| *last != inode) {
                newer.push((inode, candidate));
            }
            number += 1;
        };
        self.read(service, records)?;
        if !known && newer.is_empty() {
            // In the middle of a rotation, or all were removed: seen next time.
            return Ok(());
        }
        for (_, file) in newer.into_iter().rev() {
            self.file = Some(file);
            self.offset = 0;
            self.read(service, records)?;
        }
        Ok(())
    }

    /// Every whole record from the offset on.
    fn read(&mut self, service: &ServiceName, records: &mut Vec<Record>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let length = file.metadata()?.size();
        if length < self.offset {
            // Cut: an unfinished batch that is written again, or somebody emptied it.
            self.offset = length;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(length - self.offset).read_to_end(&mut bytes)?;
        bytes.truncate(super::lines::whole(&bytes));
        self.offset += bytes.len() as u64;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let record = Record::parse(service, line, &self.time);
            self.time.clone_from(&record.time);
            records.push(record);
        }
        Ok(())
    }
}

/// The last records of one service, and the place behind them.
fn last_of(folder: &Path, service: &ServiceName, back: Back) -> io::Result<(Place, Vec<Record>)> {
    let Some(newest) = open(folder, service, 0)? else { return Ok((Place::default(), Vec::new())) };
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
        match open(folder, service, number)? {
            Some(older) => file = older,
            None => break,
        }
    }
    let mut time = String::new();
    let records = lines
        .iter()
        .map(|line| {
            let record = Record::parse(service, &String::from_utf8_lossy(line), &time);
            time.clone_from(&record.time);
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
fn last_lines(file: &mut File, back: Back) -> io::Result<LastLines> {
    const STEP: u64 = 64 * 1024;
    let length = file.metadata()?.size();
    let first = length.saturating_sub(back.bytes);
    let (mut start, mut bytes) = (length, Vec::new());
    loop {
        let end = super::lines::whole(&bytes);
        // One more line end than lines: the one before the first.
        let enough = bytes[..end].iter().filter(|byte| **byte == b'\n').count() > back.records;
        if enough || start == first {
            let mut lines: Vec<Vec<u8>> =
                bytes[..end].split_inclusive(|byte| *byte == b'\n').map(without_end).collect();
            if start > 0 && !lines.is_empty() {
                // It may have begun before.
                lines.remove(0);
            }
            lines.drain(..lines.len().saturating_sub(back.records));
            return Ok(LastLines { lines, from: start, behind: start + end as u64 });
        }
        let from = start.saturating_sub(STEP).max(first);
        let mut more = vec![0; usize::try_from(start - from).expect("one step")];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut more)?;
        more.append(&mut bytes);
        (start, bytes) = (from, more);
    }
}

fn without_end(line: &[u8]) -> Vec<u8> {
    line.strip_suffix(b"\n").unwrap_or(line).to_vec()
}

fn open(folder: &Path, service: &ServiceName, number: u32) -> io::Result<Option<File>> {
    match File::open(log::path(folder, service, number)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What this process has printed, as far as it is among the last records; `None` when its start is not noted there.
pub(super) fn printed_by(
    folder: &Path,
    service: &ServiceName,
    incarnation: Incarnation,
) -> io::Result<Option<Vec<Record>>> {
    /// A program says early that it is ready, or says much more than a look is worth.
    const LOOK_BACK: usize = 10_000;
    let back = Back { records: LOOK_BACK, bytes: 4 * 1024 * 1024 };
    let (_, mut records) = Follow::from_end(folder, std::slice::from_ref(service), back)?;
    let start = start_of(incarnation);
    let note = records.iter().rposition(|record| record.is_start() && record.text == start);
    Ok(note.map(|note| records.split_off(note + 1)))
}

/// What the newest process of a service said last on standard error, as far as it is among the last records.
pub(super) fn last_errors(folder: &Path, service: &ServiceName, count: usize) -> io::Result<Vec<String>> {
    /// Enough to look behind some standard output in between.
    const LOOK_BACK: usize = 200;
    let mut errors = Vec::new();
    for record in Follow::from_end(folder, std::slice::from_ref(service), Back::records(LOOK_BACK))?.1 {
        match record.stream {
            Some(Stream::Watchdog) if record.is_start() => errors.clear(),
            Some(Stream::Errors) => errors.push(record.text),
            Some(Stream::Watchdog | Stream::Output) | None => {}
        }
    }
    errors.drain(..errors.len().saturating_sub(count));
    Ok(errors)
}
