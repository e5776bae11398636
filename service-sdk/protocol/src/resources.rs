//! What a service may use: limits, and how each is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ServiceName;

/// What can be limited. `as_str` is its name on the command line, in settings and in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// Processor time, in thousandths of one processor: 1500 is one and a half.
    Cpu,
    /// The share of processor time among services that want more than there is: 1 to 10000, 100 when nobody says.
    CpuWeight,
    /// Bytes above which memory is taken back, and who asks for more is slowed down.
    MemoryHigh,
    /// Bytes that are never passed: the kernel ends a process of the service instead.
    MemoryMax,
    /// The share of the disks among services that want more than there is: 1 to 10000, 100 when nobody says.
    IoWeight,
    /// Processes and threads.
    TasksMax,
    /// Descriptors of each process.
    Nofile,
}

/// What no resource that a service declares can be called: the machine's own, that are guaranteed under these names.
pub const RESERVED_RESOURCES: [&str; 2] = ["cpu", "memory"];

/// The least processor time that can be a limit: a hundredth of a processor, as the kernel has it.
const LEAST_CPU: u64 = 10;

/// A mebibyte: with less no program starts.
const LEAST_MEMORY: u64 = 1 << 20;

impl LimitKey {
    /// All there are, in the order they are shown.
    pub const ALL: [Self; 7] = [
        Self::Cpu,
        Self::CpuWeight,
        Self::MemoryHigh,
        Self::MemoryMax,
        Self::IoWeight,
        Self::TasksMax,
        Self::Nofile,
    ];

    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuWeight => "cpu_weight",
            Self::MemoryHigh => "memory_high",
            Self::MemoryMax => "memory_max",
            Self::IoWeight => "io_weight",
            Self::TasksMax => "tasks_max",
            Self::Nofile => "nofile",
        }
    }

    /// What a value of it looks like, for errors.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Cpu => "a share of one processor like \"50%\" or \"150%\", at least 1%",
            Self::CpuWeight | Self::IoWeight => "a number from 1 to 10000 (100 when nobody says)",
            Self::MemoryHigh | Self::MemoryMax => "a size like \"64MiB\" or \"2GiB\", at least 1MiB",
            Self::TasksMax => "a number of processes and threads, at least 1",
            Self::Nofile => "a number of descriptors, at least 16",
        }
    }

    /// A value as people write it, in the unit of [`Limits`].
    ///
    /// # Errors
    /// [`BadLimit`] when it is none, or out of range.
    pub fn parse(self, text: &str) -> Result<u64, BadLimit> {
        let value = match self {
            Self::Cpu => percent(text),
            Self::MemoryHigh | Self::MemoryMax => size(text),
            Self::CpuWeight | Self::IoWeight | Self::TasksMax | Self::Nofile => text.parse().ok(),
        };
        let value = value.ok_or_else(|| BadLimit { key: self, found: format!("{text:?}") })?;
        self.check(value).map(|()| value).map_err(|_| BadLimit { key: self, found: format!("{text:?}") })
    }

    /// Whether it is in range.
    ///
    /// # Errors
    /// [`BadLimit`] when it is not.
    pub fn check(self, value: u64) -> Result<(), BadLimit> {
        let range = match self {
            // A million processors, and what a file size can be.
            Self::Cpu => LEAST_CPU..=1_000_000_000,
            Self::MemoryHigh | Self::MemoryMax => LEAST_MEMORY..=i64::MAX as u64,
            Self::CpuWeight | Self::IoWeight => 1..=10_000,
            // The kernel's own bounds: PID_MAX_LIMIT, and the largest table of descriptors.
            Self::TasksMax => 1..=4_194_304,
            Self::Nofile => 16..=1_073_741_816,
        };
        match range.contains(&value) {
            true => Ok(()),
            false => Err(BadLimit { key: self, found: self.show(value) }),
        }
    }

    /// A value as people read it, and [`parse`](Self::parse) takes it.
    pub fn show(self, value: u64) -> String {
        match self {
            Self::Cpu if value.is_multiple_of(10) => format!("{}%", value / 10),
            Self::Cpu => format!("{}.{}%", value / 10, value % 10),
            Self::MemoryHigh | Self::MemoryMax => shown_size(value),
            Self::CpuWeight | Self::IoWeight | Self::TasksMax | Self::Nofile => value.to_string(),
        }
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A value that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {found}, expected {}", .key.expected())]
pub struct BadLimit {
    /// Of what.
    pub key: LimitKey,
    /// As written.
    pub found: String,
}

/// The limits of one service. What is not there is not limited by us.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limits(pub BTreeMap<LimitKey, u64>);

impl Limits {
    /// One of them.
    pub fn get(&self, key: LimitKey) -> Option<u64> {
        self.0.get(&key).copied()
    }

    /// Sets one, or takes it away.
    pub fn set(&mut self, key: LimitKey, value: Option<u64>) {
        match value {
            Some(value) => self.0.insert(key, value),
            None => self.0.remove(&key),
        };
    }

    /// Nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(out, "{blank}{key}={}", key.show(*value))?;
        }
        Ok(())
    }
}

