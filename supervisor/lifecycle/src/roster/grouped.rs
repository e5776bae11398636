//! Groups, as far as they touch the roster: who fails, who has to end, who waits for whom.

use std::collections::BTreeMap;

use watchdog_protocol::{Incarnation, ServiceName};

use super::{Entry, Roster};
use crate::cause::{Actor, Cause};
use crate::event::{Event, Gate, Haste, ServiceCommand, Verb};
use crate::group::{Failure, Group, GroupPolicy, Strategy};
use crate::moment::{Chance, Moment};
use crate::phase::{Phase, Wanted};

impl Roster {
    /// Puts members together. What an earlier core remembered of the group comes back with it. Done once, before
    /// anything starts.
    pub fn group(&mut self, name: ServiceName, policy: GroupPolicy, group: Group) {
        for member in &policy.members {
            if let Some(entry) = self.entries.get_mut(member) {
                entry.group = Some(name.clone());
            }
        }
        self.groups.insert(name, (policy, group));
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&ServiceName, &GroupPolicy, &Group)> {
        self.groups.iter().map(|(name, (policy, group))| (name, policy, group))
    }

    /// The members of a group in their order; `None`: there is no group of that name.
    pub fn members(&self, group: &ServiceName) -> Option<&[ServiceName]> {
        self.groups.get(group).map(|(policy, _)| &*policy.members)
    }

    /// Restarts a group: those that live end in reverse order, then all start in order.
    pub fn restart_group(
        &mut self,
        group: &ServiceName,
        by: &Actor,
        now: Moment,
        chance: Chance,
    ) -> Vec<ServiceCommand> {
        let mut out = Vec::new();
        let Some(members) = self.members(group).map(<[_]>::to_vec) else { return out };
        let living = self.living(&members);
        let cause = Cause::Operator { by: by.clone(), verb: Verb::Restart };
        if let Some((policy, group)) = self.groups.get_mut(group) {
            group.forgive();
            group.restart(policy, cause, living);
        }
        let mut chance = chance;
        for member in &members {
            chance = chance.next();
            // Not a restart: that would end it before those behind it have ended.
            let event = Event::Asked { verb: Verb::Start, by: by.clone() };
            self.feed(member, event, now, chance, &mut out);
        }
        let concerned = members.iter().flat_map(|member| self.concerned(member)).collect();
        self.settle(concerned, now, chance.next(), &mut out);
        out
    }

    /// What a verb on one member means for its group, before the member hears of it: a group that failed comes back
    /// as one. The members of a group that did.
    pub(super) fn asked_of_member(
        &mut self,
        name: &ServiceName,
        event: &Event,
        now: Moment,
        chance: Chance,
        out: &mut Vec<ServiceCommand>,
    ) -> Vec<ServiceName> {
        let Event::Asked { verb: Verb::Start | Verb::Restart | Verb::Reset | Verb::Reload, by } = event
        else {
            return Vec::new();
        };
        let group = self.entries.get(name).and_then(|entry| entry.group.clone());
        let group = group.and_then(|group| self.groups.get_mut(&group));
        let Some((policy, group)) = group.filter(|(_, group)| group.failed().is_some()) else {
            return Vec::new();
        };
        group.forgive();
        let members = policy.members.clone();
        for other in members.iter().filter(|member| *member != name) {
            let is_given_up =
                self.get(other).is_some_and(|other| matches!(other.phase(), Phase::Failed { .. }));
            if is_given_up {
                let event = Event::Asked { verb: Verb::Reset, by: by.clone() };
                self.feed(other, event, now, chance, out);
            }
        }
        members
    }

