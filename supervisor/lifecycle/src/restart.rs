//! What follows an end: whether to restart, after which wait, and when to give up.
//!
//! The first restart comes at once. From the second on the wait is drawn from zero up to a bound that doubles
//! (full jitter: services that died together do not come back together). A stable time resets the bound.
//! Too many failures in too short a time are a crash loop.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::moment::{Chance, Moment};

/// Which ends are followed by a restart. An end that somebody asked for never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// All but exit code 0.
    OnFailure,
    /// None.
    Never,
}

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Never.
    Off,
    /// More than so many failures within a time.
    Within {
        /// So many are borne.
        failures: u32,
        /// Within this time.
        window: Duration,
    },
}

impl Limit {
    /// Counts a failure: how many there were within which time, when these are too many.
    pub(crate) fn count(self, recent: &mut Vec<Moment>, now: Moment) -> Option<(u32, Duration)> {
        let Self::Within { failures, window } = self else { return None };
        recent.retain(|then| now.since(*then) <= window);
        recent.push(now);
        let count = u32::try_from(recent.len()).unwrap_or(u32::MAX);
        (count > failures).then_some((count, window))
    }
}

/// The wait before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// None, ever.
    AtOnce,
    /// None before the first restart, then growing.
    Growing {
        /// The bound of the first wait.
        min: Duration,
        /// The bound stops doubling here.
        max: Duration,
        /// Ready for so long: the next failure is a first one again.
        reset: Duration,
    },
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Which ends. Default: failures.
    pub when: When,
    /// When to give up. Default: more than 5 failures within 60 s. Under [`When::Always`] every end nobody asked
    /// for counts, exit code 0 too: else `restart_delay = "0s"` would be a loop without an end.
    pub limit: Limit,
    /// The wait. Default: 100 ms doubling to 30 s, reset after a minute.
    pub delay: Delay,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            when: When::OnFailure,
            limit: Limit::Within { failures: 5, window: Duration::from_secs(60) },
            delay: Delay::Growing {
                min: Duration::from_millis(100),
                max: Duration::from_secs(30),
                reset: Duration::from_secs(60),
            },
        }
    }
}

/// What is remembered of past failures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Those within the limit's window.
    recent: Vec<Moment>,
    /// In a row, without a stable time between.
    streak: u32,
}

impl History {
    /// Failures in a row, without a stable time between.
    pub fn streak(&self) -> u32 {
        self.streak
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it did its work.
    Complete,
    /// A restart.
    Restart {
        /// After this wait; may be zero.
        wait: Duration,
    },
    /// Nothing: it failed, for this cause.
    Fail(Cause),
}

impl Restart {
    /// What follows an end that nobody asked for. `ready_for`: how long the incarnation had been ready.
    pub fn decide(
        &self,
        history: &mut History,
        cause: &Cause,
        ready_for: Option<Duration>,
        now: Moment,
        chance: Chance,
    ) -> Decision {
        let completed = matches!(cause, Cause::ExitCode { code: 0 });
        match (self.when, completed) {
            (When::OnFailure | When::Never, true) => return Decision::Complete,
            (When::Never, false) => return Decision::Fail(cause.clone()),
            (When::OnFailure, false) | (When::Always, true | false) => {}
        }
        self.failed(history, cause, ready_for, now, chance)
    }

