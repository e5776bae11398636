//! `watchdog state`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{StateValue, StateView};

use super::changed::done;
use super::console::{Console, Format};
use super::figures::{size, span};
use super::report::CliError;

/// Look at the state a service saved, take it out, put it in, or clear it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog state show counter\n  watchdog state export counter counter.snapshot"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show version, number, age and size of the state on disk; with `--json` the state itself, too.
    ///
    /// Only its own program can read a state: for `--json` it is run once beside the service, is given the newest state
    /// and prints it, at most 10 s long. `value` is what it printed, of the sequence `newest`; a program that was built
    /// anew migrates what is older, and nothing is changed.
    #[command(after_help = "Example:\n  watchdog state show counter\n  watchdog state show counter --json")]
    Show {
        /// Whose.
        service: ServiceName,
    },
    /// Write the state as a snapshot file.
    #[command(after_help = "Example:\n  watchdog state export counter counter.snapshot")]
    Export {
        /// Whose.
        service: ServiceName,
        /// Where to; else to standard output.
        file: Option<PathBuf>,
    },
    /// Put a snapshot file in place of the state; only while the service is stopped.
    #[command(
        after_help = "Example:\n  watchdog stop counter && watchdog state import counter counter.snapshot"
    )]
    Import {
        /// Whose.
        service: ServiceName,
        /// Of an export; `-` for standard input.
        file: PathBuf,
    },
    /// Go back to the initial state; only while the service is stopped. The old files are set aside.
    #[command(after_help = "Example:\n  watchdog stop counter && watchdog state reset counter")]
    Reset {
        /// Whose.
        service: ServiceName,
    },
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        match self.what {
            What::Show { service } => match console.format {
                Format::Text => {
                    let view = console.ask(async |query| query.state_show(&service).await).await?;
                    console.print(&text(&service, &view))
                }
                Format::Json => {
                    let value = console.ask(async |query| query.state_value(&service).await).await?;
                    console.json_text(&document(&value))
                }
            },
            What::Export { service, file: None } => {
                if std::io::stdout().is_terminal() {
                    return Err(CliError::BytesToTerminal);
                }
                let snapshot = console.ask(async |query| query.state_export(&service).await).await?;
                console.bytes(&snapshot)
            }
            What::Export { service, file: Some(file) } => {
                let snapshot = console.ask(async |query| query.state_export(&service).await).await?;
                write(&file, &snapshot)?;
                done(
                    &format!("{service}: {} written to {}", size(snapshot.len() as u64), file.display()),
                    console,
                )
            }
            What::Import { service, file } => {
                let snapshot = read(file)?;
                let words = console.ask(async |query| query.state_import(&service, snapshot).await).await?;
                done(&words, console)
            }
            What::Reset { service } => {
                let words = console.ask(async |query| query.state_reset(&service).await).await?;
                done(&words, console)
            }
        }
    }
}

/// A state may hold what only its owner should read.
fn write(path: &Path, snapshot: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(snapshot)?;
        file.sync_all()
    };
    write().map_err(|source| CliError::File { what: "write", path: path.to_owned(), source })
}

fn read(path: PathBuf) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(CliError::File { what: "read", path, source }),
    }
}

fn text(service: &ServiceName, view: &StateView) -> String {
    let StateView { file, version, incarnation, sequence, bytes, age_ms, newest } = view;
    let behind =
        if newest > sequence { format!("; the newest is {newest}, not on disk yet") } else { String::new() };
    format!(
        "{service}: sequence {sequence}{behind}\n  version  {version}\n  written  {} ago, by process {incarnation}\n  \
         size     {}\n  file     {file}\n",
        span(*age_ms),
        size(*bytes),
    )
}

/// The figures with the value among them. As text: a value that is parsed loses what its numbers have beyond 64 bits.
fn document(StateValue { view, json }: &StateValue) -> String {
    let figures = serde_json::to_string_pretty(view).expect("what is shown has text keys");
    let figures = figures.strip_suffix("\n}").expect("an object is printed over several lines");
    // A line break within JSON is never part of a value.
    format!("{figures},\n  \"value\": {}\n}}", json.replace('\n', "\n  "))
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::Sequence;

    use super::super::look::harmless_json;
    use super::*;

    #[test]
    fn a_value_stands_among_the_figures_as_its_program_printed_it_but_for_what_commands_a_terminal() {
        let view = StateView {
            file: "f".into(),
            version: 2,
            incarnation: 3,
            sequence: Sequence::from_stored(40),
            bytes: 2,
            age_ms: 0,
            newest: Sequence::from_stored(40),
        };
        let json =
            "{\n  \"text\": \"a\\nb\u{9b}2J\",\n  \"large\": 340282366920938463463374607431768211455\n}"
                .to_owned();
        insta::assert_snapshot!(harmless_json(&document(&StateValue { view, json })), @r#"
        {
          "file": "f",
          "version": 2,
          "incarnation": 3,
          "sequence": 40,
          "bytes": 2,
          "age_ms": 0,
          "newest": 40,
          "value": {
            "text": "a\nb\u009b2J",
            "large": 340282366920938463463374607431768211455
          }
        }
        "#);
    }

    #[test]
    fn a_state_is_shown_with_what_is_not_on_disk_yet() {
        let view = StateView {
            file: "/w/.watchdog/state/counter.snapshot".into(),
            version: 2,
            incarnation: 3,
            sequence: Sequence::from_stored(40),
            bytes: 1500,
            age_ms: 340,
            newest: Sequence::from_stored(42),
        };
        assert_eq!(
            text(&"counter".parse().unwrap(), &view),
            "counter: sequence 40; the newest is 42, not on disk yet\n  \
             version  2\n  \
             written  340ms ago, by process 3\n  \
             size     1.5KiB\n  \
             file     /w/.watchdog/state/counter.snapshot\n"
        );
    }
}
