//! Services that restart together, and fail as one.
//!
//! ```text
//!               a member failed: by the strategy, others must end first
//!    Working ───────────────────────────────────────────────► Working, until these have ended
//!       │ ▲
//!       │ │ start, restart or reset of the group or a member
//!       │ └───────────────┐
//!       └────────────► Failed    more failures than the limit allows, or a member that the others can't be without
//! ```
//! The order of the members is the order of their starts and, backwards, of their stops. A group has a limit of its
//! own in place of its members': what is counted is failures, not the restarts that each of them brings.
//!
//! Nothing about who has ended is stored: a restart is over when no incarnation that it names lives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchdog_protocol::{Incarnation, ServiceName};

use crate::cause::Cause;
use crate::moment::Moment;
use crate::restart::Limit;

/// Whom the failure of a member takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody: the group is there for the limit.
    OneForOne,
    /// Those after it in the order.
    RestForOne,
    /// All.
    OneForAll,
}

impl Strategy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one-for-one",
            Self::RestForOne => "rest-for-one",
            Self::OneForAll => "one-for-all",
        }
    }
}

/// What the configuration decides about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Its members in the order of their starts; each is in no other group.
    pub members: Vec<ServiceName>,
    /// Whom a failure takes along.
    pub strategy: Strategy,
    /// When to give up. Default: more than 5 failures within 60 s, of all members together.
    pub limit: Limit,
}

impl GroupPolicy {
    fn place(&self, member: &ServiceName) -> Option<usize> {
        self.members.iter().position(|name| name == member)
    }

    /// Those before it in the order.
    pub fn before(&self, member: &ServiceName) -> &[ServiceName] {
        &self.members[..self.place(member).unwrap_or(0)]
    }

    /// Those after it in the order.
    pub fn behind(&self, member: &ServiceName) -> &[ServiceName] {
        self.place(member).map_or(&[], |place| &self.members[place + 1..])
    }

    /// Puts a member after those before it in the order, into what its configuration says of it. Done for each member
    /// before the roster is made: it knows no other order.
    pub fn arrange(&self, member: &ServiceName, after: &mut Vec<ServiceName>) {
        for before in self.before(member) {
            if !after.contains(before) {
                after.push(before.clone());
            }
        }
    }

    /// The first of those that a failure of this one takes along, itself included.
    fn first_taken(&self, member: &ServiceName) -> Option<usize> {
        match self.strategy {
            Strategy::OneForOne => None,
            Strategy::RestForOne => self.place(member),
            Strategy::OneForAll => Some(0),
        }
    }
}

/// What is remembered of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Group {
    /// Failures within the limit's time, oldest first.
    recent: Vec<Moment>,
    /// The newest failure. A new core may be told it again.
    last: Option<(ServiceName, Incarnation)>,
    restart: Option<Restart>,
    failed: Option<Cause>,
}

/// A restart of several members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Restart {
    cause: Cause,
    /// The place of the first member it is about; it is about all behind that one, too.
    first: u32,
    /// Who must end before any of them starts.
    ending: BTreeMap<ServiceName, Incarnation>,
}

/// An end that nobody asked for.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) member: &'a ServiceName,
    pub(crate) incarnation: Incarnation,
    pub(crate) cause: &'a Cause,
    /// Its own policy does not start it again.
    pub(crate) is_final: bool,
}

impl Group {
    /// Why it failed, if it did.
    pub fn failed(&self) -> Option<&Cause> {
        self.failed.as_ref()
    }

    /// Failures that still count.
    pub fn failures(&self, policy: &GroupPolicy, now: Moment) -> usize {
        match policy.limit {
            Limit::Off => 0,
            Limit::Within { window, .. } => {
                self.recent.iter().filter(|then| now.since(**then) <= window).count()
            }
        }
    }

    /// A member failed. `living` are the members with something alive, whatever they are about.
    pub(crate) fn member_failed(
        &mut self,
        group: &ServiceName,
        policy: &GroupPolicy,
        failure: &Failure<'_>,
        living: BTreeMap<ServiceName, Incarnation>,
        now: Moment,
    ) {
        let newest = (failure.member.clone(), failure.incarnation);
        if self.last.as_ref() == Some(&newest) || self.failed.is_some() {
            return;
        }
        self.last = Some(newest);
        let passed = policy.limit.count(&mut self.recent, now);
        let taken = policy.first_taken(failure.member);
        if let Some(first) = taken {
            // Also when it fails: whoever brings it back at once gets no member that outlived the failure.
            let cause = Cause::Group { group: group.clone(), member: failure.member.clone() };
            self.begin_restart(policy, cause, first, living);
        }
        if passed.is_some() || failure.is_final && taken.is_some() {
            self.failed = Some(Cause::GroupFailed {
                group: group.clone(),
                member: failure.member.clone(),
                limit: passed,
                last: Box::new(failure.cause.clone()),
            });
        }
    }

    /// All members are to end and to start again, in order.
    pub(crate) fn restart(
        &mut self,
        policy: &GroupPolicy,
        cause: Cause,
        living: BTreeMap<ServiceName, Incarnation>,
    ) {
        self.begin_restart(policy, cause, 0, living);
    }

    fn begin_restart(
        &mut self,
        policy: &GroupPolicy,
        cause: Cause,
        first: usize,
        mut living: BTreeMap<ServiceName, Incarnation>,
    ) {
        // One that is under way goes on: who was to end for it still is.
        let before = self.restart.take().filter(|restart| restart.is_under_way(&living));
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let first = before.as_ref().map_or(first, |restart| restart.first.min(first));
        living.retain(|name, _| policy.place(name).is_some_and(|place| place >= first as usize));
        let mut ending = living;
        // Newer ones of theirs, which this restart is about, are in `living`.
        for (name, incarnation) in before.into_iter().flat_map(|restart| restart.ending) {
            ending.entry(name).or_insert(incarnation);
        }
        self.restart = Some(Restart { cause, first, ending });
    }

    /// Forgets failures: it works again, as far as its members do.
    pub(crate) fn forgive(&mut self) {
        self.recent.clear();
        self.failed = None;
    }

    /// Why this process has to end, if it has to for a restart under way.
    pub(crate) fn ends(&self, member: &ServiceName, incarnation: Incarnation) -> Option<&Cause> {
        let restart = self.restart.as_ref()?;
        (restart.ending.get(member) == Some(&incarnation)).then_some(&restart.cause)
    }

    /// Who has to end before this member starts, as far as a restart says so.
    pub(crate) fn ending<'a>(
        &'a self,
        policy: &GroupPolicy,
        member: &ServiceName,
    ) -> impl Iterator<Item = (&'a ServiceName, Incarnation)> {
        let place = policy.place(member);
        let of_it =
            self.restart.iter().filter(move |restart| place.is_some_and(|at| at >= restart.first as usize));
        of_it.flat_map(|restart| restart.ending.iter().map(|(name, incarnation)| (name, *incarnation)))
    }
}

impl Restart {
    fn is_under_way(&self, living: &BTreeMap<ServiceName, Incarnation>) -> bool {
        self.ending.iter().any(|(name, incarnation)| living.get(name) == Some(incarnation))
    }
}
