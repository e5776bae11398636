//! [`Lives`]: what was told of what still lives, so that it is told no other way the next time. Pure.
//!
//! A status tells ages, and what is computed from an age jitters; whoever adds counters up takes another beginning for
//! another counter. And what processes used may fall for a moment: of one that has ended, until its parent has waited for
//! it.

use std::collections::BTreeMap;

use watchdog_service::query::status::{InboxStatus, Status};
use watchdog_service::query::usage::{ServiceUsage, Stall, Usage};
use watchdog_service::{Incarnation, LaneEpoch, ServiceName};

/// What was seen of them.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    keeper: Option<(u32, u64)>,
    processes: BTreeMap<ServiceName, Process>,
    usage: BTreeMap<ServiceName, Used>,
    machine: Option<u64>,
    lanes: BTreeMap<LaneEpoch, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    incarnation: Incarnation,
    began: u64,
    cpu_ms: u64,
}

/// Counters that a cgroup keeps: they may go on with the next process, or begin again.
#[derive(Debug, Clone, Copy)]
struct Used {
    began: u64,
    counters: [Option<u64>; 8],
}

/// When things began, in nanoseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) keeper: u64,
    pub(crate) processes: BTreeMap<ServiceName, u64>,
    /// What services use is counted.
    pub(crate) usage: BTreeMap<ServiceName, u64>,
    /// The machine was started.
    pub(crate) machine: u64,
    pub(crate) lanes: BTreeMap<LaneEpoch, u64>,
}

impl Lives {
    /// What is there at this time; counters that seem to have fallen are set to what they were.
    pub(crate) fn look(
        &mut self,
        at: u64,
        status: Option<&mut Status>,
        usage: Option<&Usage>,
        inboxes: &[InboxStatus],
    ) -> Begun {
        let mut begun = Begun::default();
        if let Some(status) = status {
            let keeper = (status.watchdog.keeper_pid, began(at, status.watchdog.up_ms));
            begun.keeper = match self.keeper {
                Some((pid, began)) if pid == keeper.0 => began,
                _ => self.keeper.insert(keeper).1,
            };
            let mut seen = BTreeMap::new();
            for service in &mut status.services {
                let Some(up_ms) = service.uptime_ms else { continue };
                let incarnation = service.incarnation;
                let known =
                    self.processes.get(&service.name).filter(|known| known.incarnation == incarnation);
                let mut process =
                    known.copied().unwrap_or(Process { incarnation, began: began(at, up_ms), cpu_ms: 0 });
                if let Some(cpu_ms) = &mut service.cpu_ms {
                    process.cpu_ms = process.cpu_ms.max(*cpu_ms);
                    *cpu_ms = process.cpu_ms;
                }
                begun.processes.insert(service.name.clone(), process.began);
                seen.insert(service.name.clone(), process);
            }
            self.processes = seen;
        }
        if let Some(usage) = usage {
            begun.machine = *self.machine.get_or_insert_with(|| began(at, usage.at_us / 1000));
            let used = |service: &ServiceUsage| {
                let counters = counters(service);
                let process = begun.processes.get(&service.name).copied().unwrap_or(begun.keeper);
                let known = self.usage.get(&service.name).filter(|known| !falls(&known.counters, &counters));
                (service.name.clone(), Used { began: known.map_or(process, |known| known.began), counters })
            };
            let seen: BTreeMap<_, _> = usage.services.iter().map(used).collect();
            begun.usage = seen.iter().map(|(name, used)| (name.clone(), used.began)).collect();
            self.usage = seen;
        }
        let lanes = inboxes.iter().flat_map(|inbox| &inbox.lanes);
        let began = |epoch| self.lanes.get(epoch).copied();
        begun.lanes = lanes
            .map(|lane| (lane.lane, began(&lane.lane).unwrap_or_else(|| self::began(at, lane.age_ms))))
            .collect();
        self.lanes.clone_from(&begun.lanes);
        begun
    }
}

fn counters(usage: &ServiceUsage) -> [Option<u64>; 8] {
    let some = |stall: Option<Stall>| stall.map(|stall| stall.some_us);
    [
        usage.waited_us,
        usage.read_bytes,
        usage.written_bytes,
        usage.throttled.map(|throttled| throttled.us),
        usage.oom_kills,
        some(usage.pressure.cpu),
        some(usage.pressure.memory),
        some(usage.pressure.io),
    ]
}

