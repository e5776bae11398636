//! All services: who waits for whom, who stops before whom, who may talk to whom.
//!
//! ```text
//! event for one service ─► Service::step ─► for it and all it has to do with: gate ─► Service::step ─┐
//!                                                      ▲                                             │
//!                                                      └────────── as long as something changes ─────┘
//! ```
//!
//! The gate of a service is computed from the phases of the others each time; nothing about it is stored.
//! - **Blocked**: something it requires failed, is stopped, or is itself blocked. It stops (after all that
//!   requires it), stays wanted, and comes back when the gate opens.
//! - **Waiting**: something it requires is not ready yet, or something it comes after is on its way up. What
//!   runs already stays: a crash or backoff of the other is bridged by its lanes.
//! - **Open**: else. What has completed did its work, and satisfies who requires it; a task does so only then.
//!
//! A stop goes the other way round: it waits until nothing live requires the service any more, at a shutdown also
//! until nothing live comes after it. Processes that can't be killed hold up nobody else's stop. A `kill` waits
//! for nobody, and a `restart` leaves dependants alone.
//!
//! Absent: time, chance and I/O; a stored "blocked"; a second writer.

mod gate;
mod grouped;
mod refusal;
mod reloaded;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use watchdog_protocol::ServiceName;

pub use self::gate::Standing;
pub use self::refusal::{TalkError, UnregisterError};
pub use self::reloaded::{Reach, Reconfiguration};
use crate::access;
use crate::event::{Event, Haste, ServiceCommand};
use crate::graph::{self, GraphError};
use crate::group::{Group, GroupPolicy};
use crate::moment::{Chance, Moment};
use crate::phase::{Phase, Wanted};
use crate::policy::{Kind, Policy};
use crate::service::{Service, Stepped};

/// All services. One task owns it: event, step, commands, perform.
#[derive(Debug, Default)]
pub struct Roster {
    entries: BTreeMap<ServiceName, Entry>,
    groups: BTreeMap<ServiceName, (GroupPolicy, Group)>,
    shutdown: Option<Haste>,
    /// Services that are sure to come, once others have ended: whoever requires them waits.
    promised: BTreeMap<ServiceName, Arc<Policy>>,
    /// Each entry's deadline, soonest first.
    deadlines: BTreeSet<(Moment, ServiceName)>,
}

#[derive(Debug)]
struct Entry {
    policy: Arc<Policy>,
    service: Box<Service>,
    required_by: BTreeSet<ServiceName>,
    followed_by: BTreeSet<ServiceName>,
    group: Option<ServiceName>,
    deadline: Option<Moment>,
}

/// What others see of a service: when it changes, their gates are computed again.
#[derive(PartialEq)]
struct Posture {
    phase: std::mem::Discriminant<Phase>,
    wanted: std::mem::Discriminant<Wanted>,
    leaving: bool,
    stuck: bool,
}

impl Posture {
    fn of(service: &Service) -> Self {
        Self {
            phase: std::mem::discriminant(service.phase()),
            wanted: std::mem::discriminant(service.wanted()),
            leaving: service.is_on_its_way_out(),
            stuck: !service.phase().survivors().is_empty(),
        }
    }
}

impl Roster {
    /// These services, checked. Nothing starts before [`begin`](Self::begin) or [`took_over`](Self::took_over).
    ///
    /// # Errors
    /// [`GraphError`] when a name is there twice or missing, or some wait for each other.
    pub fn new(
        services: impl IntoIterator<Item = (ServiceName, Arc<Policy>, Service)>,
    ) -> Result<Self, GraphError> {
        Self::expecting(services, BTreeMap::new())
    }

