//! No cgroup: what can be asked of each process, one by one.
//!
//! Each of them may ask for something else again, and their sum is nobody's: so all of it is weaker. What can't be
//! taken back is refused: a limit that stays when it is lifted is a fault. A change looks for processes and threads
//! it has not seen until there are none, for they fork meanwhile; those to come inherit it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rustix::process::{Pid, Resource, Rlimit, getpriority_process, getrlimit, prlimit, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use watchdog_keeper::protocol::Limit;
use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitKey, Limits, Support};

use super::affinity::chosen;
use super::files::read_word;
use super::privileges::Privileges;
use super::scale::{nice, processors};
use super::{BackEnd, Change, NotInForce, Pids, Prepared};
use crate::processes::Process;
use crate::processes::cgroup::{Here, Tree};

/// How often what was not seen is looked for. Each look takes in all there is.
const LOOKS: usize = 64;

/// How long processes may take to stand still.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

/// While they do not.
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// `RLIM_INFINITY` of the keeper's protocol.
const UNLIMITED: u64 = u64::MAX;

/// What we have ourselves, and so what processes have that nobody limited.
#[derive(Debug)]
pub(super) struct Processes {
    privileges: Privileges,
    usable: CpuSet,
    nice: i32,
    /// The lowest nice value that a process without privileges may take.
    lowest_nice: i32,
    /// Sessions share the processors, each with a nice value of its own that anybody may take back; those of processes
    /// count within a session.
    is_autogrouped: bool,
}

impl Processes {
    pub(super) fn probe() -> Self {
        let nice_limit = getrlimit(Resource::Nice).current.unwrap_or(40).min(40) as i32;
        Self {
            privileges: Privileges::read(),
            usable: sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new()),
            nice: getpriority_process(None).unwrap_or(0),
            lowest_nice: 20 - nice_limit,
            is_autogrouped: is_autogrouped(),
        }
    }

    /// The nice value of a process that was raised can be lowered again.
    fn comes_back(&self) -> bool {
        self.privileges.nice || self.lowest_nice <= self.nice
    }

    /// The limit of a resource while `value` is in force, of a process that is given `given` and may not be raised
    /// above `hard`.
    fn rlimit(&self, value: Option<u64>, given: Limit, hard: u64) -> Limit {
        let Limit { resource, .. } = given;
        match (value, self.privileges.resource) {
            (Some(value), true) => Limit { resource, soft: value, hard: value },
            (Some(value), false) => Limit { resource, soft: value.min(hard), hard },
            (None, true) => given,
            (None, false) => Limit { resource, soft: given.soft.min(hard), hard },
        }
    }

    fn limit_resource(&self, change: &Change<'_>, key: LimitKey, value: Option<u64>) -> Result<(), String> {
        let resource = resource(key).expect("one of the three");
        let given = given(resource, change.given);
        each(change.pids, |pid| {
            // Without privileges the hard limit only ever falls: as it is, it stays.
            let hard = hard_limit(pid, resource).unwrap_or(given.hard);
            if let (Some(value), false) = (value, self.privileges.resource)
                && value > hard
            {
                return Err(io::Error::other(format!("its hard limit is {hard}")));
            }
            let limit = self.rlimit(value, given, hard);
            let some = |number: u64| (number != UNLIMITED).then_some(number);
            let limit = Rlimit { current: some(limit.soft), maximum: some(limit.hard) };
            prlimit(Pid::from_raw(pid), resource, limit).map(drop).map_err(io::Error::from)
        })
    }

    fn set_affinity(&self, change: &Change<'_>, value: Option<u64>) -> Result<(), String> {
        let set = match value {
            Some(cpu) => chosen(change.service, &self.usable, processors(cpu)),
            None => self.usable,
        };
        each(&|| threads(&(change.pids)()), |thread| Ok(sched_setaffinity(Pid::from_raw(thread), &set)?))
    }

    fn set_nice(&self, change: &Change<'_>, value: Option<u64>) -> Result<(), String> {
        let to = nice(value.unwrap_or(100), self.nice);
        if self.is_autogrouped {
            each(change.pids, |pid| renice_session(pid, to))?;
            if !self.comes_back() {
                return Ok(());
            }
        }
        each(&|| threads(&(change.pids)()), |thread| Ok(setpriority_process(Pid::from_raw(thread), to)?))
    }
}

