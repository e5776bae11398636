//! The end of a keeper: everything that is left is killed, waited for, and named if it does not die.

use std::time::{Duration, Instant};

use crate::console::say;
use crate::leaders::Leaders;
use crate::raw;
use crate::reap;

/// How often what was adopted meanwhile is killed too.
const LOOK: Duration = Duration::from_millis(20);

/// How long the dying may take, the core's time to leave included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Killing and waiting.
#[derive(Debug)]
pub(crate) struct Finish {
    code: u8,
    next_look: Instant,
    until: Instant,
    over: bool,
}

impl Finish {
    pub(crate) fn new(code: u8, now: Instant) -> Self {
        Self { code, next_look: now, until: now + PATIENCE, over: false }
    }

    /// The keeper's exit code, when it is over.
    pub(crate) fn code(&self) -> Option<u8> {
        self.over.then_some(self.code)
    }

    pub(crate) fn next_look(&self) -> Instant {
        self.next_look
    }

    pub(crate) fn nobody_left(&mut self) {
        self.over = true;
    }

    /// Kills everybody but the core, which leaves by itself.
    pub(crate) fn look(&mut self, now: Instant, leaders: &Leaders, core: Option<u32>) {
        self.next_look = now + LOOK;
        for leader in leaders.all() {
            leader.kill_group();
        }
        let mut left = reap::children().unwrap_or_default();
        if now >= self.until && !left.is_empty() {
            say(format_args!("leaving without the end of {left:?}, which do not die"));
            self.over = true;
        }
        left.retain(|pid| Some(*pid) != core);
        for pid in left {
            let _ = raw::kill(pid as i32, libc::SIGKILL);
        }
    }
}
