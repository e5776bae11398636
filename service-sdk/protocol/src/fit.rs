//! What another build of a service meets when it takes the place of the present one.

use serde::{Deserialize, Serialize};

/// One thing it meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What of it.
    pub about: About,
    /// What follows.
    pub weight: Weight,
    /// In words.
    pub text: String,
}

/// What a finding is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// The messages it takes, and who sends them.
    Contract,
    /// The values in force.
    Settings,
    /// What is stored.
    State,
}

/// What follows from a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It goes on.
    Note,
    /// Something that works now would not.
    Breaks,
}

impl Finding {
    /// Something that is no trouble.
    pub fn note(about: About, text: impl Into<String>) -> Self {
        Self { about, weight: Weight::Note, text: text.into() }
    }

    /// Something that would not work any more.
    pub fn breaks(about: About, text: impl Into<String>) -> Self {
        Self { about, weight: Weight::Breaks, text: text.into() }
    }
}
