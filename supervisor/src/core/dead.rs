//! Dead letters: moved before the next process of their receiver starts; listed, put back and dropped by an operator.
//!
//! ```text
//! before a spawn:  the last end is counted ─► three with the same message in hand?
//!                  ─► copied out of the lane ─► on disk ─► passed over in the lane ─► its asker is told
//! ```
//! In this order: a core that is killed in between moves it again, to the same file, and a message that could not be
//! kept stays where it is. The disk is waited for: the next process must not meet the message once more.

use tokio::task::spawn_blocking;
use watchdog_lifecycle::Kind as ServiceKind;
use watchdog_lifecycle::poison::Suspect;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::dead::{DeadLetter, DeathRecord, WholeDeadLetter};
use watchdog_protocol::lane::Kind;
use watchdog_protocol::session::ToService;
use watchdog_protocol::{Incarnation, LaneEpoch, MessageId, ServiceName};

use super::audit::Replies;
use super::events::Entry as Logged;
use super::lanes::{Copied, LaneError, Letter, LetterError, PostError};
use super::verbs::Asked;
use super::waiting::end;
use super::{Core, chain, wall_time};
use crate::store::dead::{self, MoveError, ReadError};

/// Answers that are remembered: a client repeats within seconds.
const DEEDS: usize = 64;

/// What an entry of the event log about a dead letter says it is.
const DEAD_LETTER: &str = "dead-letter";

