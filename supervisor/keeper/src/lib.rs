//! The keeper: parent of all, subreaper, and the memory of descriptors between two cores.
//!
//! ```text
//!            WATCHDOG_KEEPER: one seqpacket pair, `protocol`
//!   keeper ◄────────────────────────────────────────────────► core
//!    │ spawn          clone, child steps, exec                  decides; may die at any moment
//!    │ reap           SIGCHLD, then waitid
//!    │ descriptors    named, for the next core
//!    ├── core         started again when it dies; on trial after its program was replaced
//!    ├── leaders      one process of each service
//!    └── orphans      what leaders left behind
//! ```
//! [`run`] is what the keeper does; [`protocol`] is what a core says to it, [`failure::explain`] and [`PidRecord`] what a
//! core makes of its answers.
//!
//! Invariants:
//! - One thread, no tokio, no configuration, no byte read that a service wrote. All signals are blocked for life.
//! - It never waits for a core: what a core does not read waits in memory that only requests of cores can grow.
//! - It never waits for a child either; when those on their way have taken all room in the table, for one of them, at
//!   most a second.
//! - Only the keeper reaps, and a leader only after its group was killed. So whom it signals is whom it means.
//! - A service never has two processes: the next is refused until the one before is reaped.
//! - An end is told to every core until one acknowledges it. A new core starts when the old one is reaped.
//! - A core that can't start is started again with growing pauses, and after five of them one that does less.
//! - All descriptors are close-on-exec. In its table 0 to 2 are inherited, 3 to 63 empty but for moments, 64 to
//!   127 hold what children get while they are born, each its own, and what is kept lies above: a child never sees it.
//! - Not dumpable, so that a process of the same user can't take descriptors out of it.
//!
//! Absent: PDEATHSIG (it follows the spawning thread), VFORK (a child stopped before exec would stop the keeper),
//! policy of any kind.

mod child;
mod console;
mod core_process;
mod descriptors;
pub mod failure;
mod finish;
mod keeper;
mod last_words;
mod leaders;
mod lease;
mod memory;
mod outbox;
mod packet;
mod pid_record;
pub mod protocol;
mod raw;
mod reap;
mod spawn;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use watchdog_protocol::LaneEpoch;

pub use core_process::{CHANNEL, SAFE, STDERR};
pub use descriptors::widen_table;
pub use lease::is_open_here_alone;
pub use memory::give_back_unused;
pub use packet::{DecodeError, EncodeError, Packet};
pub use pid_record::{PidRecord, start_time};

use crate::child::WINDOW_END;
use crate::core_process::CoreProgram;
use crate::descriptors::above_window;
use crate::keeper::{Keeper, Life};
use crate::protocol::Limit;

/// What a keeper is told before it starts; nothing later.
#[derive(Debug)]
pub struct KeeperConfig {
    /// The core's executable. Every core runs this file, whatever becomes of its path, until it is
    /// [replaced](protocol::ToKeeper::Replace).
    pub executable: OwnedFd,
    /// Its path, absolute, for what is said of it.
    pub program: PathBuf,
    /// Its arguments, its own name first.
    pub argv: Vec<OsString>,
    /// Its environment. [`CHANNEL`] is added: the number of its channel to the keeper.
    pub env: Vec<(OsString, OsString)>,
    /// Held open as long as the keeper lives and given to nobody: the lock of the state folder.
    pub keep: Vec<OwnedFd>,
}

/// Why a process can't become a keeper. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// A child would be reaped, and a signal taken, by the wrong thread.
    #[error("a keeper is a process of one thread; this one has {threads}")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// The limit of open files leaves no room above the window.
    #[error("a keeper needs room for {NEEDED} open files; the hard limit is {hard}")]
    OpenFiles {
        /// The limit.
        hard: u64,
    },
    /// The kernel refused something.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The window, a core's worth of descriptors, and a reserve.
const NEEDED: u64 = 2 * WINDOW_END as u64;

