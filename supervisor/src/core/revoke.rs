//! Permission taken away from services that talk to each other.

use watchdog_lifecycle::TalkError;
use watchdog_protocol::session::ToService;
use watchdog_protocol::{Incarnation, LaneEpoch, ServiceName};

use super::events::Entry as Logged;
use super::lanes::Lane;
use super::{Core, CoreError, chain};

impl Core {
    /// Retires every lane that the rules in force do not allow: its sender's calls give `Denied`, what it sent is
    /// served and answered. What is allowed again later is another lane, after a handle was asked for anew.
    ///
    /// To be called when the roster has the new rules. A core that takes over calls it too: the one before may have been
    /// killed over it.
    pub(super) async fn revoke(&mut self) -> Result<(), CoreError> {
        for (sender, receiver) in self.lanes.pairs() {
            let Err(forbidden) = self.roster.may_talk(&sender, &receiver) else { continue };
            self.retire(&sender, &receiver).await?;
            if let TalkError::Denied(rule) = forbidden {
                let text = format!("{sender} may not send to it any more, what is queued is served: {rule}");
                self.events.add(Logged::of(&receiver, "revoked", text));
            }
        }
        self.tell_of_logging(None);
        Ok(())
    }

    /// Lets nobody send on a lane any more. It goes when what is queued is done.
    pub(super) async fn retire(
        &mut self,
        sender: &ServiceName,
        receiver: &ServiceName,
    ) -> Result<(), CoreError> {
        match self.lanes.retire(sender, receiver) {
            Ok(None) => return Ok(()),
            Ok(Some(lane)) => {
                let denied = ToService::LaneDenied { lane: lane.epoch };
                self.tell(sender, &denied, Vec::new());
            }
            // It is retired all the same; a sender that does not heed what it is told can go on sending.
            Err(err) => tracing::error!("lane {sender} to {receiver}: {}", chain(&err)),
        }
        self.drop_drained(receiver).await
    }

    /// Takes away the retired lanes to a service in which nothing is left.
    pub(super) async fn drop_drained(&mut self, receiver: &ServiceName) -> Result<(), CoreError> {
        for lane in self.lanes.take_drained(receiver) {
            self.tell(receiver, &ToService::LaneClosed { lane: lane.epoch }, Vec::new());
            self.drop_lane(&lane).await?;
        }
        Ok(())
    }

    /// A process of the receiver read a lane to its end. One that nobody retired was shut by a process that holds it, and
    /// is of no use to anybody any more.
    pub(super) async fn lane_drained(
        &mut self,
        receiver: &ServiceName,
        incarnation: Incarnation,
        epoch: LaneEpoch,
    ) -> Result<(), CoreError> {
        let Some(lane) = self.lanes.named(epoch).filter(|lane| lane.given_to() == Some(incarnation)) else {
            return Ok(());
        };
        if !lane.is_retired() {
            let sender = lane.sender.clone();
            tracing::warn!("lane {sender} to {receiver} was shut by one of them");
            self.retire(&sender, receiver).await?;
        }
        self.offer_lanes(receiver, incarnation).await
    }

    /// A process of the sender went on through a change of cores: what it may not have been told.
    pub(super) fn repeat_denials(&mut self, sender: &ServiceName) {
        let retired = self.lanes.leaving(sender).filter(|lane| Lane::is_retired(lane));
        let denied: Vec<_> = retired.map(|lane| lane.epoch).collect();
        for lane in denied {
            self.tell(sender, &ToService::LaneDenied { lane }, Vec::new());
        }
    }
}
