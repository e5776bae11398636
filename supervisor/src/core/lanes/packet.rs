//! A packet of a lane, as far as the core reads one: message by message, payloads as bytes.

use std::os::fd::{AsFd as _, OwnedFd};

use watchdog_protocol::lane::{self, Envelope, EnvelopeError, Header, PACKET_HEADER, Place};
use watchdog_seqpacket::payload::{self, PayloadError};

/// One that was checked.
#[derive(Debug)]
pub(super) struct Packet<'p> {
    pub(super) header: Header,
    bytes: &'p [u8],
    beside: Option<&'p OwnedFd>,
}

/// One message in it. Its payload is not read yet.
#[derive(Debug)]
pub(crate) struct Found<'p> {
    pub(crate) envelope: Envelope,
    inline: &'p [u8],
    beside: Option<&'p OwnedFd>,
}

/// Why a payload was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoundError {
    #[error("what should be beside the packet is not")]
    NothingBeside,
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl<'p> Packet<'p> {
    /// `beside`: the descriptor that came with it.
    pub(super) fn check(bytes: &'p [u8], beside: Option<&'p OwnedFd>) -> Result<Self, EnvelopeError> {
        Ok(Self { header: lane::check(bytes)?, bytes, beside })
    }

    /// What is in it, in order.
    pub(super) fn messages(&self) -> impl Iterator<Item = Found<'p>> + use<'p> {
        let (bytes, beside) = (self.bytes, self.beside);
        let mut at = PACKET_HEADER;
        (0..self.header.count).map(move |_| {
            let (envelope, range) = lane::read(bytes, at).expect("the packet was checked");
            at = range.end;
            Found { envelope, inline: &bytes[range], beside }
        })
    }
}

impl Found<'_> {
    /// A copy of at most `limit` bytes; of what is in the packet, whatever it has.
    pub(crate) fn payload(&self, limit: usize) -> Result<Vec<u8>, FoundError> {
        match self.envelope.place {
            Place::Inline => Ok(self.inline.to_vec()),
            Place::Beside => {
                let beside = self.beside.ok_or(FoundError::NothingBeside)?;
                Ok(payload::read(beside.as_fd(), self.envelope.length.into(), limit)?)
            }
        }
    }
}
