//! Two clocks that every process of a host agrees on.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: for durations, also between processes. It stands still in suspend.
#[inline]
pub fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// Nanoseconds since boot, suspend included: for what must be compared with a process's start time.
pub fn boottime_ns() -> u64 {
    read(ClockId::Boottime)
}

/// Read for each message on either side, so it has to cost no more than the kernel's own function.
#[inline]
fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_stretch_of_monotonic_time_lies_within_the_one_std_measures_around_it() {
        let outer = Instant::now();
        let first = monotonic_ns();
        let inner = Instant::now();
        std::hint::black_box((0..10_000).sum::<u64>());
        let inner = inner.elapsed();
        let second = monotonic_ns();
        let outer = outer.elapsed();
        let between = u128::from(second - first);
        assert!(inner.as_nanos() <= between && between <= outer.as_nanos());
    }

    #[test]
    fn boot_time_is_not_behind_monotonic_time() {
        let monotonic = monotonic_ns();
        assert!(boottime_ns() >= monotonic);
    }
}
