//! Socket options that nix has no type for: all of them one `int` at `SOL_SOCKET`.
#![expect(unsafe_code, reason = "getsockopt and setsockopt")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_int;

pub(crate) fn set(socket: BorrowedFd<'_>, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed; the kernel reads one int behind the pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn get(socket: BorrowedFd<'_>, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes, one int.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Instructions of the socket's filter; 0: none.
///
/// # Errors
/// `PermissionDenied`: there is one that can't be read (eBPF).
pub(crate) fn filter_length(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut length: libc::socklen_t = 0;
    // SAFETY: the descriptor is open while it is borrowed; with a length of 0 the kernel only counts and
    // writes nothing but the length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that are charged to the sender and not yet read by the peer (`SIOCOUTQ`), as the kernel counts them.
pub(crate) fn bytes_out(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue(socket, libc::TIOCOUTQ)
}

/// Payload bytes queued to be read (`SIOCINQ`).
pub(crate) fn bytes_in(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue(socket, libc::FIONREAD)
}

fn queue(socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed; both requests write one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if result == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}
