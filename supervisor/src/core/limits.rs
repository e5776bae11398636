//! Limits: asked for, kept, put in force.
//!
//! ```text
//! `limit` ─► does the machine carry it? ─► record on disk ─► put in force, on a thread ─► answered
//! a start ─► what its process joins, and is given before it runs
//! ```
//! A limit that was acknowledged is on disk, so that a core that dies before it was put in force leaves it to the next
//! one, which puts in force what it finds for whatever lives. What is not in force for some reason is told, and keeps
//! nothing else from being: a service runs without a limit rather than not at all.
//!
//! Freezing is apart: [`freezing`].

mod freezing;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tokio::task::JoinSet;
use watchdog_keeper::protocol::Limit;
use watchdog_lifecycle::Actor;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::resources::{LimitChange, LimitKey, Limits, LimitsView, ServiceLimits, Support};
use watchdog_protocol::{Incarnation, ServiceName};

pub(super) use self::freezing::{Freezing, Still};
use super::events::Entry as Logged;
use super::from_service::shortened;
use super::launch;
use super::verbs::Asked;
use super::waiting::{Look, Target, end};
use super::{Core, chain};
use crate::limiting::{Means, NotInForce, Prepared};
use crate::processes::cgroup::Surroundings;
use crate::store::record;
use crate::store::writer::{ChangeNumber, Done};

/// The version of the keeper whose children join cgroups.
const JOIN_SINCE: u16 = 3;

/// The means of this machine, and the threads that use them.
#[derive(Debug)]
pub(super) struct Limiting {
    pub(super) means: Arc<Means>,
    /// Looked for when somebody asks.
    around: LazyLock<Surroundings>,
    work: JoinSet<Worked>,
}

impl Limiting {
    pub(super) fn new(means: Means) -> Self {
        Self { means: Arc::new(means), around: LazyLock::new(Surroundings::find), work: JoinSet::new() }
    }

