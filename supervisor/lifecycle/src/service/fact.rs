//! What happened to a process, and what it means for its service.

use std::time::Duration;

use watchdog_protocol::Incarnation;
use watchdog_protocol::session::{Health, Progress};

use super::{Service, Turn};
use crate::cause::{Cause, End, Exit, ExitReport, Manner, WatchdogReason};
use crate::event::{Command, Fact, Fallback, Haste, Occurrence, Purpose, Refusal};
use crate::host::HostLook;
use crate::phase::{Live, Next, Phase, Pulse, Ready, Spawn, Stopping};
use crate::policy::{Kind, Liveness, MISSES, Policy, Readiness};

/// The exit code of an SDK service that can't work with its settings (`EX_CONFIG`).
const EXIT_CONFIG: i32 = 78;

/// The exit code of an SDK service that can't work with its state (`EX_DATAERR`).
const EXIT_DATA: i32 = 65;

impl Service {
    pub(super) fn fact(&mut self, incarnation: Incarnation, fact: Fact, turn: &mut Turn<'_>) {
        if self.phase.incarnation() != Some(incarnation) {
            match fact {
                Fact::Spawned => self.unrecorded(incarnation, turn),
                Fact::SpawnFailed { .. }
                | Fact::Refused(_)
                | Fact::Ready
                | Fact::Exited(_)
                | Fact::Gone
                | Fact::Survivors { .. }
                | Fact::Health(_)
                | Fact::Progress(_)
                | Fact::NeedsTime { .. }
                | Fact::Says(_)
                | Fact::MainIs(_)
                | Fact::Leaving
                | Fact::Heartbeat
                | Fact::ProbeMissed
                | Fact::Host(_)
                | Fact::CalledHung
                | Fact::SettingsRefused { .. }
                | Fact::ProtocolBroken { .. } => {}
            }
            return;
        }
        match fact {
            Fact::Spawned => self.spawned(turn),
            Fact::SpawnFailed { step, reason } => {
                self.never_was(Cause::Spawn { step, reason }, Next::AsPolicySays, turn);
            }
            Fact::Refused(Refusal::Settings { revision, reason }) => {
                self.never_was(
                    Cause::Settings { revision: Some(revision), reason },
                    Next::AsPolicySays,
                    turn,
                );
            }
            Fact::Refused(Refusal::State { reason }) => {
                self.never_was(Cause::State { reason }, Next::AsPolicySays, turn);
            }
            Fact::Refused(Refusal::Configuration { reason }) => {
                self.never_was(Cause::Spawn { step: "configuration".to_owned(), reason }, Next::Never, turn);
            }
            Fact::Ready => self.ready(turn),
            Fact::Exited(report) => self.exited(report, turn),
            Fact::Gone => self.gone(turn),
            Fact::Survivors { pids } => self.survivors(pids, turn),
            Fact::Health(health) => self.health(health, turn),
            Fact::Progress(progress) => self.progress(progress, turn),
            Fact::NeedsTime { at_least } => self.needs_time(at_least, turn),
            Fact::Says(text) => self.says = text,
            Fact::MainIs(pid) => self.main = pid,
            Fact::Leaving => self.leaving(turn),
            Fact::Heartbeat => self.heartbeat(turn),
            Fact::ProbeMissed => self.missed(turn),
            Fact::Host(look) => self.looked_at(&look, turn),
            Fact::CalledHung => self.called_hung(turn),
            Fact::SettingsRefused { revision, reason, fallback } => {
                let next = match fallback {
                    Fallback::Revision(_) => Next::FallBack,
                    Fallback::None => Next::AsPolicySays,
                };
                let cause = Cause::Settings { revision: Some(revision), reason };
                self.stop(cause, Haste::Orderly, next, turn);
            }
            Fact::ProtocolBroken { reason } => {
                self.stop(Cause::Protocol { reason }, Haste::AtOnce, Next::AsPolicySays, turn);
            }
        }
    }

    /// A process that no record knows: the record is older than it. It must go before anything else comes.
    fn unrecorded(&mut self, incarnation: Incarnation, turn: &mut Turn<'_>) {
        self.incarnation = self.incarnation.max(incarnation);
        if self.is_live() {
            // Of two, the recorded one stays.
            turn.commands.push(Command::KillAll { incarnation });
            return;
        }
        let cause = Cause::Watchdog { reason: WatchdogReason::Unrecorded };
        self.phase =
            Phase::Stopping(Box::new(Stopping::killing(incarnation, None, cause, Manner::Killed, turn)));
    }

