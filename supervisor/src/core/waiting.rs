//! Operators who wait for an effect: each is a predicate over what is, looked at after every step.

use std::path::PathBuf;

use watchdog_lifecycle::{Absence, Moment, Phase, Standing, Work};
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply};
use watchdog_protocol::{Incarnation, RequestId, ServiceName};

use super::audit::Replies;
use super::limits::{Freezing, Limited};
use super::send::Question;
use super::{Core, Shutdown, now};
use crate::store::writer::ChangeNumber;

/// One call that was taken and is not answered yet.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) replies: Replies,
    pub(super) target: Target,
    /// Then it is told to try again; the effect may still come.
    pub(super) deadline: Moment,
    /// Files that must be on disk before it is answered.
    pub(super) durable: Vec<(PathBuf, ChangeNumber)>,
    /// What it was told last.
    pub(super) told: String,
}

/// What is waited for.
#[derive(Debug)]
pub(super) enum Target {
    /// That what it changed is on disk.
    Durable { answer: Outcome },
    /// That each is ready, a task completed, in a process newer than this one.
    Up { services: Vec<(ServiceName, Incarnation)> },
    /// That nothing of them is left.
    Down { services: Vec<ServiceName> },
    /// That the ones are up as above, and nothing of the others is left.
    Scaled { up: Vec<(ServiceName, Incarnation)>, down: Vec<ServiceName> },
    /// That the last word on a settings change is spoken.
    Settings(super::settings::SetWaiter),
    /// That all that a reload takes is done.
    Reloaded(super::reload::Reloaded),
    /// That everything is stopped.
    Shutdown,
    /// That another build took over, or did not.
    Upgrade { id: RequestId },
    /// That a service answers.
    Answer(Question),
    /// That limits are in force, as far as they can be.
    Limited(Limited),
    /// That processes stand still.
    Frozen(Freezing),
}

pub(super) enum Look {
    Done(Outcome),
    Failed(Failure),
    Waits(String),
}

impl Core {
    pub(super) fn has_waiters(&self) -> bool {
        self.waiters.iter().any(|waiter| !matches!(waiter.target, Target::Shutdown))
    }

    pub(super) fn next_waiter_due(&self) -> Option<Moment> {
        self.waiters.iter().map(|waiter| waiter.deadline).min()
    }

    /// Looks at every waiter. The last reply goes with a channel that has room: a client that does not read is
    /// let go.
    pub(super) fn answer_waiters(&mut self) {
        let present = now();
        let waiters = std::mem::take(&mut self.waiters);
        for mut waiter in waiters {
            if waiter.replies.sender().is_closed() {
                continue;
            }
            match self.look(&waiter) {
                Look::Done(outcome) => end(&waiter.replies, Ok(outcome)),
                Look::Failed(failure) => end(&waiter.replies, Err(failure)),
                Look::Waits(text) if waiter.deadline <= present => {
                    let message = format!("not done in time; {text}");
                    let failure = Failure::new(FailureKind::TryAgain, message);
                    end(&waiter.replies, Err(failure.hint("it goes on; `watchdog status` shows how")));
                }
                Look::Waits(text) => {
                    if waiter.told != text {
                        let _ = waiter.replies.sender().try_send(Reply::Progress(text.clone()));
                        waiter.told = text;
                    }
                    self.waiters.push(waiter);
                }
            }
        }
    }

    fn look(&self, waiter: &Waiter) -> Look {
        match &waiter.target {
            Target::Settings(change) => return self.look_at_settings(change, waiter.deadline <= now()),
            Target::Upgrade { id } => return self.upgrade.look(*id, &self.keeper_hello),
            Target::Answer(question) => return self.look_at_question(question, waiter.deadline <= now()),
            Target::Durable { .. }
            | Target::Up { .. }
            | Target::Down { .. }
            | Target::Scaled { .. }
            | Target::Reloaded(_)
            | Target::Limited(_)
            | Target::Frozen(_)
            | Target::Shutdown => {}
        }
        if let Some(failed) = self.failed_change(&waiter.durable) {
            return Look::Failed(failed);
        }
        if !waiter.durable.is_empty() && !self.are_durable(&waiter.durable) {
            return Look::Waits("what you want is being written to disk".to_owned());
        }
        match &waiter.target {
            Target::Durable { answer } => Look::Done(answer.clone()),
            Target::Up { .. } | Target::Scaled { .. } | Target::Reloaded(_)
                if self.shutdown == Shutdown::Stopping =>
            {
                Look::Failed(Failure::new(FailureKind::Failed, "the watchdog shuts down"))
            }
            Target::Up { services } => self.look_up(services),
            Target::Down { services } => self.look_down(services),
            Target::Scaled { up, down } => match (self.look_up(up), self.look_down(down)) {
                (Look::Failed(failure), _) | (_, Look::Failed(failure)) => Look::Failed(failure),
                (Look::Waits(up), Look::Waits(down)) => Look::Waits(format!("{up}; {down}")),
                (Look::Waits(text), Look::Done(_)) | (Look::Done(_), Look::Waits(text)) => Look::Waits(text),
                (Look::Done(_), Look::Done(_)) => {
                    let up = up.iter().map(|(name, _)| name);
                    Look::Done(self.outcome(&up.chain(down).cloned().collect::<Vec<_>>()))
                }
            },
            Target::Reloaded(reloaded) => self.look_at_reloaded(reloaded),
            Target::Limited(limited) => self.look_at_limits(limited),
            Target::Frozen(freezing) => self.look_at_freezing(freezing),
            Target::Shutdown if self.roster.is_at_rest() => Look::Done(Outcome::Done("stopped".to_owned())),
            Target::Shutdown => {
                let live =
                    self.roster.iter().filter(|(_, _, s)| s.is_live()).map(|(name, _, _)| name.as_str());
                Look::Waits(format!("waiting for {}", live.collect::<Vec<_>>().join(", ")))
            }
            Target::Settings(_) | Target::Upgrade { .. } | Target::Answer(_) => {
                unreachable!("looked at above")
            }
        }
    }

