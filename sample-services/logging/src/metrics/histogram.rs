//! How long messages were under way, between bounds that are the same for all lanes, so that lanes add up. Pure.

use watchdog_service::query::status::PropagationStatus;

/// The first bound: 1,024 ns. Faster messages are not told apart.
const FIRST: u32 = 10;

/// The last one: 17 s.
const LAST: u32 = 34;

const COUNT: usize = (LAST - FIRST + 1) as usize;

/// In seconds: powers of two of nanoseconds, as a lane's page counts, from a microsecond to seventeen seconds.
pub(crate) const BOUNDS: [f64; COUNT] = {
    let mut bounds = [0.0; COUNT];
    let mut at = 0;
    while at < COUNT {
        bounds[at] = (1_u64 << (FIRST as usize + at)) as f64 / 1e9;
        at += 1;
    }
    bounds
};

/// How many values are how large.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    /// One for each of [`BOUNDS`], what is up to it and above the one before; and what is above the last.
    pub(crate) counts: [u64; COUNT + 1],
    /// Of all values, in seconds.
    pub(crate) sum: f64,
}

impl Histogram {
    /// All values.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What is up to each of [`BOUNDS`].
    pub(crate) fn up_to(&self) -> impl Iterator<Item = (f64, u64)> {
        BOUNDS.iter().zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }
}

impl From<&PropagationStatus> for Histogram {
    fn from(measured: &PropagationStatus) -> Self {
        let mut counts = [0; COUNT + 1];
        for bucket in &measured.buckets {
            let power = bucket.below.max(1).ilog2();
            counts[(power.saturating_sub(FIRST) as usize).min(COUNT)] += bucket.count;
        }
        let count: u64 = counts.iter().sum();
        // Of as many as are in the buckets, which may be a few more than were measured for the mean.
        Self { counts, sum: measured.mean * count as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchdog_service::query::status::BucketStatus;

    use super::*;

    #[test]
    fn bounds_are_powers_of_two_from_a_microsecond_to_seventeen_seconds() {
        assert_eq!((BOUNDS[0], BOUNDS[1], BOUNDS[COUNT - 1]), (1.024e-6, 2.048e-6, 17.179_869_184));
        assert!(BOUNDS.is_sorted());
    }

    proptest! {
        #[test]
        fn what_took_less_than_a_bound_is_below_it(powers in prop::collection::vec((6u32..=64, 1u64..1000), 0..20)) {
            let below = |power: u32| 1u64.checked_shl(power).unwrap_or(u64::MAX);
            let buckets =
                powers.iter().map(|(power, count)| BucketStatus { below: below(*power), count: *count }).collect();
            let measured = PropagationStatus { buckets, mean: 5e8, ..PropagationStatus::default() };
            let histogram = Histogram::from(&measured);
            prop_assert_eq!(histogram.count(), powers.iter().map(|(_, count)| count).sum::<u64>());
            prop_assert!((histogram.sum - histogram.count() as f64 / 2.0).abs() < 1e-6);
            for ((bound, up_to), power) in histogram.up_to().zip(FIRST..) {
                let expected = powers.iter().filter(|(at, _)| *at <= power).map(|(_, count)| count).sum::<u64>();
                prop_assert_eq!(up_to, expected, "{}", bound);
            }
        }
    }
}
