//! What the machine uses.

use std::path::PathBuf;

use nix::unistd::{SysconfVar, sysconf};
use watchdog_protocol::usage::{MachineUsage, Pressure, Stall};

use super::kept::{Kept, Room};
use super::told;
use crate::processes::cgroup::Surroundings;
use crate::processes::proc::ticks;

/// The files that tell it.
#[derive(Debug)]
pub(super) struct Machine {
    stat: Kept,
    load: Kept,
    memory: Kept,
    pressure: [Kept; 3],
    around: Surroundings,
}

impl Machine {
    /// As narrow as what is around us.
    pub(super) fn within(around: Surroundings) -> Self {
        Self {
            stat: Kept::default(),
            load: Kept::default(),
            memory: Kept::default(),
            pressure: Default::default(),
            around,
        }
    }

    pub(super) fn read(&mut self, room: &mut Room, buffer: &mut [u8]) -> MachineUsage {
        let mut told = |kept: &mut Kept, path: &str, numbers: &mut dyn FnMut(&[u8])| {
            if let Ok(text) = kept.read(room, buffer, || PathBuf::from(path)) {
                numbers(text);
            }
        };
        let (mut busy_us, mut load, mut memory) = (None, None, [None; 4]);
        told(&mut self.stat, "/proc/stat", &mut |text| busy_us = busy(text));
        told(&mut self.load, "/proc/loadavg", &mut |text| load = average(text));
        told(&mut self.memory, "/proc/meminfo", &mut |text| {
            let bytes = |key: &str| told::keyed(text, key).map(|kib| kib * 1024);
            memory = ["MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:"].map(bytes);
        });
        let mut pressure: [Option<Stall>; 3] = [None; 3];
        for ((kept, stall), what) in self.pressure.iter_mut().zip(&mut pressure).zip(["cpu", "memory", "io"])
        {
            told(kept, &format!("/proc/pressure/{what}"), &mut |text| *stall = told::stall(text));
        }
        let [cpu, of_memory, io] = pressure;
        let [mut memory, mut available, swap, swap_free] = memory;
        if let Some(narrower) = memory.and_then(|all| self.around.memory(all)) {
            memory = Some(narrower.limit);
            available = available.map(|available| available.min(narrower.available));
        }
        let processors = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
        MachineUsage {
            processors: processors.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
            busy_us,
            load,
            memory,
            available,
            swap,
            swap_free,
            pressure: Pressure { cpu, memory: of_memory, io },
        }
    }

    pub(super) fn close(&mut self, room: &mut Room) {
        let Self { stat, load, memory, pressure, around: _ } = self;
        [stat, load, memory].into_iter().chain(pressure).for_each(|kept| kept.close(room));
    }
}

/// The first line of `/proc/stat`: neither idle, nor idle while a disk works, nor taken by another machine on the same
/// host. What guests use is in `user` and `nice` already.
fn busy(text: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').next()?.strip_prefix(b"cpu ")?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = told::numbers(line)?[..] else {
        return None;
    };
    u64::try_from(ticks(user + nice + system + irq + softirq).as_micros()).ok()
}

/// `0.42 0.36 0.30 2/88 12083`
fn average(text: &[u8]) -> Option<[f64; 3]> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let mut next = || words.next()?.parse().ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_busy_when_it_is_not_idle() {
        let stat = b"cpu  200 10 30 9999 8888 40 20 7777 150 10\ncpu0 1 2 3\nintr 5\n";
        assert_eq!(busy(stat), Some(3_000_000));
        for odd in [&b""[..], b"cpu", b"cpu  1 2 3 4 5 6\n", b"cpu0 1 2 3 4 5 6 7\n", b"cpu  a b c d e f g"] {
            assert_eq!(busy(odd), None, "{odd:?}");
        }
        assert_eq!(average(b"0.42 1.36 20.30 2/88 12083\n"), Some([0.42, 1.36, 20.3]));
        assert_eq!(average(b"0.42 1.36"), None);
    }

    #[test]
    fn this_machine_tells_what_every_linux_tells() {
        let (mut room, mut buffer) = (Room::of(8), vec![0; 8192]);
        let mut machine = Machine::within(Surroundings::find());
        let first = machine.read(&mut room, &mut buffer);
        let second = machine.read(&mut room, &mut buffer);
        assert!(second.busy_us.unwrap() >= first.busy_us.unwrap() && first.busy_us.unwrap() > 0);
        assert!(first.processors > 0 && first.load.is_some());
        assert!(first.memory.unwrap() > first.available.unwrap());
        assert!(first.swap.unwrap() >= first.swap_free.unwrap());
    }
}
