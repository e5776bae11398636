//! What all verbs need: which watchdog, and where to print.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use watchdog_query::{QueryError, WatchdogQuery};

use super::look::{ColorChoice, Look, Paint, ProgressLine, harmless_json, harmless_lines};
use super::place::Place;
use super::report::CliError;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

#[derive(Debug)]
pub(super) struct Console {
    pub(super) config: Option<PathBuf>,
    pub(super) format: Format,
    pub(super) look: Look,
    errors: Look,
    progress: Arc<ProgressLine>,
}

impl Console {
    pub(super) fn new(config: Option<PathBuf>, format: Format, color: ColorChoice) -> Self {
        let progress = Arc::new(ProgressLine::new());
        Self { config, format, look: Look::of_stdout(color), errors: Look::of_stderr(color), progress }
    }

    pub(super) fn place(&self) -> Result<Place, CliError> {
        Place::find(self.config.as_deref())
    }

    /// Asks the watchdog of this place, showing meanwhile what it waits for.
    pub(super) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&WatchdogQuery) -> Result<T, QueryError>,
    ) -> Result<T, CliError> {
        let place = self.place()?;
        let answer = question(&place.query(&self.progress)).await;
        self.progress.clear();
        answer.map_err(|error| place.explain(error))
    }

    /// Says on standard error what is odd, and no error.
    pub(super) fn warn(&self, warning: &impl ToString) {
        let text = harmless_lines(&warning.to_string());
        // Nobody reads: nobody misses it.
        let _ = writeln!(io::stderr(), "{} {text}", self.errors.paint(Paint::Doubtful, "warning:"));
    }

    /// Prints `text` as it is.
    pub(super) fn print(&self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Prints one JSON document.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.json_text(&serde_json::to_string_pretty(value).expect("what is shown has text keys"))
    }

    /// The same, of which we have the text.
    pub(super) fn json_text(&self, json: &str) -> Result<(), CliError> {
        self.print(&(harmless_json(json) + "\n"))
    }

    /// Writes bytes to standard output. A reader that went away ends the command quietly.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(written)
    }
}

/// The error of a write to standard output.
pub(super) fn written(error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::ReaderGone,
        _ => CliError::Io { what: "write to standard output", source: error },
    }
}
