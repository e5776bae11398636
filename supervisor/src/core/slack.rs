//! Memory that a burst left unused: given back once the burst is over.
//!
//! Reading a configuration takes many times what stays of it, and what stays lies all over that room. The allocator
//! keeps the pages in between for the next burst, which may come in a month. So does the kernel with the pages of the program
//! that only the burst needed.

use std::time::Duration;

use tokio::time::Instant;
use watchdog_keeper::give_back_unused;

/// How long after it began a burst is over: it takes the time of a thousand starts.
const BURST: Duration = Duration::from_secs(2);

/// When to give back.
#[derive(Debug)]
pub(super) struct Slack {
    due: Option<Instant>,
}

impl Slack {
    /// Something took much memory for a moment: a start, a reload.
    pub(super) fn after(begin: Instant) -> Self {
        Self { due: Some(begin + BURST) }
    }

    /// When there is something to give back.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives back what is due by now: some milliseconds for ten megabytes.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.due.take_if(|due| *due <= now).is_some() {
            give_back_unused();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::{Identity, Process};

    fn resident() -> u64 {
        Process::read(Identity::of_self().unwrap().pid).unwrap().resident
    }

    #[test]
    fn pages_between_what_stays_are_given_back_when_they_are_due_and_what_stays_is_whole() {
        const KIB: usize = 1024;
        let begin = Instant::now();
        let mut slack = Slack::after(begin);
        // Each too short to be given back by itself, and one in sixteen stays.
        let mut all: Vec<Option<Vec<u8>>> = (0..64 * KIB).map(|at| Some(vec![at as u8; 4 * KIB])).collect();
        all.iter_mut().enumerate().filter(|(at, _)| at % 16 > 0).for_each(|(_, each)| *each = None);
        let before = resident();
        slack.give_back(begin);
        assert_eq!(slack.due(), Some(begin + BURST), "not yet");
        slack.give_back(begin + BURST);
        assert_eq!(slack.due(), None);
        let given = before.saturating_sub(resident());
        // Other tests of this process take and give meanwhile.
        assert!(!cfg!(target_env = "gnu") || given > 128 * 1024 * 1024, "{given} of {before}");
        let stays = all.iter().enumerate().filter_map(|(at, each)| Some((at, each.as_ref()?)));
        assert_eq!(stays.clone().count(), 4 * KIB);
        stays.for_each(|(at, each)| assert!(each.iter().all(|byte| *byte == at as u8)));
    }
}
