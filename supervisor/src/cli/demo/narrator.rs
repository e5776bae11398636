//! Where the story is told.

use std::io::{self, Write};

use super::story::{self, Act};
use crate::cli::console::{Console, Format, written};
use crate::cli::look::{ColorChoice, Look};
use crate::cli::report::CliError;

/// Tells the story: on standard output, or on standard error where that is for JSON.
pub(super) struct Narrator {
    format: Format,
    pub(super) look: Look,
}

impl Narrator {
    pub(super) fn new(console: &Console) -> Self {
        let look = match console.format {
            Format::Text => console.look,
            Format::Json => Look::of_stderr(ColorChoice::Auto),
        };
        Self { format: console.format, look }
    }

    pub(super) fn say(&self, text: &str) -> Result<(), CliError> {
        match self.format {
            Format::Text => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(written)
            }
            Format::Json => {
                // Nobody reads: nobody misses it.
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(())
            }
        }
    }

    pub(super) fn act(&self, act: &Act) -> Result<(), CliError> {
        self.say(&story::act(act, &self.look))
    }

    pub(super) fn sight(&self, seen: &str) -> Result<(), CliError> {
        self.say(&story::sight(seen, &self.look))
    }
}
