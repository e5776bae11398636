//! Whether a service may run, computed from the phases of the others.

use std::collections::BTreeSet;

use watchdog_protocol::ServiceName;

use super::{Entry, Roster};
use crate::cause::{Absence, Cause, WatchdogReason};
use crate::event::{Gate, Haste};
use crate::phase::{Phase, Wanted};
use crate::policy::Work;

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

impl Roster {
    /// How it stands to the others, whether it runs or not. Unknown names are free.
    pub fn standing(&self, name: &ServiceName) -> Standing {
        let Some(entry) = self.entries.get(name) else { return Standing::Free };
        if let Some((by, absence)) = self.blocked_by(entry) {
            return Standing::Blocked { by, absence };
        }
        let on: BTreeSet<_> = self.waits_for(name, entry).cloned().collect();
        if on.is_empty() { Standing::Free } else { Standing::Waiting { on: on.into_iter().collect() } }
    }

    pub(super) fn gate(&self, name: &ServiceName, entry: &Entry) -> Gate {
        let blocked = || self.blocked_by(entry).map(|(on, absence)| Cause::Dependency { on, absence });
        let must_not = match (self.shutdown, entry.service.wanted()) {
            (Some(_), _) => Some(Cause::Watchdog { reason: WatchdogReason::Shutdown }),
            (None, Wanted::Down { by, verb }) => Some(Cause::Operator { by: by.clone(), verb: *verb }),
            (None, Wanted::Up) => blocked(),
        };
        if let (None, Wanted::Up, Some(cause)) =
            (self.shutdown, entry.service.wanted(), self.failed_group(entry))
        {
            // Before what it requires, which may be of the same group.
            return match self.is_held_up(name, entry) {
                true => Gate::Waiting,
                false => Gate::GivenUp { cause: cause.clone() },
            };
        }
        match (must_not, self.shutdown) {
            (Some(cause), Some(Haste::AtOnce)) => Gate::Shut { cause, haste: Haste::AtOnce },
            (Some(cause), Some(Haste::Orderly) | None) => {
                if self.is_held_up(name, entry) {
                    Gate::Waiting
                } else {
                    Gate::Shut { cause, haste: Haste::Orderly }
                }
            }
            (None, _) => match self.group_gate(name, entry) {
                Some(gate) => gate,
                None if self.waits_for(name, entry).next().is_some() => Gate::Waiting,
                None => Gate::Open,
            },
        }
    }

