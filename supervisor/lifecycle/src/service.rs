//! One service's state machine.
//!
//! ```text
//!               gate open                 ready                asked, hung, failing, blocked
//!    Stopped ───────────────► Starting ──────────► Ready ─────────────────────────┐
//!      ▲  ▲                    │  │  │               │ dead                       │
//!      │  │   refused, failed  │  │  └───────────────┴──────────────┐             │
//!      │  │   spawn            │  │ asked, too late, blocked        ▼             ▼
//!      │  │                    │  └─────────────────────────────► Stopping ◄──────┘
//!      │  │                    │                                     │ nothing left
//!      │  │                    └─────────────────┬───────────────────┘
//!      │  │                                      ▼
//!      │  │  wait is over                 what the policy says
//!      │  └────────────── Backoff ◄──────────────┤
//!      │ start, reset                            │
//!      ├───────────────── Failed ◄───────────────┤
//!      │ start                                   │
//!      ├───────────────── Completed ◄────────────┤
//!      │                                         │
//!      └─────────────────────────────────────────┘
//! ```
//!
//! - **gate open**: the roster says that the others allow it, and the operator wants it up. The only arrow that
//!   spawns, and it leaves from `Stopped` alone, which has no process: so there are never two.
//! - **ready**: the session says so, a probe answers, or the exec was seen, as the policy has it.
//! - **refused, failed spawn**: there never was a process, and nothing of it is left.
//! - **dead**: the leader ended by itself. What it left behind is killed before anything else.
//! - **asked, …**: the stop event or signal, then the stop timeout, then the kill. Hung and not ready in time are
//!   killed without being asked.
//! - **nothing left**: the only way out of `Stopping`. Processes that can't be killed keep it there, by name.
//! - **what the policy says**: `Stopped` when the end was asked for or the service is not wanted, or when it
//!   starts again without a wait; else `Backoff`, `Failed`, `Completed`.
//! - A `stop` takes `Backoff`, `Failed` and `Completed` to `Stopped`, where it stays.

mod fact;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchdog_protocol::Incarnation;
use watchdog_protocol::session::Health;

use crate::cause::{Actor, Cause, End, Manner};
use crate::event::{Command, Event, Gate, Haste, Occurrence, Purpose, Verb};
use crate::moment::{Chance, Moment};
use crate::phase::{Deadline, Live, Next, Phase, Pulse, Ready, Spawn, Starting, Stopping, Wanted};
use crate::policy::{Liveness, Policy, Readiness, Work};
use crate::restart::{Decision, History};

/// What is remembered of one service. A core writes it down after each step that returned a command and before
/// it performs them; a new core goes on from there with [`Event::TookOver`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    wanted: Wanted,
    phase: Phase,
    /// The newest there was, in any life of the watchdog.
    incarnation: Incarnation,
    /// Spawns since this record was made.
    starts: u64,
    history: History,
    last_end: Option<Box<End>>,
    says: Option<String>,
    main: Option<u32>,
}

/// One step under way.
pub(crate) struct Turn<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) now: Moment,
    chance: Chance,
    pub(crate) commands: Vec<Command>,
    /// An end that nobody asked for, of a service that was wanted and not done.
    failure: Option<(Incarnation, Cause)>,
}

/// What a step came to.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) commands: Vec<Command>,
    /// An incarnation that failed: its group has to know.
    pub(crate) failure: Option<(Incarnation, Cause)>,
}

impl Turn<'_> {
    fn log(&mut self, what: Occurrence) {
        self.commands.push(Command::Log(what));
    }
}

impl Service {
    /// A service without a process. `wanted` and `last`, its last incarnation, come from an earlier life of the
    /// watchdog if there was one: an operator's stop is sticky, and numbers only grow.
    pub fn new(wanted: Wanted, last: Incarnation, now: Moment) -> Self {
        Self {
            wanted,
            phase: Phase::Stopped { since: now },
            incarnation: last,
            starts: 0,
            history: History::default(),
            last_end: None,
            says: None,
            main: None,
        }
    }

    /// What the operator wants.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// It is an instance too many: nobody is held up by it.
    pub fn is_scaled_away(&self) -> bool {
        matches!(self.wanted, Wanted::Down { verb: Verb::Scale, .. })
    }

    /// Its configuration is gone.
    pub fn is_removed(&self) -> bool {
        matches!(self.wanted, Wanted::Down { verb: Verb::Remove, .. })
    }

