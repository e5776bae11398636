//! The child's side, between clone and exec.
//!
//! It shares the keeper's memory and runs beside it, so here is no allocation, no lock, no panic that can happen,
//! and nothing of libc but its numbers. What it says, it says by words in the [`Plan`], and by one byte in its pipe.
#![expect(unsafe_code, reason = "raw system calls: libc's errno belongs to the keeper")]

use std::ffi::{CStr, CString, c_char};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use watchdog_protocol::Incarnation;

use crate::pid_record::{PidRecord, parse_start_time};
use crate::protocol::{ChildStep, FailedStep, Limit};
use crate::raw::checked;

/// First number of the keeper's table that no child ever sees. Above lives all that is stored.
pub(crate) const WINDOW_END: RawFd = 128;

/// What a child gets waits between here and [`WINDOW_END`], above every number it may ask for.
pub(crate) const STAGED: RawFd = 64;

/// All the child needs, made by the keeper before the clone.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: CString,
    /// Staged; run instead of the path.
    pub(crate) executable: Option<RawFd>,
    pub(crate) argv: Vector,
    pub(crate) env: Vector,
    /// Staged write end of the child's pipe. A byte in it says that the child has a descriptor table of its own.
    pub(crate) pipe: RawFd,
    /// First and last of the numbers below the window's end that are none of this child's: of children on their way
    /// beside it, which may have been in the table when it was copied.
    pub(crate) of_others: Vec<(RawFd, RawFd)>,
    /// Staged `cgroup.procs` of v1 cgroups.
    pub(crate) join: Vec<RawFd>,
    pub(crate) steps: Vec<(ChildStep, Option<CString>)>,
    /// Staged number and number wanted.
    pub(crate) attach: Vec<(RawFd, RawFd)>,
    pub(crate) pid_record: Option<(RawFd, Incarnation)>,
    /// Signals that the keeper ignores or handles, a bit each, 1 being bit 0.
    pub(crate) not_default: u64,
    /// When the child started, once it has looked for its record; 0 before.
    pub(crate) start_time: AtomicU64,
    progress: AtomicU32,
    errno: AtomicI32,
}

/// Strings as exec wants them: pointers, the last one null.
#[derive(Debug)]
pub(crate) struct Vector {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Vector {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers =
            strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        Self { _strings: strings, pointers }
    }
}

impl Plan {
    pub(crate) fn new(program: CString, argv: Vector, env: Vector) -> Self {
        Self {
            program,
            executable: None,
            pipe: -1,
            of_others: Vec::new(),
            argv,
            env,
            join: Vec::new(),
            steps: Vec::new(),
            attach: Vec::new(),
            pid_record: None,
            not_default: 0,
            start_time: AtomicU64::new(0),
            progress: AtomicU32::new(0),
            errno: AtomicI32::new(0),
        }
    }

    /// What failed and why. Complete once the child is gone or has run its program.
    pub(crate) fn failure(&self) -> Option<(FailedStep, i32)> {
        match self.errno.load(Ordering::Acquire) {
            0 => None,
            errno => Some((self.at(), errno)),
        }
    }

    /// The step the child is at.
    pub(crate) fn at(&self) -> FailedStep {
        let progress = self.progress.load(Ordering::Acquire) as usize;
        let Some(index) = progress.checked_sub(2) else {
            return if progress == 0 { FailedStep::Unshare } else { FailedStep::PidRecord };
        };
        let Some(index) = index.checked_sub(self.join.len()) else { return FailedStep::Join };
        if let Some((step, _)) = self.steps.get(index) {
            return FailedStep::Child(step.clone());
        }
        match self.attach.get(index - self.steps.len()) {
            Some((_, number)) => FailedStep::Attach(*number as u32),
            None => FailedStep::Exec,
        }
    }

