//! Durations and sizes as people write them: a whole number and a unit, as in `watchdog.toml`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration: `100ms`, `10s`, `5m`, `2h`, `1d`. From 1 ms to a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Period(Duration);

/// A size: `64KiB`, `10MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Size(u64);

/// Text that is no quantity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?}, expected {expected}")]
pub(crate) struct QuantityError {
    found: String,
    expected: &'static str,
}

const PERIODS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A year, so that an instant and a period never overflow.
const LONGEST: u64 = 366 * 86_400_000;

impl Period {
    pub(crate) const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).expect("at most a year")
    }
}

impl Size {
    pub(crate) const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<String> for Period {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        let millis = read(&text, PERIODS).filter(|millis| (1..=LONGEST).contains(millis));
        let expected = "a duration like \"10s\", \"5m\" or \"1d\", at most a year";
        millis.map(Self::millis).ok_or(QuantityError { found: text, expected })
    }
}

impl TryFrom<String> for Size {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        let expected = "a size like \"64KiB\", \"10MiB\" or \"1GiB\"";
        read(&text, SIZES).map(Self).ok_or(QuantityError { found: text, expected })
    }
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that leaves a whole number.
fn write(out: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
    let (unit, factor) =
        units.iter().find(fits).unwrap_or_else(|| units.last().expect("each list has a smallest"));
    write!(out, "{}{unit}", value / factor)
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(out, self.as_millis(), PERIODS)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(out, self.0, SIZES)
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn period(text: &str) -> Option<u64> {
        Period::try_from(text.to_owned()).ok().map(Period::as_millis)
    }

    #[test]
    fn a_quantity_is_a_whole_number_and_a_unit() {
        assert_eq!(period("100ms"), Some(100));
        assert_eq!(period("5m"), Some(300_000));
        assert_eq!(period("1d"), Some(86_400_000));
        for bad in ["", "s", "10", "0s", "-1s", "1.5s", "1 s", "1M", "367d", "18446744073709551615m"] {
            assert_eq!(period(bad), None, "{bad}");
        }
        assert_eq!(Size::try_from("10MiB".to_owned()).unwrap().bytes(), 10 << 20);
        for bad in ["", "10", "10MB", "1.5MiB", "99999999999GiB"] {
            assert!(Size::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(millis in 1..=LONGEST, bytes: u64) {
            let period = Period::millis(millis);
            prop_assert_eq!(Period::try_from(period.to_string()), Ok(period));
            prop_assert_eq!(Size::try_from(Size(bytes).to_string()), Ok(Size(bytes)));
        }
    }
}
