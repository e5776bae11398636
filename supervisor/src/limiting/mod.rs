//! What limits are made of on this machine: the one place that acts on the kernel for them.
//!
//! ```text
//!                  support, prepare, apply, freeze, thaw
//!                                  │
//!                                Means ── each limit goes to the first that carries it
//!            ┌─────────────────────┼──────────────────────────┐
//!         cgroup-v2            cgroup-v1                     none
//!  the service's tracking    a group of its own in     each of its processes:
//!  cgroup carries them all   each hierarchy a limit    affinity, nice, rlimits,
//!                            needs, made when needed   STOP and CONT
//! ```
//! The table of limit by back end is in `RESOURCES.md`. Which back end carries a limit is found out once, by trying,
//! at the core's start, for each limit by itself: a machine may have v1's `memory` and nothing else.
//!
//! Nothing is remembered here but what the machine can do. What a service is limited to is the caller's to know and
//! the kernel's to tell, so a new core calls [`Means::apply`] again and is where the old one was. Calls block for
//! milliseconds, a freeze and a first move into v1 groups for longer: no task of the event loop makes them itself.
//!
//! Absent: tokio, the core, decisions about who gets what.

mod affinity;
mod delegation;
mod disks;
#[cfg(test)]
mod fake;
mod files;
mod privileges;
mod processes;
mod scale;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use watchdog_keeper::protocol::Limit;
use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitKey, Limits, Support};

pub(crate) use self::delegation::settle;

use self::processes::Processes;
use self::v1::Hierarchies;
use self::v2::Unified;
use crate::processes::cgroup::CgroupTree;

/// What of the limits asked for is not in force, and why.
pub type NotInForce = BTreeMap<LimitKey, String>;

/// All processes of a service, looked up anew at each call.
pub type Pids<'a> = &'a dyn Fn() -> Vec<i32>;

/// One way of limiting processes.
trait BackEnd: fmt::Debug + Send + Sync {
    /// As shown.
    fn name(&self) -> &'static str;

    /// How far it carries a limit.
    fn support(&self, key: LimitKey) -> Support;

    /// Why it carries nothing, or less than it could.
    fn shortcomings(&self) -> Vec<String>;

    /// For a process that is about to start. `limits` are those it carries.
    fn prepare(&self, service: &ServiceName, limits: &Limits, given: &[Limit], prepared: &mut Prepared);

