//! `reload`: another configuration, while everything runs; and `diff`, which only compares.
//!
//! ```text
//! asked ─► the file is read and checked, apart from the loop ─► plan ─► may it be? ─► kept: from here on in force
//!             └ what is wrong changes nothing                               │
//!                              nothing is owed any more ◄── ends, starts ◄──┴── roster, entries, settings
//!                                     └─► kept without what was owed ─► the next reload
//! ```
//! One reload at a time, those that come meanwhile wait. The rename that keeps the new configuration is the point of no
//! return: a core killed before it leaves the old one in force, one killed after it a next core that goes on from what
//! is owed ([`Owed`](super::in_force::Owed)). Between the plan and that rename nothing may come or go: `register`,
//! `unregister` and `scale` are told to try again, which lasts as long as a rename.
//!
//! A service whose process has to start anew keeps the table it runs under until that process is gone; the next spawn,
//! or the look at one that rests, takes the [`Next`] one.

mod apply;
mod drift;
mod proposal;
mod rename;
mod resume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future;
use std::sync::Arc;

use tokio::task::JoinSet;
use watchdog_lifecycle::{Actor, Phase, Reconfiguration, Service, Wanted};
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply};
use watchdog_protocol::plan::{Deed, Plan, Way};
use watchdog_protocol::{Incarnation, ServiceName};

use super::events::Entry as Logged;
use super::in_force::{InForce, Owed};
use super::verbs::Asked;
use super::waiting::end;
use super::{Core, CoreError, Registered, Shutdown, chain};
use crate::config::{CheckedService, ConfigErrors, ServiceSpec, graph};
use crate::reload::{self, Now, Sides};
use crate::store::replace::ReplaceError;
pub(super) use apply::Reloaded;
use proposal::Proposal;
pub(super) use rename::Heir;
pub(super) use resume::Before;

/// How a service is configured from its next process on.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) spec: ServiceSpec,
    /// What its program says of itself; `None` for a program, or where it could not be asked.
    pub(super) checked: Option<CheckedService>,
}

/// Somebody wants to know what differs, or wants it in force.
#[derive(Debug)]
pub(super) enum Order {
    Diff(Asked, Vec<ServiceName>),
    Reload(Wish),
}

#[derive(Debug)]
pub(super) struct Wish {
    by: Actor,
    /// `None`: a signal wanted it.
    asked: Option<Asked>,
    /// Only this plan.
    plan: Option<u64>,
}

/// Something a thread did for it.
#[derive(Debug)]
pub(super) enum Worked {
    Proposed { order: Order, outcome: Result<Box<Proposal>, ConfigErrors> },
    Kept { ready: Box<Ready>, outcome: Result<(), ReplaceError> },
    Moved { name: ServiceName, outcome: std::io::Result<()> },
    Paid(Result<(), ReplaceError>),
}

/// A proposal that is being put in force.
#[derive(Debug)]
pub(super) struct Ready {
    proposal: Proposal,
    wish: Wish,
    owed: Owed,
}

/// How far the reload under way has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    None,
    Proposing,
    Keeping,
    /// It is in force, and ends and starts are under way.
    Owing,
    Paying,
}

/// All the core knows of reloads.
#[derive(Debug)]
pub(super) struct Reloads {
    /// The text in force.
    text: Arc<str>,
    waiting: VecDeque<Wish>,
    work: JoinSet<Worked>,
    stage: Stage,
    /// Of the reload under way, once it is in force.
    owed: Option<Owed>,
    drift: drift::Drift,
}

impl Reloads {
    pub(super) fn of(in_force: InForce) -> Self {
        let stage = if in_force.owed.is_some() { Stage::Owing } else { Stage::None };
        Self {
            text: in_force.text,
            waiting: VecDeque::new(),
            work: JoinSet::new(),
            stage,
            owed: in_force.owed,
            drift: drift::Drift::default(),
        }
    }

    /// The next thing a thread did; waits for ever while none does anything. Cancel safe.
    pub(super) async fn worked(&mut self) -> Worked {
        match self.work.join_next().await {
            Some(Ok(worked)) => worked,
            Some(Err(err)) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(err) => unreachable!("nothing of a reload is ever cancelled: {err}"),
            },
            None => future::pending().await,
        }
    }

    /// What there is must stay, for a moment.
    pub(super) fn may_come_and_go(&self) -> Result<(), Failure> {
        match self.stage {
            Stage::Keeping => Err(Failure::new(FailureKind::TryAgain, "a reload is being put in force")),
            Stage::None | Stage::Proposing | Stage::Owing | Stage::Paying => Ok(()),
        }
    }
}