    /// It is an instance too many, or its configuration is gone: as if it were not there, for all that may start.
    pub fn is_on_its_way_out(&self) -> bool {
        matches!(self.wanted, Wanted::Down { verb: Verb::Scale | Verb::Remove, .. })
    }

    /// Where it is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The newest incarnation there was.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Spawns since this record was made.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// Failures in a row.
    pub fn streak(&self) -> u32 {
        self.history.streak()
    }

    /// How the last incarnation ended.
    pub fn last_end(&self) -> Option<&End> {
        self.last_end.as_deref()
    }

    /// What the current process says that it does.
    pub fn says(&self) -> Option<&str> {
        self.says.as_deref().filter(|_| self.is_live())
    }

    /// The process it calls its main one, in place of the one that was started.
    pub fn main(&self) -> Option<u32> {
        self.main.filter(|_| self.is_live())
    }

    /// Something of it lives, or may.
    pub fn is_live(&self) -> bool {
        self.phase.incarnation().is_some()
    }

    /// When to send [`Event::Tick`], if nothing else happens before.
    pub fn deadline(&self, policy: &Policy) -> Option<Moment> {
        match &self.phase {
            Phase::Starting(starting) => Some(starting.deadline.at()),
            Phase::Ready(ready) => {
                let beat = match ready.pulse {
                    Pulse::Beating { due, .. } => Some(due),
                    Pulse::Unwatched | Pulse::Probed { .. } => None,
                };
                [beat, ready.failing_until(policy)].into_iter().flatten().min()
            }
            Phase::Stopping(stopping) => Some(stopping.deadline()),
            Phase::Backoff { until, .. } => Some(*until),
            Phase::Stopped { .. } | Phase::Failed { .. } | Phase::Completed { .. } => None,
        }
    }

    /// One event; what is to be done about it.
    pub fn step(&mut self, policy: &Policy, event: Event, now: Moment, chance: Chance) -> Vec<Command> {
        self.stepped(policy, event, now, chance).commands
    }

    pub(crate) fn stepped(&mut self, policy: &Policy, event: Event, now: Moment, chance: Chance) -> Stepped {
        let mut turn = Turn { policy, now, chance, commands: Vec::new(), failure: None };
        match event {
            Event::Asked { verb, by } => self.asked(verb, by, &mut turn),
            Event::Fact { incarnation, fact } => self.fact(incarnation, fact, &mut turn),
            Event::Gate(gate) => self.gate(gate, &mut turn),
            Event::Tick => self.tick(&mut turn),
            Event::Paused { lasted } => self.paused(lasted, &mut turn),
            Event::TookOver => self.took_over(&mut turn),
            Event::WatchedAnew => self.watched_anew(&mut turn),
        }
        Stepped { commands: turn.commands, failure: turn.failure }
    }

    fn asked(&mut self, verb: Verb, by: Actor, turn: &mut Turn<'_>) {
        turn.log(Occurrence::Asked { verb, by: by.clone() });
        match verb {
            Verb::Start => {
                self.wanted = Wanted::Up;
                self.forgive(turn);
                match &mut self.phase {
                    Phase::Stopping(stopping) => stopping.next = Next::Again,
                    Phase::Completed { .. } => self.phase = Phase::Stopped { since: turn.now },
                    Phase::Stopped { .. }
                    | Phase::Starting(_)
                    | Phase::Ready(_)
                    | Phase::Backoff { .. }
                    | Phase::Failed { .. } => {}
                }
            }
            Verb::Restart => {
                self.wanted = Wanted::Up;
                self.forgive(turn);
                match &mut self.phase {
                    Phase::Stopping(stopping) => stopping.next = Next::Again,
                    Phase::Starting(_) | Phase::Ready(_) => {
                        self.stop(Cause::Operator { by, verb }, Haste::Orderly, Next::Again, turn);
                    }
                    Phase::Completed { .. } => self.phase = Phase::Stopped { since: turn.now },
                    Phase::Stopped { .. } | Phase::Backoff { .. } | Phase::Failed { .. } => {}
                }
            }
            Verb::Stop | Verb::Scale | Verb::Remove => {
                self.wanted = Wanted::Down { by, verb };
                match &self.phase {
                    // The roster shuts the gate when all that depends on it is down.
                    Phase::Stopped { .. } | Phase::Starting(_) | Phase::Ready(_) | Phase::Stopping(_) => {}
                    Phase::Backoff { .. } | Phase::Failed { .. } | Phase::Completed { .. } => self.rest(turn),
                }
            }
            Verb::Kill => {
                self.wanted = Wanted::Down { by: by.clone(), verb };
                match &self.phase {
                    Phase::Stopped { .. } => {}
                    Phase::Starting(_) | Phase::Ready(_) => {
                        self.stop(Cause::Operator { by, verb }, Haste::AtOnce, Next::AsPolicySays, turn);
                    }
                    Phase::Stopping(_) => self.hasten(turn),
                    Phase::Backoff { .. } | Phase::Failed { .. } | Phase::Completed { .. } => self.rest(turn),
                }
            }
            Verb::Reset => self.forgive(turn),
            Verb::Reload => {
                self.forgive(turn);
                match (&self.phase, &self.wanted) {
                    (Phase::Starting(_) | Phase::Ready(_), Wanted::Up) => {
                        self.stop(Cause::Operator { by, verb }, Haste::Orderly, Next::Again, turn);
                    }
                    // It ends already, or is about to: what comes after it comes as configured by then.
                    (Phase::Starting(_) | Phase::Ready(_), Wanted::Down { .. })
                    | (
                        Phase::Stopping(_)
                        | Phase::Stopped { .. }
                        | Phase::Completed { .. }
                        | Phase::Backoff { .. }
                        | Phase::Failed { .. },
                        Wanted::Up | Wanted::Down { .. },
                    ) => {}
                }
            }
        }
    }

