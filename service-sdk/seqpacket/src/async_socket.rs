//! A seqpacket socket in a tokio runtime.
#![expect(unsafe_code, reason = "AsyncFd asks for the promise that its descriptor stays")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout, timeout_at};

use crate::message::Received;
use crate::socket::{RETRY, Seqpacket};

/// One end of a seqpacket pair whose calls wait in tokio.
///
/// Not a tokio stream socket: that one takes a short read for a drained socket, and then hangs. One task may
/// send while another receives; a runtime with I/O and time enabled is needed. Dropping it takes the descriptor
/// out of epoll before it is closed, as other holders of the same end would keep its events coming.
#[derive(Debug)]
pub struct AsyncSeqpacket(AsyncFd<Seqpacket>);

impl AsyncSeqpacket {
    /// Registers a socket with the current runtime.
    ///
    /// # Errors
    /// Of `epoll_ctl`; the socket is closed then.
    ///
    /// # Panics
    /// Outside of a runtime with I/O enabled.
    pub fn new(socket: Seqpacket) -> io::Result<Self> {
        // SAFETY: a Seqpacket owns its descriptor, always gives the same one, and closes it only when dropped.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// The socket, for what needs no waiting. What it finds does not change what this end believes of
    /// readiness; reads by [`try_recv`](Self::try_recv) and [`try_peek`](Self::try_peek) do.
    pub fn socket(&self) -> &Seqpacket {
        self.0.get_ref()
    }

    /// Takes the socket out of the runtime.
    pub fn into_inner(self) -> Seqpacket {
        self.0.into_inner()
    }

    /// Sends one packet, waiting for room as long as it takes.
    ///
    /// Cancel safe: a dropped call has sent nothing, for the call that sends returns at once.
    ///
    /// # Errors
    /// As [`Seqpacket::send`], except `WouldBlock`.
    pub async fn send(&self, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            match self.try_send(parts, descriptors) {
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                result => return result,
            }
        }
    }

    /// Sends one packet, waiting for room until `deadline`, with one last try at it.
    ///
    /// Cancel safe, as [`send`](Self::send).
    ///
    /// # Errors
    /// As [`Seqpacket::send`], with `TimedOut` in the place of `WouldBlock`.
    pub async fn send_by(
        &self,
        parts: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> io::Result<()> {
        match timeout_at(deadline, self.send(parts, descriptors)).await {
            Ok(result) => result,
            Err(_) => match self.try_send(parts, descriptors) {
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
                result => result,
            },
        }
    }

    /// [`Seqpacket::send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket().send(parts, descriptors)
    }

    /// Waits until another try to send may pass: at an event, or after a few milliseconds, because the event
    /// comes only when three quarters of the buffer are free.
    async fn room(&self) -> io::Result<()> {
        if let Ok(ready) = timeout(RETRY, self.0.writable()).await {
            // Most often an event from before the send that found no room. It is forgotten here, so that the next
            // wait is for a new one; if room came meanwhile, the try that follows finds it.
            ready?.clear_ready();
        }
        Ok(())
    }

    /// Takes the packet at the head, waiting for one.
    ///
    /// Cancel safe: a dropped call has taken nothing.
    ///
    /// # Errors
    /// As [`Seqpacket::recv`], except `WouldBlock`.
    pub async fn recv(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.0.async_io(Interest::READABLE, |socket| socket.recv(buffer, wanted)).await
    }

    /// Reads the packet at the head and leaves it there, waiting for one.
    ///
    /// Cancel safe: a dropped call has made no descriptor.
    ///
    /// # Errors
    /// As [`Seqpacket::peek`], except `WouldBlock`.
    pub async fn peek(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.0.async_io(Interest::READABLE, |socket| socket.peek(buffer, wanted)).await
    }

    /// [`Seqpacket::recv`], for whoever waits by [`readable`](Self::readable): one that finds nothing makes the
    /// next `readable` wait. Before the runtime has seen the first event it finds nothing, whatever is queued.
    ///
    /// # Errors
    /// As there.
    pub fn try_recv(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.0.try_io(Interest::READABLE, |socket| socket.recv(buffer, wanted))
    }

    /// [`Seqpacket::peek`], as [`try_recv`](Self::try_recv) is `recv`.
    ///
    /// # Errors
    /// As there.
    pub fn try_peek(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.0.try_io(Interest::READABLE, |socket| socket.peek(buffer, wanted))
    }

    /// Waits until a `try_` call may find something; it may be wrong once.
    ///
    /// Cancel safe: it takes nothing.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

impl AsFd for AsyncSeqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}
