//! Places within settings.

use std::fmt;
use std::str::FromStr;

/// Tables in tables in tables: no settings type goes deeper, and the stack of whoever reads a value bears no more
/// than so many times itself.
const DEEPEST: usize = 32;

/// Which setting: keys joined by dots, `filter.level`; in an array the position, from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingPath(Vec<String>);

/// Why a text names no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingPathError {
    /// Nothing, or nothing between two dots.
    #[error("`{path}` names no setting; expected keys joined by dots, like `filter.level`")]
    Empty {
        /// As given.
        path: String,
    },
    /// Deeper than any settings are.
    #[error("a setting lies at most {DEEPEST} tables deep")]
    Deep,
}

impl SettingPath {
    /// The settings as a whole; no operator can name it.
    pub(super) const WHOLE: Self = Self(Vec::new());

    /// What lies within.
    pub(super) fn join(&self, key: &str) -> Self {
        Self(self.0.iter().map(String::as_str).chain([key]).map(str::to_owned).collect())
    }

    /// What lies within, several tables deep.
    pub(super) fn joined(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.0.extend(keys);
        self
    }

    /// This one, then each that it lies in, the whole last.
    pub(super) fn outward(&self) -> impl Iterator<Item = Self> {
        (0..=self.0.len()).rev().map(|length| Self(self.0[..length].to_vec()))
    }

    /// Its keys, from the outside in.
    pub fn keys(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for SettingPath {
    type Err = SettingPathError;

    fn from_str(text: &str) -> Result<Self, SettingPathError> {
        let keys: Vec<String> = text.split('.').take(DEEPEST + 1).map(str::to_owned).collect();
        if keys.len() > DEEPEST {
            return Err(SettingPathError::Deep);
        }
        if keys.iter().any(String::is_empty) {
            return Err(SettingPathError::Empty { path: text.to_owned() });
        }
        Ok(Self(keys))
    }
}

impl fmt::Display for SettingPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { out.write_str("settings") } else { out.write_str(&self.0.join(".")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_keys_joined_by_dots() {
        assert_eq!("a.b".parse::<SettingPath>().unwrap().keys(), ["a", "b"]);
        for bad in ["", ".", "a.", "a..b"] {
            assert!(matches!(bad.parse::<SettingPath>(), Err(SettingPathError::Empty { .. })), "{bad}");
        }
        assert_eq!("a.".repeat(100_000).parse::<SettingPath>(), Err(SettingPathError::Deep));
    }
}
