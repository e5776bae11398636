//! A command that is asked for its exit code.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::task;

use crate::account::Account;
use crate::config::Launch;

/// Whether the command, in the surroundings of `launch`, exits with 0. Dropped before, it is killed with all its
/// group; a thread of the blocking pool reaps it, for this process is nobody else's child-minder. Not being able to
/// start it is no success, and said in the log.
pub(super) async fn succeeds(program: &Path, args: &[String], launch: &Launch) -> bool {
    let group = Group::default();
    let command = command(program, args, launch);
    let name = program.to_owned();
    let reaper = {
        let group = group.clone();
        // The spawn too: a file system that hangs must not hold the event loop.
        task::spawn_blocking(move || command.and_then(|mut command| group.run(&mut command)))
    };
    let _killed_when_dropped = KillOnDrop(group);
    match reaper.await {
        Ok(Ok(succeeded)) => succeeded,
        Ok(Err(error)) => {
            tracing::warn!("cannot run the probe {name:?}: {error}");
            false
        }
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => false,
        },
    }
}

/// The process group of a running command, as long as its leader is not reaped: only so long is the number ours.
#[derive(Debug, Clone, Default)]
struct Group(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    NotStarted,
    Runs(Pid),
    /// Nobody waits for it any more; one that was not started is not started.
    Over,
}

impl Group {
    /// Blocks until the leader has ended, then kills what is left of its group and reaps it.
    fn run(&self, command: &mut Command) -> io::Result<bool> {
        if matches!(*self.state(), State::Over) {
            return Ok(false);
        }
        // Not locked: whoever kills must not wait for a spawn that hangs.
        let mut child = command.spawn()?;
        {
            let mut state = self.state();
            match *state {
                State::NotStarted => *state = State::Runs(pid(&child)),
                State::Over | State::Runs(_) => kill(pid(&child)),
            }
        }
        while let Err(errno) = waitid(Id::Pid(pid(&child)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            if errno != nix::errno::Errno::EINTR {
                return Err(errno.into());
            }
        }
        // It is a zombie now, and its number is not used again until it is reaped below.
        self.kill();
        Ok(child.wait()?.success())
    }

    fn kill(&self) {
        let mut state = self.state();
        if let State::Runs(leader) = *state {
            kill(leader);
        }
        *state = State::Over;
    }

    /// A panic while it was locked can only be that of a failed allocation; the state is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(leader: Pid) {
    // ESRCH: nobody of its group is left.
    let _ = killpg(leader, Signal::SIGKILL);
}

struct KillOnDrop(Group);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn command(program: &Path, args: &[String], launch: &Launch) -> io::Result<Command> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(&launch.dir)
        .env_clear()
        .envs(launch.environment(std::env::vars_os()))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(user) = &launch.user {
        let account = Account::find(user).map_err(io::Error::other)?;
        // The standard library drops the supplementary groups of a root that changes its user.
        command.uid(account.uid).gid(account.gid);
    }
    Ok(command)
}
