//! Another configuration, at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use watchdog_lifecycle::{
    Cause, Command, Liveness, Moment, Occurrence, Phase, Policy, Reach, Reconfiguration, Service, Verb,
    Wanted,
};
use watchdog_protocol::{Incarnation, ServiceName};

use crate::config;
use crate::roster::{Input, Run, graphs, inputs};
use crate::world::{OPERATOR, World};

type Graph = Vec<(ServiceName, Policy)>;

/// A graph with some of its services left out.
fn some_of() -> impl Strategy<Value = Graph> {
    (graphs(), prop::collection::vec(prop::bool::weighted(0.7), 7)).prop_map(|(graph, kept)| {
        let is_kept: BTreeMap<_, _> = graph.iter().map(|(name, _)| name.clone()).zip(kept).collect();
        let mut graph: Graph = graph.into_iter().filter(|(name, _)| is_kept[name]).collect();
        for (_, policy) in &mut graph {
            policy.requires.retain(|name| is_kept[name]);
            policy.after.retain(|name| is_kept[name]);
        }
        graph
    })
}

fn reach(before: &Policy, after: &Policy, restarts: bool) -> Reach {
    let is_looked_at = |policy: &Policy| !matches!(policy.liveness, Liveness::Heartbeat { .. });
    let is_same = before.kind == after.kind && before.work == after.work && before.ready == after.ready;
    match before.liveness == after.liveness {
        _ if restarts || !is_same => Reach::Restart,
        true => Reach::Live,
        false if is_looked_at(before) && is_looked_at(after) => Reach::Watch,
        false => Reach::Restart,
    }
}

impl Run {
    /// From its configuration to this one.
    fn reload(
        &mut self,
        after: &Graph,
        restarts: &[bool],
        renames: bool,
    ) -> (BTreeSet<ServiceName>, Renamed) {
        let before: BTreeMap<_, _> = self.graph.iter().cloned().collect();
        let wanted: BTreeMap<ServiceName, Policy> = after.iter().cloned().collect();
        let changed = after.iter().zip(restarts).filter_map(|((name, policy), restarts)| {
            let reach = reach(before.get(name)?, policy, *restarts);
            Some((name.clone(), (Arc::new(policy.clone()), reach)))
        });
        let is_new = |(name, _): &&(ServiceName, Policy)| !before.contains_key(name);
        let mut added: Vec<_> = after.iter().filter(is_new).cloned().collect();
        let removed: BTreeSet<_> =
            before.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        // The last of the new ones is the first of the old ones under another name.
        let renamed = removed.first().filter(|_| renames).and_then(|from| Some((from.clone(), added.pop()?)));
        let new = Reconfiguration {
            by: OPERATOR,
            changed: changed.collect(),
            added: added
                .iter()
                .map(|(name, policy)| (name.clone(), Arc::new(policy.clone()), fresh(self.now)))
                .collect(),
            removed: removed.clone(),
            promised: renamed
                .iter()
                .map(|(_, (name, policy))| (name.clone(), Arc::new(policy.clone())))
                .collect(),
            groups: BTreeMap::new(),
        };
        for (name, _, _) in &new.added {
            self.worlds.insert(name.clone(), World::default());
        }
        // What is removed keeps the policy it had.
        let there = before.into_iter().chain(wanted);
        let there = there.filter(|(name, _)| renamed.as_ref().is_none_or(|(_, (heir, _))| heir != name));
        self.graph = there.collect::<BTreeMap<_, _>>().into_iter().collect();
        let reaches: BTreeMap<_, _> =
            new.changed.iter().map(|(name, (_, reach))| (name.clone(), *reach)).collect();
        self.chance = self.chance.next();
        let commands = self.roster.reload(new, self.now, self.chance).unwrap();
        for (name, command) in &commands {
            if let Command::Log(Occurrence::Stopping {
                cause: Cause::Operator { verb: Verb::Reload, .. },
                ..
            }) = command
            {
                assert_eq!(reaches.get(name), Some(&Reach::Restart), "{name} ends for nothing");
            }
        }
        self.perform(commands);
        (removed, renamed)
    }

