//! What was told and what was counted, message by message, out of what the two samples print.
//!
//! The bumper prints a line after each `tell` that returned Ok, the counter one after each save, with the message's
//! id. A log loses and doubles nothing whoever dies, so these are the figures as both sides know them, and no
//! figure of the watchdog's own decides whether the watchdog lost something.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{BUMPER, COUNTER};
use crate::capture::reader::{Back, Follow, Record};

const TOLD: &str = "DEBUG bumper: told";
const COUNTED: &str = "DEBUG counter: counted id=";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Lines of tells that returned Ok.
    told: u64,
    /// How often each message was applied. One that came again and was known is not applied again.
    applied: BTreeMap<String, u64>,
    last: Option<Timestamp>,
    longest_pause: Duration,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Balance {
    /// Tells that returned Ok.
    pub(super) sent: u64,
    /// Messages applied, each once.
    pub(super) handled: u64,
    pub(super) lost: u64,
    /// Messages applied twice.
    pub(super) duplicated: u64,
    /// The longest time between two messages handled.
    pub(super) longest_pause: Duration,
}

impl Ledger {
    pub(super) fn read(logs: &Path) -> io::Result<Self> {
        let mut ledger = Self::default();
        let services = [BUMPER.clone(), COUNTER.clone()];
        for record in Follow::from_end(logs, &services, Back::records(usize::MAX))?.1 {
            ledger.enter(&record);
        }
        Ok(ledger)
    }

    fn enter(&mut self, record: &Record) {
        if record.text == TOLD {
            self.told += 1;
        }
        let Some((id, again)) =
            record.text.strip_prefix(COUNTED).and_then(|fields| fields.split_once(" again="))
        else {
            return;
        };
        // A process that dies between its save and its line has the message delivered again, and says so then.
        *self.applied.entry(id.to_owned()).or_default() += u64::from(again == "false");
        if let Ok(now) = record.time.parse::<Timestamp>() {
            let pause = self.last.and_then(|last| Duration::try_from(now.duration_since(last)).ok());
            self.longest_pause = self.longest_pause.max(pause.unwrap_or_default());
            self.last = Some(now);
        }
    }

    /// A bumper that is killed between the kernel's taking a message and its line leaves a message that is counted
    /// and that nobody said was told: at most one a death. It counts as sent. So a lost message could hide behind it,
    /// were one lost in the same round that a kill met these microseconds.
    pub(super) fn balance(&self, bumper_deaths: u64) -> Balance {
        let handled = self.applied.len() as u64;
        let sent = self.told + handled.saturating_sub(self.told).min(bumper_deaths);
        let twice: u64 = self.applied.values().map(|times| times.saturating_sub(1)).sum();
        Balance {
            sent,
            handled,
            lost: sent.saturating_sub(handled),
            // More ids than were told: the same message under another one.
            duplicated: twice + handled.saturating_sub(sent),
            longest_pause: self.longest_pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(lines: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        for (second, text) in lines.iter().enumerate() {
            ledger.enter(&Record {
                service: COUNTER.clone(),
                time: format!("2026-11-24T09:00:0{second}.000000Z"),
                stream: None,
                goes_on: false,
                text: (*text).to_owned(),
            });
        }
        ledger
    }

    const ONE: &str = "DEBUG counter: counted id=00ff-1 again=false";
    const ONE_AGAIN: &str = "DEBUG counter: counted id=00ff-1 again=true";
    const TWO: &str = "DEBUG counter: counted id=00ff-2 again=false";

    fn figures(ledger: &Ledger, bumper_deaths: u64) -> (u64, u64, u64, u64) {
        let Balance { sent, handled, lost, duplicated, .. } = ledger.balance(bumper_deaths);
        (sent, handled, lost, duplicated)
    }

    #[test]
    fn what_is_told_and_not_counted_is_lost() {
        assert_eq!(figures(&ledger(&[TOLD, ONE, TOLD]), 0), (2, 1, 1, 0));
    }

    #[test]
    fn a_message_that_came_again_and_was_known_is_counted_once() {
        assert_eq!(figures(&ledger(&[TOLD, ONE, ONE_AGAIN]), 0), (1, 1, 0, 0));
        assert_eq!(figures(&ledger(&[TOLD, ONE_AGAIN]), 0), (1, 1, 0, 0));
        assert_eq!(figures(&ledger(&[TOLD, ONE, ONE]), 0), (1, 1, 0, 1));
    }

    #[test]
    fn each_death_of_the_bumper_may_hide_one_line_and_no_more() {
        let more = ledger(&[TOLD, ONE, TWO]);
        assert_eq!(figures(&more, 1), (2, 2, 0, 0));
        assert_eq!(figures(&more, 0), (1, 2, 0, 1));
    }

    #[test]
    fn a_pause_is_between_two_messages_counted() {
        let paused = ledger(&[TOLD, ONE, TOLD, "INFO counter: step=10", "", TWO, "INFO bye", TOLD]);
        assert_eq!(paused.balance(0).longest_pause, Duration::from_secs(4));
    }
}