fn falls(before: &[Option<u64>; 8], now: &[Option<u64>; 8]) -> bool {
    before.iter().zip(now).any(|(before, now)| before.zip(*now).is_some_and(|(before, now)| now < before))
}

/// To the second, so that after a restart of this service it is most often the same.
fn began(at: u64, age_ms: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    at.saturating_sub(age_ms.saturating_mul(1_000_000)) / SECOND * SECOND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::sample;

    const AT: u64 = 1_764_474_000_900_000_000;

    fn look(lives: &mut Lives, at: u64, incarnation: u64, cpu_ms: u64, ages_ms: u64) -> (Begun, u64) {
        let mut status = sample::status(&["a"]);
        status.watchdog.up_ms = ages_ms;
        let service = &mut status.services[0];
        service.incarnation = Incarnation::from_stored(incarnation);
        (service.uptime_ms, service.cpu_ms) = (Some(ages_ms), Some(cpu_ms));
        let mut inbox = sample::inbox("a", &["b"]);
        inbox.lanes[0].age_ms = ages_ms;
        let begun = lives.look(at, Some(&mut status), None, &[inbox]);
        (begun, status.services[0].cpu_ms.unwrap())
    }

    #[test]
    fn what_lives_began_when_it_was_first_seen_to_have_whatever_clocks_say() {
        let mut lives = Lives::default();
        let (first, _) = look(&mut lives, AT, 1, 0, 5_800);
        assert_eq!(first.keeper, 1_764_473_995_000_000_000);
        assert_eq!((first.processes.len(), first.lanes.len()), (1, 1));
        // A clock that is set, and ages that do not go with it.
        let (second, _) = look(&mut lives, AT + 3_600_000_000_000, 1, 0, 6_900);
        assert_eq!(second, first);
        let (third, _) = look(&mut lives, AT, 2, 0, 100);
        assert_eq!((third.keeper, &third.lanes), (first.keeper, &first.lanes));
        assert_eq!(third.processes.values().copied().collect::<Vec<_>>(), [1_764_474_000_000_000_000]);
    }

    #[test]
    fn what_a_process_has_used_never_falls_until_the_next_one_begins() {
        let mut lives = Lives::default();
        let used = [(1, 70), (1, 40), (1, 90), (2, 10)]
            .map(|(incarnation, cpu_ms)| look(&mut lives, AT, incarnation, cpu_ms, 1000).1);
        assert_eq!(used, [70, 70, 90, 10]);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut lives = Lives::default();
        look(&mut lives, AT, 1, 0, 1000);
        let begun = lives.look(AT, Some(&mut sample::status(&[])), Some(&sample::usage(&[])), &[]);
        assert_eq!((begun.processes.len(), begun.usage.len(), begun.lanes.len()), (0, 0, 0));
        assert_eq!((lives.processes.len(), lives.usage.len(), lives.lanes.len()), (0, 0, 0));
    }

    #[test]
    fn what_a_cgroup_counts_goes_on_with_the_next_process_unless_it_falls() {
        let mut lives = Lives::default();
        let mut look = |incarnation: u64, up_ms: u64, read: u64, at_us: u64| {
            let (mut status, mut usage) = (sample::status(&["a"]), sample::usage(&["a"]));
            let service = &mut status.services[0];
            (service.incarnation, service.uptime_ms) = (Incarnation::from_stored(incarnation), Some(up_ms));
            usage.services[0].read_bytes = Some(read);
            usage.at_us = at_us;
            let begun = lives.look(AT, Some(&mut status), Some(&usage), &[]);
            (AT - begun.usage.values().next().unwrap(), AT - begun.machine)
        };
        // From the whole second on.
        let ages = |seconds: u64, machine: u64| {
            (seconds * 1_000_000_000 + 900_000_000, machine * 1_000_000_000 + 900_000_000)
        };
        assert_eq!(look(1, 50_000, 7, 80_000_000), ages(50, 80));
        assert_eq!(look(2, 3_000, 9, 81_500_000), ages(50, 80));
        assert_eq!(look(3, 2_000, 1, 82_000_000), ages(2, 80));
    }
}
