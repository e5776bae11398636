//! What services and the machine use. Counters only grow, so that a reader makes rates of two readings; what the kernel
//! does not tell, or not to us, is `None`, and never a 0.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Incarnation, ServiceName};

/// One reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// When it was begun: microseconds since the machine was started, time asleep left out.
    pub at_us: u64,
    /// Services, programs and tasks: all by name, else as they were asked for.
    pub services: Vec<ServiceUsage>,
    /// The machine they run on.
    pub machine: MachineUsage,
}

/// What all processes of one service use. Its counters go on growing within an incarnation; another one may begin again
/// at 0, or go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUsage {
    /// Whose.
    pub name: ServiceName,
    /// Its newest process.
    pub incarnation: Incarnation,
    /// Processes that live.
    pub processes: u64,
    /// Their threads.
    pub threads: Option<u64>,
    /// Processor time, of processes that have ended too, in microseconds. Without a cgroup, what a process used between
    /// the last reading and its end is counted only if its parent waits for it.
    pub cpu_us: Option<u64>,
    /// Time its threads were ready to run and were not let, in microseconds; of those that lived at a reading.
    pub waited_us: Option<u64>,
    /// Resident memory in bytes. What processes share counts for each of them.
    pub rss: Option<u64>,
    /// Resident memory in bytes, what is shared divided by those who share it. Only when asked for.
    pub pss: Option<u64>,
    /// Memory that was moved to the disk, in bytes.
    pub swap: Option<u64>,
    /// Memory charged to its cgroup in bytes, caches of files included; where it has one that counts it.
    pub memory: Option<u64>,
    /// Bytes read from disks, not from caches.
    pub read_bytes: Option<u64>,
    /// Bytes written that go to disks.
    pub written_bytes: Option<u64>,
    /// Open descriptors. On Linux before 6.2 tables of more than 1,000 are counted only when `pss` is asked for.
    pub descriptors: Option<u64>,
    /// How it was held back by its limit of processor time; where its cgroup has one.
    pub throttled: Option<Throttled>,
    /// Processes that the kernel ended for lack of memory; where its cgroup counts them.
    pub oom_kills: Option<u64>,
    /// What it stood still for; where it has a cgroup.
    pub pressure: Pressure,
    /// It is frozen, or all its processes are halted.
    pub is_frozen: bool,
}

/// Held back by a limit of processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttled {
    /// Periods in which it was.
    pub count: u64,
    /// For how long in all, in microseconds, added up over processors.
    pub us: u64,
}

/// Time in which work stood still for want of something: the kernel's pressure stall information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// For want of a processor.
    pub cpu: Option<Stall>,
    /// For want of memory.
    pub memory: Option<Stall>,
    /// For the disks.
    pub io: Option<Stall>,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Time in which at least one thread waited.
    pub some_us: u64,
    /// Time in which all that had something to do waited.
    pub full_us: u64,
}

/// What the whole machine uses, whoever uses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineUsage {
    /// Processors at work.
    pub processors: u32,
    /// Time processors were busy, added up, in microseconds.
    pub busy_us: Option<u64>,
    /// Threads that ran or waited for a processor or a disk, on average over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Memory in bytes: that of the machine, or of a cgroup around the watchdog that has less.
    pub memory: Option<u64>,
    /// Of that, what could be had without swapping.
    pub available: Option<u64>,
    /// Swap space in bytes.
    pub swap: Option<u64>,
    /// Of that, what is free.
    pub swap_free: Option<u64>,
    /// What stood still, anywhere on the machine.
    pub pressure: Pressure,
}

/// What a service used between two readings, per second. `None` where one of the two does not tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRates {
    /// Whose.
    pub name: ServiceName,
    /// Its process is another one than in the first reading: what is known of the time between is a lower bound.
    pub restarted: bool,
    /// Of one processor, in percent.
    pub cpu_percent: Option<f64>,
    /// Its threads that were ready and were not let, on average.
    pub waiting: Option<f64>,
    /// Bytes read from disks.
    pub read: Option<f64>,
    /// Bytes that go to disks.
    pub written: Option<f64>,
    /// The share of time its limit held it back, in percent, added up over processors.
    pub throttled_percent: Option<f64>,
    /// The share of time it stood still.
    pub stalled: Stalled,
}

