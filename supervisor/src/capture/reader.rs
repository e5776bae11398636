//! Reading log files, for `watchdog logs`: from the folder, so it works while no watchdog runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use watchdog_protocol::ServiceName;

use super::Stream;
use super::log;

/// What the watchdog's record at the start of a process begins with.
pub(super) const STARTED: &str = "started incarnation ";

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

/// The last `count` records of these services, of all together, in the order of time; across rotations. A service
/// without a log has none.
///
/// # Errors
/// Reading a file.
pub fn tail(folder: &Path, services: &[ServiceName], count: usize) -> io::Result<Vec<Record>> {
    Ok(Follow::from_end(folder, services, count)?.1)
}

/// What comes after a [`tail`].
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
    /// As [`tail`], and the place to go on from.
    ///
    /// # Errors
    /// Reading a file.
    pub fn from_end(
        folder: &Path,
        services: &[ServiceName],
        count: usize,
    ) -> io::Result<(Self, Vec<Record>)> {
        let mut records = Vec::new();
        let mut places = BTreeMap::new();
        for service in services {
            let (place, last) = last_of(folder, service, count)?;
            records.extend(last);
            places.insert(service.clone(), place);
        }
        // Stable: records of one service keep their order, which is the file's.
        records.sort_by(|a, b| a.time.cmp(&b.time));
        records.drain(..records.len().saturating_sub(count));
        Ok((Self { folder: folder.to_owned(), places }, records))
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
fn last_of(folder: &Path, service: &ServiceName, count: usize) -> io::Result<(Place, Vec<Record>)> {
    let Some(newest) = open(folder, service, 0)? else { return Ok((Place::default(), Vec::new())) };
    let mut files = Vec::new();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let (mut file, offset) = (newest, &mut 0);
    loop {
        let (text, end) = last_lines(&mut file, count - lines.len().min(count))?;
        if files.is_empty() {
            *offset = end;
        }
        lines.splice(0..0, text);
        files.push(file);
        if lines.len() >= count {
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

/// The last `count` whole lines of a file, and the offset behind them. Read from its end in steps.
fn last_lines(file: &mut File, count: usize) -> io::Result<(Vec<Vec<u8>>, u64)> {
    const STEP: u64 = 64 * 1024;
    let length = file.metadata()?.size();
    let (mut start, mut bytes) = (length, Vec::new());
    loop {
        let end = super::lines::whole(&bytes);
        // One more line end than lines: the one before the first.
        let enough = bytes[..end].iter().filter(|byte| **byte == b'\n').count() > count;
        if enough || start == 0 {
            let behind = start + end as u64;
            let mut lines: Vec<Vec<u8>> =
                bytes[..end].split_inclusive(|byte| *byte == b'\n').map(without_end).collect();
            lines.drain(..lines.len().saturating_sub(count));
            return Ok((lines, behind));
        }
        let from = start.saturating_sub(STEP);
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

/// What the newest process of a service said last on standard error, as far as it is among the last records.
pub(super) fn last_errors(folder: &Path, service: &ServiceName, count: usize) -> io::Result<Vec<String>> {
    /// Enough to look behind some standard output in between.
    const LOOK_BACK: usize = 200;
    let mut errors = Vec::new();
    for record in tail(folder, std::slice::from_ref(service), LOOK_BACK)? {
        match record.stream {
            Some(Stream::Watchdog) if record.text.starts_with(STARTED) => errors.clear(),
            Some(Stream::Errors) => errors.push(record.text),
            Some(Stream::Watchdog | Stream::Output) | None => {}
        }
    }
    errors.drain(..errors.len().saturating_sub(count));
    Ok(errors)
}
