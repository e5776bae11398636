//! cgroup v1: a hierarchy for each controller, and in it a group for each service that is limited by it.
//!
//! ```text
//! /sys/fs/cgroup/memory/<our own cgroup>/watchdog-<state folder, hashed>/counter     once memory is limited
//! /sys/fs/cgroup/cpu/<our own cgroup>/watchdog-<state folder, hashed>/counter        once processor time is
//! ```
//! To move a process costs up to 17 ms, and so does joining at birth: a service without limits is in no group, and one
//! that loses its limits stays in, unlimited, until its next start. What is moved while it forks is looked for until
//! nobody is outside.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use watchdog_keeper::protocol::Limit;
use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitKey, Limits, Support};

use super::disks::{Schedulers, io_support, schedulers};
use super::files::{Files, Kernel, counted, read_word};
use super::scale::{PERIOD_US, bfq_weight, quota_us, shares};
use super::{BackEnd, Change, NotInForce, Pids, Prepared};
use crate::processes::Process;
use crate::processes::cgroup::{Here, NoCgroup, Tree, pids_in, tree_name};

/// How often processes outside a group are looked for. Each look takes in all there are, so only one that forks
/// faster than it is looked at needs more than a few.
const LOOKS: usize = 64;

/// How long processes may take to stand still.
const FREEZE_DEADLINE: Duration = Duration::from_secs(2);

/// While they do not.
const FREEZE_PAUSE: Duration = Duration::from_millis(2);

/// What a memory limit is when there is none.
const NO_LIMIT: &str = "-1";

/// The controller a limit needs, and the file in which it is set.
fn place(key: LimitKey) -> Option<(&'static str, &'static str)> {
    Some(match key {
        LimitKey::Cpu => ("cpu", "cpu.cfs_quota_us"),
        LimitKey::CpuWeight => ("cpu", "cpu.shares"),
        LimitKey::MemoryHigh => ("memory", "memory.soft_limit_in_bytes"),
        LimitKey::MemoryMax => ("memory", "memory.limit_in_bytes"),
        LimitKey::IoWeight => ("blkio", "blkio.bfq.weight"),
        LimitKey::TasksMax => ("pids", "pids.max"),
        LimitKey::Nofile => return None,
    })
}

/// The trees of one state folder's services.
#[derive(Debug)]
pub(super) struct Hierarchies {
    files: Box<dyn Files>,
    /// Of each controller that can be used.
    trees: BTreeMap<&'static str, PathBuf>,
    support: BTreeMap<LimitKey, Support>,
    shortcomings: Vec<String>,
}

impl Hierarchies {
    pub(super) fn probe(state_folder: &Path) -> Self {
        let name = tree_name(state_folder);
        let here = Here::read();
        let place = |controller| match &here {
            Ok(here) => match here.folder(Tree::Of(controller)) {
                Ok(own) => Ok(own.join(&name)),
                Err(NoCgroup::NoController { .. }) => Err("it is not mounted".to_owned()),
                Err(none) => Err(none.to_string()),
            },
            Err(err) => Err(err.to_string()),
        };
        Self::among(Box::new(Kernel), place, &schedulers(Path::new("/sys/block")))
    }