/// Why a message is still in its lane.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error("it can't be taken out of the lane")]
    Letter(#[from] LetterError),
    #[error("the lane can't be told")]
    Lane(#[from] LaneError),
    #[error(transparent)]
    Move(#[from] MoveError),
}

/// What an operator does with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Back into the lane.
    Retry,
    Drop,
}

impl Core {
    /// Counts the last end of a service, whose next process is about to start, and moves what has killed too many.
    pub(super) fn move_dead_letters(&mut self, service: &ServiceName) {
        let Some(last) = self.roster.get(service).and_then(|service| service.last_end()).cloned() else {
            return;
        };
        let mut poisoned = Vec::new();
        for lane in self.lanes.arriving_at(service) {
            lane.receiver_ended(last.incarnation, &last.cause);
            poisoned.extend(lane.poison().map(|suspect| (lane.epoch, lane.sender.clone(), suspect)));
        }
        for (epoch, sender, suspect) in poisoned {
            match self.move_dead_letter(epoch, &suspect) {
                Ok(Some(letter)) => self.moved(&letter, last.incarnation),
                Ok(None) => {}
                Err(stays) => {
                    let number = suspect.number();
                    let text = format!(
                        "message {number} from {sender} has ended {} processes and stays in its lane: {}",
                        suspect.deaths().len(),
                        chain(&stays)
                    );
                    self.events.add(Logged::of(service, DEAD_LETTER, text).at(last.incarnation));
                }
            }
        }
    }

    fn move_dead_letter(&mut self, epoch: LaneEpoch, suspect: &Suspect) -> Result<Option<DeadLetter>, Stays> {
        let limit = self.config.watchdog.max_message;
        let state = self.config.watchdog.state.clone();
        let Some(lane) = self.lanes.named(epoch) else { return Ok(None) };
        let number = suspect.number();
        let Some(Copied { kind, payload }) = lane.copy(number, limit)? else {
            lane.clear_suspect(number);
            return Ok(None);
        };
        let death = |death: &watchdog_lifecycle::poison::Death| DeathRecord {
            incarnation: death.incarnation,
            cause: death.cause.clone(),
        };
        let letter = DeadLetter {
            id: MessageId { epoch, number },
            receiver: lane.receiver.clone(),
            sender: lane.sender.clone(),
            message: lane.contract().name_of(&payload).map(str::to_owned),
            asked: kind == Kind::Ask,
            size: payload.len() as u64,
            moved_us: wall_time().as_micros(),
            deaths: suspect.deaths().iter().map(death).collect(),
        };
        let whole = WholeDeadLetter { letter, payload };
        dead::bury(&state, &whole)?;
        lane.pass_over(number)?;
        Ok(Some(whole.letter))
    }

    fn moved(&mut self, letter: &DeadLetter, last: Incarnation) {
        let DeadLetter { id, receiver, sender, deaths, .. } = letter;
        let name = letter.message.as_deref().unwrap_or("unknown");
        let text = format!(
            "message {id} (`{name}` from {sender}) is a dead letter: {} processes ended with it in hand",
            deaths.len()
        );
        self.events.add(Logged::of(receiver, DEAD_LETTER, text).at(last));
        if letter.asked {
            let (lane, number) = (id.epoch, id.number);
            self.tell(sender, &ToService::Buried { lane, incarnation: last, number }, Vec::new());
            self.question_buried(*id, receiver);
        }
    }

    /// `dead ls`.
    pub(super) fn dead_letters(&mut self, asked: &Asked, services: &[ServiceName]) {
        let mut services = self.named_services(services);
        services.retain(|name| self.entry(name).spec.kind() == ServiceKind::Service);
        let state = self.config.watchdog.state.clone();
        let replies = Replies::unrecorded(asked.replies.sender().clone());
        self.tasks.spawn(async move {
            let listed = spawn_blocking(move || {
                let mut all = Vec::new();
                for service in services {
                    let (letters, unread) = dead::list(&state, &service)?;
                    for error in unread {
                        tracing::error!("a dead letter of {service}: {}", chain(&error));
                    }
                    all.extend(letters);
                }
                Ok::<_, ReadError>(all)
            });
            let listed = match listed.await {
                Ok(listed) => listed,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            end(&replies, listed.map(Outcome::DeadLetters).map_err(|error| unread(&error)));
        });
    }

    /// `dead show`.
    pub(super) fn dead_letter(&self, asked: &Asked, service: &ServiceName, id: MessageId) {
        let found = dead::read(&self.config.watchdog.state, service, id);
        let found = found.map(|whole| Outcome::DeadLetter(Box::new(whole)));
        end(&asked.replies, found.map_err(|error| unread(&error)));
    }

    /// `dead retry` and `dead drop`. A repeated request is answered as this core answered it; of one that an older core
    /// took, the rest is done.
    pub(super) fn dead_deed(&mut self, asked: &Asked, service: &ServiceName, ids: &[MessageId], deed: Deed) {
        if let Some((_, done)) = self.deeds.iter().find(|(id, _)| *id == asked.id) {
            end(&asked.replies, done.clone().map(Outcome::Done));
            return;
        }
        let done = match self.answered.find(asked.id) {
            None => self.try_dead_deed(asked, service, ids, deed).map(|count| said(deed, service, count)),
            Some(_) => self.go_on_with_dead_deed(asked, service, ids, deed),
        };
        if self.deeds.len() == DEEDS {
            self.deeds.pop_front();
        }
        self.deeds.push_back((asked.id, done.clone()));
        end(&asked.replies, done.map(Outcome::Done));
    }

    /// An older core had it in hand. Of letters that were named, those that are there are left to do: all of them were
    /// there when it began. Which those of an unnamed all were, nobody knows any more.
    fn go_on_with_dead_deed(
        &mut self,
        asked: &Asked,
        service: &ServiceName,
        ids: &[MessageId],
        deed: Deed,
    ) -> Result<String, Failure> {
        let (letters, _) =
            dead::list(&self.config.watchdog.state, service).map_err(|error| unread(&error))?;
        let left: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        if !ids.is_empty() {
            let left: Vec<_> = ids.iter().copied().filter(|id| left.contains(id)).collect();
            if !left.is_empty() {
                self.try_dead_deed(asked, service, &left, deed)?;
            }
            return Ok(said(deed, service, ids.len()));
        }
        let done = match deed {
            Deed::Retry => "put back",
            Deed::Drop => "dropped",
        };
        if left.is_empty() {
            return Ok(format!("{service}: all dead letters {done}"));
        }
        let left = match left.len() {
            1 => format!("1 dead letter of `{service}` is there, which was"),
            many => format!("{many} dead letters of `{service}` are there, which were"),
        };
        let text = format!("the watchdog's core was replaced over it: {left} not {done} or came since");
        Err(Failure::new(FailureKind::Unknown, text).hint(format!("watchdog dead ls {service}")))
    }

    fn try_dead_deed(
        &mut self,
        asked: &Asked,
        service: &ServiceName,
        ids: &[MessageId],
        deed: Deed,
    ) -> Result<usize, Failure> {
        let state = self.config.watchdog.state.clone();
        let ids: Vec<MessageId> = if ids.is_empty() {
            let (letters, _) = dead::list(&state, service).map_err(|error| unread(&error))?;
            letters.iter().map(|letter| letter.id).collect()
        } else {
            ids.to_vec()
        };
        // All are there, or none is touched.
        let read = |id: &MessageId| dead::read(&state, service, *id).map_err(|error| unread(&error));
        let letters = ids.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        self.enter(asked.id, Vec::new());
        for whole in letters {
            let letter = whole.letter.clone();
            if deed == Deed::Retry {
                self.put_back(whole)?;
            }
            dead::remove(&state, service, letter.id)
                .map_err(|error| Failure::new(FailureKind::Failed, chain(&error)))?;
            let what = match deed {
                Deed::Retry => "is back in its lane",
                Deed::Drop => "is dropped",
            };
            let text = format!("dead letter {} from {} {what}, by {}", letter.id, letter.sender, asked.by);
            self.events.add(Logged::of(service, DEAD_LETTER, text).by(&asked.by));
        }
        Ok(ids.len())
    }

    fn put_back(&mut self, whole: WholeDeadLetter) -> Result<(), Failure> {
        let WholeDeadLetter { letter, payload } = whole;
        let (id, sender, receiver) = (letter.id, &letter.sender, &letter.receiver);
        let stays = |kind, why: String| {
            Failure::new(kind, format!("dead letter {id} from `{sender}` to `{receiver}` stays: {why}"))
        };
        let Some(lane) = self.lanes.find(sender, receiver) else {
            let why = "there is no lane to put it in".to_owned();
            let hint = format!("`{sender}` makes one when it asks for `{receiver}` the next time");
            return Err(stays(FailureKind::Failed, why).hint(hint));
        };
        if let Some(mismatch) = &lane.mismatch {
            return Err(stays(FailureKind::Failed, format!("the contracts differ: {mismatch}")));
        }
        let kind = if letter.asked { Kind::Ask } else { Kind::Tell };
        // An ask has no deadline, and nobody waits for its answer.
        let back = Letter { kind, payload: &payload, left: None, again: true };
        lane.post(&back).map(drop).map_err(|error| match error {
            PostError::Full => stays(FailureKind::TryAgain, chain(&error)),
            PostError::Page(_) | PostError::Shut | PostError::Send(_) => {
                stays(FailureKind::Failed, chain(&error))
            }
        })
    }
}

fn said(deed: Deed, service: &ServiceName, count: usize) -> String {
    let letters = if count == 1 { "1 dead letter".to_owned() } else { format!("{count} dead letters") };
    match deed {
        Deed::Retry => format!("{service}: {letters} put back"),
        Deed::Drop => format!("{service}: {letters} dropped"),
    }
}

fn unread(error: &ReadError) -> Failure {
    match error {
        ReadError::Absent { service, .. } => {
            let hint = format!("`watchdog dead ls {service}` lists them");
            Failure::new(FailureKind::Usage, chain(error)).hint(hint)
        }
        ReadError::Read { .. } | ReadError::Damaged { .. } => Failure::new(FailureKind::Failed, chain(error)),
    }
}
