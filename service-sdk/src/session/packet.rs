//! Session messages as packets, their content inside or beside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use watchdog_protocol::limits::MAX_INLINE;
use watchdog_protocol::session::{Content, DecodeError, FromService, encode};
use watchdog_seqpacket::payload::{self, PayloadError};

/// One packet to send.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) beside: Option<OwnedFd>,
}

/// What is wrong with the socket, or with a packet that came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot read the session")]
    Read(#[source] io::Error),
    #[error("cannot write to the session")]
    Write(#[source] io::Error),
    #[error("cannot put bytes beside a packet")]
    Seal(#[source] io::Error),
    #[error("cannot decode a packet")]
    Decode(#[source] DecodeError),
    #[error("cannot read the {what} beside a packet")]
    Payload { what: &'static str, source: PayloadError },
    #[error("{what} came with {found} descriptors, {expected} belong to it")]
    Descriptors { what: &'static str, found: usize, expected: usize },
    #[error("{0}")]
    Packet(&'static str),
}

impl Packet {
    pub(super) fn plain(message: &FromService) -> Self {
        Self { bytes: encode(message), beside: None }
    }

    /// A message with content, which goes beside the packet when it is too long for one.
    pub(super) fn with_content(
        bytes: Vec<u8>,
        message: impl FnOnce(Content) -> FromService,
    ) -> io::Result<Self> {
        if bytes.len() <= MAX_INLINE {
            return Ok(Self::plain(&message(Content::Inline(bytes))));
        }
        let beside = payload::seal(&bytes)?;
        let message = message(Content::Beside { length: bytes.len() as u64 });
        Ok(Self { bytes: encode(&message), beside: Some(beside) })
    }
}

/// The bytes of a content, at most `limit`; one that is beside the packet takes the next descriptor.
pub(super) fn content(
    what: &'static str,
    content: Content,
    beside: &mut impl Iterator<Item = OwnedFd>,
    limit: usize,
) -> Result<Vec<u8>, Fault> {
    match content {
        Content::Inline(bytes) => Ok(bytes),
        Content::Beside { length } => {
            let descriptor = beside.next().ok_or(Fault::Descriptors { what, found: 0, expected: 1 })?;
            payload::read(descriptor.as_fd(), length, limit).map_err(|source| Fault::Payload { what, source })
        }
    }
}
