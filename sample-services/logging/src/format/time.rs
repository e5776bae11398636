//! Points in time as RFC 3339 has them, in UTC.

use jiff::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// Writes points in time; of those in the same second only the first costs a calendar.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    /// To the nanosecond.
    pub(super) fn nanos(&mut self, out: &mut Vec<u8>, at: u64) {
        self.second(out, at / SECOND);
        fraction(out, at % SECOND, 9);
    }

    /// To the millisecond.
    pub(super) fn millis(&mut self, out: &mut Vec<u8>, at: u64) {
        self.second(out, at / SECOND);
        fraction(out, at % SECOND / 1_000_000, 3);
    }

    fn second(&mut self, out: &mut Vec<u8>, second: u64) {
        if self.second != Some(second) {
            self.text = calendar(second);
            self.second = Some(second);
        }
        out.extend_from_slice(self.text.as_bytes());
    }
}

fn calendar(second: u64) -> String {
    // Nanoseconds of 64 bits end in the year 2554.
    let at = Timestamp::from_second(second.cast_signed()).expect("before the year 9999");
    at.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

fn fraction(out: &mut Vec<u8>, mut value: u64, digits: usize) {
    let mut text = [b'.'; 11];
    for at in (1..=digits).rev() {
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    text[digits + 1] = b'Z';
    out.extend_from_slice(&text[..digits + 2]);
}

/// A point in time as a part of a file's name: it sorts by time, and no system minds a character of it.
pub(crate) fn stamp(millis: u64) -> String {
    let (second, millis) = (millis / 1000, millis % 1000);
    format!("{}.{millis:03}Z", calendar(second).replace(':', ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stamp_sorts_by_time() {
        assert_eq!(stamp(1_764_474_000_007), "2025-11-30T034000.007Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_that_point_in_time(times in prop::collection::vec(any::<u64>(), 1..4)) {
            let mut clock = Clock::default();
            for at in times {
                let mut out = Vec::new();
                clock.nanos(&mut out, at);
                let read: Timestamp = String::from_utf8(out).unwrap().parse().unwrap();
                prop_assert_eq!(read.as_nanosecond(), i128::from(at));
            }
        }
    }
}