    /// Forgets failures: what failed or waits may start again.
    fn forgive(&mut self, turn: &mut Turn<'_>) {
        self.history = History::default();
        match &self.phase {
            Phase::Backoff { .. } | Phase::Failed { .. } => self.rest(turn),
            Phase::Stopped { .. }
            | Phase::Starting(_)
            | Phase::Ready(_)
            | Phase::Stopping(_)
            | Phase::Completed { .. } => {}
        }
    }

    fn rest(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Stopped { since: turn.now };
        turn.log(Occurrence::Stopped);
    }

    fn gate(&mut self, gate: Gate, turn: &mut Turn<'_>) {
        match gate {
            Gate::Open => match (&self.phase, &self.wanted) {
                (Phase::Stopped { .. }, Wanted::Up) => self.start(turn),
                (Phase::Stopped { .. }, Wanted::Down { .. })
                | (
                    Phase::Starting(_)
                    | Phase::Ready(_)
                    | Phase::Stopping(_)
                    | Phase::Backoff { .. }
                    | Phase::Failed { .. }
                    | Phase::Completed { .. },
                    Wanted::Up | Wanted::Down { .. },
                ) => {}
            },
            Gate::Waiting => {}
            Gate::Shut { cause, haste } => match (&self.phase, haste) {
                (Phase::Starting(_) | Phase::Ready(_), Haste::Orderly | Haste::AtOnce) => {
                    self.stop(cause, haste, Next::AsPolicySays, turn);
                }
                (Phase::Stopping(_), Haste::AtOnce) => self.hasten(turn),
                // It starts when the gate opens again; the streak is kept.
                (Phase::Backoff { .. }, Haste::Orderly | Haste::AtOnce) => self.rest(turn),
                (Phase::Stopping(_), Haste::Orderly)
                | (
                    Phase::Stopped { .. } | Phase::Failed { .. } | Phase::Completed { .. },
                    Haste::Orderly | Haste::AtOnce,
                ) => {}
            },
            Gate::GivenUp { cause } => match &self.phase {
                Phase::Starting(_) | Phase::Ready(_) => {
                    self.stop(cause, Haste::Orderly, Next::AsPolicySays, turn);
                }
                Phase::Stopped { .. } | Phase::Backoff { .. } => {
                    turn.log(Occurrence::Failed { cause: cause.clone() });
                    self.phase = Phase::Failed { since: turn.now, cause };
                }
                Phase::Stopping(_) | Phase::Failed { .. } | Phase::Completed { .. } => {}
            },
        }
    }

    /// The only place that spawns. Called in `Stopped` only: nothing of an older incarnation is left.
    fn start(&mut self, turn: &mut Turn<'_>) {
        let incarnation = self.incarnation.next();
        self.incarnation = incarnation;
        self.starts += 1;
        self.says = None;
        self.main = None;
        self.phase = Phase::Starting(Starting {
            incarnation,
            since: turn.now,
            deadline: Deadline::new(turn.now, turn.policy.start_timeout),
            spawn: Spawn::Commanded,
            progress: None,
            health: Health::Ok,
        });
        turn.log(Occurrence::Starting { incarnation });
        turn.commands.push(Command::Spawn { incarnation });
    }

