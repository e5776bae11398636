//! A message as a packet, and back.
//!
//! The first byte says where the message is: in the packet, or, when it is longer than [`MAX_INLINE`], in a sealed
//! memfd that travels as the packet's first descriptor, before the message's own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchdog_protocol::limits::MAX_INLINE;
use watchdog_seqpacket::payload::{self, PayloadError};

use crate::protocol::{FromKeeper, ToKeeper};

/// The longest message. Arguments and environment together are at most 2 MiB for the kernel.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

const INLINE: u8 = 0;
const BESIDE: u8 = 1;

/// An encoded message.
#[derive(Debug)]
pub struct Packet {
    /// The packet's bytes.
    pub bytes: Vec<u8>,
    /// To be sent before the message's own descriptors.
    pub payload: Option<OwnedFd>,
}

/// Why a message can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Longer than any message may be.
    #[error("a message of {length} bytes is over the bound of {MAX_MESSAGE}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It does not serialize.
    #[error("a message does not encode")]
    Codec(#[source] postcard::Error),
    /// The memfd of a long message can't be made.
    #[error("can't make the memfd of a long message")]
    Memfd(#[source] io::Error),
}

/// Why a packet is no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It does not deserialize: damaged, or newer than this side.
    #[error("a packet does not decode")]
    Codec(#[source] postcard::Error),
    /// The first byte is unknown or there is none.
    #[error("a packet is of no known form")]
    Form,
    /// A long message came without its memfd.
    #[error("a long message came without its memfd")]
    Missing,
    /// The memfd of a long message is not what its packet says, or can't be read.
    #[error("a long message's memfd is of no use")]
    Payload(#[source] PayloadError),
}

macro_rules! packets {
    ($message:ty) => {
        impl $message {
            /// Encodes it for sending.
            pub fn encode(&self) -> Result<Packet, EncodeError> {
                encode(self)
            }

            /// Decodes a packet. Takes the payload of a long message off the front of `descriptors`; what stays
            /// is the message's own.
            pub fn decode(bytes: &[u8], descriptors: &mut Vec<OwnedFd>) -> Result<Self, DecodeError> {
                decode(bytes, descriptors)
            }
        }
    };
}
packets!(ToKeeper);
packets!(FromKeeper);

fn encode<T: Serialize>(message: &T) -> Result<Packet, EncodeError> {
    let mut bytes = postcard::to_extend(message, vec![INLINE]).map_err(EncodeError::Codec)?;
    if bytes.len() <= MAX_INLINE {
        return Ok(Packet { bytes, payload: None });
    }
    let length = bytes.len() - 1;
    if length > MAX_MESSAGE {
        return Err(EncodeError::TooLong { length });
    }
    let payload = payload::seal(&bytes[1..]).map_err(EncodeError::Memfd)?;
    bytes.clear();
    bytes.push(BESIDE);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    Ok(Packet { bytes, payload: Some(payload) })
}

fn decode<T: DeserializeOwned>(bytes: &[u8], descriptors: &mut Vec<OwnedFd>) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&INLINE, message)) => postcard::from_bytes(message).map_err(DecodeError::Codec),
        Some((&BESIDE, length)) => {
            let length = u64::from_le_bytes(length.try_into().map_err(|_| DecodeError::Form)?);
            if descriptors.is_empty() {
                return Err(DecodeError::Missing);
            }
            let memfd = descriptors.remove(0);
            let message = payload::read(memfd.as_fd(), length, MAX_MESSAGE).map_err(DecodeError::Payload)?;
            postcard::from_bytes(&message).map_err(DecodeError::Codec)
        }
        _ => Err(DecodeError::Form),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use watchdog_protocol::Incarnation;

    use super::*;
    use crate::protocol::{Attach, CoreEnd, CoreFailure, FailedStep, SpawnRequest, Stored};

    fn spawn(env: &str) -> ToKeeper {
        let service = "counter".parse().unwrap();
        ToKeeper::Spawn(SpawnRequest::new(service, Incarnation::FIRST, Path::new("/bin/true")).env("A", env))
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = spawn("b");
        let packet = message.encode().unwrap();
        assert!(packet.payload.is_none());
        assert_eq!(ToKeeper::decode(&packet.bytes, &mut Vec::new()).unwrap(), message);
    }

    #[test]
    fn a_long_message_travels_in_a_sealed_memfd_before_its_own_descriptors() {
        let message = spawn(&"x".repeat(100_000));
        let packet = message.encode().unwrap();
        assert!(packet.bytes.len() < 100);
        let own = payload::seal(b"own").unwrap();
        let mut descriptors = vec![packet.payload.unwrap(), own];
        assert_eq!(ToKeeper::decode(&packet.bytes, &mut descriptors).unwrap(), message);
        assert_eq!(descriptors.len(), 1);
    }

    #[test]
    fn a_long_message_whose_memfd_is_missing_or_another_is_refused() {
        let packet = spawn(&"x".repeat(100_000)).encode().unwrap();
        let missing = ToKeeper::decode(&packet.bytes, &mut Vec::new());
        assert!(matches!(missing, Err(DecodeError::Missing)), "{missing:?}");
        let mut other = vec![payload::seal(b"short").unwrap()];
        let refused = ToKeeper::decode(&packet.bytes, &mut other);
        assert!(matches!(refused, Err(DecodeError::Payload(_))), "{refused:?}");
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [&[][..], &[0], &[0, 200], &[1, 2], &[9, 9, 9]] {
            assert!(ToKeeper::decode(bytes, &mut Vec::new()).is_err(), "{bytes:?}");
        }
    }

    /// Postcard numbers variants by position: these bytes hold as long as nobody reorders.
    #[test]
    fn the_frozen_messages_keep_their_bytes() {
        let service: watchdog_protocol::ServiceName = "a".parse().unwrap();
        let incarnation = Incarnation::from_stored(7);
        let to = [
            (ToKeeper::AckExit { service, incarnation }, &[0, 2, 1, b'a', 7][..]),
            (ToKeeper::Store { name: vec![5, 6] }, &[0, 3, 2, 5, 6]),
            (ToKeeper::Drop { name: vec![5] }, &[0, 4, 1, 5]),
            (ToKeeper::Orphans, &[0, 5]),
            (ToKeeper::SignalOrphan { pid: 9, signal: 15 }, &[0, 6, 9, 30]),
            (ToKeeper::Finish { code: 3 }, &[0, 7, 3]),
            (ToKeeper::Adopt { service: "a".parse().unwrap(), incarnation, pid: 9 }, &[0, 8, 1, b'a', 7, 9]),
            (ToKeeper::Ready, &[0, 9]),
            (ToKeeper::Replace { label: vec![5], ready_within_ms: 9 }, &[0, 10, 1, 5, 9]),
        ];
        let mut request = SpawnRequest::new("a".parse().unwrap(), incarnation, Path::new("/b"));
        for what in [Attach::Child(3), Attach::Cgroup, Attach::PidRecord, Attach::Program, Attach::Join] {
            request = request.attach(what);
        }
        let spawn = &[0, 0, 1, b'a', 7, 2, b'/', b'b', 1, 2, b'/', b'b', 0, 0, 5, 0, 3, 1, 2, 3, 4];
        assert_eq!(ToKeeper::Spawn(request).encode().unwrap().bytes, spawn);
        for (message, bytes) in to {
            assert_eq!(message.encode().unwrap().bytes, bytes, "{message:?}");
        }
        let late = CoreEnd { how: CoreFailure::Late, last_words: vec![6] };
        let from = [
            (FromKeeper::Descriptors(vec![Stored { name: vec![1], count: 2 }]), &[0, 1, 1, 1, 1, 2][..]),
            (FromKeeper::HandedOver, &[0, 2]),
            (
                FromKeeper::SpawnFailed {
                    service: "a".parse().unwrap(),
                    incarnation,
                    step: FailedStep::Join,
                    errno: 19,
                },
                &[0, 4, 1, b'a', 7, 10, 38],
            ),
            (FromKeeper::OrphanReaped { pid: 4 }, &[0, 6, 4]),
            (FromKeeper::Orphans(vec![4]), &[0, 7, 1, 4]),
            (FromKeeper::Signalled { signal: 15 }, &[0, 8, 30]),
            (
                FromKeeper::Replaced { label: vec![5], core_generation: 2, undone: Some(late.clone()) },
                &[0, 10, 1, 5, 2, 1, 2, 1, 6],
            ),
            (FromKeeper::Safe { ends: 5, last: late }, &[0, 11, 5, 2, 1, 6]),
        ];
        for (message, bytes) in from {
            assert_eq!(message.encode().unwrap().bytes, bytes, "{message:?}");
        }
    }
}
