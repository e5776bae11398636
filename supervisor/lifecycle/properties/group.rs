//! Groups: what a short model says of whom a failure takes along, and when it is too much.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use watchdog_lifecycle::restart::Limit;
use watchdog_lifecycle::{
    Cause, Command, Event, Exit, GroupPolicy, Moment, Occurrence, Phase, Policy, Roster, ServiceCommand,
    Standing, Strategy as Takes, Verb, Wanted,
};
use watchdog_protocol::{Incarnation, ServiceName};

use crate::config;
use crate::roster::{Input, Run, graphs, inputs, name, phases};
use crate::world::{Move, OPERATOR, World};

/// What the model knows of one group.
#[derive(Debug, Default)]
struct Model {
    failures: Vec<Moment>,
    failed: bool,
    /// Who has to end before those from this place on start.
    ending: BTreeSet<(ServiceName, Incarnation)>,
    first: usize,
}

/// The model of all groups, looked at with each command.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<(ServiceName, GroupPolicy, Model)>,
    /// Ends after which somebody wanted a start meanwhile: no failures.
    again: BTreeSet<(ServiceName, Incarnation)>,
}

impl Groups {
    pub(crate) fn new(groups: Vec<(ServiceName, GroupPolicy)>) -> Self {
        let groups = groups.into_iter().map(|(name, policy)| (name, policy, Model::default())).collect();
        Self { groups, again: BTreeSet::new() }
    }

    /// Before a verb is stepped.
    pub(crate) fn asked(&mut self, member: &ServiceName, verb: Verb, roster: &Roster) {
        if !matches!(verb, Verb::Start | Verb::Restart | Verb::Reset | Verb::Reload) {
            return;
        }
        let service = roster.get(member).unwrap();
        if let (Phase::Stopping(stopping), Verb::Start | Verb::Restart) = (service.phase(), verb) {
            self.again.insert((member.clone(), stopping.incarnation));
        }
        let of = self.groups.iter_mut().find(|(_, policy, _)| policy.members.contains(member));
        if let Some((_, _, model)) = of.filter(|(_, _, model)| model.failed) {
            model.failed = false;
            model.failures.clear();
        }
    }

    fn restarted(&mut self, group: &ServiceName, roster: &Roster) {
        let (_, policy, model) = self.groups.iter_mut().find(|(name, _, _)| name == group).unwrap();
        (model.failed, model.first) = (false, 0);
        model.failures.clear();
        for member in &policy.members {
            let phase = roster.get(member).unwrap().phase();
            if let Some(incarnation) = phase.incarnation() {
                model.ending.insert((member.clone(), incarnation));
            }
            if let Phase::Stopping(stopping) = phase {
                self.again.insert((member.clone(), stopping.incarnation));
            }
        }
    }

    /// Looks at one command before it is performed; `rest` are those of the same step behind it.
    pub(crate) fn look(
        &mut self,
        member: &ServiceName,
        command: &Command,
        rest: &[ServiceCommand],
        worlds: &BTreeMap<ServiceName, World>,
        roster: &Roster,
        now: Moment,
    ) {
        let of = self.groups.iter_mut().find(|(_, policy, _)| policy.members.contains(member));
        let Some((_, policy, model)) = of else { return };
        let place = |name: &ServiceName| policy.members.iter().position(|member| member == name).unwrap();
        model.ending.retain(|(name, incarnation)| worlds[name].current() == Some(*incarnation));
        match command {
            Command::Spawn { incarnation } if worlds[member].current() != Some(*incarnation) => {
                assert!(!model.failed, "{member} starts, its group failed");
                if place(member) >= model.first {
                    assert!(model.ending.is_empty(), "{member} starts before these end: {:?}", model.ending);
                }
                if policy.strategy != Takes::OneForOne {
                    for before in &policy.members[..place(member)] {
                        let service = roster.get(before).unwrap();
                        let is_there = matches!(
                            service.phase(),
                            Phase::Ready(_) | Phase::Completed { .. } | Phase::Failed { .. }
                        );
                        let is_blocked = matches!(roster.standing(before), Standing::Blocked { .. });
                        assert!(
                            is_there || is_blocked || service.wanted() != &Wanted::Up,
                            "{member} starts before {before}"
                        );
                    }
                }
            }
            Command::Log(Occurrence::Stopping { cause, .. }) if is_of_a_group_restart(cause) => {
                let behind = model.ending.iter().filter(|(name, _)| place(name) > place(member));
                for (name, _) in behind {
                    let phase = roster.get(name).unwrap().phase();
                    assert!(!phase.survivors().is_empty(), "{member} stops before {name}: {phase:?}");
                }
            }
            Command::Log(Occurrence::Ended(end)) => {
                let key = (member.clone(), end.incarnation);
                let next = rest.iter().find(|(name, _)| name == member).map(|(_, command)| command);
                let is_over = matches!(next, Some(Command::Log(Occurrence::Stopped | Occurrence::Completed)));
                if end.cause.was_asked_for() || is_over || self.again.remove(&key) || model.failed {
                    return;
                }
                let is_final = matches!(next, Some(Command::Log(Occurrence::Failed { .. })));
                if let Limit::Within { failures, window } = policy.limit {
                    model.failures.retain(|then| now.since(*then) <= window);
                    model.failures.push(now);
                    model.failed = model.failures.len() > failures as usize;
                }
                let first = match policy.strategy {
                    Takes::OneForOne => return,
                    Takes::RestForOne => place(member),
                    Takes::OneForAll => 0,
                };
                model.failed |= is_final;
                model.first = if model.ending.is_empty() { first } else { model.first.min(first) };
                let lives = policy.members[model.first..].iter();
                model.ending.extend(lives.filter_map(|name| Some((name.clone(), worlds[name].current()?))));
            }
            _ => {}
        }
    }