    pub(super) fn among(
        files: Box<dyn Files>,
        place_of: impl Fn(&'static str) -> Result<PathBuf, String>,
        disks: &Schedulers,
    ) -> Self {
        let mut found =
            Self { files, trees: BTreeMap::new(), support: BTreeMap::new(), shortcomings: Vec::new() };
        let mut missing = BTreeMap::<String, Vec<&str>>::new();
        for controller in ["cpu", "memory", "blkio", "pids", "freezer"] {
            if let Err(why) = place_of(controller).and_then(|tree| found.examine(controller, tree, disks)) {
                let keys = LimitKey::ALL.into_iter().filter(|key| controller_of(*key) == Some(controller));
                let refused = format!("cgroup v1 gives us no {controller}: {why}");
                found.support.extend(keys.map(|key| (key, Support::Refused(refused.clone()))));
                missing.entry(why).or_default().push(controller);
            }
        }
        for (why, controllers) in missing {
            found.shortcomings.push(format!("cgroup v1 gives us no {}: {why}", controllers.join(", ")));
        }
        found
    }

    /// Which files a group has is known once there is one: the root has others.
    fn examine(&mut self, controller: &'static str, tree: PathBuf, disks: &Schedulers) -> Result<(), String> {
        let cannot = |err: io::Error| format!("cannot make a cgroup in it: {err}");
        // No name of a service has a dot.
        let probe = tree.join("probe.");
        self.files.make(&probe).map_err(cannot)?;
        for key in LimitKey::ALL {
            let Some((of, file)) = place(key) else { continue };
            if of == controller {
                self.support.insert(key, support(key, probe.join(file).exists(), file, disks));
            }
        }
        // Not of a new group, and so not there for us, where we may not move anybody.
        let may_move = OpenOptions::new().write(true).open(probe.join("cgroup.procs"));
        let removed = self.files.remove(&probe);
        // What holds groups of services stays.
        let _ = fs::remove_dir(&tree);
        may_move.and(removed).map_err(cannot)?;
        self.trees.insert(controller, tree);
        Ok(())
    }

    fn group(&self, controller: &str, service: &ServiceName) -> Option<PathBuf> {
        self.trees.get(controller).map(|tree| tree.join(service.as_str()))
    }

    /// Makes the group and writes all its limits, those that are none too: it may be an old one.
    fn furnish(&self, group: &Path, keys: &[LimitKey], limits: &Limits) -> NotInForce {
        if let Err(err) = self.files.make(group) {
            let why = format!("cannot make the cgroup {}: {err}", group.display());
            return asked(keys, limits).map(|key| (key, why.clone())).collect();
        }
        let written = keys.iter().map(|key| (*key, self.write(group, *key, limits.get(*key))));
        written.filter_map(|(key, done)| Some((key, done.err()?))).collect()
    }

    fn write(&self, group: &Path, key: LimitKey, value: Option<u64>) -> Result<(), String> {
        let (_, file) = place(key).expect("only what is limited by a group");
        let text = |value: u64| value.to_string();
        let put = |file: &str, text: &str| self.files.write(&group.join(file), text);
        let done = match key {
            // A period that somebody changed would make another share of the same quota.
            LimitKey::Cpu => match value {
                Some(cpu) => put("cpu.cfs_period_us", &text(PERIOD_US)).and(put(file, &text(quota_us(cpu)))),
                None => put(file, NO_LIMIT),
            },
            LimitKey::CpuWeight => put(file, &text(shares(value.unwrap_or(100)))),
            LimitKey::MemoryHigh => put(file, &value.map_or(NO_LIMIT.to_owned(), text)),
            LimitKey::MemoryMax => return self.write_memory(group, value),
            LimitKey::IoWeight => put(file, &text(bfq_weight(value.unwrap_or(100)))),
            LimitKey::TasksMax => put(file, &value.map_or("max".to_owned(), text)),
            LimitKey::Nofile => Ok(()),
        };
        done.map_err(|err| match err.raw_os_error() {
            Some(errno) if key == LimitKey::Cpu && errno == Errno::EINVAL as i32 => {
                "it is more than the watchdog's own cgroup may use".to_owned()
            }
            _ => format!("cannot write {file}: {err}"),
        })
    }

    /// Memory alone, and memory with swap where that is counted: the second is never to be the smaller one.
    fn write_memory(&self, group: &Path, value: Option<u64>) -> Result<(), String> {
        const MEMORY: &str = "memory.limit_in_bytes";
        const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
        let text = value.map_or(NO_LIMIT.to_owned(), |value| value.to_string());
        let now = read_word(&group.join(WITH_SWAP)).ok().and_then(|word| word.parse::<u64>().ok());
        let order: &[&str] = match now {
            None => &[MEMORY],
            Some(now) if value.is_none_or(|value| value > now) => &[WITH_SWAP, MEMORY],
            Some(_) => &[MEMORY, WITH_SWAP],
        };
        for file in order {
            self.files.write(&group.join(file), &text).map_err(|err| match err.raw_os_error() {
                Some(errno) if errno == Errno::EBUSY as i32 => {
                    let usage = read_word(&group.join(file.replace("limit", "usage"))).unwrap_or_default();
                    format!("its processes have {usage} bytes already, which can't be taken back")
                }
                _ => format!("cannot write {file}: {err}"),
            })?;
        }
        Ok(())
    }

    /// Moves all processes into a group, those too that are forked meanwhile. Whether there was one to move.
    ///
    /// Over once a look finds nobody outside. Who was listed and has ended since may have forked in between, so that
    /// was no such look. It is sure when all are listed at one instant, as a tracking cgroup does; `/proc` does not.
    fn gather(&self, group: &Path, pids: Pids<'_>) -> io::Result<bool> {
        let procs = group.join("cgroup.procs");
        let (mut moved, mut done_with, mut first_error) = (false, HashSet::new(), None);
        for _ in 0..LOOKS {
            let all = pids();
            // Only now: what is forked inside meanwhile is not taken for outside.
            let inside: HashSet<i32> = pids_in(group)?.into_iter().collect();
            let outside: Vec<i32> =
                all.into_iter().filter(|pid| !inside.contains(pid) && !done_with.contains(pid)).collect();
            if outside.is_empty() {
                return first_error.map_or(Ok(moved), Err);
            }
            for pid in outside {
                if !Process::read(pid).is_ok_and(|process| !process.is_dead()) {
                    done_with.insert(pid);
                    continue;
                }
                match self.files.write(&procs, &pid.to_string()) {
                    Ok(()) => moved = true,
                    Err(err) if err.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                    Err(err) => {
                        done_with.insert(pid);
                        first_error = first_error.or(Some(err));
                    }
                }
            }
        }
        Err(io::Error::other("its processes fork faster than they can be moved"))
    }

    /// The keys of each hierarchy with one that is limited, and those of the others.
    fn by_tree(&self) -> BTreeMap<&'static str, Vec<LimitKey>> {
        let mut keys = BTreeMap::<_, Vec<_>>::new();
        for key in LimitKey::ALL.into_iter().filter(|key| self.carries(*key)) {
            if let Some(controller) = controller_of(key) {
                keys.entry(controller).or_default().push(key);
            }
        }
        keys
    }

