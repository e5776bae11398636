//! What services say over their sessions.

use watchdog_lifecycle::{Fact, Phase};
use watchdog_protocol::session::{FromService, Health, Hello, Resumed, SESSION_VERSION, ToService};
use watchdog_protocol::{Incarnation, ServiceName};

use super::events::Entry as Event;
use super::session::{FromSession, SessionEvent};
use super::{Core, CoreError};

impl Core {
    pub(super) async fn session_said(&mut self, told: FromSession) -> Result<(), CoreError> {
        let FromSession { service, incarnation, event } = told;
        let current = self.entries.get(&service).and_then(|entry| entry.session.as_ref());
        if current.is_none_or(|session| session.incarnation() != incarnation) {
            return Ok(());
        }
        let entry = self.entry_mut(&service);
        if entry.spawning == Some(incarnation) {
            // The keeper's word comes first: who is ready has a process.
            entry.early.push(event);
            return Ok(());
        }
        self.heed(&service, incarnation, event).await
    }

    /// What a living process said.
    pub(super) async fn heed(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        event: SessionEvent,
    ) -> Result<(), CoreError> {
        match event {
            SessionEvent::Message(message) => self.service_said(service, incarnation, *message).await,
            SessionEvent::Broken(reason) => {
                self.broken(service, incarnation, reason);
                Ok(())
            }
            SessionEvent::Ended => self.session_ended(service, incarnation).await,
        }
    }

    async fn service_said(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        message: FromService,
    ) -> Result<(), CoreError> {
        match message {
            FromService::Hello(hello) => self.hello(service, incarnation, &hello).await?,
            FromService::Ready => {
                self.fact(service, incarnation, Fact::Ready);
                self.initial_settings_accepted(service, incarnation);
            }
            FromService::State { sequence, version, urgency, content } => {
                self.state_update(service, incarnation, (sequence, version), urgency, content);
            }
            FromService::Verdict { revision, verdict } => {
                self.verdict(service, incarnation, revision, verdict);
            }
            FromService::Introduce { request, peer, contract } => {
                self.introduce(service, incarnation, request, &peer, contract).await?;
            }
            FromService::Health(health) => self.fact(service, incarnation, Fact::Health(health)),
            FromService::Progress(progress) => self.fact(service, incarnation, Fact::Progress(progress)),
            FromService::Heartbeat => self.fact(service, incarnation, Fact::Heartbeat),
            FromService::Control { request, call } => {
                self.call_of_service(service, incarnation, request, call).await?;
            }
            FromService::LastWord { reason } => self.entry_mut(service).last_word = Some(shortened(reason)),
            FromService::Resumed(resumed) => self.resumed(service, incarnation, &resumed).await?,
            FromService::LaneDrained { lane } => self.lane_drained(service, incarnation, lane).await?,
        }
        Ok(())
    }

    async fn hello(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        hello: &Hello,
    ) -> Result<(), CoreError> {
        if hello.version != SESSION_VERSION {
            let reason = format!(
                "it speaks session version {}, this watchdog speaks {SESSION_VERSION}: build it with this watchdog's SDK",
                hello.version
            );
            self.broken(service, incarnation, reason);
            return Ok(());
        }
        if !self.entry_mut(service).session.as_mut().is_some_and(super::session::Session::greet) {
            self.broken(service, incarnation, "it said hello twice".to_owned());
            return Ok(());
        }
        let described = self.entry(service).manifest.as_deref().map(watchdog_protocol::Manifest::hash);
        if described == Some(hello.manifest) {
            self.recognize(service, incarnation).await?;
        } else {
            self.manifest_changed(service, incarnation);
        }
        Ok(())
    }

    /// The process is what described itself: it gets the lanes that arrive at it.
    pub(super) async fn recognize(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
    ) -> Result<(), CoreError> {
        if let Some(session) = &mut self.entry_mut(service).session {
            session.recognize();
        }
        self.offer_lanes(service, incarnation).await
    }

    /// The running program is not the one that described itself: it was built anew since. It is asked again, off
    /// the event loop.
    fn manifest_changed(&mut self, service: &ServiceName, incarnation: Incarnation) {
        let text = "the program was built anew since it described itself; it is asked again";
        self.events.add(Event::of(service, "manifest", text).at(incarnation));
        self.describe_again(service);
    }

    /// A process went on through a change of cores: what it holds, as it tells.
    async fn resumed(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        resumed: &Resumed,
    ) -> Result<(), CoreError> {
        for lane in self.lanes.leaving(service).filter(|lane| resumed.lanes_out.contains(&lane.epoch)) {
            lane.resumed_sender(incarnation);
        }
        for lane in self.lanes.arriving_at(service).filter(|lane| resumed.lanes_in.contains(&lane.epoch)) {
            lane.resumed_receiver(incarnation);
        }
        // A lane the older core made and could not hand over any more.
        self.recognize(service, incarnation).await?;
        self.repeat_denials(service);
        self.tell_of_logging(Some(service));
        self.settings_resumed(service, incarnation, resumed.revision, resumed.ready);
        if resumed.ready {
            self.fact(service, incarnation, Fact::Ready);
        }
        if self.health(service) != Some(&resumed.health) {
            self.fact(service, incarnation, Fact::Health(resumed.health.clone()));
        }
        Ok(())
    }

    /// The level it raised, as far as this core knows.
    fn health(&self, service: &ServiceName) -> Option<&Health> {
        match self.roster.get(service)?.phase() {
            Phase::Starting(starting) => Some(&starting.health),
            Phase::Ready(ready) => Some(&ready.health),
            Phase::Stopped { .. }
            | Phase::Stopping(_)
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed { .. } => None,
        }
    }

    pub(super) fn broken(&mut self, service: &ServiceName, incarnation: Incarnation, reason: String) {
        self.tell(service, &ToService::Rejected { reason: reason.clone() }, Vec::new());
        self.fact(service, incarnation, Fact::ProtocolBroken { reason });
    }
}

/// Text a service sent, at most as long as is shown.
pub(super) fn shortened(mut text: String) -> String {
    let mut end = watchdog_protocol::limits::MAX_TEXT.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
