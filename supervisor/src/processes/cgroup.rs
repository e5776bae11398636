//! A cgroup v2 for each service: everything a service ever forked is in it, whatever session, group or parent it
//! gave itself, and one write ends it all.
//!
//! ```text
//! /sys/fs/cgroup[/unified]/<our own cgroup>/watchdog-<state folder, hashed>/counter
//!                                                                           nginx
//! ```
//! Here for tracking and killing, which needs no controller: a tree without (v1 beside v2) does as well. Where there
//! are some, [`limiting`](crate::limiting) has the services' limits in the same cgroups.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use watchdog_protocol::ServiceName;

pub(crate) use self::mounts::{Here, Tree};
pub(crate) use self::surroundings::Surroundings;

mod mounts;
mod surroundings;

/// Why services get no cgroup. What `status` shows; supervision goes on by process group and adopted orphans.
#[derive(Debug, thiserror::Error)]
pub enum NoCgroup {
    /// No v2 tree is mounted.
    #[error("no cgroup v2 file system is mounted")]
    NotMounted,
    /// No v1 tree has it.
    #[error("no cgroup v1 file system with the controller `{controller}` is mounted")]
    NoController {
        /// Its name.
        controller: String,
    },
    /// Our own place in it is not visible from here.
    #[error("our own cgroup {own:?} is not below the mounted tree")]
    Outside {
        /// What the kernel calls it.
        own: PathBuf,
    },
    /// It can't be made.
    #[error("cannot make the cgroup {path:?}")]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why; without a delegation usually a missing permission.
        #[source]
        source: io::Error,
    },
    /// The kernel does not say where we are.
    #[error("cannot read {path:?}")]
    Read {
        /// Which file.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The cgroups of one state folder's services.
#[derive(Debug, Clone)]
pub struct CgroupTree {
    path: PathBuf,
}

impl CgroupTree {
    /// Finds our place in the v2 tree and makes this state folder's cgroup there, unless it is there already.
    ///
    /// # Errors
    /// [`NoCgroup`]: there is none to be had, which is no failure of the watchdog.
    pub fn make(state_folder: &Path) -> Result<Self, NoCgroup> {
        let mut here = Here::read()?.folder(Tree::Unified)?;
        if here.ends_with(leaf_name(state_folder)) {
            here.pop();
        }
        Self::within(&here, state_folder)
    }

    fn within(here: &Path, state_folder: &Path) -> Result<Self, NoCgroup> {
        let tree = Self { path: here.join(tree_name(state_folder)) };
        // No service has this name.
        tree.service_named("probe.")
            .and_then(|probe| probe.remove())
            .map_err(|source| NoCgroup::Make { path: tree.path.clone(), source })?;
        Ok(tree)
    }

    /// The tree at a path that an earlier watchdog noted, if it is still there.
    pub fn at(path: &Path) -> Option<Self> {
        path.join("cgroup.procs").exists().then(|| Self { path: path.to_owned() })
    }

    /// Where it lies; noted for the next watchdog, which may be started from another cgroup.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cgroup of a service, made unless it is there.
    ///
    /// # Errors
    /// Making the folder, or opening it.
    pub fn service(&self, service: &ServiceName) -> io::Result<Cgroup> {
        let present = Cgroup::at(self.path.join(service.as_str()));
        match present.folder().map(drop) {
            Ok(()) => Ok(present),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.service_named(service.as_str()),
            Err(error) => Err(error),
        }
    }

    /// Makes the cgroup of a service that will want it.
    ///
    /// # Errors
    /// Making the folder.
    pub fn make_ahead(&self, service: &ServiceName) -> io::Result<()> {
        self.service_named(service.as_str()).map(drop)
    }

    /// All cgroups that are there, with the services they are named after.
    ///
    /// # Errors
    /// Reading the folder.
    pub fn services(&self) -> io::Result<Vec<(ServiceName, Cgroup)>> {
        Ok(below(&self.path)?
            .into_iter()
            .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, Cgroup::at(path))))
            .collect())
    }

    /// Removes the tree; its cgroups are empty.
    ///
    /// # Errors
    /// `ResourceBusy` while a process is in it.
    pub fn remove(&self) -> io::Result<()> {
        remove_all(&self.path)
    }

    fn service_named(&self, name: &str) -> io::Result<Cgroup> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(Cgroup::at(path))
    }
}

