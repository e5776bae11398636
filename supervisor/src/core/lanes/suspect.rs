//! The message at the head of a lane whose receivers die: how often, its copy, and the lane without it.
//!
//! Only while no process of the receiver lives: then the core alone reads the receiver's end and writes its page.

use std::io;
use std::os::fd::AsFd as _;

use serde::{Deserialize, Serialize};
use watchdog_lifecycle::Cause;
use watchdog_lifecycle::poison::{Reached, Suspect};
use watchdog_protocol::lane::{self, Kind, PACKET_HEADER, Place};
use watchdog_protocol::limits::{MAX_LANE_BYTES, MAX_PACKET};
use watchdog_protocol::{Incarnation, MessageNumber};
use watchdog_seqpacket::payload::{self, PayloadError};
use watchdog_seqpacket::{PageError, Received, ReceiverPage};

use super::Lane;

/// What a process of the receiver began with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) to: Incarnation,
    pub(super) at: Reached,
}

/// A message, copied out of the head packet.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

/// Why a message could not be copied or passed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetterError {
    #[error("the head of the lane can't be read")]
    Peek(#[source] io::Error),
    #[error("its payload can't be read")]
    Payload(#[source] PayloadError),
    #[error("messages before it are deferred and not done")]
    Behind,
    #[error("a page can't be mapped")]
    Page(#[from] PageError),
}

impl Lane {
    pub(super) fn reached(&self) -> Reached {
        let marks = self.taken.marks();
        Reached { taken: marks.taken, done: marks.done, handed: self.taken.stats().handed }
    }

    /// A process of the receiver ended: whether its message is to blame.
    pub(crate) fn receiver_ended(&mut self, incarnation: Incarnation, cause: &Cause) {
        let Some(given) = self.record.given.as_ref().filter(|given| given.to == incarnation) else { return };
        let before = self.record.suspect.take();
        self.record.suspect = Suspect::after(before, incarnation, cause, &given.at, &self.reached());
        self.keep_or_warn();
    }

    /// The message that is to be a dead letter, if there is one.
    pub(crate) fn poison(&self) -> Option<Suspect> {
        let done = self.taken.marks().done;
        self.record.suspect.clone().filter(|suspect| suspect.is_poison() && suspect.number() > done)
    }

    /// A copy of a message in the head packet. `None`: it is not there, whatever the page says.
    ///
    /// Nothing that is deferred may be before it: to pass over it would pass over that too.
    pub(crate) fn copy(&self, number: MessageNumber, limit: usize) -> Result<Option<Copied>, LetterError> {
        let mut buffer = vec![0; MAX_PACKET];
        let received = loop {
            match self.receiver_end.peek(&mut buffer, 1) {
                Ok(Received::Packet(received)) => break received,
                // A packet is in one piece in the kernel: no longer than its sender's end once took.
                Ok(Received::Oversize { length }) if length <= MAX_LANE_BYTES => buffer.resize(length, 0),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(LetterError::Peek(error)),
            }
        };
        let packet = &buffer[..received.length];
        let Ok(header) = lane::check(packet) else { return Ok(None) };
        if header.last < number {
            return Err(LetterError::Behind);
        }
        let done = self.taken.marks().done;
        let mut at = PACKET_HEADER;
        for _ in 0..header.count {
            let (envelope, range) = lane::read(packet, at).expect("the packet was checked");
            at = range.end;
            if envelope.number < number && envelope.number > done {
                return Err(LetterError::Behind);
            }
            if envelope.number != number {
                continue;
            }
            let payload = match (envelope.place, received.descriptors.first()) {
                (Place::Inline, _) => packet[range].to_vec(),
                (Place::Beside, None) => return Ok(None),
                (Place::Beside, Some(beside)) => payload::read(beside.as_fd(), envelope.length.into(), limit)
                    .map_err(LetterError::Payload)?,
            };
            return Ok(Some(Copied { kind: envelope.kind, payload }));
        }
        Ok(None)
    }

    /// The receiver's next process goes on behind this message. The packet it is in stays, with what follows.
    pub(crate) fn pass_over(&mut self, number: MessageNumber) -> Result<(), LetterError> {
        ReceiverPage::map_rw(self.receiver_page.as_fd())?.mark_done(number);
        self.clear_suspect();
        Ok(())
    }

    /// Nobody is suspected any more.
    pub(crate) fn clear_suspect(&mut self) {
        self.record.suspect = None;
        self.keep_or_warn();
    }

    fn keep_or_warn(&mut self) {
        if let Err(err) = self.keep() {
            tracing::warn!("lane {} to {}: {err}", self.sender, self.receiver);
        }
    }
}
