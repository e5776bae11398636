//! Probes: how the watchdog itself finds out about a process that can't tell.

use std::path::PathBuf;
use std::time::Duration;

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
