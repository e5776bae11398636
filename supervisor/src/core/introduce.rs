//! Introductions: a service asks for a peer by name, and both get their ends of one lane.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use watchdog_keeper::protocol::ToKeeper;
use watchdog_lifecycle::TalkError;
use watchdog_protocol::record::LOGGING;
use watchdog_protocol::session::{LaneIn, LaneOut, Refusal, ToService};
use watchdog_protocol::{Contract, Incarnation, ServiceName};
use watchdog_seqpacket::Wear;

use super::events::Entry as Logged;
use super::lanes::{Lane, LaneError, Made};
use super::{Core, CoreError, chain, now};
use crate::nearest::nearest;

/// Why an introduction came to nothing.
enum NoLane {
    Refused(Refusal),
    Core(CoreError),
}

/// Why no lane was opened.
pub(super) enum OpenError {
    Lane(LaneError),
    Core(CoreError),
}

impl From<OpenError> for NoLane {
    fn from(err: OpenError) -> Self {
        match err {
            OpenError::Lane(err) => Self::Refused(Refusal::Failed { reason: chain(&err) }),
            OpenError::Core(err) => Self::Core(err),
        }
    }
}

impl From<Refusal> for NoLane {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Core {
    /// Answers [`FromService::Introduce`](watchdog_protocol::session::FromService::Introduce).
    pub(super) async fn introduce(
        &mut self,
        sender: &ServiceName,
        incarnation: Incarnation,
        request: u64,
        peer: &str,
        contract: Contract,
    ) -> Result<(), CoreError> {
        let (outcome, beside) = match self.try_introduce(sender, incarnation, peer, contract).await {
            Ok((lane, ends)) => (Ok(lane), ends),
            Err(NoLane::Refused(refusal)) => (Err(refusal), Vec::new()),
            Err(NoLane::Core(err)) => return Err(err),
        };
        self.tell(sender, &ToService::Introduced { request, outcome }, beside);
        Ok(())
    }

    async fn try_introduce(
        &mut self,
        sender: &ServiceName,
        incarnation: Incarnation,
        peer: &str,
        contract: Contract,
    ) -> Result<(LaneOut, Vec<OwnedFd>), NoLane> {
        let receiver = self.peer(sender, peer)?;
        let mismatch = self.mismatch(&receiver, &contract);
        if self.lanes.find(sender, &receiver).is_some_and(|lane| lane.is_of_another(&contract, incarnation)) {
            // What is queued waits for a receiver of its own contract.
            self.retire(sender, &receiver).await.map_err(NoLane::Core)?;
        }
        let opened = self.open_lane(sender, &receiver, &contract, |lane, size| {
            if *lane.contract() != contract {
                lane.set_contract(contract.clone())?;
            }
            lane.mismatch.clone_from(&mismatch);
            Ok((lane.epoch, lane.give_to_sender(incarnation, size)?))
        });
        let (lane, ends) = opened.await?;
        let out = LaneOut { lane, receiver: receiver.clone(), mismatch };
        if let Some(receiving) = self.entry(&receiver).session.as_ref().map(|s| s.incarnation()) {
            self.offer_lanes(&receiver, receiving).await.map_err(NoLane::Core)?;
        }
        Ok((out, ends))
    }

    /// There is a logging service now, or this one may talk to it now: whoever has no lane to it may ask for one.
    pub(super) fn tell_of_logging(&mut self, service: Option<&ServiceName>) {
        let logging: ServiceName = LOGGING.parse().expect("it is a name");
        if !self.entries.contains_key(&logging) {
            return;
        }
        let others = self.entries.iter().filter(|(name, entry)| **name != logging && entry.session.is_some());
        let asked = others.map(|(name, _)| name.clone()).filter(|name| service.is_none_or(|one| one == name));
        for name in asked.collect::<Vec<_>>() {
            if self.lanes.find(&name, &logging).is_none() {
                self.tell(&name, &ToService::LoggingRegistered, Vec::new());
            }
        }
    }

    /// The lane between two services, made and stored when it is not there, and what its opening gives; `open` is told
    /// how much it is to hold. One that a process left unusable is retired, and another takes its place.
    pub(super) async fn open_lane<T>(
        &mut self,
        sender: &ServiceName,
        receiver: &ServiceName,
        contract: &Contract,
        open: impl Fn(&mut Lane, usize) -> Result<T, LaneError>,
    ) -> Result<T, OpenError> {
        let size = self.entry(receiver).spec.lane_size;
        loop {
            let between = self.lanes.between(sender, receiver, contract, now().as_nanos());
            let (lane, made) = between.map_err(OpenError::Lane)?;
            if made == Made::Now {
                let message = ToKeeper::Store { name: lane.stored_name().into_bytes() };
                let stored = self.keeper.send(&message, &lane.stored()).await;
                stored.map_err(|err| OpenError::Core(CoreError::Keeper(err)))?;
            }
            match open(lane, size) {
                // By a process of either side; the next lane is as good as new.
                Err(LaneError::Worn(wear)) if made == Made::Before => {
                    self.retire_worn(sender, receiver, wear).await.map_err(OpenError::Core)?;
                }
                opened => return opened.map_err(OpenError::Lane),
            }
        }
    }

