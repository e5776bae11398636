//! What the file says now, read and checked apart from the event loop: programs are asked what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use watchdog_protocol::ServiceName;

use super::super::Core;
use crate::config::{self, CheckedService, Config, ConfigErrors, Kind, Problem, ServiceSpec};

/// What the thread has to know of what there is.
#[derive(Debug)]
pub(super) struct Known {
    path: PathBuf,
    cache: PathBuf,
    in_force: BTreeMap<ServiceName, ServiceSpec>,
    /// What each process was started from, and how it is configured.
    built: Vec<(ServiceName, ServiceSpec, u64)>,
}

/// A configuration that could be in force.
#[derive(Debug)]
pub(in crate::core) struct Proposal {
    pub(super) config: Config,
    pub(super) text: Arc<str>,
    /// What there would be; instances beyond those of the file are added by [`Core::complete`].
    pub(super) services: BTreeMap<ServiceName, (ServiceSpec, Option<CheckedService>)>,
    /// Services whose program is not the one that runs.
    pub(super) rebuilt: BTreeSet<ServiceName>,
}

impl Known {
    /// Reads the file and checks it, as `watchdog run` does; and that programs that are new can be executed. Blocks.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn propose(self) -> Result<Proposal, ConfigErrors> {
        let (path, text) = config::read(&self.path)?;
        let text = Arc::from(text);
        let config = config::parse(&path, Arc::clone(&text))?;
        let mut checked = config::check(&config, Some(&self.cache), |_| {})?.services;
        let is_new = |spec: &&ServiceSpec| {
            self.in_force.get(&spec.name).is_none_or(|before| before.launch != spec.launch)
        };
        let programs = config.services.values().filter(|spec| spec.kind() == Kind::Program);
        let missing = programs.filter(is_new).filter_map(|spec| {
            let reason = cannot_be_executed(spec)?;
            Some(spec.exec_error(Problem::NoProgram { service: spec.name.clone(), reason }))
        });
        ConfigErrors::none_of(missing.collect())?;
        let services = config.services.iter().map(|(name, spec)| {
            let checked = checked.remove(name);
            (name.clone(), (spec.clone(), checked))
        });
        let services = services.collect();
        let rebuilt = self.built.into_iter().filter_map(|(name, spec, built)| {
            let now = config::built(&spec.launch);
            // One that can't be looked at is told when it is started.
            now.is_some_and(|now| now != built).then_some(name)
        });
        Ok(Proposal { rebuilt: rebuilt.collect(), config, text, services })
    }
}

fn cannot_be_executed(spec: &ServiceSpec) -> Option<String> {
    let file = match spec.launch.executable_now() {
        Ok(file) => file,
        Err(missing) => return Some(missing.to_string()),
    };
    match file.metadata() {
        Err(err) => Some(format!("cannot read {}: {err}", file.display())),
        Ok(found) if !found.is_file() => Some(format!("{} is no file", file.display())),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some(format!("{} can't be executed: chmod +x it", file.display()))
        }
        Ok(_) => None,
    }
}

impl Core {
    pub(super) fn known_to_proposal(&self) -> Known {
        let in_force = self.entries.keys().map(|name| (name.clone(), self.configured(name).clone()));
        let built = self.entries.iter().filter(|(_, entry)| entry.built != 0);
        Known {
            path: self.config.path.clone(),
            cache: config::manifest_cache(&self.config),
            in_force: in_force.collect(),
            built: built.map(|(name, entry)| (name.clone(), entry.spec.clone(), entry.built)).collect(),
        }
    }

    /// Adds the instances that an operator wanted beyond those of the file.
    pub(super) fn complete(&mut self, proposal: &mut Proposal) {
        for spec in self.instances_beyond(&proposal.config.services) {
            let first = spec.name.nth(1).ok().and_then(|first| proposal.services.get(&first));
            let manifest = first.and_then(|(_, checked)| checked.as_ref());
            // The same table was checked for the first one.
            let checked = manifest.and_then(|first| config::as_described(&spec, first.manifest.clone()).ok());
            proposal.services.insert(spec.name.clone(), (spec, checked));
        }
    }
}
