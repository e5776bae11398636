//! Processes as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// One process, told apart from a later one of the same number by the moment it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this number now, dead ones that nobody reaped included.
    pub fn of(pid: u32) -> Option<Self> {
        Stat::of(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        Stat::of(self.pid)
            .is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Whether anything of it is left, be it a zombie.
    pub fn exists(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started)
    }

    /// Whether it is stopped by a signal.
    pub fn is_stopped(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started && stat.state == 'T')
    }

    /// Its parent's number.
    pub fn parent(self) -> Option<u32> {
        Stat::of(self.pid).filter(|stat| stat.started == self.started).map(|stat| stat.parent)
    }

    /// Sends it a signal; does nothing when it is gone.
    pub fn signal(self, signal: Signal) {
        if self.exists() {
            let pid = Pid::from_raw(i32::try_from(self.pid).expect("the kernel's numbers fit"));
            // Between the look and the signal it may have ended: that is what the caller wanted anyway.
            let _gone = signal::kill(pid, signal);
        }
    }
}

struct Stat {
    state: char,
    parent: u32,
    session: i32,
    started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may itself hold brackets and spaces: the last one ends it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// All processes of the machine.
pub fn all() -> Vec<Process> {
    let folder = fs::read_dir("/proc").expect("/proc is there");
    let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(Process::of).collect()
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent() == Some(pid)).collect()
}

/// The folder of the v2 cgroup a process is in; `None` without such a tree, or when the process is gone.
pub fn cgroup(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Alone, or beside the controllers of version 1.
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
    Some(root.join(path))
}

/// The session a process belongs to.
pub fn session(pid: u32) -> Option<i32> {
    Stat::of(pid).map(|stat| stat.session)
}

/// What a process was started with as environment; empty when it is gone.
pub fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| {
        let text = String::from_utf8_lossy(pair);
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// The descriptors of a process and what each is of; empty when it is gone.
pub fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeMap::new() };
    let entries = folder.filter_map(|entry| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        Some((number, target.to_string_lossy().into_owned()))
    });
    entries.collect()
}

/// Its resident memory in bytes; 0 when it is gone.
pub fn memory(pid: u32) -> u64 {
    memory_field(pid, "VmRSS:")
}

/// The most resident memory it ever had, in bytes; 0 when it is gone.
pub fn peak_memory(pid: u32) -> u64 {
    memory_field(pid, "VmHWM:")
}

fn memory_field(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The processes that run in or below a folder, or were started with `TEST_FOLDER` set to it.
pub fn belonging_to(folder: &Path) -> Vec<Process> {
    let mark = folder.as_os_str().as_bytes();
    let belongs = |process: &Process| {
        let home: Option<PathBuf> = fs::read_link(format!("/proc/{}/cwd", process.pid)).ok();
        home.is_some_and(|home| home.starts_with(folder))
            || environment(process.pid).get("TEST_FOLDER").is_some_and(|value| value.as_bytes() == mark)
    };
    all().into_iter().filter(belongs).collect()
}