/// A new value of one limit; `None` takes it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitChange {
    /// Which.
    pub key: LimitKey,
    /// In the unit of [`Limits`].
    pub value: Option<u64>,
}

/// How far this machine, and the rights we have on it, carry a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// As it is described.
    Full,
    /// Less than that, and in which way.
    Weaker(String),
    /// Not at all, and why.
    Refused(String),
}

/// Who may use how much, and what of that is in force: what `watchdog limits` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsView {
    /// What limits are made of here: `cgroup-v2`, `cgroup-v1` or `none`.
    pub back_end: String,
    /// How far each kind carries.
    pub support: BTreeMap<LimitKey, Support>,
    /// How far freezing carries.
    pub freeze: Support,
    /// Processors of the machine.
    pub processors: u32,
    /// Processor time there is to give, in thousandths of a processor: of all processors, or less where a cgroup around
    /// the watchdog has a limit.
    pub cpu: u64,
    /// Memory there is to give, in bytes: that of the machine, or less in the same way.
    pub memory: u64,
    /// By name.
    pub services: Vec<ServiceLimits>,
}

/// The limits of one service, and how it stands to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLimits {
    /// Whose.
    pub service: ServiceName,
    /// What is asked for.
    pub limits: Limits,
    /// What of it is not in force for its present process, and why.
    pub not_in_force: BTreeMap<LimitKey, String>,
    /// Its processes are frozen.
    pub is_frozen: bool,
    /// What it declares that can be lent, by name: how many tokens of each there are.
    pub resources: BTreeMap<String, u32>,
}

/// `50%`, `12.5%`, in thousandths.
fn percent(text: &str) -> Option<u64> {
    let number = text.strip_suffix('%')?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(tenth) || tenth.len() != 1 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(10)?.checked_add(tenth.parse().ok()?)
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &text[end..])?;
    text[..end].parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that takes it whole.
fn shown_size(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
    let (unit, factor) = whole.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_taken_again() {
        for (key, text, value) in [
            (LimitKey::Cpu, "150%", 1500),
            (LimitKey::Cpu, "12.5%", 125),
            (LimitKey::CpuWeight, "10000", 10_000),
            (LimitKey::MemoryHigh, "1536MiB", 1536 << 20),
            (LimitKey::MemoryMax, "2GiB", 2 << 30),
            (LimitKey::MemoryMax, "1048577B", (1 << 20) + 1),
            (LimitKey::IoWeight, "1", 1),
            (LimitKey::TasksMax, "64", 64),
            (LimitKey::Nofile, "1024", 1024),
        ] {
            assert_eq!(key.parse(text), Ok(value), "{text}");
            assert_eq!(key.show(value), text);
        }
    }

    #[test]
    fn what_is_no_limit_is_named_with_what_would_be() {
        for (key, text) in [
            (LimitKey::Cpu, "150"),
            (LimitKey::Cpu, "0%"),
            (LimitKey::Cpu, "1.25%"),
            (LimitKey::Cpu, "-1%"),
            (LimitKey::Cpu, "99999999999999999999%"),
            (LimitKey::CpuWeight, "0"),
            (LimitKey::CpuWeight, "10001"),
            (LimitKey::MemoryMax, "1KiB"),
            (LimitKey::MemoryMax, "1 GiB"),
            (LimitKey::MemoryHigh, "99999999999TiB"),
            (LimitKey::TasksMax, "many"),
            (LimitKey::Nofile, "2"),
        ] {
            let wrong = key.parse(text).unwrap_err().to_string();
            assert_eq!(wrong, format!("{key} = {text:?}, expected {}", key.expected()));
        }
    }

    #[test]
    fn limits_are_a_table_with_keys_in_json() {
        let mut limits = Limits::default();
        limits.set(LimitKey::MemoryMax, Some(1 << 30));
        limits.set(LimitKey::Cpu, Some(500));
        limits.set(LimitKey::Nofile, Some(64));
        limits.set(LimitKey::Nofile, None);
        assert_eq!(limits.to_string(), "cpu=50% memory_max=1GiB");
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(json, r#"{"cpu":500,"memory_max":1073741824}"#);
        assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
        let bytes = postcard::to_stdvec(&limits).unwrap();
        assert_eq!(postcard::from_bytes::<Limits>(&bytes).unwrap(), limits);
    }
}
