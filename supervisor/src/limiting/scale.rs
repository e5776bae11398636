//! Limits in the kernel's units. Pure.

/// Microseconds in which a quota of processor time is given out: the kernel's default.
pub(super) const PERIOD_US: u64 = 100_000;

/// More processors than Linux has: a larger quota overflows in the kernel, and limits nobody.
const MOST_PROCESSORS: u64 = 10_000;

/// Thousandths of a processor → microseconds of each period.
pub(super) fn quota_us(cpu: u64) -> u64 {
    cpu.min(MOST_PROCESSORS * 1000) * PERIOD_US / 1000
}

/// The value of `cpu.max`.
pub(super) fn cpu_max(cpu: Option<u64>) -> String {
    match cpu {
        Some(cpu) => format!("{} {PERIOD_US}", quota_us(cpu)),
        None => format!("max {PERIOD_US}"),
    }
}

/// Weight 100 is 1024 shares.
pub(super) fn shares(weight: u64) -> u64 {
    (weight * 1024 + 50) / 100
}

/// The scheduler BFQ has 1 to 1000, with 100 when nobody says: the same below, squeezed above.
pub(super) fn bfq_weight(weight: u64) -> u64 {
    match weight {
        ..=100 => weight,
        above => 100 + (above - 100) * 900 / 9900,
    }
}

/// A nice value is worth a factor of 1.25 of processor time each step, so 1 to 10000 are its whole range.
pub(super) fn nice(weight: u64, own: i32) -> i32 {
    let steps = -((weight as f64 / 100.0).ln() / 1.25_f64.ln()).round() as i32;
    (own + steps).clamp(-20, 19)
}

/// Thousandths of a processor → whole processors, at least one.
pub(super) fn processors(cpu: u64) -> usize {
    usize::try_from(cpu.div_ceil(1000)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_in_units_of_the_kernel() {
        for (cpu, text, whole) in [
            (10, "1000 100000", 1),
            (200, "20000 100000", 1),
            (1000, "100000 100000", 1),
            (1001, "100100 100000", 2),
            (1500, "150000 100000", 2),
            (1_000_000_000, "1000000000 100000", 1_000_000),
        ] {
            assert_eq!((cpu_max(Some(cpu)).as_str(), processors(cpu)), (text, whole), "{cpu}");
        }
        assert_eq!(cpu_max(None), "max 100000");
        for (weight, shares_of, bfq, nice_of) in [
            (1, 10, 1, 19),
            (10, 102, 10, 10),
            (50, 512, 50, 3),
            (100, 1024, 100, 0),
            (125, 1280, 102, -1),
            (200, 2048, 109, -3),
            (10_000, 102_400, 1000, -20),
        ] {
            let found = (shares(weight), bfq_weight(weight), nice(weight, 0));
            assert_eq!(found, (shares_of, bfq, nice_of), "{weight}");
        }
        assert_eq!((nice(100, 5), nice(1, 5), nice(10_000, 5)), (5, 19, -16));
    }

    proptest! {
        #[test]
        fn a_larger_weight_never_means_less(less in 1_u64..=10_000, more in 1_u64..=10_000, own in -20..=19) {
            let (less, more) = (less.min(more), less.max(more));
            prop_assert!(shares(less) <= shares(more));
            prop_assert!(bfq_weight(less) <= bfq_weight(more));
            prop_assert!(nice(less, own) >= nice(more, own));
        }

        #[test]
        fn what_the_kernel_is_told_is_in_its_range(weight in 1_u64..=10_000, cpu in 10_u64..=1_000_000_000) {
            prop_assert!((2..=262_144).contains(&shares(weight)));
            prop_assert!((1..=1000).contains(&bfq_weight(weight)));
            prop_assert!((-20..=19).contains(&nice(weight, 0)));
            // At least a millisecond, and no overflow where it becomes nanoseconds.
            prop_assert!((1000..1 << 44).contains(&quota_us(cpu)));
            prop_assert!(processors(cpu) as u64 * 1000 >= cpu);
        }
    }
}
