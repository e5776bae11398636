//! `sd_notify`: what a plain program says of itself, in datagrams to a socket of its own.
//!
//! ```text
//! program ── "READY=1\nSTATUS=…" ──► socket, stored by the keeper ──► one task per socket ──► event loop
//!             + the kernel's word who sent it
//! ```
//! The program finds the address in `NOTIFY_SOCKET`. It is an abstract one: a program that runs as another user could
//! not reach a file in the owner's folder. So anybody on the machine can write there, and the event loop heeds only
//! processes of that service, by the credentials the kernel puts beside each datagram.
//!
//! While the core is away, datagrams wait in the socket, up to `net.unix.max_dgram_qlen`; then the program waits.

mod message;

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use watchdog_protocol::{LaneEpoch, ServiceName};

pub(crate) use message::{Notice, parse};

/// The longest datagram, as other service managers have it.
const LONGEST: usize = 4096;

/// The most descriptors the kernel lets travel in one message.
const MOST_DESCRIPTORS: usize = 253;

/// Where a service's programs send to: without the leading zero byte, which `NOTIFY_SOCKET` writes as `@`.
pub(crate) fn address(epoch: LaneEpoch, service: &ServiceName) -> String {
    format!("watchdog/{:016x}/{service}", epoch.get())
}

/// Binds a service's socket.
///
/// # Errors
/// Out of descriptors; or `AddrInUse`.
pub(crate) fn bind(address: &str) -> io::Result<OwnedFd> {
    let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(address)?)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::PassCred, &true)?;
    Ok(socket.into())
}

/// Sends a datagram without text: when it is heard, all that was sent before it was.
///
/// # Errors
/// Nobody listens, or too many wait.
pub(crate) fn mark(address: &str) -> io::Result<()> {
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(b"", &SocketAddr::from_abstract_name(address)?).map(drop)
}

/// One datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notified {
    /// Whose socket it came to.
    pub(crate) service: ServiceName,
    /// Who sent it; 0: a process of another pid namespace.
    pub(crate) pid: u32,
    /// What it says; `None`: it was longer than any may be.
    pub(crate) text: Option<Vec<u8>>,
    _beside: Beside,
}

/// Descriptors that came beside a datagram. Nothing is done with them but this: they are closed when the datagram, and
/// so all before it, was heeded. That is what the sender of a barrier waits for before it ends.
#[derive(Debug, PartialEq, Eq)]
struct Beside(Vec<RawFd>);

impl Drop for Beside {
    fn drop(&mut self) {
        for descriptor in self.0.drain(..) {
            let _ = nix::unistd::close(descriptor);
        }
    }
}

/// Tells all that comes to `socket`, until `tell` is closed.
///
/// # Errors
/// The socket is none, or can't be watched.
pub(crate) fn listen(
    service: ServiceName,
    socket: OwnedFd,
    tell: mpsc::Sender<Notified>,
) -> io::Result<impl Future<Output = ()>> {
    let socket = UnixDatagram::from_std(StdDatagram::from(socket))?;
    Ok(async move {
        loop {
            let received = socket.async_io(Interest::READABLE, || receive(socket.as_fd())).await;
            let (pid, text, beside) = match received {
                Ok(received) => received,
                Err(err) => {
                    tracing::error!("what `{service}` notifies can't be read any more: {err}");
                    return;
                }
            };
            if tell.send(Notified { service: service.clone(), pid, text, _beside: beside }).await.is_err() {
                return;
            }
        }
    })
}

/// The next datagram: its sender, its text unless that is too long, and what came beside.
fn receive(socket: BorrowedFd<'_>) -> io::Result<(u32, Option<Vec<u8>>, Beside)> {
    let mut text = vec![0; LONGEST];
    let mut beside = cmsg_space!(nix::sys::socket::UnixCredentials, [i32; MOST_DESCRIPTORS]);
    let mut into = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut beside), flags)?;
    let (mut pid, mut descriptors) = (0, Beside(Vec::new()));
    // Cut short when this process has no number left for a descriptor: then nobody has sent it, and the next one is
    // read all the same.
    for message in received.cmsgs().into_iter().flatten() {
        match message {
            ControlMessageOwned::ScmCredentials(sender) => pid = u32::try_from(sender.pid()).unwrap_or(0),
            ControlMessageOwned::ScmRights(arrived) => descriptors.0.extend(arrived),
            _ => {}
        }
    }
    let (length, is_cut) = (received.bytes, received.flags.contains(MsgFlags::MSG_TRUNC));
    text.truncate(length);
    Ok((pid, (!is_cut).then_some(text), descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ServiceName {
        "db".parse().unwrap()
    }

    fn socket(test: &str) -> (OwnedFd, SocketAddr) {
        let address = format!("watchdog/test/{}/{test}", std::process::id());
        (bind(&address).unwrap(), SocketAddr::from_abstract_name(&address).unwrap())
    }

    #[tokio::test]
    async fn what_is_sent_comes_with_its_sender_by_the_kernels_word() {
        let (socket, address) = socket("sender");
        let (tell, mut told) = mpsc::channel(4);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(listen(name(), socket, tell).unwrap());
        let program = StdDatagram::unbound().unwrap();
        program.send_to_addr(b"READY=1", &address).unwrap();
        let heard = told.recv().await.unwrap();
        assert_eq!((heard.service, heard.pid), (name(), std::process::id()));
        assert_eq!(heard.text.as_deref(), Some(&b"READY=1"[..]));
        program.send_to_addr(&[b'x'; LONGEST + 1], &address).unwrap();
        assert_eq!(told.recv().await.unwrap().text, None);
    }

    #[test]
    fn a_barrier_is_closed_when_it_was_heeded() {
        use nix::sys::socket::{AddressFamily, ControlMessage, SockFlag, SockType, UnixAddr, sendmsg};
        let address = format!("watchdog/test/{}/barrier", std::process::id());
        let socket = bind(&address).unwrap();
        let (reads, writes) = nix::unistd::pipe().unwrap();
        let none = SockFlag::empty();
        let program = nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, none, None).unwrap();
        let fds = [writes.as_raw_fd()];
        let to = UnixAddr::new_abstract(address.as_bytes()).unwrap();
        let text = [io::IoSlice::new(b"BARRIER=1")];
        let beside = [ControlMessage::ScmRights(&fds)];
        sendmsg(program.as_raw_fd(), &text, &beside, MsgFlags::empty(), Some(&to)).unwrap();
        drop(writes);
        let (_, text, beside) = receive(socket.as_fd()).unwrap();
        assert_eq!(text.unwrap(), b"BARRIER=1");
        assert_eq!(beside.0.len(), 1);
        drop(beside);
        // End of file: nobody has the other end any more.
        assert_eq!(nix::unistd::read(&reads, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn an_address_is_bound_once() {
        let address = format!("watchdog/test/{}/twice", std::process::id());
        let _first = bind(&address).unwrap();
        assert_eq!(bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
