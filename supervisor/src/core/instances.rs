//! Instances of a service: how many there are, and the verb that changes it.
//!
//! An instance too many is stopped and stays in the roster, as one that nobody waits for; its state stays where it is.
//! Those that the configuration does not know are made from the first one's table, now and by each later core, as long
//! as the record of the newest `scale` says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use watchdog_keeper::PidRecord;
use watchdog_lifecycle::{Actor, Event, Service, Verb, Wanted};
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::limits::MAX_INSTANCES;
use watchdog_protocol::{Incarnation, ServiceName};

use super::events::Entry as Logged;
use super::verbs::Asked;
use super::waiting::{Target, end};
use super::{Core, CoreError, Registered, chain, now};
use crate::config::{self, ServiceSpec};
use crate::processes::leftovers;
use crate::run::former_incarnations;
use crate::store::record;

/// Where it is kept how many instances an operator wanted: beside what is wanted of each. No service has this name.
pub(super) fn record_of(state: &Path, base: &str) -> (PathBuf, String) {
    (state.join("wanted"), format!("{base}.instances"))
}

impl Core {
    /// Instances that are not among these services of a configuration, and an operator wanted.
    pub(super) fn instances_beyond(
        &mut self,
        services: &BTreeMap<ServiceName, ServiceSpec>,
    ) -> Vec<ServiceSpec> {
        let mut beyond = Vec::new();
        for spec in services.values().filter(|spec| spec.name.instance() == Some(1)) {
            let before = || spec.former_name();
            let wanted = self.scaled_to(&spec.name).or_else(|| self.scaled_to(&before()?)).unwrap_or(0);
            let configured = spec.instances.unwrap_or(0);
            beyond.extend((configured + 1..=wanted).filter_map(|number| spec.instance(number).ok()));
        }
        beyond
    }

    /// How many instances of this service an operator wanted, if anybody said so.
    fn scaled_to(&mut self, service: &ServiceName) -> Option<u32> {
        let (folder, record) = record_of(&self.config.watchdog.state, service.base());
        match record::load::<u32>(&mut self.store, &folder, &record) {
            Ok(loaded) => loaded.content().map(|wanted| wanted.min(MAX_INSTANCES)),
            Err(err) => {
                let text = format!("how many instances were wanted can't be read: {}", chain(&err));
                self.events.add(Logged::of(service, "wanted", text));
                None
            }
        }
    }

    /// A service that no core of this life knows yet: as it was wanted in an earlier one. Its entry is there.
    pub(super) fn begin_service(&mut self, name: &ServiceName, former: Option<Incarnation>) -> Service {
        let kept = self.load_wanted(name);
        let last = self.last_incarnation(name, kept.as_ref(), former);
        let is_too_many = |most: u32| name.instance().is_some_and(|number| number > most);
        let wanted = match &kept {
            Some(kept) => kept.wanted.clone(),
            None if name.instance().is_some() && self.scaled_to(name).is_some_and(is_too_many) => {
                Wanted::Down { by: Actor::Watchdog, verb: Verb::Scale }
            }
            None => Wanted::Up,
        };
        self.entry_mut(name).kept = kept;
        Service::new(wanted, last, now())
    }

    /// One that comes, or comes back, while the watchdog runs. Its entry is there. Its numbers go on from those it had in
    /// this life too: the keeper, the event log and the state know its processes by them.
    pub(super) fn begin_again(&mut self, name: &ServiceName) -> Service {
        let runtime = &self.config.watchdog.runtime;
        let former = former_incarnations(runtime).unwrap_or_default().remove(name);
        let record = PidRecord::read(&leftovers::pid_file(runtime, name)).ok().flatten();
        self.begin_service(name, former.max(record.map(|record| record.incarnation)))
    }

    /// The same, wanted up whatever was wanted before.
    pub(super) fn begin_wanted(&mut self, name: &ServiceName) -> Service {
        let before = self.begin_again(name);
        Service::new(Wanted::Up, before.incarnation(), now())
    }

    /// The instances of this name of all, lowest number first, without those that are too many.
    pub(super) fn instances(&self, base: &ServiceName) -> Vec<ServiceName> {
        let mut instances = self.all_instances(base);
        instances.retain(|name| self.roster.get(name).is_some_and(|service| !service.is_scaled_away()));
        instances
    }

    pub(super) fn all_instances(&self, base: &ServiceName) -> Vec<ServiceName> {
        let of_it = |name: &&ServiceName| name.instance().is_some() && name.base() == base.as_str();
        let mut instances: Vec<_> = self.entries.keys().filter(of_it).cloned().collect();
        instances.sort_by_key(ServiceName::instance);
        instances
    }