/// Does it to each of those, until a look finds no other one. What has ended meanwhile needs nothing; of those that
/// refuse, the first reason is told, and the others are done.
fn each(all: Pids<'_>, mut deed: impl FnMut(i32) -> io::Result<()>) -> Result<(), String> {
    let (mut seen, mut refused) = (HashSet::new(), None);
    for _ in 0..LOOKS {
        let fresh: Vec<i32> = all().into_iter().filter(|id| seen.insert(*id)).collect();
        if fresh.is_empty() {
            return refused.map_or(Ok(()), Err);
        }
        for id in fresh {
            match deed(id) {
                Ok(()) => {}
                Err(err) if is_gone(&err) => {}
                Err(err) => refused = refused.or(Some(format!("pid {id}: {err}"))),
            }
        }
    }
    Err("its processes fork faster than they can be looked at".to_owned())
}

fn is_gone(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(nix::libc::ESRCH)
}

fn threads(pids: &[i32]) -> Vec<i32> {
    let of = |pid: &i32| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    pids.iter().flat_map(of).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sessions are groups to the scheduler where that is switched on, and for who is in no cgroup that is one to it.
fn is_autogrouped() -> bool {
    let is_on = read_word("/proc/sys/kernel/sched_autogroup_enabled".as_ref()).is_ok_and(|word| word == "1");
    let Ok(here) = Here::read() else { return false };
    let is_group = match here.folder(Tree::Of("cpu")) {
        Ok(own) => own.join("../cpu.shares").exists(),
        Err(_) => here
            .folder(Tree::Unified)
            .is_ok_and(|own| own.ancestors().any(|folder| folder.join("cpu.weight").exists())),
    };
    is_on && !is_group
}

/// The kernel takes one such change in a tenth of a second of all who have no privileges.
fn renice_session(pid: i32, to: i32) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::write(format!("/proc/{pid}/autogroup"), to.to_string()) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

fn resource(key: LimitKey) -> Option<Resource> {
    match key {
        LimitKey::MemoryMax => Some(Resource::As),
        LimitKey::TasksMax => Some(Resource::Nproc),
        LimitKey::Nofile => Some(Resource::Nofile),
        LimitKey::Cpu | LimitKey::CpuWeight | LimitKey::MemoryHigh | LimitKey::IoWeight => None,
    }
}

/// What a process starts with: as told, else as we have it ourselves.
fn given(resource: Resource, told: &[Limit]) -> Limit {
    let number = resource as u32;
    told.iter().find(|limit| limit.resource == number).copied().unwrap_or_else(|| {
        let own = getrlimit(resource);
        let (soft, hard) = (own.current.unwrap_or(UNLIMITED), own.maximum.unwrap_or(UNLIMITED));
        Limit { resource: number, soft, hard }
    })
}

/// As `/proc/PID/limits` says.
fn hard_limit(pid: i32, resource: Resource) -> Option<u64> {
    let title = match resource {
        Resource::As => "Max address space",
        Resource::Nproc => "Max processes",
        _ => "Max open files",
    };
    parse_hard_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?, title)
}

fn parse_hard_limit(text: &str, title: &str) -> Option<u64> {
    let values = text.lines().find_map(|line| line.strip_prefix(title))?;
    match values.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(UNLIMITED),
        number => number.parse().ok(),
    }
}

/// It runs nothing of its own: it was stopped, or will be before it comes out of the kernel. One that waits there for a
/// child of `vfork` comes out only when that child goes on, which may be stopped itself.
fn stands_still(process: &Process) -> bool {
    match process.state {
        'T' => true,
        'D' => is_stop_pending(process.identity.pid),
        _ => false,
    }
}

/// By the mask of signals that are pending for the whole process, a bit each, the first being 1.
fn is_stop_pending(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (Signal::SIGSTOP as u32 - 1) & 1 == 1
}