/// The cgroup of one service.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
    /// Opened when first wanted and kept: both are on the way of every restart.
    folder: OnceLock<Arc<File>>,
    events: OnceLock<Arc<File>>,
}

impl Cgroup {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(path: PathBuf) -> Self {
        Self { path, folder: OnceLock::new(), events: OnceLock::new() }
    }

    /// Its folder, for `CLONE_INTO_CGROUP`.
    ///
    /// # Errors
    /// It is gone.
    pub fn folder(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(kept_open(&self.folder, &self.path)?.as_fd())
    }

    /// A living process is in it or below it. A removed cgroup has none. Zombies do not count.
    ///
    /// # Errors
    /// Reading its events.
    pub fn populated(&self) -> io::Result<bool> {
        // Two lines of a word and a digit today; lines may be added behind them.
        let mut events = [0; 256];
        let mut read = || kept_open(&self.events, &self.path.join("cgroup.events"))?.read_at(&mut events, 0);
        match read() {
            Ok(length) => {
                Ok(events[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 1"))
            }
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All processes in it and below it. Those of another pid namespace can't be named and are left out.
    ///
    /// # Errors
    /// Reading its list.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        pids_in(&self.path)
    }

    /// Sends SIGKILL to all of it: at once by `cgroup.kill` (Linux 5.14), else one by one. It has ended when it is
    /// no longer [`populated`](Self::populated); without `cgroup.kill` call again until then, since a process may
    /// fork between list and signal.
    ///
    /// # Errors
    /// Writing or reading its files.
    pub fn kill(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).open(self.path.join("cgroup.kill")) {
            Ok(mut file) => match file.write_all(b"1") {
                Err(error) if is_gone(&error) => Ok(()),
                done => done,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for pid in self.pids()? {
                    // ESRCH: it ended meanwhile. EPERM: what stays is seen by `populated`.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes it with all below it; it is empty.
    ///
    /// # Errors
    /// `ResourceBusy` while a process is in it.
    pub fn remove(&self) -> io::Result<()> {
        remove_all(&self.path)
    }
}

/// All processes in a cgroup of either version and below it, as [`Cgroup::pids`].
pub(crate) fn pids_in(path: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        match fs::read_to_string(path.join("cgroup.procs")) {
            Ok(text) => {
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            }
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        }
        open.extend(below(&path)?);
    }
    Ok(pids)
}

fn kept_open<'a>(place: &'a OnceLock<Arc<File>>, path: &Path) -> io::Result<&'a File> {
    if let Some(file) = place.get() {
        return Ok(file);
    }
    let opened = Arc::new(File::open(path)?);
    Ok(place.get_or_init(|| opened))
}

/// It is not there, or no more. ENODEV: removed while one of its files was open.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

/// The cgroups right below one.
pub(crate) fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// Removes a cgroup with all below it; one that is not there is removed.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if is_gone(&error) => return Ok(()),
        // Next to none has others below it: it is looked only where the kernel objects.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) => {}
        done => return done,
    }
    for folder in below(path)? {
        remove_all(&folder)?;
    }
    match fs::remove_dir(path) {
        Err(error) if is_gone(&error) => Ok(()),
        done => done,
    }
}

/// The name of the cgroup in which the watchdog of that state folder itself is, where it has to be in none that has
/// others below it. Beside the one that holds its services.
pub(crate) fn leaf_name(state_folder: &Path) -> String {
    format!("{}.itself", tree_name(state_folder))
}

/// The name of the cgroup that holds those of a state folder's services. Stable across builds, so that the next watchdog, also a newer one, finds it: FNV-1a of the canonical path.
pub(crate) fn tree_name(state_folder: &Path) -> String {
    let path = fs::canonicalize(state_folder).unwrap_or_else(|_| state_folder.to_owned());
    let hash = path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("watchdog-{hash:016x}")
}

#[cfg(test)]
mod tests;
