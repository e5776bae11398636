//! A new core goes on with what a reload before it still owes.

use std::collections::BTreeMap;
use std::path::Path;

use watchdog_protocol::{Incarnation, ServiceName};

use super::{Heir, Next, Reloads};
use crate::config::{self, CheckedService, Config, ServiceSpec};
use crate::core::events::Entry as Logged;
use crate::core::in_force::Owed;
use crate::core::{Core, CoreError};

/// The configuration before, for those that still run under it.
#[derive(Debug, Default)]
pub(in crate::core) struct Before {
    owed: Option<Owed>,
    config: Option<Config>,
}

impl Before {
    pub(in crate::core) fn of(path: &Path, reloads: &Reloads) -> Self {
        let owed = reloads.owed.clone();
        // It was in force, so it can be read; a build that can't lets what it was about end as configured now.
        let config = owed.as_ref().and_then(|owed| config::parse(path, owed.before.as_str()).ok());
        Self { owed, config }
    }

    /// How a service was configured, if its process is still the one that is to end.
    pub(in crate::core) fn table(&self, service: &ServiceName) -> Option<&ServiceSpec> {
        self.config.as_ref()?.services.get(service)
    }

    pub(in crate::core) fn restarts(&self, service: &ServiceName) -> Option<Incarnation> {
        self.owed.as_ref()?.restarts.get(service).copied()
    }

    /// The new names of services that had others, by those.
    pub(in crate::core) fn renamed(&self) -> BTreeMap<ServiceName, ServiceName> {
        self.owed.as_ref().map(|owed| owed.renamed.clone()).unwrap_or_default()
    }

    /// Services that are to end and are not configured any more, whatever is left of them. What they waited for may be
    /// gone already.
    pub(in crate::core) fn removed(&self) -> BTreeMap<ServiceName, ServiceSpec> {
        let Some(owed) = &self.owed else { return BTreeMap::new() };
        let table = |name: &ServiceName| {
            let found = self.table(name).cloned();
            // One beyond those of the file: its table was the first one's.
            let first = || self.table(&name.nth(1).ok()?)?.instance(name.instance()?).ok();
            Some((name.clone(), found.or_else(first)?))
        };
        owed.removed.iter().filter_map(table).collect()
    }
}

impl Core {
    /// A process that is to end runs under the table of before until then.
    pub(in crate::core) fn runs_still(&mut self, name: &ServiceName, before: &Before) {
        let Some(table) = before.table(name).cloned() else { return };
        let entry = self.entry(name);
        let next = entry.spec.clone();
        let checked = self.checked_again(name, &next);
        let entry = self.entry_mut(name);
        entry.spec = table;
        entry.next = Some(Box::new(Next { spec: next, checked }));
    }

    fn checked_again(&mut self, name: &ServiceName, spec: &ServiceSpec) -> Option<CheckedService> {
        let cache = config::manifest_cache(&self.config);
        config::check_service(spec, Some(&cache)).unwrap_or_else(|errors| {
            let text = format!("the new build can't be used as configured: {errors}");
            self.events.add(Logged::of(name, "manifest", text).because("settings"));
            None
        })
    }

    /// It goes on as this, when its process is gone.
    pub(in crate::core) fn will_be(&mut self, name: &ServiceName, spec: ServiceSpec) {
        let checked = self.checked_again(name, &spec);
        self.entry_mut(name).heir = Some(Heir::new(Next { spec, checked }));
    }

    /// After all facts of the meantime: whatever may not have been asked for is asked for again.
    pub(in crate::core) async fn go_on_with_reload(&mut self, before: &Before) -> Result<(), CoreError> {
        let Some(owed) = &before.owed else { return Ok(()) };
        if let Some(request) = owed.request.filter(|request| self.answered.find(*request).is_none()) {
            self.enter(request, owed.starts());
        }
        self.owe_again(&owed.by, &owed.restarts).await
    }
}
