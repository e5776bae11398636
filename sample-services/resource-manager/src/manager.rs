//! The service: looks each period, and asks for what is to be otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::time::Duration;

use resource_manager::lease::ledger::Lent;
use resource_manager::policy::{Move, Remembered, Rules};
use resource_manager::{ManagerMsg, Sample};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use watchdog_service::query::QueryError;
use watchdog_service::query::resources::{LimitKey, Limits, LimitsView, Support};
use watchdog_service::query::usage::{ServiceRates, ServiceUsage, Usage};
use watchdog_service::{
    Context, Event, Health, MigrateError, ServiceError, ServiceName, State, WatchdogQuery, decode_state,
};

use crate::acts::{self, Allowances, Target};
use crate::history::Histories;
use crate::lending::{self, Lender};
use crate::look::{self, Means, Sight, Subject};
use crate::pace::Pace;
use crate::settings::{Extent, Period, Settings, Terms};

/// How long a change of limits may take: longer than a new core takes to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service for which something could not be done is left alone for so many looks.
const LEFT_ALONE: u32 = 30;

/// What it needs to do anything at all.
const GRANT: &str =
    "control = [\"status\", \"limits\", \"limit\", \"freeze\", \"thaw\", \"stop\", \"start\"]";

/// What a restart must not lose.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The limits services had before this one changed any.
    before: BTreeMap<ServiceName, Limits>,
    /// Who was stopped for want of something, and is to be started again.
    stopped: BTreeSet<ServiceName>,
    /// The tokens that each may be using.
    pub(crate) lent: Lent<ServiceName>,
}

impl State for Kept {
    const VERSION: u32 = 2;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        match from {
            1 => {
                let (before, stopped) = decode_state(old)?;
                Ok(Self { before, stopped, lent: Lent::new() })
            }
            _ => Err(MigrateError::new("no release has written it")),
        }
    }
}

type Managing = Context<Settings, Kept, ManagerMsg>;

struct Manager {
    query: Option<WatchdogQuery>,
    settings: Settings,
    rules: Rules,
    last: Option<Usage>,
    cpu: Remembered<ServiceName>,
    memory: Remembered<ServiceName>,
    /// As the watchdog was last told, or found.
    in_force: BTreeMap<ServiceName, Target>,
    /// Limits that this machine does not carry, and why.
    refused: BTreeMap<LimitKey, String>,
    /// For how many looks more a service is left alone, and why.
    left_alone: BTreeMap<ServiceName, (u32, String)>,
    histories: Histories,
    pace: Pace,
    lender: Lender,
    health: Health,
}

/// Moves resources until it is asked to stop.
pub(crate) async fn manager(mut ctx: Managing) -> Result<(), ServiceError> {
    let mut manager = Manager {
        query: ctx.query(),
        settings: Settings::default(),
        rules: Rules::default(),
        last: None,
        cpu: Remembered::default(),
        memory: Remembered::default(),
        in_force: BTreeMap::new(),
        refused: BTreeMap::new(),
        left_alone: BTreeMap::new(),
        histories: Histories::default(),
        pace: Pace::default(),
        lender: Lender::new(ctx.state()),
        health: Health::Ok,
    };
    manager.set(&ctx, false).await;
    ctx.ready().await?;
    let mut looks = every(manager.settings.period);
    loop {
        let rest = manager.lender.rest();
        // Asks that are there are answered together, before anything waits.
        tokio::select! {
            biased;
            _ = looks.tick() => {
                let before = manager.pace.now(&manager.settings);
                let after = manager.look(&ctx).await;
                if after != before {
                    looks = every(after);
                }
            }
            () = ready(()), if manager.lender.is_full() => manager.lender.settle(ctx.state()).await,
            event = ctx.next() => match event? {
                Some(Event::Message(ManagerMsg::Standings { reply })) => reply.send(manager.standings()),
                Some(Event::Message(ManagerMsg::History { service, reply })) => {
                    reply.send(manager.history(&service));
                }
                Some(Event::Message(ManagerMsg::Lease { request, reply })) => {
                    manager.lender.ask(ctx.delivery().sender().clone(), &request, reply, &manager.settings);
                }
                Some(Event::Message(ManagerMsg::Leases { reply })) => reply.send(manager.lender.leases()),
                Some(Event::SettingsUpdated) => {
                    manager.set(&ctx, true).await;
                    looks = every(manager.pace.now(&manager.settings));
                }
                None => return Ok(()),
            },
            () = ready(()), if manager.lender.is_unsettled() => manager.lender.settle(ctx.state()).await,
            () = sleep(rest) => manager.lender.settle(ctx.state()).await,
        }
    }
}