    /// The old name is free: its service begins under the new one.
    fn rename(&mut self, (from, (to, policy)): (ServiceName, (ServiceName, Policy))) {
        self.roster.unregister(&from, self.now, self.chance).unwrap();
        self.worlds.insert(to.clone(), World::default());
        self.graph.push((to.clone(), policy.clone()));
        self.graph.retain(|(name, _)| *name != from);
        self.graph.sort_by(|one, other| one.0.cmp(&other.0));
        self.chance = self.chance.next();
        let commands =
            self.roster.register(to, policy.into(), fresh(self.now), self.now, self.chance).unwrap();
        self.perform(commands);
    }
}

/// The old name, the new one and what is configured for it.
type Renamed = Option<(ServiceName, (ServiceName, Policy))>;

fn fresh(now: Moment) -> Service {
    Service::new(Wanted::Up, Incarnation::NONE, now)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn another_configuration_is_in_force_whole_whenever_it_comes(
        before in some_of(),
        first in prop::collection::vec(inputs(7), 0..60),
        after in some_of(),
        restarts in prop::collection::vec(any::<bool>(), 7),
        then in prop::collection::vec(inputs(7), 0..30),
        renames: bool,
    ) {
        let mut run = Run::new(before);
        let is_possible = |run: &Run, input: &Input| match input {
            // A removal is what a reload does, and nobody else.
            Input::Ask(who, verb) => *who < run.graph.len() && *verb != Verb::Remove,
            Input::World(who, _) => *who < run.graph.len(),
            Input::Obey(_) | Input::Wait(_) | Input::TakeOver => true,
        };
        for input in &first {
            if is_possible(&run, input) {
                run.input(input);
            }
        }
        let were: BTreeMap<_, _> =
            run.roster.iter().map(|(name, _, service)| (name.clone(), service.clone())).collect();
        let (mut removed, renamed) = run.reload(&after, &restarts, renames);
        for (name, policy, service) in run.roster.iter() {
            if removed.contains(name) {
                prop_assert!(service.is_removed());
                continue;
            }
            prop_assert_eq!(Some(policy), after.iter().find(|(other, _)| other == name).map(|(_, policy)| policy));
            let Some(was) = were.get(name) else { continue };
            prop_assert_eq!(service.wanted(), was.wanted(), "what the operator wants stays");
            if let Phase::Completed { .. } = was.phase() {
                prop_assert_eq!(service.incarnation(), was.incarnation(), "done is done");
            }
        }
        for input in &then {
            let is_gone = |who: usize| run.graph.get(who).is_some_and(|(name, _)| removed.contains(name));
            let is_wanted_back = matches!(input, Input::Ask(who, _) if is_gone(*who));
            if is_possible(&run, input) && !is_wanted_back {
                run.input(input);
            }
        }
        run.run_out();
        for (name, policy, service) in run.roster.iter() {
            let waits_for = policy.requires.iter().chain(&policy.after);
            let has_begun = service.incarnation() > were.get(name).map_or(Incarnation::NONE, Service::incarnation);
            if let Some((_, (heir, _))) = &renamed && waits_for.clone().any(|other| other == heir) {
                prop_assert!(!has_begun || service.is_removed(), "{name} does not wait for {heir}");
            }
        }
        if let Some(renamed) = renamed {
            // Whoever requires the old name, and goes too, goes first.
            for name in removed.split_off(&renamed.0).iter().skip(1).rev() {
                run.roster.unregister(name, run.now, run.chance).unwrap();
                run.graph.retain(|(other, _)| other != name);
            }
            run.rename(renamed);
            run.run_out();
        }
        run.check_rest();
        // Edges lead to earlier services only: whoever requires another is taken out first.
        for name in removed.iter().rev() {
            let commands = run.roster.unregister(name, run.now, run.chance).unwrap();
            prop_assert!(commands.is_empty(), "somebody waited for {name}: {commands:?}");
        }
    }
}
