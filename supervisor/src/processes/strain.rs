//! What the host asks of a service: how long its threads ran and waited, and how long the machine stood still.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::cgroup::Cgroup;
use super::proc::Process;

/// Counters that only grow, and two states of now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strain {
    /// Time its threads ran.
    pub ran: Duration,
    /// Time its threads were ready to run and were not let.
    pub waited: Duration,
    /// One of its threads runs, or is ready to.
    pub queued: bool,
    /// One of its processes is in a wait that no signal ends.
    pub blocked: bool,
    /// Its cgroup is frozen.
    pub frozen: bool,
    /// Time all of the host stood still for lack of memory.
    pub memory: Duration,
    /// Time all of the host stood still for its disks.
    pub io: Duration,
}

impl Strain {
    /// As it is now. What the kernel does not tell counts as nothing: it excuses nobody.
    pub fn read(pids: &[i32], cgroup: Option<&Cgroup>) -> Self {
        let mut strain = Self {
            memory: stalled("memory"),
            io: stalled("io"),
            frozen: cgroup.is_some_and(|cgroup| is_frozen(cgroup.path())),
            ..Self::default()
        };
        for pid in pids {
            strain.blocked |= Process::read(*pid).is_ok_and(|process| process.state == 'D');
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads {
                let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                let (ran, waited) = scheduled(&text).unwrap_or_default();
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                strain.queued |= state(&stat) == Some('R');
                strain.ran += ran;
                strain.waited += waited;
            }
        }
        strain
    }
}

/// Behind the name, which may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The first two numbers of a `schedstat`: nanoseconds on a processor, and in the queue for one.
fn scheduled(text: &str) -> Option<(Duration, Duration)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok().map(Duration::from_nanos));
    Some((numbers.next()??, numbers.next()??))
}

fn stalled(what: &str) -> Duration {
    let text = fs::read_to_string(format!("/proc/pressure/{what}")).unwrap_or_default();
    full_total(&text).unwrap_or_default()
}

/// `full avg10=0.00 avg60=0.00 avg300=0.00 total=477743`, in microseconds.
fn full_total(text: &str) -> Option<Duration> {
    let full = text.lines().find(|line| line.starts_with("full "))?;
    let total = full.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

fn is_frozen(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_read() {
        let pressure = "some avg10=1.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1500\n";
        assert_eq!(full_total(pressure), Some(Duration::from_micros(1500)));
        assert_eq!(full_total(""), None);
        let spent = (Duration::from_nanos(937_172), Duration::from_nanos(21));
        assert_eq!(scheduled("937172 21 3\n"), Some(spent));
        assert_eq!(scheduled("937172"), None);
        assert_eq!(state("7 (a) S b) R 1 7 7"), Some('R'));
    }

    #[test]
    fn ones_own_time_grows() {
        let own = [std::process::id().cast_signed()];
        let before = Strain::read(&own, None);
        while Strain::read(&own, None).ran <= before.ran {}
        assert!(!before.frozen);
    }
}
