//! One packet through `sendmsg` and `recvmsg`, descriptors included.
#![expect(unsafe_code, reason = "sendmsg, recvmsg, and taking over the descriptors they deliver")]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;

/// Descriptors in one packet, at most: the kernel's `SCM_MAX_FD`.
pub const MAX_DESCRIPTORS: usize = 253;

/// What was at the head of a socket's queue.
#[derive(Debug)]
pub enum Received {
    /// A whole packet.
    Packet(Packet),
    /// A packet longer than the buffer: the peer broke the protocol.
    Oversize {
        /// Its real length, in bytes.
        length: usize,
    },
    /// A packet with more descriptors than were wanted: the peer broke the protocol. None is kept.
    TooManyDescriptors,
    /// A packet of no bytes, which no honest peer sends: the peer broke the protocol.
    Empty,
    /// All is read and the peer has closed its end.
    End,
}

/// A whole packet; its bytes are in the buffer that was handed in.
#[derive(Debug)]
pub struct Packet {
    /// Bytes in the buffer, at least 1.
    pub length: usize,
    /// What came beside them, close-on-exec, in the sender's order.
    pub descriptors: Vec<OwnedFd>,
}

/// Room for one `SCM_RIGHTS` message, as the kernel lays it out.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptors: [RawFd; MAX_DESCRIPTORS],
}

impl Control {
    /// The length that lets exactly `count` descriptors in. `CMSG_SPACE` rounds up, and so lets two in for one.
    const fn length(count: usize) -> usize {
        size_of::<libc::cmsghdr>() + count * size_of::<RawFd>()
    }

    fn empty() -> Self {
        // SAFETY: all of it is integers, for which zero is a value.
        unsafe { std::mem::zeroed() }
    }
}

// The struct above is right where the data follow the header at once.
// SAFETY: CMSG_LEN only computes.
const _: () = assert!(unsafe { libc::CMSG_LEN(0) } as usize == size_of::<libc::cmsghdr>());

fn header() -> libc::msghdr {
    // SAFETY: integers and pointers, for which zero is a value; some targets have private padding.
    unsafe { std::mem::zeroed() }
}

/// Sends one packet, without waiting.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if parts.iter().all(|part| part.is_empty()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty packet would read like the end"));
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut message = header();
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    if descriptors.is_empty() {
        return send_message(socket, &message);
    }
    let mut control = Control::empty();
    control.header.cmsg_len = Control::length(descriptors.len()) as _;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    for (slot, descriptor) in control.descriptors.iter_mut().zip(descriptors) {
        *slot = descriptor.as_raw_fd();
    }
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = Control::length(descriptors.len()) as _;
    send_message(socket, &message)
}

/// Whether this end may still send: [`send`]'s errors without a packet.
///
/// The kernel looks at shutdown, then at room, then copies: a packet that can't be copied says `EFAULT` exactly
/// when a good one would have gone.
pub(crate) fn probe_send(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut nowhere = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    let mut message = header();
    message.msg_iov = &raw mut nowhere;
    message.msg_iovlen = 1;
    match send_message(socket, &message) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        result => result,
    }
}

fn send_message(socket: BorrowedFd<'_>, message: &libc::msghdr) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open while it is borrowed; the callers' parts and control buffer outlive
        // the call, and IoSlice is an iovec by its documentation. A null part is refused by the kernel.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(()); // a packet goes whole or not at all
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // ECONNRESET is reported once, then the lasting answer: EPIPE.
            Some(libc::EINTR | libc::ECONNRESET) => {}
            _ => return Err(error),
        }
    }
}

/// What is left in the queue after a [`receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// The packet stays at the head.
    Peek,
    /// The packet is gone.
    Consume,
}

/// The kernel's account of one packet.
#[derive(Debug)]
pub(crate) struct Raw {
    /// The packet's own length, also where the buffer is shorter.
    pub(crate) length: usize,
    /// At most as many as were wanted.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// There was more beside it than came in.
    pub(crate) control_cut: bool,
}

/// Reads the packet at the head, without waiting, with room for exactly `wanted` descriptors.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    wanted: usize,
    take: Take,
) -> io::Result<Raw> {
    if wanted == 0 {
        // Without a control buffer: the kernel installs no descriptor, and a consumed one is closed by it.
        let mut message = header();
        let length = receive_message(socket, buffer, &mut message, take)?;
        let control_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
        return Ok(Raw { length, descriptors: Vec::new(), control_cut });
    }
    let mut control = Control::empty();
    let mut message = header();
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = Control::length(wanted) as _;
    let length = receive_message(socket, buffer, &mut message, take)?;
    let control_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    // SAFETY: `message` is as the kernel left it and `control` is still there.
    let descriptors = unsafe { adopt(&message) };
    Ok(Raw { length, descriptors, control_cut })
}

/// Takes over every descriptor the kernel installed for a message.
///
/// # Safety
/// `message` must be as `recvmsg` returned it, its control buffer alive, and be adopted once.
unsafe fn adopt(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: by contract the control buffer holds what the kernel wrote, and the macros stay within
    // `msg_controllen`. The descriptors were installed for this call, so nobody else owns them; the data of a
    // header are ints, though not aligned by any promise.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - Control::length(0);
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    descriptors
}

fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    message: &mut libc::msghdr,
    take: Take,
) -> io::Result<usize> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let peek: c_int = match take {
        Take::Peek => libc::MSG_PEEK,
        Take::Consume => 0,
    };
    // MSG_TRUNC as an argument: the result is the packet's length, not the buffer's.
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC | peek;
    let result = loop {
        // SAFETY: the descriptor is open while it is borrowed; `part` covers `buffer`, which is borrowed
        // mutably, and the caller's control buffer is as long as `msg_controllen` says.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), message, flags) };
        if received >= 0 {
            break Ok(received as usize);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // ECONNRESET says once that the peer left something unread; what it sent before is still queued.
            Some(libc::EINTR | libc::ECONNRESET) => {}
            _ => break Err(error),
        }
    };
    message.msg_iov = std::ptr::null_mut();
    message.msg_iovlen = 0;
    result
}
