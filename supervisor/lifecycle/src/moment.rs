//! [`Moment`], [`WallTime`] and [`Chance`]: time and chance as arguments.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds of `CLOCK_BOOTTIME`, which no one can set and which goes on while the host
/// sleeps. Good within one boot of the host, also across a change of core.
///
/// Arithmetic saturates: 584 years after the boot is "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// As read from the clock, or from what was stored.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// As stored.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this is; zero when it is before it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time as people read it: with three digits, from a hundred seconds on in whole ones: `44.2ms`, `1.5s`, `754s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        let beyond_three = nanos.checked_ilog10().unwrap_or(0).saturating_sub(2);
        let unit = 10_u64.pow(beyond_three).min(SECOND);
        let rounded = nanos.saturating_add(unit / 2) / unit * unit;
        write!(out, "{:?}", Duration::from_nanos(rounded))
    }
}

/// A time as people read it: microseconds since 1970, UTC. Somebody may set that clock, so nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(u64);

impl WallTime {
    /// As read from the clock, or from what was stored.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// As stored and shown.
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

/// 64 random bits, drawn by the caller of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance(u64);

impl Chance {
    /// From random bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Further bits out of these (splitmix64): one step of the roster may draw for several services.
    #[must_use]
    pub const fn next(self) -> Self {
        let state = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }

    /// A duration from zero up to `whole`, each as likely as the other.
    #[must_use]
    pub fn part_of(self, whole: Duration) -> Duration {
        let whole = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        // The high half of the product is below `whole`, so it fits.
        Duration::from_nanos(((u128::from(whole) * u128::from(self.0)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_beyond_the_end_of_time_is_the_end_of_time() {
        let late = Moment::from_nanos(u64::MAX - 1);
        assert_eq!(late.after(Duration::MAX), Moment::from_nanos(u64::MAX));
        assert_eq!(Moment::from_nanos(1).since(late), Duration::ZERO);
    }

    #[test]
    fn a_span_has_as_many_digits_as_one_reads() {
        let shown = |nanos: u64| Span(Duration::from_nanos(nanos)).to_string();
        for (nanos, text) in [
            (0, "0ns"),
            (340, "340ns"),
            (4_127_222, "4.13ms"),
            (44_224_359, "44.2ms"),
            (999_600_000, "1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "60s"),
            (83_274_000_000, "83.3s"),
            (3_605_400_000_000, "3605s"),
        ] {
            assert_eq!(shown(nanos), text);
        }
        assert!(shown(u64::MAX).ends_with('s'));
    }

    #[test]
    fn a_part_is_never_more_than_the_whole() {
        let whole = Duration::from_secs(30);
        assert_eq!(Chance::from_bits(0).part_of(whole), Duration::ZERO);
        assert!(Chance::from_bits(u64::MAX).part_of(whole) < whole);
        assert!(Chance::from_bits(u64::MAX).part_of(whole) > whole.mul_f64(0.999));
        assert_eq!(Chance::from_bits(1 << 63).part_of(whole), Duration::from_secs(15));
    }
}
