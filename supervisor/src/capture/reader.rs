//! Reading log files: from the folder, so that it works while no watchdog runs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use watchdog_protocol::{Incarnation, ServiceName};

use super::Stream;
use super::log;
pub use crate::tail::Back;
use crate::tail::{self, Kind, LogFile};

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

/// Whether a service printed it, and not the watchdog noted a start, of which `watchdog events` tells better.
pub fn is_printed(record: &Record) -> bool {
    !record.is_start()
}

/// What is in a folder of captured output.
#[derive(Debug)]
pub struct Captured {
    folder: PathBuf,
}

impl Kind for Captured {
    type Record = Record;

    fn open(&self, service: &ServiceName, number: u32) -> io::Result<Option<LogFile>> {
        match File::open(log::path(&self.folder, service, number)) {
            Ok(file) => Ok(Some(LogFile::Plain(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn record(&self, service: &ServiceName, line: &[u8], before: &str) -> Record {
        Record::parse(service, &String::from_utf8_lossy(line), before)
    }

    fn time(record: &Record) -> &str {
        &record.time
    }
}

/// Captured output, read from near its end on.
pub type Follow = tail::Follow<Captured>;

impl Follow {
    /// The last records of these services, of all together, in the order of time.
    ///
    /// # Errors
    /// Reading a file.
    pub fn from_end(folder: &Path, services: &[ServiceName], back: Back) -> io::Result<(Self, Vec<Record>)> {
        Self::start(Captured { folder: folder.to_owned() }, services, back)
    }

    /// As [`from_end`](Self::from_end), of what services printed, and is wanted.
    ///
    /// # Errors
    /// Reading a file.
    pub fn from_end_where(
        folder: &Path,
        services: &[ServiceName],
        back: Back,
        wanted: impl Fn(&Record) -> bool,
    ) -> io::Result<(Self, Vec<Record>)> {
        let wanted = |record: &Record| is_printed(record) && wanted(record);
        Self::start_where(Captured { folder: folder.to_owned() }, services, back, wanted)
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
