//! All services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use watchdog_lifecycle::roster::{Roster, Standing};
use watchdog_lifecycle::{
    Absence, Cause, Chance, Command, Event, Exit, Group, GroupPolicy, Haste, Kind, Moment, Occurrence, Phase,
    Policy, Service, ServiceCommand, Verb, Wanted, Work,
};
use watchdog_protocol::{Incarnation, ServiceName};

use crate::config;
use crate::group::Groups;
use crate::world::{Move, OPERATOR, World, moves, policies, verbs, waits};

#[derive(Debug, Clone)]
pub(crate) enum Input {
    Ask(usize, Verb),
    World(usize, Move),
    /// A healthy world goes on by so many facts.
    Obey(usize),
    Wait(Duration),
    TakeOver,
}

pub(crate) fn inputs(services: usize) -> impl Strategy<Value = Input> {
    prop_oneof![
        2 => (0..services, verbs()).prop_map(|(who, verb)| Input::Ask(who, verb)),
        8 => (0..services, moves()).prop_map(|(who, wish)| Input::World(who, wish)),
        6 => (1_usize..20).prop_map(Input::Obey),
        3 => waits().prop_map(Input::Wait),
        1 => Just(Input::TakeOver),
    ]
}

/// Services of which each may require, or come after, those before it: every such graph has an order.
pub(crate) fn graphs() -> impl Strategy<Value = Vec<(ServiceName, Policy)>> {
    let edge = prop_oneof![3 => Just(None), 2 => Just(Some(true)), 1 => Just(Some(false))];
    let service = (policies(), prop::collection::vec(edge, 6));
    prop::collection::vec(service, 1..7).prop_map(|services| {
        let name = |index: usize| format!("s{index}").parse::<ServiceName>().unwrap();
        let with_edges = |(index, (mut policy, edges)): (usize, (Policy, Vec<Option<bool>>))| {
            for (other, requires) in edges.into_iter().take(index).enumerate() {
                match requires {
                    Some(true) => policy.requires.push(name(other)),
                    Some(false) => policy.after.push(name(other)),
                    None => {}
                }
            }
            (name(index), policy)
        };
        services.into_iter().enumerate().map(with_edges).collect()
    })
}

fn histories() -> impl Strategy<Value = (Vec<(ServiceName, Policy)>, Vec<Input>)> {
    graphs().prop_flat_map(|graph| {
        let services = graph.len();
        (Just(graph), prop::collection::vec(inputs(services), 1..80))
    })
}

pub(crate) struct Run {
    pub(crate) graph: Vec<(ServiceName, Policy)>,
    pub(crate) roster: Roster,
    pub(crate) worlds: BTreeMap<ServiceName, World>,
    pub(crate) groups: Groups,
    deaf: bool,
    pub(crate) now: Moment,
    pub(crate) chance: Chance,
}

impl Run {
    pub(crate) fn new(graph: Vec<(ServiceName, Policy)>) -> Self {
        Self::with_groups(graph, Vec::new())
    }

    pub(crate) fn with_groups(
        graph: Vec<(ServiceName, Policy)>,
        groups: Vec<(ServiceName, GroupPolicy)>,
    ) -> Self {
        let now = Moment::from_nanos(1_000_000_000);
        let service = || Service::new(Wanted::Up, Incarnation::NONE, now);
        let services = graph.iter().map(|(name, policy)| (name.clone(), Arc::new(policy.clone()), service()));
        let mut roster = Roster::new(services).unwrap();
        for (name, policy) in &groups {
            roster.group(name.clone(), policy.clone(), Group::default());
        }
        let worlds = graph.iter().map(|(name, _)| (name.clone(), World::default())).collect();
        let first = roster.begin(now, Chance::from_bits(1));
        let groups = Groups::new(groups);
        let mut run = Self { graph, roster, worlds, groups, deaf: false, now, chance: Chance::from_bits(2) };
        run.perform(first);
        run
    }

    pub(crate) fn step(&mut self, name: &ServiceName, event: Event) -> Vec<ServiceCommand> {
        self.chance = self.chance.next();
        let commands = self.roster.step(name, event, self.now, self.chance);
        self.perform(commands)
    }

