//! [`ServiceName`]: the one way to name a service or program.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{MAX_INSTANCES, MAX_NAME};

/// The name of a service, program or task: `[a-z][a-z0-9-]{0,62}`; of one of several instances: `worker@3`.
///
/// [`FromStr`] is the only way in, so whoever holds one holds a checked one. A clone is a reference count.
///
/// ```
/// # use watchdog_protocol::ServiceName;
/// assert!("counter-2".parse::<ServiceName>().is_ok());
/// assert!("Counter".parse::<ServiceName>().is_err());
/// let third: ServiceName = "worker@3".parse()?;
/// assert_eq!((third.base(), third.instance()), ("worker", Some(3)));
/// # Ok::<_, watchdog_protocol::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Who sends what an operator sends by `watchdog send`: no service has this name.
    pub fn operator() -> Self {
        Self(Arc::from("operator"))
    }

    /// Whose records those of the watchdog itself are: no service has this name.
    pub fn watchdog() -> Self {
        Self(Arc::from("watchdog"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the table it comes from: that of all instances, without the number.
    pub fn base(&self) -> &str {
        self.0.split_once('@').map_or(&self.0, |(base, _)| base)
    }

    /// Which instance it is, from 1; `None`: the service has none.
    pub fn instance(&self) -> Option<u32> {
        self.0.split_once('@').and_then(|(_, number)| number.parse().ok())
    }

    /// The name of an instance of the same service.
    ///
    /// # Errors
    /// [`NameError`] when the number is none or the name too long with it.
    pub fn nth(&self, number: u32) -> Result<Self, NameError> {
        format!("{}@{number}", self.base()).parse()
    }

    /// Whether this name stands for that service: it is its name, or that of all its instances.
    pub fn covers(&self, service: &Self) -> bool {
        self == service || self.as_str() == service.base()
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
    /// What follows an `@` is no number of an instance.
    #[error("`{name}` has no number of an instance behind its `@`; expected 1 to {MAX_INSTANCES}")]
    Instance {
        /// The text as given.
        name: String,
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
        let (base, number) = match text.split_once('@') {
            None => (text, None),
            Some((base, number)) => (base, Some(number)),
        };
        let is_number = |text: &str| {
            let number = text.parse().ok().filter(|number| (1..=MAX_INSTANCES).contains(number));
            // One way to write it: neither a sign nor a leading zero.
            number.is_some_and(|number| number.to_string() == text)
        };
        if number.is_some_and(|number| !is_number(number)) {
            return Err(NameError::Instance { name: text.to_owned() });
        }
        match base.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
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
    fn the_name_of_all_instances_covers_each() {
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        assert!(name("worker").covers(&name("worker@2")) && name("worker").covers(&name("worker")));
        assert!(!name("worker@1").covers(&name("worker@2")) && !name("work").covers(&name("worker@2")));
        assert_eq!(name("worker@7").nth(8), Ok(name("worker@8")));
        assert!(name("worker").nth(0).is_err());
    }

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
        for bad in ["a@", "a@0", "a@01", "a@+1", "a@1000", "a@x", "a@1@2"] {
            assert!(matches!(bad.parse::<ServiceName>(), Err(NameError::Instance { .. })), "{bad}");
        }
        assert_eq!("@1".parse::<ServiceName>(), Err(NameError::Start { name: "@1".into(), found: '@' }));
        assert!(matches!("x".repeat(64).parse::<ServiceName>(), Err(NameError::Long { length: 64 })));
    }
}
