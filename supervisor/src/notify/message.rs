//! What a datagram says: lines `NAME=VALUE`. Names that are not known here are for somebody else and no mistake.

use std::fmt;
use std::time::Duration;

/// One line that is heeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// `READY=1`: it is ready, or done with a reload.
    Ready,
    /// `RELOADING=1`: it reads its configuration anew.
    Reloading,
    /// `STOPPING=1`: it ends by itself.
    Stopping,
    /// `STATUS=…`: for people.
    Status(String),
    /// `WATCHDOG=1`: a sign of life.
    Alive,
    /// `WATCHDOG=trigger`: it asks to be taken for hung.
    CalledHung,
    /// `EXTEND_TIMEOUT_USEC=…`: a start or stop takes at least so much longer.
    NeedsTime(Duration),
    /// `MAINPID=…`: which of its processes is the one that counts.
    MainPid(u32),
}

/// A line that is none of these, and whose name is one of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    line: String,
    expected: &'static str,
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}, expected {}", self.line, self.expected)
    }
}

/// Reads a datagram, line by line.
pub(crate) fn parse(text: &[u8]) -> Vec<Result<Notice, Wrong>> {
    let text = String::from_utf8_lossy(text);
    text.split('\n').filter_map(|line| line_of(line).transpose()).collect()
}

fn line_of(line: &str) -> Result<Option<Notice>, Wrong> {
    let wrong = |expected| Wrong { line: line.to_owned(), expected };
    let Some((name, value)) = line.split_once('=') else { return Ok(None) };
    let only_one = |notice| if value == "1" { Ok(notice) } else { Err(wrong("1")) };
    Ok(Some(match name {
        "READY" => only_one(Notice::Ready)?,
        "RELOADING" => only_one(Notice::Reloading)?,
        "STOPPING" => only_one(Notice::Stopping)?,
        "STATUS" => Notice::Status(value.to_owned()),
        "WATCHDOG" => match value {
            "1" => Notice::Alive,
            "trigger" => Notice::CalledHung,
            _ => return Err(wrong("1 or trigger")),
        },
        "EXTEND_TIMEOUT_USEC" => {
            let micros = value.parse().map_err(|_| wrong("microseconds"))?;
            Notice::NeedsTime(Duration::from_micros(micros))
        }
        "MAINPID" => {
            let pid = value.parse().ok().filter(|pid| *pid != 0);
            Notice::MainPid(pid.ok_or_else(|| wrong("the number of a process"))?)
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_lines_are_read_in_their_order_and_others_are_left() {
        let said = parse(b"READY=1\nSTATUS=42 clients = many\nX_MINE=1\nMAINPID=7\nno line\nWATCHDOG=1\n");
        let read: Result<Vec<_>, _> = said.into_iter().collect();
        let status = Notice::Status("42 clients = many".into());
        assert_eq!(read.unwrap(), [Notice::Ready, status, Notice::MainPid(7), Notice::Alive]);
    }

    #[test]
    fn a_wrong_value_is_named_and_the_rest_still_counts() {
        let said = parse(b"EXTEND_TIMEOUT_USEC=soon\nSTOPPING=1\nREADY=yes\nMAINPID=0\nWATCHDOG=maybe");
        let words: Vec<_> = said.iter().map(|line| line.as_ref().map_err(ToString::to_string)).collect();
        let wrong = |line: &str, expected| Err(format!("{line:?}, expected {expected}"));
        assert_eq!(
            words,
            [
                wrong("EXTEND_TIMEOUT_USEC=soon", "microseconds"),
                Ok(&Notice::Stopping),
                wrong("READY=yes", "1"),
                wrong("MAINPID=0", "the number of a process"),
                wrong("WATCHDOG=maybe", "1 or trigger"),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }
    }
}
