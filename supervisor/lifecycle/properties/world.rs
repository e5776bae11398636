//! The processes of one service, as the kernel has them: what a command does to them, and what can be told of
//! them.

use proptest::prelude::*;
use std::time::Duration;
use watchdog_lifecycle::restart::{Delay, Limit, Restart, When};
use watchdog_lifecycle::{
    Actor, Command, Exit, Fact, Fallback, HostLook, Kind, Liveness, Policy, Readiness, Refusal, Verb, Work,
};
use watchdog_protocol::session::{Health, Progress};
use watchdog_protocol::{Incarnation, Revision};

pub(crate) const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// What lives of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// On its way to exec.
    Spawning,
    Running,
    /// The leader is dead; something is left.
    Leftover,
    /// As before, and it can't be killed.
    Stuck,
}

/// All processes of one service.
#[derive(Debug, Default)]
pub(crate) struct World {
    lives: Vec<(Incarnation, Life)>,
    newest: Incarnation,
    asked: bool,
    killed: bool,
    named: bool,
    said_ready: bool,
    looking: bool,
}

/// What the world does next, if it can.
#[derive(Debug, Clone)]
pub(crate) enum Move {
    Exec,
    FailToSpawn,
    Refuse { refusal: u8 },
    BecomeReady,
    Exit(Exit),
    LeaveNothing,
    GetStuck,
    Say(Health),
    Report(Progress),
    AskForTime(Duration),
    Talk,
    NameMain,
    Leave,
    Beat,
    MissProbe,
    SeeHost(HostLook),
    CallItselfHung,
    RefuseSettings { falls_back: bool },
    BreakProtocol,
}

impl World {
    /// Does what is commanded. The one law: nothing is spawned beside anything that lives.
    pub(crate) fn perform(&mut self, command: &Command) {
        match command {
            Command::Spawn { incarnation } => {
                if self.lives.iter().any(|(known, _)| known == incarnation) {
                    return; // said again by a new core
                }
                assert_eq!(self.lives, [], "{incarnation} is spawned beside these");
                assert!(*incarnation > self.newest, "{incarnation} was used before");
                self.newest = *incarnation;
                self.lives.push((*incarnation, Life::Spawning));
                *self =
                    Self { lives: std::mem::take(&mut self.lives), newest: self.newest, ..Self::default() };
            }
            Command::AskStop { incarnation } => self.asked |= self.lives(*incarnation),
            Command::KillAll { incarnation } => self.killed |= self.lives(*incarnation),
            Command::NameSurvivors { incarnation } => self.named |= self.lives(*incarnation),
            Command::LookAtHost { incarnation } => self.looking |= self.lives(*incarnation),
            Command::StartProbe { .. } | Command::StopProbe { .. } | Command::Log(_) => {}
        }
    }

    fn lives(&self, incarnation: Incarnation) -> bool {
        self.lives.iter().any(|(known, _)| *known == incarnation)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }

    pub(crate) fn current(&self) -> Option<Incarnation> {
        self.lives.first().map(|(incarnation, _)| *incarnation)
    }

    /// What is told if this move is possible now.
    pub(crate) fn make(&mut self, wish: &Move, policy: &Policy) -> Option<(Incarnation, Fact)> {
        let (incarnation, life) = self.lives.first_mut().map(|(incarnation, life)| (*incarnation, life))?;
        let fact = match (wish, *life) {
            (Move::Exec, Life::Spawning) => {
                *life = Life::Running;
                Fact::Spawned
            }
            (Move::FailToSpawn, Life::Spawning) => {
                self.lives.clear();
                Fact::SpawnFailed { step: "exec".into(), reason: "no such file".into() }
            }
            (Move::Refuse { refusal }, Life::Spawning) => {
                self.lives.clear();
                Fact::Refused(match *refusal % 3 {
                    0 => Refusal::Settings { revision: Revision::FIRST, reason: "step = 0".into() },
                    1 => Refusal::State { reason: "newer than known".into() },
                    _ => Refusal::Configuration { reason: "there is no `a`".into() },
                })
            }
            (Move::BecomeReady, Life::Running) if policy.ready != Readiness::Exec => {
                self.said_ready = true;
                Fact::Ready
            }
            (Move::Exit(exit), Life::Running) => {
                *life = Life::Leftover;
                Fact::Exited(exit.clone().into())
            }
            (Move::LeaveNothing, Life::Leftover | Life::Stuck) if self.killed => {
                self.lives.clear();
                Fact::Gone
            }
            (Move::GetStuck, Life::Leftover | Life::Stuck) if self.named => {
                *life = Life::Stuck;
                self.named = false;
                Fact::Survivors { pids: vec![7] }
            }
            (Move::Say(health), Life::Running) => Fact::Health(health.clone()),
            (Move::Report(progress), Life::Running) => Fact::Progress(progress.clone()),
            (Move::AskForTime(at_least), Life::Running) => Fact::NeedsTime { at_least: *at_least },
            (Move::Talk, Life::Running) => Fact::Says(Some("42 clients".into())),
            (Move::NameMain, Life::Running) => Fact::MainIs(Some(7)),
            (Move::Leave, Life::Running) => Fact::Leaving,
            (Move::Beat, Life::Running) => Fact::Heartbeat,
            (Move::MissProbe, Life::Running) => Fact::ProbeMissed,
            (Move::SeeHost(look), Life::Running | Life::Leftover) if self.looking => {
                self.looking = false;
                Fact::Host(*look)
            }
            (Move::CallItselfHung, Life::Running) => Fact::CalledHung,
            (Move::RefuseSettings { falls_back }, Life::Running) => {
                let fallback =
                    if *falls_back { Fallback::Revision(Revision::FIRST.next()) } else { Fallback::None };
                Fact::SettingsRefused { revision: Revision::FIRST, reason: "no".into(), fallback }
            }
            (Move::BreakProtocol, Life::Running) => Fact::ProtocolBroken { reason: "garbage".into() },
            (
                Move::Exec
                | Move::FailToSpawn
                | Move::Refuse { .. }
                | Move::BecomeReady
                | Move::Exit(_)
                | Move::LeaveNothing
                | Move::GetStuck
                | Move::Say(_)
                | Move::Report(_)
                | Move::AskForTime(_)
                | Move::Talk
                | Move::NameMain
                | Move::Leave
                | Move::Beat
                | Move::MissProbe
                | Move::SeeHost(_)
                | Move::CallItselfHung
                | Move::RefuseSettings { .. }
                | Move::BreakProtocol,
                Life::Spawning | Life::Running | Life::Leftover | Life::Stuck,
            ) => return None,
        };
        Some((incarnation, fact))
    }

