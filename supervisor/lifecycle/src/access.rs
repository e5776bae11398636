//! Who may talk to whom: the sender's `use` and the receiver's `offer` must both say yes.

use std::fmt;
use std::str::FromStr;

use watchdog_protocol::record::LOGGING;
use watchdog_protocol::{NameError, ServiceName};

/// Names by pattern: `*`, `counter`, `batch-*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: everyone.
    All,
    /// One name, which may be that of all instances of a service.
    Exact(ServiceName),
    /// All names that begin so.
    Prefix(String),
}

impl Pattern {
    /// Whether the name is meant.
    pub fn matches(&self, name: &ServiceName) -> bool {
        match self {
            Self::All => true,
            Self::Exact(exact) => exact.covers(name),
            Self::Prefix(prefix) => name.as_str().starts_with(prefix.as_str()),
        }
    }
}

impl FromStr for Pattern {
    type Err = NameError;

    /// # Errors
    /// [`NameError`] when what stands before the `*`, or the whole, could not begin or be a name.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix('*') {
            Some("") => Ok(Self::All),
            // Whatever begins a name is itself a name.
            Some(prefix) => {
                prefix.parse::<ServiceName>().map(|prefix| Self::Prefix(prefix.as_str().to_owned()))
            }
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("*"),
            Self::Exact(name) => write!(out, "{name}"),
            Self::Prefix(prefix) => write!(out, "{prefix}*"),
        }
    }
}

/// One service's rules. By default it may talk to everyone and everyone to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `use`: whom it may talk to.
    pub uses: Vec<Pattern>,
    /// `offer`: who may talk to it.
    pub offers: Vec<Pattern>,
}

impl Default for Access {
    fn default() -> Self {
        Self { uses: vec![Pattern::All], offers: vec![Pattern::All] }
    }
}

/// Which rule forbids it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The sender's.
    #[error("`{sender}` has use = [{}], which leaves out `{receiver}`", list(.uses))]
    Use {
        /// Who would send.
        sender: ServiceName,
        /// To whom.
        receiver: ServiceName,
        /// The rule.
        uses: Vec<Pattern>,
    },
    /// The receiver's.
    #[error("`{receiver}` has offer = [{}], which leaves out `{sender}`", list(.offers))]
    Offer {
        /// Who would send.
        sender: ServiceName,
        /// To whom.
        receiver: ServiceName,
        /// The rule.
        offers: Vec<Pattern>,
    },
}

fn list(patterns: &[Pattern]) -> String {
    patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect::<Vec<_>>().join(", ")
}

/// Whether the rules of both sides allow a lane from `sender` to `receiver`. Everyone may have something to say to the
/// logging service: no `use` need name it, and its `offer` decides.
///
/// # Errors
/// [`Denied`] names the rule in the way, the sender's first.
pub fn may_talk(sender: (&ServiceName, &Access), receiver: (&ServiceName, &Access)) -> Result<(), Denied> {
    let (from, to) = (sender.0.clone(), receiver.0.clone());
    let uses = to.as_str() == LOGGING || sender.1.uses.iter().any(|pattern| pattern.matches(&to));
    if !uses {
        Err(Denied::Use { sender: from, receiver: to, uses: sender.1.uses.clone() })
    } else if !receiver.1.offers.iter().any(|pattern| pattern.matches(&from)) {
        Err(Denied::Offer { sender: from, receiver: to, offers: receiver.1.offers.clone() })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_pattern_is_everyone_one_name_or_a_beginning() {
        for (pattern, yes, no) in [("*", vec!["a", "b-1"], vec![]), ("a", vec!["a"], vec!["ab"])] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert!(yes.iter().all(|text| pattern.matches(&name(text))));
            assert!(!no.iter().any(|text| pattern.matches(&name(text))));
        }
        let batch: Pattern = "batch-*".parse().unwrap();
        assert!(
            batch.matches(&name("batch-1"))
                && batch.matches(&name("batch-"))
                && !batch.matches(&name("batch"))
        );
        assert!("a*b".parse::<Pattern>().is_err() && "".parse::<Pattern>().is_err());
        assert!("**".parse::<Pattern>().is_err());
    }

    #[test]
    fn both_sides_must_agree_and_the_refusal_names_the_rule() {
        let (a, b) = (name("a"), name("b"));
        let open = Access::default();
        let closed = Access { uses: patterns(&["x", "y-*"]), offers: vec![] };
        assert_eq!(may_talk((&a, &open), (&b, &open)), Ok(()));
        assert_eq!(
            may_talk((&a, &closed), (&b, &open)).unwrap_err().to_string(),
            "`a` has use = [\"x\", \"y-*\"], which leaves out `b`"
        );
        assert_eq!(
            may_talk((&a, &open), (&b, &closed)).unwrap_err().to_string(),
            "`b` has offer = [], which leaves out `a`"
        );
    }

    #[test]
    fn the_logging_service_need_not_be_named_but_may_refuse() {
        let (a, logging) = (name("a"), name(LOGGING));
        let closed = Access { uses: vec![], offers: vec![] };
        assert_eq!(may_talk((&a, &closed), (&logging, &Access::default())), Ok(()));
        assert!(may_talk((&a, &Access::default()), (&logging, &closed)).is_err());
    }
}
