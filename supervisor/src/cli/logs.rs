//! `watchdog logs`: from the files, so that it works while no watchdog runs.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use watchdog_protocol::ServiceName;

use super::console::{Console, Format};
use super::look::{Look, Paint, harmless_json};
use super::place::Place;
use super::report::CliError;
use crate::capture::Stream;
use crate::capture::reader::{Back, Follow, Record, printed};
use crate::nearest::nearest;

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_millis(100);

/// Show what services printed on standard output and standard error, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog logs counter -n 20 -f\n\nWith --json one line is one record.")]
pub(super) struct Arguments {
    /// Names of services or programs; all when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Go on as they print.
    #[arg(short, long)]
    follow: bool,
    /// So many of the newest lines.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    number: usize,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let place = console.place()?;
        let unreadable =
            |source| CliError::File { what: "read the logs in", path: place.logs.clone(), source };
        let services = match self.services.is_empty() {
            true => logged(&place.logs).map_err(unreadable)?.into_iter().collect(),
            false => self.known(&place).map_err(unreadable)??,
        };
        // One service's lines need no name in front.
        let named = services.len() > 1;
        let (mut follow, records) =
            Follow::from_end_of_printed(&place.logs, &services, Back::records(self.number))
                .map_err(unreadable)?;
        console.print(&lines(&records, named, console))?;
        if !self.follow {
            return Ok(());
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let records = printed(follow.more().map_err(unreadable)?);
            if !records.is_empty() {
                console.print(&lines(&records, named, console))?;
            }
        }
    }

    /// The named services, when each is configured or has printed something.
    fn known(&self, place: &Place) -> io::Result<Result<Vec<ServiceName>, CliError>> {
        let mut known = logged(&place.logs)?;
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

/// Whose logs there are.
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

fn lines(records: &[Record], named: bool, console: &Console) -> String {
    let line = |record: &Record| match console.format {
        Format::Json => json(record),
        Format::Text => text(record, named, &console.look),
    };
    records.iter().map(|record| line(record) + "\n").collect()
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
        let (_, records) = Follow::from_end_of_printed(folder, &services, Back::records(count)).unwrap();
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
