//! A seqpacket socket in a tokio runtime.
#![expect(unsafe_code, reason = "AsyncFd asks for the promise that its descriptor stays")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::time::{Instant, timeout, timeout_at};

use crate::message::Received;
use crate::socket::{RETRY, Seqpacket};

/// One end of a seqpacket pair whose calls wait in tokio.
///
/// Not a tokio stream socket: that one takes a short read for a drained socket, and then hangs. One task may
/// send while another receives; a runtime with I/O and time enabled is needed. Dropping it takes the descriptor
/// out of epoll before it is closed, as other holders of the same end would keep its events coming.
///
/// Only readiness to read is watched all the time. The other kind is asked for where a send found no room: each
/// packet that the peer reads is such an event, and would wake a runtime that waits for an answer.
#[derive(Debug)]
pub struct AsyncSeqpacket(AsyncFd<Seqpacket>);

/// That something may be there to read, as of the runtime's last look.
#[derive(Debug)]
pub struct Readable<'a>(AsyncFdReadyGuard<'a, Seqpacket>);

impl Readable<'_> {
    /// The peer sends nothing any more: what is queued is still there, then the end, and that is readable for ever.
    pub fn is_closed(&self) -> bool {
        self.0.ready().is_read_closed()
    }

    /// Nothing more is to be read: the next wait is for a packet that has not arrived yet.
    ///
    /// To be called after a read that found nothing, or by who knows of another way that nothing is queued. A
    /// packet that arrived after the runtime's last look is an event still to come, and not forgotten. Of a socket
    /// that is [closed](Self::is_closed) nothing is forgotten: there is no wait any more.
    pub fn drained(mut self) {
        self.0.clear_ready();
    }
}

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
        Ok(Self(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?))
    }

    /// The socket, for what needs no waiting. What it finds does not change what this end believes of
    /// readiness; reads by [`try_recv`](Self::try_recv) and its like do.
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
    /// comes only when three quarters of the buffer are free. For whoever sends by [`try_send`](Self::try_send).
    ///
    /// Cancel safe: it does nothing.
    ///
    /// # Errors
    /// `EMFILE`, or of `epoll_ctl`.
    pub async fn room(&self) -> io::Result<()> {
        let watched = self.socket().try_clone()?;
        // A new registration: its first event says what is, and not what was before the send that found no room.
        // SAFETY: a Seqpacket owns its descriptor, always gives the same one, and closes it only when dropped.
        let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::WRITABLE) }?;
        match timeout(RETRY, watched.writable()).await {
            Ok(ready) => ready.map(drop),
            Err(_) => Ok(()),
        }
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

    /// Takes the packet at the head in one call, waiting for one.
    ///
    /// Cancel safe: a dropped call has taken nothing.
    ///
    /// # Errors
    /// As [`Seqpacket::take`], except `WouldBlock`.
    pub async fn take(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.0.async_io(Interest::READABLE, |socket| socket.take(buffer, wanted)).await
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

    /// [`Seqpacket::take`], as [`try_recv`](Self::try_recv) is `recv`.
    ///
    /// # Errors
    /// As there.
    pub fn try_take(&self, buffer: &mut [u8], wanted: usize) -> io::Result<Received> {
        self.0.try_io(Interest::READABLE, |socket| socket.take(buffer, wanted))
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
    pub async fn readable(&self) -> io::Result<Readable<'_>> {
        self.0.readable().await.map(Readable)
    }

    /// [`readable`](Self::readable) for who polls by himself; of many callers the last one is woken.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        Poll::Ready(ready!(self.0.poll_read_ready(context)).map(Readable))
    }
}

impl AsFd for AsyncSeqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}
