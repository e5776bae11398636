//! What a core writes to standard error before it is ready: kept, so that its end can be explained.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::descriptors::above_window;
use crate::protocol::MAX_LAST_WORDS;

/// What fits; more is refused to the writer. A start says a few lines, and memory must not grow by a core that does
/// nothing but complain.
const ROOM: u64 = 64 * 1024;

/// Memory that stands for standard error.
#[derive(Debug)]
pub(crate) struct LastWords(File);

impl LastWords {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(above_window(memfd_create(c"watchdog-last-words", flags)?)?);
        file.set_len(ROOM)?;
        let size = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
        fcntl(&file, FcntlArg::F_ADD_SEALS(size | SealFlag::F_SEAL_SEAL))?;
        Ok(Self(file))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The end of what was written: at most [`MAX_LAST_WORDS`] bytes, and only whole lines when some are cut off.
    pub(crate) fn read(&self) -> Vec<u8> {
        // The writers have the same open description, so its position is the end of what they wrote.
        let end = (&self.0).stream_position().unwrap_or(0).min(ROOM);
        let begin = end.saturating_sub(MAX_LAST_WORDS as u64);
        let mut words = vec![0; (end - begin) as usize];
        if self.0.read_exact_at(&mut words, begin).is_err() {
            return Vec::new();
        }
        match words.iter().position(|byte| *byte == b'\n') {
            Some(line) if begin > 0 => words.split_off(line + 1),
            _ => words,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_whole_lines_are_kept() {
        let words = LastWords::new().unwrap();
        assert!(words.read().is_empty());
        let mut writer = File::from(words.as_fd().try_clone_to_owned().unwrap());
        writer.write_all(b"one\ntwo").unwrap();
        assert_eq!(words.read(), b"one\ntwo");
        for line in 0..1000 {
            writeln!(writer, "line {line}").unwrap();
        }
        let kept = String::from_utf8(words.read()).unwrap();
        assert!(kept.starts_with("line ") && kept.ends_with("\nline 999\n"), "{kept}");
        assert!((3000..=MAX_LAST_WORDS).contains(&kept.len()));
    }

    #[test]
    fn a_writer_without_end_does_not_grow_it() {
        let words = LastWords::new().unwrap();
        let mut writer = File::from(words.as_fd().try_clone_to_owned().unwrap());
        while writer.write_all(&[b'x'; 4096]).is_ok() {}
        assert_eq!(writer.metadata().unwrap().len(), ROOM);
        assert_eq!(words.read().len(), MAX_LAST_WORDS);
    }
}
