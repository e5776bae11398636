//! Processes of a former life: found and ended before anything starts, so that no service ever has two.
//!
//! They are there when keeper and core were both killed. They are known by their cgroup, by the pid record each
//! child wrote before it executed its program, and by [`STATE`] in their environment. The lock of the state folder
//! is held, so whatever is found belongs to no living watchdog.
//!
//! In the runtime folder lie `pids/SERVICE` and `pids/_core` ([`PidRecord`]s), and
//! `life`: in which boot and with which cgroup tree that was.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use watchdog_keeper::PidRecord;
use watchdog_protocol::session::SERVICE;
use watchdog_protocol::{Incarnation, ServiceName};

use super::cgroup::{Cgroup, CgroupTree};
use super::proc::{self, Identity, Process, ProcessTable};
use crate::store::replace::ReplaceError;
use crate::store::runtime;

/// The environment variable that names the state folder, by its canonical path, of the watchdog a process belongs
/// to: set for all that core and keeper start.
pub const STATE: &str = "WATCHDOG_STATE";

/// Deeper than any real tree.
const DEPTH: usize = 1024;

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(10);

/// Where a service's child writes its pid record; the folder is made by [`begin`].
pub fn pid_file(runtime: &Path, service: &ServiceName) -> PathBuf {
    runtime.join("pids").join(service.as_str())
}

/// Where the core's own pid record is; no service name starts like this.
pub fn core_pid_file(runtime: &Path) -> PathBuf {
    runtime.join("pids").join(CORE)
}

const CORE: &str = "_core";

/// What tells the next watchdog of this life.
#[derive(Debug, Serialize, Deserialize)]
struct Life {
    boot: String,
    cgroups: Option<PathBuf>,
}

/// A process that was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Whose it was: a service's name, or `core`.
    pub of: String,
    /// Which process.
    pub process: Identity,
}

/// Why nothing may start.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// Some did not end, though killed: stuck in the kernel, or not ours to kill.
    #[error("processes of a former life can't be ended: {}", named(.survivors))]
    Survivors {
        /// Which.
        survivors: Vec<Leftover>,
    },
    /// What is left can't be found out.
    #[error("cannot look for processes of a former life in {path:?}")]
    Look {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn named(survivors: &[Leftover]) -> String {
    let each = survivors.iter().map(|Leftover { of, process }| format!("pid {} of `{of}`", process.pid));
    each.collect::<Vec<_>>().join(", ")
}

/// What a former life left.
#[derive(Debug)]
pub struct Ended {
    /// What still ran, and does no more.
    pub leftovers: Vec<Leftover>,
    /// The newest process of each service that has a pid record, of whatever boot.
    pub incarnations: BTreeMap<ServiceName, Incarnation>,
}

/// Ends whatever a former life in these folders left: its core first, for it would start services again, then all
/// else. Returns when they are gone; waits for at most `patience`. Blocks; for `watchdog run` before it becomes the
/// keeper. The caller itself and its ancestors are never touched.
///
/// # Errors
/// [`LeftoverError`]: nothing may be started.
pub fn end(
    runtime: &Path,
    state: &Path,
    tree: Option<&CgroupTree>,
    patience: Duration,
) -> Result<Ended, LeftoverError> {
    let deadline = Instant::now() + patience;
    let look = |source| LeftoverError::Look { path: runtime.to_owned(), source };
    let pids = runtime.join("pids");
    let mut records = records(&pids).map_err(look)?;
    let former = Former::find(runtime, state, tree, &records)?;
    let mut leftovers = Vec::new();
    former.end(Part::Core, deadline, &mut leftovers)?;
    former.end(Part::All, deadline, &mut leftovers)?;
    if !leftovers.is_empty() {
        // Its core may have started some meanwhile.
        records = self::records(&pids).map_err(look)?;
    }
    for cgroup in former.cgroups()? {
        // An empty cgroup that can't be removed hurts nobody and is used again.
        let _ = cgroup.1.remove();
    }
    let of_service = |(name, record): (String, PidRecord)| Some((name.parse().ok()?, record.incarnation));
    Ok(Ended { leftovers, incarnations: records.into_iter().filter_map(of_service).collect() })
}

/// What a former life in these folders left that still runs; nothing is done to it. The lock of the state folder should
/// be free: else it is what a living watchdog runs.
///
/// # Errors
/// [`LeftoverError::Look`].
pub fn find(runtime: &Path, state: &Path) -> Result<Vec<Leftover>, LeftoverError> {
    let look = |source| LeftoverError::Look { path: runtime.to_owned(), source };
    let records = records(&runtime.join("pids")).map_err(look)?;
    let former = Former::find(runtime, state, None, &records)?;
    let mut found = former.left(Part::Core)?;
    for leftover in former.left(Part::All)? {
        if !found.iter().any(|known| known.process == leftover.process) {
            found.push(leftover);
        }
    }
    Ok(found)
}

/// Notes this life for the next watchdog, after [`end`]. Pid records of another boot go: what is somebody else's now may
/// have begun at the same tick. Those of this boot name processes that are no more, and stay to be written over: to
/// make a file costs more than all else of a start.
///
/// # Errors
/// [`ReplaceError`], or making the folder, as its `source`.
pub fn begin(runtime: &Path, tree: Option<&CgroupTree>) -> Result<(), ReplaceError> {
    use crate::store::replace::Step;
    let pids = runtime.join("pids");
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ReplaceError { step, path, source }
    };
    let boot = proc::boot_id().map_err(failed(Step::Create, runtime))?;
    let life = runtime.join("life");
    let former: Option<Life> = runtime::find(&life).map_err(failed(Step::Create, &life))?;
    if former.is_none_or(|former| former.boot != boot) {
        match fs::remove_dir_all(&pids) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(failed(Step::Remove, &pids))?,
        }
    }
    fs::create_dir_all(&pids).map_err(failed(Step::Create, &pids))?;
    runtime::leave(&life, &Life { boot, cgroups: tree.map(|tree| tree.path().to_owned()) })
}