    /// The groups have failed that the model says have.
    pub(crate) fn compare(&self, roster: &Roster) {
        for ((name, _, model), (_, _, group)) in self.groups.iter().zip(roster.groups()) {
            assert_eq!(group.failed().is_some(), model.failed, "{name}: {group:?} {model:?}");
        }
    }
}

fn is_of_a_group_restart(cause: &Cause) -> bool {
    matches!(cause, Cause::Group { .. })
}

type Services = Vec<(ServiceName, Policy)>;
type Members = Vec<(ServiceName, GroupPolicy)>;

#[derive(Debug, Clone)]
enum Wish {
    Plain(Input),
    Restart(usize),
    Each(usize, Verb),
}

/// Some services, the first few of them in one group and the next few in another.
fn grouped() -> impl Strategy<Value = (Services, Members)> {
    let takes = || prop_oneof![Just(Takes::OneForOne), Just(Takes::RestForOne), Just(Takes::OneForAll)];
    let limit = || {
        prop_oneof![
            Just(Limit::Off),
            (0_u32..4).prop_map(|failures| Limit::Within { failures, window: Duration::from_secs(60) }),
        ]
    };
    let group = move || (1_usize..5, takes(), limit());
    (graphs(), group(), group()).prop_map(|(mut graph, first, second)| {
        let mut groups = Vec::new();
        let mut begin = 0;
        for (group, (size, strategy, limit)) in [("g0", first), ("g1", second)] {
            let end = graph.len().min(begin + size);
            let members: Vec<_> = graph[begin..end].iter().map(|(name, _)| name.clone()).collect();
            begin = end;
            if members.is_empty() {
                continue;
            }
            let policy = GroupPolicy { members, strategy, limit };
            for (name, service) in &mut graph {
                if policy.members.contains(name) {
                    service.restart.limit = Limit::Off;
                    policy.arrange(name, &mut service.after);
                }
            }
            groups.push((name(group), policy));
        }
        (graph, groups)
    })
}

fn histories() -> impl Strategy<Value = (Services, Members, Vec<Wish>)> {
    grouped().prop_flat_map(|(graph, groups)| {
        let (services, count) = (graph.len(), groups.len());
        let wish = prop_oneof![
            12 => inputs(services).prop_map(Wish::Plain),
            1 => (0..count).prop_map(Wish::Restart),
            1 => (0..count, crate::world::verbs()).prop_map(|(group, verb)| Wish::Each(group, verb)),
        ];
        (Just(graph), Just(groups), prop::collection::vec(wish, 1..80))
    })
}

fn wish(run: &mut Run, groups: &[(ServiceName, GroupPolicy)], wish: &Wish) {
    match wish {
        Wish::Plain(input) => run.input(input),
        Wish::Restart(group) => restart(run, &groups[*group].0),
        Wish::Each(group, verb) => ask_each(run, &groups[*group].1, *verb),
    }
}

fn restart(run: &mut Run, group: &ServiceName) {
    run.groups.restarted(group, &run.roster);
    run.chance = run.chance.next();
    let commands = run.roster.restart_group(group, &OPERATOR, run.now, run.chance);
    run.perform(commands);
}

