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
//! - **Open**: else. What has completed did its work, and satisfies who requires it.
//!
//! A stop goes the other way round: it waits until nothing live requires the service any more, at a shutdown also
//! until nothing live comes after it. Processes that can't be killed hold up nobody else's stop. A `kill` waits
//! for nobody, and a `restart` leaves dependants alone.
//!
//! Absent: time, chance and I/O; a stored "blocked"; a second writer.

use std::collections::{BTreeMap, BTreeSet};

use watchdog_protocol::ServiceName;

use crate::access::{self, Denied};
use crate::cause::{Absence, Cause, WatchdogReason};
use crate::event::{Event, Gate, Haste, ServiceCommand};
use crate::graph::{self, GraphError};
use crate::moment::{Chance, Moment};
use crate::phase::{Phase, Wanted};
use crate::policy::{Kind, Policy};
use crate::service::Service;

/// All services. One task owns it: event, step, commands, perform.
#[derive(Debug, Default)]
pub struct Roster {
    entries: BTreeMap<ServiceName, Entry>,
    shutdown: Option<Haste>,
    /// Each entry's deadline, soonest first.
    deadlines: BTreeSet<(Moment, ServiceName)>,
}

#[derive(Debug)]
struct Entry {
    policy: Policy,
    service: Service,
    required_by: BTreeSet<ServiceName>,
    followed_by: BTreeSet<ServiceName>,
    deadline: Option<Moment>,
}

/// How a service stands to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing holds it up.
    Free,
    /// It may not start before these are ready, or have had their turn.
    Waiting {
        /// Whom it waits for; not empty.
        on: Vec<ServiceName>,
    },
    /// It may not run.
    Blocked {
        /// The first cause, not the nearest link.
        by: ServiceName,
        /// What became of it.
        absence: Absence,
    },
}

/// Why a service can't be unregistered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnregisterError {
    /// There is none of that name.
    #[error("no service `{name}` is registered")]
    Unknown {
        /// The name.
        name: ServiceName,
    },
    /// Something of it lives.
    #[error("`{name}` is {phase}; stop it first")]
    Live {
        /// Whose.
        name: ServiceName,
        /// Its phase.
        phase: &'static str,
    },
    /// Others need it.
    #[error("`{name}` is required by {}", list(.by))]
    Required {
        /// Whose.
        name: ServiceName,
        /// By whom.
        by: Vec<ServiceName>,
    },
}

/// Why there can be no lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TalkError {
    /// There is none of that name.
    #[error("no service `{name}` is registered")]
    Unknown {
        /// The name.
        name: ServiceName,
    },
    /// A plain program has no inbox.
    #[error("`{name}` is a plain program and has no inbox")]
    NoInbox {
        /// Whose.
        name: ServiceName,
    },
    /// The rules of one side forbid it.
    #[error(transparent)]
    Denied(#[from] Denied),
}

