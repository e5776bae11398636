//! Why a service is in the state it is in: what `watchdog why` shows, and its `--json` output.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, Revision, ServiceName};

/// The way from the state a service is in back to the first cause of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// [`STATUS_VERSION`](crate::status::STATUS_VERSION).
    pub version: u32,
    /// Whose state it is.
    pub service: ServiceName,
    /// From the state to the first cause, never empty. May pass through other services.
    pub chain: Vec<Link>,
    /// Where the way ends.
    pub origin: Origin,
    /// What to do about it: command lines, what follows a `#` is a remark. Empty where nothing is to be done.
    pub advice: Vec<String>,
}

/// Where the way back ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// At the first cause, in words.
    FirstCause(String),
    /// Before the first cause: what is missing in the event log, and where the log begins if that is why, in words.
    NotInLog(String),
}

/// One step of the way: what happened, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Whom it is about; `None`: the watchdog itself.
    pub service: Option<ServiceName>,
    /// Wall clock, microseconds since 1970, UTC; `None` where only the present state is known.
    pub at_us: Option<u64>,
    /// What happened, in words.
    pub what: String,
    /// The cause's name, where there is one.
    pub cause: Option<String>,
    /// The entry of the event log that tells it; `None` where only the present state does.
    pub event: Option<u64>,
    /// The process it is about.
    pub incarnation: Option<Incarnation>,
    /// Settings revision, where it is about one.
    pub revision: Option<Revision>,
    /// How the process ended, as the kernel tells, in words.
    pub exit: Option<String>,
    /// How long the process had been ready, in milliseconds; `None` where it never was or does not matter.
    pub ready_ms: Option<u64>,
    /// The last lines of its standard error, oldest first.
    pub last_lines: Vec<String>,
}