/// Of the time between two readings, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stalled {
    /// At least one thread waited for a processor.
    pub cpu_some: Option<f64>,
    /// At least one waited for memory.
    pub memory_some: Option<f64>,
    /// All waited for memory.
    pub memory_full: Option<f64>,
    /// At least one waited for the disks.
    pub io_some: Option<f64>,
    /// All waited for the disks.
    pub io_full: Option<f64>,
}

impl Stalled {
    /// What at least one thread waited for longest, and how long.
    pub fn worst(&self) -> Option<(&'static str, f64)> {
        let all = [("cpu", self.cpu_some), ("memory", self.memory_some), ("io", self.io_some)];
        let known = all.into_iter().filter_map(|(what, percent)| Some((what, percent?)));
        known.reduce(|worst, next| if next.1 > worst.1 { next } else { worst })
    }
}

/// The same of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineRates {
    /// Busy, of all processors, in percent of one.
    pub cpu_percent: Option<f64>,
    /// The share of time it stood still.
    pub stalled: Stalled,
}

/// What lies between two readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The time between them, in microseconds.
    pub span_us: u64,
    /// Those of the second reading that were in the first, as they are there.
    pub services: Vec<ServiceRates>,
    /// Of the machine.
    pub machine: MachineRates,
}

impl Usage {
    /// What was used since an older reading. `None`: it is not older.
    pub fn since(&self, before: &Self) -> Option<Rates> {
        let span_us = self.at_us.checked_sub(before.at_us).filter(|span| *span > 0)?;
        let known: HashMap<_, _> = before.services.iter().map(|then| (&then.name, then)).collect();
        let of = |now: &ServiceUsage| Some(now.since(known.get(&now.name)?, span_us));
        let services = self.services.iter().filter_map(of).collect();
        let (now, then) = (&self.machine, &before.machine);
        let between = Between { span_us, restarted: false };
        let machine = MachineRates {
            cpu_percent: between.percent(now.busy_us, then.busy_us),
            stalled: between.stalled(&now.pressure, &then.pressure),
        };
        Some(Rates { span_us, services, machine })
    }
}

impl ServiceUsage {
    /// What it used since an older reading of it, which was so long ago.
    pub fn since(&self, before: &Self, span_us: u64) -> ServiceRates {
        let between = Between { span_us, restarted: self.incarnation != before.incarnation };
        let waited = between.percent(self.waited_us, before.waited_us);
        let throttled = |it: &Self| it.throttled.map(|throttled| throttled.us);
        ServiceRates {
            name: self.name.clone(),
            restarted: between.restarted,
            cpu_percent: between.percent(self.cpu_us, before.cpu_us),
            waiting: waited.map(|percent| percent / 100.0),
            read: between.rate(self.read_bytes, before.read_bytes),
            written: between.rate(self.written_bytes, before.written_bytes),
            throttled_percent: between.percent(throttled(self), throttled(before)),
            stalled: between.stalled(&self.pressure, &before.pressure),
        }
    }
}

/// Two readings of one counter.
struct Between {
    span_us: u64,
    restarted: bool,
}

impl Between {
    /// Never negative, and never more than there was: a counter of a new process that is below the old one's began again
    /// at 0, and all it shows is of the time between; one that is above may have gone on.
    fn grown(&self, now: Option<u64>, then: Option<u64>) -> Option<u64> {
        let (now, then) = (now?, then?);
        Some(if self.restarted && now < then { now } else { now.saturating_sub(then) })
    }

    fn rate(&self, now: Option<u64>, then: Option<u64>) -> Option<f64> {
        self.grown(now, then).map(|grown| grown as f64 * 1e6 / self.span_us as f64)
    }

    /// Of counters in microseconds.
    fn percent(&self, now: Option<u64>, then: Option<u64>) -> Option<f64> {
        self.rate(now, then).map(|rate| rate / 1e4)
    }

