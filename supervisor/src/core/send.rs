//! Messages of an operator. They wait in a lane as all others do, and the core is their sender, by the name `operator`.
//!
//! ```text
//! send ─► does the contract still fit? ─► noted ─► in the lane ─► answered: a tell, or an ask nobody waits for
//!                                                      └► Question ─► answer, let go, died, late ─► answered
//! ```
//! Payloads go by as bytes, both ways. A question is in this core's memory alone: of what its successor is asked about
//! under the same id, that one knows that it was begun, and no more.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use watchdog_keeper::protocol::ToKeeper;
use watchdog_lifecycle::{Kind as ServiceKind, Phase, Service, Span};
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::lane::Kind;
use watchdog_protocol::layout::Asks;
use watchdog_protocol::{Contract, LaneEpoch, MessageId, MessageNumber, ServiceName};
use watchdog_seqpacket::AsyncSeqpacket;

use super::lanes::{Answer, Lane, LaneError, Letter, Made, PostError};
use super::verbs::Asked;
use super::waiting::{Look, Target, end};
use super::{Core, CoreError, Shutdown, chain, now};

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

/// The core's ends of the lanes it sends on.
#[derive(Debug, Default)]
pub(super) struct Operator {
    watched: BTreeMap<LaneEpoch, (ServiceName, AsyncSeqpacket)>,
}