    pub(super) fn look_up(&self, services: &[(ServiceName, Incarnation)]) -> Look {
        let mut waits = Vec::new();
        for (name, before) in services {
            let Some(service) = self.roster.get(name) else {
                return Look::Failed(Failure::new(FailureKind::Failed, format!("{name} was unregistered")));
            };
            let new = service.incarnation() > *before;
            let is_task = self.roster.policy(name).is_some_and(|policy| policy.work == Work::Once);
            match service.phase() {
                Phase::Ready(_) if new && !is_task => {}
                Phase::Completed { .. } if new => {}
                Phase::Failed { cause, .. } => {
                    let failure = Failure::new(FailureKind::Failed, format!("{name} failed: {cause}"));
                    let hint = format!("watchdog logs {name} -n 20");
                    return Look::Failed(failure.hint(hint));
                }
                phase => waits.push(match self.roster.standing(name) {
                    Standing::Blocked { by, absence } => {
                        let text = format!(
                            "{name} is wanted and starts when {by} is ready: it requires {by}, which {}",
                            is_absent(absence)
                        );
                        let failure = Failure::new(FailureKind::NotRunning, text);
                        return Look::Failed(failure.hint(format!("watchdog start {by}")));
                    }
                    Standing::Free => match phase {
                        Phase::Starting(starting) => match &starting.progress {
                            Some(progress) => format!("{name}: starting: {}", progress.text),
                            None => format!("{name}: starting"),
                        },
                        Phase::Ready(_) if is_task => format!("{name}: running"),
                        other => format!("{name}: {}", other.as_str()),
                    },
                    Standing::Waiting { on } => format!("{name}: waiting for {}", list(&on)),
                }),
            }
        }
        if waits.is_empty() {
            let names: Vec<_> = services.iter().map(|(name, _)| name.clone()).collect();
            return Look::Done(self.outcome(&names));
        }
        Look::Waits(waits.join("; "))
    }

    pub(super) fn look_down(&self, services: &[ServiceName]) -> Look {
        let mut waits = Vec::new();
        for name in services {
            let Some(service) = self.roster.get(name).filter(|service| service.is_live()) else {
                if self.is_settling(name) {
                    waits.push(format!("{name}: its state is being written to disk"));
                }
                continue;
            };
            let survivors = service.phase().survivors();
            waits.push(match service.phase() {
                _ if !survivors.is_empty() => {
                    format!("{name}: killed and still there: process {}", list(survivors))
                }
                Phase::Stopping(_) => format!("{name}: stopping"),
                _ => {
                    let first: Vec<_> = self
                        .roster
                        .iter()
                        .filter(|(_, policy, other)| policy.requires.contains(name) && other.is_live())
                        .map(|(other, _, _)| other.as_str())
                        .collect();
                    format!("{name}: waiting for {} to stop first", first.join(", "))
                }
            });
        }
        if waits.is_empty() { Look::Done(self.outcome(services)) } else { Look::Waits(waits.join("; ")) }
    }

    fn outcome(&self, services: &[ServiceName]) -> Outcome {
        Outcome::Status(Box::new(self.status(services)))
    }
}

/// The last reply of a call.
pub(super) fn end(replies: &Replies, result: Result<Outcome, Failure>) {
    replies.end(result);
}

fn is_absent(absence: Absence) -> &'static str {
    match absence {
        Absence::Stopped => "is stopped",
        Absence::Failed => "failed",
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