/// Names the service that one of these processes leads, by the record its child left.
pub fn led_by(runtime: &Path) -> impl Fn(&[Identity]) -> Option<ServiceName> + Send + Sync + 'static {
    let pids = runtime.join("pids");
    move |processes| {
        let records = records(&pids).ok()?;
        let led = records.iter().filter(|(_, record)| processes.contains(&leader(record)));
        led.filter_map(|(name, _)| name.parse().ok()).next()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Core,
    All,
}

/// What is known of the former life.
struct Former {
    runtime: PathBuf,
    /// Canonical, as in the environment of its processes.
    state: PathBuf,
    core: Option<Identity>,
    /// Leaders of services; each began a session of its own.
    leaders: Vec<(String, Identity)>,
    trees: Vec<CgroupTree>,
    /// The caller and what it descends from.
    spared: Vec<i32>,
}

impl Former {
    fn find(
        runtime: &Path,
        state: &Path,
        tree: Option<&CgroupTree>,
        records: &[(String, PidRecord)],
    ) -> Result<Self, LeftoverError> {
        let look = |source| LeftoverError::Look { path: runtime.to_owned(), source };
        let life: Option<Life> = runtime::find(&runtime.join("life")).map_err(look)?;
        let same_boot = match &life {
            Some(life) => life.boot == proc::boot_id().map_err(look)?,
            None => false,
        };
        // After a boot the numbers in the records are somebody else's.
        let records = if same_boot { records } else { &[] };
        let leaders = records.iter().map(|(name, record)| (name.clone(), leader(record)));
        let (core, leaders): (Vec<_>, Vec<_>) = leaders.partition(|(name, _)| name == CORE);
        let mut trees: Vec<CgroupTree> = tree.into_iter().cloned().collect();
        if let Some(noted) = life.and_then(|life| life.cgroups).and_then(|path| CgroupTree::at(&path))
            && trees.iter().all(|tree| tree.path() != noted.path())
        {
            trees.push(noted);
        }
        let parent =
            |pid: &i32| Process::read(*pid).ok().map(|process| process.parent).filter(|pid| *pid > 0);
        let spared = std::iter::successors(Some(std::process::id().cast_signed()), parent);
        Ok(Self {
            runtime: runtime.to_owned(),
            state: fs::canonicalize(state).unwrap_or_else(|_| state.to_owned()),
            core: core.first().map(|(_, identity)| *identity),
            leaders,
            trees,
            // Numbers that are used again meanwhile may make it go in a circle.
            spared: spared.take(DEPTH).collect(),
        })
    }

