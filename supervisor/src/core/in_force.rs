//! The configuration in force, as it is kept for the next core: the file's text, and behind it, as a comment, what a
//! reload of it has not done yet.
//!
//! One file, put into place by one rename: a new core finds the configuration of before or the new one with all that is
//! owed for it, never a half.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchdog_lifecycle::Actor;
use watchdog_protocol::{Incarnation, RequestId, ServiceName};

use crate::run::kept_config;
use crate::store::replace::{ReplaceError, replace_unsynced};

/// Begins the last line.
const OWED: &str = "# of the reload is owed: ";

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InForce {
    /// The file's text.
    pub(crate) text: Arc<str>,
    /// What a reload has not done yet.
    pub(crate) owed: Option<Owed>,
}

/// What is to be done until what runs is as configured. Done twice, it is the same as once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owed {
    /// The request that wanted it; `None`: a signal did.
    pub(crate) request: Option<RequestId>,
    /// Who wanted it.
    pub(crate) by: Actor,
    /// The text before: what still runs is configured by that.
    pub(crate) before: String,
    /// Processes that have to end, for others that start as configured now.
    pub(crate) restarts: BTreeMap<ServiceName, Incarnation>,
    /// Services that have to end, and go.
    pub(crate) removed: BTreeSet<ServiceName>,
    /// Of those removed, the ones that go on under another name.
    pub(crate) renamed: BTreeMap<ServiceName, ServiceName>,
    /// Services that start for the first time.
    pub(crate) added: BTreeSet<ServiceName>,
}

impl Owed {
    /// Whoever starts, with the process it has or had before.
    pub(crate) fn starts(&self) -> Vec<(ServiceName, Incarnation)> {
        let ends = self.restarts.iter().map(|(name, incarnation)| (name.clone(), *incarnation));
        let fresh = self.added.iter().chain(self.renamed.values());
        ends.chain(fresh.map(|name| (name.clone(), Incarnation::NONE))).collect()
    }
}

impl InForce {
    /// As read from the runtime folder. A file that an older build kept owes nothing.
    pub(crate) fn parse(file: &str) -> Self {
        let last = file.strip_suffix('\n').and_then(|file| file.rsplit_once('\n'));
        let found = last.and_then(|(text, last)| {
            let owed = serde_json::from_str(last.strip_prefix(OWED)?).ok()?;
            Some(Self { text: text.into(), owed })
        });
        found.unwrap_or_else(|| Self { text: file.into(), owed: None })
    }

    fn render(&self) -> String {
        let owed = serde_json::to_string(&self.owed).expect("plain data with text keys");
        format!("{}\n{OWED}{owed}\n", self.text)
    }

    /// Puts it in force for the next core. Blocks.
    ///
    /// # Errors
    /// [`ReplaceError`]: the one before is in force still.
    pub(crate) fn keep(&self, runtime: &Path) -> Result<(), ReplaceError> {
        replace_unsynced(&kept_config(runtime), self.render().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(before: &str) -> Owed {
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        Owed {
            request: Some(RequestId::from_bits(7)),
            by: Actor::Operator { uid: 1000 },
            before: before.to_owned(),
            restarts: BTreeMap::from([(name("a"), Incarnation::FIRST)]),
            removed: BTreeSet::from([name("b@1")]),
            renamed: BTreeMap::from([(name("b@1"), name("c@1"))]),
            added: BTreeSet::new(),
        }
    }

    #[test]
    fn what_is_kept_is_read_again_whatever_the_text_ends_in() {
        for text in ["", "\n", "[program.a]\nexec = [\"a\"]", "x\n# of the reload is owed: null\n"] {
            for owed in [None, Some(owed("before\n# of the reload is owed: null\n"))] {
                let kept = InForce { text: text.into(), owed };
                assert_eq!(InForce::parse(&kept.render()), kept);
            }
        }
        let older = "[program.a]\n";
        assert_eq!(InForce::parse(older), InForce { text: older.into(), owed: None });
    }

    #[test]
    fn it_is_one_comment_to_whoever_reads_a_configuration() {
        let kept = InForce { text: "[program.a]\nexec = [\"a\"]".into(), owed: Some(owed("[program.b]\n")) };
        let config = crate::config::parse(Path::new("/w/watchdog.toml"), kept.render().as_str()).unwrap();
        assert_eq!(config.services.len(), 1);
    }
}