    /// Names the next step before it is done, so that a child that hangs in it is known too.
    fn begin(&self) {
        self.progress.store(self.progress.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

/// What the clone enters.
pub(crate) extern "C" fn enter(plan: *const Plan) -> ! {
    // SAFETY: the keeper keeps the plan, and writes nothing in it, until this child has run its program or ended.
    let plan = unsafe { &*plan };
    let Err(errno) = become_program(plan);
    plan.errno.store(errno, Ordering::Release);
    loop {
        // SAFETY: ends this process alone: it is a thread group of its own.
        let _ = unsafe { checked(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]) };
    }
}

fn become_program(plan: &Plan) -> Result<std::convert::Infallible, i32> {
    let apart = [WINDOW_END as usize, u32::MAX as usize, libc::CLOSE_RANGE_UNSHARE as usize, 0, 0, 0];
    // SAFETY: with UNSHARE the table is copied, up to the window's end, before anything is closed.
    unsafe { checked(libc::SYS_close_range, apart)? };
    for (first, last) in &plan.of_others {
        // SAFETY: of this child's own table. A sibling's pipe that stayed open here would not end when that one runs.
        unsafe { checked(libc::SYS_close_range, [*first as usize, *last as usize, 0, 0, 0, 0])? };
    }
    let apart = b"a";
    // SAFETY: a buffer of the length told.
    unsafe { checked(libc::SYS_write, [plan.pipe as usize, apart.as_ptr() as usize, apart.len(), 0, 0, 0])? };

    plan.begin();
    if let Some((file, incarnation)) = plan.pid_record {
        write_record(file, incarnation, &plan.start_time)?;
    }
    for procs in &plan.join {
        plan.begin();
        join(*procs)?;
    }
    for (step, path) in &plan.steps {
        plan.begin();
        take(step, path.as_deref())?;
    }
    for (staged, number) in &plan.attach {
        plan.begin();
        // SAFETY: both are of this child's own table.
        unsafe { checked(libc::SYS_dup3, [*staged as usize, *number as usize, 0, 0, 0, 0])? };
    }
    plan.begin();
    reset_signals(plan.not_default)?;
    // An empty path and this flag: the descriptor itself.
    let (folder, path, flags) = match plan.executable {
        Some(staged) => (staged, c"".as_ptr(), libc::AT_EMPTY_PATH),
        None => (libc::AT_FDCWD, plan.program.as_ptr(), 0),
    };
    let exec = [
        folder as usize,
        path as usize,
        plan.argv.pointers.as_ptr() as usize,
        plan.env.pointers.as_ptr() as usize,
        flags as usize,
        0,
    ];
    // SAFETY: strings and vectors end in zero and outlive the call.
    let Err(errno) = (unsafe { checked(libc::SYS_execveat, exec) }) else { return Err(libc::EINVAL) };
    Err(errno)
}

fn take(step: &ChildStep, path: Option<&CStr>) -> Result<(), i32> {
    match step {
        ChildStep::SetSid => call(libc::SYS_setsid, [0; 3]),
        ChildStep::ChangeDir(_) => {
            let path = path.map_or(std::ptr::null(), CStr::as_ptr);
            call(libc::SYS_chdir, [path as usize, 0, 0])
        }
        ChildStep::Umask(mask) => call(libc::SYS_umask, [*mask as usize, 0, 0]),
        ChildStep::Rlimit(Limit { resource, soft, hard }) => {
            let limit = [*soft, *hard];
            // SAFETY: two 64-bit words, as the kernel's own structure, and nothing asked back; 0 is oneself.
            unsafe {
                checked(libc::SYS_prlimit64, [0, *resource as usize, limit.as_ptr() as usize, 0, 0, 0])?;
            }
            Ok(())
        }
        ChildStep::Ids { uid, gid, groups } => {
            let (uid, gid) = (*uid as usize, *gid as usize);
            call(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0])?;
            call(libc::SYS_setresgid, [gid; 3])?;
            call(libc::SYS_setresuid, [uid; 3])
        }
        ChildStep::NoNewPrivs => {
            let set = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
            // SAFETY: numbers only.
            unsafe { checked(libc::SYS_prctl, set)? };
            Ok(())
        }
        ChildStep::Nice(nice) => {
            call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, *nice as usize])
        }
    }
}

/// The calls above that take numbers, or what the plan holds.
fn call(number: libc::c_long, args: [usize; 3]) -> Result<(), i32> {
    // SAFETY: each changes this child's own attributes, and reads at most the path or list the plan holds.
    unsafe { checked(number, [args[0], args[1], args[2], 0, 0, 0]) }.map(drop)
}

/// Last before exec: what is ignored passes exec, and so does the mask. And a handler of the keeper's must not run
/// here once nothing is blocked.
fn reset_signals(not_default: u64) -> Result<(), i32> {
    // `struct sigaction` of the kernel: handler, flags, restorer, mask, all zero for the default.
    let default = [0_u64; 4];
    for signal in (1..=64).filter(|signal| not_default >> (signal - 1) & 1 == 1) {
        // SAFETY: the kernel reads the structure; this child's table of handlers is its own.
        unsafe {
            checked(libc::SYS_rt_sigaction, [signal, default.as_ptr() as usize, 0, size_of::<u64>(), 0, 0])?;
        }
    }
    let none = 0_u64;
    let args = [libc::SIG_SETMASK as usize, (&raw const none) as usize, 0, size_of::<u64>(), 0, 0];
    // SAFETY: the kernel reads one word.
    unsafe { checked(libc::SYS_rt_sigprocmask, args)? };
    Ok(())
}

/// Before the steps, which may take away the right to. The number 0 is whoever writes it.
fn join(procs: RawFd) -> Result<(), i32> {
    let own = b"0";
    // SAFETY: a buffer of the length told; a descriptor of this child's own table.
    unsafe { checked(libc::SYS_write, [procs as usize, own.as_ptr() as usize, own.len(), 0, 0, 0])? };
    Ok(())
}

fn write_record(file: RawFd, incarnation: Incarnation, told: &AtomicU64) -> Result<(), i32> {
    let mut stat = [0_u8; 1024];
    let path = c"/proc/self/stat";
    // SAFETY: a path that ends in zero; a buffer of the length told; descriptors of this child's own table.
    let length = unsafe {
        let open = [libc::AT_FDCWD as usize, path.as_ptr() as usize, libc::O_CLOEXEC as usize, 0, 0, 0];
        let opened = checked(libc::SYS_openat, open)?;
        let length = checked(libc::SYS_read, [opened, stat.as_mut_ptr() as usize, stat.len(), 0, 0, 0])?;
        checked(libc::SYS_close, [opened, 0, 0, 0, 0, 0])?;
        length
    };
    let start_time = stat.get(..length).and_then(parse_start_time).ok_or(libc::EIO)?;
    told.store(start_time, Ordering::Release);
    // SAFETY: takes nothing.
    let pid = unsafe { checked(libc::SYS_getpid, [0; 6])? } as u32;
    let record = PidRecord { incarnation, pid, start_time }.to_bytes();
    // SAFETY: a buffer of the length told.
    let written = unsafe {
        checked(libc::SYS_pwrite64, [file as usize, record.as_ptr() as usize, record.len(), 0, 0, 0])?
    };
    if written == record.len() { Ok(()) } else { Err(libc::EIO) }
}
