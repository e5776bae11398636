//! The cgroups of all services at once: found and made as a core begins, removed as the last one ends.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use watchdog_protocol::ServiceName;

use super::Core;
use crate::limiting::Means;
use crate::processes::cgroup::{Cgroup, CgroupTree, NoCgroup};

/// What of the machine's a core found on a thread, while it opened its files.
pub(super) struct OfMachine {
    pub(super) cgroups: Result<CgroupTree, NoCgroup>,
    pub(super) means: Means,
}

/// Finds the cgroups there are for services, and what limits them; then makes the cgroup of each of these ahead of its
/// start. To make one takes longer than all else the core does for a start, and while it begins there is a processor
/// to spare.
pub(super) fn find(state: PathBuf, services: Vec<ServiceName>) -> (Receiver<OfMachine>, JoinHandle<()>) {
    let (sender, found) = channel();
    let thread = thread::spawn(move || {
        let cgroups = CgroupTree::make(&state);
        let means = Means::probe(&state, cgroups.as_ref().ok());
        let ahead = cgroups.as_ref().ok().cloned();
        // Whoever waited is gone: so is the core.
        let _ = sender.send(OfMachine { cgroups, means });
        for service in services {
            // What goes wrong is told at its start.
            let _ = ahead.as_ref().map(|tree| tree.make_ahead(&service));
        }
    });
    (found, thread)
}

impl Core {
    /// Everything is stopped: nothing is in them. Only now: on a thread, while other services stop, it made a shutdown of a
    /// hundred slower (3.2 instead of 2.8 times the floor of the benchmark), for the kernel has one lock for all cgroups.
    pub(super) fn remove_cgroups(&mut self) {
        if let Some(making) = self.making_cgroups.take()
            && let Err(panic) = making.join()
        {
            std::panic::resume_unwind(panic);
        }
        self.limiting.means.clear();
        let cgroups = self.entries.values().filter_map(|entry| entry.cgroup.as_ref());
        let removed = cgroups.map(Cgroup::remove).chain(self.cgroups.iter().map(CgroupTree::remove));
        // One that something got into meanwhile hurts nobody, and is used again.
        for err in removed.filter_map(Result::err) {
            tracing::warn!("cannot remove a cgroup: {err}");
        }
    }
}
