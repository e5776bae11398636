//! What the logging service wrote into files: records of all services, one JSON object a line, which it documents.
//!
//! `counter.jsonl` is written; `counter.jsonl.2026-11-30T041500.123Z` was, and `.gz` behind it says that it was compressed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value};
use watchdog_protocol::ServiceName;

use crate::tail::{Kind, LogFile};

/// Where the logging service writes unless it is told otherwise, below the folder of the logs.
pub(crate) const FOLDER: &str = "records";

const ENDING: &str = ".jsonl";
const COMPRESSED: &str = ".gz";

/// The most that a compressed file may hold. Beyond it is none of the logging service's.
const MAX_UNPACKED: u64 = 1024 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Record {
    /// `2026-11-30T04:15:00.123456789Z`.
    pub(crate) time: String,
    #[serde(flatten)]
    pub(crate) what: What,
    pub(crate) service: String,
    #[serde(default)]
    pub(crate) level: Option<Level>,
    #[serde(default)]
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) fields: Map<String, Value>,
    #[serde(default)]
    pub(crate) trace_id: Option<String>,
    /// Of a span itself; of an event the span it happened in.
    #[serde(default)]
    pub(crate) span_id: Option<String>,
    /// The line.
    #[serde(skip)]
    pub(crate) json: String,
}

/// What it is, and what only that has.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum What {
    Event {
        message: String,
        #[serde(default)]
        scope: String,
    },
    Span {
        name: String,
        parent_id: Option<String>,
        span_kind: String,
        start: String,
        duration_ns: u64,
        status: Option<String>,
        error: Option<String>,
        #[serde(default)]
        links: Vec<Link>,
    },
    Dropped {
        output: Option<String>,
        reason: String,
        count: u64,
    },
    /// A line that is none.
    #[serde(skip)]
    Unreadable,
}

/// A span that led to another.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Link {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
}

/// How grave, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl Record {
    /// A line without its end; `before`: the time of the one before it.
    fn read(service: &ServiceName, line: &[u8], before: &str) -> Self {
        let json = String::from_utf8_lossy(line);
        match serde_json::from_str::<Self>(&json) {
            Ok(record) => Self { json: json.into_owned(), ..record },
            Err(_) => Self {
                time: before.to_owned(),
                what: What::Unreadable,
                service: service.to_string(),
                level: None,
                target: String::new(),
                fields: Map::new(),
                trace_id: None,
                span_id: None,
                json: json.into_owned(),
            },
        }
    }
}

/// The folder of records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(crate) fn of(logs: &Path) -> Self {
        Self { folder: logs.join(FOLDER) }
    }

    /// Whose records there are.
    ///
    /// # Errors
    /// Reading the folder; that there is none is no error.
    pub(crate) fn services(&self) -> io::Result<BTreeSet<ServiceName>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| name.split_once(ENDING)?.0.parse().ok()).collect())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    /// The `number`-th older file of a service, newest first: their names sort by time.
    fn older(&self, service: &ServiceName, number: u32) -> io::Result<Option<PathBuf>> {
        let begin = format!("{service}{ENDING}.");
        let is_older = |name: &String| {
            let stamp = name.strip_prefix(&begin).map(|rest| rest.strip_suffix(COMPRESSED).unwrap_or(rest));
            stamp.is_some_and(|stamp| stamp.ends_with('Z'))
        };
        let mut names: Vec<_> = self.names()?.into_iter().filter(is_older).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        Ok(names.get(at).map(|name| self.folder.join(name)))
    }
}

impl Kind for Records {
    type Record = Record;