fn every(Period(period): Period) -> tokio::time::Interval {
    let mut looks = interval_at(Instant::now() + period, period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

impl Manager {
    /// Takes settings on, or refuses them. Those of a start are not refused for what others do not declare any more: that is
    /// told by its health.
    async fn set(&mut self, ctx: &Managing, is_update: bool) {
        let settings = ctx.settings().current();
        // What the machine has is the watchdog's to say; without its word nothing is done anyhow.
        if let Some(query) = &self.query
            && let Ok(view) = query.limits(&[]).await
        {
            let there: Vec<_> = view.services.iter().map(|limits| limits.service.clone()).collect();
            let mut checked = settings.check(extent(&view), &there);
            if is_update {
                checked = checked.and_then(|()| settings.check_tokens(&lending::declared(&view), &there));
            }
            if let Err(error) = checked {
                return ctx.settings().refuse(error.to_string());
            }
            self.lender.declare(&view, &settings);
        }
        if self.settings.period != settings.period {
            self.histories.clear();
        }
        self.lender.set_terms(&settings);
        self.settings = settings.as_ref().clone();
        self.left_alone.clear();
    }

    /// Looks; the time until the next look.
    async fn look(&mut self, ctx: &Managing) -> Period {
        let (is_calm, health) = match self.moved(ctx).await {
            Ok(is_calm) => (is_calm, self.trouble().map_or(Health::Ok, |reason| Health::Degraded { reason })),
            Err(reason) => (false, Health::Degraded { reason }),
        };
        if health != self.health {
            self.health = health.clone();
            ctx.health(health);
        }
        self.pace.after(is_calm, &self.settings)
    }

    /// One look, and all that follows from it; whether nothing matters. `Err`: nothing could be seen, and why.
    async fn moved(&mut self, ctx: &Managing) -> Result<bool, String> {
        let Some(query) = &self.query else { return Err(format!("it has no grant; expected {GRANT}")) };
        let seen = |error: QueryError| format!("it sees nothing: {error}; expected {GRANT}");
        // First: one that is down by this, and by what is used later has no process, has left nothing.
        let status = match self.lender.is_idle() {
            true => None,
            false => Some(query.status(&[]).await.map_err(seen)?),
        };
        let usage = query.usage(&[], false).await.map_err(seen)?;
        let view = query.limits(&[]).await.map_err(seen)?;
        self.lender.declare(&view, &self.settings);
        if let Some(status) = status {
            self.lender.look(&status, &usage);
            self.lender.period(&self.rules);
        }
        self.refused = refused(&view);
        self.find(ctx, &view);
        // The first look shows nothing: use is what lies between two.
        let Some(last) = self.last.replace(usage.clone()) else { return Ok(false) };
        let Some(rates) = usage.since(&last) else { return Ok(false) };
        let names: Vec<_> = self.in_force.keys().cloned().collect();
        let terms: BTreeMap<_, Terms> =
            names.iter().map(|name| (name.clone(), self.settings.terms(name))).collect();
        let base: BTreeMap<_, Limits> =
            names.iter().map(|name| (name.clone(), self.base(ctx, name))).collect();
        let used = look::by_name(&usage, &rates);
        let subject = |name: &ServiceName| Subject {
            terms: &terms[name],
            base: &base[name],
            usage: used.get(name).copied(),
        };
        let subjects: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), subject(name))).collect();
        let (machine, means) = (extent(&view), Means::of(&view));
        let cpu = look::cpu(machine, means, &subjects);
        let memory = look::memory(machine, means, (&last, &usage, &rates.machine), &subjects);
        let is_short = [&cpu, &memory].into_iter().any(Sight::is_short);
        let cpu = decide(&cpu, self.rules, &mut self.cpu);
        let memory = decide(&memory, self.rules, &mut self.memory);
        let moves =
            cpu.iter().map(|one| ("processor time", one)).chain(memory.iter().map(|one| ("memory", one)));
        let reasons = acts::reasons(moves);
        self.histories.note(self.samples(&used), self.pace.periods(&self.settings));
        for name in &names {
            let runs = used.contains_key(name);
            self.act(ctx, name, &base[name], runs, reasons.get(name).map(String::as_str)).await;
        }
        let has_taken = self.cpu.taken().next().or(self.memory.taken().next()).is_some();
        Ok(!is_short && !has_taken && self.lender.is_idle())
    }

    /// What is in force, by the watchdog's word; of a service that is seen for the first time also what it was let have.
    fn find(&mut self, ctx: &Managing, view: &LimitsView) {
        let services = view.services.iter().filter(|limits| limits.service != *ctx.service());
        let found: BTreeMap<_, _> = services.map(|limits| (limits.service.clone(), limits)).collect();
        self.in_force.retain(|name, _| found.contains_key(name));
        for (name, limits) in found {
            if let Some(known) = self.in_force.get_mut(&name) {
                known.limits.clone_from(&limits.limits);
                continue;
            }
            let is_stopped = ctx.state().read(|kept| kept.stopped.contains(&name));
            let target = Target { limits: limits.limits.clone(), is_frozen: limits.is_frozen, is_stopped };
            // Only what this service took is its to give back.
            if ctx.state().read(|kept| kept.before.contains_key(&name)) {
                self.in_force.insert(name.clone(), target.clone());
                let allowances = Allowances::found(&self.base(ctx, &name), &target);
                self.cpu.found(name.clone(), allowances.cpu);
                self.memory.found(name.clone(), allowances.memory);
            }
            self.in_force.insert(name, target);
        }
    }

    /// What a service is limited to when nothing is taken from it.
    fn base(&self, ctx: &Managing, name: &ServiceName) -> Limits {
        let configured = self.settings.terms(name).limits;
        let before = || ctx.state().read(|kept| kept.before.get(name).cloned());
        configured.or_else(before).unwrap_or_else(|| self.in_force[name].limits.clone())
    }

    /// Asks for what is to be otherwise.
    async fn act(
        &mut self,
        ctx: &Managing,
        name: &ServiceName,
        base: &Limits,
        runs: bool,
        reason: Option<&str>,
    ) {
        if let Some((looks, _)) = self.left_alone.get_mut(name) {
            *looks -= 1;
            if *looks > 0 {
                return;
            }
            self.left_alone.remove(name);
        }
        let allowances = Allowances { cpu: self.cpu.allowance(name), memory: self.memory.allowance(name) };
        let (now, mut target) = (self.in_force[name].clone(), allowances.over(base));
        (target.limits, _) = acts::carried(&target.limits, &self.refused, true);
        let is_configured = self.settings.terms(name).limits.is_some();
        let is_touched = is_configured || allowances != Allowances::ALL;
        if now == target && is_touched == ctx.state().read(|kept| kept.before.contains_key(name)) {
            return;
        }
        ctx.state().update(|kept| {
            if is_touched {
                kept.before.entry(name.clone()).or_insert_with(|| now.limits.clone());
            }
            if target.is_stopped {
                kept.stopped.insert(name.clone());
            }
        });
        // Before anything is taken: who comes after this process must know what to give back.
        if let Err(error) = ctx.state().save().await {
            self.leave_alone(name, error.to_string());
            return;
        }
        let reason = reason.unwrap_or("its settings").to_owned();
        match self.ask(name, &now, &target, runs, &reason).await {
            Ok(()) => {
                self.in_force.insert(name.clone(), target.clone());
                ctx.state().update(|kept| {
                    if !is_touched {
                        kept.before.remove(name);
                    }
                    if !target.is_stopped {
                        kept.stopped.remove(name);
                    }
                });
            }
            Err(error) => self.leave_alone(name, error.to_string()),
        }
    }

    async fn ask(
        &self,
        name: &ServiceName,
        now: &Target,
        target: &Target,
        runs: bool,
        reason: &str,
    ) -> Result<(), QueryError> {
        let Some(query) = &self.query else { return Ok(()) };
        let (names, why) = (std::slice::from_ref(name), Some(reason.to_owned()));
        let changes = acts::changes(&now.limits, &target.limits);
        if !changes.is_empty() {
            query.limit(name, changes, why.clone(), PATIENCE).await?;
        }
        match (now.is_frozen, target.is_frozen) {
            (false, true) if runs => drop(query.freeze(names, why, PATIENCE).await?),
            (true, false) => drop(query.thaw(names, why).await?),
            (false, _) | (true, true) => {}
        }
        match (now.is_stopped, target.is_stopped) {
            (false, true) => drop(query.stop(names, None).await?),
            (true, false) => drop(query.start(names, None).await?),
            (false, false) | (true, true) => {}
        }
        Ok(())
    }

    /// What each used, and was let have meanwhile.
    fn samples(
        &self,
        used: &BTreeMap<&ServiceName, (&ServiceUsage, &ServiceRates)>,
    ) -> BTreeMap<ServiceName, Sample> {
        let of = |(name, now): (&ServiceName, &Target)| {
            let used = used.get(name);
            let sample = Sample {
                cpu: used.and_then(|(_, rates)| rates.cpu_percent).map(look::thousandths),
                cpu_most: now.limits.get(LimitKey::Cpu),
                memory: used.and_then(|(usage, _)| usage.memory.or(usage.rss)),
                memory_most: now.limits.get(LimitKey::MemoryHigh),
                is_frozen: now.is_frozen,
            };
            (name.clone(), sample)
        };
        self.in_force.iter().map(of).collect()
    }

    fn history(&self, service: &str) -> Option<resource_manager::History> {
        self.histories.of(&service.parse().ok()?, self.settings.period.0)
    }

    fn leave_alone(&mut self, name: &ServiceName, why: String) {
        tracing::warn!(service = %name, "left alone for {LEFT_ALONE} looks: {why}");
        self.left_alone.insert(name.clone(), (LEFT_ALONE, why));
    }

    fn trouble(&self) -> Option<String> {
        let failed = self.left_alone.first_key_value();
        let failed = failed.map(|(name, (_, why))| format!("{name} can't be moved: {why}"));
        failed
            .or_else(|| self.in_force.keys().find_map(|name| self.missed(name)))
            .or_else(|| self.lender.trouble(&self.settings))
    }

    /// What its settings give a service and it can't have here.
    fn missed(&self, name: &ServiceName) -> Option<String> {
        let terms = self.settings.terms(name);
        let (_, missed) = acts::carried(&terms.limits?, &self.refused, terms.is_weighed_by_priority);
        missed.map(|missed| format!("{name}: {missed}"))
    }

    /// What each is let have, for who asks.
    fn standings(&self) -> Vec<resource_manager::Standing> {
        let of = |name: &ServiceName| resource_manager::Standing {
            service: name.to_string(),
            priority: self.settings.terms(name).priority,
            cpu: self.cpu.allowance(name).to_string(),
            memory: self.memory.allowance(name).to_string(),
        };
        self.in_force.keys().map(of).collect()
    }
}

fn decide(sight: &Sight, rules: Rules, remembered: &mut Remembered<ServiceName>) -> Vec<Move<ServiceName>> {
    let moves = sight.pool.decide(&rules, &sight.seen, sight.machine_is_short, remembered);
    for one in &moves {
        tracing::info!(service = %one.of, from = %one.from, to = %one.to, why = ?one.why, "moved");
    }
    moves
}

fn refused(view: &LimitsView) -> BTreeMap<LimitKey, String> {
    let refused = view.support.iter().filter_map(|(key, support)| match support {
        Support::Refused(why) => Some((*key, why.clone())),
        Support::Full | Support::Weaker(_) => None,
    });
    refused.collect()
}

fn extent(view: &LimitsView) -> Extent {
    Extent { cpu: view.cpu, memory: view.memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_before_there_was_anything_to_lend_is_read() {
        let kept = Kept::migrate(1, &[0, 1, 3, b'h', b'o', b'g']).unwrap();
        assert_eq!(kept.stopped.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["hog"]);
        assert!(kept.before.is_empty() && kept.lent.is_empty());
    }
}
