//! [`Place`]: how far the event log was taken in, and whether it still is that log. No I/O.

use serde::{Deserialize, Serialize};
use watchdog_service::query::status::EventRecord;

/// Up to where the event log was taken in: what a restart must not lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Which event log, from 1: another one when the folder of logs was emptied, and numbers begin anew.
    pub(crate) log: u64,
    /// The number of the last entry; 0: none yet.
    number: u64,
    /// When it was written, by which another log is told.
    at_us: u64,
}

/// What an entry is to who stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// News; the place is behind it now.
    News,
    /// It was taken in.
    Known,
    /// It is of another log: all of it is news, from its beginning.
    OtherLog,
}

impl Default for Place {
    /// Before the first entry of the first log.
    fn default() -> Self {
        Self { log: 1, number: 0, at_us: 0 }
    }
}

impl Place {
    /// The number to ask for what comes after, so that the entry at this place comes first, and can be looked at.
    pub(super) fn before(self) -> u64 {
        self.number.saturating_sub(1)
    }

    /// The number of the entry at this place.
    pub(super) fn number(self) -> u64 {
        self.number
    }

    /// The newest entry of the log has this number: a shorter log is another one.
    pub(super) fn look(&mut self, newest: u64) {
        if newest < self.number {
            self.begin_anew();
        }
    }

    /// Takes an entry in.
    pub(super) fn take(&mut self, entry: &EventRecord) -> Step {
        if entry.number == self.number && entry.at_us != self.at_us {
            self.begin_anew();
            return Step::OtherLog;
        }
        if entry.number <= self.number {
            return Step::Known;
        }
        (self.number, self.at_us) = (entry.number, entry.at_us);
        Step::News
    }

    fn begin_anew(&mut self) {
        *self = Self { log: self.log + 1, number: 0, at_us: 0 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::record::sample::entry;

    #[test]
    fn a_log_that_began_anew_is_told_by_its_length_and_by_its_time() {
        let at_3 = Place { log: 1, number: 3, at_us: 30 };
        let anew = Place { log: 2, number: 0, at_us: 0 };
        let mut place = at_3;
        place.look(2);
        assert_eq!(place, anew);
        let mut place = at_3;
        place.look(3);
        assert_eq!(place.before(), 2);
        assert_eq!(place.take(&entry(3, 31)), Step::OtherLog);
        assert_eq!(place, anew);
        let mut place = at_3;
        assert_eq!([(3, 30), (4, 40)].map(|(n, at)| place.take(&entry(n, at))), [Step::Known, Step::News]);
    }

    proptest! {
        /// However often the reading breaks off, and wherever a kill throws it back to.
        #[test]
        fn each_entry_is_news_once_to_who_keeps_the_place(
            length in 1u64..60, oldest in 1u64..20, breaks in prop::collection::vec(1usize..20, 0..20)
        ) {
            let log: Vec<_> = (oldest..oldest + length).map(|number| entry(number, 7 * number)).collect();
            let mut place = Place::default();
            let mut seen = Vec::new();
            for most in breaks.into_iter().chain([usize::MAX]) {
                place.look(oldest + length - 1);
                for one in log.iter().filter(|one| one.number > place.before()).take(most).collect::<Vec<_>>() {
                    match place.take(one) {
                        Step::News => seen.push(one.number),
                        Step::Known => {}
                        Step::OtherLog => prop_assert!(false, "it is the same log"),
                    }
                }
            }
            prop_assert_eq!(place.log, 1);
            prop_assert_eq!(seen, (oldest..oldest + length).collect::<Vec<_>>());
        }
    }
}