    /// What a healthy world does by itself: it executes, becomes ready, and ends when it is asked or killed, or its
    /// task is done. A deaf one ends only when it is killed.
    pub(crate) fn obey(&mut self, deaf: bool, policy: &Policy) -> Option<(Incarnation, Fact)> {
        let (_, life) = self.lives.first()?;
        let ends = self.killed || self.asked && !deaf;
        let wish = match life {
            Life::Spawning => Move::Exec,
            Life::Running if ends => Move::Exit(Exit::Signal { signal: 9, dumped: false }),
            Life::Running if policy.work == Work::Once => Move::Exit(Exit::Code(0)),
            Life::Running if self.said_ready => return None,
            Life::Running => Move::BecomeReady,
            Life::Leftover | Life::Stuck => Move::LeaveNothing,
        };
        self.make(&wish, policy)
    }
}

pub(crate) fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => Just(Move::Exec),
        1 => Just(Move::FailToSpawn),
        1 => any::<u8>().prop_map(|refusal| Move::Refuse { refusal }),
        8 => Just(Move::BecomeReady),
        3 => prop_oneof![Just(0), Just(1), Just(78)].prop_map(|code| Move::Exit(Exit::Code(code))),
        2 => Just(Move::Exit(Exit::Signal { signal: 11, dumped: true })),
        6 => Just(Move::LeaveNothing),
        2 => Just(Move::GetStuck),
        1 => Just(Move::Say(Health::Ok)),
        1 => Just(Move::Say(Health::Failing { reason: "no disk".into() })),
        2 => Just(Move::Report(Progress { fraction: Some(0.5), text: "half".into() })),
        1 => waits().prop_map(Move::AskForTime),
        1 => Just(Move::Talk),
        1 => Just(Move::NameMain),
        1 => Just(Move::Leave),
        2 => Just(Move::Beat),
        2 => Just(Move::MissProbe),
        2 => any::<bool>().prop_map(|frozen| Move::SeeHost(HostLook { frozen, ..HostLook::default() })),
        1 => Just(Move::CallItselfHung),
        1 => any::<bool>().prop_map(|falls_back| Move::RefuseSettings { falls_back }),
        1 => Just(Move::BreakProtocol),
    ]
}

pub(crate) fn verbs() -> impl Strategy<Value = Verb> {
    prop_oneof![
        3 => Just(Verb::Start),
        3 => Just(Verb::Stop),
        3 => Just(Verb::Kill),
        3 => Just(Verb::Restart),
        3 => Just(Verb::Reset),
        1 => Just(Verb::Scale),
        1 => Just(Verb::Reload),
        1 => Just(Verb::Remove),
    ]
}

/// From nothing to minutes; short ones often, so that deadlines are passed and missed.
pub(crate) fn waits() -> impl Strategy<Value = Duration> {
    prop_oneof![
        3 => (0_u64..1000).prop_map(Duration::from_millis),
        2 => (0_u64..20_000).prop_map(Duration::from_millis),
        1 => (0_u64..120_000).prop_map(Duration::from_millis),
    ]
}

pub(crate) fn policies() -> impl Strategy<Value = Policy> {
    let when = prop_oneof![Just(When::Always), Just(When::OnFailure), Just(When::Never)];
    let limit = prop_oneof![
        Just(Limit::Off),
        (0_u32..4).prop_map(|failures| Limit::Within { failures, window: Duration::from_secs(60) }),
    ];
    let delay = prop_oneof![Just(Delay::AtOnce), Just(Restart::default().delay)];
    let ready = prop_oneof![Just(Readiness::Told), Just(Readiness::Exec), Just(Readiness::Probe)];
    let second = Duration::from_secs(1);
    let liveness = prop_oneof![
        Just(Liveness::Unwatched),
        Just(Liveness::Heartbeat { interval: second }),
        Just(Liveness::Probe { interval: second }),
    ];
    let stop_timeout = prop_oneof![Just(Duration::ZERO), Just(second * 10)];
    let what = prop_oneof![
        6 => (ready, any::<bool>()).prop_map(|(ready, program)| Policy {
            ready,
            ..if program { Policy::program() } else { Policy::service() }
        }),
        1 => prop_oneof![Just(Kind::Service), Just(Kind::Program)].prop_map(Policy::task),
    ];
    (when, limit, delay, what, liveness, stop_timeout).prop_map(
        move |(when, limit, delay, what, liveness, stop_timeout)| Policy {
            restart: Restart { when, limit, delay },
            liveness,
            stop_timeout,
            ..what
        },
    )
}
