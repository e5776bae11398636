//! The keeper's own words: a line on standard error, for there is no core to log it.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes one line, or nothing: a terminal that was stopped or a pipe nobody reads must not stop the keeper.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let stderr = io::stderr();
    let ready = poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO);
    if ready == Ok(1) {
        let _ = writeln!(stderr.lock(), "watchdog keeper: {line}");
    }
}
