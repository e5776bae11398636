//! Registered services that fit no more what is there: their table was checked when they were registered, which may be
//! long ago. One that names what is gone does not start, says what it is, and keeps nobody else from starting.
//!
//! A setting whose file is gone is none of these: its start is refused as any start with settings that do not fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchdog_lifecycle::{GraphError, Policy, Service, graph};
use watchdog_protocol::ServiceName;

use super::events::Entry as Logged;
use super::{Core, Registered};
use crate::config::{self, CheckedService, ServiceSpec};

/// Why a service is not started.
#[derive(Debug, Clone)]
pub(super) enum Unfit {
    /// Its program does not say what it is.
    NotDescribed(String),
    /// With what it requires, or is to follow, there is no order.
    Order,
}

impl Core {
    /// What a registered service says of itself, whatever its settings are.
    pub(super) fn described_at_least(
        &mut self,
        spec: &ServiceSpec,
    ) -> (Option<CheckedService>, Option<Unfit>) {
        let cache = config::manifest_cache(&self.config);
        match config::describe_service(spec, Some(&cache)) {
            Ok(described) => (described, None),
            Err(errors) => {
                let reason = errors.to_string();
                let text = format!("was registered, and can't be started: {reason}");
                self.events.add(Logged::of(&spec.name, "registered", text));
                (None, Some(Unfit::NotDescribed(reason)))
            }
        }
    }

    /// Takes from the policies of registered services what leaves no order to start all in.
    pub(super) fn make_orderly(
        &mut self,
        services: &mut [(ServiceName, Arc<Policy>, Service)],
        promised: &BTreeMap<ServiceName, Arc<Policy>>,
    ) {
        loop {
            let there = services.iter().map(|(name, policy, _)| (name, policy)).chain(promised);
            let there = there.map(|(name, policy)| (name, &**policy));
            let Err(err) = graph::check(there) else { return };
            let concerned = match &err {
                GraphError::Taken { name } => vec![name],
                GraphError::Missing { service, .. } => vec![service],
                GraphError::Cycle { path } => path.iter().collect(),
            };
            let culprit = services.iter_mut().find(|(name, policy, _)| {
                let is_bound = !policy.requires.is_empty() || !policy.after.is_empty();
                let registered = self.entries.get(name).map(|entry| entry.registered);
                is_bound && concerned.contains(&name) && registered == Some(Registered::ByOperator)
            });
            // Of the configuration: it is told by whom the order is made.
            let Some((name, policy, _)) = culprit else { return };
            let policy = Arc::make_mut(policy);
            policy.requires.clear();
            policy.after.clear();
            let text = format!("was registered, and can't be started: {err}");
            self.events.add(Logged::of(name, "registered", text));
            self.entry_mut(name).unfit = Some(Unfit::Order);
        }
    }

    /// Why this service can't be started now. What it misses may have come meanwhile.
    pub(super) fn unfit(&mut self, service: &ServiceName) -> Option<String> {
        let entry = self.entry(service);
        // One that is in the file by now was checked with it.
        match entry.unfit.clone().filter(|_| entry.registered == Registered::ByOperator)? {
            Unfit::NotDescribed(reason) => Some(format!(
                "{reason}; once it is mended, `watchdog unregister {service}` and register it again"
            )),
            Unfit::Order => {
                let fit =
                    self.entries.iter().filter(|(name, entry)| *name == service || entry.unfit.is_none());
                let reason = graph::check(fit.map(|(name, entry)| (name, &*entry.spec.policy))).err();
                if reason.is_none() {
                    self.entry_mut(service).unfit = None;
                }
                reason.map(|err| err.to_string())
            }
        }
    }
}