    /// `scale`: so many instances are to be up, the lowest numbers.
    pub(super) async fn scale(
        &mut self,
        asked: Asked,
        base: &ServiceName,
        count: u32,
    ) -> Result<(), CoreError> {
        let known = self.all_instances(base);
        let may_scale = self.reloads.may_come_and_go().and_then(|()| self.may_scale(base, &known, count));
        if let Err(failure) = may_scale {
            end(&asked.replies, Err(failure));
            return Ok(());
        }
        let before = match self.answered.find(asked.id) {
            Some(taken) => taken.before.clone(),
            None => {
                let names = (1..=count).filter_map(|number| base.nth(number).ok());
                let before: Vec<_> = names.map(|name| (name.clone(), self.newest(&name))).collect();
                for (name, _) in before.iter().filter(|(name, _)| !known.contains(name)) {
                    self.add_instance(&known[0], name).await?;
                }
                // The last one first: nobody is told to go on with one that is about to end.
                for name in known.iter().rev() {
                    let is_away = self.roster.get(name).is_some_and(Service::is_scaled_away);
                    let verb = match (name.instance() > Some(count), is_away) {
                        (true, false) => Verb::Scale,
                        (false, true) => Verb::Start,
                        (true, true) | (false, false) => continue,
                    };
                    let event = Event::Asked { verb, by: asked.by.clone() };
                    let commands = self.roster.step(name, event, now(), self.chance());
                    self.perform_all(commands).await?;
                }
                // One that was done in part and is repeated comes to the same.
                self.enter(asked.id, before.clone());
                before
            }
        };
        let (folder, record) = record_of(&self.config.watchdog.state, base.as_str());
        let path = record::path(&folder, &record);
        let change = self.store.put(&path, record::envelope(&count));
        let all = self.all_instances(base);
        let kept = |name: &ServiceName| Some((self.wanted_path(name), self.entry(name).kept_change?));
        let mut durable: Vec<_> = all.iter().filter_map(kept).collect();
        durable.push((path, change));
        let target = match asked.wait {
            None => Target::Durable { answer: Outcome::Done(format!("scale of {base} to {count} accepted")) },
            Some(_) => {
                let down = all.into_iter().filter(|name| name.instance() > Some(count)).collect();
                Target::Scaled { up: self.up_again(before), down }
            }
        };
        self.wait_for(asked, target, durable);
        Ok(())
    }

    fn may_scale(&self, base: &ServiceName, known: &[ServiceName], count: u32) -> Result<(), Failure> {
        let usage = |text: String| Failure::new(FailureKind::Usage, text);
        if known.is_empty() {
            self.known(std::slice::from_ref(base))?;
            let text = format!("`{base}` has no instances");
            return Err(usage(text).hint("only a service whose table says `instances = N` can be scaled"));
        }
        if !(1..=MAX_INSTANCES).contains(&count) {
            let text = format!("{count} instances, expected 1 to {MAX_INSTANCES}");
            return Err(usage(text).hint(format!("watchdog stop {base}")));
        }
        let largest = base.nth(count).map_err(|error| usage(error.to_string()))?;
        let group = self.roster.groups().find(|(_, policy, _)| policy.members.contains(&known[0]));
        if let (Some((group, _, _)), false) = (group, self.entries.contains_key(&largest)) {
            let text =
                format!("`{base}` is in group `{group}`, whose members are those of the configuration");
            return Err(usage(text).hint(format!("raise `instances` there; it has {} now", known.len())));
        }
        Ok(())
    }

    /// One more, by the table of the first.
    async fn add_instance(&mut self, first: &ServiceName, name: &ServiceName) -> Result<(), CoreError> {
        let failed = |step: String| {
            move |source: Box<dyn std::error::Error + Send + Sync>| CoreError::Start { step, source }
        };
        let entry = self.entry(first);
        let number = name.instance().expect("it is an instance");
        let spec = entry.spec.instance(number).expect("its name was made before");
        let checked = entry.manifest.clone().map(|manifest| config::as_described(&spec, *manifest));
        // The same table was checked for the first one.
        let checked = checked
            .transpose()
            .map_err(|err| failed(format!("check the settings of `{name}`"))(err.into()))?;
        let policy = spec.policy.clone();
        self.add_entry(spec, checked, Registered::Config, None).await?;
        let service = self.begin_wanted(name);
        let chance = self.chance();
        let commands = self
            .roster
            .register(name.clone(), policy, service, now(), chance)
            .map_err(|err| failed(format!("add `{name}`"))(err.into()))?;
        self.perform_all(commands).await
    }

    /// The newest incarnation there was in any life of the watchdog, as far as its files tell.
    pub(super) fn last_incarnation(
        &self,
        name: &ServiceName,
        kept: Option<&super::Kept>,
        former: Option<Incarnation>,
    ) -> Incarnation {
        let on_disk = kept.map_or(Incarnation::NONE, |kept| kept.incarnation);
        let saved = self.entry(name).state.as_deref();
        let saved = saved.map_or(Incarnation::NONE, super::state::State::last_incarnation);
        former.unwrap_or_default().max(on_disk).max(saved)
    }
}