    /// Counts a failure, whatever [`When`] says.
    pub(crate) fn failed(
        &self,
        history: &mut History,
        cause: &Cause,
        ready_for: Option<Duration>,
        now: Moment,
        chance: Chance,
    ) -> Decision {
        if let Some((failures, window)) = self.limit.count(&mut history.recent, now) {
            return Decision::Fail(Cause::Limit { failures, window, last: Box::new(cause.clone()) });
        }
        let Delay::Growing { min, max, reset } = self.delay else {
            history.streak = history.streak.saturating_add(1);
            return Decision::Restart { wait: Duration::ZERO };
        };
        if ready_for.is_some_and(|stable| stable >= reset) {
            history.streak = 0;
        }
        history.streak = history.streak.saturating_add(1);
        let wait = match history.streak {
            0 | 1 => Duration::ZERO,
            more => {
                let factor = 1_u32.checked_shl(more - 2).unwrap_or(u32::MAX);
                chance.part_of(min.saturating_mul(factor).min(max))
            }
        };
        Decision::Restart { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000_000);
    const MOST: Chance = Chance::from_bits(u64::MAX);

    fn unlimited() -> Restart {
        Restart { limit: Limit::Off, ..Restart::default() }
    }

    fn wait_of(decision: &Decision) -> Duration {
        match decision {
            Decision::Restart { wait } => *wait,
            Decision::Complete | Decision::Fail(_) => panic!("{decision:?}"),
        }
    }

    fn crash() -> Cause {
        Cause::ExitCode { code: 1 }
    }

    #[test]
    fn the_first_restart_comes_at_once_then_the_bound_doubles_up_to_the_largest() {
        let mut history = History::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            let decision = unlimited().decide(&mut history, &crash(), None, START, MOST);
            // The largest draw is a hair below its bound.
            waits.push((wait_of(&decision).as_secs_f64() * 1000.0).round() as u64);
        }
        assert_eq!(waits[..11], [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        assert!(waits[11..].iter().all(|wait| *wait == 30_000));
    }

    #[test]
    fn a_stable_minute_makes_the_next_failure_a_first_one() {
        let (mut history, minute) = (History::default(), Duration::from_secs(60));
        for _ in 0..5 {
            unlimited().decide(&mut history, &crash(), None, START, MOST);
        }
        let almost = minute - Duration::from_nanos(1);
        assert!(
            wait_of(&unlimited().decide(&mut history, &crash(), Some(almost), START, MOST)) > Duration::ZERO
        );
        assert_eq!(
            wait_of(&unlimited().decide(&mut history, &crash(), Some(minute), START, MOST)),
            Duration::ZERO
        );
    }

    #[test]
    fn the_sixth_failure_within_a_minute_is_a_crash_loop_the_sixth_after_it_is_not() {
        for (apart, loops) in [(Duration::from_secs(12), true), (Duration::from_millis(12_001), false)] {
            let (mut history, mut now) = (History::default(), START);
            for _ in 0..5 {
                wait_of(&Restart::default().decide(&mut history, &crash(), None, now, MOST));
                now = now.after(apart);
            }
            let sixth = Restart::default().decide(&mut history, &crash(), None, now, MOST);
            assert_eq!(matches!(sixth, Decision::Fail(Cause::Limit { failures: 6, .. })), loops, "{sixth:?}");
        }
    }

    #[test]
    fn exit_code_0_completes_unless_it_is_always_restarted() {
        let clean = Cause::ExitCode { code: 0 };
        for (when, expected) in [
            (When::OnFailure, Decision::Complete),
            (When::Never, Decision::Complete),
            (When::Always, Decision::Restart { wait: Duration::ZERO }),
        ] {
            let restart = Restart { when, ..Restart::default() };
            assert_eq!(restart.decide(&mut History::default(), &clean, None, START, MOST), expected);
        }
        let never = Restart { when: When::Never, ..Restart::default() };
        assert_eq!(
            never.decide(&mut History::default(), &crash(), None, START, MOST),
            Decision::Fail(crash())
        );
    }

    #[test]
    fn at_once_is_always_at_once_and_off_never_gives_up() {
        let restart = Restart { limit: Limit::Off, delay: Delay::AtOnce, ..Restart::default() };
        let mut history = History::default();
        for _ in 0..1000 {
            assert_eq!(wait_of(&restart.decide(&mut history, &crash(), None, START, MOST)), Duration::ZERO);
        }
        assert!(history.recent.is_empty(), "an unlimited service must not gather memory");
    }
}
