//! [`Flood`]: how much of what is said is noted. Pure: time is an argument.
//!
//! Each origin has an account of its own: a few at once, then one in a while. What is not noted is counted, and the count
//! said with the next that is, or alone when there is an account for it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Noted at once of one origin.
pub(super) const BURST: u32 = 5;

/// From one to the next after these. The code has some fifty origins: were all of them to flood, the log would hold
/// more than half a day of nothing else; one alone takes a month to fill it.
pub(super) const PACE: Duration = Duration::from_secs(300);

/// The accounts.
#[derive(Debug)]
pub(super) struct Flood<O, W>(BTreeMap<O, Account<W>>);

#[derive(Debug)]
struct Account<W> {
    left: u32,
    /// When `left` was that.
    since: Instant,
    held: u64,
    /// The last that was said.
    last: W,
}

impl<O, W> Default for Flood<O, W> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<O: Ord, W: Clone> Flood<O, W> {
    /// What is said: to be noted, with how many before it were not; `None`: it is held back.
    pub(super) fn take(&mut self, origin: O, word: W, now: Instant) -> Option<(W, u64)> {
        let fresh = || Account { left: BURST, since: now, held: 0, last: word.clone() };
        let account = self.0.entry(origin).or_insert_with(fresh);
        account.last = word;
        if account.pay(now) {
            return Some((account.last.clone(), std::mem::take(&mut account.held)));
        }
        account.held += 1;
        None
    }

    /// So many of this origin were to be noted, and could not be.
    pub(super) fn hold(&mut self, origin: &O, count: u64) {
        if let Some(account) = self.0.get_mut(origin) {
            account.held += count;
        }
    }

    /// When a count is to be said.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let held = self.0.values().filter(|account| account.held > 0);
        held.map(|account| if account.left > 0 { now } else { account.since + PACE }).min()
    }

    /// A count that is to be said, with the last of what it counts.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(W, u64)> {
        let mut held = self.0.values_mut().filter(|account| account.held > 0);
        let account = held.find_map(|account| account.pay(now).then_some(account))?;
        Some((account.last.clone(), std::mem::take(&mut account.held)))
    }
}

impl<W> Account<W> {
    /// Whether one more may be noted, which it is then.
    fn pay(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.since) >= PACE {
            self.left += 1;
            self.since += PACE;
        }
        if self.left == BURST {
            self.since = now;
        }
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_account_fills_up_while_nothing_is_said_and_not_beyond() {
        let mut flood = Flood::default();
        let start = Instant::now();
        let mut noted = |at: Instant, count: u32| (0..count).filter_map(|_| flood.take("a", "w", at)).count();
        assert_eq!(noted(start, 100), 5);
        assert_eq!(noted(start + PACE - Duration::from_secs(1), 100), 0);
        assert_eq!(noted(start + PACE, 100), 1);
        assert_eq!(noted(start + 100 * PACE, 100), 5);
    }

    proptest! {
        /// Whatever is said when: no more is noted than there is room for, and what is noted and what is counted is all
        /// that was said, once what is due was said.
        #[test]
        fn nothing_is_noted_too_often_and_nothing_is_left_uncounted(
            steps in prop::collection::vec((0u64..200, 0u8..3, 0u32..30, any::<bool>()), 1..60)
        ) {
            let start = Instant::now();
            let mut flood = Flood::default();
            let (mut now, mut said) = (start, [0u64; 3]);
            let mut noted: [Vec<(Instant, u64)>; 3] = Default::default();
            let note = |noted: &mut [Vec<(Instant, u64)>; 3], origin: u8, now, count| {
                noted[usize::from(origin)].push((now, count));
            };
            for (pause, origin, count, is_looked_at) in steps {
                now += Duration::from_secs(pause);
                for _ in 0..count {
                    said[usize::from(origin)] += 1;
                    if let Some((word, before)) = flood.take(origin, origin, now) {
                        note(&mut noted, word, now, 1 + before);
                    }
                }
                while is_looked_at && let Some((word, held)) = flood.overdue(now) {
                    note(&mut noted, word, now, held);
                }
            }
            while let Some(due) = flood.due(now) {
                now = now.max(due);
                let (word, held) = flood.overdue(now).expect("it is due");
                note(&mut noted, word, now, held);
            }
            for (noted, said) in noted.iter().zip(said) {
                prop_assert_eq!(noted.iter().map(|(_, count)| count).sum::<u64>(), said);
                for (at, (from, _)) in noted.iter().enumerate() {
                    for (upto, (to, _)) in noted.iter().enumerate().skip(at) {
                        let room = u64::from(BURST) + (*to - *from).as_secs() / PACE.as_secs();
                        // Of what fills up again, a part may have been there at the beginning.
                        prop_assert!((upto - at) as u64 <= room, "{} in {:?}", upto - at + 1, *to - *from);
                    }
                }
            }
        }
    }
}
