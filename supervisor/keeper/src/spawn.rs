//! The keeper's side of a start.
//!
//! ```text
//! keeper                                     child
//! stage descriptors at 64.., pipe
//! clone ────────────────────────────────────► shares memory and table
//! goes on with others                         close_range(128.., UNSHARE): a table of its own
//! closes what was staged ◄────── a byte ───── closes what is of others
//!                                             cgroups, steps, attach, signals, exec
//! pipe at end of file ◄────────────────────── closed by exec or by its end: the plan says which
//! ```
//! Before the byte the keeper may close nothing the child needs: the table is one. It does not wait for it: the child
//! may have been put on a processor that is busy with the one before, while the keeper's stands idle. Plan and stack
//! stay until the pipe ends or the child is dead. A child that has no end of the pipe within 5 s is killed.
#![expect(unsafe_code, reason = "the clone, and descriptors nix gives as numbers")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use serde_bytes::ByteBuf;

use crate::child::{self, Plan, STAGED, Vector, WINDOW_END};
use crate::descriptors::{above_window, copy_above_window};
use crate::pid_record::start_time;
use crate::protocol::{Attach, ChildStep, FailedStep, MAX_CHILD_DESCRIPTOR, SpawnRequest};
use crate::raw::{self, Stack};

/// How long a child may take to run its program.
const EXEC_DEADLINE: Duration = Duration::from_secs(5);

/// What a core takes in it, which is on its way beside services when another one died.
const OF_CORE: usize = 8;

/// What a child takes in the window beside what it is given: its pipe, and nothing in place of a standard input.
const OWN: usize = 2;

/// The first number above standard input, output and error.
const STANDARD: RawFd = 3;

/// Stacks kept for the next starts.
const SPARE_STACKS: usize = 16;

/// What failed, and the errno.
pub(crate) type Failure = (FailedStep, i32);

/// Makes processes.
#[derive(Debug)]
pub(crate) struct Spawner {
    null: OwnedFd,
    /// Which never change in a keeper's life.
    not_default_signals: u64,
    /// Of children that have run their program: a mapping costs more than the clone.
    stacks: Vec<Stack>,
}

/// A child on its way to exec.
#[derive(Debug)]
pub(crate) struct Starting {
    pid: u32,
    pidfd: Rc<OwnedFd>,
    plan: Rc<Plan>,
    stack: Stack,
    /// None once it was seen at its end.
    pipe: Option<OwnedFd>,
    /// What the child needs, in the window, until it has a table of its own.
    staged: Vec<OwnedFd>,
    deadline: Instant,
    given_up: Option<FailedStep>,
}

impl Spawner {
    pub(crate) fn new(null: OwnedFd) -> Self {
        Self { null, not_default_signals: raw::not_default_signals(), stacks: Vec::new() }
    }

    /// Starts a child. It runs its program, or fails, some time later.
    ///
    /// All signals must be blocked.
    pub(crate) fn start(
        &mut self,
        request: &SpawnRequest,
        beside: &[BorrowedFd<'_>],
        now: Instant,
    ) -> Result<Starting, Failure> {
        let mut plan = plan(request, beside).ok_or((FailedStep::Request, libc::EINVAL))?;
        let (staged, pipe) =
            self.stage(request, beside, &mut plan).map_err(|errno| (FailedStep::Stage, errno as i32))?;
        let stack = match self.stacks.pop() {
            Some(stack) => stack,
            None => {
                Stack::new().map_err(|err| (FailedStep::Clone, err.raw_os_error().unwrap_or(libc::ENOMEM)))?
            }
        };
        plan.not_default = self.not_default_signals;
        let cgroup = request.descriptors.iter().position(|what| *what == Attach::Cgroup);
        let cgroup = cgroup.map(|at| beside[at].as_raw_fd());
        let clone = if cgroup.is_some() { FailedStep::CloneIntoCgroup } else { FailedStep::Clone };
        let plan = Rc::new(plan);
        // SAFETY: signals are blocked by contract. `child::enter` calls nothing of libc and ends in exec or exit;
        // plan and stack are kept by `Starting` until the child is seen at either.
        let born = unsafe { raw::clone_sharing(child::enter, Rc::as_ptr(&plan), &stack, cgroup) };
        let (pid, pidfd) = match born {
            Ok(born) => born,
            Err(errno) => {
                self.stacks.push(stack);
                return Err((clone, errno));
            }
        };
        let deadline = now + EXEC_DEADLINE;
        let pidfd = Rc::new(copy_above_window(pidfd.as_fd()).unwrap_or(pidfd));
        Ok(Starting { pid, pidfd, plan, stack, pipe: Some(pipe), staged, deadline, given_up: None })
    }

    /// Puts what the child needs into the window and tells the plan the numbers. Beside it the keeper's end of
    /// the pipe, above the window.
    fn stage(
        &self,
        request: &SpawnRequest,
        beside: &[BorrowedFd<'_>],
        plan: &mut Plan,
    ) -> Result<(Vec<OwnedFd>, OwnedFd), Errno> {
        let mut staged = Vec::new();
        let (pipe, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let write_end = in_window(write_end.as_fd())?;
        plan.pipe = write_end.as_raw_fd();
        staged.push(write_end);
        let pipe = above_window(pipe)?;
        let mut standard = [false; 3];
        for (what, descriptor) in request.descriptors.iter().zip(beside) {
            match what {
                Attach::Cgroup => {}
                Attach::Program => {
                    let file = in_window(*descriptor)?;
                    plan.executable = Some(file.as_raw_fd());
                    staged.push(file);
                }
                Attach::Join => {
                    let procs = in_window(*descriptor)?;
                    plan.join.push(procs.as_raw_fd());
                    staged.push(procs);
                }
                Attach::PidRecord => {
                    let file = in_window(*descriptor)?;
                    plan.pid_record = Some((file.as_raw_fd(), request.incarnation));
                    staged.push(file);
                }
                Attach::Child(number) => {
                    let copy = in_window(*descriptor)?;
                    plan.attach.push((copy.as_raw_fd(), *number as RawFd));
                    staged.push(copy);
                    if let Some(taken) = standard.get_mut(*number as usize) {
                        *taken = true;
                    }
                }
            }
        }
        if standard.contains(&false) {
            let null = in_window(self.null.as_fd())?;
            let missing = standard.iter().enumerate().filter(|(_, taken)| !**taken);
            plan.attach.extend(missing.map(|(number, _)| (null.as_raw_fd(), number as RawFd)));
            staged.push(null);
        }
        plan.of_others = gaps(staged.iter().map(AsRawFd::as_raw_fd).collect());
        Ok((staged, pipe))
    }

    /// Takes back what a child at its end, or in its program, no longer uses.
    pub(crate) fn retire(&mut self, starting: Starting) {
        if self.stacks.len() < SPARE_STACKS {
            self.stacks.push(starting.stack);
        }
        // A child that changed its user did so while it shared the keeper's memory: the kernel then sets that
        // memory's dumpable flag to what `fs.suid_dumpable` says.
        let _ = prctl::set_dumpable(false);
    }
}

impl Starting {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks since boot, once it runs its program.
    pub(crate) fn start_time(&self) -> u64 {
        match self.plan.start_time.load(Ordering::Acquire) {
            // It was asked for no record. It is not reaped, so it has a start time.
            0 => start_time(self.pid).unwrap_or(0),
            told => told,
        }
    }

    pub(crate) fn pidfd(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.pidfd)
    }

    /// Readable when it has a table of its own, and when it has run its program or has failed.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// The pipe is readable. Whether the program runs by now; if it never will, the child's death follows.
    pub(crate) fn look(&mut self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        match nix::unistd::read(pipe, &mut [0]) {
            Ok(1..) => {
                self.staged = Vec::new();
                false
            }
            Err(Errno::EINTR) => false,
            Ok(0) | Err(_) => {
                self.pipe = None;
                self.failure().is_none()
            }
        }
    }

    /// When to [`give_up`](Self::give_up); None if that was done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.given_up.is_none().then_some(self.deadline)
    }

    pub(crate) fn give_up(&mut self) {
        self.given_up = Some(self.plan.at());
        let _ = raw::kill(self.pid as i32, libc::SIGKILL);
    }

    /// Why it failed; final once the pipe has ended or the child is dead.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let silent = self.given_up.as_ref().map(|step| (step.clone(), libc::ETIMEDOUT));
        self.plan.failure().or(silent)
    }
}

