//! Lines that are a program's word for ready, or a sign of its life.

use std::time::{Duration, Instant};

use watchdog_protocol::{Incarnation, ServiceName};

use crate::config::LogSigns;

/// A line that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// Whose.
    pub service: ServiceName,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// What it is a sign of.
    pub of: SignOf,
}

/// What a line is a sign of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOf {
    /// It is ready; told once.
    Ready,
    /// It is alive; a flood of these is told now and then.
    Alive,
}

/// What is looked for in the lines of one process.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) incarnation: Incarnation,
    signs: LogSigns,
    /// Signs of life are told no more often.
    beat: Duration,
    told: Option<Instant>,
}

impl Watch {
    pub(super) fn new(incarnation: Incarnation, signs: LogSigns, beat: Duration) -> Self {
        Self { incarnation, signs, beat, told: None }
    }

    /// What is to be told of this line.
    pub(super) fn line(&mut self, text: &str, now: Instant) -> Vec<SignOf> {
        let mut seen = Vec::new();
        if self.signs.ready.take_if(|ready| ready.fits(text)).is_some() {
            seen.push(SignOf::Ready);
        }
        let is_due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= self.beat);
        if is_due && self.signs.alive.as_ref().is_some_and(|alive| alive.fits(text)) {
            self.told = Some(now);
            seen.push(SignOf::Alive);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_told_once_and_alive_no_more_often_than_wanted() {
        let signs = LogSigns { ready: "^up$".parse().ok(), alive: "tick".parse().ok() };
        let mut watch = Watch::new(Incarnation::FIRST, signs, Duration::from_secs(1));
        let now = Instant::now();
        assert_eq!(watch.line("not up", now), []);
        assert_eq!(watch.line("up", now), [SignOf::Ready]);
        assert_eq!(watch.line("up", now), []);
        assert_eq!(watch.line("tick 1", now), [SignOf::Alive]);
        assert_eq!(watch.line("tick 2", now + Duration::from_millis(999)), []);
        assert_eq!(watch.line("tick 3", now + Duration::from_secs(1)), [SignOf::Alive]);
    }
}
