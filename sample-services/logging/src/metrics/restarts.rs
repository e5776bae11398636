//! [`Restarts`]: how often services were started anew, and why, by the event log. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchdog_service::ServiceName;
use watchdog_service::query::status::EventRecord;

use super::once::Once;

/// Processes that were started after one had ended, by service and by the cause of that end; part of what a restart of this
/// service must not lose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restarts {
    once: Once,
    /// Why the last process ended, of services that have not been started since.
    ended: BTreeMap<ServiceName, String>,
    counts: BTreeMap<ServiceName, BTreeMap<String, u64>>,
}

impl Restarts {
    /// Counts an entry of a log, once, however often it comes.
    pub(crate) fn take(&mut self, log: u64, entry: &EventRecord) {
        if !self.once.is_new(log, entry) {
            return;
        }
        let Some(service) = &entry.service else { return };
        match (entry.what.as_str(), &entry.cause) {
            ("ended", Some(cause)) => drop(self.ended.insert(service.clone(), cause.clone())),
            ("starting", _) => {
                if let Some(cause) = self.ended.remove(service) {
                    let counts = self.counts.entry(service.clone()).or_default();
                    *counts.entry(cause).or_default() += 1;
                }
            }
            // Another one may come by its name.
            ("unregistered" | "removed", _) => {
                self.ended.remove(service);
                self.counts.remove(service);
            }
            _ => {}
        }
    }

    /// Since when they are counted, in nanoseconds since 1970.
    pub(crate) fn since(&self) -> u64 {
        self.once.since()
    }

    /// Service, cause, and how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&ServiceName, &str, u64)> {
        self.counts.iter().flat_map(|(service, causes)| {
            causes.iter().map(move |(cause, count)| (service, cause.as_str(), *count))
        })
    }
}

#[cfg(test)]
pub(super) mod sample {
    use super::*;

    pub(crate) fn entry(number: u64, service: &str, what: &str, cause: Option<&str>) -> EventRecord {
        EventRecord {
            number,
            at_us: 1_000_000 + number,
            service: Some(service.parse().unwrap()),
            incarnation: None,
            what: what.to_owned(),
            cause: cause.map(str::to_owned),
            text: String::new(),
            revision: None,
            sequence: None,
            evidence: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::entry;
    use super::*;

    fn counts(restarts: &Restarts) -> Vec<(&str, &str, u64)> {
        restarts.counts().map(|(service, cause, count)| (service.as_str(), cause, count)).collect()
    }

    #[test]
    fn a_start_after_an_end_is_a_restart_for_the_reason_of_that_end() {
        let mut restarts = Restarts::default();
        for (number, what, cause) in [
            (7, "starting", None),
            (8, "ended", Some("signal")),
            (9, "backoff", None),
            (10, "starting", None),
            (11, "stopping", Some("operator")),
            (12, "ended", Some("operator")),
            (13, "starting", None),
            (14, "ended", Some("signal")),
            (15, "starting", None),
            (16, "ended", Some("exit-code")),
        ] {
            restarts.take(1, &entry(number, "a", what, cause));
        }
        assert_eq!(counts(&restarts), [("a", "operator", 1), ("a", "signal", 2)]);
        assert_eq!(restarts.since(), 1_000_007_000);
        restarts.take(1, &entry(17, "a", "unregistered", None));
        restarts.take(1, &entry(18, "a", "starting", None));
        assert_eq!(counts(&restarts), []);
    }

    #[test]
    fn entries_of_a_log_that_began_anew_are_others() {
        let mut restarts = Restarts::default();
        for (log, number, what) in [(1, 5, "ended"), (1, 6, "starting"), (2, 1, "ended"), (2, 2, "starting")]
        {
            restarts.take(log, &entry(number, "a", what, Some("signal")));
        }
        assert_eq!(counts(&restarts), [("a", "signal", 2)]);
    }

    proptest! {
        /// Wherever a kill of this service throws the reading back to, with what was kept before or after.
        #[test]
        fn no_entry_counts_twice(
            kinds in prop::collection::vec((0usize..3, 0usize..2), 1..60), back in prop::collection::vec((0usize..60, any::<bool>()), 0..10)
        ) {
            let log: Vec<_> = (1..)
                .zip(&kinds)
                .map(|(number, (service, what))| {
                    entry(number, ["a", "b", "c"][*service], ["starting", "ended"][*what], Some("signal"))
                })
                .collect();
            let mut once = Restarts::default();
            log.iter().for_each(|one| once.take(1, one));
            let mut again = Restarts::default();
            for (from, is_kept) in back {
                let from = from.min(log.len());
                let kept = again.clone();
                log[..from].iter().for_each(|one| again.take(1, one));
                if !is_kept {
                    again = kept;
                }
            }
            log.iter().for_each(|one| again.take(1, one));
            prop_assert_eq!(again, once);
        }
    }
}