    /// What is not ready that it requires, what is on its way up that it comes after, and whom its group puts before it.
    fn waits_for<'a>(
        &'a self,
        name: &ServiceName,
        entry: &'a Entry,
    ) -> impl Iterator<Item = &'a ServiceName> {
        let counts = |(_, other): &(&ServiceName, &Entry)| !other.service.is_on_its_way_out();
        let requires = entry.policy.requires.iter().flat_map(|name| self.named(name)).filter(counts);
        let requires = requires.filter(|(_, other)| !other.satisfies()).map(|(name, _)| name);
        let after = entry.policy.after.iter().flat_map(|name| self.named(name)).map(|(name, _)| name);
        let after = after.filter(|name| self.is_on_its_way_up(name));
        let awaited = entry.policy.requires.iter().chain(&entry.policy.after);
        let to_come = move |to_come: &&ServiceName| awaited.clone().any(|name| name.covers(to_come));
        let to_come = self.promised.keys().filter(to_come);
        requires.chain(after).chain(to_come).chain(self.members_before(name, entry))
    }

    /// The first cause why it must not run: what failed or is stopped at the end of the chain.
    pub(super) fn blocked_by(&self, entry: &Entry) -> Option<(ServiceName, Absence)> {
        let required = |entry: &Entry| {
            let named = entry.policy.requires.iter().flat_map(|name| self.named(name));
            named.collect::<Vec<_>>().into_iter().rev()
        };
        let mut open: Vec<(&ServiceName, &Entry)> = required(entry).collect();
        let mut seen = BTreeSet::new();
        while let Some((name, other)) = open.pop() {
            if !seen.insert(name) || other.service.is_on_its_way_out() {
                continue;
            }
            match (other.service.wanted(), other.service.phase()) {
                (Wanted::Down { .. }, _) => return Some((name.clone(), Absence::Stopped)),
                (Wanted::Up, Phase::Failed { .. }) => return Some((name.clone(), Absence::Failed)),
                (Wanted::Up, _) if self.failed_group(other).is_some() => {
                    return Some((name.clone(), Absence::Failed));
                }
                (
                    Wanted::Up,
                    Phase::Stopped { .. }
                    | Phase::Starting(_)
                    | Phase::Ready(_)
                    | Phase::Stopping(_)
                    | Phase::Backoff { .. }
                    | Phase::Completed { .. },
                ) => open.extend(required(other)),
            }
        }
        None
    }

    /// Something that has to stop before it still lives.
    fn is_held_up(&self, name: &ServiceName, entry: &Entry) -> bool {
        let mut open = self.stop_before(name, entry);
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            let Some(other) = self.entries.get(name) else { continue };
            if other.holds_up() {
                return true;
            }
            open.extend(self.stop_before(name, other));
        }
        false
    }

    /// Who has to stop before it, by one link. Who is to be up does not stop for what is on its way out, and so not
    /// for what that one requires: it goes on without.
    fn stop_before<'a>(&'a self, name: &ServiceName, entry: &'a Entry) -> Vec<&'a ServiceName> {
        if entry.service.is_scaled_away() && self.shutdown.is_none() {
            return Vec::new();
        }
        let all = entry.must_stop_before(self.shutdown).chain(self.members_to_stop_before(name, entry));
        let goes_on = |other: &ServiceName| {
            let is_without = entry.service.is_removed() && self.shutdown.is_none();
            is_without && self.get(other).is_some_and(|other| *other.wanted() == Wanted::Up)
        };
        all.filter(|other| !goes_on(other)).collect()
    }

    /// It will soon be ready, or have had its turn: worth waiting for where only the order matters. A task has had it
    /// at its end.
    fn is_on_its_way_up(&self, name: &ServiceName) -> bool {
        let Some(entry) = self.entries.get(name) else { return false };
        match (entry.service.wanted(), entry.service.phase()) {
            (Wanted::Down { .. }, _) => false,
            (Wanted::Up, Phase::Starting(_)) => true,
            (Wanted::Up, Phase::Ready(_)) => entry.policy.work == Work::Once,
            (Wanted::Up, Phase::Stopped { .. }) => self.blocked_by(entry).is_none(),
            (
                Wanted::Up,
                Phase::Stopping(_) | Phase::Backoff { .. } | Phase::Failed { .. } | Phase::Completed { .. },
            ) => false,
        }
    }
}

impl Entry {
    /// Whoever requires it may start.
    pub(super) fn satisfies(&self) -> bool {
        match (self.service.phase(), self.policy.work) {
            (Phase::Ready(_), Work::Lasting) | (Phase::Completed { .. }, _) => true,
            (Phase::Ready(_), Work::Once)
            | (
                Phase::Stopped { .. }
                | Phase::Starting(_)
                | Phase::Stopping(_)
                | Phase::Backoff { .. }
                | Phase::Failed { .. },
                _,
            ) => false,
        }
    }

    /// It lives, and its end can be waited for.
    pub(super) fn holds_up(&self) -> bool {
        self.service.is_live() && self.service.phase().survivors().is_empty()
    }

    fn must_stop_before(&self, shutdown: Option<Haste>) -> impl Iterator<Item = &ServiceName> {
        let followers = shutdown.map(|_| &self.followed_by).into_iter().flatten();
        self.required_by.iter().chain(followers)
    }
}
