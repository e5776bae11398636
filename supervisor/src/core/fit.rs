//! What another build of a service would meet: who sends to it, the settings in force, the stored state.

use serde_json::Map;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::fit::Finding;
use watchdog_protocol::{Contract, Manifest, ServiceName};

use super::verbs::Asked;
use super::waiting::end;
use super::{Core, chain};
use crate::config::fit::{self, Senders};

impl Core {
    /// `check PROGRAM`.
    pub(super) fn fit_asked(&mut self, asked: &Asked, service: &ServiceName, manifest: &str) {
        let found = match Manifest::parse(manifest.as_bytes()) {
            Ok(new) => Ok(Outcome::Findings(self.fit(service, &new))),
            Err(error) => Err(Failure::new(FailureKind::Usage, chain(&error))),
        };
        end(&asked.replies, found);
    }

    fn fit(&mut self, service: &ServiceName, new: &Manifest) -> Vec<Finding> {
        let known: Vec<(ServiceName, Contract)> = self
            .lanes
            .arriving_at(service)
            .filter(|lane| !lane.is_operators() && !lane.is_retired())
            .map(|lane| (lane.sender.clone(), lane.contract().clone()))
            .collect();
        let entry = self.entry(service);
        let mut findings = fit::contract(entry.manifest.as_deref(), Senders::Known(&known), new);
        findings.extend(match &entry.settings {
            Some(settings) => {
                let set: Vec<_> = settings.updater.overrides().paths().map(ToString::to_string).collect();
                let values = settings.updater.values().as_map().clone();
                fit::settings(Some(&settings.schema), values, &set, new)
            }
            None => fit::settings(None, Map::new(), &[], new),
        });
        findings.extend(fit::state(self.stored_version(service), new));
        findings
    }
}
