//! Durations and sizes as people write them: a whole number and a unit.

use std::time::Duration;

/// What a duration looks like, for errors.
pub(super) const DURATION: &str = "a duration like \"100ms\", \"10s\" or \"1m\"";

/// What a size looks like, for errors.
pub(super) const SIZE: &str = "a size like \"64KiB\" or \"10MiB\"";

/// A year: an instant plus a duration of the configuration never overflows.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// `100ms`, `10s`, `1m`, `2h`; `None` for anything else and above a year.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(60 * 60)?),
        _ => return None,
    };
    (duration <= LONGEST).then_some(duration)
}

/// `512B`, `64KiB`, `10MiB`, `1GiB`, in bytes; `None` for anything else.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..unit].parse().ok()?, &text[unit..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("1m"), Some(Duration::from_secs(60)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        for bad in ["", "s", "10", "-1s", "1.5s", "1 s", "1d", "1M", "99999999h", "18446744073709551615m"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_size_has_a_binary_unit() {
        assert_eq!(size("0B"), Some(0));
        assert_eq!(size("64KiB"), Some(65536));
        assert_eq!(size("10MiB"), Some(10 << 20));
        for bad in ["", "10", "10MB", "10mib", "1.5MiB", "99999999999GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
