//! From two readings of what is used to what the policy is asked: pure.

use std::collections::BTreeMap;

use resource_manager::policy::{Party, Pool, Seen};
use watchdog_service::ServiceName;
use watchdog_service::query::resources::{LimitKey, Limits, LimitsView, Support};
use watchdog_service::query::usage::{MachineRates, Rates, ServiceRates, ServiceUsage, Usage};

use crate::settings::{Extent, Terms};

/// Hundredths of the time in which at least one thread of a service waited, from which on it is short. One that shares a
/// processor in good order waits less.
const WAITS: f64 = 10.0;

/// The same of one that has less than it is guaranteed.
const WAITS_BELOW_GUARANTEE: f64 = 2.0;

/// The machine is short of memory when so many hundredths of it are left, or all that runs stood still for so many
/// hundredths of the time.
const LEFT: u64 = 8;
const STANDS_STILL: f64 = 5.0;

/// It is also short when fewer hundredths are left than this, and those will be gone in so many periods if it goes on like
/// that: a hog is not stopped in the last one.
const NEARLY_LEFT: u64 = 30;
const SOON: u64 = 12;

/// A limit binds from so many hundredths of it on: what is short because of it is meant to be.
const BINDS: f64 = 95.0;

/// The smallest amounts that are worth a move.
const CPU_STEP: u64 = 20;
const MEMORY_STEP: u64 = 16 << 20;

/// What was seen of one resource.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) pool: Pool<ServiceName>,
    pub(crate) seen: BTreeMap<ServiceName, Seen>,
    pub(crate) machine_is_short: bool,
}

impl Sight {
    /// Whether anybody is.
    pub(crate) fn is_short(&self) -> bool {
        self.machine_is_short || self.seen.values().any(|seen| seen.is_short)
    }
}

/// How far what the policy may do carries on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Means {
    weighs: bool,
    freezes: bool,
}

impl Means {
    pub(crate) fn of(view: &LimitsView) -> Self {
        let is_had = |support: &Support| !matches!(support, Support::Refused(_));
        Self {
            weighs: view.support.get(&LimitKey::CpuWeight).is_some_and(is_had),
            freezes: is_had(&view.freeze),
        }
    }
}

/// One service, as far as it matters here.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) terms: &'a Terms,
    /// What it is limited to when nothing is taken from it.
    pub(crate) base: &'a Limits,
    /// What it used between two readings; `None`: it does not run.
    pub(crate) usage: Option<(&'a ServiceUsage, &'a ServiceRates)>,
}

/// Processor time, in thousandths of a processor.
pub(crate) fn cpu(machine: Extent, means: Means, subjects: &BTreeMap<ServiceName, Subject<'_>>) -> Sight {
    let party = |subject: &Subject<'_>| Party {
        priority: subject.terms.priority,
        guaranteed: subject.terms.guaranteed.cpu,
        may_be_last: means.weighs,
        may_freeze: means.freezes && subject.terms.may_freeze,
        // One that stands still uses none: to stop it too would give nobody more.
        may_stop: subject.terms.may_stop && !(means.freezes && subject.terms.may_freeze),
    };
    let seen = |subject: &Subject<'_>| {
        let (_, rates) = subject.usage?;
        let used = thousandths(rates.cpu_percent?);
        let is_at_its_limit = subject.base.get(LimitKey::Cpu).is_some_and(|limit| binds(used, limit));
        let is_below = used < subject.terms.guaranteed.cpu;
        let least = if is_below { WAITS_BELOW_GUARANTEE } else { WAITS };
        let waits = rates.stalled.cpu_some.or(rates.waiting.map(|threads| threads * 100.0)).unwrap_or(0.0);
        Some(Seen { used, is_short: waits >= least && !is_at_its_limit })
    };
    Sight {
        pool: pool(machine.cpu, CPU_STEP, subjects, party),
        seen: all(subjects, seen),
        machine_is_short: false,
    }
}

