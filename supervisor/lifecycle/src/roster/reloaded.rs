//! Another configuration, while everything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use watchdog_protocol::ServiceName;

use super::Roster;
use crate::cause::Actor;
use crate::event::{Event, ServiceCommand, Verb};
use crate::graph::{self, GraphError};
use crate::group::{Group, GroupPolicy};
use crate::moment::{Chance, Moment};
use crate::policy::Policy;
use crate::service::Service;

/// How far the change of one service's configuration reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What runs goes on under it.
    Live,
    /// What runs goes on under it, and its life is watched in another way.
    Watch,
    /// What runs ends, and another process starts.
    Restart,
}

/// What differs from the configuration before.
#[derive(Debug, Clone)]
pub struct Reconfiguration {
    /// Who wanted it.
    pub by: Actor,
    /// Services that are there and stay.
    pub changed: BTreeMap<ServiceName, (Arc<Policy>, Reach)>,
    /// Services that are new.
    pub added: Vec<(ServiceName, Arc<Policy>, Service)>,
    /// Services that are not configured any more. They end, and stay in the roster until they are unregistered.
    pub removed: BTreeSet<ServiceName>,
    /// Services that come, by [`Roster::register`], when others that are removed are gone: under another name they have
    /// what those had.
    pub promised: BTreeMap<ServiceName, Arc<Policy>>,
    /// All groups there are from now on.
    pub groups: BTreeMap<ServiceName, GroupPolicy>,
}

impl Roster {
    /// Whether the services that there would be can be started in some order.
    ///
    /// # Errors
    /// [`GraphError`]: a name is taken or missing, or some would wait for each other.
    pub fn check_reload(&self, new: &Reconfiguration) -> Result<(), GraphError> {
        if let Some((name, _, _)) = new.added.iter().find(|(name, _, _)| self.entries.contains_key(name)) {
            return Err(GraphError::Taken { name: name.clone() });
        }
        let stays = self
            .entries
            .iter()
            .filter(|(name, entry)| !new.removed.contains(*name) && !entry.service.is_removed());
        let stays = stays
            .map(|(name, entry)| (name, new.changed.get(name).map_or(&*entry.policy, |(policy, _)| policy)));
        let added = new.added.iter().map(|(name, policy, _)| (name, &**policy));
        let promised = new.promised.iter().map(|(name, policy)| (name, &**policy));
        graph::check(stays.chain(added).chain(promised))
    }

    /// Services that are sure to come.
    pub fn promised(&self) -> &BTreeMap<ServiceName, Arc<Policy>> {
        &self.promised
    }

    /// Puts another configuration in force, and does what it takes: starts, restarts, and orderly ends.
    ///
    /// # Errors
    /// As [`check_reload`](Self::check_reload); nothing changed then.
    pub fn reload(
        &mut self,
        new: Reconfiguration,
        now: Moment,
        chance: Chance,
    ) -> Result<Vec<ServiceCommand>, GraphError> {
        self.check_reload(&new)?;
        let Reconfiguration { by, changed, added, removed, promised, groups } = new;
        self.promised = promised;
        let (mut out, mut chance) = (Vec::new(), chance);
        let asked = |verb: Verb| Event::Asked { verb, by: by.clone() };
        // Under the policy it was started with: that says how it is asked to end, and what is to be called off.
        for (name, _) in changed.iter().filter(|(_, (_, reach))| *reach == Reach::Restart) {
            chance = chance.next();
            self.asked_of_member(name, &asked(Verb::Reload), now, chance, &mut out);
            self.feed(name, asked(Verb::Reload), now, chance, &mut out);
        }
        for (name, (policy, reach)) in changed {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.policy = policy;
            if reach == Reach::Watch {
                self.feed(&name, Event::WatchedAnew, now, chance, &mut out);
            }
        }
        for (name, policy, service) in added {
            self.insert(name, policy, service);
        }
        self.regroup(groups);
        self.link_anew();
        for name in &removed {
            chance = chance.next();
            self.feed(name, asked(Verb::Remove), now, chance, &mut out);
        }
        self.deadlines_anew();
        self.settle(self.entries.keys().cloned().collect(), now, chance.next(), &mut out);
        Ok(out)
    }

    /// What is remembered of a group stays as long as its members do.
    fn regroup(&mut self, groups: BTreeMap<ServiceName, GroupPolicy>) {
        let mut before = std::mem::take(&mut self.groups);
        for entry in self.entries.values_mut() {
            entry.group = None;
        }
        for (name, policy) in groups {
            let same = before.remove(&name).filter(|(old, _)| old.members == policy.members);
            self.group(name, policy, same.map_or_else(Group::default, |(_, group)| group));
        }
    }

    pub(super) fn link_anew(&mut self) {
        for entry in self.entries.values_mut() {
            entry.required_by.clear();
            entry.followed_by.clear();
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in &names {
            self.enter(name);
        }
    }

    fn deadlines_anew(&mut self) {
        self.deadlines.clear();
        for (name, entry) in &mut self.entries {
            entry.deadline = entry.service.deadline(&entry.policy);
            self.deadlines.extend(entry.deadline.map(|at| (at, name.clone())));
        }
    }
}