    /// Nothing of the incarnation is left.
    fn ended(&mut self, end: End, next: Next, turn: &mut Turn<'_>) {
        turn.log(Occurrence::Ended(Box::new(end.clone())));
        let decision = self.follow(&end, next, turn);
        self.last_end = Some(Box::new(end));
        self.phase = match decision {
            Decision::Restart { wait: Duration::ZERO } => Phase::Stopped { since: turn.now },
            Decision::Restart { wait } => {
                turn.log(Occurrence::Backoff { wait, streak: self.history.streak() });
                Phase::Backoff { since: turn.now, until: turn.now.after(wait) }
            }
            Decision::Fail(cause) => {
                turn.log(Occurrence::Failed { cause: cause.clone() });
                Phase::Failed { since: turn.now, cause }
            }
            Decision::Complete => {
                turn.log(Occurrence::Completed);
                Phase::Completed { since: turn.now }
            }
        };
    }

    /// What follows an end. A restart without a wait is `Stopped`: so is a service that is to stay down.
    fn follow(&mut self, end: &End, next: Next, turn: &mut Turn<'_>) -> Decision {
        const AT_ONCE: Decision = Decision::Restart { wait: Duration::ZERO };
        match self.wanted {
            Wanted::Up => {}
            Wanted::Down { .. } => {
                turn.log(Occurrence::Stopped);
                return AT_ONCE;
            }
        }
        let restart = &turn.policy.restart;
        match next {
            Next::Again => AT_ONCE,
            Next::Never => {
                turn.failure = Some((end.incarnation, end.cause.clone()));
                Decision::Fail(end.cause.clone())
            }
            Next::FallBack => {
                turn.failure = Some((end.incarnation, end.cause.clone()));
                match restart.failed(&mut self.history, &end.cause, end.ready_for, turn.now, turn.chance) {
                    Decision::Fail(cause) => Decision::Fail(cause),
                    Decision::Restart { .. } | Decision::Complete => AT_ONCE,
                }
            }
            // Its gate says what comes of it: the group may have come back meanwhile.
            Next::AsPolicySays if matches!(end.cause, Cause::GroupFailed { .. }) => AT_ONCE,
            Next::AsPolicySays if end.cause.was_asked_for() => {
                turn.log(Occurrence::Stopped);
                AT_ONCE
            }
            Next::AsPolicySays => {
                let decision = match &end.cause {
                    // Another try would end the same way.
                    Cause::Settings { .. } | Cause::State { .. } => Decision::Fail(end.cause.clone()),
                    // What its policy says is about the other ends.
                    Cause::ExitCode { code: 0 } if turn.policy.work == Work::Once => Decision::Complete,
                    cause => restart.decide(&mut self.history, cause, end.ready_for, turn.now, turn.chance),
                };
                if decision != Decision::Complete {
                    turn.failure = Some((end.incarnation, end.cause.clone()));
                }
                decision
            }
        }
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        match &mut self.phase {
            Phase::Starting(starting) => {
                if turn.now < starting.deadline.at() {
                    return;
                }
                let progress = starting.progress.as_ref().map(|progress| progress.text.clone());
                let cause = Cause::NotReady { waited: starting.deadline.waited(turn.now), progress };
                self.stop(cause, Haste::AtOnce, Next::AsPolicySays, turn);
            }
            Phase::Ready(ready) => {
                if ready.failing_until(turn.policy).is_some_and(|until| until <= turn.now) {
                    let reason = match &ready.health {
                        Health::Failing { reason } | Health::Degraded { reason } => reason.clone(),
                        Health::Ok => String::new(),
                    };
                    let cause = Cause::Failing { reason, lasted: turn.now.since(ready.health_since) };
                    return self.stop(cause, Haste::Orderly, Next::AsPolicySays, turn);
                }
                match ready.pulse {
                    Pulse::Beating { due, .. } if due <= turn.now => self.missed(turn),
                    Pulse::Beating { .. } | Pulse::Unwatched | Pulse::Probed { .. } => {}
                }
            }
            Phase::Stopping(stopping) => stopping.tick(turn),
            Phase::Backoff { until, .. } => {
                if *until <= turn.now {
                    self.phase = Phase::Stopped { since: turn.now };
                }
            }
            Phase::Stopped { .. } | Phase::Failed { .. } | Phase::Completed { .. } => {}
        }
    }