impl Core {
    pub(super) fn diff_asked(&mut self, asked: Asked, services: Vec<ServiceName>) {
        self.propose(Order::Diff(asked, services));
    }

    pub(super) fn reload_asked(&mut self, asked: Asked, plan: Option<u64>) {
        if let Some(taken) = self.answered.find(asked.id) {
            let before = taken.before.clone();
            return self.wait_for_reload(asked, before, Vec::new());
        }
        let wish = Wish { by: asked.by.clone(), asked: Some(asked), plan };
        self.wish_for_reload(wish);
    }

    /// The keeper was sent a SIGHUP.
    pub(super) fn reload_signalled(&mut self) {
        self.events.add(Logged::new("reload", "SIGHUP: the configuration is read again"));
        self.wish_for_reload(Wish { by: Actor::Watchdog, asked: None, plan: None });
    }

    fn wish_for_reload(&mut self, wish: Wish) {
        if self.shutdown == Shutdown::Stopping {
            let failure = Failure::new(FailureKind::Failed, "the watchdog shuts down");
            return self.refuse_reload(&wish, failure);
        }
        if self.reloads.stage != Stage::None
            && let Some(asked) = &wish.asked
        {
            let progress = Reply::Progress("waits for the reload before it".to_owned());
            let _ = asked.replies.sender().try_send(progress);
        }
        self.reloads.waiting.push_back(wish);
        self.next_reload();
    }

    fn next_reload(&mut self) {
        if self.reloads.stage == Stage::None
            && let Some(wish) = self.reloads.waiting.pop_front()
        {
            self.reloads.stage = Stage::Proposing;
            self.propose(Order::Reload(wish));
        }
    }

    fn propose(&mut self, order: Order) {
        let known = self.known_to_proposal();
        self.reloads
            .work
            .spawn_blocking(move || Worked::Proposed { order, outcome: known.propose().map(Box::new) });
    }

    fn refuse_reload(&mut self, wish: &Wish, failure: Failure) {
        // An operator who asked reads it there.
        if wish.asked.is_none() {
            let text = format!("nothing was changed by the reload: {failure}");
            self.events.add(Logged::new("reload", text).because("settings"));
        }
        if let Some(asked) = &wish.asked {
            end(&asked.replies, Err(failure));
        }
    }

    pub(super) async fn reload_worked(&mut self, worked: Worked) -> Result<(), CoreError> {
        match worked {
            Worked::Proposed { order: Order::Diff(asked, services), outcome } => {
                let plan = outcome.map_err(|errors| wrong(&errors)).and_then(|mut proposal| {
                    self.complete(&mut proposal);
                    let plan = self.plan_of(&proposal);
                    self.only(plan, &services, &proposal).map(|plan| Outcome::Plan(Box::new(plan)))
                });
                end(&asked.replies, plan);
            }
            Worked::Proposed { order: Order::Reload(wish), outcome } => {
                let begun = outcome.map_err(|errors| wrong(&errors));
                let begun = begun.and_then(|proposal| self.begin_reload(&wish, *proposal));
                match begun {
                    Ok(Some((proposal, owed))) => self.keep(Ready { proposal, wish, owed }),
                    Ok(None) => {
                        let done = Outcome::Done("nothing differs: nothing was done".to_owned());
                        if let Some(asked) = &wish.asked {
                            end(&asked.replies, Ok(done));
                        }
                        self.end_reload();
                    }
                    Err(failure) => {
                        self.refuse_reload(&wish, failure);
                        self.end_reload();
                    }
                }
            }
            Worked::Kept { ready, outcome: Ok(()) } => {
                self.reloads.stage = Stage::Owing;
                self.put_in_force(*ready).await?;
            }
            Worked::Kept { ready, outcome: Err(err) } => {
                let text =
                    format!("the new configuration can't be kept, nothing was changed: {}", chain(&err));
                self.refuse_reload(&ready.wish, Failure::new(FailureKind::Failed, text));
                self.end_reload();
            }
            Worked::Moved { name, outcome } => self.files_moved(&name, outcome),
            Worked::Paid(outcome) => {
                if let Err(err) = outcome {
                    // A next core looks for what is owed, and finds all of it done.
                    self.events.add(Logged::new("disk", chain(&err)));
                }
                self.end_reload();
            }
        }
        Ok(())
    }

    fn end_reload(&mut self) {
        self.reloads.stage = Stage::None;
        self.next_reload();
    }

