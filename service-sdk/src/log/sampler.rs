//! Which traces are recorded, of those that begin here. Time and chance are arguments.

use std::time::Instant;

use watchdog_protocol::record::Sampling;

/// Lets so many of them a second through, and as many at once.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    /// Traces that may be recorded now.
    left: f64,
    filled: Instant,
}

impl Sampler {
    pub(super) fn new(sampling: Sampling, now: Instant) -> Self {
        Self { sampling, left: f64::from(sampling.per_second), filled: now }
    }

    /// Other rules, from now on.
    pub(super) fn set(&mut self, sampling: Sampling) {
        self.left = self.left.min(f64::from(sampling.per_second));
        self.sampling = sampling;
    }

    /// Whether a trace that begins now is recorded; `chance` is from 0 up to 1.
    pub(super) fn is_sampled(&mut self, now: Instant, chance: f64) -> bool {
        // At 1 all of them, whatever chance is.
        if chance >= self.sampling.ratio && self.sampling.ratio < 1.0 {
            return false;
        }
        let most = f64::from(self.sampling.per_second);
        self.left = (self.left + now.duration_since(self.filled).as_secs_f64() * most).min(most);
        self.filled = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ratio_is_that_part_of_all() {
        let now = Instant::now();
        let part = |ratio| {
            let mut sampler = Sampler::new(Sampling { ratio, per_second: 1000 }, now);
            (0..100).filter(|at| sampler.is_sampled(now, f64::from(*at) / 100.0)).count()
        };
        assert_eq!((part(0.0), part(0.25), part(1.0)), (0, 25, 100));
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_twice_the_bound(
            pauses in prop::collection::vec(0u64..20_000, 1..2_000), per_second in 1u32..50
        ) {
            let start = Instant::now();
            let mut sampler = Sampler::new(Sampling { ratio: 1.0, per_second }, start);
            let mut now = start;
            let mut taken = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                if sampler.is_sampled(now, 0.0) {
                    taken.push(now);
                }
            }
            // What was saved up, and what a second brings.
            let most = 2 * per_second as usize;
            for window in taken.windows(most + 1) {
                prop_assert!(window[most] - window[0] > Duration::from_millis(990));
            }
            prop_assert!(!taken.is_empty());
        }
    }
}
