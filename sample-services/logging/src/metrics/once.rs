//! [`Once`]: entries of the event log, each of them once. Pure.

use serde::{Deserialize, Serialize};
use watchdog_service::query::status::EventRecord;

/// How far a log was read; part of what a restart of this service must not lose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Once {
    /// The first entry there was, in nanoseconds since 1970; 0 before that.
    since: u64,
    /// The last one: of which log, and its number.
    last: (u64, u64),
}

impl Once {
    /// Whether this entry was not there before, however often it comes. Logs are numbered as they begin anew.
    pub(super) fn is_new(&mut self, log: u64, entry: &EventRecord) -> bool {
        if (log, entry.number) <= self.last {
            return false;
        }
        self.last = (log, entry.number);
        if self.since == 0 {
            self.since = entry.at_us.saturating_mul(1000);
        }
        true
    }

    /// Since when entries are there, in nanoseconds since 1970.
    pub(super) fn since(&self) -> u64 {
        self.since
    }
}
