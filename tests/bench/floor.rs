//! The floor of supervision: keeps its programs alive, ends them when told to, and does nothing else.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rustix::event::epoll;
use rustix::process::{Pid as PidOf, PidfdFlags, pidfd_open};

use crate::stamps::now;

/// A process of this program that keeps `count` processes of `program` alive, until dropped.
#[derive(Debug)]
pub(crate) struct Floor(Child);

impl Floor {
    /// Starts it; each `program` says to `stamps` when it lives.
    pub(crate) fn start(program: &Path, count: usize, stamps: &Path) -> Self {
        let mut command = Command::new(env::current_exe().expect("the path of this program"));
        command.arg("floor").arg(program).arg(count.to_string()).env("STAMP_TO", stamps);
        command.stdin(Stdio::piped());
        Self(command.spawn().expect("this program runs"))
    }

    /// Ends it with all its programs; how long that took.
    pub(crate) fn stop(mut self) -> Duration {
        let begin = now();
        self.end();
        now().saturating_sub(begin)
    }

    fn end(&mut self) {
        drop(self.0.stdin.take());
        let _reaped = self.0.wait();
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.end();
    }
}

/// The supervisor itself: one pidfd a program in one epoll, a new process for one that ended; at the end of
/// its standard input sends SIGTERM to all and ends when they have. The standard library spawns as `vfork` does, by `posix_spawn`: nothing is copied.
pub(crate) fn supervise(program: &str, count: usize) {
    let events = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
    let watch = |fd: &dyn AsFd, slot: usize| {
        let data = epoll::EventData::new_u64(u64::try_from(slot).expect("a count"));
        epoll::add(&events, fd.as_fd(), data, epoll::EventFlags::IN).expect("it can be polled");
    };
    watch(&io::stdin(), count);
    let mut kept: Vec<(Child, OwnedFd)> = Vec::with_capacity(count);
    for slot in 0..count {
        kept.push(spawn(program));
        watch(&kept[slot].1, slot);
    }
    let mut ready = Vec::with_capacity(count + 1);
    loop {
        ready.clear();
        epoll::wait(&events, rustix::buffer::spare_capacity(&mut ready), None).expect("an epoll of ours");
        for event in &ready {
            let slot = usize::try_from(event.data.u64()).expect("a count");
            if slot == count {
                return end(&mut kept);
            }
            let (child, pidfd) = &mut kept[slot];
            child.wait().expect("it ended");
            epoll::delete(&events, &*pidfd).expect("it was added");
            kept[slot] = spawn(program);
            watch(&kept[slot].1, slot);
        }
    }
}

fn spawn(program: &str) -> (Child, OwnedFd) {
    let child = Command::new(program).stdin(Stdio::null()).spawn().expect("the program runs");
    let pidfd = pidfd_open(PidOf::from_child(&child), PidfdFlags::empty()).expect("a child of ours");
    (child, pidfd)
}

fn end(kept: &mut [(Child, OwnedFd)]) {
    for (child, _) in &mut *kept {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("the kernel's numbers fit"));
        signal::kill(pid, Signal::SIGTERM).expect("a child of ours");
    }
    for (child, _) in kept {
        child.wait().expect("a child of ours");
    }
}
