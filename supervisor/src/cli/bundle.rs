//! `watchdog bundle`: one file with everything one would attach to a bug report.
//!
//! ```text
//! watchdog (when one runs) ─► answers ─┐
//! files: configuration, events, logs ──┴─► parts ─► secrets left out ─► tar ─► FILE
//! ```
//! A part that can't be had is noted with the reason; the rest is there all the same. The format is tar, with text
//! and JSON in it, since every system and every bug tracker opens it without our tools; one JSON file would need the
//! state in base64, and nobody reads a log through JSON escapes.

mod archive;
mod parts;
mod secrets;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::FailureKind;
use watchdog_query::QueryError;

use self::archive::Overwrite;
use self::parts::{Answers, Part};
use super::console::{Console, Format};
use super::figures::size;
use super::logs::logged;
use super::look::{Look, Paint, harmless};
use super::place::Place;
use super::report::CliError;
use crate::core::chain;
use crate::core::registration::registered_folder;
use crate::nearest::nearest;

/// Write one file with all that belongs to a bug report about a service.
///
/// A tar archive of text and JSON files: its configuration, what it says of itself, its status, the way to the first
/// cause of it, its events, its last log lines, settings, state, lanes, and the versions of all. It works for a service
/// that is down, and with less in it when no watchdog runs. Values that look secret are left out of configuration and
/// settings; look through the rest before you send it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog bundle counter\n  watchdog bundle counter report.tar && tar -tf report.tar"
)]
pub(super) struct Arguments {
    /// Which service or program.
    service: ServiceName,
    /// Where to; else `watchdog-SERVICE-TIME.tar` here.
    file: Option<PathBuf>,
    /// Overwrite FILE if it is there.
    #[arg(long)]
    force: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let now = Timestamp::now();
        let folder = format!("watchdog-{}-{}", self.service, now.strftime("%Y%m%dT%H%M%SZ"));
        let file = self.file.clone().unwrap_or_else(|| format!("{folder}.tar").into());
        let overwrite = if self.force { Overwrite::Replace } else { Overwrite::Never };
        if overwrite == Overwrite::Never && file.exists() {
            return Err(CliError::Exists { path: file });
        }
        let place = console.place()?;
        let answers = self.answers(&place, console).await?;
        let (mut parts, left_out) = parts::gather(&self.service, &place, &answers);
        let readme = readme(&self.service, &now, &parts, &left_out);
        let what = "what is in here, what is not, and why";
        parts.insert(0, Part { name: "README.txt", what, content: Ok(readme.into_bytes()) });
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let bytes = archive::pack(&folder, &parts, seconds).map_err(|source| CliError::File {
            what: "pack",
            path: file.clone(),
            source,
        })?;
        archive::write(&file, &bytes, overwrite)?;
        let bundle =
            Bundle { file: file.canonicalize().unwrap_or(file), bytes: bytes.len(), parts, left_out };
        match console.format {
            Format::Json => console.json(&bundle.view()),
            Format::Text => console.print(&bundle.text(&self.service, &console.look)),
        }
    }

    /// What the watchdog says, or why it says nothing.
    async fn answers(&self, place: &Place, console: &Console) -> Result<Result<Answers, String>, CliError> {
        let asked = console.ask(async |query| Answers::ask(query, &self.service).await).await;
        match asked {
            Ok(answers) => Ok(Ok(answers)),
            // It knows all services there are.
            Err(CliError::Query(QueryError::Refused(failure))) if failure.kind == FailureKind::Usage => {
                Err(CliError::Query(QueryError::Refused(failure)))
            }
            Err(error) => self.known(place).map(|()| Err(chain(&error))),
        }
    }

    /// It is configured, was registered, or has printed something.
    fn known(&self, place: &Place) -> Result<(), CliError> {
        let unreadable =
            |source| CliError::File { what: "read the logs in", path: place.logs.clone(), source };
        let mut known = logged(&place.logs).map_err(unreadable)?;
        known.extend(place.services.iter().cloned());
        let registered = registered_folder(&place.state).join(format!("{}.toml", self.service));
        if known.contains(&self.service) || registered.exists() {
            return Ok(());
        }
        let nearest = nearest(self.service.as_str(), &known).map(ToString::to_string);
        Err(CliError::NoLog { service: self.service.clone(), nearest })
    }
}

/// What was written.
struct Bundle {
    file: PathBuf,
    bytes: usize,
    parts: Vec<Part>,
    left_out: Vec<String>,
}

