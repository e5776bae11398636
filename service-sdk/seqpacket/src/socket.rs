//! One end of a seqpacket pair.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair, sockopt};

use crate::message::{self, MAX_DESCRIPTORS, Packet, Received, Take};
use crate::option;

/// How often a send that waits for room tries again beside waiting for the socket to be writable.
///
/// The kernel says writable only when three quarters of the buffer are free: waiting for that alone would leave
/// most of a lane unused.
pub(crate) const RETRY: Duration = Duration::from_millis(5);

/// The peer has closed or shut down its sending; nix has no name for it.
pub(crate) const HUNG_UP: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// One end of a Unix `SOCK_SEQPACKET` pair: packets arrive whole or not at all, in order, with descriptors.
///
/// Dropping it closes this descriptor only; other holders of the same end keep it open.
#[derive(Debug)]
pub struct Seqpacket(OwnedFd);

/// Why a descriptor is no seqpacket socket.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is something else.
    #[error("descriptor {descriptor} is no Unix seqpacket socket")]
    OtherKind {
        /// Its number.
        descriptor: RawFd,
    },
    /// The kernel does not say.
    #[error("cannot ask what descriptor {descriptor} is")]
    Ask {
        /// Its number.
        descriptor: RawFd,
        /// Of `getsockopt`; `ENOTSOCK` when it is no socket at all.
        source: io::Error,
    },
}

