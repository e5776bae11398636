//! How much a party is let have.

use std::fmt;

/// In the order in which it is taken away, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance {
    /// Nothing, and what it held is given up.
    Stopped,
    /// Nothing more; it keeps what it holds.
    Frozen,
    /// So much.
    Capped(u64),
    /// What nobody else wants.
    Last,
    /// All it can get.
    Free,
}

impl Allowance {
    /// The most it can have of `total`.
    pub fn most(self, total: u64) -> u64 {
        match self {
            Self::Stopped | Self::Frozen => 0,
            Self::Capped(amount) => amount.min(total),
            Self::Last | Self::Free => total,
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => out.write_str("nothing (stopped)"),
            Self::Frozen => out.write_str("nothing (frozen)"),
            Self::Capped(amount) => write!(out, "{amount}"),
            Self::Last => out.write_str("the rest"),
            Self::Free => out.write_str("all"),
        }
    }
}
