//! From what each is let have to what is asked of the watchdog: pure.

use std::collections::BTreeMap;

use resource_manager::policy::{Allowance, Move, Why};
use watchdog_service::ServiceName;
use watchdog_service::query::resources::{LimitChange, LimitKey, Limits};

/// What is to hold for one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Target {
    pub(crate) limits: Limits,
    pub(crate) is_frozen: bool,
    pub(crate) is_stopped: bool,
}

/// What one is let have of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowances {
    pub(crate) cpu: Allowance,
    pub(crate) memory: Allowance,
}

impl Allowances {
    pub(crate) const ALL: Self = Self { cpu: Allowance::Free, memory: Allowance::Free };

    /// What it comes to, for one that is limited to `base` when nothing is taken from it.
    pub(crate) fn over(self, base: &Limits) -> Target {
        let mut limits = base.clone();
        let least = |key: LimitKey, cap: u64| base.get(key).map_or(cap, |limit| limit.min(cap));
        if self.cpu < Allowance::Free {
            limits.set(LimitKey::CpuWeight, Some(1));
        }
        if let Allowance::Capped(cap) = self.cpu {
            limits.set(LimitKey::Cpu, Some(least(LimitKey::Cpu, cap)));
        }
        if let Allowance::Capped(cap) = self.memory {
            limits.set(LimitKey::MemoryHigh, Some(least(LimitKey::MemoryHigh, cap)));
        }
        let lowest = self.cpu.min(self.memory);
        Target { limits, is_frozen: lowest == Allowance::Frozen, is_stopped: lowest == Allowance::Stopped }
    }

    /// What was let have when this was in force: as far as it shows.
    pub(crate) fn found(base: &Limits, in_force: &Target) -> Self {
        let lowered = |key: LimitKey| {
            in_force.limits.get(key).filter(|now| base.get(key).is_none_or(|base| base > *now))
        };
        let cpu = match (lowered(LimitKey::Cpu), lowered(LimitKey::CpuWeight)) {
            (Some(cap), _) => Allowance::Capped(cap),
            (None, Some(1)) => Allowance::Last,
            (None, _) => Allowance::Free,
        };
        let memory = lowered(LimitKey::MemoryHigh).map_or(Allowance::Free, Allowance::Capped);
        match (in_force.is_stopped, in_force.is_frozen) {
            (true, _) => Self { cpu, memory: Allowance::Stopped },
            (false, true) => Self { cpu, memory: Allowance::Frozen },
            (false, false) => Self { cpu, memory },
        }
    }
}

/// The limits of a service that can be had on this machine; and the first one it was given and can't have.
pub(crate) fn carried(
    limits: &Limits,
    refused: &BTreeMap<LimitKey, String>,
    is_weighed_by_priority: bool,
) -> (Limits, Option<String>) {
    let is_missed = |key: &LimitKey| *key != LimitKey::CpuWeight || !is_weighed_by_priority;
    let missed = limits
        .0
        .keys()
        .filter(|key| is_missed(key))
        .find_map(|key| refused.get(key).map(|why| format!("{key} can't be limited here: {why}")));
    let carried = limits.0.iter().filter(|(key, _)| !refused.contains_key(key));
    (Limits(carried.map(|(key, value)| (*key, *value)).collect()), missed)
}

/// The changes from what is in force to what is to be.
pub(crate) fn changes(in_force: &Limits, target: &Limits) -> Vec<LimitChange> {
    let changed = LimitKey::ALL.into_iter().filter(|key| in_force.get(*key) != target.get(*key));
    changed.map(|key| LimitChange { key, value: target.get(key) }).collect()
}