/// Memory, in bytes.
pub(crate) fn memory(
    machine: Extent,
    means: Means,
    (before, usage, rates): (&Usage, &Usage, &MachineRates),
    subjects: &BTreeMap<ServiceName, Subject<'_>>,
) -> Sight {
    let party = |subject: &Subject<'_>| Party {
        priority: subject.terms.priority,
        guaranteed: subject.terms.guaranteed.memory,
        may_be_last: false,
        may_freeze: means.freezes && subject.terms.may_freeze,
        may_stop: subject.terms.may_stop,
    };
    let seen = |subject: &Subject<'_>| {
        let (usage, rates) = subject.usage?;
        let used = usage.memory.or(usage.rss)?;
        let is_at_its_limit = subject.base.get(LimitKey::MemoryHigh).is_some_and(|limit| binds(used, limit));
        let waits = rates.stalled.memory_some.unwrap_or(0.0);
        Some(Seen { used, is_short: waits >= WAITS && !is_at_its_limit })
    };
    let left = usage.machine.available;
    let is_nearly_used_up = left.is_some_and(|left| left < machine.memory / 100 * LEFT);
    let will_be_used_up = before.machine.available.zip(left).is_some_and(|(before, left)| {
        left < machine.memory / 100 * NEARLY_LEFT && left < before.saturating_sub(left).saturating_mul(SOON)
    });
    Sight {
        pool: pool(machine.memory, MEMORY_STEP, subjects, party),
        seen: all(subjects, seen),
        machine_is_short: is_nearly_used_up
            || will_be_used_up
            || rates.stalled.memory_full.is_some_and(|percent| percent >= STANDS_STILL),
    }
}

/// The rates of each service, by name.
pub(crate) fn by_name<'a>(
    usage: &'a Usage,
    rates: &'a Rates,
) -> BTreeMap<&'a ServiceName, (&'a ServiceUsage, &'a ServiceRates)> {
    let rates: BTreeMap<_, _> = rates.services.iter().map(|rates| (&rates.name, rates)).collect();
    let runs = usage.services.iter().filter(|usage| usage.processes > 0);
    runs.filter_map(|usage| Some((&usage.name, (usage, *rates.get(&usage.name)?)))).collect()
}

fn pool(
    total: u64,
    step: u64,
    subjects: &BTreeMap<ServiceName, Subject<'_>>,
    party: impl Fn(&Subject<'_>) -> Party,
) -> Pool<ServiceName> {
    Pool {
        total,
        step,
        floor: step,
        parties: subjects.iter().map(|(name, subject)| (name.clone(), party(subject))).collect(),
    }
}

fn all(
    subjects: &BTreeMap<ServiceName, Subject<'_>>,
    seen: impl Fn(&Subject<'_>) -> Option<Seen>,
) -> BTreeMap<ServiceName, Seen> {
    subjects.iter().filter_map(|(name, subject)| Some((name.clone(), seen(subject)?))).collect()
}

fn binds(used: u64, limit: u64) -> bool {
    used as f64 >= limit as f64 * BINDS / 100.0
}

/// Of percent of one processor.
pub(crate) fn thousandths(percent: f64) -> u64 {
    (percent * 10.0).round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use watchdog_service::query::usage::{MachineUsage, Pressure, Stalled};

    use super::*;

    const MACHINE: Extent = Extent { cpu: 2000, memory: 1000 << 20 };

    fn with(available: u64) -> Usage {
        let machine = MachineUsage {
            processors: 2,
            busy_us: None,
            load: None,
            memory: Some(MACHINE.memory),
            available: Some(available << 20),
            swap: None,
            swap_free: None,
            pressure: Pressure::default(),
        };
        Usage { at_us: 0, services: Vec::new(), machine }
    }

    #[test]
    fn the_machine_is_short_of_memory_when_little_is_left_or_soon_will_be() {
        let means = Means { weighs: true, freezes: true };
        let is_short = |before: u64, left: u64, stands_still: f64| {
            let stalled = Stalled { memory_full: Some(stands_still), ..Stalled::default() };
            let rates = MachineRates { cpu_percent: None, stalled };
            memory(MACHINE, means, (&with(before), &with(left), &rates), &BTreeMap::new()).machine_is_short
        };
        assert!(!is_short(500, 500, 4.9));
        assert!(is_short(500, 500, 5.0), "all stand still");
        assert!(is_short(79, 79, 0.0), "less than eight hundredths are left");
        assert!(!is_short(90, 90, 0.0) && !is_short(70, 90, 0.0), "it does not fall");
        assert!(is_short(220, 200, 0.0) && !is_short(215, 200, 0.0), "ten periods, and thirteen");
        assert!(!is_short(900, 310, 0.0), "there is plenty, however fast it falls");
    }
}
