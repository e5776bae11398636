//! cgroup v2: the cgroup in which a service is tracked anyway carries its limits, and is frozen.
//!
//! ```text
//! <our own cgroup>/watchdog-<state folder, hashed>/counter     cpu.max cpu.weight memory.high memory.max io.weight pids.max
//!                  └ cgroup.subtree_control                    hands the controllers on to the services
//! └ cgroup.subtree_control                                     refuses while a process is in our own: see `delegation`
//! ```
//! Nothing is joined: a process is born in its tracking cgroup. That one may be another at each start, so all limits
//! are written each time, those that are none too. Beside v1 this tree has no controllers and still freezes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use watchdog_keeper::protocol::Limit;
use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitKey, Limits, Support};

use super::delegation::{enable, not_handed_on};
use super::files::{Files, Kernel, counted, read_word};
use super::scale::{bfq_weight, cpu_max};
use super::{BackEnd, Change, NotInForce, Pids, Prepared};
use crate::processes::cgroup::CgroupTree;

/// How long processes may take to stand still.
const FREEZE_DEADLINE: Duration = Duration::from_secs(2);

/// While they do not.
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// What is wanted of our own cgroup.
pub(super) const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];

/// Which controller a limit needs, and in which files it is set; the first one has to be there.
fn place(key: LimitKey) -> Option<(&'static str, &'static [&'static str])> {
    Some(match key {
        LimitKey::Cpu => ("cpu", &["cpu.max"]),
        LimitKey::CpuWeight => ("cpu", &["cpu.weight"]),
        LimitKey::MemoryHigh => ("memory", &["memory.high"]),
        LimitKey::MemoryMax => ("memory", &["memory.max"]),
        LimitKey::IoWeight => ("io", &["io.bfq.weight", "io.weight"]),
        LimitKey::TasksMax => ("pids", &["pids.max"]),
        LimitKey::Nofile => return None,
    })
}

/// What a file is to hold.
fn text(file: &str, value: Option<u64>) -> String {
    let or_max = || value.map_or("max".to_owned(), |value| value.to_string());
    match file {
        "cpu.max" => cpu_max(value),
        "cpu.weight" => value.unwrap_or(100).to_string(),
        "io.bfq.weight" => bfq_weight(value.unwrap_or(100)).to_string(),
        "io.weight" => format!("default {}", value.unwrap_or(100)),
        _ => or_max(),
    }
}

/// The tracking tree of one state folder's services.
#[derive(Debug)]
pub(super) struct Unified {
    files: Box<dyn Files>,
    tree: Option<PathBuf>,
    support: BTreeMap<LimitKey, Support>,
    freezes: bool,
    shortcomings: Vec<String>,
}

impl Unified {
    pub(super) fn probe(tree: Option<&CgroupTree>) -> Self {
        Self::within(Box::new(Kernel), tree.map(CgroupTree::path), enable)
    }

    /// As it is without our doing.
    pub(super) fn look(tree: Option<&CgroupTree>) -> Self {
        Self::within(Box::new(Kernel), tree.map(CgroupTree::path), |_, tree| not_handed_on(tree))
    }

    /// `take` gets hold of the controllers, and says why of which not.
    fn within(
        files: Box<dyn Files>,
        tree: Option<&Path>,
        take: impl FnOnce(&dyn Files, &Path) -> BTreeMap<&'static str, String>,
    ) -> Self {
        let mut found = Self {
            files,
            tree: tree.map(Path::to_owned),
            support: BTreeMap::new(),
            freezes: false,
            shortcomings: Vec::new(),
        };
        match tree {
            Some(tree) => {
                let refusals = take(&*found.files, tree);
                found.examine(tree, &refusals);
            }
            None => found.shortcomings.push("services have no cgroup v2 at all".to_owned()),
        }
        found
    }

    fn examine(&mut self, tree: &Path, refusals: &BTreeMap<&'static str, String>) {
        // No name of a service has a dot.
        let probe = tree.join("probe.");
        if let Err(err) = self.files.make(&probe) {
            self.shortcomings.push(format!("cannot make a cgroup in {}: {err}", tree.display()));
            return;
        }
        self.freezes = probe.join("cgroup.freeze").exists();
        for key in LimitKey::ALL {
            let Some((controller, files)) = place(key) else { continue };
            let has = |file: &str| probe.join(file).exists();
            let support = match refusals.get(controller) {
                Some(why) => Support::Refused(why.clone()),
                None if key == LimitKey::IoWeight && !has(files[0]) && has(files[1]) => Support::Weaker(
                    "only on disks for which the kernel's cost model is switched on (io.cost.qos)".to_owned(),
                ),
                None if has(files[0]) => Support::Full,
                None => Support::Refused(format!("this kernel's cgroups have no {}", files[0])),
            };
            self.support.insert(key, support);
        }
        let _ = self.files.remove(&probe);
        let mut reasons = BTreeMap::<&str, Vec<&str>>::new();
        for (controller, why) in refusals {
            reasons.entry(why).or_default().push(controller);
        }
        for (why, controllers) in reasons {
            self.shortcomings.push(format!("cgroup v2 gives us no {}: {why}", controllers.join(", ")));
        }
        if !self.freezes {
            self.shortcomings.push("this kernel's cgroup v2 can't freeze; Linux 5.2 can".to_owned());
        }
    }

    fn cgroup(&self, service: &ServiceName) -> Option<PathBuf> {
        self.tree.as_ref().map(|tree| tree.join(service.as_str()))
    }

    fn carries(&self, key: LimitKey) -> bool {
        !matches!(self.support(key), Support::Refused(_))
    }

    /// Writes these, of a service that has a cgroup; who has none is not limited by it.
    fn write(
        &self,
        service: &ServiceName,
        limits: &Limits,
        keys: impl Iterator<Item = LimitKey>,
    ) -> NotInForce {
        let Some(cgroup) = self.cgroup(service).filter(|cgroup| cgroup.exists()) else {
            let why = "the service has no cgroup";
            return limits.0.keys().map(|key| (*key, why.to_owned())).collect();
        };
        let mut told = NotInForce::new();
        for key in keys {
            let files = place(key).map_or(&[][..], |(_, files)| files);
            for file in files.iter().filter(|file| files.len() == 1 || cgroup.join(file).exists()) {
                if let Err(err) = self.files.write(&cgroup.join(file), &text(file, limits.get(key))) {
                    told.insert(key, format!("cannot write {file}: {err}"));
                }
            }
        }
        told
    }
}

impl BackEnd for Unified {
    fn name(&self) -> &'static str {
        "cgroup-v2"
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
            // A child that is frozen at birth is given up by the keeper.
            let _ = self.thaw(service, &Vec::new);
        }
        let all = LimitKey::ALL.into_iter().filter(|key| self.carries(*key));
        prepared.not_in_force.extend(self.write(service, limits, all));
    }

    fn apply(&self, change: &Change<'_>) -> NotInForce {
        if self.cgroup(change.service).is_none_or(|cgroup| !cgroup.exists()) && (change.pids)().is_empty() {
            return NotInForce::new(); // all is written at its next start
        }
        let either = |key: &LimitKey| change.before.get(*key).is_some() || change.limits.get(*key).is_some();
        self.write(change.service, &change.limits, LimitKey::ALL.into_iter().filter(either))
    }

    fn freeze_support(&self) -> Support {
        match self.freezes {
            true => Support::Full,
            false => Support::Refused("services have no cgroup v2 that can be frozen".to_owned()),
        }
    }

    fn freeze(&self, service: &ServiceName, _pids: Pids<'_>) -> io::Result<()> {
        let cgroup = self.cgroup(service).ok_or(io::ErrorKind::Unsupported)?;
        self.files.write(&cgroup.join("cgroup.freeze"), "1")?;
        let until = Instant::now() + FREEZE_DEADLINE;
        while !read_word(&cgroup.join("cgroup.events"))?.lines().any(|line| line == "frozen 1") {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
        Ok(())
    }

    fn thaw(&self, service: &ServiceName, _pids: Pids<'_>) -> io::Result<()> {
        match self.cgroup(service).filter(|cgroup| cgroup.exists()) {
            Some(cgroup) => self.files.write(&cgroup.join("cgroup.freeze"), "0"),
            None => Ok(()),
        }
    }

    fn is_frozen(&self, service: &ServiceName, _pids: Pids<'_>) -> bool {
        let cgroup = self.cgroup(service);
        cgroup.is_some_and(|cgroup| read_word(&cgroup.join("cgroup.freeze")).is_ok_and(|word| word == "1"))
    }

    fn oom_kills(&self, service: &ServiceName) -> u64 {
        self.cgroup(service).map_or(0, |cgroup| counted(&cgroup.join("memory.events"), "oom_kill"))
    }

    /// The tracking cgroup is not ours: whoever made it removes it.
    fn forget(&self, _service: &ServiceName) {}

    fn clear(&self) {}
}

#[cfg(test)]
mod tests;