    fn spawned(&mut self, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Starting(starting)) => {
                starting.spawn = Spawn::Done;
                match turn.policy.ready {
                    Readiness::Told => {}
                    Readiness::Exec => self.ready(turn),
                    Readiness::Probe => {
                        let (incarnation, purpose) = (starting.incarnation, Purpose::Ready);
                        turn.commands.push(Command::StartProbe { incarnation, purpose });
                    }
                }
            }
            Some(Live::Ready(_) | Live::Stopping(_)) | None => {}
        }
    }

    fn ready(&mut self, turn: &mut Turn<'_>) {
        let starting = match self.phase.live() {
            Some(Live::Starting(starting)) => starting,
            Some(Live::Ready(_) | Live::Stopping(_)) | None => return,
        };
        let (incarnation, now) = (starting.incarnation, turn.now);
        if starting.is_probed(turn.policy) {
            turn.commands.push(Command::StopProbe { incarnation });
        }
        let pulse = match turn.policy.liveness {
            Liveness::Unwatched => Pulse::Unwatched,
            Liveness::Heartbeat { interval } => Pulse::Beating { due: now.after(interval), missed: 0 },
            Liveness::Probe { .. } => {
                turn.commands.push(Command::StartProbe { incarnation, purpose: Purpose::Alive });
                Pulse::Probed { missed: 0 }
            }
        };
        let ready = Ready {
            incarnation,
            started: starting.since,
            since: now,
            health: starting.health.clone(),
            health_since: now,
            pulse,
        };
        let took = now.since(ready.started);
        self.phase = Phase::Ready(ready);
        turn.log(Occurrence::Ready { incarnation, took });
    }

    /// A start that came to no process.
    fn never_was(&mut self, cause: Cause, next: Next, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Starting(starting)) => {
                let end = End {
                    incarnation: starting.incarnation,
                    at: turn.now,
                    cause,
                    manner: Manner::ByItself,
                    ready_for: None,
                    report: None,
                };
                self.ended(end, next, turn);
            }
            Some(Live::Ready(_) | Live::Stopping(_)) => self.gone(turn),
            None => {}
        }
    }

    fn exited(&mut self, report: ExitReport, turn: &mut Turn<'_>) {
        let (incarnation, ready_for, early) = match self.phase.live() {
            // Something is awaited of it and never came: exit code 0 does not mean that its work is done.
            Some(Live::Starting(starting)) => {
                (starting.incarnation, None, turn.policy.ready != Readiness::Exec)
            }
            Some(Live::Ready(ready)) => (ready.incarnation, Some(turn.now.since(ready.since)), false),
            Some(Live::Stopping(stopping)) => {
                let of_itself = cause_of(&report, turn.policy);
                return stopping.exited(report, of_itself, turn);
            }
            None => return,
        };
        let cause = match cause_of(&report, turn.policy) {
            Cause::ExitCode { code: 0 } if early => Cause::EndedEarly,
            cause => cause,
        };
        self.stop_probe(turn);
        let mut stopping = Stopping::killing(incarnation, ready_for, cause, Manner::ByItself, turn);
        stopping.report = Some(report);
        self.phase = Phase::Stopping(Box::new(stopping));
    }

    fn gone(&mut self, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Starting(_) | Live::Ready(_)) => {
                // Its exit was never told; what counts is that nothing is left.
                self.exited(Exit::Unknown.into(), turn);
                self.gone(turn);
            }
            Some(Live::Stopping(stopping)) => {
                let (end, next) = (stopping.end(turn.now), stopping.next);
                self.ended(end, next, turn);
            }
            None => {}
        }
    }

    fn health(&mut self, health: Health, turn: &mut Turn<'_>) {
        let (incarnation, before) = match self.phase.live() {
            Some(Live::Starting(starting)) => {
                (starting.incarnation, std::mem::replace(&mut starting.health, health.clone()))
            }
            Some(Live::Ready(ready)) => {
                // Another reason is the same level: its time goes on.
                if std::mem::discriminant(&ready.health) != std::mem::discriminant(&health) {
                    ready.health_since = turn.now;
                }
                (ready.incarnation, std::mem::replace(&mut ready.health, health.clone()))
            }
            Some(Live::Stopping(_)) | None => return,
        };
        if words(&before) != words(&health) {
            turn.log(Occurrence::Health { incarnation, health });
        }
    }

    fn progress(&mut self, progress: Progress, turn: &mut Turn<'_>) {
        let incarnation = match self.phase.live() {
            Some(Live::Starting(starting)) => {
                starting.deadline.extend(turn.now);
                starting.progress = Some(progress.clone());
                starting.incarnation
            }
            Some(Live::Stopping(stopping)) => {
                if let Some(deadline) = stopping.patience() {
                    deadline.extend(turn.now);
                }
                stopping.progress = Some(progress.clone());
                stopping.incarnation
            }
            // At work there is no deadline to extend.
            Some(Live::Ready(_)) | None => return,
        };
        turn.log(Occurrence::Progress { incarnation, progress });
    }

    fn needs_time(&mut self, at_least: Duration, turn: &mut Turn<'_>) {
        let deadline = match self.phase.live() {
            Some(Live::Starting(starting)) => Some(&mut starting.deadline),
            Some(Live::Stopping(stopping)) => stopping.patience(),
            Some(Live::Ready(_)) | None => None,
        };
        if let Some(deadline) = deadline {
            deadline.extend_by(turn.now, at_least);
        }
    }

    fn leaving(&mut self, turn: &mut Turn<'_>) {
        let (incarnation, ready_for) = match self.phase.live() {
            Some(Live::Starting(starting)) => (starting.incarnation, None),
            Some(Live::Ready(ready)) => (ready.incarnation, Some(turn.now.since(ready.since))),
            Some(Live::Stopping(_)) | None => return,
        };
        if turn.policy.stop_timeout.is_zero() {
            return self.stop(Cause::Leaving, Haste::AtOnce, Next::AsPolicySays, turn);
        }
        self.stop_probe(turn);
        self.phase = Phase::Stopping(Box::new(Stopping::leaving(incarnation, ready_for, turn)));
    }

    fn called_hung(&mut self, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Ready(Ready { pulse: Pulse::Beating { .. } | Pulse::Probed { .. }, .. })) => {
                self.stop(Cause::CalledHung, Haste::AtOnce, Next::AsPolicySays, turn);
            }
            Some(Live::Ready(_) | Live::Starting(_) | Live::Stopping(_)) | None => {}
        }
    }

    fn heartbeat(&mut self, turn: &mut Turn<'_>) {
        let ready = match self.phase.live() {
            Some(Live::Ready(ready)) => ready,
            Some(Live::Starting(_) | Live::Stopping(_)) | None => return,
        };
        ready.pulse = match (ready.pulse, turn.policy.liveness) {
            (Pulse::Beating { .. }, Liveness::Heartbeat { interval }) => {
                Pulse::Beating { due: turn.now.after(interval), missed: 0 }
            }
            (Pulse::Probed { .. }, Liveness::Probe { .. }) => Pulse::Probed { missed: 0 },
            (pulse @ (Pulse::Unwatched | Pulse::Beating { .. } | Pulse::Probed { .. }), _) => pulse,
        };
    }

    /// One sign of life did not come. What that means is decided when the host was looked at.
    pub(super) fn missed(&mut self, turn: &mut Turn<'_>) {
        let ready = match self.phase.live() {
            Some(Live::Ready(ready)) => ready,
            Some(Live::Starting(_) | Live::Stopping(_)) | None => return,
        };
        let missed = match (&mut ready.pulse, turn.policy.liveness) {
            (Pulse::Beating { due, missed }, Liveness::Heartbeat { interval }) => {
                // From now, not from when it was due: one miss is counted, not a hundred.
                *due = turn.now.after(interval);
                missed
            }
            (Pulse::Probed { missed }, Liveness::Probe { .. }) => missed,
            // The policy no longer asks for what this pulse counts.
            (Pulse::Unwatched | Pulse::Beating { .. } | Pulse::Probed { .. }, _) => {
                ready.pulse = Pulse::Unwatched;
                return;
            }
        };
        *missed = missed.saturating_add(1);
        // From the first one on: the next look is about the time since.
        let incarnation = ready.incarnation;
        turn.commands.push(Command::LookAtHost { incarnation });
    }

    fn looked_at(&mut self, look: &HostLook, turn: &mut Turn<'_>) {
        let ready = match self.phase.live() {
            Some(Live::Ready(ready)) => ready,
            Some(Live::Starting(_) | Live::Stopping(_)) | None => return,
        };
        let (missed, interval) = match (ready.pulse, turn.policy.liveness) {
            (Pulse::Beating { missed, .. }, Liveness::Heartbeat { interval })
            | (Pulse::Probed { missed }, Liveness::Probe { interval }) => (missed, interval),
            (Pulse::Unwatched | Pulse::Beating { .. } | Pulse::Probed { .. }, _) => return,
        };
        if missed < MISSES {
            return;
        }
        match look.excuse() {
            // Told once; it is looked at again at each further miss.
            Some(excuse) if missed == MISSES => {
                let incarnation = ready.incarnation;
                turn.log(Occurrence::Excused { incarnation, missed, excuse });
            }
            Some(_) => {}
            None => {
                let cause = Cause::Hung { missed, interval };
                self.stop(cause, Haste::AtOnce, Next::AsPolicySays, turn);
            }
        }
    }

    /// Nobody looked for a while: whoever was silent may have spoken meanwhile.
    pub(super) fn paused(&mut self, lasted: Duration, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Starting(starting)) => starting.deadline.pause(turn.now, lasted),
            Some(Live::Stopping(stopping)) => {
                if let Some(deadline) = stopping.patience() {
                    deadline.pause(turn.now, lasted);
                }
            }
            Some(Live::Ready(ready)) => {
                ready.health_since = ready.health_since.after(lasted).min(turn.now);
                ready.pulse = match (ready.pulse, turn.policy.liveness) {
                    (Pulse::Beating { .. }, Liveness::Heartbeat { interval }) => {
                        Pulse::Beating { due: turn.now.after(interval), missed: 0 }
                    }
                    (Pulse::Probed { .. }, _) => Pulse::Probed { missed: 0 },
                    (pulse @ (Pulse::Unwatched | Pulse::Beating { .. }), _) => pulse,
                };
            }
            None => {}
        }
    }

    fn survivors(&mut self, pids: Vec<u32>, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Stopping(stopping)) => stopping.survivors(pids, turn),
            Some(Live::Starting(_) | Live::Ready(_)) | None => {}
        }
    }
}