impl BackEnd for Processes {
    fn name(&self) -> &'static str {
        "none"
    }

    fn support(&self, key: LimitKey) -> Support {
        let weaker = |how: &str| Support::Weaker(how.to_owned());
        let refused = |why: &str| Support::Refused(why.to_owned());
        match key {
            LimitKey::Cpu => weaker("kept to so many whole processors, rounded up; a process can undo it"),
            LimitKey::CpuWeight if self.is_autogrouped && !self.comes_back() => {
                weaker("the nice value of each of its sessions, and none above 100: that needs CAP_SYS_NICE")
            }
            LimitKey::CpuWeight if !self.comes_back() => refused(
                "without cgroups it is the nice value, which needs CAP_SYS_NICE or RLIMIT_NICE to be lowered again",
            ),
            LimitKey::CpuWeight => weaker("the nice value of each process: who has more of them gets more"),
            LimitKey::MemoryHigh => refused("only cgroups can slow down who takes memory"),
            LimitKey::MemoryMax => weaker(
                "the address space of each process, which asks for memory in vain instead of being ended",
            ),
            LimitKey::IoWeight => refused("only cgroups can share out the disks"),
            LimitKey::TasksMax if self.privileges.is_root => {
                refused("without cgroups it is a limit of each user, and root has none")
            }
            LimitKey::TasksMax => weaker("of all processes of its user together"),
            LimitKey::Nofile if self.privileges.resource => Support::Full,
            LimitKey::Nofile => weaker("the soft limit: a process can raise it again"),
        }
    }

    fn shortcomings(&self) -> Vec<String> {
        Vec::new()
    }

    fn prepare(&self, _service: &ServiceName, limits: &Limits, told: &[Limit], prepared: &mut Prepared) {
        for (key, value) in &limits.0 {
            let Some(resource) = resource(*key) else {
                prepared.to_apply = true;
                continue;
            };
            let given = given(resource, told);
            if *value > given.hard && !self.privileges.resource {
                prepared.not_in_force.insert(*key, format!("its hard limit is {}", given.hard));
            }
            prepared.rlimits.push(self.rlimit(Some(*value), given, given.hard));
        }
    }

    fn apply(&self, change: &Change<'_>) -> NotInForce {
        let done: BTreeMap<_, _> = change
            .changed()
            .map(|(key, value)| match key {
                LimitKey::Cpu => (key, self.set_affinity(change, value)),
                LimitKey::CpuWeight => (key, self.set_nice(change, value)),
                _ => (key, self.limit_resource(change, key, value)),
            })
            .collect();
        done.into_iter().filter_map(|(key, done)| Some((key, done.err()?))).collect()
    }

    fn freeze_support(&self) -> Support {
        Support::Weaker(
            "STOP to each process: their parents see it, and any process may send CONT".to_owned(),
        )
    }

    fn freeze(&self, _service: &ServiceName, pids: Pids<'_>) -> io::Result<()> {
        let until = Instant::now() + FREEZE_DEADLINE;
        let mut ended = HashSet::new();
        loop {
            // One that was forked by another before that one stood still runs; also by one that is no longer there.
            let mut is_still = true;
            for pid in pids() {
                match Process::read(pid) {
                    Ok(process) if stands_still(&process) => {}
                    Ok(process) if !process.is_dead() => {
                        is_still = false;
                        signal(pid, Signal::SIGSTOP)?;
                    }
                    _ => is_still &= !ended.insert(pid),
                }
            }
            if is_still {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
    }

    fn thaw(&self, _service: &ServiceName, pids: Pids<'_>) -> io::Result<()> {
        each(pids, |pid| signal(pid, Signal::SIGCONT)).map_err(io::Error::other)
    }

    fn is_frozen(&self, _service: &ServiceName, pids: Pids<'_>) -> bool {
        let processes: Vec<Process> = pids().into_iter().filter_map(|pid| Process::read(pid).ok()).collect();
        let mut living = processes.iter().filter(|process| !process.is_dead()).peekable();
        living.peek().is_some() && living.all(stands_still)
    }

    fn forget(&self, _service: &ServiceName) {}

    fn clear(&self) {}
}

fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    match kill(nix::unistd::Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