    fn peer(&self, sender: &ServiceName, peer: &str) -> Result<ServiceName, Refusal> {
        let known = peer.parse::<ServiceName>().ok().filter(|name| self.entries.contains_key(name));
        let Some(receiver) = known else {
            let nearest = nearest(peer, self.entries.keys()).cloned();
            return Err(Refusal::NoSuchService { name: peer.to_owned(), nearest });
        };
        self.roster.may_talk(sender, &receiver).map_err(|err| match err {
            TalkError::Denied(denied) => Refusal::Denied {
                sender: sender.clone(),
                receiver: receiver.clone(),
                rule: denied.to_string(),
            },
            TalkError::NoInbox { name } => Refusal::NoInbox { name },
            TalkError::Unknown { name } => Refusal::NoSuchService {
                nearest: nearest(name.as_str(), self.entries.keys()).cloned(),
                name: name.to_string(),
            },
        })?;
        Ok(receiver)
    }

    fn mismatch(&self, receiver: &ServiceName, contract: &Contract) -> Option<watchdog_protocol::Mismatch> {
        let manifest = self.entry(receiver).manifest.as_ref()?;
        contract.fits(&manifest.contract).err()
    }

    /// Gives a process of `receiver` every lane it does not have yet and whose contract fits; nothing before it is
    /// known that the process is what described itself, for what is queued must not be read by another contract. A
    /// lane waits for those of the same sender that were retired before it.
    pub(super) async fn offer_lanes(
        &mut self,
        receiver: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        if !self.entry(receiver).session.as_ref().is_some_and(super::session::Session::is_known) {
            return Ok(());
        }
        self.drop_drained(receiver).await?;
        let size = self.entry(receiver).spec.lane_size;
        let (mut offers, mut worn) = (Vec::new(), Vec::new());
        let mut waiting_for_older = BTreeSet::new();
        for lane in self.lanes.arriving_at(receiver) {
            // One that can't be read holds up nobody.
            if lane.mismatch.is_some() || waiting_for_older.contains(&lane.sender) {
                continue;
            }
            if lane.given_to() != Some(incarnation) {
                match lane.give_to_receiver(incarnation, size) {
                    Ok(ends) => {
                        let offer = LaneIn { lane: lane.epoch, sender: lane.sender.clone() };
                        offers.push((offer, ends, lane.buried().to_vec()));
                    }
                    Err(LaneError::Worn(wear)) if !lane.is_retired() => {
                        worn.push((lane.sender.clone(), wear));
                        continue;
                    }
                    Err(err) => {
                        let sender = &lane.sender;
                        tracing::error!("lane {sender} to {receiver} can't be handed over: {}", chain(&err));
                        continue;
                    }
                }
            }
            if lane.is_retired() {
                waiting_for_older.insert(lane.sender.clone());
            }
        }
        for (lane, ends, buried) in offers {
            if !buried.is_empty() {
                let passed = ToService::PassOver { lane: lane.lane, numbers: buried };
                self.tell(receiver, &passed, Vec::new());
            }
            self.tell(receiver, &ToService::LaneIn(lane), ends);
        }
        if worn.is_empty() {
            return Ok(());
        }
        for (sender, wear) in worn {
            self.retire_worn(&sender, receiver, wear).await?;
        }
        // What is queued in them can be read, if no filter is in its way.
        Box::pin(self.offer_lanes(receiver, incarnation)).await
    }

    /// A process did to an end what can't be undone: nothing more goes in.
    pub(super) async fn retire_worn(
        &mut self,
        sender: &ServiceName,
        receiver: &ServiceName,
        wear: Wear,
    ) -> Result<(), CoreError> {
        let text = format!("the lane of {sender} was left unusable by a process of either side: {wear:?}");
        self.events.add(Logged::of(receiver, "lane", text));
        self.retire(sender, receiver).await
    }

    /// The receiver was built anew: every lane to it is compared again, its senders are told.
    pub(super) fn compare_contracts(&mut self, receiver: &ServiceName) {
        let Some(contract) = self.entry(receiver).manifest.as_ref().map(|m| m.contract.clone()) else {
            return;
        };
        let mut told = Vec::new();
        for lane in self.lanes.arriving_at(receiver) {
            let mismatch = lane.contract().fits(&contract).err();
            if lane.mismatch != mismatch {
                lane.mismatch.clone_from(&mismatch);
                told.push((lane.sender.clone(), lane.epoch, mismatch));
            }
        }
        for (sender, lane, mismatch) in told {
            self.tell(&sender, &ToService::LaneFits { lane, mismatch }, Vec::new());
        }
    }

    /// Takes the lanes to an unregistered service away from its peers, and from the keeper. What it has sent is served.
    pub(super) async fn close_lanes(&mut self, service: &ServiceName) -> Result<(), CoreError> {
        for lane in self.lanes.remove(service) {
            self.tell(&lane.sender, &ToService::LaneClosed { lane: lane.epoch }, Vec::new());
            let queued = lane.queued();
            if queued > 0 {
                let text = format!("dropped with its lane, of {}: {queued} that waited for it", lane.sender);
                self.events.add(Logged::of(service, "lane", text));
            }
            self.drop_lane(&lane).await?;
        }
        for (sender, receiver) in self.lanes.pairs() {
            if sender == *service {
                self.retire(&sender, &receiver).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn drop_lane(&mut self, lane: &Lane) -> Result<(), CoreError> {
        self.operator_lane_dropped(lane);
        let name = lane.stored_name().into_bytes();
        self.keeper.send(&ToKeeper::Drop { name }, &[]).await.map_err(CoreError::Keeper)
    }
}
