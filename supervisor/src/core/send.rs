//! Messages of an operator. They wait in a lane as all others do, and the core is their sender, by the name `operator`.
//!
//! ```text
//! send ─► does the contract still fit? ─► noted ─► in the lane ─► answered: a tell, or an ask nobody waits for
//!                                                      └► Question ─► answer, let go, died, late ─► answered
//! ```
//! Payloads go by as bytes, both ways. A question is in this core's memory alone: of what its successor is asked about
//! under the same id, that one knows that it was begun, and no more.

use std::time::Duration;

use watchdog_lifecycle::{Kind as ServiceKind, Phase, Service, Span};
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::lane::Kind;
use watchdog_protocol::layout::Asks;
use watchdog_protocol::{Contract, LaneEpoch, MessageId, MessageNumber, ServiceName};
use watchdog_seqpacket::Wear;

use super::introduce::OpenError;
use super::lanes::answers::Left;
use super::lanes::{Found, Lane, LaneError, Letter, PostError};
use super::verbs::Asked;
use super::waiting::{Look, Target, Waiter, end};
use super::{Core, CoreError, Shutdown, chain};

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Post {
    /// The receiver's, as the operator knows it, up to and with this message.
    pub(super) contract: Contract,
    pub(super) asks: Option<Asks>,
    pub(super) payload: Vec<u8>,
}

impl Post {
    fn name(&self) -> &str {
        self.contract.0.last().map_or("", |shape| &shape.name)
    }
}

/// An ask of an operator who waits for its answer.
#[derive(Debug)]
pub(super) struct Question {
    id: MessageId,
    receiver: ServiceName,
    /// The message's name.
    name: String,
    asks: Asks,
    within: Duration,
}

/// Why a message was not sent.
enum Unsent {
    Refused(Failure),
    Core(CoreError),
}

impl From<Failure> for Unsent {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<CoreError> for Unsent {
    fn from(error: CoreError) -> Self {
        Self::Core(error)
    }
}

impl Core {
    /// `send`.
    pub(super) async fn send_asked(
        &mut self,
        asked: Asked,
        receiver: &ServiceName,
        post: Post,
    ) -> Result<(), CoreError> {
        let is_repeated = self.answered.find(asked.id).is_some();
        let id = match self.try_send(&asked, receiver, &post).await {
            Ok(id) => id,
            Err(Unsent::Refused(failure)) => {
                let failure = if is_repeated { unknown(receiver, &post, Some(&failure)) } else { failure };
                end(&asked.replies, Err(failure));
                return Ok(());
            }
            Err(Unsent::Core(error)) => return Err(error),
        };
        match (post.asks, asked.wait) {
            (Some(asks), Some(within)) => {
                let (receiver, name) = (receiver.clone(), post.name().to_owned());
                let question = Question { id, receiver, name, asks, within };
                self.wait_for(asked, Target::Answer(question), Vec::new());
            }
            (None, _) | (_, None) => end(&asked.replies, Ok(Outcome::Sent { waits: self.waits(receiver) })),
        }
        Ok(())
    }

    async fn try_send(
        &mut self,
        asked: &Asked,
        receiver: &ServiceName,
        post: &Post,
    ) -> Result<MessageId, Unsent> {
        if self.answered.find(asked.id).is_some() && post.asks != Some(Asks::UntilAnswered) {
            return Err(unknown(receiver, post, None).into());
        }
        self.may_send(receiver, post)?;
        self.make_operator_lane(receiver, post).await?;
        // Noted first: of what is repeated nobody can tell whether it was sent, and twice is worse than asking.
        self.enter(asked.id, Vec::new());
        let mut posted = self.post(asked, receiver, post);
        if let Err(PostError::Shut) = posted {
            // By a process of the receiver; the next lane is as good as new.
            self.retire_worn(&ServiceName::operator(), receiver, Wear::Shutdown).await?;
            self.make_operator_lane(receiver, post).await?;
            posted = self.post(asked, receiver, post);
        }
        let id = posted.map_err(|error| match error {
            PostError::Full => {
                let text =
                    format!("the operator's lane to `{receiver}` is full, `{}` was not sent", post.name());
                let hint = format!("watchdog intercoms {receiver} shows what waits");
                Failure::new(FailureKind::TryAgain, text).hint(hint)
            }
            PostError::Page(_) | PostError::Shut | PostError::Send(_) => {
                not_sent(receiver, post, &chain(&error))
            }
        })?;
        if let Some(incarnation) = self.entry(receiver).session.as_ref().map(super::Session::incarnation) {
            self.offer_lanes(receiver, incarnation).await?;
        }
        Ok(id)
    }

    fn post(&mut self, asked: &Asked, receiver: &ServiceName, post: &Post) -> Result<MessageId, PostError> {
        let lane =
            self.lanes.find(&ServiceName::operator(), receiver).expect("it is there, or was just made");
        let kind = if post.asks.is_some() { Kind::Ask } else { Kind::Tell };
        // One whose answer nobody waits for is not skipped either.
        let left = post.asks.and(asked.wait);
        let number = lane.post(&Letter { kind, payload: &post.payload, left, again: false })?;
        Ok(MessageId { epoch: lane.epoch, number })
    }

