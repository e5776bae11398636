//! [`Context`]: all a service has of the watchdog.

use std::fmt;

use watchdog_protocol::session::{Health, LaneOut, Progress, Refusal};
use watchdog_protocol::{Contract, Incarnation, Revision, ServiceName};

use watchdog_query::WatchdogQuery;

use crate::delivery::{Deferred, Delivery};
use crate::event::Event;
use crate::inbox::Inbox;
use crate::intercom::Intercom;
use crate::lanes::Lanes;
use crate::log::spans;
use crate::message::Message;
use crate::query::SessionTransport;
use crate::session::ledger::{Ledger, News};
use crate::session::{Changes, Link, SessionError};
use crate::settings::{Settings, SettingsReader};
use crate::state::{State, StateHandler};

/// All a service has of the watchdog: settings of type `S`, state of type `T`, messages of type `M`. Each may be
/// `()`, which is none.
pub struct Context<S, T, M> {
    service: ServiceName,
    incarnation: Incarnation,
    link: Link,
    settings: SettingsReader<S>,
    state: StateHandler<T>,
    /// Until it is given away.
    query: Option<WatchdogQuery>,
    lanes: Lanes,
    inbox: Inbox<M>,
    changes: Changes,
    /// Of the last message.
    delivery: Option<Delivery>,
}

/// What `next()` finds.
enum Heard<M> {
    News(News),
    Message(M, Delivery),
}

/// Who a process is, by the welcome.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) service: ServiceName,
    pub(crate) incarnation: Incarnation,
    /// Its configuration has a `control` list.
    pub(crate) is_granted: bool,
}

/// Why a service can't say that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// It refused its initial settings before.
    #[error("the service refused its settings of revision {revision}")]
    Refused {
        /// Their revision.
        revision: Revision,
    },
    /// The session is over.
    #[error("the session is over")]
    Session(#[source] SessionError),
}

/// Why there is no next event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NextError {
    /// The session is over.
    #[error("the session is over")]
    Session(#[source] SessionError),
    /// The newest state can't leave this process: going on would lose it.
    #[error("the state can't be saved: {reason}")]
    State {
        /// What is wrong with it.
        reason: String,
    },
}

/// Why there is no handle to a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntroduceError {
    /// The watchdog said no, and why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The session ended before there was an answer.
    #[error("the session ended before the watchdog answered")]
    SessionEnded,
    /// The lane could not be used: this process has no descriptor or memory left, which its log says, or the peer
    /// was unregistered at once.
    #[error("the lane can't be used")]
    Unusable,
}

impl<S: Settings, T: State, M: Message> Context<S, T, M> {
    pub(crate) fn new(
        about: About,
        link: Link,
        settings: SettingsReader<S>,
        state: StateHandler<T>,
        lanes: Lanes,
    ) -> Self {
        let query = about.is_granted.then(|| WatchdogQuery::over(SessionTransport(link.clone())));
        let About { service, incarnation, .. } = about;
        let inbox = Inbox::new(lanes.clone());
        let changes = link.changes();
        Self { service, incarnation, link, settings, state, query, lanes, inbox, changes, delivery: None }
    }

    /// The name this process runs under.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Which process of the service this is; each start takes the next number.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Says that the service does its work from now on: whoever waits for it starts. It accepts the initial
    /// settings. Said once, later calls change nothing.
    ///
    /// Cancel safe: once polled it is said.
    ///
    /// # Errors
    /// [`ReadyError`]; a watchdog that is gone is none, `next()` ends then.
    pub async fn ready(&self) -> Result<(), ReadyError> {
        self.link.write(|ledger| match ledger.settings.refused_initial() {
            Some(revision) => Err(ReadyError::Refused { revision }),
            None => {
                ledger.ready();
                Ok(())
            }
        })?;
        self.link
            .until(|ledger| match ledger.end() {
                Some(end) => Some(end.error().map_or(Ok(()), |error| Err(ReadyError::Session(error)))),
                None => ledger.is_ready_said().then_some(Ok(())),
            })
            .await
    }

    /// Waits for the next event. `None`: the service was asked to stop, or the watchdog is gone; it returns
    /// `Ok(())` after what it has to finish, and is killed after its stop timeout (10 s unless set).
    ///
    /// The call says that the event before is done: its message will not come again, and its settings are
    /// accepted. A stop goes before settings, settings go before messages, and among the lanes of messages each
    /// gives one in turn.
    ///
    /// Cancel safe: an event is yielded or stays for the next call. So it may be one branch of `select!`.
    ///
    /// # Errors
    /// [`NextError`]: the process can't go on.
    pub async fn next(&mut self) -> Result<Option<Event<M>>, NextError> {
        self.settings.accept();
        spans::done();
        loop {
            match self.hear().await {
                Heard::Message(message, delivery) => {
                    spans::handling(&delivery);
                    self.delivery = Some(delivery);
                    return Ok(Some(Event::Message(message)));
                }
                Heard::News(News::Failed(error)) => return Err(error),
                Heard::News(News::Over) => return Ok(None),
                Heard::News(News::Settings(offer)) => {
                    if self.settings.try_on(offer).is_some() {
                        return Ok(Some(Event::SettingsUpdated));
                    }
                }
            }
        }
    }