    /// Does what is commanded, after a look at whether it may be.
    pub(crate) fn perform(&mut self, commands: Vec<ServiceCommand>) -> Vec<ServiceCommand> {
        for (at, (name, command)) in commands.iter().enumerate() {
            self.groups.look(name, command, &commands[at + 1..], &self.worlds, &self.roster, self.now);
            if self.is_fresh_spawn(name, command) {
                self.check_start(name);
            }
            if let Command::Log(Occurrence::Stopping { cause, .. }) = command {
                self.check_stop(name, cause);
            }
            self.worlds.get_mut(name).unwrap().perform(command);
        }
        for (name, _, service) in self.roster.iter() {
            assert_eq!(service.phase().incarnation(), self.worlds[name].current(), "{name}");
        }
        self.groups.compare(&self.roster);
        commands
    }

    fn is_fresh_spawn(&self, name: &ServiceName, command: &Command) -> bool {
        match command {
            Command::Spawn { incarnation } => self.worlds[name].current() != Some(*incarnation),
            _ => false,
        }
    }

    fn check_start(&self, name: &ServiceName) {
        assert!(self.roster.shutdown_haste().is_none(), "{name} starts in a shutdown");
        let requires = &self.roster.policy(name).unwrap().requires;
        let covered = |other: &ServiceName| requires.iter().any(|required| required.covers(other));
        for (required, _, service) in self.roster.iter().filter(|(other, _, _)| covered(other)) {
            if service.is_on_its_way_out() {
                continue;
            }
            let is_there = match self.roster.policy(required).unwrap().work {
                Work::Lasting => matches!(service.phase(), Phase::Ready(_) | Phase::Completed { .. }),
                Work::Once => matches!(service.phase(), Phase::Completed { .. }),
            };
            assert!(is_there, "{name} starts before {required}: {service:?}");
            assert_eq!(service.wanted(), &Wanted::Up, "{name} starts, {required} is to stop");
        }
        for other in &self.roster.policy(name).unwrap().after {
            let service = self.roster.get(other).unwrap();
            let has_had_its_turn = match self.roster.policy(other).unwrap().work {
                Work::Lasting => !matches!(service.phase(), Phase::Starting(_)),
                Work::Once => !matches!(service.phase(), Phase::Starting(_) | Phase::Ready(_)),
            };
            // What is to stop is waited for by nobody.
            assert!(has_had_its_turn || service.wanted() != &Wanted::Up, "{name} overtakes {other}");
        }
    }

    fn check_stop(&self, name: &ServiceName, cause: &Cause) {
        let is_ordered = match cause {
            Cause::Operator { verb, .. } => *verb == Verb::Stop,
            Cause::Watchdog { .. } => self.roster.shutdown_haste() == Some(Haste::Orderly),
            Cause::Dependency { on, absence } => {
                let service = self.roster.get(on).unwrap();
                match absence {
                    Absence::Stopped => assert_ne!(service.wanted(), &Wanted::Up, "{name} stops for {on}"),
                    Absence::Failed => {
                        assert!(self.has_failed(on), "{name} stops for {on}: {service:?}");
                    }
                }
                true
            }
            _ => false,
        };
        if is_ordered {
            for dependant in self.dependants(name) {
                let phase = self.roster.get(&dependant).unwrap().phase();
                let lives = phase.incarnation().is_some() && phase.survivors().is_empty();
                assert!(!lives, "{name} stops before {dependant}: {phase:?}");
            }
        }
    }

    /// It has failed, or its group has.
    fn has_failed(&self, name: &ServiceName) -> bool {
        let of = self.roster.groups().find(|(_, policy, _)| policy.members.contains(name));
        of.is_some_and(|(_, _, group)| group.failed().is_some())
            || matches!(self.roster.get(name).unwrap().phase(), Phase::Failed { .. })
    }

    /// Whoever requires it, over any number of links that hold: nobody requires what is on its way out.
    fn dependants(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
        let mut found = BTreeSet::new();
        // Edges lead to earlier services only, so one pass finds all.
        for (other, policy) in &self.graph {
            let counts = |required: &ServiceName| {
                !self.roster.get(required).is_some_and(Service::is_on_its_way_out)
                    && (required == name || found.contains(required))
            };
            if policy.requires.iter().any(counts) {
                found.insert(other.clone());
            }
        }
        found
    }

