//! Whether something differs, as far as it is seen at a glance: no program is asked what it is, nothing is parsed while
//! the file stays what it was. For a mark in `status`; `diff` tells what it is.

use std::collections::BTreeSet;

use watchdog_protocol::ServiceName;

use crate::config::{self, Config};
use crate::core::{Core, Registered};

/// What was seen of the file at the last look.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// Which file and content that was.
    identity: Option<String>,
    services: BTreeSet<ServiceName>,
    /// For people, where the file is another one.
    note: Option<String>,
}

impl Core {
    /// Before the status is told: looks at the file, if it is another one than at the last look.
    pub(in crate::core) fn look_for_drift(&mut self) {
        let identity = config::file_identity(&self.config.path);
        if identity.is_some() && identity == self.reloads.drift.identity {
            return;
        }
        let path = self.config.path.display();
        let (services, note) = match config::read(&self.config.path) {
            Ok((_, text)) if text == *self.reloads.text => (BTreeSet::new(), None),
            Ok((path, text)) => match config::parse(&path, text.as_str()) {
                Ok(file) => {
                    let services = self.drifted(&file);
                    let is_same = services.is_empty()
                        && file.watchdog == self.config.watchdog
                        && file.groups == self.config.groups;
                    let note = format!("{} differs from what is in force: `watchdog diff`", path.display());
                    (services, (!is_same).then_some(note))
                }
                Err(_) => {
                    let note = format!("{} can't be put in force: `watchdog check` says why", path.display());
                    (BTreeSet::new(), Some(note))
                }
            },
            Err(_) => (BTreeSet::new(), Some(format!("{path} can't be read, what is in force goes on"))),
        };
        self.reloads.drift = Drift { identity, services, note };
    }

    fn drifted(&self, file: &Config) -> BTreeSet<ServiceName> {
        let configured = self.entries.iter().filter(|(_, entry)| entry.registered == Registered::Config);
        let differs = |name: &ServiceName| {
            let first = || file.services.get(&name.nth(1).ok()?);
            match file.services.get(name) {
                Some(spec) => !spec.same_as(self.configured(name)),
                // An instance beyond those of the file has the table of the first.
                None => first().is_none_or(|first| {
                    first
                        .instance(name.instance().unwrap_or(1))
                        .is_ok_and(|spec| !spec.same_as(self.configured(name)))
                }),
            }
        };
        configured.map(|(name, _)| name).filter(|name| differs(name)).cloned().collect()
    }

    /// The file says something else of it, or its program is another one than its process was started from.
    pub(in crate::core) fn has_drifted(&self, name: &ServiceName) -> bool {
        let entry = self.entry(name);
        let is_rebuilt = || {
            entry.process.is_some()
                && entry.built != 0
                && config::built(&entry.spec.launch).is_some_and(|built| built != entry.built)
        };
        self.reloads.drift.services.contains(name) || is_rebuilt()
    }

    pub(in crate::core) fn drift_note(&self) -> Option<String> {
        self.reloads.drift.note.clone()
    }
}