    /// A member failed by itself.
    pub(super) fn member_failed(
        &mut self,
        member: &ServiceName,
        incarnation: Incarnation,
        cause: &Cause,
        now: Moment,
    ) {
        let Some(entry) = self.entries.get(member) else { return };
        let is_final = matches!(entry.service.phase(), Phase::Failed { .. });
        let Some(name) = entry.group.clone() else { return };
        let Some((policy, _)) = self.groups.get(&name) else { return };
        let living = self.living(&policy.members);
        let failure = Failure { member, incarnation, cause, is_final };
        if let Some((policy, group)) = self.groups.get_mut(&name) {
            group.member_failed(&name, policy, &failure, living, now);
        }
    }

    fn living(&self, members: &[ServiceName]) -> BTreeMap<ServiceName, Incarnation> {
        let live = |name: &ServiceName| Some((name.clone(), self.get(name)?.phase().incarnation()?));
        members.iter().filter_map(live).collect()
    }

    pub(super) fn group_of(&self, entry: &Entry) -> Option<&(GroupPolicy, Group)> {
        self.groups.get(entry.group.as_ref()?)
    }

    pub(super) fn failed_group(&self, entry: &Entry) -> Option<&Cause> {
        self.group_of(entry).and_then(|(_, group)| group.failed())
    }

    /// What its group alone says of it, where that says anything.
    pub(super) fn group_gate(&self, name: &ServiceName, entry: &Entry) -> Option<Gate> {
        let (policy, group) = self.group_of(entry)?;
        let cause = group.ends(name, entry.service.phase().incarnation()?)?;
        let is_first_to_end = !policy.behind(name).iter().any(|other| self.has_to_end(group, other));
        Some(if is_first_to_end {
            Gate::Shut { cause: cause.clone(), haste: Haste::Orderly }
        } else {
            Gate::Waiting
        })
    }

    fn has_to_end(&self, group: &Group, name: &ServiceName) -> bool {
        let Some(entry) = self.entries.get(name).filter(|entry| entry.holds_up()) else { return false };
        let incarnation = entry.service.phase().incarnation();
        incarnation.is_some_and(|incarnation| group.ends(name, incarnation).is_some())
    }

    /// Members of its group that it starts after: those that have to end first, and those before it in the order.
    pub(super) fn members_before<'a>(&'a self, name: &ServiceName, entry: &Entry) -> Vec<&'a ServiceName> {
        let Some((policy, group)) = self.group_of(entry) else { return Vec::new() };
        let is_there = |name: &ServiceName, incarnation| {
            self.get(name).is_some_and(|service| service.phase().incarnation() == Some(incarnation))
        };
        let ending = group.ending(policy, name);
        let ending = ending.filter(|(other, incarnation)| *other != name && is_there(other, *incarnation));
        let before = match policy.strategy {
            Strategy::OneForOne => &[],
            Strategy::RestForOne | Strategy::OneForAll => policy.before(name),
        };
        // One that may not run, for what it requires is not there, is as one that is stopped: the others go on.
        let is_to_come = |entry: &Entry| entry.is_to_come() && self.blocked_by(entry).is_none();
        let to_come = before.iter().filter(|other| self.entries.get(*other).is_some_and(&is_to_come));
        ending.map(|(other, _)| other).chain(to_come).collect()
    }

    /// Members behind it in the order that are to go down as it is.
    pub(super) fn members_to_stop_before<'a>(
        &'a self,
        name: &ServiceName,
        entry: &'a Entry,
    ) -> impl Iterator<Item = &'a ServiceName> {
        let behind = self.group_of(entry).map_or(&[][..], |(policy, _)| policy.behind(name));
        behind.iter().filter(|other| {
            let Some(other) = self.entries.get(*other) else { return false };
            *other.service.wanted() != Wanted::Up || self.failed_group(other).is_some()
        })
    }
}

impl Entry {
    /// It is wanted, not given up, and not there yet.
    fn is_to_come(&self) -> bool {
        let is_given_up = matches!(self.service.phase(), Phase::Failed { .. });
        *self.service.wanted() == Wanted::Up && !is_given_up && !self.satisfies()
    }
}