    /// For living processes. The limits are those it carries; those that were, or are to be, in force are not empty.
    fn apply(&self, change: &Change<'_>) -> NotInForce;

    /// How far it can freeze.
    fn freeze_support(&self) -> Support;

    /// Stops all processes, and returns once they stand still.
    fn freeze(&self, service: &ServiceName, pids: Pids<'_>) -> io::Result<()>;

    /// Lets them go on.
    fn thaw(&self, service: &ServiceName, pids: Pids<'_>) -> io::Result<()>;

    /// As the kernel says.
    fn is_frozen(&self, service: &ServiceName, pids: Pids<'_>) -> bool;

    /// How many processes of a service the kernel ended for lack of memory, since its cgroup was made.
    fn oom_kills(&self, _service: &ServiceName) -> u64 {
        0
    }

    /// Takes away what it made for a service without processes.
    fn forget(&self, service: &ServiceName);

    /// Takes away all it made; no service has processes.
    fn clear(&self);
}

/// From what to what, for whose processes.
struct Change<'a> {
    service: &'a ServiceName,
    before: Limits,
    limits: Limits,
    given: &'a [Limit],
    pids: Pids<'a>,
}

impl Change<'_> {
    /// What is another than before, with what it is to be.
    fn changed(&self) -> impl Iterator<Item = (LimitKey, Option<u64>)> {
        let pair = |key| (self.before.get(key), self.limits.get(key));
        let keys = LimitKey::ALL.into_iter().filter(move |key| pair(*key).0 != pair(*key).1);
        keys.map(move |key| (key, pair(key).1))
    }
}

/// What a process needs to be limited from its first instruction on.
#[derive(Debug, Default)]
pub struct Prepared {
    /// A `cgroup.procs` each, for [`Attach::Join`](watchdog_keeper::protocol::Attach::Join).
    pub join: Vec<OwnedFd>,
    /// In place of what the service would start with. A step before the one that gives up rights.
    pub rlimits: Vec<Limit>,
    /// Call [`Means::apply`] once it runs, with nothing as what was in force before: no child step does the rest.
    pub to_apply: bool,
    /// What is not to be had.
    pub not_in_force: NotInForce,
}

/// What this machine, and the rights we have on it, limit processes with. Chosen once, at the core's start.
#[derive(Debug)]
pub struct Means {
    /// Best first.
    back_ends: Vec<Box<dyn BackEnd>>,
    /// Which of them carries it; the others carry none.
    carriers: BTreeMap<LimitKey, usize>,
    freezer: usize,
}

impl Means {
    /// Finds out what there is. Makes cgroups to see whether it may, and removes them.
    ///
    /// `tree` is where services are tracked, where there is one.
    pub fn probe(state_folder: &Path, tree: Option<&CgroupTree>) -> Self {
        Self::with(Unified::probe(tree), state_folder)
    }

    /// As [`probe`](Self::probe), and takes no controllers: for who only wants to know.
    pub fn look(state_folder: &Path, tree: Option<&CgroupTree>) -> Self {
        Self::with(Unified::look(tree), state_folder)
    }

    fn with(unified: Unified, state_folder: &Path) -> Self {
        Self::of(vec![
            Box::new(unified),
            Box::new(Hierarchies::probe(state_folder)),
            Box::new(Processes::probe()),
        ])
    }

    fn of(back_ends: Vec<Box<dyn BackEnd>>) -> Self {
        let first = |carries: &dyn Fn(&dyn BackEnd) -> bool| back_ends.iter().position(|it| carries(&**it));
        let is_had = |support: Support| !matches!(support, Support::Refused(_));
        let carriers = LimitKey::ALL
            .into_iter()
            .filter_map(|key| Some((key, first(&|it| is_had(it.support(key)))?)))
            .collect();
        let freezer = first(&|it| is_had(it.freeze_support())).unwrap_or(back_ends.len() - 1);
        Self { back_ends, carriers, freezer }
    }

    /// `cgroup-v2`, `cgroup-v1` or `none`: the best that carries a limit.
    pub fn back_end(&self) -> &'static str {
        self.best().name()
    }

    /// Descriptors are limited without cgroups everywhere, and say nothing of the rest.
    fn best(&self) -> &dyn BackEnd {
        let best = self.carriers.iter().filter(|(key, _)| **key != LimitKey::Nofile).map(|(_, at)| *at).min();
        &*self.back_ends[best.unwrap_or(self.back_ends.len() - 1)]
    }

    /// Why it is not a better one, or carries less than it could: a sentence each, for the operator.
    pub fn why_not_better(&self) -> Vec<String> {
        let name = self.back_end();
        let end = self.back_ends.iter().position(|it| it.name() == name).unwrap_or_default();
        self.back_ends[..=end].iter().flat_map(|it| it.shortcomings()).collect()
    }

    /// How far a limit carries here.
    pub fn support(&self, key: LimitKey) -> Support {
        match self.carriers.get(&key) {
            Some(at) => self.back_ends[*at].support(key),
            None => self.best().support(key),
        }
    }

    /// How far freezing carries here.
    pub fn freeze_support(&self) -> Support {
        self.back_ends[self.freezer].freeze_support()
    }

    /// What a process must join before it runs, and what else it is to be given. Makes the cgroups and writes the
    /// limits there first; lets a frozen service go on.
    ///
    /// `given` are the resource limits it starts with when nobody limits it. To be called after the tracking cgroup
    /// was made anew.
    pub fn prepare(&self, service: &ServiceName, limits: &Limits, given: &[Limit]) -> Prepared {
        let mut prepared = Prepared { not_in_force: self.refused(limits), ..Prepared::default() };
        for (at, back_end) in self.back_ends.iter().enumerate() {
            back_end.prepare(service, &self.carried(at, limits), given, &mut prepared);
        }
        prepared
    }

    /// Puts limits in force for living processes and, with cgroups, for those to come. What can't be is told, and
    /// stops nothing else. `before` is what was in force, nothing when that is not known; `given` as in
    /// [`prepare`](Self::prepare).
    pub fn apply(
        &self,
        service: &ServiceName,
        before: &Limits,
        limits: &Limits,
        given: &[Limit],
        pids: Pids<'_>,
    ) -> NotInForce {
        let mut told = self.refused(limits);
        for (at, back_end) in self.back_ends.iter().enumerate() {
            let (before, limits) = (self.carried(at, before), self.carried(at, limits));
            if !before.is_empty() || !limits.is_empty() {
                told.extend(back_end.apply(&Change { service, before, limits, given, pids }));
            }
        }
        told
    }

    /// Freezes all processes of a service; returns once they stand still.
    ///
    /// # Errors
    /// `TimedOut` when one is in a system call it can't be taken out of: it freezes as soon as that ends. Others are
    /// the kernel's.
    pub fn freeze(&self, service: &ServiceName, pids: Pids<'_>) -> io::Result<()> {
        self.back_ends[self.freezer].freeze(service, pids)
    }

    /// Lets them go on. Of one that is not frozen nothing happens. On v1, KILL does nothing to a frozen process:
    /// thaw it before, or after, or it stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn thaw(&self, service: &ServiceName, pids: Pids<'_>) -> io::Result<()> {
        self.back_ends[self.freezer].thaw(service, pids)
    }

    /// Whether a service is frozen, as the kernel says: nothing is remembered.
    pub fn is_frozen(&self, service: &ServiceName, pids: Pids<'_>) -> bool {
        self.back_ends[self.freezer].is_frozen(service, pids)
    }

    /// How many processes of a service the kernel ended for lack of memory, since its newest process was
    /// [prepared](Self::prepare): as far as a cgroup counts them, and where the tracking cgroup is made anew after some.
    pub fn oom_kills(&self, service: &ServiceName) -> u64 {
        self.back_ends.iter().map(|it| it.oom_kills(service)).max().unwrap_or(0)
    }

    /// A service without processes that is gone for good: what was made for it goes too.
    pub fn forget(&self, service: &ServiceName) {
        self.back_ends.iter().for_each(|it| it.forget(service));
    }

    /// No service has processes any more, and none will have: all that was made goes.
    pub fn clear(&self) {
        self.back_ends.iter().for_each(|it| it.clear());
    }

    fn refused(&self, limits: &Limits) -> NotInForce {
        let of_nobody = limits.0.keys().filter(|key| !self.carriers.contains_key(key));
        of_nobody
            .map(|key| match self.support(*key) {
                Support::Refused(why) | Support::Weaker(why) => (*key, why),
                Support::Full => (*key, String::new()),
            })
            .collect()
    }

    fn carried(&self, by: usize, limits: &Limits) -> Limits {
        let its = limits.0.iter().filter(|(key, _)| self.carriers.get(key) == Some(&by));
        Limits(its.map(|(key, value)| (*key, *value)).collect())
    }
}

#[cfg(test)]
mod tests;