    /// Whatever is wanted is up, or says what holds it up.
    pub(crate) fn check_rest(&self) {
        for (name, _, service) in self.roster.iter() {
            match (service.wanted(), service.phase()) {
                (Wanted::Down { .. }, phase) => {
                    assert!(phase.as_str() == "stopped", "{name} is to be down: {phase:?}");
                }
                (Wanted::Up, Phase::Stopped { .. }) => {
                    let standing = self.roster.standing(name);
                    let Standing::Blocked { by, .. } = &standing else {
                        panic!("{name} is forgotten: {standing:?}");
                    };
                    let of = self.roster.get(by).unwrap();
                    let is_cause = of.wanted() != &Wanted::Up || self.has_failed(by);
                    assert!(is_cause && self.dependants(by).contains(name), "{name} by {by}");
                }
                (Wanted::Up, Phase::Ready(_)) => {
                    let is_blocked = matches!(self.roster.standing(name), Standing::Blocked { .. });
                    assert!(!is_blocked, "{name} runs: {:?}", self.roster.standing(name));
                }
                (Wanted::Up, Phase::Failed { .. } | Phase::Completed { .. }) => {}
                (Wanted::Up, phase) => panic!("{name} does not rest: {phase:?}"),
            }
        }
    }

    pub(crate) fn input(&mut self, input: &Input) {
        match input {
            Input::Ask(who, verb) => {
                let name = self.graph[*who].0.clone();
                self.groups.asked(&name, *verb, &self.roster);
                self.step(&name, Event::Asked { verb: *verb, by: OPERATOR });
            }
            Input::World(who, wish) => {
                let (name, policy) = self.graph[*who].clone();
                if let Some((incarnation, fact)) = self.worlds.get_mut(&name).unwrap().make(wish, &policy) {
                    self.step(&name, Event::Fact { incarnation, fact });
                }
            }
            Input::Obey(facts) => {
                for _ in 0..*facts {
                    self.obey();
                }
            }
            Input::Wait(wait) => {
                self.now = self.now.after(*wait);
                self.tick();
            }
            Input::TakeOver => {
                let services = self.roster.iter().map(|(name, policy, service)| {
                    let stored = postcard::to_stdvec(service).unwrap();
                    (name.clone(), Arc::new(policy.clone()), postcard::from_bytes(&stored).unwrap())
                });
                let services: Vec<_> = services.collect();
                let stored = |group: &Group| postcard::to_stdvec(group).unwrap();
                let groups = self.roster.groups();
                let groups =
                    groups.map(|(name, policy, group)| (name.clone(), policy.clone(), stored(group)));
                let groups: Vec<_> = groups.collect();
                let promised = self.roster.promised().clone();
                self.roster = Roster::expecting(services, promised).unwrap();
                for (name, policy, stored) in groups {
                    self.roster.group(name, policy, postcard::from_bytes(&stored).unwrap());
                }
                self.chance = self.chance.next();
                let commands = self.roster.took_over(self.now, self.chance);
                self.perform(commands);
            }
        }
    }

    fn tick(&mut self) {
        self.chance = self.chance.next();
        let commands = self.roster.tick(self.now, self.chance);
        self.perform(commands);
        let next = self.roster.next_deadline();
        assert!(next.is_none_or(|at| at > self.now), "the core would spin");
        let each = self.roster.iter().filter_map(|(_, policy, service)| service.deadline(policy)).min();
        assert_eq!(next, each);
    }

    /// One thing a healthy world does by itself.
    pub(crate) fn obey(&mut self) -> bool {
        for (name, policy) in self.graph.clone() {
            if let Some((incarnation, fact)) = self.worlds.get_mut(&name).unwrap().obey(self.deaf, &policy) {
                self.step(&name, Event::Fact { incarnation, fact });
                return true;
            }
        }
        false
    }