impl Operator {
    /// Waits until a receiver has sent something back, and says which. Cancel safe: it takes nothing.
    pub(super) async fn answer(&self) -> ServiceName {
        poll_fn(|context| {
            for (receiver, end) in self.watched.values() {
                // An error is the runtime's end, and nobody is left to tell.
                if let Poll::Ready(Ok(readable)) = end.poll_readable(context) {
                    readable.drained();
                    return Poll::Ready(receiver.clone());
                }
            }
            Poll::Pending
        })
        .await
    }
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
        let id = match self.try_send(&asked, receiver, &post).await {
            Ok(id) => id,
            Err(Unsent::Refused(failure)) => {
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
        self.may_send(asked, receiver, post)?;
        self.make_operator_lane(receiver, post).await?;
        // Noted first: of what is repeated nobody can tell whether it was sent, and twice is worse than asking.
        self.enter(asked.id, Vec::new());
        let lane =
            self.lanes.find(&ServiceName::operator(), receiver).expect("it is there, or was just made");
        let kind = if post.asks.is_some() { Kind::Ask } else { Kind::Tell };
        // One whose answer nobody waits for is not skipped either.
        let left = post.asks.and(asked.wait);
        let letter = Letter { kind, payload: &post.payload, left, again: false };
        let number = lane.post(&letter).map_err(|error| match error {
            PostError::Full => {
                let text =
                    format!("the operator's lane to `{receiver}` is full, `{}` was not sent", post.name());
                let hint = format!("watchdog intercoms {receiver} shows what waits");
                Failure::new(FailureKind::TryAgain, text).hint(hint)
            }
            PostError::Page(_) | PostError::Send(_) => not_sent(receiver, post, &chain(&error)),
        })?;
        let id = MessageId { epoch: lane.epoch, number };
        if let Some(incarnation) = self.entry(receiver).session.as_ref().map(super::Session::incarnation) {
            self.offer_lanes(receiver, incarnation).await?;
        }
        Ok(id)
    }

    fn may_send(&self, asked: &Asked, receiver: &ServiceName, post: &Post) -> Result<(), Failure> {
        let (entry, name) = (self.entry(receiver), post.name());
        let Some(manifest) = entry.manifest.as_ref().filter(|_| entry.spec.kind() == ServiceKind::Service)
        else {
            let text = format!("`{receiver}` is a plain program and has no inbox");
            return Err(Failure::new(FailureKind::Usage, text));
        };
        if self.answered.find(asked.id).is_some() && post.asks != Some(Asks::UntilAnswered) {
            let text = format!(
                "the watchdog's core was replaced while it sent `{name}` to `{receiver}`: whether it did is not known"
            );
            return Err(Failure::new(FailureKind::Unknown, text).hint("send it again if twice does no harm"));
        }
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
        let size = self.entry(receiver).spec.lane_size;
        let (operator, contract) = (ServiceName::operator(), &post.contract);
        if let Some(lane) = self.lanes.find(&operator, receiver) {
            let is_covered = contract.fits(lane.contract()).is_ok();
            let is_other = !is_covered && lane.contract().fits(contract).is_err();
            if lane.mismatch.is_some() || is_other {
                self.retire(&operator, receiver).await?;
            } else if !is_covered {
                lane.set_contract(contract.clone()).map_err(failed)?;
            }
        }
        let (lane, made) =
            self.lanes.between(&operator, receiver, contract, now().as_nanos()).map_err(failed)?;
        if made == Made::Now {
            let message = ToKeeper::Store { name: lane.stored_name().into_bytes() };
            self.keeper.send(&message, &lane.stored()).await.map_err(CoreError::Keeper)?;
        }
        if let Entry::Vacant(unwatched) = self.operator.watched.entry(lane.epoch) {
            unwatched.insert((receiver.clone(), lane.watch_answers(size).map_err(failed)?));
        }
        Ok(())
    }

    /// After a change of cores.
    pub(super) fn watch_operator_lanes(&mut self) {
        for lane in self.lanes.operators() {
            let Some(entry) = self.entries.get(&lane.receiver) else { continue };
            match lane.watch_answers(entry.spec.lane_size) {
                Ok(end) => {
                    self.operator.watched.insert(lane.epoch, (lane.receiver.clone(), end));
                }
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

    /// What a service has sent back to the operator.
    pub(super) fn read_answers(&mut self, receiver: &ServiceName) {
        let limit = self.config.watchdog.max_message;
        let of_operator = self.lanes.arriving_at(receiver).filter(|lane| lane.is_operators());
        let read: Vec<_> = of_operator.map(|lane| (lane.epoch, lane.read_answers(limit))).collect();
        for (epoch, answers) in read {
            self.heed_answers(epoch, answers);
        }
    }

    fn heed_answers(&mut self, epoch: LaneEpoch, answers: Vec<Answer>) {
        for Answer { number, kind, payload } in answers {
            let id = MessageId { epoch, number };
            self.end_questions(
                |question| question.id == id,
                |question| match kind {
                    Kind::Answer => Ok(Outcome::Answered(payload.clone())),
                    Kind::Skipped => Err(late(question, None)),
                    Kind::Dropped => {
                        let Question { receiver, name, .. } = question;
                        let text = format!("`{receiver}` took `{name}` and let go of it without an answer");
                        let hint = format!("watchdog logs {receiver} -n 20");
                        Err(Failure::new(FailureKind::Failed, text).hint(hint))
                    }
                    Kind::Tell | Kind::Ask => unreachable!("a packet of replies holds none"),
                },
            );
        }
    }

    /// The receiver's process ended: who waits for an answer to what it had taken waits no more, unless the next process
    /// is asked again.
    pub(super) fn questions_died(&mut self, lane: LaneEpoch, taken: MessageNumber) {
        let died = |question: &Question| {
            question.id.epoch == lane && question.id.number <= taken && question.asks == Asks::Once
        };
        self.end_questions(died, |Question { receiver, name, .. }| {
            let text = format!("`{receiver}` died with `{name}` in hand: whether it did it is not known");
            Err(Failure::new(FailureKind::Unknown, text).hint(format!("watchdog why {receiver}")))
        });
    }

    /// It is a dead letter.
    pub(super) fn question_buried(&mut self, id: MessageId, receiver: &ServiceName) {
        self.end_questions(
            |question| question.id == id,
            |Question { name, .. }| {
                let text =
                    format!("`{receiver}` died three times with `{name}` in hand: it is a dead letter now");
                let hint = format!("watchdog dead show {receiver} {id}");
                Err(Failure::new(FailureKind::Unknown, text).hint(hint))
            },
        );
    }

    /// A lane is gone for good, what is left in it was read by nobody.
    pub(super) fn operator_lane_dropped(&mut self, lane: &Lane) {
        if self.operator.watched.remove(&lane.epoch).is_none() {
            return;
        }
        self.heed_answers(lane.epoch, lane.read_answers(self.config.watchdog.max_message));
        self.end_questions(
            |question| question.id.epoch == lane.epoch,
            |Question { receiver, name, .. }| {
                let text = format!("the lane to `{receiver}` is gone, and it has not answered `{name}`");
                Err(Failure::new(FailureKind::Failed, text))
            },
        );
    }

    /// Answers those who wait for these.
    fn end_questions(
        &mut self,
        which: impl Fn(&Question) -> bool,
        result: impl Fn(&Question) -> Result<Outcome, Failure>,
    ) {
        self.waiters.retain(|waiter| match &waiter.target {
            Target::Answer(question) if which(question) => {
                end(&waiter.replies, result(question));
                false
            }
            _ => true,
        });
    }
}

fn late(Question { receiver, name, within, .. }: &Question, waits: Option<String>) -> Failure {
    let why = waits.map(|waits| format!(": {waits}")).unwrap_or_default();
    let text = format!("`{receiver}` has not answered `{name}` within {}{why}", Span(*within));
    let hint = "one that gets to it later skips it; one that has it in hand may still do it";
    Failure::new(FailureKind::TryAgain, text).hint(hint)
}

fn not_sent(receiver: &ServiceName, post: &Post, reason: &str) -> Failure {
    Failure::new(FailureKind::Failed, format!("`{}` can't be sent to `{receiver}`: {reason}", post.name()))
}
