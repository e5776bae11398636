//! Names of files: `counter.jsonl`, and of an older one `counter.jsonl.2026-11-30T041500.123Z`, compressed with `.gz`
//! behind it. The point in time is when it was rotated: it never changes, and names sort by it.

use jiff::Timestamp;
use watchdog_service::ServiceName;

use crate::format::stamp;
use crate::settings::SERVICE;

/// Behind the name of a compressed file.
pub(super) const PACKED: &str = ".gz";

/// Behind the name of one that is being compressed.
pub(super) const UNFINISHED: &str = ".gz.part";

/// Characters of a point in time.
const STAMP: usize = "2026-11-30T041500.123Z".len();

/// How the files of an output are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Naming {
    /// One file for all services.
    Shared(String),
    /// One a service: before its name, and behind.
    PerService(String, String),
}

/// What a name is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'n> {
    /// The file that is written.
    Current,
    /// An older one of it.
    Old { current: &'n str, stamp: u64, is_packed: bool },
    /// What a killed process has left of compressing.
    Unfinished,
}

impl Naming {
    pub(super) fn new(template: &str) -> Self {
        match template.split_once(SERVICE) {
            Some((before, behind)) => Self::PerService(before.to_owned(), behind.to_owned()),
            None => Self::Shared(template.to_owned()),
        }
    }

    /// The file that a service is written to.
    pub(super) fn current(&self, service: &str) -> String {
        match self {
            Self::Shared(name) => name.clone(),
            Self::PerService(before, behind) => format!("{before}{service}{behind}"),
        }
    }

    /// What a name in the folder is; `None`: none of ours.
    pub(super) fn kind<'n>(&self, name: &'n str) -> Option<Kind<'n>> {
        if self.is_current(name) {
            return Some(Kind::Current);
        }
        let (rest, is_packed, is_unfinished) =
            match (name.strip_suffix(PACKED), name.strip_suffix(UNFINISHED)) {
                (Some(rest), _) => (rest, true, false),
                (None, Some(rest)) => (rest, true, true),
                (None, None) => (name, false, false),
            };
        let at = rest.len().checked_sub(STAMP + 1).filter(|at| rest.is_char_boundary(*at))?;
        let (current, stamp) = rest.split_at(at);
        let stamp = read_stamp(stamp.strip_prefix('.')?)?;
        if !self.is_current(current) {
            return None;
        }
        Some(if is_unfinished { Kind::Unfinished } else { Kind::Old { current, stamp, is_packed } })
    }

    fn is_current(&self, name: &str) -> bool {
        match self {
            Self::Shared(only) => name == only,
            Self::PerService(before, behind) => name
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(behind.as_str()))
                .is_some_and(|service| service.parse::<ServiceName>().is_ok()),
        }
    }
}

/// The name of a file that is written no more.
pub(super) fn old(current: &str, millis: u64) -> String {
    format!("{current}.{}", stamp(millis))
}

/// Milliseconds since 1970.
fn read_stamp(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let parts = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    let at: Timestamp = format!("{date}T{}:{}:{}", parts.0, parts.1, parts.2).parse().ok()?;
    let millis = u64::try_from(at.as_millisecond()).ok()?;
    // One way to write it.
    (stamp(millis) == text).then_some(millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_says_what_a_file_is() {
        let naming = Naming::new("r-{service}.jsonl");
        let (old, packed) = ("r-a@2.jsonl.2026-11-30T041500.123Z", "r-a@2.jsonl.2026-11-30T041500.123Z.gz");
        let stamp = 1_796_012_100_123;
        assert_eq!(naming.kind("r-a@2.jsonl"), Some(Kind::Current));
        let kind = |is_packed| Some(Kind::Old { current: "r-a@2.jsonl", stamp, is_packed });
        assert_eq!(naming.kind(old), kind(false));
        assert_eq!(naming.kind(packed), kind(true));
        assert_eq!(naming.kind(&format!("{packed}.part")), Some(Kind::Unfinished));
        for none in [
            "a.jsonl",
            "r-.jsonl",
            "r-A.jsonl",
            "r-a.jsonl.bak",
            "r-a.jsonl.2026-11-30T041500.123Z.bz2",
            "r-a.jsonl.2026-13-30T041500.123Z",
            "x.2026-11-30T041500.123Z",
            "",
        ] {
            assert_eq!(naming.kind(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn an_older_file_is_known_by_its_name(millis in 0u64..4_000_000_000_000, shared: bool) {
            let naming = Naming::new(if shared { "all.log" } else { "{service}.log" });
            let current = naming.current("counter");
            let name = old(&current, millis);
            prop_assert_eq!(
                naming.kind(&name),
                Some(Kind::Old { current: &current, stamp: millis, is_packed: false })
            );
        }
    }
}