fn list(names: &[ServiceName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What others see of a service: when it changes, their gates are computed again.
#[derive(PartialEq)]
struct Posture {
    phase: std::mem::Discriminant<Phase>,
    wanted: std::mem::Discriminant<Wanted>,
    stuck: bool,
}

impl Posture {
    fn of(service: &Service) -> Self {
        Self {
            phase: std::mem::discriminant(service.phase()),
            wanted: std::mem::discriminant(service.wanted()),
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
        services: impl IntoIterator<Item = (ServiceName, Policy, Service)>,
    ) -> Result<Self, GraphError> {
        let mut roster = Self::default();
        for (name, policy, service) in services {
            if roster.entries.contains_key(&name) {
                return Err(GraphError::Taken { name });
            }
            roster.insert(name, policy, service);
        }
        graph::check(roster.entries.iter().map(|(name, entry)| (name, &entry.policy)))?;
        let names: Vec<_> = roster.entries.keys().cloned().collect();
        for name in &names {
            roster.link(name);
        }
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
        if self.feed(name, event, now, chance, &mut out) {
            self.settle(self.concerned(name), now, chance.next(), &mut out);
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
        policy: Policy,
        service: Service,
        now: Moment,
        chance: Chance,
    ) -> Result<Vec<ServiceCommand>, GraphError> {
        if self.entries.contains_key(&name) {
            return Err(GraphError::Taken { name });
        }
        let others = self.entries.iter().map(|(name, entry)| (name, &entry.policy));
        graph::check(others.chain([(&name, &policy)]))?;
        self.insert(name.clone(), policy, service);
        self.link(&name);
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
        self.entries.get(name).map(|entry| &entry.service)
    }

    /// What is configured for it.
    pub fn policy(&self, name: &ServiceName) -> Option<&Policy> {
        self.entries.get(name).map(|entry| &entry.policy)
    }

    /// All services, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceName, &Policy, &Service)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.policy, &entry.service))
    }

    /// How it stands to the others, whether it runs or not. Unknown names are free.
    pub fn standing(&self, name: &ServiceName) -> Standing {
        let Some(entry) = self.entries.get(name) else { return Standing::Free };
        if let Some((by, absence)) = self.blocked_by(entry) {
            return Standing::Blocked { by, absence };
        }
        let requires = entry
            .policy
            .requires
            .iter()
            .filter(|other| self.entries.get(*other).is_some_and(|other| !other.satisfies()));
        let after = entry.policy.after.iter().filter(|other| self.is_on_its_way_up(other));
        let on: BTreeSet<_> = requires.chain(after).cloned().collect();
        if on.is_empty() { Standing::Free } else { Standing::Waiting { on: on.into_iter().collect() } }
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

    fn insert(&mut self, name: ServiceName, policy: Policy, service: Service) {
        let deadline = service.deadline(&policy);
        self.deadlines.extend(deadline.map(|at| (at, name.clone())));
        let (required_by, followed_by) = (BTreeSet::new(), BTreeSet::new());
        self.entries.insert(name, Entry { policy, service, required_by, followed_by, deadline });
    }

    /// Enters `name` with all it requires and comes after.
    fn link(&mut self, name: &ServiceName) {
        let Some(entry) = self.entries.get(name) else { return };
        let (requires, after) = (entry.policy.requires.clone(), entry.policy.after.clone());
        for other in requires {
            if let Some(other) = self.entries.get_mut(&other) {
                other.required_by.insert(name.clone());
            }
        }
        for other in after {
            if let Some(other) = self.entries.get_mut(&other) {
                other.followed_by.insert(name.clone());
            }
        }
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
        let commands = entry.service.step(&entry.policy, event, now, chance);
        out.extend(commands.into_iter().map(|command| (name.clone(), command)));
        let deadline = entry.service.deadline(&entry.policy);
        if deadline != entry.deadline {
            if let Some(at) = entry.deadline {
                self.deadlines.remove(&(at, name.clone()));
            }
            self.deadlines.extend(deadline.map(|at| (at, name.clone())));
            entry.deadline = deadline;
        }
        before != Posture::of(&entry.service)
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
            let gate = self.gate(entry);
            chance = chance.next();
            if self.feed(&name, Event::Gate(gate), now, chance, out) {
                concerned.extend(self.concerned(&name));
            }
        }
    }

    /// The service, all that wait for it and all it waits for, over any number of links.
    fn concerned(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
        let mut found = self.reach(name, |entry| entry.required_by.iter().chain(&entry.followed_by));
        found.append(&mut self.reach(name, |entry| entry.policy.requires.iter().chain(&entry.policy.after)));
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

    fn gate(&self, entry: &Entry) -> Gate {
        let blocked = || self.blocked_by(entry).map(|(on, absence)| Cause::Dependency { on, absence });
        let must_not = match (self.shutdown, entry.service.wanted()) {
            (Some(_), _) => Some(Cause::Watchdog { reason: WatchdogReason::Shutdown }),
            (None, Wanted::Down { by, verb }) => Some(Cause::Operator { by: by.clone(), verb: *verb }),
            (None, Wanted::Up) => blocked(),
        };
        match (must_not, self.shutdown) {
            (Some(cause), Some(Haste::AtOnce)) => Gate::Shut { cause, haste: Haste::AtOnce },
            (Some(cause), Some(Haste::Orderly) | None) => {
                if self.is_held_up(entry) {
                    Gate::Waiting
                } else {
                    Gate::Shut { cause, haste: Haste::Orderly }
                }
            }
            (None, _) => {
                let waits = entry
                    .policy
                    .requires
                    .iter()
                    .any(|other| self.entries.get(other).is_some_and(|other| !other.satisfies()))
                    || entry.policy.after.iter().any(|other| self.is_on_its_way_up(other));
                if waits { Gate::Waiting } else { Gate::Open }
            }
        }
    }

    /// The first cause why it must not run: what failed or is stopped at the end of the chain.
    fn blocked_by(&self, entry: &Entry) -> Option<(ServiceName, Absence)> {
        let mut open: Vec<&ServiceName> = entry.policy.requires.iter().rev().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            let Some(other) = self.entries.get(name) else { continue };
            match (other.service.wanted(), other.service.phase()) {
                (Wanted::Down { .. }, _) => return Some((name.clone(), Absence::Stopped)),
                (Wanted::Up, Phase::Failed { .. }) => return Some((name.clone(), Absence::Failed)),
                (
                    Wanted::Up,
                    Phase::Stopped { .. }
                    | Phase::Starting(_)
                    | Phase::Ready(_)
                    | Phase::Stopping(_)
                    | Phase::Backoff { .. }
                    | Phase::Completed { .. },
                ) => open.extend(other.policy.requires.iter().rev()),
            }
        }
        None
    }

    /// Something that has to stop before it still lives.
    fn is_held_up(&self, entry: &Entry) -> bool {
        let mut open: Vec<&ServiceName> = entry.must_stop_before(self.shutdown).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            let Some(other) = self.entries.get(name) else { continue };
            if other.holds_up() {
                return true;
            }
            open.extend(other.must_stop_before(self.shutdown));
        }
        false
    }

    /// It will soon be ready, or have had its turn: worth waiting for where only the order matters.
    fn is_on_its_way_up(&self, name: &ServiceName) -> bool {
        let Some(entry) = self.entries.get(name) else { return false };
        match (entry.service.wanted(), entry.service.phase()) {
            (Wanted::Down { .. }, _) => false,
            (Wanted::Up, Phase::Starting(_)) => true,
            (Wanted::Up, Phase::Stopped { .. }) => self.blocked_by(entry).is_none(),
            (
                Wanted::Up,
                Phase::Ready(_)
                | Phase::Stopping(_)
                | Phase::Backoff { .. }
                | Phase::Failed { .. }
                | Phase::Completed { .. },
            ) => false,
        }
    }
}

impl Entry {
    /// Whoever requires it may start.
    fn satisfies(&self) -> bool {
        match self.service.phase() {
            Phase::Ready(_) | Phase::Completed { .. } => true,
            Phase::Stopped { .. }
            | Phase::Starting(_)
            | Phase::Stopping(_)
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => false,
        }
    }

    /// It lives, and its end can be waited for.
    fn holds_up(&self) -> bool {
        self.service.is_live() && self.service.phase().survivors().is_empty()
    }

    fn must_stop_before(&self, shutdown: Option<Haste>) -> impl Iterator<Item = &ServiceName> {
        let followers = shutdown.map(|_| &self.followed_by).into_iter().flatten();
        self.required_by.iter().chain(followers)
    }
}