    /// Looks whether it may be put in force, and what will be owed then. `None`: nothing differs.
    fn begin_reload(
        &mut self,
        wish: &Wish,
        mut proposal: Proposal,
    ) -> Result<Option<(Proposal, Owed)>, Failure> {
        if self.shutdown == Shutdown::Stopping {
            return Err(Failure::new(FailureKind::Failed, "the watchdog shuts down"));
        }
        self.complete(&mut proposal);
        let plan = self.plan_of(&proposal);
        // Also when it was the reload before this one that did it.
        if plan.is_empty() && proposal.text == self.reloads.text {
            return Ok(None);
        }
        if wish.plan.is_some_and(|id| id != plan.id) {
            let text = "something has changed since the plan was made; nothing was done";
            return Err(Failure::new(FailureKind::TryAgain, text).hint("watchdog reload makes another plan"));
        }
        self.may_be_in_force(&proposal, &plan)?;
        let restarts = plan.services.iter().filter_map(|service| {
            let restarts = matches!(service.deed, Deed::Restart | Deed::Recreate);
            let current = self.roster.get(&service.service)?.phase().incarnation()?;
            restarts.then(|| (service.service.clone(), current))
        });
        let of = |deed: Deed| plan.services.iter().filter(move |service| service.deed == deed);
        let renamed = plan
            .services
            .iter()
            .filter_map(|service| Some((service.renamed_from.clone()?, service.service.clone())));
        let renamed: BTreeMap<_, _> = renamed.collect();
        let removed = of(Deed::Remove).map(|service| &service.service).chain(renamed.keys());
        let owed = Owed {
            request: wish.asked.as_ref().map(|asked| asked.id),
            by: wish.by.clone(),
            before: self.reloads.text.to_string(),
            restarts: restarts.collect(),
            removed: removed.cloned().collect(),
            renamed,
            added: of(Deed::Add).map(|service| service.service.clone()).collect(),
        };
        Ok(Some((proposal, owed)))
    }

    fn keep(&mut self, ready: Ready) {
        self.reloads.stage = Stage::Keeping;
        let in_force = InForce { text: ready.proposal.text.clone(), owed: Some(ready.owed.clone()) };
        let runtime = self.config.watchdog.runtime.clone();
        self.reloads.work.spawn_blocking(move || {
            let outcome = in_force.keep(&runtime);
            Worked::Kept { ready: Box::new(ready), outcome }
        });
    }

    /// All that is owed is done: the next core need not look for it.
    fn paid(&mut self) {
        self.reloads.stage = Stage::Paying;
        self.reloads.owed = None;
        let in_force = InForce { text: Arc::clone(&self.reloads.text), owed: None };
        let runtime = self.config.watchdog.runtime.clone();
        self.reloads.work.spawn_blocking(move || Worked::Paid(in_force.keep(&runtime)));
    }

    /// How a service is configured: its process may be another's still.
    pub(super) fn configured(&self, service: &ServiceName) -> &ServiceSpec {
        let entry = self.entry(service);
        entry.next.as_ref().map_or(&entry.spec, |next| &next.spec)
    }

    fn plan_of(&self, proposal: &Proposal) -> Plan {
        let file = proposal.services.iter().map(|(name, (spec, checked))| {
            (name.clone(), (spec, checked.as_ref().map(|checked| &checked.schema)))
        });
        let file: BTreeMap<_, _> = file.collect();
        let now = self.entries.iter().filter(|(name, entry)| {
            !entry.leaving && (entry.registered == Registered::Config || file.contains_key(*name))
        });
        reload::plan(&Sides {
            config: self.config.path.display().to_string(),
            digest: watchdog_protocol::manifest::fnv1a(proposal.text.as_bytes()),
            watchdog: [&proposal.config.watchdog, &self.config.watchdog],
            groups: [&proposal.config.groups, &self.config.groups],
            now: now.map(|(name, _)| (name.clone(), self.now_of(name, proposal))).collect(),
            file,
        })
    }

    /// What a plan says of these services, which may be in the file alone.
    fn only(&self, mut plan: Plan, services: &[ServiceName], proposal: &Proposal) -> Result<Plan, Failure> {
        let in_file = |name: &ServiceName| proposal.services.keys().any(|other| name.covers(other));
        let elsewhere: Vec<_> = services.iter().filter(|name| !in_file(name)).cloned().collect();
        self.known(&elsewhere)?;
        if !services.is_empty() {
            plan.services.retain(|of| services.iter().any(|name| name.covers(&of.service)));
            plan.groups.clear();
            plan.watchdog.clear();
        }
        Ok(plan)
    }