/// What a health says but for its numbers: a count that grows in a reason is no entry of the log each time.
fn words(health: &Health) -> (std::mem::Discriminant<Health>, String) {
    let reason = match health {
        Health::Ok => "",
        Health::Degraded { reason } | Health::Failing { reason } => reason,
    };
    (std::mem::discriminant(health), reason.chars().filter(|letter| !letter.is_ascii_digit()).collect())
}

/// What an end that nobody asked for means.
fn cause_of(report: &ExitReport, policy: &Policy) -> Cause {
    match &report.exit {
        Exit::Code(EXIT_CONFIG) if policy.kind == Kind::Service => {
            let reason = report.last_word.clone().unwrap_or_else(|| format!("exit code {EXIT_CONFIG}"));
            Cause::Settings { revision: None, reason }
        }
        Exit::Code(EXIT_DATA) if policy.kind == Kind::Service => {
            let reason = report.last_word.clone().unwrap_or_else(|| format!("exit code {EXIT_DATA}"));
            Cause::State { reason }
        }
        Exit::Code(code) => Cause::ExitCode { code: *code },
        Exit::Signal { signal, dumped } => Cause::Signal { signal: *signal, dumped: *dumped },
        Exit::Oom { evidence } => Cause::Oom { evidence: evidence.clone() },
        Exit::Unknown => Cause::Unseen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_is_no_other_health_and_another_word_or_level_is() {
        let reason = |reason: &str| reason.to_owned();
        let degraded = |text: &str| words(&Health::Degraded { reason: reason(text) });
        assert_eq!(degraded("64 records wait"), degraded("128 records wait"));
        assert_ne!(degraded("64 records wait"), degraded("64 records lost"));
        assert_ne!(
            degraded("64 records wait"),
            words(&Health::Failing { reason: reason("64 records wait") })
        );
        assert_ne!(degraded(""), words(&Health::Ok));
    }
}
