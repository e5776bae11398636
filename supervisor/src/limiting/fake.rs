//! A folder that behaves like a cgroup v2 tree with controllers: plain files, and a kernel that refuses.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::files::Files;

/// Plays the kernel in a folder, which is its root.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    root: PathBuf,
    /// Each file that was written, and what to it.
    pub(super) written: std::sync::Arc<std::sync::Mutex<Vec<(String, String)>>>,
}

impl Fake {
    /// A tree whose root has these controllers.
    pub(super) fn with(root: &Path, controllers: &str) -> Self {
        let fake = Self { root: root.to_owned(), written: Default::default() };
        fake.furnish(root, controllers).unwrap();
        fake
    }

    /// What it was told since this was asked last.
    pub(super) fn told(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.written.lock().unwrap())
    }

    fn furnish(&self, folder: &Path, controllers: &str) -> io::Result<()> {
        let files =
            [("cgroup.controllers", controllers), ("cgroup.subtree_control", ""), ("cgroup.procs", "")];
        let events = [("cgroup.events", "populated 0\nfrozen 0\n"), ("cgroup.freeze", "0\n")];
        for (file, text) in files.into_iter().chain(events) {
            fs::write(folder.join(file), text)?;
        }
        controllers.split_ascii_whitespace().try_for_each(|controller| give(folder, controller))
    }
}

/// The files of a controller, with what they hold at first.
fn give(folder: &Path, controller: &str) -> io::Result<()> {
    let files: &[(&str, &str)] = match controller {
        "cpu" => &[("cpu.max", "max 100000\n"), ("cpu.weight", "100\n")],
        "memory" => &[("memory.high", "max\n"), ("memory.max", "max\n")],
        "io" => &[("io.weight", "default 100\n")],
        "pids" => &[("pids.max", "max\n")],
        _ => &[],
    };
    files.iter().try_for_each(|(file, text)| fs::write(folder.join(file), text))
}

fn words(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file).unwrap().split_ascii_whitespace().map(str::to_owned).collect()
}

fn joined(words: &BTreeSet<String>) -> String {
    words.iter().cloned().collect::<Vec<_>>().join(" ")
}

fn refuse(errno: Errno) -> io::Result<()> {
    Err(errno.into())
}

/// A number in its range, or the word for none.
fn is_value(text: &str, none: &str, range: std::ops::RangeInclusive<u64>) -> bool {
    text == none || text.parse().is_ok_and(|number| range.contains(&number))
}

impl Files for Fake {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let folder = file.parent().unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        if !file.exists() {
            return refuse(Errno::ENOENT);
        }
        let is_right = match name {
            "cgroup.subtree_control" => return self.hand_on(folder, text),
            "cgroup.procs" => return self.move_in(folder, text),
            "cpu.max" => match text.split_once(' ') {
                Some((quota, "100000")) => is_value(quota, "max", 1000..=1 << 44),
                _ => false,
            },
            "cpu.weight" => is_value(text, "", 1..=10_000),
            "io.weight" => text.strip_prefix("default ").is_some_and(|text| is_value(text, "", 1..=10_000)),
            "memory.high" | "memory.max" => is_value(text, "max", 0..=u64::MAX),
            "pids.max" => is_value(text, "max", 0..=4_194_304),
            "cgroup.freeze" => is_value(text, "", 0..=1),
            _ => return refuse(Errno::EACCES),
        };
        if !is_right {
            return refuse(Errno::EINVAL);
        }
        if name == "cgroup.freeze" {
            fs::write(folder.join("cgroup.events"), format!("populated 1\nfrozen {text}\n"))?;
        }
        let shown = file.strip_prefix(&self.root).unwrap().display().to_string();
        self.written.lock().unwrap().push((shown, text.to_owned()));
        fs::write(file, format!("{text}\n"))
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.exists() {
            return Ok(());
        }
        let above = folder.parent().unwrap();
        self.make(above)?;
        fs::create_dir(folder)?;
        self.furnish(folder, &joined(&words(&above.join("cgroup.subtree_control"))))
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

impl Fake {
    /// `+cpu`: those below get its files. Not while a process is in here, but in the root.
    fn hand_on(&self, folder: &Path, text: &str) -> io::Result<()> {
        let Some(controller) = text.strip_prefix('+') else { return refuse(Errno::EINVAL) };
        if !words(&folder.join("cgroup.controllers")).contains(controller) {
            return refuse(Errno::ENOENT);
        }
        if folder != self.root && !words(&folder.join("cgroup.procs")).is_empty() {
            return refuse(Errno::EBUSY);
        }
        let control = folder.join("cgroup.subtree_control");
        let mut handed = words(&control);
        handed.insert(controller.to_owned());
        fs::write(&control, joined(&handed))?;
        for below in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
            fs::write(below.path().join("cgroup.controllers"), joined(&handed))?;
            give(&below.path(), controller)?;
        }
        Ok(())
    }

    /// A process is in one cgroup, and in none that hands controllers on.
    fn move_in(&self, folder: &Path, pid: &str) -> io::Result<()> {
        if folder != self.root && !words(&folder.join("cgroup.subtree_control")).is_empty() {
            return refuse(Errno::EBUSY);
        }
        let mut open = vec![self.root.clone()];
        while let Some(folder) = open.pop() {
            let procs = folder.join("cgroup.procs");
            let mut inside = words(&procs);
            inside.remove(pid);
            fs::write(&procs, inside.iter().map(|pid| format!("{pid}\n")).collect::<String>())?;
            open.extend(
                fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()),
            );
        }
        let procs = folder.join("cgroup.procs");
        fs::write(&procs, format!("{}{pid}\n", fs::read_to_string(&procs)?))
    }
}
