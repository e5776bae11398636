//! How long to wait before a request is tried again. Pure: chance is an argument.

use std::time::Duration;

/// Pauses that double from the shortest to the longest.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause: at least half of what it may be, so that a collector that is down gets a rest, and the other half
    /// by `chance`, from 0 to 1, so that exporters which lost it together do not return together.
    pub(super) fn next(&mut self, min: Duration, max: Duration, chance: f64) -> Duration {
        let whole = min.saturating_mul(1 << self.failures.min(30)).min(max);
        self.failures += 1;
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (min, max) = (Duration::from_millis(500), Duration::from_secs(30));
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next(min, max, 1.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    proptest! {
        #[test]
        fn a_pause_is_between_half_and_all_of_what_it_may_be(min in 1u64..5_000, more in 0u64..100_000, chances in
            prop::collection::vec(0.0..1.0, 1..60))
        {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + more));
            let mut backoff = Backoff::default();
            for chance in chances {
                let pause = backoff.next(min, max, chance);
                prop_assert!(pause >= min / 2 && pause <= max, "{pause:?}");
            }
        }
    }
}
