//! What a service may ask of the watchdog.

use std::fmt;
use std::str::FromStr;

use watchdog_lifecycle::access::Pattern;
use watchdog_protocol::{NameError, ServiceName};

/// The verbs a grant may list.
pub const VERBS: &[&str] = &[
    "dead",
    "diff",
    "events",
    "freeze",
    "get",
    "graph",
    "history",
    "intercoms",
    "kill",
    "limit",
    "limits",
    "logs",
    "register",
    "reload",
    "reset",
    "restart",
    "rollback",
    "scale",
    "send",
    "set",
    "shutdown",
    "start",
    "state",
    "status",
    "stop",
    "thaw",
    "unregister",
    "unset",
    "upgrade",
    "why",
];

/// Why a grant is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Its target is neither a name nor the beginning of one and a star.
    #[error(transparent)]
    Target(#[from] NameError),
    /// Its verb is not one of [`VERBS`].
    #[error("`{verb}` is no verb a grant can list")]
    Verb {
        /// As written.
        verb: String,
    },
}

/// One entry of `control`: a verb, and whom it may be used on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    verb: &'static str,
    target: Pattern,
}

impl Grant {
    /// One of [`VERBS`].
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// Whom the verb may be used on; [`Pattern::All`] when the entry names nobody.
    pub fn target(&self) -> &Pattern {
        &self.target
    }

    /// Whether this entry lets its holder use `verb` on `target`; `None` is the watchdog itself, which only an
    /// entry for all covers.
    pub fn allows(&self, verb: &str, target: Option<&ServiceName>) -> bool {
        self.verb == verb
            && match target {
                Some(name) => self.target.matches(name),
                None => self.target == Pattern::All,
            }
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let (verb, target) = text.split_once(':').unwrap_or((text, "*"));
        let Some(verb) = VERBS.iter().copied().find(|known| *known == verb) else {
            return Err(GrantError::Verb { verb: verb.to_owned() });
        };
        Ok(Self { verb, target: target.parse()? })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.verb, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_without_target_is_for_all_and_one_with_a_target_not_for_the_watchdog_itself() {
        let status: Grant = "status".parse().unwrap();
        assert!(status.allows("status", None) && status.allows("status", Some(&name("a"))));
        assert!(!status.allows("stop", None));
        let stop: Grant = "stop:batch-*".parse().unwrap();
        assert!(stop.allows("stop", Some(&name("batch-1"))));
        assert!(!stop.allows("stop", Some(&name("a"))) && !stop.allows("stop", None));
        assert_eq!("stopp".parse::<Grant>(), Err(GrantError::Verb { verb: "stopp".into() }));
    }
}
