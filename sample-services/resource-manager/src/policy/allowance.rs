//! How much a party is let have.

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