    /// The core before may have died between a decision and its deed.
    fn took_over(&mut self, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Starting(starting)) => {
                let incarnation = starting.incarnation;
                match starting.spawn {
                    Spawn::Commanded => turn.commands.push(Command::Spawn { incarnation }),
                    Spawn::Done if starting.is_probed(turn.policy) => {
                        turn.commands.push(Command::StartProbe { incarnation, purpose: Purpose::Ready });
                    }
                    Spawn::Done => {}
                }
            }
            Some(Live::Ready(ready)) => match (&mut ready.pulse, turn.policy.liveness) {
                (Pulse::Probed { .. }, _) => {
                    let (incarnation, purpose) = (ready.incarnation, Purpose::Alive);
                    turn.commands.push(Command::StartProbe { incarnation, purpose });
                }
                // Nobody listened for a while.
                (Pulse::Beating { due, .. }, Liveness::Heartbeat { interval }) => {
                    *due = turn.now.after(interval);
                }
                (Pulse::Unwatched | Pulse::Beating { .. }, _) => {}
            },
            Some(Live::Stopping(stopping)) => stopping.command(turn),
            None => {}
        }
    }

    /// A ready process is asked from now on as its policy says; one that is not ready yet will be.
    fn watched_anew(&mut self, turn: &mut Turn<'_>) {
        let Phase::Ready(ready) = &mut self.phase else { return };
        let incarnation = ready.incarnation;
        if let Pulse::Probed { .. } = ready.pulse {
            turn.commands.push(Command::StopProbe { incarnation });
        }
        ready.pulse = match turn.policy.liveness {
            Liveness::Probe { .. } => {
                turn.commands.push(Command::StartProbe { incarnation, purpose: Purpose::Alive });
                Pulse::Probed { missed: 0 }
            }
            Liveness::Heartbeat { interval } => Pulse::Beating { due: turn.now.after(interval), missed: 0 },
            Liveness::Unwatched => Pulse::Unwatched,
        };
    }

    /// Begins the end of a starting or ready incarnation. One that ends already goes on ending.
    fn stop(&mut self, cause: Cause, haste: Haste, next: Next, turn: &mut Turn<'_>) {
        let (incarnation, ready_for, progress) = match self.phase.live() {
            Some(Live::Starting(starting)) => (starting.incarnation, None, starting.progress.take()),
            Some(Live::Ready(ready)) => (ready.incarnation, Some(turn.now.since(ready.since)), None),
            Some(Live::Stopping(_)) | None => return,
        };
        self.stop_probe(turn);
        let mut stopping = match haste {
            Haste::Orderly if turn.policy.stop_timeout > Duration::ZERO => {
                Stopping::asking(incarnation, ready_for, cause, turn)
            }
            Haste::Orderly | Haste::AtOnce => {
                Stopping::killing(incarnation, ready_for, cause, Manner::Killed, turn)
            }
        };
        stopping.next = next;
        stopping.progress = progress;
        self.phase = Phase::Stopping(Box::new(stopping));
    }

    fn hasten(&mut self, turn: &mut Turn<'_>) {
        match self.phase.live() {
            Some(Live::Stopping(stopping)) => stopping.hasten(turn),
            Some(Live::Starting(_) | Live::Ready(_)) | None => {}
        }
    }

    fn stop_probe(&mut self, turn: &mut Turn<'_>) {
        let probed = match self.phase.live() {
            Some(Live::Starting(starting)) => starting.is_probed(turn.policy).then_some(starting.incarnation),
            Some(Live::Ready(ready)) => match ready.pulse {
                Pulse::Probed { .. } => Some(ready.incarnation),
                Pulse::Unwatched | Pulse::Beating { .. } => None,
            },
            Some(Live::Stopping(_)) | None => None,
        };
        turn.commands.extend(probed.map(|incarnation| Command::StopProbe { incarnation }));
    }
}

impl Starting {
    fn is_probed(&self, policy: &Policy) -> bool {
        self.spawn == Spawn::Done && policy.ready == Readiness::Probe
    }
}

impl Ready {
    /// When its failing has lasted long enough for a restart.
    fn failing_until(&self, policy: &Policy) -> Option<Moment> {
        match &self.health {
            Health::Failing { .. } => policy.failing_timeout.map(|timeout| self.health_since.after(timeout)),
            Health::Ok | Health::Degraded { .. } => None,
        }
    }
}