    async fn hear(&mut self) -> Heard<M> {
        // What is there needs no wait prepared: a busy inbox gets most of its messages here.
        if self.changes.any() {
            self.inbox.finish();
            if let Some(news) = self.link.now(Ledger::news) {
                return Heard::News(news);
            }
        }
        if let Some((message, delivery)) = self.inbox.try_next() {
            return Heard::Message(message, delivery);
        }
        tokio::select! {
            biased;
            news = self.link.until(Ledger::news) => Heard::News(news),
            (message, delivery) = self.inbox.next() => Heard::Message(message, delivery),
        }
    }

    /// How the last message came: who sent it, its id, whether it was delivered before, how long it waited.
    ///
    /// # Panics
    /// Before [`next`](Self::next) yielded the first message.
    pub fn delivery(&self) -> &Delivery {
        self.delivery.as_ref().expect("next() has yielded a message")
    }

    /// Keeps the last message open past [`next`](Self::next): it is done by [`Deferred::done`], from whatever task, while
    /// the service goes on with other events, also of the same lane. For an answer that has to wait for something.
    ///
    /// What is done of a lane is what has no open message before it. After a death, what was deferred comes again, and
    /// with it all that was handed over behind it on the same lane: each marked as redelivered, asks as their contract
    /// says. A lane has at most 256 open messages, and not more than it holds; then it waits until the first of them are
    /// done, and its sender with it. Other lanes go on. A message that kills its receiver each time becomes a dead letter also
    /// behind one that is open; what is open is not blamed for a death.
    ///
    /// # Panics
    /// When the last event was no message, or its message is deferred already.
    pub fn defer(&mut self) -> Deferred {
        let delivery = self.delivery().clone();
        Deferred::of(&self.lanes, delivery).expect("the last event is a message that is not deferred yet")
    }

    /// A handle to the inbox of a peer, by its name; for messages of type `P`, which its contract must begin with.
    /// It is taken once, and outlives restarts of both sides. The peer need not run: what it is told waits for it.
    ///
    /// Cancel safe: the answer to a dropped call is nobody's.
    ///
    /// # Errors
    /// [`IntroduceError`]: the watchdog does not know the name, or its rules forbid it. A contract that does not fit
    /// is none: `tell` and `ask` say so, as long as it is so.
    pub async fn intercom<P: Message>(&self, peer: impl AsRef<str>) -> Result<Intercom<P>, IntroduceError> {
        let lane = self.introduce(peer.as_ref().to_owned(), P::contract()).await?;
        let (lane, fit) = self.lanes.introduced(&lane, P::contract()).ok_or(IntroduceError::Unusable)?;
        Ok(Intercom::new(lane, fit))
    }

    /// Asks for a lane to a peer's inbox. Cancel safe: the answer to a dropped call is nobody's.
    pub(crate) async fn introduce(
        &self,
        peer: String,
        contract: Contract,
    ) -> Result<LaneOut, IntroduceError> {
        let answer = self.link.write(|ledger| ledger.introduce(peer, contract));
        Ok(answer.await.map_err(|_| IntroduceError::SessionEnded)??)
    }

    /// The settings: their current value, and how to refuse a new one.
    pub fn settings(&self) -> &SettingsReader<S> {
        &self.settings
    }

    /// The state: to look at, change and save.
    pub fn state(&self) -> &StateHandler<T> {
        &self.state
    }

    /// The right to command the watchdog as far as the service's grant goes: its `control` list in
    /// `watchdog.toml`. Given once; `None` afterwards, and without a grant.
    pub fn query(&mut self) -> Option<WatchdogQuery> {
        self.query.take()
    }

    /// Raises the service's own judgement of how it is, for the operator; it holds until the next call, and is
    /// `Ok` at first. `Failing` for longer than the policy allows is a restart. Reasons over 1,024 bytes are
    /// cut. Another level or other words are an entry of the event log; the same words with other numbers are shown and
    /// nothing more, so a reason may count. Never waits.
    pub fn health(&self, health: Health) {
        self.link.write(|ledger| ledger.health(health));
    }

    /// Says how far a start or stop has come: `fraction` from 0 to 1 when it is known, and one line of text, cut
    /// after 1,024 bytes. It extends the deadline of the start or stop, not for ever. Never waits; of many in a
    /// row the last may be the only one seen.
    pub fn progress(&self, fraction: impl Into<Option<f32>>, text: impl Into<String>) {
        let progress = Progress { fraction: fraction.into(), text: text.into() };
        self.link.write(|ledger| ledger.progress(progress));
    }
}

impl<S, T, M> fmt::Debug for Context<S, T, M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Context")
            .field("service", &self.service)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}
