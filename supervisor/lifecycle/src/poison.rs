//! When a message becomes a dead letter: it was in hand when its receiver died, three times running.
//!
//! ```text
//! process ended ─► had it a message of this lane in hand? ─► is the message to blame? ─► one death more
//!                                                                     three ─► moved, before the next process
//! ```
//! A death that somebody asked for, or that settings caused, blames no message, and neither does one with nothing in
//! hand. Such a death takes no count back either: the messages are still in the lane.
//!
//! Where nothing is deferred, what is in hand is at the head. Else all that was handed over comes again after a death, in
//! the order of the lane: what stands before the one in hand was in hand in this process too, and did no harm; what
//! stands behind it was not reached, and keeps its deaths. A message that is deferred is in nobody's hand: what the
//! service does with it meanwhile is not held against it.

use serde::{Deserialize, Serialize};
use watchdog_protocol::{Incarnation, MessageNumber};

use crate::cause::Cause;

/// Deaths at whose end a message is a dead letter.
pub const DEATHS: usize = 3;

/// Suspects of one lane. More than a few are no messages that kill, but a service that dies of something else.
const MOST: usize = 16;

/// What a lane's page says of its receiver at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// All up to here are done.
    pub done: MessageNumber,
    /// The one that was in hand, as far as it is not done.
    pub in_hand: MessageNumber,
}

/// One death with a message in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which process.
    pub incarnation: Incarnation,
    /// Why, in words.
    pub cause: String,
}

/// A message whose receivers died with it in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    number: MessageNumber,
    deaths: Vec<Death>,
}

/// Those of one lane, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Suspects(Vec<Suspect>);

impl Suspects {
    /// A process of the receiver ended, which had the lane. Told twice of the same end, it is the same.
    pub fn ended(&mut self, incarnation: Incarnation, cause: &Cause, reached: &Reached) {
        self.0.retain(|suspect| suspect.number > reached.done);
        let number = reached.in_hand;
        if number <= reached.done || !may_blame_a_message(cause) {
            return;
        }
        self.0.retain(|suspect| suspect.number >= number);
        if self.0.first().is_none_or(|first| first.number > number) {
            self.0.insert(0, Suspect { number, deaths: Vec::new() });
            self.0.truncate(MOST);
        }
        let deaths = &mut self.0[0].deaths;
        if deaths.last().is_none_or(|last| last.incarnation < incarnation) {
            deaths.push(Death { incarnation, cause: cause.to_string() });
        }
    }

    /// The first that is to be a dead letter.
    pub fn poison(&self) -> Option<&Suspect> {
        self.0.iter().find(|suspect| suspect.deaths.len() >= DEATHS)
    }

    /// It is no suspect any more.
    pub fn forget(&mut self, number: MessageNumber) {
        self.0.retain(|suspect| suspect.number != number);
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Suspect> {
        self.0.iter()
    }
}

impl Suspect {
    /// Which message.
    pub fn number(&self) -> MessageNumber {
        self.number
    }

    /// Its deaths, oldest first.
    pub fn deaths(&self) -> &[Death] {
        &self.deaths
    }
}

/// Whether what was in hand may be why.
fn may_blame_a_message(cause: &Cause) -> bool {
    !cause.was_asked_for() && !matches!(cause, Cause::Settings { .. })
}
