//! The core's end of the channel to the keeper.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use watchdog_keeper::protocol::{FromKeeper, ToKeeper};
use watchdog_protocol::limits::MAX_PACKET;
use watchdog_seqpacket::{AsyncSeqpacket, MAX_DESCRIPTORS, Received, Seqpacket};

/// Why the channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the keeper is gone")]
    Gone,
    #[error("the channel to the keeper failed")]
    Io(#[source] io::Error),
    #[error("the keeper sent {0}")]
    Nonsense(String),
}

/// The channel.
#[derive(Debug)]
pub(crate) struct KeeperLink {
    socket: AsyncSeqpacket,
    buffer: Vec<u8>,
}

impl KeeperLink {
    pub(crate) fn new(socket: Seqpacket) -> io::Result<Self> {
        Ok(Self { socket: AsyncSeqpacket::new(socket)?, buffer: vec![0; MAX_PACKET] })
    }

    /// Waits for room: the keeper reads at once or is gone.
    pub(crate) async fn send(&self, message: &ToKeeper, beside: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let packet = message.encode().map_err(|err| LinkError::Nonsense(err.to_string()))?;
        let mut all: Vec<BorrowedFd<'_>> = packet.payload.iter().map(AsFd::as_fd).collect();
        all.extend_from_slice(beside);
        self.socket.send(&[IoSlice::new(&packet.bytes)], &all).await.map_err(|err| match err.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LinkError::Gone,
            _ => LinkError::Io(err),
        })
    }

    /// The next message with its descriptors. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Result<(FromKeeper, Vec<OwnedFd>), LinkError> {
        loop {
            let received = self.socket.recv(&mut self.buffer, MAX_DESCRIPTORS).await;
            if let Some(message) = message(received, &self.buffer)? {
                return Ok(message);
            }
        }
    }

    /// The next message without its descriptors, which are closed: in one call. Cancel safe.
    ///
    /// A long message that this process has no number left for is an error, as it is for [`recv`](Self::recv).
    pub(crate) async fn next(&mut self) -> Result<FromKeeper, LinkError> {
        loop {
            let received = self.socket.take(&mut self.buffer, MAX_DESCRIPTORS).await;
            if let Some((message, _)) = message(received, &self.buffer)? {
                return Ok(message);
            }
        }
    }

    /// As [`next`](Self::next), if it is there already.
    pub(crate) fn try_next(&mut self) -> Result<Option<FromKeeper>, LinkError> {
        match self.socket.try_take(&mut self.buffer, MAX_DESCRIPTORS) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
            received => Ok(message(received, &self.buffer)?.map(|(message, _)| message)),
        }
    }
}

/// `None`: nothing was received, and there may be something.
fn message(
    received: io::Result<Received>,
    buffer: &[u8],
) -> Result<Option<(FromKeeper, Vec<OwnedFd>)>, LinkError> {
    match received {
        Ok(Received::Packet(packet)) => {
            let mut beside = packet.descriptors;
            let message = FromKeeper::decode(&buffer[..packet.length], &mut beside)
                .map_err(|err| LinkError::Nonsense(err.to_string()))?;
            Ok(Some((message, beside)))
        }
        Ok(Received::End) => Err(LinkError::Gone),
        Ok(other) => Err(LinkError::Nonsense(format!("{other:?}"))),
        // What was queued before the keeper went is still there.
        Err(err) if err.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(err) => Err(LinkError::Io(err)),
    }
}