    fn end(&self, part: Part, deadline: Instant, ended: &mut Vec<Leftover>) -> Result<(), LeftoverError> {
        let mut seen = false;
        loop {
            let left = self.left(part)?;
            if left.is_empty() {
                // Once more after some were there: one in the middle of its exec shows no environment.
                if !std::mem::take(&mut seen) {
                    return Ok(());
                }
                thread::sleep(LOOK);
                continue;
            }
            seen = true;
            if Instant::now() >= deadline {
                return Err(LeftoverError::Survivors { survivors: left });
            }
            if part == Part::All {
                for (_, cgroup) in self.cgroups()? {
                    cgroup
                        .kill()
                        .map_err(|source| LeftoverError::Look { path: cgroup.path().to_owned(), source })?;
                }
            }
            for leftover in left {
                // What can't be killed is seen again, and named at the deadline.
                let _ = leftover.process.signal(Signal::SIGKILL);
                if !ended.contains(&leftover) {
                    ended.push(leftover);
                }
            }
            thread::sleep(LOOK);
        }
    }

    /// What of the former life runs now.
    fn left(&self, part: Part) -> Result<Vec<Leftover>, LeftoverError> {
        let look = |source| LeftoverError::Look { path: self.runtime.clone(), source };
        if part == Part::Core {
            let alive = self.core.filter(|core| core.is_alive() && !self.spared.contains(&core.pid));
            return Ok(alive.map(|process| Leftover { of: "core".into(), process }).into_iter().collect());
        }
        let table = ProcessTable::read().map_err(look)?;
        let mut in_cgroups = Vec::new();
        for (service, cgroup) in self.cgroups()? {
            let pids = cgroup
                .pids()
                .map_err(|source| LeftoverError::Look { path: cgroup.path().to_owned(), source })?;
            in_cgroups.extend(pids.into_iter().map(|pid| (pid, service.clone())));
        }
        let living =
            table.all().filter(|process| !process.is_dead() && !self.spared.contains(&process.identity.pid));
        Ok(living
            .filter_map(|process| {
                let of = in_cgroups
                    .iter()
                    .find(|(pid, _)| *pid == process.identity.pid)
                    .map(|(_, service)| service.to_string())
                    .or_else(|| self.of_leader(process, &table))
                    .or_else(|| self.of_mark(process))?;
                Some(Leftover { of, process: process.identity })
            })
            .collect())
    }

    /// By the session a recorded leader began. As long as a member lives the kernel uses its number for nothing
    /// else: with the leader alive it is told by its start time; without it, by the environment too, since then
    /// the whole session may be a later one of the same number.
    fn of_leader(&self, process: &proc::Process, table: &ProcessTable) -> Option<String> {
        // A child killed between its record and `setsid` leads no session.
        if let Some((service, _)) = self.leaders.iter().find(|(_, leader)| *leader == process.identity) {
            return Some(service.clone());
        }
        let (service, leader) = self.leaders.iter().find(|(_, leader)| leader.pid == process.session)?;
        let ours = match table.get(leader.pid) {
            Some(now) => now.identity == *leader,
            None => process.variable(SERVICE).as_ref() == Some(service),
        };
        ours.then(|| service.clone())
    }

    fn of_mark(&self, process: &proc::Process) -> Option<String> {
        let state = process.variable(STATE)?;
        (Path::new(&state) == self.state)
            .then(|| process.variable(SERVICE).unwrap_or_else(|| "nobody".into()))
    }

    fn cgroups(&self) -> Result<Vec<(ServiceName, Cgroup)>, LeftoverError> {
        let mut cgroups = Vec::new();
        for tree in &self.trees {
            cgroups.extend(
                tree.services()
                    .map_err(|source| LeftoverError::Look { path: tree.path().to_owned(), source })?,
            );
        }
        Ok(cgroups)
    }
}

/// Every pid record of the folder; torn ones are of children that never got to their program.
fn records(pids: &Path) -> io::Result<Vec<(String, PidRecord)>> {
    let entries = match fs::read_dir(pids) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        records.extend(PidRecord::read(&entry.path())?.map(|record| (name, record)));
    }
    Ok(records)
}

fn leader(record: &PidRecord) -> Identity {
    Identity { pid: record.pid.cast_signed(), start_time: record.start_time }
}

#[cfg(test)]
mod tests;
