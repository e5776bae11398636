//! Spans, sizes and counts as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// `2026-11-24T09:13:11.123Z`, of microseconds since 1970.
pub(super) fn time(at_us: u64) -> String {
    i64::try_from(at_us)
        .ok()
        .and_then(|at| Timestamp::from_microsecond(at).ok())
        .map_or_else(|| at_us.to_string(), |at| format!("{at:.3}"))
}

/// `340ms`, `12s`, `3m05s`, `4h05m`, `3d04h`: two units at most.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `512B`, `1.5KiB`, `12.4MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = "B";
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") }
}

/// `340ns`, `14.2µs`, `1.2ms`, `2.5s`, then as [`span`].
pub(super) fn short(ns: f64) -> String {
    if ns < 1e3 {
        format!("{ns:.0}ns")
    } else if ns < 1e6 {
        format!("{:.1}µs", ns / 1e3)
    } else if ns < 1e9 {
        format!("{:.1}ms", ns / 1e6)
    } else if ns < 60e9 {
        format!("{:.1}s", ns / 1e9)
    } else {
        span((ns / 1e6) as u64)
    }
}

/// `12.5/s`.
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 100.0 { format!("{per_second:.0}/s") } else { format!("{per_second:.1}/s") }
}

/// `1 start`, `3 starts`.
pub(super) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// `100ms`, `10s`, `1m`: a whole number and its unit.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; expected a whole number and a unit: 500ms, 10s, 2m, 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let unit: u64 = match &text[split..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_two_units_at_most() {
        let spans = [0, 999, 1000, 59_999, 61_000, 3_600_000, 3_960_000, 90_000_000];
        assert_eq!(spans.map(span), ["0ms", "999ms", "1s", "59s", "1m01s", "1h00m", "1h06m", "1d01h"]);
        assert_eq!([0, 1023, 1536, 13_002_342].map(size), ["0B", "1023B", "1.5KiB", "12.4MiB"]);
        assert_eq!(
            [0.4, 14_200.0, 1.2e6, 2.5e9, 61e9].map(short),
            ["0ns", "14.2µs", "1.2ms", "2.5s", "1m01s"]
        );
        assert_eq!([0.0, 12.54, 1234.5].map(rate), ["0.0/s", "12.5/s", "1234/s"]);
        assert_eq!((count(1, "handle"), count(0, "handle")), ("1 handle".into(), "0 handles".into()));
    }

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(parse_span("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "s", "1.5s", "-1s", "10 s", "1d", "99999999999999999999s", "99999999999999999h"]
        {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
