//! [`Moves`]: how often what services may use was changed, by the event log. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchdog_service::ServiceName;
use watchdog_service::query::status::EventRecord;

use super::once::Once;

/// Changes of limits, freezes and thaws, by service; part of what a restart of this service must not lose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moves {
    once: Once,
    counts: BTreeMap<ServiceName, BTreeMap<String, u64>>,
}

impl Moves {
    /// Counts an entry of a log, once, however often it comes.
    pub(crate) fn take(&mut self, log: u64, entry: &EventRecord) {
        if !self.once.is_new(log, entry) {
            return;
        }
        let Some(service) = &entry.service else { return };
        let kind = match entry.what.as_str() {
            // Else it tells what could not be done.
            "limit" if entry.text.starts_with("limits changed") => "limited",
            "frozen" => "frozen",
            "thawed" => "thawed",
            "unregistered" | "removed" => return drop(self.counts.remove(service)),
            _ => return,
        };
        *self.counts.entry(service.clone()).or_default().entry(kind.to_owned()).or_default() += 1;
    }

    /// Since when they are counted, in nanoseconds since 1970.
    pub(crate) fn since(&self) -> u64 {
        self.once.since()
    }

    /// Service, kind, and how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&ServiceName, &str, u64)> {
        self.counts.iter().flat_map(|(service, kinds)| {
            kinds.iter().map(move |(kind, count)| (service, kind.as_str(), *count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::restarts::sample::entry;
    use super::*;

    fn told(number: u64, what: &str, text: &str) -> EventRecord {
        EventRecord { text: text.to_owned(), ..entry(number, "a", what, None) }
    }

    #[test]
    fn what_was_done_is_counted_once_and_what_was_not_is_not() {
        let mut moves = Moves::default();
        let log = [
            told(3, "limit", "limits changed: cpu none → 50%: web waits"),
            told(4, "limit", "not in force: io_weight: no disk heeds it"),
            told(5, "frozen", "frozen: web waits"),
            told(6, "thawed", "thawed"),
            told(7, "limit", "limits changed: cpu 50% → none"),
        ];
        log.iter().chain(&log).for_each(|one| moves.take(1, one));
        let counts = |moves: &Moves| -> Vec<(String, u64)> {
            moves.counts().map(|(_, kind, count)| (kind.to_owned(), count)).collect()
        };
        assert_eq!(counts(&moves), [("frozen".into(), 1), ("limited".into(), 2), ("thawed".into(), 1)]);
        assert_eq!(moves.since(), 1_000_003_000);
        // A log that began anew.
        moves.take(2, &told(1, "frozen", ""));
        assert_eq!(counts(&moves)[0].1, 2);
        moves.take(2, &told(2, "unregistered", ""));
        assert_eq!(counts(&moves), []);
    }
}
