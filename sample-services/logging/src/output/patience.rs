//! How long the intake waits for an output that keeps what it gets. Pure: time is an argument.
//!
//! Waiting makes a record safe from a kill before its message is done; but an output that is slow must not make all
//! others slow. So an output has an account of time: it grows by half of the time that passes, and pays for waits,
//! without the first few milliseconds of each, which any write may take on a busy machine. With nothing on it nobody
//! waits.

use std::time::{Duration, Instant};

/// A disk that hangs costs the intake this much, once.
const MOST: Duration = Duration::from_secs(2);

/// Of a wait, what is free.
const FREE: Duration = Duration::from_millis(5);

/// The account of one output.
#[derive(Debug)]
pub(super) struct Patience {
    left: Duration,
    /// When `left` was that.
    at: Instant,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: MOST, at: now }
    }

    /// Until when a wait that begins now may last; `None`: it may not begin.
    pub(super) fn until(&mut self, now: Instant) -> Option<Instant> {
        self.left = (self.left + now.saturating_duration_since(self.at) / 2).min(MOST);
        self.at = now;
        (!self.left.is_zero()).then(|| now + self.left + FREE)
    }

    /// A wait is over.
    pub(super) fn spent(&mut self, began: Instant, now: Instant) {
        self.left = self.left.saturating_sub(now.saturating_duration_since(began).saturating_sub(FREE));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever an output does: what it takes of the intake's time beyond the free part is at most half of the
        /// time, and what was on its account at first.
        #[test]
        fn no_output_takes_more_than_half_of_the_time(
            steps in prop::collection::vec((0u64..500, 0u64..5_000), 1..100)
        ) {
            let start = Instant::now();
            let mut patience = Patience::new(start);
            let (mut now, mut waited) = (start, Duration::ZERO);
            for (pause, wish) in steps {
                now += Duration::from_millis(pause);
                let Some(deadline) = patience.until(now) else { continue };
                let wait = Duration::from_millis(wish).min(deadline - now);
                let began = now;
                now += wait;
                patience.spent(began, now);
                waited += wait.saturating_sub(FREE);
                prop_assert!(waited <= MOST + (now - start) / 2, "{waited:?} of {:?}", now - start);
            }
        }

        #[test]
        fn who_is_quick_is_always_waited_for(waits in prop::collection::vec(0u64..=5, 1..1000)) {
            let mut now = Instant::now();
            let mut patience = Patience::new(now);
            for wait in waits {
                let deadline = patience.until(now);
                prop_assert!(deadline.is_some_and(|deadline| deadline >= now + MOST));
                let began = now;
                now += Duration::from_millis(wait);
                patience.spent(began, now);
            }
        }
    }
}