    fn stalled(&self, now: &Pressure, then: &Pressure) -> Stalled {
        let some = |now: Option<Stall>, then: Option<Stall>| {
            self.percent(now.map(|stall| stall.some_us), then.map(|stall| stall.some_us))
        };
        let full = |now: Option<Stall>, then: Option<Stall>| {
            self.percent(now.map(|stall| stall.full_us), then.map(|stall| stall.full_us))
        };
        Stalled {
            cpu_some: some(now.cpu, then.cpu),
            memory_some: some(now.memory, then.memory),
            memory_full: full(now.memory, then.memory),
            io_some: some(now.io, then.io),
            io_full: full(now.io, then.io),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(incarnation: u64, cpu_us: Option<u64>) -> ServiceUsage {
        ServiceUsage {
            name: "counter".parse().unwrap(),
            incarnation: Incarnation::from_stored(incarnation),
            processes: 1,
            threads: Some(2),
            cpu_us,
            waited_us: Some(0),
            rss: None,
            pss: None,
            swap: None,
            memory: None,
            read_bytes: Some(4096),
            written_bytes: None,
            descriptors: None,
            throttled: Some(Throttled { count: 3, us: 1_000 }),
            oom_kills: None,
            pressure: Pressure { cpu: Some(Stall { some_us: 10, full_us: 0 }), ..Pressure::default() },
            is_frozen: false,
        }
    }

    fn reading(at_us: u64, services: Vec<ServiceUsage>) -> Usage {
        let machine = MachineUsage {
            processors: 2,
            busy_us: Some(at_us),
            load: None,
            memory: None,
            available: None,
            swap: None,
            swap_free: None,
            pressure: Pressure::default(),
        };
        Usage { at_us, services, machine }
    }

    #[test]
    fn two_readings_are_rates_by_the_second() {
        let then = reading(1_000_000, vec![service(1, Some(100_000))]);
        let now = ServiceUsage {
            waited_us: Some(1_000_000),
            read_bytes: Some(4096 + 8192),
            throttled: Some(Throttled { count: 5, us: 501_000 }),
            pressure: Pressure { cpu: Some(Stall { some_us: 200_010, full_us: 0 }), ..Pressure::default() },
            ..service(1, Some(3_100_000))
        };
        let rates = reading(3_000_000, vec![now]).since(&then).unwrap();
        assert_eq!(rates.span_us, 2_000_000);
        assert_eq!(rates.machine.cpu_percent, Some(100.0));
        let counter = &rates.services[0];
        assert_eq!((counter.cpu_percent, counter.waiting), (Some(150.0), Some(0.5)));
        assert_eq!((counter.read, counter.written), (Some(4096.0), None));
        assert_eq!((counter.throttled_percent, counter.stalled.worst()), (Some(25.0), Some(("cpu", 10.0))));
        assert_eq!(counter.stalled.io_full, None);
        assert!(!counter.restarted);
    }

    #[test]
    fn no_rate_is_negative_whatever_a_restart_did_to_the_counters() {
        let percent = |then: ServiceUsage, now: ServiceUsage| {
            let rates = reading(1_000_000, vec![now]).since(&reading(0, vec![then])).unwrap();
            (rates.services[0].cpu_percent, rates.services[0].restarted)
        };
        // It began at 0, and all of it is of this second.
        assert_eq!(percent(service(1, Some(900_000)), service(2, Some(500_000))), (Some(50.0), true));
        // It went on.
        assert_eq!(percent(service(1, Some(900_000)), service(2, Some(1_000_000))), (Some(10.0), true));
        // Another core knows less of the same process.
        assert_eq!(percent(service(2, Some(900_000)), service(2, Some(800_000))), (Some(0.0), false));
        assert_eq!(percent(service(2, None), service(2, Some(800_000))), (None, false));
    }

    #[test]
    fn there_is_nothing_between_a_reading_and_itself_and_of_one_that_came_later() {
        let then = reading(5, vec![]);
        assert_eq!(then.since(&then), None);
        assert_eq!(reading(4, vec![]).since(&then), None);
        let new = reading(10, vec![service(1, Some(5))]).since(&then).unwrap();
        assert_eq!(new.services, []);
    }
}
