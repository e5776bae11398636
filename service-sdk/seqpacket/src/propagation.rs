//! How long messages were under way: exact moments, and percentiles from a log-scaled histogram. Pure.

/// Buckets of equal width below 64 ns, and then of each power of two.
const STEPS: usize = 8;

/// The power of two that is as wide as all before it: 64 ns.
const FIRST_OCTAVE: usize = 6;

/// Enough for every `u64` of nanoseconds.
pub(crate) const BUCKETS: usize = STEPS + (64 - FIRST_OCTAVE) * STEPS;

/// Count, mean and spread of what was measured so far, by Welford's method: stable however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Moments {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    /// Sum of the squared distances from the mean.
    pub(crate) m2: f64,
    pub(crate) largest: u64,
}

impl Moments {
    /// With one more.
    pub(crate) fn with(self, nanoseconds: u64) -> Self {
        let count = self.count.wrapping_add(1);
        let value = nanoseconds as f64;
        let distance = value - self.mean;
        let mean = self.mean + distance / count as f64;
        let m2 = self.m2 + distance * (value - mean);
        Self { count, mean, m2, largest: self.largest.max(nanoseconds) }
    }
}

/// Where a time is counted.
pub(crate) fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < 1 << FIRST_OCTAVE {
        return (nanoseconds as usize * STEPS) >> FIRST_OCTAVE;
    }
    let octave = nanoseconds.ilog2() as usize;
    let step = (nanoseconds >> (octave - STEPS.ilog2() as usize)) as usize % STEPS;
    STEPS + (octave - FIRST_OCTAVE) * STEPS + step
}

/// The value that stands for a bucket: the one whose relative distance to both edges is the same.
fn middle(bucket: usize) -> f64 {
    if bucket < STEPS {
        let width = (1 << FIRST_OCTAVE) as f64 / STEPS as f64;
        return (bucket as f64 + 0.5) * width;
    }
    let octave = (bucket - STEPS) / STEPS + FIRST_OCTAVE;
    let width = (octave as f64).exp2() / STEPS as f64;
    let low = (STEPS + bucket % STEPS) as f64 * width;
    let high = low + width;
    2.0 * low * high / (low + high)
}

/// The propagation time of a lane's messages, from accepted by the sender until handed to the handler, waiting
/// included. A message handed again after a death is counted once.
#[derive(Debug, Clone, PartialEq)]
pub struct Propagation {
    moments: Moments,
    buckets: Box<[u64; BUCKETS]>,
}

impl Propagation {
    pub(crate) fn new(moments: Moments, buckets: Box<[u64; BUCKETS]>) -> Self {
        Self { moments, buckets }
    }

    /// Messages measured.
    pub fn count(&self) -> u64 {
        self.moments.count
    }

    /// Mean, in nanoseconds; `None` before the first message.
    pub fn mean_ns(&self) -> Option<f64> {
        (self.moments.count > 0).then_some(self.moments.mean)
    }

    /// Variance of the sample (n − 1), in square nanoseconds; `None` before the second message.
    pub fn variance_ns2(&self) -> Option<f64> {
        (self.moments.count > 1).then(|| self.moments.m2 / (self.moments.count - 1) as f64)
    }

    /// Standard deviation of the sample, in nanoseconds; `None` before the second message.
    pub fn standard_deviation_ns(&self) -> Option<f64> {
        self.variance_ns2().map(f64::sqrt)
    }

    /// Half of the messages took at most this, in nanoseconds; `None` before the first message.
    pub fn p50_ns(&self) -> Option<u64> {
        self.percentile_ns(0.50)
    }

    /// Of a hundred messages 99 took at most this, in nanoseconds; `None` before the first message.
    pub fn p99_ns(&self) -> Option<u64> {
        self.percentile_ns(0.99)
    }

    /// The longest any message took, exactly, in nanoseconds; `None` before the first message.
    pub fn max_ns(&self) -> Option<u64> {
        (self.moments.count > 0).then_some(self.moments.largest)
    }