    fn open(&self, service: &ServiceName, number: u32) -> io::Result<Option<LogFile>> {
        let path = match number.checked_sub(1) {
            None => self.folder.join(format!("{service}{ENDING}")),
            Some(older) => match self.older(service, older)? {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let is_compressed = path.extension().is_some_and(|ending| ending == "gz");
        let file = match File::open(path) {
            Ok(file) => file,
            // Or it was compressed, or removed, in between: what it held is found again or gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !is_compressed {
            return Ok(Some(LogFile::Plain(file)));
        }
        let mut bytes = Vec::new();
        MultiGzDecoder::new(file).take(MAX_UNPACKED).read_to_end(&mut bytes)?;
        Ok(Some(LogFile::Unpacked(Cursor::new(bytes))))
    }

    fn record(&self, service: &ServiceName, line: &[u8], before: &str) -> Record {
        Record::read(service, line, before)
    }

    fn time(record: &Record) -> &str {
        &record.time
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::tail::{Back, Follow};

    fn line(second: u32, text: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-30T04:15:{second:02}.000000001Z\",\"kind\":\"event\",\"service\":\"a\",\
             \"incarnation\":1,\"pid\":7,\"number\":{second},\"level\":\"WARN\",\"target\":\"t\",\
             \"message\":\"{text}\"}}\n"
        )
    }

    fn messages(records: Vec<Record>) -> Vec<String> {
        let message = |record: Record| match record.what {
            What::Event { message, .. } => message,
            other => format!("{other:?}"),
        };
        records.into_iter().map(message).collect()
    }

    /// Older, older and compressed, and the one that is written.
    fn folder() -> (tempfile::TempDir, Records) {
        let logs = tempfile::tempdir().unwrap();
        let records = Records::of(logs.path());
        std::fs::create_dir(&records.folder).unwrap();
        let path = |name: &str| records.folder.join(name);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all((line(1, "one") + &line(2, "two")).as_bytes()).unwrap();
        std::fs::write(path("a.jsonl.2026-11-30T041503.000Z.gz"), packed.finish().unwrap()).unwrap();
        std::fs::write(path("a.jsonl.2026-11-30T041505.000Z"), line(4, "three")).unwrap();
        std::fs::write(path("a.jsonl.2026-11-30T041505.000Z.gz.part"), "half").unwrap();
        std::fs::write(path("a.jsonl"), line(6, "four") + &line(7, "five")).unwrap();
        (logs, records)
    }

    #[test]
    fn records_are_read_back_across_older_and_compressed_files() {
        let (_logs, records) = folder();
        let services = ["a".parse().unwrap()];
        let last =
            |count| messages(Follow::start(records.clone(), &services, Back::records(count)).unwrap().1);
        assert_eq!(last(1), ["five"]);
        assert_eq!(last(4), ["two", "three", "four", "five"]);
        assert_eq!(last(9), ["one", "two", "three", "four", "five"]);
        assert_eq!(records.services().unwrap().into_iter().collect::<Vec<_>>(), services);
    }

    #[test]
    fn what_comes_is_followed_through_a_rotation_and_its_compression() {
        let (_logs, records) = folder();
        let services = ["a".parse().unwrap()];
        let (mut follow, _) = Follow::start(records.clone(), &services, Back::records(0)).unwrap();
        let path = |name: &str| records.folder.join(name);
        let append = |text: String| {
            let mut file = File::options().append(true).open(path("a.jsonl")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(line(8, "six"));
        assert_eq!(messages(follow.more().unwrap()), ["six"]);
        append(line(9, "seven"));
        std::fs::remove_file(path("a.jsonl.2026-11-30T041505.000Z")).unwrap();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&std::fs::read(path("a.jsonl")).unwrap()).unwrap();
        std::fs::write(path("a.jsonl.2026-11-30T041510.000Z.gz"), packed.finish().unwrap()).unwrap();
        std::fs::remove_file(path("a.jsonl")).unwrap();
        std::fs::write(path("a.jsonl"), line(11, "eight")).unwrap();
        assert_eq!(messages(follow.more().unwrap()), ["seven", "eight"]);
        assert!(follow.more().unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_no_record_is_shown_as_it_is() {
        let record = Record::read(&"a".parse().unwrap(), b"no json", "then");
        assert_eq!((record.what, &*record.time, &*record.json), (What::Unreadable, "then", "no json"));
    }
}