/// Makes this process the keeper, starts a core and serves it and its successors. Returns the exit code a core
/// gave with [`ToKeeper::Finish`](protocol::ToKeeper::Finish), when no child is left; 1 when it was asked twice
/// to stop (TERM, INT or HUP) while there was no core.
///
/// To be called from the only thread, which it never gives back as it was: the process is a subreaper and not
/// dumpable, its signals are blocked, its limit of open files is raised, and every descriptor above 2 is
/// close-on-exec.
///
/// # Errors
/// [`KeeperError`], before anything was started.
pub fn run(config: KeeperConfig) -> Result<u8, KeeperError> {
    let failed = |doing| move |source: io::Error| KeeperError::System { doing, source };
    let refused = |doing| move |errno: Errno| KeeperError::System { doing, source: errno.into() };

    prctl::set_dumpable(false).map_err(refused("make the keeper non-dumpable"))?;
    let threads = std::fs::read_dir("/proc/self/task").map_err(failed("read /proc/self/task"))?.count();
    if threads != 1 {
        return Err(KeeperError::Threads { threads });
    }
    prctl::set_child_subreaper(true).map_err(refused("become a subreaper"))?;
    raw::take_over_signals().map_err(failed("block signals"))?;
    close_on_exec().map_err(failed("set close-on-exec"))?;
    let original_limits = vec![raise_open_files()?];
    // A child shares the table until it has unshared it.
    widen_table();

    let lift = |descriptor| above_window(descriptor).map_err(refused("keep a descriptor"));
    let kept = config.keep.into_iter().map(lift).collect::<Result<_, _>>()?;
    let null = lift(
        File::options().read(true).write(true).open("/dev/null").map_err(failed("open /dev/null"))?.into(),
    )?;
    let signals = signals().map_err(refused("take signals as a descriptor"))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let life = Life {
        start_time: start_time(std::process::id()).map_err(failed("read /proc/self/stat"))?,
        started_unix_ms: now.as_millis() as u64,
        epoch: epoch().map_err(failed("read /dev/urandom"))?,
        original_limits,
        core: CoreProgram { path: config.program, argv: config.argv, env: config.env },
        _kept: kept,
    };
    let executable = lift(config.executable)?;
    Ok(Keeper::new(life, executable, signals, null).run())
}

/// Whatever this process was started with stays its own.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
fn close_on_exec() -> io::Result<()> {
    let args = [3, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize, 0, 0, 0];
    // SAFETY: sets a flag on descriptors; closes none.
    match unsafe { raw::checked(libc::SYS_close_range, args) } {
        // Linux 5.10 has the call, not yet the flag.
        Err(libc::EINVAL) => close_on_exec_one_by_one(),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        Ok(_) => Ok(()),
    }
}

#[expect(unsafe_code, reason = "descriptors of unknown owners, as numbers")]
fn close_on_exec_one_by_one() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<usize>().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            let args = [number, libc::F_SETFD as usize, libc::FD_CLOEXEC as usize, 0, 0, 0];
            // SAFETY: sets a flag. A number that is closed meanwhile answers EBADF.
            let _ = unsafe { raw::checked(libc::SYS_fcntl, args) };
        }
    }
    Ok(())
}

/// The soft limit of open files to the hard one; what it was, for the children.
fn raise_open_files() -> Result<Limit, KeeperError> {
    let refused =
        |errno: Errno| KeeperError::System { doing: "raise the limit of open files", source: errno.into() };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    if hard < NEEDED {
        return Err(KeeperError::OpenFiles { hard });
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused)?;
    Ok(Limit { resource: libc::RLIMIT_NOFILE, soft, hard })
}

#[expect(unsafe_code, reason = "a signalfd under another number is still one, which nix can't know")]
fn signals() -> Result<SignalFd, Errno> {
    use nix::sys::signal::Signal::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
    let taken: SigSet = [SIGCHLD, SIGHUP, SIGINT, SIGTERM].into_iter().collect();
    let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let lifted = above_window(signals.into())?;
    // SAFETY: the same open description.
    Ok(unsafe { SignalFd::from_owned_fd(lifted) })
}

fn epoch() -> io::Result<LaneEpoch> {
    let mut bits = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(LaneEpoch::from_stored(u64::from_le_bytes(bits)))
}
