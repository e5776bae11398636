//! Reading `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// One process for ever: pids are used again, a pid with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// As the kernel numbers it.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
}

impl Identity {
    /// Who has this pid now.
    ///
    /// # Errors
    /// Nobody has it.
    pub fn of(pid: i32) -> io::Result<Self> {
        Process::read(pid).map(|process| process.identity)
    }

    /// The calling process.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn of_self() -> io::Result<Self> {
        Self::of(std::process::id().cast_signed())
    }

    /// Sends it a signal, if it still is who has the number. Between the check and the signal it would have to end, be
    /// reaped, and all other numbers be used up; where services live for long, the keeper signals by pidfd instead.
    ///
    /// # Errors
    /// It is gone (`NotFound`), or not ours to signal.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// It still runs. A zombie does not: nothing of it can act any more.
    pub fn is_alive(self) -> bool {
        Process::read(self.pid).is_ok_and(|process| process.identity == self && !process.is_dead())
    }
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Which one.
    pub identity: Identity,
    /// Its parent's pid.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session: the pid of the leader that made it, also when that one is gone.
    pub session: i32,
    /// The letter of its state: `R`, `S`, `D`, `T`, `Z`, …
    pub state: char,
    /// Processor time it used, and its children that it has waited for: what a child used is not lost with it.
    pub cpu: Duration,
    /// Resident memory in bytes, shared pages included.
    pub resident: u64,
    /// How many threads it has.
    pub threads: u64,
}

impl Process {
    /// Who has this pid now.
    ///
    /// # Errors
    /// Nobody has it (`NotFound`), or `/proc` can't be read.
    pub fn read(pid: i32) -> io::Result<Self> {
        // One read gives the whole line, some 300 bytes; where all processes are looked at, it is read of each.
        let mut line = [0; 2048];
        let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut line));
        let length = match read {
            Ok(length) => length,
            // Gone between open and read.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            Err(error) => return Err(error),
        };
        Self::parse(&line[..length])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is odd")))
    }

    /// What a `/proc/PID/stat` says; `None`: it is none. Without a copy of anything: where somebody measures, it is read of
    /// every process every second.
    pub fn parse(text: &[u8]) -> Option<Self> {
        // The name in parentheses may hold anything, a `)` included; numbers follow its last one.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
        // `state` is field 3 of proc_pid_stat(5), so field N is at N - 3.
        let mut fields = [""; 22];
        let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
        for (field, found) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
            *field = found;
        }
        let number = |field: usize| fields[field - 3].parse::<u64>().ok();
        let signed = |field: usize| fields[field - 3].parse::<i32>().ok();
        Some(Self {
            identity: Identity { pid, start_time: number(22)? },
            parent: signed(4)?,
            group: signed(5)?,
            session: signed(6)?,
            state: fields[0].chars().next()?,
            cpu: ticks(number(14)? + number(15)? + number(16)? + number(17)?),
            resident: number(24)? * *PAGE_SIZE,
            threads: number(20)?,
        })
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// Nobody has its pid any more (`NotFound`), or it is not ours to look at (`PermissionDenied`).
    pub fn descriptors(&self) -> io::Result<u64> {
        self.descriptors_up_to(usize::MAX).map(|count| count.unwrap_or(u64::MAX))
    }

    /// As [`descriptors`](Self::descriptors); `None`: there are more than so many, and they would have to be counted.
    ///
    /// # Errors
    /// The same.
    pub fn descriptors_up_to(&self, most: usize) -> io::Result<Option<u64>> {
        let folder = format!("/proc/{}/fd", self.identity.pid);
        // Linux 6.2 and newer say it as the folder's size, and of everybody's processes.
        match fs::metadata(&folder)?.len() {
            0 => Ok(count_up_to(fs::read_dir(&folder)?, most)),
            count => Ok(Some(count)),
        }
    }

    /// Ended and not yet reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// The value of one variable of the environment it was executed with; `None` also when that can't be read, and
    /// for an instant in the middle of its exec.
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.identity.pid)).ok()?;
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        String::from_utf8(value.to_vec()).ok()
    }
}

fn count_up_to(entries: impl Iterator, most: usize) -> Option<u64> {
    let count = entries.take(most.saturating_add(1)).count();
    (count <= most).then_some(count as u64)
}

static PAGE_SIZE: LazyLock<u64> = LazyLock::new(|| configured(SysconfVar::PAGE_SIZE, 4096));
static TICKS_PER_SECOND: LazyLock<u64> = LazyLock::new(|| configured(SysconfVar::CLK_TCK, 100));

fn configured(variable: SysconfVar, usual: u64) -> u64 {
    sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(usual)
}

/// The kernel's clock ticks as time.
pub(crate) fn ticks(count: u64) -> Duration {
    let per_second = *TICKS_PER_SECOND;
    Duration::from_secs(count / per_second)
        + Duration::from_nanos((count % per_second) * 1_000_000_000 / per_second)
}

/// Names this boot of the host.
///
/// # Errors
/// `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// All processes at one instant, or nearly: it is read process by process.
#[derive(Debug, Default)]
pub struct ProcessTable {
    by_pid: HashMap<i32, Process>,
}

