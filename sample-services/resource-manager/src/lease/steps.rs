//! Until when how many tokens may be used.

use std::time::Duration;

/// What was granted last, and before it what was granted earlier, is more, and ends sooner. By end, so each has fewer than
/// the one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Steps(Vec<(u32, Duration)>);

impl Steps {
    pub(super) fn of(tokens: u32, until: Duration) -> Self {
        let mut steps = Self::default();
        steps.grant(tokens, until);
        steps
    }

    /// The most that may be used at this moment, if nothing more is granted.
    pub(super) fn at(&self, now: Duration) -> u32 {
        self.0.iter().find(|(_, until)| *until > now).map_or(0, |(tokens, _)| *tokens)
    }

    /// So many may be used until then; what was granted before holds as long as it did.
    pub(super) fn grant(&mut self, tokens: u32, until: Duration) {
        self.0.push((tokens, until));
        self.tidy();
    }

    /// No more are used, whatever was granted.
    pub(super) fn give_back(&mut self, all_but: u32) {
        self.0.iter_mut().for_each(|(tokens, _)| *tokens = (*tokens).min(all_but));
        self.tidy();
    }

    /// When fewer may be used than now.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        self.0.iter().map(|(_, until)| *until).find(|until| *until > now)
    }

    /// Leaves out what another one has and more.
    fn tidy(&mut self) {
        self.0.sort_by_key(|(tokens, until)| std::cmp::Reverse((*until, *tokens)));
        let mut most = 0;
        self.0.retain(|(tokens, _)| {
            let counts = *tokens > most;
            most = most.max(*tokens);
            counts
        });
        self.0.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn what_was_granted_before_holds_as_long_as_it_did() {
        let mut steps = Steps::of(10, at(15));
        steps.grant(4, at(20));
        assert_eq!([0, 14, 15, 19, 20].map(|second| steps.at(at(second))), [10, 10, 4, 4, 0]);
        assert_eq!(steps.next(at(15)), Some(at(20)));
        steps.give_back(6);
        assert_eq!([14, 15].map(|second| steps.at(at(second))), [6, 4]);
        steps.grant(8, at(22));
        assert_eq!(steps, Steps::of(8, at(22)));
        steps.give_back(0);
        assert_eq!(steps, Steps::default());
    }
}