/// Why, in words, for each service that something was moved for.
pub(crate) fn reasons<'a>(
    moves: impl IntoIterator<Item = (&'static str, &'a Move<ServiceName>)>,
) -> BTreeMap<ServiceName, String> {
    let mut reasons: BTreeMap<ServiceName, String> = BTreeMap::new();
    for (what, one) in moves {
        let reason = match &one.why {
            Why::ShortIs(Some(who)) => format!("{who} is short of {what}"),
            Why::ShortIs(None) => format!("the machine is short of {what}"),
            Why::Unused(_) => format!("nobody above it is short of {what}"),
            Why::Configured => "it is guaranteed more".to_owned(),
        };
        let told = reasons.entry(one.of.clone()).or_default();
        *told = if told.is_empty() { reason } else { format!("{told}, {reason}") };
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(pairs: &[(LimitKey, u64)]) -> Limits {
        Limits(pairs.iter().copied().collect())
    }

    #[test]
    fn what_is_let_have_narrows_what_is_configured_and_is_read_back_from_it() {
        let base = limits(&[(LimitKey::Cpu, 1000), (LimitKey::CpuWeight, 6), (LimitKey::Nofile, 64)]);
        let free = Allowances::ALL;
        assert_eq!(free.over(&base), Target { limits: base.clone(), ..Target::default() });
        for (allowances, shown) in [
            (Allowances { cpu: Allowance::Last, ..free }, "cpu=100% cpu_weight=1 nofile=64"),
            (Allowances { cpu: Allowance::Capped(300), ..free }, "cpu=30% cpu_weight=1 nofile=64"),
            (
                Allowances { memory: Allowance::Capped(1 << 30), ..free },
                "cpu=100% cpu_weight=6 memory_high=1GiB nofile=64",
            ),
        ] {
            let target = allowances.over(&base);
            assert_eq!(target.limits.to_string(), shown);
            assert_eq!(Allowances::found(&base, &target), allowances);
        }
        // A cap above what is configured changes nothing.
        let wide = Allowances { cpu: Allowance::Capped(1500), ..free }.over(&base);
        assert_eq!(wide.limits.to_string(), "cpu=100% cpu_weight=1 nofile=64");
        let frozen = Allowances { memory: Allowance::Frozen, ..free };
        assert!(frozen.over(&base).is_frozen);
        assert_eq!(Allowances::found(&base, &frozen.over(&base)), frozen);
        let stopped = Allowances { cpu: Allowance::Frozen, memory: Allowance::Stopped }.over(&base);
        assert!(stopped.is_stopped && !stopped.is_frozen);
    }

    #[test]
    fn what_can_not_be_had_here_is_left_out_and_told_if_somebody_asked_for_it() {
        let wanted = limits(&[(LimitKey::CpuWeight, 6), (LimitKey::IoWeight, 10), (LimitKey::Nofile, 64)]);
        let why = |key| (key, "no such thing".to_owned());
        let refused = BTreeMap::from([why(LimitKey::CpuWeight)]);
        let (carried, missed) = super::carried(&wanted, &refused, true);
        assert_eq!((carried.to_string().as_str(), missed), ("io_weight=10 nofile=64", None));
        let (_, missed) = super::carried(&wanted, &refused, false);
        assert_eq!(missed.as_deref(), Some("cpu_weight can't be limited here: no such thing"));
        let refused = BTreeMap::from([why(LimitKey::CpuWeight), why(LimitKey::IoWeight)]);
        let (carried, missed) = super::carried(&wanted, &refused, true);
        assert_eq!(carried.to_string(), "nofile=64");
        assert_eq!(missed.as_deref(), Some("io_weight can't be limited here: no such thing"));
    }

    #[test]
    fn only_what_differs_is_changed() {
        let before = limits(&[(LimitKey::Cpu, 1000), (LimitKey::Nofile, 64)]);
        let after = limits(&[(LimitKey::Cpu, 500), (LimitKey::MemoryHigh, 1 << 30)]);
        let told: Vec<_> = changes(&before, &after).iter().map(|one| (one.key, one.value)).collect();
        assert_eq!(
            told,
            [(LimitKey::Cpu, Some(500)), (LimitKey::MemoryHigh, Some(1 << 30)), (LimitKey::Nofile, None)]
        );
        assert_eq!(changes(&before, &before), []);
    }
}
