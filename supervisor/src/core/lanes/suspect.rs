//! Messages that their receivers die with: how often, a copy, and the lane without it.
//!
//! Only while no process of the receiver lives: then the core alone reads the receiver's end and writes its page.

use std::io;
use std::os::fd::AsFd as _;

use watchdog_lifecycle::Cause;
use watchdog_lifecycle::poison::{Reached, Suspect};
use watchdog_protocol::lane::Kind;
use watchdog_protocol::limits::{MAX_LANE_BYTES, MAX_PACKET};
use watchdog_protocol::{Incarnation, MessageNumber};
use watchdog_seqpacket::payload::PayloadError;
use watchdog_seqpacket::{PageError, Received, ReceiverPage};

use super::packet::{FoundError, Packet};
use super::{Lane, LaneError};

/// A message, copied out of its packet.
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
    #[error("a page can't be mapped")]
    Page(#[from] PageError),
}

impl Lane {
    /// Before a process of the receiver gets it: what an older one had in hand is not in this one's.
    pub(super) fn begin_again(&mut self) -> Result<(), PageError> {
        ReceiverPage::map_rw(self.receiver_page.as_fd())?.mark_in_hand(MessageNumber::NONE);
        let done = self.taken.marks().done;
        self.record.buried.retain(|number| *number > done);
        Ok(())
    }

    /// Dead letters that the receiver's next process passes over.
    pub(crate) fn buried(&self) -> &[MessageNumber] {
        &self.record.buried
    }

    /// A process of the receiver ended: whether a message is to blame.
    pub(crate) fn receiver_ended(&mut self, incarnation: Incarnation, cause: &Cause) {
        if self.record.given != Some(incarnation) {
            return;
        }
        let reached = Reached { done: self.taken.marks().done, in_hand: self.taken.in_hand() };
        self.record.suspects.ended(incarnation, cause, &reached);
        self.keep_or_warn();
    }

    /// The message that is to be a dead letter, if there is one.
    pub(crate) fn poison(&self) -> Option<Suspect> {
        self.record.suspects.poison().cloned()
    }

    /// A copy of a message. `None`: it is not there, whatever the page says.
    pub(crate) fn copy(&self, number: MessageNumber, limit: usize) -> Result<Option<Copied>, LetterError> {
        let mut buffer = vec![0; MAX_PACKET];
        let mut offset = 0;
        loop {
            let received = match self.receiver_end.peek_behind(offset, &mut buffer, 1) {
                Ok(Received::Packet(received)) => received,
                // A packet is in one piece in the kernel: no longer than its sender's end once took.
                Ok(Received::Oversize { length }) if length <= MAX_LANE_BYTES => {
                    buffer.resize(length, 0);
                    continue;
                }
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(LetterError::Peek(error)),
            };
            let packet = &buffer[..received.length];
            if let Ok(packet) = Packet::check(packet, received.descriptors.first())
                && packet.header.last >= number
            {
                let Some(found) = packet.messages().find(|found| found.envelope.number == number) else {
                    return Ok(None);
                };
                return match found.payload(limit) {
                    Ok(payload) => Ok(Some(Copied { kind: found.envelope.kind, payload })),
                    Err(FoundError::NothingBeside) => Ok(None),
                    Err(FoundError::Payload(error)) => Err(LetterError::Payload(error)),
                };
            }
            // What is before it is deferred.
            offset += received.length;
        }
    }

    /// The receiver's next process passes over this message. The packet it is in stays, with what else is in it.
    pub(crate) fn pass_over(&mut self, number: MessageNumber) -> Result<(), LaneError> {
        self.record.buried.push(number);
        self.record.suspects.forget(number);
        self.keep()
    }

    /// Nothing is wrong with this one.
    pub(crate) fn clear_suspect(&mut self, number: MessageNumber) {
        self.record.suspects.forget(number);
        self.keep_or_warn();
    }

    fn keep_or_warn(&mut self) {
        if let Err(err) = self.keep() {
            tracing::warn!("lane {} to {}: {err}", self.sender, self.receiver);
        }
    }
}