    /// Lets a healthy world go on until nothing happens but heartbeats.
    pub(crate) fn run_out(&mut self) {
        let mut ticks = 0;
        loop {
            if self.obey() {
                continue;
            }
            for (name, policy) in self.graph.clone() {
                if let Phase::Ready(_) = self.roster.get(&name).unwrap().phase() {
                    for wish in [Move::Say(watchdog_protocol::session::Health::Ok), Move::Beat] {
                        let fact = self.worlds.get_mut(&name).unwrap().make(&wish, &policy);
                        let (incarnation, fact) = fact.unwrap();
                        self.step(&name, Event::Fact { incarnation, fact });
                    }
                }
            }
            let is_still = self.roster.iter().all(|(_, _, service)| match service.phase() {
                Phase::Ready(_) | Phase::Stopped { .. } | Phase::Failed { .. } | Phase::Completed { .. } => {
                    true
                }
                Phase::Starting(_) | Phase::Stopping(_) | Phase::Backoff { .. } => false,
            });
            let Some(at) = self.roster.next_deadline().filter(|_| !is_still) else { return };
            self.now = at.max(self.now);
            self.tick();
            ticks += 1;
            assert!(ticks < 1000, "it never comes to rest: {:?}", self.roster);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_starts_before_what_it_requires_and_nothing_is_stopped_before_what_requires_it(
        (graph, inputs) in histories(),
    ) {
        let mut run = Run::new(graph);
        for input in &inputs {
            run.input(input); // Run::perform looks at each start and stop
        }
    }

    #[test]
    fn dependants_come_back_with_their_dependency(
        (graph, inputs) in histories(),
        with_restart: bool,
    ) {
        let mut run = Run::new(graph);
        for input in &inputs {
            run.input(input);
        }
        run.run_out();
        let verb_for = |service: &Service| match (service.wanted(), service.phase()) {
            (Wanted::Down { .. }, _) if with_restart => Some(Verb::Restart),
            (Wanted::Down { .. }, _) => Some(Verb::Start),
            (Wanted::Up, Phase::Failed { .. }) => Some(Verb::Reset),
            (Wanted::Up, _) => None,
        };
        let asked: Vec<_> = run
            .roster
            .iter()
            .filter_map(|(name, _, service)| Some((name.clone(), verb_for(service)?)))
            .collect();
        // The last one first: whoever is asked first waits for the others.
        for (name, verb) in asked.into_iter().rev() {
            run.step(&name, Event::Asked { verb, by: OPERATOR });
        }
        run.run_out();
        for (name, _, service) in run.roster.iter() {
            let is_up = matches!(service.phase(), Phase::Ready(_) | Phase::Completed { .. });
            prop_assert!(is_up, "{name}: {service:?}");
            prop_assert_eq!(run.roster.standing(name), Standing::Free);
        }
    }

    #[test]
    fn at_rest_whatever_is_wanted_is_up_or_says_what_holds_it_up((graph, inputs) in histories()) {
        let mut run = Run::new(graph);
        for input in &inputs {
            run.input(input);
        }
        run.run_out();
        run.check_rest();
    }

    #[test]
    fn a_shutdown_always_ends_and_changes_nothing_of_what_is_wanted(
        (graph, inputs) in histories(),
        deaf: bool,
        twice: bool,
    ) {
        let mut run = Run::new(graph);
        for input in &inputs {
            run.input(input);
        }
        let wanted = |run: &Run| run.roster.iter().map(|(_, _, s)| s.wanted().clone()).collect::<Vec<_>>();
        let (before, begin) = (wanted(&run), run.now);
        run.deaf = deaf;
        run.chance = run.chance.next();
        for haste in if twice { vec![Haste::Orderly, Haste::AtOnce] } else { vec![Haste::Orderly] } {
            let commands = run.roster.shutdown(haste, run.now, run.chance);
            run.perform(commands);
        }
        run.run_out();
        prop_assert!(run.roster.is_at_rest());
        prop_assert!(run.worlds.values().all(World::is_empty));
        prop_assert_eq!(before, wanted(&run));
        if twice {
            prop_assert_eq!(run.now, begin, "a quick shutdown waits for nobody");
        }
    }
}

pub(crate) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// `b` requires `a`, `c` requires `b`, `d` comes after `a`; all programs are ready at exec.
fn chain() -> Run {
    let policy = |requires: &[&str], after: &[&str]| Policy {
        requires: requires.iter().copied().map(name).collect(),
        after: after.iter().copied().map(name).collect(),
        ..Policy::program()
    };
    let mut run = Run::new(vec![
        (name("a"), policy(&[], &[])),
        (name("b"), policy(&["a"], &[])),
        (name("c"), policy(&["b"], &[])),
        (name("d"), policy(&[], &["a"])),
    ]);
    run.run_out();
    run
}

pub(crate) fn phases(run: &Run) -> Vec<&'static str> {
    run.roster.iter().map(|(_, _, service)| service.phase().as_str()).collect()
}

#[test]
fn a_crash_leaves_running_dependants_alone() {
    let mut run = chain();
    let (incarnation, fact) =
        run.worlds.get_mut(&name("a")).unwrap().make(&Move::Exit(Exit::Code(1)), &Policy::program()).unwrap();
    run.step(&name("a"), Event::Fact { incarnation, fact });
    assert_eq!(phases(&run), ["stopping", "ready", "ready", "ready"]);
    run.run_out();
    assert_eq!(phases(&run), ["ready"; 4]);
    let starts: Vec<_> = run.roster.iter().map(|(_, _, service)| service.starts()).collect();
    assert_eq!(starts, [2, 1, 1, 1]);
}

#[test]
fn an_operators_restart_leaves_dependants_alone() {
    let mut run = chain();
    run.step(&name("a"), Event::Asked { verb: Verb::Restart, by: OPERATOR });
    run.run_out();
    let starts: Vec<_> = run.roster.iter().map(|(_, _, service)| service.starts()).collect();
    assert_eq!((phases(&run), starts), (vec!["ready"; 4], vec![2, 1, 1, 1]));
}

#[test]
fn an_operators_stop_stops_dependants_first_and_a_start_brings_them_back() {
    let mut run = chain();
    run.step(&name("a"), Event::Asked { verb: Verb::Stop, by: OPERATOR });
    assert_eq!(phases(&run), ["ready", "ready", "stopping", "ready"]);
    run.run_out();
    assert_eq!(phases(&run), ["stopped", "stopped", "stopped", "ready"]);
    let by_a = Standing::Blocked { by: name("a"), absence: Absence::Stopped };
    assert_eq!((run.roster.standing(&name("b")), run.roster.standing(&name("c"))), (by_a.clone(), by_a));
    let end = run.roster.get(&name("c")).unwrap().last_end().unwrap();
    assert_eq!(
        end.to_string(),
        "requires `a`, which is stopped; ended in time (killed by SIGKILL (signal 9))"
    );
    // A start of a dependant does not undo the operator's stop.
    run.step(&name("c"), Event::Asked { verb: Verb::Start, by: OPERATOR });
    run.run_out();
    assert_eq!(phases(&run), ["stopped", "stopped", "stopped", "ready"]);
    run.step(&name("a"), Event::Asked { verb: Verb::Start, by: OPERATOR });
    run.run_out();
    assert_eq!(phases(&run), ["ready"; 4]);
}

#[test]
fn a_service_is_registered_beside_running_ones_and_unregistered_when_nobody_needs_it() {
    let mut run = chain();
    let (now, chance) = (run.now, run.chance);
    let service = || Service::new(Wanted::Up, Incarnation::NONE, now);
    let taken = run.roster.register(name("a"), Policy::program().into(), service(), now, chance);
    assert_eq!(taken.unwrap_err().to_string(), "`a` is already registered");
    let policy = Policy { requires: vec![name("x")], ..Policy::program() };
    let missing = run.roster.register(name("e"), policy.into(), service(), now, chance);
    assert_eq!(missing.unwrap_err().to_string(), "`e` has requires = [\"x\"], but there is no `x`");
    let policy = Policy { requires: vec![name("c")], ..Policy::program() };
    let commands = run.roster.register(name("e"), policy.into(), service(), now, chance).unwrap();
    assert!(commands.contains(&(name("e"), Command::Spawn { incarnation: Incarnation::FIRST })));

    let live = run.roster.unregister(&name("e"), now, chance).unwrap_err();
    assert_eq!(live.to_string(), "`e` is starting; stop it first");
    let down = || Service::new(Wanted::Down { by: OPERATOR, verb: Verb::Stop }, Incarnation::NONE, now);
    let mut idle = Roster::new([
        (name("a"), Policy::program().into(), down()),
        (name("b"), Policy { requires: vec![name("a")], ..Policy::program() }.into(), down()),
    ])
    .unwrap();
    let required = idle.unregister(&name("a"), now, chance).unwrap_err();
    assert_eq!(required.to_string(), "`a` is required by `b`");
    idle.unregister(&name("b"), now, chance).unwrap();
    idle.unregister(&name("a"), now, chance).unwrap();
    assert_eq!(idle.iter().count(), 0);
}

#[test]
fn whoever_requires_a_task_waits_until_it_has_completed_and_a_takeover_does_not_run_it_again() {
    let after = Policy { after: vec![name("task")], ..Policy::program() };
    let requires = Policy { requires: vec![name("task")], ..Policy::program() };
    let mut run = Run::new(vec![
        (name("task"), Policy::task(Kind::Program)),
        (name("after"), after),
        (name("requires"), requires),
    ]);
    let exit = |run: &mut Run, code| {
        let fact = run
            .worlds
            .get_mut(&name("task"))
            .unwrap()
            .make(&Move::Exit(Exit::Code(code)), &Policy::task(Kind::Program));
        let (incarnation, fact) = fact.unwrap();
        run.step(&name("task"), Event::Fact { incarnation, fact });
    };
    // By name: after, requires, task.
    run.obey();
    assert_eq!(phases(&run), ["stopped", "stopped", "ready"]);
    exit(&mut run, 1);
    run.obey();
    run.obey();
    // It is tried again, and has had its turn: only the order mattered to the one.
    assert_eq!(phases(&run), ["starting", "stopped", "ready"]);
    exit(&mut run, 0);
    run.run_out();
    assert_eq!(phases(&run), ["ready", "ready", "completed"]);
    run.input(&Input::TakeOver);
    run.run_out();
    assert_eq!(run.roster.get(&name("task")).unwrap().starts(), 2);
}

#[test]
fn the_name_of_all_instances_waits_for_each_and_for_none_that_is_too_many() {
    let requires =
        |names: &[&str]| Policy { requires: names.iter().copied().map(name).collect(), ..Policy::program() };
    let mut run = Run::new(vec![
        (name("w@1"), Policy::program()),
        (name("w@2"), Policy::program()),
        (name("w-1"), Policy::program()),
        (name("all"), requires(&["w"])),
        (name("second"), requires(&["w@2"])),
    ]);
    run.obey();
    // By name: all, second, w-1, w@1, w@2.
    assert_eq!(phases(&run), ["stopped", "stopped", "starting", "ready", "starting"]);
    assert_eq!(run.roster.standing(&name("all")), Standing::Waiting { on: vec![name("w@2")] });
    run.run_out();
    assert_eq!(phases(&run), ["ready"; 5]);

    run.input(&Input::Ask(1, Verb::Scale));
    run.run_out();
    assert_eq!(phases(&run), ["ready", "ready", "ready", "ready", "stopped"], "its stop waits for nobody");
    run.step(&name("all"), Event::Asked { verb: Verb::Restart, by: OPERATOR });
    run.run_out();
    assert_eq!(phases(&run), ["ready", "ready", "ready", "ready", "stopped"], "nobody waits for it");

    // One that comes later counts from then on.
    let (now, chance) = (run.now, run.chance);
    let down = Service::new(Wanted::Down { by: OPERATOR, verb: Verb::Stop }, Incarnation::NONE, now);
    run.worlds.insert(name("w@3"), World::default());
    let commands = run.roster.register(name("w@3"), Policy::program().into(), down, now, chance).unwrap();
    run.perform(commands);
    let blocked = Standing::Blocked { by: name("w@3"), absence: Absence::Stopped };
    assert_eq!(run.roster.standing(&name("all")), blocked);
    assert_eq!(run.roster.standing(&name("second")), Standing::Free);
}
