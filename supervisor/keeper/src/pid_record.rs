//! Which process a pid names, beyond its number: pids are used again, a start time is not.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use watchdog_protocol::Incarnation;

/// What a child writes of itself before exec, at the start of the file attached for it.
///
/// 24 bytes, three little-endian u64: incarnation, pid, start time. Valid within one boot only; who owns the file
/// keeps the boot id beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidRecord {
    /// Which process of the service.
    pub incarnation: Incarnation,
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_time: u64,
}

impl PidRecord {
    /// Length of the record in bytes.
    pub const LENGTH: usize = 24;

    /// As written.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.incarnation.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::from(self.pid).to_le_bytes());
        bytes[16..].copy_from_slice(&self.start_time.to_le_bytes());
        bytes
    }

    /// What a child left in its file; `None` when it is no whole record.
    ///
    /// # Errors
    /// Opening or reading the file.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        // As many are read as there are services, before anything starts: one call each.
        let mut bytes = [0; Self::LENGTH];
        let length = File::open(path)?.read(&mut bytes)?;
        Ok(Self::from_bytes(&bytes[..length]))
    }

    /// From what was written; `None` when it is no whole record.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (incarnation, pid, start_time) = (word(0)?, word(8)?, word(16)?);
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
        Some(Self { incarnation: Incarnation::from_stored(incarnation), pid, start_time })
    }
}

/// When a process started, in clock ticks since boot. `NotFound` when there is none of this pid; a zombie still
/// has one.
pub fn start_time(pid: u32) -> io::Result<u64> {
    // One read gives the whole line, some 300 bytes; a start waits for it.
    let mut stat = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut stat)?;
    parse_start_time(&stat[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The 22nd field. The second, the program's name, may hold anything, so fields are counted after its last `)`.
///
/// Allocates nothing and can't panic: a child runs it between clone and exec.
pub(crate) fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let field =
        stat.get(name_end + 1..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(19)?;
    field.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_name_that_looks_like_fields() {
        let stat = b"12 (a) b 3) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(parse_start_time(stat), Some(98765));
        assert_eq!(parse_start_time(b"12 (a) S 1"), None);
        assert_eq!(parse_start_time(b""), None);
    }

    #[test]
    fn a_process_has_one_start_time() {
        let own = start_time(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(own, start_time(std::process::id()).unwrap());
    }

    #[test]
    fn a_record_comes_back_and_a_torn_one_does_not() {
        let record = PidRecord { incarnation: Incarnation::from_stored(3), pid: 77, start_time: 1234 };
        assert_eq!(PidRecord::from_bytes(&record.to_bytes()), Some(record));
        assert_eq!(PidRecord::from_bytes(&record.to_bytes()[..23]), None);
        assert_eq!(PidRecord::from_bytes(&[0; 24]), None);
    }
}