    fn carries(&self, key: LimitKey) -> bool {
        !matches!(self.support(key), Support::Refused(_))
    }
}

fn controller_of(key: LimitKey) -> Option<&'static str> {
    place(key).map(|(controller, _)| controller)
}

fn asked<'a>(keys: &'a [LimitKey], limits: &'a Limits) -> impl Iterator<Item = LimitKey> + 'a {
    keys.iter().copied().filter(|key| limits.get(*key).is_some())
}

fn support(key: LimitKey, is_there: bool, file: &str, disks: &Schedulers) -> Support {
    if !is_there {
        return Support::Refused(format!("this kernel's cgroups have no {file}"));
    }
    match key {
        LimitKey::MemoryHigh => Support::Weaker(
            "the soft limit of cgroup v1: taken back only when the machine is short, and nobody is slowed down"
                .to_owned(),
        ),
        LimitKey::IoWeight => io_support(disks),
        _ => Support::Full,
    }
}

impl BackEnd for Hierarchies {
    fn name(&self) -> &'static str {
        "cgroup-v1"
    }

    fn support(&self, key: LimitKey) -> Support {
        let none = || Support::Refused("cgroups do not limit it".to_owned());
        self.support.get(&key).cloned().unwrap_or_else(none)
    }

    fn shortcomings(&self) -> Vec<String> {
        self.shortcomings.clone()
    }

    fn prepare(&self, service: &ServiceName, limits: &Limits, _given: &[Limit], prepared: &mut Prepared) {
        if self.is_frozen(service, &Vec::new) {
            // Who is in there belongs to nobody; the next one to be frozen is not to be the next one to be born.
            let _ = self.thaw(service, &Vec::new);
        }
        for (controller, keys) in self.by_tree() {
            let Some(group) = self.group(controller, service) else { continue };
            if asked(&keys, limits).next().is_none() {
                continue;
            }
            if controller == "memory" && self.oom_kills(service) > 0 {
                // Of those nobody is to be reminded when the next one ends.
                let _ = self.files.remove(&group);
            }
            let failed = self.furnish(&group, &keys, limits);
            let procs = OpenOptions::new().write(true).open(group.join("cgroup.procs"));
            match procs {
                Ok(procs) => prepared.join.push(procs.into()),
                Err(err) => {
                    let why = format!("cannot join {}: {err}", group.display());
                    prepared.not_in_force.extend(asked(&keys, limits).map(|key| (key, why.clone())));
                }
            }
            prepared.not_in_force.extend(failed);
        }
    }

    fn apply(&self, change: &Change<'_>) -> NotInForce {
        let mut told = NotInForce::new();
        for (controller, keys) in self.by_tree() {
            let Some(group) = self.group(controller, change.service) else { continue };
            let mut wanted = asked(&keys, &change.limits).peekable();
            if wanted.peek().is_none() {
                // Who is in stays in: to be moved out would cost as much as to be moved in.
                if group.exists() {
                    told.extend(self.furnish(&group, &keys, &change.limits));
                }
                continue;
            }
            told.extend(self.furnish(&group, &keys, &change.limits));
            // Kernels before 6.13 can take along what a process has.
            let takes_along = self.files.write(&group.join("memory.move_charge_at_immigrate"), "3").is_ok();
            match self.gather(&group, change.pids) {
                Ok(moved) if moved && controller == "memory" && !takes_along => {
                    for key in wanted.filter(|key| !told.contains_key(key)).collect::<Vec<_>>() {
                        let why =
                            "what its processes have already does not count, what they take from now on does";
                        told.insert(key, why.to_owned());
                    }
                }
                Ok(_) => {}
                Err(err) => {
                    let why = format!("cannot move all of it into {}: {err}", group.display());
                    told.extend(wanted.map(|key| (key, why.clone())));
                }
            }
        }
        told
    }

    fn freeze_support(&self) -> Support {
        match self.trees.get("freezer") {
            Some(_) => Support::Weaker(
                "by the freezer of cgroup v1: a frozen service does not die of KILL until it is thawed"
                    .to_owned(),
            ),
            None => Support::Refused("cgroup v1 has no freezer for us".to_owned()),
        }
    }

    fn freeze(&self, service: &ServiceName, pids: Pids<'_>) -> io::Result<()> {
        let group = self.group("freezer", service).ok_or(io::ErrorKind::Unsupported)?;
        self.files.make(&group)?;
        self.gather(&group, pids)?;
        let state = group.join("freezer.state");
        let until = Instant::now() + FREEZE_DEADLINE;
        loop {
            // Again each time: the kernel gives up on one that is busy.
            self.files.write(&state, "FROZEN")?;
            if read_word(&state)? == "FROZEN" {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
    }

    fn thaw(&self, service: &ServiceName, _pids: Pids<'_>) -> io::Result<()> {
        match self.group("freezer", service).filter(|group| group.exists()) {
            Some(group) => self.files.write(&group.join("freezer.state"), "THAWED"),
            None => Ok(()),
        }
    }

    fn is_frozen(&self, service: &ServiceName, _pids: Pids<'_>) -> bool {
        let group = self.group("freezer", service);
        group
            .and_then(|group| read_word(&group.join("freezer.state")).ok())
            .is_some_and(|state| state != "THAWED")
    }

    fn oom_kills(&self, service: &ServiceName) -> u64 {
        self.group("memory", service)
            .map_or(0, |group| counted(&group.join("memory.oom_control"), "oom_kill"))
    }

    fn forget(&self, service: &ServiceName) {
        for tree in self.trees.values() {
            // What can't be removed has a process; it stays, empty at last, and limits nobody.
            let _ = self.files.remove(&tree.join(service.as_str()));
        }
    }

    fn clear(&self) {
        for tree in self.trees.values() {
            let _ = self.files.remove(tree);
        }
    }
}

#[cfg(test)]
mod tests;