/// None when the request can't be carried out whatever the kernel says.
fn plan(request: &SpawnRequest, beside: &[BorrowedFd<'_>]) -> Option<Plan> {
    let numbers: Vec<u32> = request
        .descriptors
        .iter()
        .filter_map(|what| if let Attach::Child(n) = what { Some(*n) } else { None })
        .collect();
    let twice = |at: usize| numbers[..at].contains(&numbers[at]);
    let wrong_number = (0..numbers.len()).any(|at| numbers[at] > MAX_CHILD_DESCRIPTOR || twice(at));
    if wrong_number || request.descriptors.len() != beside.len() || !request.program.starts_with(b"/") {
        return None;
    }
    let program = CString::new(request.program.as_slice()).ok()?;
    let mut plan = Plan::new(program, vector(&request.argv)?, vector(&request.env)?);
    for step in &request.steps {
        let path = match step {
            ChildStep::ChangeDir(folder) => Some(CString::new(folder.as_slice()).ok()?),
            // To the kernel that number means "as it is": the program would run as the keeper's user.
            ChildStep::Ids { uid: u32::MAX, .. } | ChildStep::Ids { gid: u32::MAX, .. } => return None,
            _ => None,
        };
        plan.steps.push((step.clone(), path));
    }
    Some(plan)
}

fn vector(strings: &[ByteBuf]) -> Option<Vector> {
    let strings = strings.iter().map(|string| CString::new(string.as_slice())).collect::<Result<_, _>>();
    strings.ok().map(Vector::new)
}

fn in_window(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(STAGED))?;
    // SAFETY: just made, owned by nobody else.
    let copy = unsafe { OwnedFd::from_raw_fd(number) };
    if number < WINDOW_END { Ok(copy) } else { Err(Errno::EMFILE) }
}

/// First and last of each run of numbers that are not among these, from above the standard three to the window's end.
fn gaps(mut numbers: Vec<RawFd>) -> Vec<(RawFd, RawFd)> {
    numbers.sort_unstable();
    let firsts = std::iter::once(STANDARD).chain(numbers.iter().map(|number| number + 1));
    let lasts = numbers.iter().map(|number| number - 1).chain([WINDOW_END - 1]);
    firsts.zip(lasts).filter(|(first, last)| first <= last).collect()
}

/// Whether there is room in the window for a child with so many descriptors, beside these and a core.
pub(crate) fn has_room<'s>(descriptors: usize, starting: impl Iterator<Item = &'s Starting>) -> bool {
    let staged: usize = starting.map(|starting| starting.staged.len()).sum();
    staged == 0 || staged + OF_CORE + descriptors + OWN <= (WINDOW_END - STAGED) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_all_numbers_of_the_window_that_are_not_ones_own() {
        assert_eq!(gaps(vec![66, 64, 65]), [(3, 63), (67, 127)]);
        assert_eq!(gaps(vec![70, 127, 64]), [(3, 63), (65, 69), (71, 126)]);
        assert_eq!(gaps(Vec::new()), [(3, 127)]);
    }
}
