//! On which cores this process runs, and with it all that it starts.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where the two sides of a figure run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Everything on one: a round trip is two context switches.
    One,
    /// Wherever the kernel puts it.
    All,
}

/// The cores as they were, put back when dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

/// Moves this process, and what it starts from now on.
pub(crate) fn pin(cores: Cores) -> Pinned {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).expect("one's own cores can be read");
    if cores == Cores::One {
        let allowed = |core: &usize| before.is_set(*core).expect("a number below the set's size");
        // The last one: interrupts like the first.
        let last = (0..CpuSet::count()).rev().find(allowed).expect("it runs on some core");
        let mut one = CpuSet::new();
        one.set(last).expect("it is set before");
        sched_setaffinity(this, &one).expect("a core that is allowed");
    }
    Pinned { before }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.before).expect("they were allowed before");
    }
}
