//! System calls without libc around them.
//!
//! A child between clone and exec shares the keeper's memory, the thread-local `errno` of libc included, and runs
//! beside the keeper: there a libc wrapper would change the keeper's `errno` under its hands. And `clone3` on a
//! stack of its own has no wrapper at all.
#![expect(unsafe_code, reason = "system calls, and a child on a stack of its own")]

use std::arch::asm;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// One system call; a negative result is a negated errno. Touches neither libc nor thread-local memory.
///
/// # Safety
/// As that call with those arguments.
pub(crate) unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's convention: number in rax, six arguments, rcx and r11 lost, nothing else touched but
    // what the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's convention: number in x8, six arguments, nothing else touched but what the caller
    // vouches for.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            options(nostack),
        );
    }
    result
}

/// As [`syscall`], with the errno apart.
///
/// # Safety
/// As [`syscall`].
pub(crate) unsafe fn checked(number: libc::c_long, args: [usize; 6]) -> Result<usize, i32> {
    // SAFETY: by contract.
    let result = unsafe { syscall(number, args) };
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

/// The signals this process ignores or handles, a bit each, 1 being bit 0.
pub(crate) fn not_default_signals() -> u64 {
    let is_changed = |signal: &usize| {
        // `struct sigaction` of the kernel: handler, flags, restorer, mask.
        let mut found = [0_u64; 4];
        let args = [*signal, 0, found.as_mut_ptr() as usize, size_of::<u64>(), 0, 0];
        // SAFETY: nothing is set; the kernel writes the one structure.
        unsafe { checked(libc::SYS_rt_sigaction, args) }.is_ok() && found[0] != libc::SIG_DFL as u64
    };
    (1..=64).filter(is_changed).fold(0, |bits, signal| bits | 1 << (signal - 1))
}

/// A descriptor for a process that is a child of this one, and so can't be another by now.
pub(crate) fn pidfd_of(child: u32) -> Result<OwnedFd, i32> {
    // SAFETY: two numbers.
    let descriptor = unsafe { checked(libc::SYS_pidfd_open, [child as usize, 0, 0, 0, 0, 0])? };
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// A child's stack, with a page below that can't be touched.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut libc::c_void,
}

impl Stack {
    /// A debug build of the child's side needs 4 KiB.
    const LENGTH: usize = 64 * 1024;
    const GUARD: usize = 64 * 1024;

    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh mapping, at an address of the kernel's choice.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), Self::GUARD + Self::LENGTH, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: within the mapping, which nobody else knows.
        if unsafe { libc::mprotect(stack.low(), Self::LENGTH, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    fn low(&self) -> *mut libc::c_void {
        self.base.wrapping_byte_add(Self::GUARD)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and dropped by who knows that no child runs on it.
        unsafe { libc::munmap(self.base, Self::GUARD + Self::LENGTH) };
    }
}

/// The kernel's; libc's constant is an int and loses this bit.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A process that shares memory and descriptor table with this one, running `entry(argument)` on `stack`; its
/// pid and pidfd. Errors are errnos.
///
/// # Safety
/// All signals are blocked. `entry` never returns, calls nothing of libc, and reads only memory that stays valid,
/// as does `stack`, until the child has replaced its memory or ended.
pub(crate) unsafe fn clone_sharing<T>(
    entry: extern "C" fn(*const T) -> !,
    argument: *const T,
    stack: &Stack,
    cgroup: Option<RawFd>,
) -> Result<(u32, OwnedFd), i32> {
    let mut pidfd: RawFd = -1;
    let shared = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD) as u64;
    let flags = shared | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.low() as u64,
        stack_size: Stack::LENGTH as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.unwrap_or(0) as u64,
    };
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child starts behind the system call with rax 0, all other registers kept and rsp at the top of
    // its empty stack, which is aligned; it calls `entry` and never comes back. The parent falls through, its
    // stack untouched. By contract of this function the child harms nothing that is shared.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above, with the result in x0.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") &raw const args => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x20") argument,
            in("x21") entry,
            lateout("x30") _,
        );
    }
    if result < 0 {
        return Err(-result as i32);
    }
    // SAFETY: the kernel has just made it, for this call.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((result as u32, pidfd))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the keeper spawns by hand: it knows the system calls of x86_64 and aarch64 only");

/// Sends a signal to a process, or with a negative number to a group. Errors are errnos.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), i32> {
    // SAFETY: takes numbers only.
    unsafe { checked(libc::SYS_kill, [pid as usize, signal as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Blocks every signal, the two that glibc keeps for itself included, and takes back an inherited "ignore" of
/// SIGCHLD: with that the kernel would reap in the keeper's place.
pub(crate) fn take_over_signals() -> io::Result<()> {
    let all = u64::MAX;
    let default = [0_u64; 4];
    let block = [libc::SIG_SETMASK as usize, (&raw const all) as usize, 0, size_of::<u64>(), 0, 0];
    let child = [libc::SIGCHLD as usize, default.as_ptr() as usize, 0, size_of::<u64>(), 0, 0];
    // SAFETY: the kernel reads one word, and one structure of four: handler, flags, restorer, mask.
    unsafe { checked(libc::SYS_rt_sigprocmask, block).and(checked(libc::SYS_rt_sigaction, child)) }
        .map(drop)
        .map_err(io::Error::from_raw_os_error)
}
