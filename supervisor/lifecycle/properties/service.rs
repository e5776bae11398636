//! One service.

use std::time::Duration;

use proptest::prelude::*;
use watchdog_lifecycle::{
    Absence, Cause, Chance, Command, Event, Fact, Gate, Haste, Moment, Occurrence, Phase, Policy, Service,
    Verb, Wanted, Work,
};
use watchdog_protocol::Incarnation;

use crate::config;
use crate::world::{Move, OPERATOR, World, moves, policies, verbs, waits};

#[derive(Debug, Clone)]
pub(crate) enum Input {
    Ask(Verb),
    World(Move),
    /// Something untimely about an older incarnation.
    Stale(Move),
    Gate(GateKind),
    Wait(Duration),
    /// The core is replaced: what is remembered is all there is.
    TakeOver,
    /// The same, between a decision and its deed.
    TakeOverAfter(Box<Input>),
}

impl Input {
    fn wants_it_up(&self) -> bool {
        match self {
            Self::Ask(verb) => matches!(verb, Verb::Start | Verb::Restart),
            Self::TakeOverAfter(input) => input.wants_it_up(),
            Self::World(_) | Self::Stale(_) | Self::Gate(_) | Self::Wait(_) | Self::TakeOver => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum GateKind {
    Open,
    Waiting,
    Shut(Haste),
}

fn inputs() -> impl Strategy<Value = Input> {
    let gates = prop_oneof![
        4 => Just(GateKind::Open),
        1 => Just(GateKind::Waiting),
        1 => Just(GateKind::Shut(Haste::Orderly)),
        1 => Just(GateKind::Shut(Haste::AtOnce)),
    ];
    let plain = prop_oneof![
        2 => verbs().prop_map(Input::Ask),
        12 => moves().prop_map(Input::World),
        1 => moves().prop_map(Input::Stale),
        6 => gates.prop_map(Input::Gate),
        3 => waits().prop_map(Input::Wait),
        1 => Just(Input::TakeOver),
    ];
    (plain, prop::bool::weighted(0.1)).prop_map(|(input, dies)| match dies {
        true => Input::TakeOverAfter(Box::new(input)),
        false => input,
    })
}

pub(crate) struct Run {
    policy: Policy,
    pub(crate) service: Service,
    world: World,
    pub(crate) now: Moment,
    chance: Chance,
    /// The core dies before it performs anything.
    is_dying: bool,
}

impl Run {
    pub(crate) fn new(policy: Policy) -> Self {
        let now = Moment::from_nanos(1_000_000_000);
        let service = Service::new(Wanted::Up, Incarnation::NONE, now);
        Self { policy, service, world: World::default(), now, chance: Chance::from_bits(7), is_dying: false }
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Command> {
        self.chance = self.chance.next();
        let before = self.service.clone();
        let is_beat = matches!(
            event,
            Event::Fact { fact: Fact::Heartbeat | Fact::ProbeMissed, .. } | Event::Tick | Event::TookOver
        );
        let commands = self.service.step(&self.policy, event, self.now, self.chance);
        for command in commands.iter().filter(|_| !self.is_dying) {
            self.world.perform(command);
        }
        let same_phase = before.phase().as_str() == self.service.phase().as_str();
        if commands.is_empty() && !is_beat && !same_phase {
            panic!("{before:?} became {:?} without a command: a new core would not know", self.service);
        }
        commands
    }

    pub(crate) fn input(&mut self, input: &Input) -> Vec<Command> {
        match input {
            Input::Ask(verb) => self.step(Event::Asked { verb: *verb, by: OPERATOR }),
            Input::World(wish) => match self.world.make(wish, &self.policy) {
                Some((incarnation, fact)) => self.step(Event::Fact { incarnation, fact }),
                None => Vec::new(),
            },
            Input::Stale(wish) => {
                let incarnation = Incarnation::NONE;
                let fact = match wish {
                    Move::LeaveNothing => Fact::Gone,
                    Move::Exit(exit) => Fact::Exited(exit.clone().into()),
                    _ => Fact::Ready,
                };
                let before = self.service.clone();
                let commands = self.step(Event::Fact { incarnation, fact });
                assert_eq!((&self.service, commands.len()), (&before, 0), "a stale fact changed something");
                commands
            }
            Input::Gate(kind) => {
                let cause = || match self.service.wanted() {
                    Wanted::Down { by, verb } => Cause::Operator { by: by.clone(), verb: *verb },
                    Wanted::Up => Cause::Dependency { on: "x".parse().unwrap(), absence: Absence::Failed },
                };
                let gate = match kind {
                    GateKind::Open => Gate::Open,
                    GateKind::Waiting => Gate::Waiting,
                    GateKind::Shut(haste) => Gate::Shut { cause: cause(), haste: *haste },
                };
                self.step(Event::Gate(gate))
            }
            Input::Wait(wait) => {
                self.now = self.now.after(*wait);
                let commands = self.step(Event::Tick);
                if let Some(deadline) = self.service.deadline(&self.policy) {
                    assert!(deadline > self.now, "the core would spin: {:?}", self.service);
                }
                commands
            }
            Input::TakeOver => {
                let stored = postcard::to_stdvec(&self.service).unwrap();
                let found: Service = postcard::from_bytes(&stored).unwrap();
                assert_eq!(found, self.service);
                self.service = found;
                self.step(Event::TookOver)
            }
            Input::TakeOverAfter(input) => {
                self.is_dying = true;
                self.input(input);
                self.is_dying = false;
                self.input(&Input::TakeOver)
            }
        }
    }

    /// Lets time pass with a world that does what it is told, until nothing happens any more. How long it took.
    pub(crate) fn run_out(&mut self, gate: GateKind, deaf: bool) -> Duration {
        let begin = self.now;
        for _ in 0..1000 {
            self.input(&Input::Gate(gate));
            if let Some((incarnation, fact)) = self.world.obey(deaf, &self.policy) {
                self.step(Event::Fact { incarnation, fact });
                continue;
            }
            match (self.service.phase(), self.service.deadline(&self.policy)) {
                (Phase::Ready(_), _) | (_, None) => return self.now.since(begin),
                (_, Some(at)) => self.now = at.max(self.now),
            }
            self.step(Event::Tick);
        }
        panic!("it never comes to rest: {:?}", self.service);
    }
}

pub(crate) fn spawns(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Spawn { .. }))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_service_ever_has_two_processes(
        policy in policies(),
        inputs in prop::collection::vec(inputs(), 1..120),
    ) {
        let mut run = Run::new(policy);
        for input in &inputs {
            run.input(input); // World::perform holds the law
            prop_assert_eq!(run.service.phase().incarnation(), run.world.current());
        }
    }

    #[test]
    fn a_stop_always_ends_whatever_happened_before_and_however_deaf_the_process(
        policy in policies(),
        inputs in prop::collection::vec(inputs(), 0..60),
        deaf: bool,
        kill: bool,
    ) {
        let mut run = Run::new(policy);
        for input in &inputs {
            run.input(input);
        }
        run.step(Event::Asked { verb: if kill { Verb::Kill } else { Verb::Stop }, by: OPERATOR });
        let took = run.run_out(GateKind::Shut(Haste::Orderly), deaf);
        prop_assert!(matches!(run.service.phase(), Phase::Stopped { .. }), "{:?}", run.service);
        prop_assert!(run.world.is_empty());
        prop_assert!(took <= run.policy.stop_timeout * 10, "it took {took:?}");
        if kill {
            prop_assert_eq!(took, Duration::ZERO);
        }
    }

    #[test]
    fn progress_extends_a_deadline_to_ten_times_the_timeout_and_no_further(
        stopping: bool,
        reports in prop::collection::vec(0_u64..9_000, 150..250),
    ) {
        let mut run = Run::new(Policy {
            start_timeout: Duration::from_secs(10), stop_timeout: Duration::from_secs(10), ..Policy::service()
        });
        run.input(&Input::Gate(GateKind::Open));
        run.input(&Input::World(Move::Exec));
        if stopping {
            run.step(Event::Asked { verb: Verb::Restart, by: OPERATOR });
        }
        let begin = run.now;
        let report = Move::Report(watchdog_protocol::session::Progress { fraction: None, text: "on it".into() });
        let mut reported = Duration::ZERO;
        for wait in reports {
            let kills = run.input(&Input::Wait(Duration::from_millis(wait)));
            if kills.iter().any(|command| matches!(command, Command::KillAll { .. })) {
                // Never within a timeout of the last report, unless the hundred seconds are over.
                let lasted = run.now.since(begin);
                prop_assert!(lasted >= Duration::from_secs(100) || lasted >= reported + Duration::from_secs(10));
                return Ok(());
            }
            reported = run.now.since(begin);
            prop_assert!(reported < Duration::from_secs(100), "still not killed");
            run.input(&Input::World(report.clone()));
        }
    }

    #[test]
    fn every_verb_is_legal_in_every_phase_and_comes_to_its_end(
        policy in policies(),
        inputs in prop::collection::vec(inputs(), 0..60),
        verb in verbs(),
    ) {
        let mut run = Run::new(policy);
        for input in &inputs {
            run.input(input);
        }
        let before = run.service.clone();
        let wanted_up = matches!(before.wanted(), Wanted::Up);
        run.step(Event::Asked { verb, by: OPERATOR });
        match verb {
            Verb::Start | Verb::Restart => {
                run.run_out(GateKind::Open, false);
                let is_done = match run.policy.work {
                    Work::Lasting => matches!(run.service.phase(), Phase::Ready(_)),
                    Work::Once => matches!(run.service.phase(), Phase::Completed { .. }),
                };
                prop_assert!(is_done, "{before:?} {:?}", run.service);
                if verb == Verb::Restart && before.is_live() {
                    prop_assert!(run.service.incarnation() > before.incarnation(), "the same process goes on");
                }
            }
            Verb::Stop | Verb::Kill | Verb::Scale | Verb::Remove => {
                run.run_out(GateKind::Shut(Haste::Orderly), false);
                prop_assert!(matches!(run.service.phase(), Phase::Stopped { .. }), "{:?}", run.service);
            }
            Verb::Reset => {
                let fails_still = matches!(run.service.phase(), Phase::Failed { .. } | Phase::Backoff { .. });
                prop_assert!(!fails_still, "{:?}", run.service);
                prop_assert_eq!(matches!(run.service.wanted(), Wanted::Up), wanted_up);
            }
            Verb::Reload => {
                let fails_still = matches!(run.service.phase(), Phase::Failed { .. } | Phase::Backoff { .. });
                prop_assert!(!fails_still, "{:?}", run.service);
                prop_assert_eq!(run.service.wanted(), before.wanted());
                let is_completed = matches!(before.phase(), Phase::Completed { .. });
                run.run_out(if wanted_up { GateKind::Open } else { GateKind::Shut(Haste::Orderly) }, false);
                if is_completed {
                    prop_assert_eq!(run.service.phase(), before.phase());
                } else if wanted_up && matches!(before.phase(), Phase::Starting(_) | Phase::Ready(_)) {
                    prop_assert!(run.service.incarnation() > before.incarnation(), "the same process goes on");
                } else if !wanted_up {
                    prop_assert!(!run.service.is_live(), "{:?}", run.service);
                }
            }
        }
    }

    #[test]
    fn an_operators_stop_is_undone_by_a_start_or_restart_and_by_nothing_else(
        policy in policies(),
        before in prop::collection::vec(inputs(), 0..40),
        after in prop::collection::vec(inputs(), 1..80),
        kill: bool,
    ) {
        let mut run = Run::new(policy);
        for input in &before {
            run.input(input);
        }
        run.step(Event::Asked { verb: if kill { Verb::Kill } else { Verb::Stop }, by: OPERATOR });
        let spawning = run.world.current();
        for input in &after {
            if input.wants_it_up() {
                continue;
            }
            let commands = run.input(input);
            // A new core may say the spawn again that was under way.
            if spawns(&commands) {
                prop_assert_eq!(run.world.current(), spawning);
            }
            let is_down = matches!(run.service.wanted(), Wanted::Down { .. });
            prop_assert!(is_down);
        }
    }

    #[test]
    fn the_wait_after_a_failure_is_any_part_of_a_bound_that_doubles_and_resets_after_a_stable_minute(
        ends in prop::collection::vec((prop::option::of(0_u64..90_000), any::<u64>()), 1..60),
    ) {
        let mut policy = Policy::service();
        policy.restart.limit = watchdog_lifecycle::restart::Limit::Off;
        let mut run = Run::new(policy);
        let mut in_a_row = 0_i32;
        for (ready_for, bits) in ends {
            run.run_out(GateKind::Open, true);
            run.chance = Chance::from_bits(bits);
            let up = Duration::from_millis(ready_for.unwrap_or(0));
            run.now = run.now.after(up);
            in_a_row = if up >= Duration::from_secs(60) { 1 } else { in_a_row + 1 };
            run.input(&Input::World(Move::Exit(watchdog_lifecycle::Exit::Code(1))));
            run.input(&Input::World(Move::LeaveNothing));
            let bound = match in_a_row {
                1 => Duration::ZERO,
                more => Duration::from_secs_f64((0.1 * 2_f64.powi(more - 2)).min(30.0)),
            };
            let wait = match run.service.phase() {
                Phase::Stopped { .. } => Duration::ZERO,
                Phase::Backoff { until, .. } => until.since(run.now),
                other => panic!("{other:?}"),
            };
            // Full jitter: any part of the bound, as chance has it.
            prop_assert_eq!(wait, run.chance.part_of(bound), "failure {} in a row, at most {:?}", in_a_row, bound);
        }
    }

    #[test]
    fn more_failures_than_the_limit_within_its_window_and_only_those_are_a_crash_loop(
        gaps in prop::collection::vec(0_u64..40_000, 1..40),
        failures in 0_u32..4,
    ) {
        use watchdog_lifecycle::restart::{Delay, Limit};
        let window = Duration::from_secs(60);
        let mut policy = Policy::program();
        policy.restart.limit = Limit::Within { failures, window };
        policy.restart.delay = Delay::AtOnce;
        let mut run = Run::new(policy);
        let mut past: Vec<Moment> = Vec::new();
        for gap in gaps {
            run.run_out(GateKind::Open, true);
            run.now = run.now.after(Duration::from_millis(gap));
            past.push(run.now);
            run.input(&Input::World(Move::Exit(watchdog_lifecycle::Exit::Code(1))));
            run.input(&Input::World(Move::LeaveNothing));
            let recent = past.iter().filter(|then| run.now.since(**then) <= window).count();
            let is_loop = recent > failures as usize;
            let failed = matches!(run.service.phase(), Phase::Failed { cause: Cause::Limit { .. }, .. });
            prop_assert_eq!(failed, is_loop, "{} failures in the window", recent);
            if failed {
                prop_assert!(!spawns(&run.input(&Input::Gate(GateKind::Open))));
                run.step(Event::Asked { verb: Verb::Reset, by: OPERATOR });
                past.clear();
            }
        }
    }
}

#[test]
fn a_process_that_no_record_knows_is_gone_before_the_next_one_comes() {
    let mut run = Run::new(Policy::program());
    let unknown = Incarnation::from_stored(9);
    let commands = run.step(Event::Fact { incarnation: unknown, fact: Fact::Spawned });
    assert!(commands.contains(&Command::KillAll { incarnation: unknown }));
    assert!(!spawns(&run.input(&Input::Gate(GateKind::Open))));
    run.step(Event::Fact {
        incarnation: unknown,
        fact: Fact::Exited(watchdog_lifecycle::Exit::Unknown.into()),
    });
    run.step(Event::Fact { incarnation: unknown, fact: Fact::Gone });
    let commands = run.input(&Input::Gate(GateKind::Open));
    assert!(commands.contains(&Command::Spawn { incarnation: unknown.next() }), "{commands:?}");
}

#[test]
fn survivors_are_named_and_block_the_start_until_they_are_gone() {
    let mut run = Run::new(Policy::program());
    run.input(&Input::Gate(GateKind::Open));
    run.input(&Input::World(Move::Exec));
    run.step(Event::Asked { verb: Verb::Restart, by: OPERATOR });
    run.input(&Input::World(Move::Exit(watchdog_lifecycle::Exit::Code(0))));
    let looks = run.input(&Input::Wait(Duration::from_secs(5)));
    assert!(looks.iter().any(|command| matches!(command, Command::NameSurvivors { .. })), "{looks:?}");
    let named = run.input(&Input::World(Move::GetStuck));
    let is_named = |command: &Command| matches!(command, Command::Log(Occurrence::Survivors { pids, .. }) if pids == &[7]);
    assert!(named.iter().any(is_named), "{named:?}");
    assert_eq!(run.service.phase().survivors(), [7]);
    assert!(!spawns(&run.input(&Input::Gate(GateKind::Open))));
    run.input(&Input::World(Move::LeaveNothing));
    assert!(spawns(&run.input(&Input::Gate(GateKind::Open))));
}
