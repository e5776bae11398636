//! Descriptors that were inherited under a number told by the environment.
#![expect(unsafe_code, reason = "removing the variable, and taking over a number")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::socket::{AdoptError, Seqpacket, check};

/// Why there is no inherited socket.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// Nobody told a number: this process was not started by the watchdog, or it was taken before.
    #[error("{variable} is not set")]
    NotSet {
        /// The variable asked for.
        variable: String,
    },
    /// What is told is no number of a descriptor.
    #[error("{variable} is {value:?}, not the number of a descriptor above 2")]
    NoNumber {
        /// The variable asked for.
        variable: String,
        /// What it holds.
        value: String,
    },
    /// Other threads run, and might read the environment while it is changed.
    #[error("{variable} must be taken before the first thread is started, {threads} run")]
    Threads {
        /// The variable asked for.
        variable: String,
        /// How many there are.
        threads: usize,
    },
    /// How many threads run can't be told.
    #[error("cannot count the threads of this process in /proc/self/task")]
    Count(#[source] io::Error),
    /// The number does not name a seqpacket socket.
    #[error("{variable} names no socket to speak through")]
    Socket {
        /// The variable asked for.
        variable: String,
        /// What it is instead; `EBADF` when it is not open.
        source: AdoptError,
    },
    /// The number does not name an open descriptor.
    #[error("{variable} names no open descriptor")]
    Closed {
        /// The variable asked for.
        variable: String,
        /// Of `fcntl`.
        source: io::Error,
    },
    /// It could not be kept from programs this process starts.
    #[error("cannot set close-on-exec on descriptor {descriptor}")]
    CloseOnExec {
        /// Its number.
        descriptor: RawFd,
        /// Of `fcntl`.
        source: io::Error,
    },
}

/// Takes the seqpacket socket whose number `variable` holds: sets close-on-exec, so that no program started
/// from here inherits it, and removes the variable, so that it is taken once.
///
/// To be called before the process starts its first thread and opens its first file; threads are counted,
/// because the environment may not be changed beside them.
///
/// # Errors
/// [`InheritedError`]; the variable stays as it is.
pub fn inherited(variable: &str) -> Result<Seqpacket, InheritedError> {
    let refused = |source| InheritedError::Socket { variable: variable.to_owned(), source };
    let descriptor = take(variable, |descriptor| check(descriptor).map_err(refused))?;
    Seqpacket::from_fd(descriptor).map_err(refused)
}

/// As [`inherited`], whatever it is a descriptor of.
///
/// # Errors
/// [`InheritedError`], [`Closed`](InheritedError::Closed) when it is of nothing; the variable stays as it is.
pub fn inherited_descriptor(variable: &str) -> Result<OwnedFd, InheritedError> {
    take(variable, |descriptor| match fcntl(descriptor, FcntlArg::F_GETFD) {
        Ok(_) => Ok(()),
        Err(errno) => Err(InheritedError::Closed { variable: variable.to_owned(), source: errno.into() }),
    })
}

/// Takes the descriptor over, if `is_it` finds no fault with it.
fn take(
    variable: &str,
    is_it: impl FnOnce(BorrowedFd<'_>) -> Result<(), InheritedError>,
) -> Result<OwnedFd, InheritedError> {
    let Some(value) = std::env::var_os(variable) else {
        return Err(InheritedError::NotSet { variable: variable.to_owned() });
    };
    let threads = std::fs::read_dir("/proc/self/task").map_err(InheritedError::Count)?.count();
    if threads != 1 {
        return Err(InheritedError::Threads { variable: variable.to_owned(), threads });
    }
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 2);
    let Some(number) = number else {
        let value = value.to_string_lossy().into_owned();
        return Err(InheritedError::NoNumber { variable: variable.to_owned(), value });
    };
    // SAFETY: not -1. Whether it is open is what is asked through it; nobody can close it in between, for this
    // is the only thread.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    is_it(descriptor)?;
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|errno| InheritedError::CloseOnExec { descriptor: number, source: errno.into() })?;
    // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(variable) };
    // SAFETY: open, as was just asked, and handed to this process for whoever reads the variable, which is gone
    // now: nobody else takes it over.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
