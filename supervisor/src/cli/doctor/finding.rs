//! One thing that was looked at.

use serde::Serialize;

use crate::cli::look::harmless;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// The watchdog does without, in a lesser way.
    Less,
    /// Something is wrong.
    Mend,
}

impl Level {
    /// As shown, all of one length.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok  ",
            Self::Less => "less",
            Self::Mend => "mend",
        }
    }
}

/// What was looked at, what was found, what that means and what to do. Without what a terminal would obey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) means: Option<String>,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn ok(what: &'static str, found: impl AsRef<str>) -> Self {
        Self { what, level: Level::Ok, found: harmless(found.as_ref()), means: None, hint: None }
    }

    pub(super) fn less(what: &'static str, found: impl AsRef<str>, means: impl AsRef<str>) -> Self {
        Self { level: Level::Less, ..Self::ok(what, found) }.means(means)
    }

    pub(super) fn mend(what: &'static str, found: impl AsRef<str>, means: impl AsRef<str>) -> Self {
        Self { level: Level::Mend, ..Self::ok(what, found) }.means(means)
    }

    fn means(mut self, means: impl AsRef<str>) -> Self {
        self.means = Some(harmless(means.as_ref()));
        self
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(harmless(hint.as_ref()));
        self
    }
}
