//! Numbers that only grow, each a type of its own: they cannot be swapped, and know no arithmetic but
//! [`next`](Incarnation::next).
//!
//! ```compile_fail
//! # use watchdog_protocol::{Incarnation, Revision};
//! fn applied(at: Incarnation, what: Revision) {}
//! applied(Revision::FIRST, Incarnation::FIRST);
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first one.
            pub const NONE: Self = Self(0);
            /// The first one there is.
            pub const FIRST: Self = Self(1);

            /// The one after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// As stored and sent.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// From what was stored or sent.
            pub const fn from_stored(number: u64) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }
    };
}

counter! {
    /// One process of a service. The first is 1; each start of the service takes the next.
    Incarnation
}
counter! {
    /// One version of a service's settings, whole. Each accepted `set`, `unset` or roll-back makes the next.
    Revision
}
counter! {
    /// One version of a service's state, as the service numbers its updates.
    Sequence
}
counter! {
    /// One message of a lane. Reserved before it is sent and never used again; gaps are legal.
    MessageNumber
}

/// Which life of a lane a number belongs to: random, new when a keeper starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaneEpoch(u64);

impl LaneEpoch {
    /// As stored and sent.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// From random bits, or from what was stored or sent.
    pub const fn from_stored(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for LaneEpoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// Names one message for ever: which lane, which number in it. The same id twice is the same message twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The lane's life.
    pub epoch: LaneEpoch,
    /// The number within it.
    pub number: MessageNumber,
}

impl fmt::Display for MessageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.epoch, self.number)
    }
}

/// A text that is no message's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no message id: expected 16 hex digits, `-` and a number")]
pub struct MessageIdError {
    text: String,
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    /// # Errors
    /// [`MessageIdError`].
    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let parse = || {
            let (epoch, number) = text.split_once('-')?;
            let epoch = u64::from_str_radix(epoch, 16).ok().filter(|_| epoch.len() == 16)?;
            let number = MessageNumber::from_stored(number.parse().ok()?);
            Some(Self { epoch: LaneEpoch::from_stored(epoch), number })
        };
        parse().ok_or_else(|| MessageIdError { text: text.to_owned() })
    }
}

/// Made by whoever makes a changing request, so that a repeated one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(u128);

impl RequestId {
    /// From random bits, or from (incarnation, number) of a service.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// As stored and sent.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}
