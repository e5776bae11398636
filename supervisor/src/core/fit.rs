//! What another build of a service would meet: who sends to it, the settings in force, the stored state.
//!
//! ```text
//! event loop: copies of what it would meet ─► a thread: understood, compared ─► answer
//! ```
//! What the other build says of itself is the word of a program that nobody put in force, and may be such that no end of
//! the comparison comes: a settings type can be told in little text and checked in 2^40 steps. So it has a thread, and not
//! one of the runtime's, on whose work the end of the core waits.

use std::thread::{Builder, JoinHandle};

use serde_json::{Map, Value};
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::fit::Finding;
use watchdog_protocol::{Contract, Manifest, ServiceName};

use super::audit::Replies;
use super::verbs::Asked;
use super::waiting::end;
use super::{Core, chain};
use crate::config::fit::{self, Senders};
use crate::config::schema::Schema;

/// Builds that are compared at the same time. One that never is takes a place until the core ends.
const AT_ONCE: usize = 4;

/// The threads that compare.
#[derive(Debug, Default)]
pub(super) struct Comparisons(Vec<JoinHandle<()>>);

impl Comparisons {
    fn begin(&mut self, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        self.0.retain(|thread| !thread.is_finished());
        if self.0.len() >= AT_ONCE {
            let text = format!("{AT_ONCE} other builds are being compared with what runs");
            let hint =
                "one that never comes to an end is let go by `watchdog upgrade`, which starts the core anew";
            return Err(Failure::new(FailureKind::TryAgain, text).hint(hint));
        }
        let thread = Builder::new().name("check".to_owned()).spawn(work);
        let none = |error| Failure::new(FailureKind::TryAgain, format!("there is no thread for it: {error}"));
        self.0.push(thread.map_err(none)?);
        Ok(())
    }
}

/// What it would meet, as it is at this moment.
struct Met {
    present: Option<Manifest>,
    /// Who sends to it, and by what contract.
    senders: Vec<(ServiceName, Contract)>,
    values: Map<String, Value>,
    /// The paths set over the file.
    set: Vec<String>,
    stored: Option<u32>,
}

impl Core {
    /// `check PROGRAM`.
    pub(super) fn fit_asked(&mut self, asked: &Asked, service: &ServiceName, manifest: String) {
        let met = self.met(service);
        let replies = Replies::unrecorded(asked.replies.sender().clone());
        let compare = move || {
            let found = match Manifest::parse(manifest.as_bytes()) {
                Ok(new) => Ok(Outcome::Findings(met.findings(&new))),
                Err(error) => Err(Failure::new(FailureKind::Usage, chain(&error))),
            };
            end(&replies, found);
        };
        if let Err(failure) = self.comparisons.begin(compare) {
            end(&asked.replies, Err(failure));
        }
    }

    fn met(&mut self, service: &ServiceName) -> Met {
        let lanes = self.lanes.arriving_at(service);
        let senders = lanes
            .filter(|lane| !lane.is_operators() && !lane.is_retired())
            .map(|lane| (lane.sender.clone(), lane.contract().clone()))
            .collect();
        let entry = self.entry(service);
        let updater = entry.settings.as_ref().map(|settings| &settings.updater);
        Met {
            present: entry.manifest.as_deref().cloned(),
            senders,
            values: updater.map(|updater| updater.values().as_map().clone()).unwrap_or_default(),
            set: updater
                .map(|updater| updater.overrides().paths().map(ToString::to_string).collect())
                .unwrap_or_default(),
            stored: self.stored_version(service),
        }
    }
}

impl Met {
    /// Reads the files that settings name.
    fn findings(self, new: &Manifest) -> Vec<Finding> {
        let Self { present, senders, values, set, stored } = self;
        let schema = present.as_ref().and_then(|present| Schema::of(present).ok());
        let mut findings = fit::contract(present.as_ref(), Senders::Known(&senders), new);
        findings.extend(fit::settings(schema.as_ref(), values, &set, new));
        findings.extend(fit::state(stored, new));
        findings
    }
}
