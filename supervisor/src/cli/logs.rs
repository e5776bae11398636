//! `watchdog logs`: from the files, so that it works while no watchdog runs.
//!
//! Two kinds of files, shown as one: what services printed, which the watchdog captured, and the records they made,
//! which the logging service wrote.

mod wanted;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use serde::Serialize;
use watchdog_protocol::ServiceName;

use self::wanted::{Wanted, moment};
use super::console::{Console, Format};
use super::look::{Look, Paint, harmless_json};
use super::place::Place;
use super::record;
use super::report::CliError;
use crate::capture::Stream;
use crate::capture::reader::{Back, Follow, Record, is_printed};
use crate::nearest::nearest;
use crate::records::{self, Level, Records};
use crate::tail;

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_millis(100);

/// So many lines unless it is said how many, or since when.
const NUMBER: usize = 100;

/// Show what services printed, and the records they made for the logging service, oldest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog logs counter -n 20 -f\n  watchdog logs --since 10m --level warn\n\n\
    With --json one line is one record, as it is in its file."
)]
pub(super) struct Arguments {
    /// Names of services or programs; all when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Go on as they print.
    #[arg(short, long)]
    follow: bool,
    /// So many of the newest lines; 100 unless --since says from when.
    #[arg(short = 'n', long, value_name = "COUNT")]
    number: Option<usize>,
    /// Only from then on: `10m` ago, or `2026-11-30T04:15:00Z`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only before then.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Only records as grave as this, or graver. What was printed has no level, and is left out.
    #[arg(long, value_enum, value_name = "LEVEL", ignore_case = true)]
    level: Option<Level>,
    /// Only what this regular expression matches.
    #[arg(long, value_name = "REGEX")]
    grep: Option<Regex>,
    /// Spans too, not only events.
    #[arg(long)]
    spans: bool,
}

/// A line of either kind, as it is shown.
struct Line {
    time: String,
    shown: String,
}

/// How lines are shown.
struct Shown<'c> {
    console: &'c Console,
    /// With the name of the service in front.
    named: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let place = console.place()?;
        let unreadable =
            |source| CliError::File { what: "read the logs in", path: place.logs.clone(), source };
        let records = Records::of(&place.logs);
        let services: Vec<_> = match self.services.is_empty() {
            true => all(&place.logs, &records).map_err(unreadable)?.into_iter().collect(),
            false => self.known(&place, &records).map_err(unreadable)??,
        };
        let wanted = Wanted {
            since: self.since,
            until: self.until,
            level: self.level,
            grep: self.grep,
            spans: self.spans,
        };
        let number = self.number.unwrap_or(if self.since.is_some() { usize::MAX } else { NUMBER });
        // One service's lines need no name in front.
        let shown = Shown { console, named: services.len() > 1 };
        let back = Back::records(number);
        let (mut captured, first) =
            Follow::from_end_where(&place.logs, &services, back, |line| wanted.takes_printed(line))
                .map_err(unreadable)?;
        let mut lines: Vec<_> = first.iter().map(|line| shown.printed(line)).collect();
        let (mut recorded, first) =
            tail::Follow::start_where(records, &services, back, |record| wanted.takes(record))
                .map_err(unreadable)?;
        lines.extend(first.iter().map(|record| shown.recorded(record)));
        shown.print(lines, number)?;
        if !self.follow {
            return Ok(());
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let more = captured.more().map_err(unreadable)?;
            let more = more.iter().filter(|line| is_printed(line) && wanted.takes_printed(line));
            let mut lines: Vec<_> = more.map(|line| shown.printed(line)).collect();
            let more = recorded.more().map_err(unreadable)?;
            lines.extend(
                more.iter().filter(|record| wanted.takes(record)).map(|record| shown.recorded(record)),
            );
            shown.print(lines, usize::MAX)?;
        }
    }

    /// The named services, when each is configured or has something to show.
    fn known(&self, place: &Place, records: &Records) -> io::Result<Result<Vec<ServiceName>, CliError>> {
        let mut known = all(&place.logs, records)?;
        known.extend(place.services.iter().cloned());
        Ok(match self.services.iter().find(|service| !known.contains(*service)) {
            None => Ok(self.services.clone()),
            Some(unknown) => {
                let nearest = nearest(unknown.as_str(), &known).map(ToString::to_string);
                Err(CliError::NoLog { service: unknown.clone(), nearest })
            }
        })
    }
}

fn all(logs: &Path, records: &Records) -> io::Result<BTreeSet<ServiceName>> {
    let mut services = logged(logs)?;
    services.extend(records.services()?);
    Ok(services)
}

