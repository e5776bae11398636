//! [`ServiceName`]: the one way to name a service or program.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::MAX_NAME;

/// The name of a service or program: `[a-z][a-z0-9-]{0,62}`.
///
/// [`FromStr`] is the only way in, so whoever holds one holds a checked one. A clone is a reference count.
///
/// ```
/// # use watchdog_protocol::ServiceName;
/// assert!("counter-2".parse::<ServiceName>().is_ok());
/// assert!("Counter".parse::<ServiceName>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("a service name can't be empty; expected a letter a-z first, then letters, digits and `-`")]
    Empty,
    /// The first character is no lower-case letter.
    #[error("`{name}` starts with {found:?}; a service name starts with a letter a-z")]
    Start {
        /// The text as given.
        name: String,
        /// Its first character.
        found: char,
    },
    /// A character that is neither a-z, 0-9 nor `-`.
    #[error("`{name}` holds {found:?}; a service name is made of a-z, 0-9 and `-`")]
    Character {
        /// The text as given.
        name: String,
        /// The first character that does not belong.
        found: char,
    },
    /// More than 63 characters.
    #[error("a service name has at most {MAX_NAME} characters; this one has {length}")]
    Long {
        /// How many it has.
        length: usize,
    },
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some(first) = text.chars().next() else { return Err(NameError::Empty) };
        if text.len() > MAX_NAME {
            return Err(NameError::Long { length: text.len() });
        }
        if !first.is_ascii_lowercase() {
            return Err(NameError::Start { name: text.to_owned(), found: first });
        }
        match text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
            Some(found) => Err(NameError::Character { name: text.to_owned(), found }),
            None => Ok(Self(Arc::from(text))),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, out)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_letters_digits_and_dashes() {
        for good in ["a", "counter", "worker-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<ServiceName>(), Err(NameError::Empty));
        assert!(matches!("1a".parse::<ServiceName>(), Err(NameError::Start { .. })));
        assert!(matches!("-a".parse::<ServiceName>(), Err(NameError::Start { .. })));
        assert!(matches!("a_b".parse::<ServiceName>(), Err(NameError::Character { found: '_', .. })));
        assert!(matches!("a/b".parse::<ServiceName>(), Err(NameError::Character { .. })));
        assert!(matches!("x".repeat(64).parse::<ServiceName>(), Err(NameError::Long { length: 64 })));
    }
}