/// Who made the pair, or connected, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its process, as seen from here; 0 when it is of another pid namespace.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Seqpacket {
    /// Two connected ends, close-on-exec and non-blocking.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM` of `socketpair`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(one), Self(other)))
    }

    /// Takes over a descriptor that came from elsewhere.
    ///
    /// # Errors
    /// [`AdoptError`] when it is anything but a Unix seqpacket socket; it is closed then.
    pub fn from_fd(descriptor: OwnedFd) -> Result<Self, AdoptError> {
        check(descriptor.as_fd())?;
        Ok(Self(descriptor))
    }

    /// A second descriptor of this same end, close-on-exec.
    ///
    /// # Errors
    /// `EMFILE` of `fcntl`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends all parts as one packet, with descriptors beside it. Never waits, never sends half.
    ///
    /// # Errors
    /// - `WouldBlock`: no room now.
    /// - `BrokenPipe`: the peer is gone for good.
    /// - `InvalidInput`: the packet is empty, or has more than [`MAX_DESCRIPTORS`](crate::MAX_DESCRIPTORS).
    /// - `EMSGSIZE`: it is longer than the send bound, or has more than 1,024 parts.
    /// - `ETOOMANYREFS`: too many descriptors are in flight for this user; a later try may pass.
    pub fn send(&self, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        message::send(self.as_fd(), parts, descriptors)
    }

    /// As [`send`](Self::send), but waits for room until `deadline`, with one last try at it.
    ///
    /// # Errors
    /// As [`send`](Self::send), with `TimedOut` in the place of `WouldBlock`.
    pub fn send_by(
        &self,
        parts: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> io::Result<()> {
        loop {
            let last = Instant::now() >= deadline;
            match self.send(parts, descriptors) {
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                    if last {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.wait(PollFlags::POLLOUT, deadline.min(Instant::now() + RETRY))?;
                }
                result => return result,
            }
        }
    }

    /// Takes the packet at the head, with up to `wanted` descriptors. Never waits.
    ///
    /// With `wanted` above 0 the packet is looked at before it is taken, so that a full descriptor table loses
    /// nothing: for that the socket must have no other reader.
    ///
    /// # Errors
    /// - `WouldBlock`: nothing is queued.
    /// - `EMFILE`: the descriptor table is full, the packet is still queued. Close something and call again.
    pub fn recv(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        if wanted == 0 {
            return self.receive(buffer, 0, Take::Consume);
        }
        let received = self.receive(buffer, wanted, Take::Peek)?;
        if !matches!(received, Received::End) {
            self.consume(&mut [])?;
        }
        Ok(received)
    }

    /// Takes the packet at the head in one call. Where the descriptor table is full it comes without its
    /// descriptors, which are lost; [`recv`](Self::recv) loses none, for another call.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is queued.
    pub fn take(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        let room = buffer.len();
        let raw = message::receive(self.as_fd(), buffer, wanted.min(MAX_DESCRIPTORS), Take::Consume)?;
        if raw.length > 0 && raw.length <= room && raw.control_cut && raw.descriptors.len() < wanted {
            return Ok(Received::Packet(Packet { length: raw.length, descriptors: Vec::new() }));
        }
        self.judge(raw, room, wanted)
    }

    /// As [`recv`](Self::recv), but waits for a packet, or the end, until `deadline`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), with `TimedOut` in the place of `WouldBlock`.
    pub fn recv_by(&self, buffer: &mut [u8], wanted: usize, deadline: Instant) -> io::Result<Received> {
        loop {
            match self.recv(buffer, wanted) {
                Err(none) if none.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::POLLIN, deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                result => return result,
            }
        }
    }

    /// Reads the packet at the head and leaves it there. Never waits.
    ///
    /// Each peek with `wanted` above 0 makes new descriptors for the same packet: ask for them once, and
    /// [`consume`](Self::consume) makes none. A packet that is no [`Received::Packet`] stays at the head too,
    /// until it is consumed.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn peek(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.receive(buffer, wanted, Take::Peek)
    }

    /// As [`peek`](Self::peek), of the packet behind the first ones, whose lengths add up to `offset` bytes.
    ///
    /// # Errors
    /// As there; `WouldBlock`: there is none behind them.
    pub fn peek_behind(&self, offset: usize, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        let offset = i32::try_from(offset).map_err(io::Error::other)?;
        option::set(self.as_fd(), libc::SO_PEEK_OFF, offset)?;
        let received = self.receive(buffer, wanted, Take::Peek);
        // Not left set: the next peek is at the head again, whoever makes it.
        option::set(self.as_fd(), libc::SO_PEEK_OFF, -1)?;
        received
    }

    /// Drops the packet at the head, whatever it is, and its descriptors. Returns how much of `head` was filled
    /// with its first bytes: whoever peeked compares them, for a difference is another reader of this end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is queued; after a peek that too means another reader.
    pub fn consume(&self, head: &mut [u8]) -> io::Result<usize> {
        let raw = message::receive(self.as_fd(), head, 0, Take::Consume)?;
        Ok(raw.length.min(head.len()))
    }

    /// Waits until something is queued or the peer is gone; `false` at the deadline.
    ///
    /// # Errors
    /// Of `poll`.
    pub fn wait_readable(&self, deadline: Instant) -> io::Result<bool> {
        self.wait(PollFlags::POLLIN, deadline)
    }

    /// Lets nobody send through this end any more, whatever descriptor of it they have. What was sent is still to be
    /// read, and then the peer reads the end; what the peer sends still arrives here.
    ///
    /// # Errors
    /// Of `shutdown`.
    pub fn shut_sending(&self) -> io::Result<()> {
        Ok(shutdown(self.0.as_raw_fd(), Shutdown::Write)?)
    }

    /// Bytes this end has sent and the peer has not read, as the kernel charges them: about 768 a packet beside
    /// the payload.
    ///
    /// # Errors
    /// Of `ioctl`.
    pub fn outstanding(&self) -> io::Result<usize> {
        option::bytes_out(self.as_fd())
    }

    /// Bounds what this end may have outstanding, in bytes as the kernel charges them, and returns what the
    /// kernel made of it: at least 4,608, and without `CAP_NET_ADMIN` at most twice `net.core.wmem_max`.
    ///
    /// A packet goes while less than the bound is outstanding, so the last one may pass over it. A packet longer
    /// than the bound less 32 never goes.
    ///
    /// # Errors
    /// Of `setsockopt`.
    pub fn set_send_bound(&self, bytes: usize) -> io::Result<usize> {
        // The kernel doubles what it is given, for its own overhead.
        let half = bytes / 2;
        let forced = nix::sys::socket::setsockopt(&self.0, sockopt::SndBufForce, &half);
        if forced == Err(Errno::EPERM) {
            nix::sys::socket::setsockopt(&self.0, sockopt::SndBuf, &half)?;
        } else {
            forced?;
        }
        self.send_bound()
    }

    /// The bound in force, in bytes as the kernel charges them.
    ///
    /// # Errors
    /// Of `getsockopt`.
    pub fn send_bound(&self) -> io::Result<usize> {
        Ok(nix::sys::socket::getsockopt(&self.0, sockopt::SndBuf)?)
    }

    /// Who made the pair. For a pair that was handed on, that is its maker, not the present holder.
    ///
    /// # Errors
    /// Of `getsockopt`.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let peer = nix::sys::socket::getsockopt(&self.0, sockopt::PeerCredentials)?;
        Ok(PeerCredentials { pid: peer.pid().try_into().unwrap_or(0), uid: peer.uid(), gid: peer.gid() })
    }

    fn receive(&self, buffer: &mut [u8], wanted: usize, take: Take) -> io::Result<Received> {
        let room = buffer.len();
        let wanted = wanted.min(MAX_DESCRIPTORS);
        let raw = message::receive(self.as_fd(), buffer, wanted, take)?;
        self.judge(raw, room, wanted)
    }

    fn judge(&self, raw: message::Raw, room: usize, wanted: usize) -> io::Result<Received> {
        if raw.length == 0 {
            return if self.at_end()? { Ok(Received::End) } else { Ok(Received::Empty) };
        }
        if raw.control_cut {
            // Fewer than there was room for: it was not the packet, this process has no number left.
            if raw.descriptors.len() < wanted {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            return Ok(Received::TooManyDescriptors);
        }
        if raw.length > room {
            return Ok(Received::Oversize { length: raw.length });
        }
        Ok(Received::Packet(Packet { length: raw.length, descriptors: raw.descriptors }))
    }

    /// Whether a read of no bytes was the end: the peer has closed, and no bytes are queued behind.
    fn at_end(&self) -> io::Result<bool> {
        let hung_up = self.poll(HUNG_UP, PollTimeout::ZERO)?;
        Ok(hung_up && option::bytes_in(self.as_fd())? == 0)
    }

    fn wait(&self, events: PollFlags, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up: a wait that ends a fraction of a millisecond early would spin until the deadline.
            let millis = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            if self.poll(events, timeout)? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// Whether any of `events`, an error or a hang-up is there; an interrupted wait is `false`.
    pub(crate) fn poll(&self, events: PollFlags, timeout: PollTimeout) -> io::Result<bool> {
        match poll(&mut [PollFd::new(self.as_fd(), events)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a descriptor is what [`Seqpacket`] wants.
pub(crate) fn check(descriptor: BorrowedFd<'_>) -> Result<(), AdoptError> {
    let number = descriptor.as_raw_fd();
    let ask =
        |name| option::get(descriptor, name).map_err(|source| AdoptError::Ask { descriptor: number, source });
    if ask(libc::SO_DOMAIN)? == libc::AF_UNIX && ask(libc::SO_TYPE)? == libc::SOCK_SEQPACKET {
        Ok(())
    } else {
        Err(AdoptError::OtherKind { descriptor: number })
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Seqpacket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<Seqpacket> for OwnedFd {
    fn from(socket: Seqpacket) -> Self {
        socket.0
    }
}