    fn may_send(&self, receiver: &ServiceName, post: &Post) -> Result<(), Failure> {
        let (entry, name) = (self.entry(receiver), post.name());
        let Some(manifest) = entry.manifest.as_ref().filter(|_| entry.spec.kind() == ServiceKind::Service)
        else {
            let text = format!("`{receiver}` is a plain program and has no inbox");
            return Err(Failure::new(FailureKind::Usage, text));
        };
        let (length, most) = (post.payload.len(), self.config.watchdog.max_message);
        if length > most {
            let text = format!("`{name}` has {length} bytes, at most {most} are sent (max_message)");
            return Err(Failure::new(FailureKind::Usage, text));
        }
        if let Err(mismatch) = post.contract.fits(&manifest.contract) {
            let text = format!("`{receiver}` was built anew since it told what it takes: {mismatch}");
            return Err(Failure::new(FailureKind::TryAgain, text).hint("nothing was sent: send it again"));
        }
        Ok(())
    }

    /// The operator's lane to a service, by a contract that covers this message. One whose messages are of another
    /// contract is retired: they wait for a build that takes them, and hold up nobody.
    async fn make_operator_lane(&mut self, receiver: &ServiceName, post: &Post) -> Result<(), Unsent> {
        let failed = |error: LaneError| not_sent(receiver, post, &chain(&error));
        let (operator, contract) = (ServiceName::operator(), &post.contract);
        let mut watched = None;
        if let Some(lane) = self.lanes.find(&operator, receiver) {
            let is_covered = contract.fits(lane.contract()).is_ok();
            let is_other = !is_covered && lane.contract().fits(contract).is_err();
            if lane.mismatch.is_some() || is_other {
                self.retire(&operator, receiver).await?;
            } else {
                if !is_covered {
                    lane.set_contract(contract.clone()).map_err(failed)?;
                }
                watched = Some(lane.epoch).filter(|lane| self.answers.is_watching(*lane));
            }
        }
        let opened = self.open_lane(&operator, receiver, contract, |lane, size| {
            let is_new = watched != Some(lane.epoch);
            Ok(if is_new { Some((lane.epoch, lane.watch_answers(size)?)) } else { None })
        });
        match opened.await {
            Ok(Some((lane, end))) => self.answers.watch(lane, end),
            Ok(None) => {}
            Err(OpenError::Lane(error)) => return Err(failed(error).into()),
            Err(OpenError::Core(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// After a change of cores.
    pub(super) fn watch_operator_lanes(&mut self) {
        for lane in self.lanes.operators() {
            let Some(entry) = self.entries.get(&lane.receiver) else { continue };
            match lane.watch_answers(entry.spec.lane_size) {
                Ok(end) => self.answers.watch(lane.epoch, end),
                // It is tried again with the next message.
                Err(error) => tracing::warn!("the operator's lane to {}: {}", lane.receiver, chain(&error)),
            }
        }
    }

    /// Why a message to it waits, in words; `None`: it is ready.
    fn waits(&self, receiver: &ServiceName) -> Option<String> {
        let phase = self.roster.get(receiver)?.phase();
        match phase {
            Phase::Ready(_) => None,
            phase => Some(format!("{receiver} is {}, the message waits in its lane", phase.as_str())),
        }
    }

    pub(super) fn look_at_question(&self, question: &Question, is_late: bool) -> Look {
        let Question { receiver, name, .. } = question;
        let waits = self.waits(receiver);
        if is_late {
            return Look::Failed(late(question, waits));
        }
        let is_live = self.roster.get(receiver).is_some_and(Service::is_live);
        if self.shutdown == Shutdown::Stopping && !is_live {
            let text = format!("the watchdog shuts down, and `{receiver}` has not answered `{name}`");
            return Look::Failed(Failure::new(FailureKind::NotRunning, text));
        }
        Look::Waits(waits.unwrap_or_else(|| format!("waiting for {receiver} to answer {name}")))
    }

    /// Something was sent back to the operator: one turn of it.
    pub(super) async fn take_answers(&mut self, epoch: LaneEpoch) -> Result<(), CoreError> {
        let (limit, waiters) = (self.config.watchdog.max_message, &mut self.waiters);
        let Some(lane) = self.lanes.named(epoch) else { return Ok(()) };
        if self.answers.take(lane, |found| heed(waiters, epoch, &found, limit)) != Left::End {
            return Ok(());
        }
        let receiver = lane.receiver.clone();
        if !lane.is_retired() {
            // What is queued is served all the same.
            self.retire_worn(&ServiceName::operator(), &receiver, Wear::Shutdown).await?;
        }
        let is_its = |question: &Question| question.id.epoch == epoch;
        end_questions(&mut self.waiters, is_its, |Question { receiver, name, .. }| {
            let text = format!(
                "`{receiver}` shut its lane before it answered `{name}`: whether it did it is not known"
            );
            Err(Failure::new(FailureKind::Unknown, text).hint(format!("watchdog logs {receiver} -n 20")))
        });
        Ok(())
    }

    /// What a process that ended has sent back to the operator counts.
    pub(super) fn take_last_answers(&mut self, receiver: &ServiceName) {
        let (limit, waiters) = (self.config.watchdog.max_message, &mut self.waiters);
        for lane in self.lanes.arriving_at(receiver).filter(|lane| lane.is_operators()) {
            self.answers.take_last(lane, |found| heed(waiters, lane.epoch, &found, limit));
        }
    }

    /// The receiver's process ended: who waits for an answer to what it had taken waits no more, unless the next process
    /// is asked again.
    pub(super) fn questions_died(&mut self, lane: LaneEpoch, taken: MessageNumber, done: MessageNumber) {
        let died = |Question { id, asks, .. }: &Question| {
            // What was done comes to no other process either: its reply was kept longer.
            id.epoch == lane && id.number <= taken && (*asks == Asks::Once || id.number <= done)
        };
        end_questions(&mut self.waiters, died, |Question { receiver, name, .. }| {
            let text = format!("`{receiver}` died with `{name}` in hand: whether it did it is not known");
            Err(Failure::new(FailureKind::Unknown, text).hint(format!("watchdog why {receiver}")))
        });
    }

    /// It is a dead letter.
    pub(super) fn question_buried(&mut self, id: MessageId, receiver: &ServiceName) {
        let is_it = |question: &Question| question.id == id;
        end_questions(&mut self.waiters, is_it, |Question { name, .. }| {
            let text =
                format!("`{receiver}` died three times with `{name}` in hand: it is a dead letter now");
            let hint = format!("watchdog dead show {receiver} {id}");
            Err(Failure::new(FailureKind::Unknown, text).hint(hint))
        });
    }

    /// A lane is gone for good, what is left in it was read by nobody.
    pub(super) fn operator_lane_dropped(&mut self, lane: &Lane) {
        if !lane.is_operators() {
            return;
        }
        let (limit, waiters) = (self.config.watchdog.max_message, &mut self.waiters);
        self.answers.take_last(lane, |found| heed(waiters, lane.epoch, &found, limit));
        self.answers.forget(lane.epoch);
        let is_its = |question: &Question| question.id.epoch == lane.epoch;
        end_questions(&mut self.waiters, is_its, |Question { receiver, name, .. }| {
            let text = format!("the lane to `{receiver}` is gone, and it has not answered `{name}`");
            Err(Failure::new(FailureKind::Failed, text))
        });
    }
}

/// What a receiver sent back. Of what nobody waits for nothing is read.
fn heed(waiters: &mut Vec<Waiter>, epoch: LaneEpoch, found: &Found<'_>, limit: usize) {
    let id = MessageId { epoch, number: found.envelope.number };
    let is_it = |question: &Question| question.id == id;
    end_questions(waiters, is_it, |question| {
        let Question { receiver, name, .. } = question;
        let failed = |text| {
            let hint = format!("watchdog logs {receiver} -n 20");
            Err(Failure::new(FailureKind::Failed, text).hint(hint))
        };
        match found.envelope.kind {
            Kind::Answer => match found.payload(limit) {
                Ok(payload) => Ok(Outcome::Answered(payload)),
                Err(error) => {
                    failed(format!("`{receiver}` answered `{name}` by what can't be read: {}", chain(&error)))
                }
            },
            Kind::Skipped => Err(late(question, None)),
            Kind::Dropped => failed(format!("`{receiver}` took `{name}` and let go of it without an answer")),
            Kind::Tell | Kind::Ask => unreachable!("a packet of replies holds none"),
        }
    });
}

/// Answers those who wait for these.
fn end_questions(
    waiters: &mut Vec<Waiter>,
    which: impl Fn(&Question) -> bool,
    result: impl Fn(&Question) -> Result<Outcome, Failure>,
) {
    waiters.retain(|waiter| match &waiter.target {
        Target::Answer(question) if which(question) => {
            end(&waiter.replies, result(question));
            false
        }
        _ => true,
    });
}

fn late(Question { receiver, name, within, .. }: &Question, waits: Option<String>) -> Failure {
    let why = waits.map(|waits| format!(": {waits}")).unwrap_or_default();
    let text = format!("`{receiver}` has not answered `{name}` within {}{why}", Span(*within));
    let hint = "one that gets to it later skips it; one that has it in hand may still do it";
    Failure::new(FailureKind::TryAgain, text).hint(hint)
}

/// The core before this one may have sent it. `now`: why this one can't.
fn unknown(receiver: &ServiceName, post: &Post, now: Option<&Failure>) -> Failure {
    let now = now.map(|failure| format!("; it is not repeated: {}", failure.message)).unwrap_or_default();
    let text = format!(
        "the watchdog's core was replaced while it sent `{}` to `{receiver}`: whether it did is not known{now}",
        post.name()
    );
    Failure::new(FailureKind::Unknown, text).hint("send it again if twice does no harm")
}

fn not_sent(receiver: &ServiceName, post: &Post, reason: &str) -> Failure {
    Failure::new(FailureKind::Failed, format!("`{}` can't be sent to `{receiver}`: {reason}", post.name()))
}
