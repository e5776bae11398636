//! When a message becomes a dead letter: it was in hand when its receiver died, three times running.
//!
//! ```text
//! process ended ─► had it a message of this lane in hand? ─► is the message to blame? ─► one death more
//!                                                                     three ─► moved, before the next process
//! ```
//! A death that somebody asked for, or that settings caused, blames no message, and neither does one with nothing in
//! hand. Such a death takes no count back either: the message is still at the head.

use serde::{Deserialize, Serialize};
use watchdog_protocol::{Incarnation, MessageNumber};

use crate::cause::Cause;

/// Deaths at whose end a message is a dead letter.
pub const DEATHS: usize = 3;

/// What a lane's page says of its receiver at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reached {
    /// The last message that was taken.
    pub taken: MessageNumber,
    /// The last that was done.
    pub done: MessageNumber,
    /// How often a message was handed over, those handed again included.
    pub handed: u64,
}

impl Reached {
    /// The message a process had in hand at its end, which came to this from `given`, when it got the lane.
    ///
    /// A message that is taken and not done may be what an older process left: this one had it in hand only if it
    /// handed anything over since.
    pub fn in_hand(&self, given: &Self) -> Option<MessageNumber> {
        let is_open = self.taken > self.done;
        let has_moved = self.taken != given.taken || self.handed != given.handed;
        (is_open && has_moved).then_some(self.taken)
    }
}

/// One death with a message in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which process.
    pub incarnation: Incarnation,
    /// Why, in words.
    pub cause: String,
}

/// The message at the head of a lane whose receivers died with it in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    number: MessageNumber,
    deaths: Vec<Death>,
}

impl Suspect {
    /// Who is suspected after a process of the receiver ended. Told twice of the same end, it is the same.
    pub fn after(
        before: Option<Self>,
        incarnation: Incarnation,
        cause: &Cause,
        given: &Reached,
        ended: &Reached,
    ) -> Option<Self> {
        let before = before.filter(|suspect| suspect.number > ended.done);
        let Some(number) = ended.in_hand(given).filter(|_| may_blame_a_message(cause)) else {
            return before;
        };
        let mut suspect =
            before.filter(|suspect| suspect.number == number).unwrap_or(Self { number, deaths: Vec::new() });
        if suspect.deaths.last().is_none_or(|last| last.incarnation < incarnation) {
            suspect.deaths.push(Death { incarnation, cause: cause.to_string() });
        }
        Some(suspect)
    }

    /// Which message.
    pub fn number(&self) -> MessageNumber {
        self.number
    }

    /// Its deaths, oldest first.
    pub fn deaths(&self) -> &[Death] {
        &self.deaths
    }

    /// It is to be a dead letter.
    pub fn is_poison(&self) -> bool {
        self.deaths.len() >= DEATHS
    }
}

/// Whether what was in hand may be why.
fn may_blame_a_message(cause: &Cause) -> bool {
    !cause.was_asked_for() && !matches!(cause, Cause::Settings { .. })
}