    /// What a thread came to. Cancel safe; for ever where none is at work.
    pub(super) async fn worked(&mut self) -> Worked {
        loop {
            match self.work.join_next().await {
                Some(Ok(worked)) => return worked,
                Some(Err(error)) if error.is_panic() => {
                    tracing::error!(%error, "limits could not be put in force");
                }
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// What a thread came to.
#[derive(Debug)]
pub(super) enum Worked {
    Limited(Applied),
    Frozen { service: ServiceName, incarnation: Incarnation, told: Box<Logged>, outcome: std::io::Result<()> },
}

/// Limits that the kernel was told.
#[derive(Debug)]
pub(super) struct Applied {
    service: ServiceName,
    limits: Limits,
    /// The change that made them so.
    change: Option<ChangeNumber>,
    not_in_force: NotInForce,
}

/// The limits of one service.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// On disk.
    kept: Limits,
    kept_change: Option<ChangeNumber>,
    /// On its way there.
    next: Option<Next>,
    /// As the kernel was told.
    in_force: Limits,
    not_in_force: NotInForce,
    /// Put in force, as far as that goes.
    applied: Option<ChangeNumber>,
    /// A thread is at it.
    is_under_way: bool,
    /// No step of a start does all of it.
    to_apply: bool,
    /// A process was born while a thread was at it.
    again: bool,
}

#[derive(Debug)]
struct Next {
    change: ChangeNumber,
    limits: Limits,
    /// To be told once it is on disk.
    told: Vec<Logged>,
}

impl Held {
    fn newest(&self) -> &Limits {
        self.next.as_ref().map_or(&self.kept, |next| &next.limits)
    }
}

/// A call that waits until a change is in force.
#[derive(Debug)]
pub(super) struct Limited {
    service: ServiceName,
    change: Option<ChangeNumber>,
}

impl Core {
    pub(super) fn limits_path(&self, service: &ServiceName) -> PathBuf {
        record::path(&self.config.watchdog.state.join("limits"), service.as_str())
    }

    /// What was kept of an earlier life.
    pub(super) fn load_limits(&mut self, service: &ServiceName) -> Option<Box<Held>> {
        let folder = self.config.watchdog.state.join("limits");
        match record::load::<Limits>(&mut self.store, &folder, service.as_str()) {
            Ok(loaded) => loaded.content().map(|kept| Box::new(Held { kept, ..Held::default() })),
            Err(err) => {
                let text = format!("its limits can't be read, it runs without: {}", chain(&err));
                self.events.add(Logged::of(service, "limit", text));
                None
            }
        }
    }

    /// `limit`.
    pub(super) fn limit_asked(
        &mut self,
        asked: Asked,
        service: &ServiceName,
        changes: &[LimitChange],
        reason: Option<&str>,
    ) {
        // A call that is repeated changes nothing more.
        let change = match self.change_limits(&asked.by, service, changes, reason) {
            Ok(change) => change,
            Err(failure) => return end(&asked.replies, Err(failure)),
        };
        let durable = change.map(|change| (self.limits_path(service), change)).into_iter().collect();
        let target = match asked.wait {
            Some(_) => Target::Limited(Limited { service: service.clone(), change }),
            None => Target::Durable { answer: Outcome::Done(format!("limits of {service} accepted")) },
        };
        self.wait_for(asked, target, durable);
    }

    fn newest_change(&self, service: &ServiceName) -> Option<ChangeNumber> {
        let held = self.entry(service).limits.as_deref()?;
        held.next.as_ref().map(|next| next.change).or(held.kept_change)
    }

    /// `None`: it changes nothing.
    fn change_limits(
        &mut self,
        by: &Actor,
        service: &ServiceName,
        changes: &[LimitChange],
        reason: Option<&str>,
    ) -> Result<Option<ChangeNumber>, Failure> {
        let before = self.entry(service).limits.as_deref().map(Held::newest).cloned().unwrap_or_default();
        let mut limits = before.clone();
        for change in changes {
            if let Some(value) = change.value {
                change.key.check(value).map_err(|bad| wrong(service, &bad.to_string()))?;
                if let Support::Refused(why) = self.limiting.means.support(change.key) {
                    let text = format!("{} can't be limited here: {why}", change.key);
                    return Err(wrong(service, &text).hint("watchdog limits; watchdog doctor"));
                }
            }
            limits.set(change.key, change.value);
        }
        if let (Some(high), Some(max)) = (limits.get(LimitKey::MemoryHigh), limits.get(LimitKey::MemoryMax))
            && high > max
        {
            let shown = |key: LimitKey, value| format!("{key}={}", key.show(value));
            let (high, max) = (shown(LimitKey::MemoryHigh, high), shown(LimitKey::MemoryMax, max));
            return Err(wrong(service, &format!("{high} is above {max}, expected at most that")));
        }
        if limits == before {
            return Ok(self.newest_change(service));
        }
        let text = format!("limits changed: {}", told(&before, &limits, reason));
        let logged = Logged::of(service, "limit", text).by(by);
        let path = self.limits_path(service);
        let change = self.store.put(&path, record::envelope(&limits));
        let held = self.entry_mut(service).limits.get_or_insert_default();
        let mut told = held.next.take().map(|next| next.told).unwrap_or_default();
        told.push(logged);
        held.next = Some(Next { change, limits, told });
        Ok(Some(change))
    }

    /// The resource limits its process has where nobody limits it.
    pub(super) fn given_limits(&self, service: &ServiceName) -> Vec<Limit> {
        launch::given(&self.entry(service).spec, &self.keeper_hello.original_limits)
    }

    /// What tells that the kernel ended a process of the service for lack of memory, if this signal may have been that.
    pub(super) fn out_of_memory(&self, service: &ServiceName, signal: i32) -> Option<String> {
        if signal != Signal::SIGKILL as i32 {
            return None;
        }
        let kills = self.limiting.means.oom_kills(service);
        let held = self.entry(service).limits.as_deref();
        let limit = held.and_then(|held| held.kept.get(LimitKey::MemoryMax));
        let limit = limit
            .map_or_else(String::new, |limit| format!("memory_max={}, ", LimitKey::MemoryMax.show(limit)));
        (kills > 0).then(|| format!("{limit}oom_kill {kills}"))
    }

    /// What a process that is about to start joins and is given.
    pub(super) fn prepare_limits(&mut self, service: &ServiceName, given: &[Limit]) -> Prepared {
        let keeper_joins = self.keeper_joins();
        let entry = self.entries.get_mut(service).expect("the caller looked it up");
        let Some(held) = entry.limits.as_deref_mut() else { return Prepared::default() };
        let prepared = self.limiting.means.prepare(service, &held.kept, given);
        held.not_in_force.clone_from(&prepared.not_in_force);
        held.to_apply = prepared.to_apply || !prepared.join.is_empty() && !keeper_joins;
        prepared
    }

    /// Under an older one a process is moved once it lives.
    pub(super) fn keeper_joins(&self) -> bool {
        self.keeper_hello.version >= JOIN_SINCE
    }

    /// A process lives: what no step of its start could do.
    pub(super) fn limit_born(&mut self, service: &ServiceName) {
        let entry = self.entries.get_mut(service).expect("the caller looked it up");
        if let Some(held) = entry.limits.as_deref_mut()
            && std::mem::take(&mut held.to_apply)
        {
            held.again = true;
            self.enforce_limits(service);
        }
    }

    /// A process that an older core started: what is kept is put in force for it, and whether it stands still is seen.
    pub(super) fn restore_limits(&mut self, service: &ServiceName) {
        if self.stands_still(service) {
            self.entry_mut(service).still = Still::Frozen;
        }
        self.enforce_limits(service);
    }

    /// A write of the store ended: `true` when it was of limits.
    pub(super) fn limits_stored(&mut self, done: &Done) -> bool {
        let folder = self.config.watchdog.state.join("limits");
        let Some(service) = record::name_of(&folder, &done.path).and_then(|name| name.parse().ok()) else {
            return false;
        };
        let entry = self.entries.get_mut(&service);
        let Some(held) = entry.and_then(|entry| entry.limits.as_deref_mut()) else { return true };
        let Some(next) = held.next.take_if(|next| next.change <= done.up_to) else { return true };
        match &done.outcome {
            Ok(()) => {
                (held.kept, held.kept_change) = (next.limits, Some(next.change));
                for logged in next.told {
                    self.events.add(logged);
                }
                self.enforce_limits(&service);
            }
            Err(err) => {
                let text = format!("limits could not be saved, and stay as they were: {}", chain(&**err));
                self.events.add(Logged::of(&service, "limit", text));
            }
        }
        true
    }

    /// Tells the kernel what is kept, on a thread: to move a process takes it up to some ten milliseconds.
    pub(super) fn enforce_limits(&mut self, service: &ServiceName) {
        if self.entry(service).limits.is_none() {
            return;
        }
        let (members, given) = (self.members(service), self.given_limits(service));
        let entry = self.entries.get_mut(service).expect("the caller looked it up");
        let Some(held) = entry.limits.as_deref_mut().filter(|held| !held.is_under_way) else { return };
        held.is_under_way = true;
        if std::mem::take(&mut held.again) {
            held.in_force = Limits::default();
        }
        let (before, limits, change) = (held.in_force.clone(), held.kept.clone(), held.kept_change);
        let (means, service) = (Arc::clone(&self.limiting.means), service.clone());
        self.limiting.work.spawn_blocking(move || {
            let not_in_force =
                means.apply(&service, &before, &limits, &given, &|| members.pids().unwrap_or_default());
            Worked::Limited(Applied { service, limits, change, not_in_force })
        });
    }

    pub(super) fn limiting_worked(&mut self, worked: Worked) {
        match worked {
            Worked::Limited(applied) => self.limits_applied(applied),
            Worked::Frozen { service, incarnation, told, outcome } => {
                self.was_frozen(&service, incarnation, *told, outcome);
            }
        }
    }

    fn limits_applied(&mut self, applied: Applied) {
        let Applied { service, limits, change, not_in_force } = applied;
        let Some(entry) = self.entries.get_mut(&service) else { return };
        let lives = entry.process.is_some();
        let Some(held) = entry.limits.as_deref_mut() else { return };
        held.is_under_way = false;
        held.applied = change;
        held.in_force = limits;
        let news = (held.not_in_force != not_in_force && !not_in_force.is_empty() && lives)
            .then(|| in_words_of_failures(&not_in_force));
        held.not_in_force = not_in_force;
        let is_behind = held.again || held.kept != held.in_force || held.kept_change != held.applied;
        if let Some(news) = news {
            self.events.add(Logged::of(&service, "limit", format!("not in force: {news}")));
        }
        if is_behind {
            self.enforce_limits(&service);
        }
    }

    /// `limits`.
    pub(super) fn limits_view(&self, services: &[ServiceName]) -> LimitsView {
        let means = &self.limiting.means;
        let of = |name: &ServiceName| {
            let entry = self.entry(name);
            let held = entry.limits.as_deref();
            ServiceLimits {
                service: name.clone(),
                limits: held.map(|held| held.kept.clone()).unwrap_or_default(),
                not_in_force: held.map(|held| held.not_in_force.clone()).unwrap_or_default(),
                is_frozen: entry.still == Still::Frozen,
                resources: entry.spec.resources.clone(),
            }
        };
        let processors = configured(SysconfVar::_NPROCESSORS_ONLN);
        let memory = configured(SysconfVar::_PHYS_PAGES) * configured(SysconfVar::PAGE_SIZE);
        let around = &self.limiting.around;
        LimitsView {
            back_end: means.back_end().to_owned(),
            support: LimitKey::ALL.into_iter().map(|key| (key, means.support(key))).collect(),
            freeze: means.freeze_support(),
            processors: u32::try_from(processors).unwrap_or(u32::MAX),
            cpu: around.cpu().unwrap_or(u64::MAX).min(processors * 1000),
            memory: around.memory(memory).map_or(memory, |narrower| narrower.limit),
            services: services.iter().map(of).collect(),
        }
    }

    pub(super) fn look_at_limits(&self, limited: &Limited) -> Look {
        let Some(entry) = self.entries.get(&limited.service) else {
            let text = format!("{} was unregistered", limited.service);
            return Look::Failed(Failure::new(FailureKind::Failed, text));
        };
        let held = entry.limits.as_deref();
        let is_done = held.is_none_or(|held| {
            !held.is_under_way && limited.change.is_none_or(|change| held.applied >= Some(change))
        });
        match is_done {
            true => {
                let view = self.limits_view(std::slice::from_ref(&limited.service));
                Look::Done(Outcome::Limits(Box::new(view)))
            }
            false => Look::Waits("the limits are being put in force".to_owned()),
        }
    }
}

/// 0: the system does not say.
fn configured(variable: SysconfVar) -> u64 {
    sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
}

fn wrong(service: &ServiceName, text: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("{service}: {text}"))
}

/// Changes as they are asked for.
pub(super) fn in_words(changes: &[LimitChange]) -> String {
    let one = |change: &LimitChange| match change.value {
        Some(value) => format!("{}={}", change.key, change.key.show(value)),
        None => format!("{}=none", change.key),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A reason that somebody gave, behind what was done.
pub(super) fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {}", shortened(reason.to_owned()))).unwrap_or_default()
}

fn told(before: &Limits, after: &Limits, reason: Option<&str>) -> String {
    let shown = |limits: &Limits, key: LimitKey| {
        limits.get(key).map_or_else(|| "none".to_owned(), |value| key.show(value))
    };
    let changed = LimitKey::ALL.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let changed = changed.map(|key| format!("{key} {} → {}", shown(before, key), shown(after, key)));
    changed.collect::<Vec<_>>().join(", ") + &because(reason)
}

fn in_words_of_failures(failures: &NotInForce) -> String {
    failures.iter().map(|(key, why)| format!("{key} ({why})")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_what_differs_and_why() {
        let limits = |pairs: &[(LimitKey, u64)]| Limits(pairs.iter().copied().collect());
        let before = limits(&[(LimitKey::Cpu, 500), (LimitKey::Nofile, 64)]);
        let after = limits(&[(LimitKey::Cpu, 200), (LimitKey::MemoryMax, 1 << 30)]);
        assert_eq!(
            told(&before, &after, Some("web waits")),
            "cpu 50% → 20%, memory_max none → 1GiB, nofile 64 → none: web waits"
        );
        let changes = [
            LimitChange { key: LimitKey::Cpu, value: Some(200) },
            LimitChange { key: LimitKey::Nofile, value: None },
        ];
        assert_eq!(in_words(&changes), "cpu=20% nofile=none");
    }
}
