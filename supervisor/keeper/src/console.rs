//! The keeper's own words: a line on standard error, for there is no core to log it.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes one line, or nothing: a terminal that was stopped or a pipe nobody reads must not stop the keeper.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let stderr = io::stderr();
    if is_writable(&stderr) {
        let _ = writeln!(stderr.lock(), "watchdog keeper: {line}");
    }
}

/// Writes what a core had said, as it is: at most a pipe's page, which fits where a line fits.
pub(crate) fn say_words(words: &[u8]) {
    let stderr = io::stderr();
    if !words.is_empty() && is_writable(&stderr) {
        let _ = stderr.lock().write_all(words);
    }
}

fn is_writable(stderr: &io::Stderr) -> bool {
    poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(1)
}
