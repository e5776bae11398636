//! What the cgroups we are in leave us of the machine: a container's share, a unit's limits.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Here, Tree};

/// Our own cgroups and all around them that can be seen from here, the innermost first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    v2: Vec<PathBuf>,
    v1_memory: Vec<PathBuf>,
    v1_cpu: Vec<PathBuf>,
}

/// Memory that may be used, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// In all.
    pub(crate) limit: u64,
    /// Of that, what is not used yet, or used by files that are in no hurry.
    pub(crate) available: u64,
}

/// The names of version 2 and of version 1.
const V2: MemoryFiles =
    MemoryFiles { limit: "memory.max", used: "memory.current", inactive: "inactive_file " };
const V1: MemoryFiles = MemoryFiles {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    inactive: "total_inactive_file ",
};

struct MemoryFiles {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`, of the cgroup and all below it.
    inactive: &'static str,
}

impl Surroundings {
    /// Of this process. A tree that can't be seen bounds nothing.
    pub(crate) fn find() -> Self {
        let Ok(here) = Here::read() else { return Self::default() };
        let around = |tree| here.folder(tree).map(|own| cgroups_around(&own)).unwrap_or_default();
        Self {
            v2: around(Tree::Unified),
            v1_memory: around(Tree::Of("memory")),
            v1_cpu: around(Tree::Of("cpu")),
        }
    }

    /// The narrowest memory. `None`: nothing narrows it. Limits as they are now; no limit is above `machine`.
    pub(crate) fn memory(&self, machine: u64) -> Option<Memory> {
        let of = |folders: &[PathBuf], files: &MemoryFiles| -> Vec<Memory> {
            folders.iter().filter_map(|folder| files.read(folder, machine)).collect()
        };
        let all = of(&self.v2, &V2).into_iter().chain(of(&self.v1_memory, &V1));
        all.reduce(|one, other| Memory {
            limit: one.limit.min(other.limit),
            available: one.available.min(other.available),
        })
    }

    /// The least processor time, in thousandths of a processor. `None`: nothing narrows it.
    pub(crate) fn cpu(&self) -> Option<u64> {
        let v2 = self.v2.iter().filter_map(|folder| {
            let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            thousandths(quota, period)
        });
        let v1 = self.v1_cpu.iter().filter_map(|folder| {
            let file = |name: &str| fs::read_to_string(folder.join(name)).ok();
            thousandths(file("cpu.cfs_quota_us")?.trim(), file("cpu.cfs_period_us")?.trim())
        });
        v2.chain(v1).min()
    }
}

impl MemoryFiles {
    fn read(&self, folder: &Path, machine: u64) -> Option<Memory> {
        let file = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
        // Without a limit: `max`, or more than any machine has.
        let limit = number(self.limit).filter(|limit| *limit < machine)?;
        let stat = file("memory.stat")?;
        let inactive = stat.lines().find_map(|line| line.strip_prefix(self.inactive)?.parse().ok());
        let used = number(self.used)?.saturating_sub(inactive.unwrap_or(0));
        Some(Memory { limit, available: limit.saturating_sub(used) })
    }
}

/// `max` and `-1` are no quota.
fn thousandths(quota: &str, period: &str) -> Option<u64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota * 1000).checked_div(period)
}

fn cgroups_around(own: &Path) -> Vec<PathBuf> {
    // Above the tree's root there are ordinary folders.
    let is_cgroup = |path: &&Path| path.join("cgroup.procs").exists();
    own.ancestors().take_while(is_cgroup).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 1 << 34;

    fn cgroup(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in [("cgroup.procs", "")].iter().chain(files) {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_narrowest_of_all_cgroups_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let (tree, pod, own) =
            (root.path().join("tree"), root.path().join("tree/pod"), root.path().join("tree/pod/own"));
        cgroup(&tree, &[]);
        cgroup(
            &pod,
            &[
                ("memory.max", "1000000\n"),
                ("memory.current", "900000\n"),
                ("memory.stat", "anon 500000\ninactive_file 300000\nactive_file 7\n"),
                ("cpu.max", "150000 100000\n"),
            ],
        );
        cgroup(
            &own,
            &[
                ("memory.max", "800000\n"),
                ("memory.current", "100000\n"),
                ("memory.stat", "inactive_file 0\n"),
                ("cpu.max", "max 100000\n"),
            ],
        );
        let v2 = cgroups_around(&own);
        assert_eq!(v2, [own.clone(), pod.clone(), tree]);
        let around = Surroundings { v2, ..Surroundings::default() };
        assert_eq!(around.memory(MACHINE), Some(Memory { limit: 800_000, available: 400_000 }));
        assert_eq!(around.cpu(), Some(1500));
        for (file, wide) in [("memory.max", "max\n"), ("cpu.max", "max 100000\n")] {
            fs::write(own.join(file), wide).unwrap();
            fs::write(pod.join(file), wide).unwrap();
        }
        assert_eq!((around.memory(MACHINE), around.cpu()), (None, None));
    }

    #[test]
    fn version_1_has_its_own_files_and_its_own_way_to_say_none() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("own");
        cgroup(
            &own,
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.usage_in_bytes", "5000\n"),
                ("memory.stat", "inactive_file 9\ntotal_inactive_file 1000\n"),
                ("cpu.cfs_quota_us", "-1\n"),
                ("cpu.cfs_period_us", "100000\n"),
            ],
        );
        let folders = cgroups_around(&own);
        let around = Surroundings { v1_memory: folders.clone(), v1_cpu: folders, ..Surroundings::default() };
        assert_eq!((around.memory(MACHINE), around.cpu()), (None, None));
        fs::write(own.join("memory.limit_in_bytes"), "6000\n").unwrap();
        fs::write(own.join("cpu.cfs_quota_us"), "25000\n").unwrap();
        assert_eq!(around.memory(MACHINE), Some(Memory { limit: 6000, available: 2000 }));
        assert_eq!(around.cpu(), Some(250));
    }

    #[test]
    fn our_own_surroundings_can_be_read() {
        let around = Surroundings::find();
        assert!(around.memory(MACHINE).is_none_or(|memory| memory.available <= memory.limit), "{around:?}");
        assert_ne!(around.cpu(), Some(0), "{around:?}");
    }
}