fn ask_each(run: &mut Run, policy: &GroupPolicy, verb: Verb) {
    for member in &policy.members {
        let at = run.graph.iter().position(|(name, _)| name == member).unwrap();
        run.input(&Input::Ask(at, verb));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn members_never_run_against_their_order_and_each_failure_counts_once(
        (graph, groups, wishes) in histories(),
    ) {
        let mut run = Run::with_groups(graph, groups.clone());
        for one in &wishes {
            wish(&mut run, &groups, one); // Groups::look and ::compare hold the law
        }
    }

    #[test]
    fn a_failed_group_rests_as_a_whole_and_comes_back_with_one_reset(
        (graph, groups, wishes) in histories(),
    ) {
        let mut run = Run::with_groups(graph, groups.clone());
        for one in &wishes {
            wish(&mut run, &groups, one);
        }
        run.run_out();
        for (group, policy) in &groups {
            let failed = |run: &Run| run.roster.groups().any(|(name, _, it)| name == group && it.failed().is_some());
            if !failed(&run) {
                continue;
            }
            for member in &policy.members {
                let service = run.roster.get(member).unwrap();
                let rests = match service.wanted() {
                    Wanted::Up => matches!(service.phase(), Phase::Failed { .. } | Phase::Completed { .. }),
                    Wanted::Down { .. } => matches!(service.phase(), Phase::Stopped { .. }),
                };
                prop_assert!(rests, "{member}: {service:?}");
            }
            let at = run.graph.iter().position(|(name, _)| *name == policy.members[0]).unwrap();
            run.input(&Input::Ask(at, Verb::Reset));
            prop_assert!(!failed(&run));
            for member in &policy.members {
                let is_failed = matches!(run.roster.get(member).unwrap().phase(), Phase::Failed { .. });
                prop_assert!(!is_failed, "{member}");
            }
            run.run_out();
            // Who requires a member and is in no group of its own, too.
            run.check_rest();
        }
    }

    #[test]
    fn a_restart_of_a_group_leaves_each_wanted_member_in_a_new_process(
        (graph, groups, wishes) in histories(),
    ) {
        let mut run = Run::with_groups(graph, groups.clone());
        for one in &wishes {
            wish(&mut run, &groups, one);
        }
        // All that others require is up, too.
        for at in 0..run.graph.len() {
            run.input(&Input::Ask(at, Verb::Start));
        }
        run.run_out();
        let incarnations = |run: &Run| -> Vec<_> {
            run.roster.iter().map(|(name, _, service)| (name.clone(), service.incarnation())).collect()
        };
        let before = incarnations(&run);
        for (group, _) in &groups {
            restart(&mut run, group);
            run.run_out();
        }
        for ((name, before), (_, after)) in before.into_iter().zip(incarnations(&run)) {
            let is_member = groups.iter().any(|(_, policy)| policy.members.contains(&name));
            prop_assert_eq!(after > before, is_member, "{}", name);
            let service = run.roster.get(&name).unwrap();
            prop_assert!(matches!(service.phase(), Phase::Ready(_) | Phase::Completed { .. }), "{:?}", service);
        }
    }
}

/// `a`, `b` and `c`, programs, in one group, all at work.
fn three(strategy: Takes, failures: u32) -> Run {
    let policy = GroupPolicy {
        members: ["a", "b", "c"].map(name).to_vec(),
        strategy,
        limit: Limit::Within { failures, window: Duration::from_secs(60) },
    };
    let member = |name: &ServiceName| {
        let mut member = Policy::program();
        member.restart.limit = Limit::Off;
        policy.arrange(name, &mut member.after);
        (name.clone(), member)
    };
    let graph = policy.members.iter().map(member).collect();
    let mut run = Run::with_groups(graph, vec![(name("g"), policy)]);
    run.run_out();
    assert_eq!(phases(&run), ["ready"; 3]);
    run
}

fn die(run: &mut Run, member: &str) {
    for wish in [Move::Exit(Exit::Code(1)), Move::LeaveNothing] {
        let fact = run.worlds.get_mut(&name(member)).unwrap().make(&wish, &Policy::program());
        let (incarnation, fact) = fact.unwrap();
        run.step(&name(member), Event::Fact { incarnation, fact });
    }
}

fn starts(run: &Run) -> Vec<u64> {
    run.roster.iter().map(|(_, _, service)| service.starts()).collect()
}

#[test]
fn a_failure_takes_along_whom_the_strategy_says() {
    for (strategy, expected) in [
        (Takes::OneForOne, vec![1, 2, 1]),
        (Takes::RestForOne, vec![1, 2, 2]),
        (Takes::OneForAll, vec![2, 2, 2]),
    ] {
        let mut run = three(strategy, 5);
        die(&mut run, "b");
        run.run_out();
        assert_eq!((phases(&run), starts(&run)), (vec!["ready"; 3], expected), "{strategy:?}");
    }
}

#[test]
fn others_end_in_reverse_order_and_their_cause_names_who_failed() {
    let mut run = three(Takes::OneForAll, 5);
    die(&mut run, "b");
    assert_eq!(phases(&run), ["ready", "stopped", "stopping"], "c first, a after it");
    run.obey();
    run.obey();
    assert_eq!(phases(&run), ["stopping", "stopped", "stopped"]);
    run.obey();
    run.obey();
    assert_eq!(phases(&run), ["starting", "stopped", "stopped"]);
    run.run_out();
    let end = run.roster.get(&name("a")).unwrap().last_end().unwrap();
    assert_eq!(end.cause.to_string(), "restarted with `b` of group `g`");
}

#[test]
fn a_group_fails_as_one_when_its_limit_is_passed_and_any_start_brings_it_back() {
    let mut run = three(Takes::OneForOne, 2);
    for member in ["a", "b", "c"] {
        die(&mut run, member);
        run.obey();
    }
    assert_eq!(phases(&run), ["ready", "stopping", "failed"], "in reverse order");
    run.run_out();
    assert_eq!(phases(&run), ["failed"; 3]);
    let Phase::Failed { cause, .. } = run.roster.get(&name("a")).unwrap().phase() else { panic!() };
    assert_eq!(
        cause.to_string(),
        "group `g` failed: 3 failures within 60s, the last one of `c`: ended by itself with exit code 1"
    );
    run.input(&Input::Ask(1, Verb::Start));
    run.run_out();
    assert_eq!(phases(&run), ["ready"; 3]);
}