/// Who has printed something.
pub(super) fn logged(folder: &Path) -> io::Result<BTreeSet<ServiceName>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut services = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        services
            .extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<ServiceName>().ok()));
    }
    Ok(services)
}

impl Shown<'_> {
    fn printed(&self, line: &Record) -> Line {
        let shown = match self.console.format {
            Format::Json => json(line),
            Format::Text => text(line, self.named, &self.console.look),
        };
        Line { time: line.time.clone(), shown }
    }

    fn recorded(&self, record: &records::Record) -> Line {
        let shown = match self.console.format {
            Format::Json => harmless_json(&record.json),
            Format::Text => record::text(record, self.named, &self.console.look),
        };
        Line { time: record.time.clone(), shown }
    }

    /// The newest of them, in the order of time.
    fn print(&self, mut lines: Vec<Line>, number: usize) -> Result<(), CliError> {
        // Of a part of a second there are more digits or fewer, and then a `Z`.
        lines.sort_by(|a, b| a.time.trim_end_matches('Z').cmp(b.time.trim_end_matches('Z')));
        lines.drain(..lines.len().saturating_sub(number));
        if lines.is_empty() {
            return Ok(());
        }
        self.console.print(&lines.iter().map(|line| line.shown.clone() + "\n").collect::<String>())
    }
}

fn json(record: &Record) -> String {
    #[derive(Serialize)]
    struct Line<'r> {
        service: &'r ServiceName,
        time: &'r str,
        stream: Option<&'static str>,
        goes_on: bool,
        text: &'r str,
    }
    let Record { service, time, stream, goes_on, text } = record;
    let line = Line { service, time, stream: stream.map(Stream::word), goes_on: *goes_on, text };
    harmless_json(&serde_json::to_string(&line).expect("a record has text keys"))
}

pub(super) fn text(record: &Record, named: bool, look: &Look) -> String {
    let stream = record.stream.map_or("   ", Stream::word);
    let paint = match record.stream {
        Some(Stream::Errors) => Paint::Doubtful,
        Some(Stream::Watchdog) => Paint::Bad,
        Some(Stream::Output) | None => Paint::Plain,
    };
    let name = if named { format!("{}  ", record.service) } else { String::new() };
    let goes_on = if record.goes_on { "+" } else { " " };
    format!(
        "{}  {name}{}{goes_on} {}",
        look.paint(Paint::Faint, &record.time),
        look.paint(paint, stream),
        record.text
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, width: None };

    fn write(folder: &Path, service: &str, lines: &[&str]) {
        let lines: String = lines
            .iter()
            .zip(10..)
            .map(|(line, at)| format!("2026-11-24T09:00:{at}.123456Z {line}\n"))
            .collect();
        std::fs::write(folder.join(format!("{service}.log")), lines).unwrap();
    }

    fn shown(folder: &Path, services: &[&str], count: usize) -> String {
        let services: Vec<ServiceName> = services.iter().map(|name| name.parse().unwrap()).collect();
        let (_, records) = Follow::from_end_where(folder, &services, Back::records(count), |_| true).unwrap();
        records.iter().map(|record| text(record, services.len() > 1, &PLAIN) + "\n").collect()
    }

    #[test]
    fn lines_have_time_stream_and_where_there_are_several_a_name() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", &["out one", "err two"]);
        write(folder.path(), "b", &["dog 7 lines were dropped: no space", "out+ long"]);
        assert_eq!(
            shown(folder.path(), &["a"], 9),
            "2026-11-24T09:00:10.123456Z  out  one\n2026-11-24T09:00:11.123456Z  err  two\n"
        );
        assert_eq!(
            shown(folder.path(), &["a", "b"], 9),
            "2026-11-24T09:00:10.123456Z  a  out  one\n\
             2026-11-24T09:00:10.123456Z  b  dog  7 lines were dropped: no space\n\
             2026-11-24T09:00:11.123456Z  a  err  two\n\
             2026-11-24T09:00:11.123456Z  b  out+ long\n"
        );
        assert_eq!(logged(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn notes_of_starts_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let note = "dog starting incarnation 3";
        write(folder.path(), "a", &["out one", "out two", note, note, note, note, note]);
        assert_eq!(shown(folder.path(), &["a"], 1).lines().count(), 1);
        assert!(shown(folder.path(), &["a"], 1).ends_with("two\n"));
        assert_eq!(shown(folder.path(), &["a"], 0), "");
    }

    #[test]
    fn where_nothing_was_printed_there_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(shown(folder.path(), &["a"], 9), "");
        assert!(logged(&folder.path().join("none")).unwrap().is_empty());
    }
}