/// Of `--json`.
#[derive(Serialize)]
struct View<'b> {
    file: &'b PathBuf,
    bytes: usize,
    parts: Vec<PartView<'b>>,
    left_out: &'b [String],
}

#[derive(Serialize)]
struct PartView<'b> {
    name: &'b str,
    what: &'b str,
    /// `None`: it is missing.
    bytes: Option<usize>,
    missing: Option<&'b str>,
}

impl Bundle {
    fn view(&self) -> View<'_> {
        let parts = self.parts.iter().map(|Part { name, what, content }| PartView {
            name,
            what,
            bytes: content.as_ref().ok().map(Vec::len),
            missing: content.as_ref().err().map(String::as_str),
        });
        View { file: &self.file, bytes: self.bytes, parts: parts.collect(), left_out: &self.left_out }
    }

    fn text(&self, service: &ServiceName, look: &Look) -> String {
        let name = look.paint(Paint::Strong, service.as_str());
        let mut text = format!("{name}: {} written to {}\n", size(self.bytes as u64), self.file.display());
        text += &listed(&self.parts, |head| look.paint(Paint::Doubtful, head).into_owned());
        if !self.left_out.is_empty() {
            let paths = harmless(&self.left_out.join(", "));
            text += &format!("{} {paths}\n", look.paint(Paint::Doubtful, "left out, since it looks secret:"));
        }
        text += "look through it before you send it: log lines, state and arguments are as the service has them\n";
        text
    }
}

/// A line a part, then what is missing, by reason.
fn listed(parts: &[Part], paint: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut missing: Vec<(&str, Vec<&str>)> = Vec::new();
    for Part { name, what, content } in parts {
        match content {
            Ok(_) => text += &format!("  {name:<18}  {what}\n"),
            Err(reason) => match missing.iter_mut().find(|(known, _)| known == reason) {
                Some((_, names)) => names.push(name),
                None => missing.push((reason, vec![name])),
            },
        }
    }
    for (reason, names) in missing {
        text += &format!("{} {} ({})\n", paint("not in it:"), names.join(", "), harmless(reason));
    }
    text
}

/// For who gets the bundle.
fn readme(service: &ServiceName, now: &Timestamp, parts: &[Part], left_out: &[String]) -> String {
    let mut text = format!(
        "{service}, as watchdog {} found it at {now:.0}. Times are UTC.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    text += &listed(parts, str::to_owned);
    if !left_out.is_empty() {
        text += "\nValues that were left out, since their names or contents look secret:\n";
        for path in left_out {
            text += &format!("{}\n", harmless(path));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let part = |name, what, content: Result<&[u8], &str>| Part {
            name,
            what,
            content: content.map(<[u8]>::to_vec).map_err(str::to_owned),
        };
        Bundle {
            file: "/home/me/watchdog-counter-20261124T091311Z.tar".into(),
            bytes: 49_152,
            parts: vec![
                part("log.txt", "the last 1000 lines it printed", Ok(b"line")),
                part("why.txt", "the way to the first cause, as shown", Err("no watchdog runs for \x1b[2J")),
                part("why.json", "the way to the first cause", Err("no watchdog runs for \x1b[2J")),
            ],
            left_out: vec!["service.counter.env.API_KEY".into()],
        }
    }

    #[test]
    fn what_is_in_it_is_told_and_what_is_not() {
        let look = Look { color: false, width: None };
        insta::assert_snapshot!(bundle().text(&"counter".parse().unwrap(), &look), @r"
        counter: 48.0KiB written to /home/me/watchdog-counter-20261124T091311Z.tar
          log.txt             the last 1000 lines it printed
        not in it: why.txt, why.json (no watchdog runs for �[2J)
        left out, since it looks secret: service.counter.env.API_KEY
        look through it before you send it: log lines, state and arguments are as the service has them
        ");
    }

    #[test]
    fn the_readme_tells_it_to_who_gets_it() {
        let Bundle { parts, left_out, .. } = bundle();
        let at = Timestamp::from_second(1_795_511_591).unwrap();
        insta::assert_snapshot!(readme(&"counter".parse().unwrap(), &at, &parts, &left_out), @r"
        counter, as watchdog 0.1.0 found it at 2026-11-24T09:13:11Z. Times are UTC.

          log.txt             the last 1000 lines it printed
        not in it: why.txt, why.json (no watchdog runs for �[2J)

        Values that were left out, since their names or contents look secret:
        service.counter.env.API_KEY
        ");
    }
}
