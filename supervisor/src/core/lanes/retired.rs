//! Lanes that nobody may send on any more. What is queued in them is served, and answered; then they go.
//!
//! ```text
//! rule taken away, sender unregistered or of another contract ─► noted ─► sending shut ─► read to its end ─► gone
//!                       allowed again ─► another lane, handed over when this one is gone
//! ```
//! So of one sender nothing comes before what it sent earlier, and what is in hand at a death comes again before
//! anything newer: a receiver that remembers the last message of each sender knows it.

use watchdog_protocol::{Contract, Incarnation, ServiceName};

use super::{Lane, LaneError, Lanes};

/// Retired lanes between two services from which on they get no other: each is a pair of sockets and three pieces of
/// memory, and a sender that shuts what it was given could have any number.
const MAX_UNREAD: usize = 8;

/// Whether two services may have another lane.
pub(super) fn bounded(
    retired: &[Lane],
    sender: &ServiceName,
    receiver: &ServiceName,
) -> Result<(), LaneError> {
    let unread = retired.iter().filter(|lane| lane.sender == *sender && lane.receiver == *receiver).count();
    if unread < MAX_UNREAD { Ok(()) } else { Err(LaneError::Unread(unread)) }
}

impl Lane {
    /// Nothing more goes in.
    pub(crate) fn is_retired(&self) -> bool {
        self.record.is_retired
    }

    /// Nothing is in it that is not done. What a sender says of its page is no matter.
    pub(super) fn is_empty(&self) -> bool {
        self.sender_end.outstanding().is_ok_and(|bytes| bytes == 0)
    }

    /// Something in it was written by a contract that who knows this one, as a new process of the sender does, may not be
    /// able to read. A process that goes on with several contracts is not meant.
    pub(crate) fn is_of_another(&self, contract: &Contract, process: Incarnation) -> bool {
        self.open_by != Some(process) && self.record.contract.fits(contract).is_err() && !self.is_empty()
    }

    /// Noted first: a core that finds the note shuts it again.
    fn retire(&mut self) -> Result<(), LaneError> {
        self.record.is_retired = true;
        self.keep()?;
        self.sender_end.shut_sending().map_err(LaneError::Shut)
    }
}

impl Lanes {
    /// The pairs of services that have a lane they may send on: sender, receiver.
    pub(crate) fn pairs(&self) -> Vec<(ServiceName, ServiceName)> {
        let of_services = self.lanes.iter().filter(|(_, lane)| !lane.is_operators());
        of_services
            .map(|(pair, _)| pair)
            .map(|(receiver, sender)| (sender.clone(), receiver.clone()))
            .collect()
    }

    /// Lets nobody send on the lane between two services any more. `None`: there is none.
    pub(crate) fn retire(
        &mut self,
        sender: &ServiceName,
        receiver: &ServiceName,
    ) -> Result<Option<&Lane>, LaneError> {
        let Some(mut lane) = self.lanes.remove(&(receiver.clone(), sender.clone())) else { return Ok(None) };
        let retired = lane.retire();
        self.retired.push(lane);
        retired.map(|()| self.retired.last())
    }

    /// Of an older core.
    pub(super) fn insert_retired(&mut self, lane: Lane) {
        if let Err(err) = lane.sender_end.shut_sending() {
            tracing::error!("lane {} to {} can't be shut: {err}", lane.sender, lane.receiver);
        }
        let at = self.retired.partition_point(|older| older.record.made_at <= lane.record.made_at);
        self.retired.insert(at, lane);
    }

    /// Takes out the retired lanes to a service in which nothing is left.
    pub(crate) fn take_drained(&mut self, receiver: &ServiceName) -> Vec<Lane> {
        self.retired.extract_if(.., |lane| lane.receiver == *receiver && lane.is_empty()).collect()
    }
}