    fn now_of(&self, name: &ServiceName, proposal: &Proposal) -> Now<'_> {
        let entry = self.entry(name);
        let service = self.roster.get(name).expect("the roster and the entries hold the same names");
        let wanted_down = match service.wanted() {
            Wanted::Up => None,
            Wanted::Down { by, verb } => Some(format!("{verb} by {by}")),
        };
        let overridden = entry.settings.as_ref().map(|settings| settings.updater.overrides());
        let keeps = [self.state_path(name), self.settings_path(name), self.wanted_path(name)];
        Now {
            in_force: self.configured(name),
            running: service.is_live().then_some(&entry.spec),
            schema: entry.settings.as_ref().map(|settings| &settings.schema),
            is_rebuilt: proposal.rebuilt.contains(name) && service.is_live() && entry.next.is_none(),
            overridden: overridden
                .iter()
                .flat_map(|overrides| overrides.paths().map(ToString::to_string))
                .collect(),
            wanted_down,
            is_completed: matches!(service.phase(), Phase::Completed { .. }),
            has_failed: matches!(service.phase(), Phase::Failed { .. } | Phase::Backoff { .. }),
            keeps: keeps.into_iter().filter(|path| self.store.is_unsettled(path) || path.exists()).collect(),
            is_registered: entry.registered == Registered::ByOperator,
        }
    }

    /// Everything that can be known before it is in force.
    fn may_be_in_force(&self, proposal: &Proposal, plan: &Plan) -> Result<(), Failure> {
        let never: Vec<_> = plan.watchdog.iter().filter(|field| field.way == Way::Never).collect();
        if !never.is_empty() {
            let keys = never.iter().map(|field| {
                let was = field.in_force.as_deref().unwrap_or_default();
                format!("[watchdog] {} can't change while it runs, {was} is in force", field.field)
            });
            let text = format!("{}; nothing was changed", keys.collect::<Vec<_>>().join("\n"));
            let hint = "take it back; or `watchdog shutdown`, then `watchdog run`";
            return Err(Failure::new(FailureKind::Configuration, text).hint(hint));
        }
        let registered = self.entries.values().filter(|entry| {
            entry.registered == Registered::ByOperator && !proposal.services.contains_key(&entry.spec.name)
        });
        let registered: Vec<_> = registered.map(|entry| &entry.spec).collect();
        if let Some(spec) = registered.iter().find(|spec| proposal.config.groups.contains_key(&spec.name)) {
            let text = format!("`{}` is a registered service, and no name for a group", spec.name);
            return Err(Failure::new(FailureKind::Configuration, text)
                .hint(format!("watchdog unregister {}", spec.name)));
        }
        let all = proposal.services.values().map(|(spec, _)| spec).chain(registered);
        ConfigErrors::none_of(graph::check(all)).map_err(|errors| wrong(&errors))?;
        self.roster
            .check_reload(&self.reconfiguration(proposal, plan, Actor::Watchdog))
            .map_err(|err| Failure::new(FailureKind::Configuration, err.to_string()))?;
        for (name, (spec, checked)) in &proposal.services {
            let of = plan.services.iter().find(|service| service.service == *name);
            let had = of.and_then(|service| service.renamed_from.as_ref()).unwrap_or(name);
            let settings = self.entries.get(had).and_then(|entry| entry.settings.as_ref());
            if let (Some(settings), Some(checked)) = (settings, checked) {
                settings.fit(spec, &checked.schema)?;
            }
        }
        Ok(())
    }

    /// What the roster is told. Whoever is added is as if it had never been there.
    fn reconfiguration(&self, proposal: &Proposal, plan: &Plan, by: Actor) -> Reconfiguration {
        let mut new = Reconfiguration {
            by,
            changed: BTreeMap::new(),
            added: Vec::new(),
            removed: BTreeSet::new(),
            promised: BTreeMap::new(),
            groups: proposal.config.groups.clone(),
        };
        for service in &plan.services {
            let name = service.service.clone();
            let policy = proposal.services.get(&name).map(|(spec, _)| spec.policy.clone());
            match (service.deed, policy) {
                (Deed::Rename, Some(policy)) => {
                    new.removed.extend(service.renamed_from.clone());
                    new.promised.insert(name, policy);
                }
                (Deed::Live | Deed::Restart | Deed::Recreate, Some(policy)) => {
                    new.changed.insert(name, (policy, reload::reach(service)));
                }
                (Deed::Add, Some(policy)) => {
                    let fresh = Service::new(Wanted::Up, Incarnation::NONE, super::now());
                    new.added.push((name, policy, fresh));
                }
                (_, None) | (Deed::Remove, Some(_)) => drop(new.removed.insert(name)),
            }
        }
        new
    }
}

fn wrong(errors: &ConfigErrors) -> Failure {
    let text = format!("{errors}\nnothing was changed: what was in force stays so");
    Failure::new(FailureKind::Configuration, text)
}
