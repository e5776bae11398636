//! Where contention is shown: a machine so small that its memory can be used up, for root and for somebody who may do
//! nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;
use tempfile::TempDir;

use crate::proof::Broken;
use crate::{binary, proc};

/// Memory of the small machine.
const MEMORY: u64 = 512 << 20;

/// All that runs there.
const PROGRAMS: [&str; 5] = ["watchdog", "resource-manager", "probe-answerer", "probe-caller", "prove"];

/// Runs `prove NAME` there and gives what its verdict says behind `ok`.
///
/// # Errors
/// It failed, the kernel ended a process for want of memory, or there is no such ground to be had.
pub fn prove(name: &str, who: Who) -> Result<String, Broken> {
    if !Uid::effective().is_root() {
        return Err(Broken("only root can bound the memory of others, and be `nobody`".to_owned()));
    }
    let small = Small::make()?;
    let programs = programs_for_all();
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(small.folder.join("cgroup.procs"));
    if let Who::Nobody = who {
        command.args([
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--inh-caps",
            "-all",
        ]);
    }
    command.arg(programs.path().join("prove")).arg(name);
    command.env("WATCHDOG_TEST_BINARIES", programs.path()).current_dir("/");
    let output = command.stderr(Stdio::inherit()).output().expect("a shell runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = said.lines().last().unwrap_or_default();
    let ok = verdict.strip_prefix(&format!("proof {name} ok ")).filter(|_| output.status.success());
    let Some(ok) = ok else {
        return Err(Broken(format!(
            "as {who:?}: {}",
            if verdict.is_empty() { "it said nothing" } else { verdict }
        )));
    };
    match small.killed() {
        0 => Ok(ok.to_owned()),
        killed => Err(Broken(format!("as {who:?}: the kernel ended {killed} processes for want of memory"))),
    }
}

/// On whose behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// May do everything.
    Root,
    /// May do nothing.
    Nobody,
}

/// A cgroup with little memory. Dropping it removes it.
#[derive(Debug)]
struct Small {
    folder: PathBuf,
    kills: &'static str,
}

impl Small {
    fn make() -> Result<Self, Broken> {
        let mut why = Vec::new();
        for (place, limit, kills) in [
            (counts_memory(), "memory.limit_in_bytes", "memory.oom_control"),
            (proc::cgroup(std::process::id()), "memory.max", "memory.events"),
        ] {
            let Some(place) = place else { continue };
            let folder = place.join(format!("contention-{}", std::process::id()));
            let made =
                fs::create_dir(&folder).and_then(|()| fs::write(folder.join(limit), MEMORY.to_string()));
            match made {
                Ok(()) => return Ok(Self { folder, kills }),
                Err(err) => why.push(format!("{}: {err}", folder.display())),
            }
            let _ = fs::remove_dir(&folder);
        }
        Err(Broken(format!("no cgroup bounds memory here: {}", why.join(", "))))
    }

    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.kills)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Our own cgroup of version 1 that counts memory.
fn counts_memory() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.split_once(":memory:/"))?.1;
    Some(Path::new("/sys/fs/cgroup/memory").join(path))
}

/// Programs where everybody may run them.
fn programs_for_all() -> TempDir {
    let folder = tempfile::Builder::new().prefix("wd-programs-").tempdir().expect("a fresh folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
    for program in PROGRAMS {
        fs::copy(binary(program), folder.path().join(program)).expect("a copy");
    }
    folder
}