    /// Messages in the histogram.
    pub(crate) fn counted(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The histogram in powers of two, the shortest times first: so many messages took less than so many nanoseconds, and
    /// were not among those before. Powers that none fell into are left out; the first is 64 ns.
    pub fn octaves(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.chunks(STEPS).enumerate().filter_map(|(octave, steps)| {
            let count = steps.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
            let below = 1_u64.checked_shl((FIRST_OCTAVE + octave) as u32).unwrap_or(u64::MAX);
            (count > 0).then_some((below, count))
        })
    }

    /// The time that `share` (0 to 1) of the messages took at most, by nearest rank, in nanoseconds. Within 6 % of
    /// the exact one, below 64 ns within 4 ns, and never above the longest. `None` before the first message.
    pub fn percentile_ns(&self, share: f64) -> Option<u64> {
        // Not of the count: a page that lies gives a wrong number, not a search that finds nothing.
        let counted = self.counted();
        let rank = ((share * counted as f64).ceil() as u64).clamp(1, counted.max(1));
        let mut passed = 0_u64;
        let index = self.buckets.iter().position(|count| {
            passed = passed.saturating_add(*count);
            passed >= rank
        })?;
        Some((middle(index) as u64).min(self.moments.largest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times: &[u64]) -> Propagation {
        let mut buckets = Box::new([0; BUCKETS]);
        let mut moments = Moments::default();
        for time in times {
            moments = moments.with(*time);
            buckets[bucket(*time)] += 1;
        }
        Propagation::new(moments, buckets)
    }

    #[test]
    fn ic_4_ten_fifteen_twenty_deviate_by_five() {
        let spread = of(&[10, 15, 20]);
        assert_eq!(spread.count(), 3);
        assert_eq!(spread.mean_ns(), Some(15.0));
        assert_eq!(spread.variance_ns2(), Some(25.0));
        assert_eq!(spread.standard_deviation_ns(), Some(5.0));
        assert_eq!(spread.max_ns(), Some(20));
    }

    #[test]
    fn nothing_measured_has_no_numbers() {
        let none = of(&[]);
        assert_eq!(none.count(), 0);
        assert_eq!((none.mean_ns(), none.variance_ns2(), none.standard_deviation_ns()), (None, None, None));
        assert_eq!((none.p50_ns(), none.p99_ns(), none.max_ns()), (None, None, None));
    }

    #[test]
    fn one_message_has_a_mean_and_no_deviation() {
        let one = of(&[700]);
        assert_eq!((one.mean_ns(), one.standard_deviation_ns()), (Some(700.0), None));
    }

    #[test]
    fn the_longest_time_there_is_has_an_octave() {
        assert_eq!(of(&[u64::MAX, 0, 1]).octaves().collect::<Vec<_>>(), [(64, 2), (u64::MAX, 1)]);
    }

    #[test]
    fn buckets_are_in_the_order_of_time_and_all_used() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(63), STEPS - 1);
        assert_eq!(bucket(64), STEPS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let edges = (0..=u64::BITS - 1).flat_map(|power| {
            let low = 1_u64 << power;
            (0..STEPS as u64).map(move |step| low + (low / STEPS as u64) * step)
        });
        let mut last = 0;
        for edge in edges {
            assert!(bucket(edge) == last || bucket(edge) == last + 1, "a gap before {edge}");
            last = bucket(edge);
        }
        assert_eq!(last, BUCKETS - 1);
    }

    /// From single nanoseconds to a day, as even over the powers of two as over a range.
    fn time() -> impl Strategy<Value = u64> {
        const DAY: u64 = 86_400_000_000_000;
        (0_u32..47, 0..DAY).prop_map(|(shift, time)| time >> shift)
    }

    proptest! {
        #[test]
        fn percentiles_are_within_six_percent_of_the_exact_ones(
            mut times in prop::collection::vec(time(), 1..400),
            share in 0.0..=1.0_f64,
        ) {
            let histogram = of(&times);
            times.sort_unstable();
            for share in [share, 0.5, 0.99, 1.0] {
                let rank = ((share * times.len() as f64).ceil() as usize).clamp(1, times.len());
                let exact = times[rank - 1] as f64;
                let found = histogram.percentile_ns(share).unwrap();
                prop_assert!((found as f64 - exact).abs() <= (exact * 0.06).max(4.0), "{found} for {exact}");
                prop_assert!(found <= *times.last().unwrap());
            }
        }

        #[test]
        fn octaves_hold_each_time_below_its_power_of_two(times in prop::collection::vec(time(), 0..400)) {
            let octaves: Vec<_> = of(&times).octaves().collect();
            prop_assert!(octaves.is_sorted_by_key(|(below, _)| *below));
            for power in FIRST_OCTAVE..48 {
                let below = 1_u64 << power;
                let counted: u64 = octaves.iter().filter(|(at, _)| *at <= below).map(|(_, count)| count).sum();
                prop_assert_eq!(counted, times.iter().filter(|time| **time < below).count() as u64, "below {}", below);
            }
        }

        #[test]
        fn mean_and_variance_are_those_of_two_passes(times in prop::collection::vec(time(), 2..400)) {
            let spread = of(&times);
            let n = times.len() as f64;
            let mean = times.iter().map(|time| *time as f64).sum::<f64>() / n;
            let variance = times.iter().map(|time| (*time as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0);
            prop_assert!((spread.mean_ns().unwrap() - mean).abs() <= mean * 1e-9);
            prop_assert!((spread.variance_ns2().unwrap() - variance).abs() <= variance * 1e-9 + 1e-6);
            prop_assert_eq!(spread.max_ns(), times.iter().max().copied());
        }
    }
}