impl ProcessTable {
    /// Reads all of `/proc`: some 10 µs a process.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn read() -> io::Result<Self> {
        let mut by_pid = HashMap::new();
        for entry in fs::read_dir(Path::new("/proc"))? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that ends meanwhile is not in the table.
            if let Ok(process) = Process::read(pid) {
                by_pid.insert(pid, process);
            }
        }
        Ok(Self { by_pid })
    }

    /// Every process.
    pub fn all(&self) -> impl Iterator<Item = &Process> {
        self.by_pid.values()
    }

    /// The process of this number.
    pub fn get(&self, pid: i32) -> Option<&Process> {
        self.by_pid.get(&pid)
    }

    /// The children of a process, theirs, and so on; not the process itself.
    pub fn descendants(&self, of: i32) -> Vec<&Process> {
        let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
        for process in self.all() {
            children.entry(process.parent).or_default().push(process);
        }
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::from([of]), vec![of]);
        while let Some(parent) = open.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                // A table that is read process by process may hold a cycle of used-again numbers.
                if seen.insert(child.identity.pid) {
                    found.push(child);
                    open.push(child.identity.pid);
                }
            }
        }
        found
    }

    #[cfg(test)]
    pub(crate) fn of(processes: impl IntoIterator<Item = Process>) -> Self {
        Self { by_pid: processes.into_iter().map(|process| (process.identity.pid, process)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        let identity = Identity { pid, start_time: 1 };
        Process {
            identity,
            parent,
            group: pid,
            session: pid,
            state: 'S',
            cpu: Duration::ZERO,
            resident: 0,
            threads: 1,
        }
    }

    #[test]
    fn a_name_full_of_parentheses_and_blanks_is_no_trouble() {
        let line = b"77 (a) 1 (b c) S 5 77 70 0 -1 4194560 84 0 0 0 150 20 4 1 20 0 1 0 4242 2711552 100 1844 rest\n";
        let process = Process::parse(line).unwrap();
        assert_eq!(process.identity, Identity { pid: 77, start_time: 4242 });
        assert_eq!((process.parent, process.group, process.session, process.state), (5, 77, 70, 'S'));
        assert_eq!((process.resident, process.threads), (100 * *PAGE_SIZE, 1));
        assert_eq!(process.cpu, Duration::from_secs(175) / u32::try_from(*TICKS_PER_SECOND).unwrap());
    }

    #[test]
    fn odd_lines_are_nothing() {
        for line in [&b""[..], b"77", b"77 (a", b"77 (a) S", b"x (a) S 1 2 3", b") 77 ("] {
            assert_eq!(Process::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_child_is_found_alive_with_its_environment_and_dead_as_a_zombie() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .env("WATCHDOG_SERVICE", "reader")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let identity = Identity::of(pid).unwrap();
        assert!(identity.is_alive());
        assert!(!Identity { start_time: identity.start_time + 1, ..identity }.is_alive());
        let table = ProcessTable::read().unwrap();
        let process = table.get(pid).unwrap();
        // The spawn returns when exec has begun, a moment before the new environment is there.
        while process.variable("WATCHDOG_SERVICE").is_none() {
            std::thread::yield_now();
        }
        assert_eq!(process.variable("WATCHDOG_SERVICE").as_deref(), Some("reader"));
        assert_eq!(process.variable("WATCHDOG_SERV"), None);
        assert!(table.descendants(std::process::id().cast_signed()).contains(&process));
        // Nor has a program that begins any memory yet.
        while Process::read(pid).unwrap().resident == 0 {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
        .unwrap();
        assert!(Process::read(pid).unwrap().is_dead());
        assert!(!identity.is_alive());
        child.wait().unwrap();
        assert_eq!(Process::read(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn descriptors_are_counted_as_they_come_and_go() {
        let this = Process::read(Identity::of_self().unwrap().pid).unwrap();
        let more: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let with = this.descriptors().unwrap();
        drop(more);
        let without = this.descriptors().unwrap();
        // Other tests of this process open and close some of their own.
        assert!(with >= 200 && without + 100 < with, "{without} of {with}");
        let nobody = Process { identity: Identity { pid: i32::MAX, start_time: 1 }, ..this };
        assert_eq!(nobody.descriptors().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn many_are_counted_as_far_as_they_are_wanted() {
        assert_eq!(count_up_to(0..10, 10), Some(10));
        assert_eq!(count_up_to(0..11, 10), None);
        assert_eq!(count_up_to(0..11, usize::MAX), Some(11));
    }

    #[test]
    fn descendants_are_all_below_and_a_cycle_ends() {
        let table = ProcessTable::of([
            process(1, 0),
            process(2, 1),
            process(3, 2),
            process(4, 1),
            process(9, 8),
            process(8, 9),
        ]);
        let mut below: Vec<_> = table.descendants(1).iter().map(|p| p.identity.pid).collect();
        below.sort_unstable();
        assert_eq!(below, [2, 3, 4]);
        assert_eq!(table.descendants(8).len(), 1);
    }

    #[test]
    fn the_boot_has_a_name() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