    /// As [`new`](Self::new), and others are sure to come: whoever requires them waits.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn expecting(
        services: impl IntoIterator<Item = (ServiceName, Arc<Policy>, Service)>,
        promised: BTreeMap<ServiceName, Arc<Policy>>,
    ) -> Result<Self, GraphError> {
        let mut roster = Self { promised, ..Self::default() };
        for (name, policy, service) in services {
            if roster.entries.contains_key(&name) {
                return Err(GraphError::Taken { name });
            }
            roster.insert(name, policy, service);
        }
        let there = roster.entries.iter().map(|(name, entry)| (name, &*entry.policy));
        let promised = roster.promised.iter().map(|(name, policy)| (name, &**policy));
        graph::check(there.chain(promised))?;
        roster.link_anew();
        Ok(roster)
    }

    /// Looks at every gate: whatever may start, starts.
    pub fn begin(&mut self, now: Moment, chance: Chance) -> Vec<ServiceCommand> {
        let mut out = Vec::new();
        self.settle(self.entries.keys().cloned().collect(), now, chance, &mut out);
        out
    }

    /// In a new core, after the keeper's facts were stepped: commands again what may not have been performed,
    /// then looks at every gate. A shutdown that was under way is asked for again by the caller.
    pub fn took_over(&mut self, now: Moment, chance: Chance) -> Vec<ServiceCommand> {
        let mut out = Vec::new();
        let names: BTreeSet<_> = self.entries.keys().cloned().collect();
        for name in &names {
            self.feed(name, Event::TookOver, now, chance, &mut out);
        }
        self.settle(names, now, chance, &mut out);
        out
    }

    /// One event for one service, and all that follows from it for it and the others. An unknown name is a
    /// late fact about a service that is gone: nothing follows.
    ///
    /// The records of all services that are named in the answer are written down before it is performed.
    pub fn step(
        &mut self,
        name: &ServiceName,
        event: Event,
        now: Moment,
        chance: Chance,
    ) -> Vec<ServiceCommand> {
        let mut out = Vec::new();
        let forgiven = self.asked_of_member(name, &event, now, chance, &mut out);
        if self.feed(name, event, now, chance, &mut out) || !out.is_empty() || !forgiven.is_empty() {
            let mut concerned = self.concerned(name);
            concerned.extend(forgiven.iter().flat_map(|member| self.touched(member)));
            self.settle(concerned, now, chance.next(), &mut out);
        }
        out
    }

    /// Steps [`Event::Tick`] for every service whose deadline has come.
    pub fn tick(&mut self, now: Moment, chance: Chance) -> Vec<ServiceCommand> {
        let due: Vec<_> = self.deadlines.iter().take_while(|(at, _)| *at <= now).cloned().collect();
        let (mut out, mut chance, mut concerned) = (Vec::new(), chance, BTreeSet::new());
        // All of them first: nothing may start on the word of a service that is found hung a moment later.
        for (_, name) in due {
            chance = chance.next();
            if self.feed(&name, Event::Tick, now, chance, &mut out) {
                concerned.append(&mut self.concerned(&name));
            }
        }
        self.settle(concerned, now, chance.next(), &mut out);
        out
    }

    /// Steps [`Event::Paused`] for every service: nobody looked for so long after the next deadline.
    pub fn paused(&mut self, lasted: Duration, now: Moment, chance: Chance) -> Vec<ServiceCommand> {
        let names: Vec<_> = self.entries.keys().cloned().collect();
        let mut out = Vec::new();
        for name in names {
            self.feed(&name, Event::Paused { lasted }, now, chance, &mut out);
        }
        out
    }

    /// When to call [`tick`](Self::tick), if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Stops everything, in reverse order, or at once. May be asked for again, with more haste. What is wanted
    /// does not change: the next life of the watchdog starts it again.
    pub fn shutdown(&mut self, haste: Haste, now: Moment, chance: Chance) -> Vec<ServiceCommand> {
        self.shutdown = match (self.shutdown, haste) {
            (Some(Haste::AtOnce), _) | (_, Haste::AtOnce) => Some(Haste::AtOnce),
            (Some(Haste::Orderly) | None, Haste::Orderly) => Some(Haste::Orderly),
        };
        let mut out = Vec::new();
        self.settle(self.entries.keys().cloned().collect(), now, chance, &mut out);
        out
    }

    /// The shutdown under way.
    pub fn shutdown_haste(&self) -> Option<Haste> {
        self.shutdown
    }

    /// Nothing lives but what can't be killed: a shutdown is done.
    pub fn is_at_rest(&self) -> bool {
        self.entries.values().all(|entry| !entry.holds_up())
    }

    /// Adds a service, and starts it if it may.
    ///
    /// # Errors
    /// [`GraphError`] when the name is taken, one it needs is missing, or it would wait for itself.
    pub fn register(
        &mut self,
        name: ServiceName,
        policy: Arc<Policy>,
        service: Service,
        now: Moment,
        chance: Chance,
    ) -> Result<Vec<ServiceCommand>, GraphError> {
        if self.entries.contains_key(&name) {
            return Err(GraphError::Taken { name });
        }
        // What waits for those that are on their way out goes with them.
        let others = self.entries.iter().filter(|(_, entry)| !entry.service.is_removed());
        let others = others.map(|(name, entry)| (name, &*entry.policy));
        let promised = self
            .promised
            .iter()
            .filter(|(promised, _)| **promised != name)
            .map(|(name, policy)| (name, &**policy));
        graph::check(others.chain(promised).chain([(&name, &*policy)]))?;
        self.promised.remove(&name);
        self.insert(name.clone(), policy, service);
        self.link(&name);
        let of = self.groups.iter().find(|(_, (policy, _))| policy.members.contains(&name));
        let of = of.map(|(group, _)| group.clone());
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.group = of;
        }
        let mut out = Vec::new();
        self.settle(self.concerned(&name), now, chance, &mut out);
        Ok(out)
    }

    /// Takes a service out. Who came after it does so no longer.
    ///
    /// # Errors
    /// [`UnregisterError`] when it is unknown, something of it lives, or others require it; then nothing changed.
    pub fn unregister(
        &mut self,
        name: &ServiceName,
        now: Moment,
        chance: Chance,
    ) -> Result<Vec<ServiceCommand>, UnregisterError> {
        let name = name.clone();
        let Some(entry) = self.entries.get(&name) else { return Err(UnregisterError::Unknown { name }) };
        if entry.service.is_live() {
            return Err(UnregisterError::Live { name, phase: entry.service.phase().as_str() });
        }
        if !entry.required_by.is_empty() {
            return Err(UnregisterError::Required { name, by: entry.required_by.iter().cloned().collect() });
        }
        let mut concerned = self.concerned(&name);
        concerned.remove(&name);
        if let Some(at) = self.entries.remove(&name).and_then(|entry| entry.deadline) {
            self.deadlines.remove(&(at, name.clone()));
        }
        for entry in self.entries.values_mut() {
            entry.required_by.remove(&name);
            entry.followed_by.remove(&name);
        }
        let mut out = Vec::new();
        self.settle(concerned, now, chance, &mut out);
        Ok(out)
    }

    /// One service.
    pub fn get(&self, name: &ServiceName) -> Option<&Service> {
        self.entries.get(name).map(|entry| &*entry.service)
    }

    /// What is configured for it.
    pub fn policy(&self, name: &ServiceName) -> Option<&Policy> {
        self.entries.get(name).map(|entry| &*entry.policy)
    }

    /// All services, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceName, &Policy, &Service)> {
        self.entries.iter().map(|(name, entry)| (name, &*entry.policy, &*entry.service))
    }

    /// Whether there may be a lane from `sender` to `receiver`.
    ///
    /// # Errors
    /// [`TalkError`]: one is unknown, the receiver has no inbox, or a rule forbids it.
    pub fn may_talk(&self, sender: &ServiceName, receiver: &ServiceName) -> Result<(), TalkError> {
        let policy =
            |name: &ServiceName| self.policy(name).ok_or_else(|| TalkError::Unknown { name: name.clone() });
        let (from, to) = (policy(sender)?, policy(receiver)?);
        if to.kind == Kind::Program {
            return Err(TalkError::NoInbox { name: receiver.clone() });
        }
        Ok(access::may_talk((sender, &from.access), (receiver, &to.access))?)
    }

    fn insert(&mut self, name: ServiceName, policy: Arc<Policy>, service: Service) {
        let deadline = service.deadline(&policy);
        self.deadlines.extend(deadline.map(|at| (at, name.clone())));
        let (required_by, followed_by) = (BTreeSet::new(), BTreeSet::new());
        let service = Box::new(service);
        self.entries.insert(name, Entry { policy, service, required_by, followed_by, group: None, deadline });
    }

    /// One that came later: it is entered, and is told of all that wait for it by its name or that of all instances.
    fn link(&mut self, name: &ServiceName) {
        self.enter(name);
        let waits = |list: &[ServiceName]| list.iter().any(|other| other.covers(name));
        let required_by = self.entries.iter().filter(|(_, other)| waits(&other.policy.requires));
        let required_by: BTreeSet<_> = required_by.map(|(other, _)| other.clone()).collect();
        let followed_by = self.entries.iter().filter(|(_, other)| waits(&other.policy.after));
        let followed_by: BTreeSet<_> = followed_by.map(|(other, _)| other.clone()).collect();
        if let Some(entry) = self.entries.get_mut(name) {
            entry.required_by.extend(required_by);
            entry.followed_by.extend(followed_by);
        }
    }

    /// Enters `name` with all it requires and comes after.
    fn enter(&mut self, name: &ServiceName) {
        let Some(entry) = self.entries.get(name) else { return };
        let policy = Arc::clone(&entry.policy);
        if policy.requires.is_empty() && policy.after.is_empty() {
            return;
        }
        for (other, entry) in &mut self.entries {
            if policy.requires.iter().any(|required| required.covers(other)) {
                entry.required_by.insert(name.clone());
            }
            if policy.after.iter().any(|before| before.covers(other)) {
                entry.followed_by.insert(name.clone());
            }
        }
    }

    /// The services that a name of a configuration stands for: one, or all its instances.
    fn named<'a>(
        &'a self,
        name: &ServiceName,
    ) -> impl Iterator<Item = (&'a ServiceName, &'a Entry)> + use<'a> {
        let name = name.clone();
        let from = self.entries.range(name.clone()..);
        // Behind the name come, in this order, it itself, names that go on with `-` or a digit, and its instances.
        from.take_while({
            let name = name.clone();
            move |(other, _)| other.as_str().starts_with(name.as_str())
        })
        .filter(move |(other, _)| name.covers(other))
    }

    /// Steps one service. Whether others have to look at it again.
    fn feed(
        &mut self,
        name: &ServiceName,
        event: Event,
        now: Moment,
        chance: Chance,
        out: &mut Vec<ServiceCommand>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        let before = Posture::of(&entry.service);
        let Stepped { commands, failure } = entry.service.stepped(&entry.policy, event, now, chance);
        out.extend(commands.into_iter().map(|command| (name.clone(), command)));
        let deadline = entry.service.deadline(&entry.policy);
        if deadline != entry.deadline {
            if let Some(at) = entry.deadline {
                self.deadlines.remove(&(at, name.clone()));
            }
            self.deadlines.extend(deadline.map(|at| (at, name.clone())));
            entry.deadline = deadline;
        }
        let is_changed = before != Posture::of(&entry.service);
        if let Some((incarnation, cause)) = failure {
            self.member_failed(name, incarnation, &cause, now);
        }
        is_changed
    }

    /// Tells services their gates until nothing changes any more. It ends: a gate starts what is stopped or stops
    /// what runs, and only a fact of the core's leads on from there.
    fn settle(
        &mut self,
        mut concerned: BTreeSet<ServiceName>,
        now: Moment,
        mut chance: Chance,
        out: &mut Vec<ServiceCommand>,
    ) {
        while let Some(name) = concerned.pop_first() {
            let Some(entry) = self.entries.get(&name) else { continue };
            let gate = self.gate(&name, entry);
            chance = chance.next();
            if self.feed(&name, Event::Gate(gate), now, chance, out) {
                concerned.extend(self.concerned(&name));
            }
        }
    }

    /// All whose gate may be another one now. A failed group is one with all its members.
    fn concerned(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
        let group = self.entries.get(name).and_then(|entry| self.group_of(entry));
        match group.filter(|(_, group)| group.failed().is_some()) {
            Some((policy, _)) => policy.members.iter().flat_map(|member| self.touched(member)).collect(),
            None => self.touched(name),
        }
    }

    /// The service, all that wait for it and all it waits for, over any number of links.
    fn touched(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
        let mut found = self.reach(name, |entry| entry.required_by.iter().chain(&entry.followed_by));
        found.append(&mut self.reach(name, |entry| {
            let waits_for = entry.policy.requires.iter().chain(&entry.policy.after);
            waits_for.flat_map(|name| self.named(name)).map(|(name, _)| name)
        }));
        found
    }

    fn reach<'a, I: Iterator<Item = &'a ServiceName>>(
        &'a self,
        name: &ServiceName,
        next: impl Fn(&'a Entry) -> I,
    ) -> BTreeSet<ServiceName> {
        let mut found = BTreeSet::from([name.clone()]);
        let mut open: Vec<&Entry> = self.entries.get(name).into_iter().collect();
        while let Some(entry) = open.pop() {
            for other in next(entry) {
                if found.insert(other.clone()) {
                    open.extend(self.entries.get(other));
                }
            }
        }
        found
    }
}
