//! Probes: how the watchdog itself finds out about a process that can't tell.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use regex::Regex;

/// A regular expression for a line of what a program prints.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether the line, without its end, has a place that fits.
    pub fn fits(&self, line: &str) -> bool {
        self.0.is_match(line)
    }
}

impl FromStr for Pattern {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Regex::new(text).map(Self)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Lines of a program that say how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSigns {
    /// It is ready.
    pub ready: Option<Pattern>,
    /// It is alive; the policy says how often it is due.
    pub alive: Option<Pattern>,
}

/// A question asked from outside, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is tried.
    pub kind: ProbeKind,
    /// From one try to the next. Default 250 ms until ready, 10 s after.
    pub interval: Duration,
    /// A try that takes longer has failed. Default 1 s.
    pub timeout: Duration,
}

/// What a probe tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// A connection is accepted at `host:port`.
    Tcp {
        /// A name or address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A web server answers `GET` with a code from 200 to 399.
    Http {
        /// A name or address.
        host: String,
        /// Its port; 80 when the address names none.
        port: u16,
        /// From the slash on.
        path: String,
    },
    /// A command exits with 0.
    Exec {
        /// Absolute, or a name to look up in `PATH`.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
}
