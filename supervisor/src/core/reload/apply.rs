//! The doing: a plan is put in force, and what it takes is waited for.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use tokio::time::Instant;
use watchdog_keeper::protocol::ToKeeper;
use watchdog_lifecycle::{Actor, Reach, Wanted};
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::plan::{Deed, Plan};
use watchdog_protocol::{Incarnation, Revision, ServiceName};

use super::drift::Drift;
use super::{Heir, Next, Proposal, Ready, Stage};
use crate::config::{CheckedService, Kind, ServiceSpec};
use crate::core::events::Entry as Logged;
use crate::core::registration::registered_folder;
use crate::core::slack::Slack;
use crate::core::verbs::Asked;
use crate::core::waiting::{Look, Target, end};
use crate::core::{Core, CoreError, Registered, stored};
use crate::reload::reach;

/// What a reload comes to, as far as somebody waits for it.
#[derive(Debug)]
pub(in crate::core) struct Reloaded {
    /// Whoever starts, with the process it has or had before.
    pub(in crate::core) up: Vec<(ServiceName, Incarnation)>,
    /// Whose settings changed while it goes on, and to which revision.
    settings: Vec<(ServiceName, Revision)>,
    words: String,
}

impl Core {
    /// It is kept already: from here on it is in force whatever happens.
    pub(super) async fn put_in_force(&mut self, ready: Ready) -> Result<(), CoreError> {
        let Ready { mut proposal, wish, owed } = ready;
        // Services may have ended or been born since; none came or went.
        let plan = self.plan_of(&proposal);
        let mut new = self.reconfiguration(&proposal, &plan, wish.by.clone());
        let words = in_words(&plan);
        let text = format!("reload by {}: {words}", wish.by);
        self.events.add(Logged::new("reload", text).by(&wish.by));
        let section = &proposal.config.watchdog;
        self.capture.limit(section.log_size, section.log_files);
        for (name, _, service) in &mut new.added {
            let (spec, checked) = proposal.services.remove(name).expect("the plan is of these");
            self.add_entry(spec, checked, Registered::Config, None).await?;
            *service = self.begin_again(name);
        }
        let mut settings = Vec::new();
        for service in &plan.services {
            let Some((spec, checked)) = proposal.services.remove(&service.service) else { continue };
            if let Some(before) = &service.renamed_from {
                self.entry_mut(before).heir = Some(Heir::new(Next { spec, checked }));
                continue;
            }
            self.adopt(&service.service);
            match reach(service) {
                Reach::Live | Reach::Watch => {
                    let revision = self.configure_live(&service.service, spec, checked);
                    settings.extend(revision.map(|revision| (service.service.clone(), revision)));
                }
                Reach::Restart => {
                    self.entry_mut(&service.service).next = Some(Box::new(Next { spec, checked }));
                }
            }
        }
        for (name, (spec, _)) in std::mem::take(&mut proposal.services) {
            // The same, on other lines.
            if let Some(entry) = self.entries.get_mut(&name).filter(|entry| entry.next.is_none()) {
                entry.spec = spec;
            }
        }
        for name in &new.removed {
            self.entry_mut(name).leaving = true;
        }
        let before = owed.starts();
        let text = std::mem::take(&mut proposal.text);
        self.in_force(proposal, text);
        self.reloads.owed = Some(owed);
        let (present, chance) = (crate::core::now(), self.chance());
        let commands = self.roster.reload(new, present, chance).map_err(|err| CoreError::Start {
            step: "put the new configuration in force".to_owned(),
            source: err.into(),
        })?;
        self.note_all(&commands)?;
        if let Some(asked) = &wish.asked {
            self.enter(asked.id, before.clone());
        }
        self.perform_all(commands).await?;
        self.revoke().await?;
        if let Some(asked) = wish.asked {
            match asked.wait {
                None => end(&asked.replies, Ok(Outcome::Done(format!("accepted: {words}")))),
                Some(_) => {
                    let target = Reloaded { up: self.to_be_up(before), settings, words };
                    self.wait_for(asked, Target::Reloaded(target), Vec::new());
                }
            }
        }
        Ok(())
    }

    fn in_force(&mut self, proposal: Proposal, text: Arc<str>) {
        self.config = proposal.config;
        // The entries have them.
        self.config.services.clear();
        self.reloads.text = text;
        self.reloads.drift = Drift::default();
        self.slack = Slack::after(Instant::now());
    }

    /// Waits for one that was taken before.
    pub(super) fn wait_for_reload(
        &mut self,
        asked: Asked,
        before: Vec<(ServiceName, Incarnation)>,
        settings: Vec<(ServiceName, Revision)>,
    ) {
        let up = self.to_be_up(before);
        let words = "the configuration is in force".to_owned();
        self.wait_for(asked, Target::Reloaded(Reloaded { up, settings, words }), Vec::new());
    }

    /// Whoever is wanted up, or will be there, and by what was known of it before its old name is gone.
    fn to_be_up(&self, before: Vec<(ServiceName, Incarnation)>) -> Vec<(ServiceName, Incarnation)> {
        let (promised, there): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|(name, _)| self.roster.promised().contains_key(name));
        self.wanted_up(there).chain(promised).collect()
    }

    /// Ends are over, starts have come to an end, settings are judged.
    pub(in crate::core) fn look_at_reloaded(&self, reloaded: &Reloaded) -> Look {
        let mut waits = Vec::new();
        let failed = |failure: Failure| {
            let text = format!("in force, but {}", failure.message);
            Look::Failed(Failure { message: text, ..failure })
        };
        let (promised, up): (Vec<_>, Vec<_>) =
            reloaded.up.iter().cloned().partition(|(name, _)| self.roster.promised().contains_key(name));
        waits
            .extend(promised.iter().map(|(name, _)| format!("{name}: waits for the end under its old name")));
        // One that had been stopped under its old name is so under the new one.
        let up: Vec<_> = self.wanted_up(up).collect();
        match self.look_up(&up) {
            Look::Failed(failure) => return failed(failure),
            Look::Waits(text) => waits.push(text),
            Look::Done(_) => {}
        }
        let leaving: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.leaving).map(|(name, _)| name.clone()).collect();
        if let Look::Waits(text) = self.look_down(&leaving) {
            waits.push(text);
        }
        for (name, revision) in &reloaded.settings {
            let Some(settings) = self.entries.get(name).and_then(|entry| entry.settings.as_ref()) else {
                continue;
            };
            let standing = settings.updater.standing();
            let runs = self.roster.get(name).is_some_and(watchdog_lifecycle::Service::is_live);
            if let Some(refusal) = standing.refusal {
                let text = format!("{name} refused its settings, revision {revision}: {}", refusal.reason);
                return failed(
                    Failure::new(FailureKind::Failed, text).hint(format!("watchdog history {name}")),
                );
            }
            if standing.is_pending && runs {
                waits.push(format!("{name}: waits for the verdict on revision {}", standing.revision));
            }
        }
        if self.reloads.stage == Stage::Owing && waits.is_empty() && !leaving.is_empty() {
            waits.push("what was removed is put away".to_owned());
        }
        match waits.is_empty() {
            true => Look::Done(Outcome::Done(format!("in force: {}", reloaded.words))),
            false => Look::Waits(waits.join("; ")),
        }
    }

    /// It was registered, and is in the file now, which is enough.
    fn adopt(&mut self, name: &ServiceName) {
        let entry = self.entry_mut(name);
        if std::mem::replace(&mut entry.registered, Registered::Config) == Registered::ByOperator {
            let file = registered_folder(&self.config.watchdog.state).join(format!("{name}.toml"));
            if let Err(err) = fs::remove_file(&file) {
                let text = format!("{} is of no use any more and stays: {err}", file.display());
                self.events.add(Logged::of(name, "registered", text));
            }
        }
    }

    /// What runs goes on under it. The revision of its settings, where they changed.
    fn configure_live(
        &mut self,
        name: &ServiceName,
        spec: ServiceSpec,
        checked: Option<CheckedService>,
    ) -> Option<Revision> {
        let interval = spec.save_interval;
        let entry = self.entry_mut(name);
        if let Some(state) = &mut entry.state {
            state.set_interval(interval);
        }
        entry.spec = spec;
        let revision = checked.and_then(|checked| self.settings_of_file(name, checked.schema));
        self.flush_settings(name);
        revision
    }

    /// What is next for a service none of whose processes is there any more.
    pub(in crate::core) async fn take_next(&mut self, name: &ServiceName) -> Result<(), CoreError> {
        let Some(next) = self.entry_mut(name).next.take() else { return Ok(()) };
        let Next { spec, checked } = *next;
        let is_program = spec.kind() == Kind::Program;
        if is_program && self.entry(name).spec.kind() == Kind::Service {
            self.close_lanes(name).await?;
            self.keeper
                .send(&ToKeeper::Drop { name: stored::manifest(name) }, &[])
                .await
                .map_err(CoreError::Keeper)?;
        }
        if !self.listening.contains_key(name) {
            self.open_notifications(&spec, None).await?;
        }
        let interval = spec.save_interval;
        let entry = self.entry_mut(name);
        entry.spec = spec;
        if is_program {
            (entry.manifest, entry.settings, entry.state) = (None, None, None);
        }
        if let Some(checked) = checked {
            self.described_as(name, checked).await?;
        }
        if let Some(state) = &mut self.entry_mut(name).state {
            state.set_interval(interval);
        }
        Ok(())
    }

    /// Its program says this of itself, and its table is another one.
    async fn described_as(&mut self, name: &ServiceName, checked: CheckedService) -> Result<(), CoreError> {
        self.keep_manifest(name, &checked.manifest).await?;
        let version = checked.manifest.state.as_ref().map(|state| state.version);
        let entry = self.entry_mut(name);
        entry.manifest = Some(Box::new(checked.manifest));
        match (&mut entry.state, version) {
            (Some(state), Some(version)) => state.known = version,
            (Some(_), None) => entry.state = None,
            (None, Some(_)) => {
                let state = self.load_state(name);
                self.entry_mut(name).state = state.map(Box::new);
            }
            (None, None) => {}
        }
        self.settings_of_file(name, checked.schema);
        self.flush_settings(name);
        self.compare_contracts(name);
        Ok(())
    }

    /// Whatever rests takes what is next for it, whatever was removed and has ended goes, and then nothing is owed.
    pub(in crate::core) async fn look_at_reload(&mut self) -> Result<(), CoreError> {
        if self.reloads.stage != Stage::Owing {
            return Ok(());
        }
        let resting = self.entries.iter().filter(|(name, entry)| {
            (entry.next.is_some() || entry.leaving)
                && self.roster.get(name).is_some_and(|service| !service.is_live())
        });
        let resting: Vec<_> = resting.map(|(name, entry)| (name.clone(), entry.leaving)).collect();
        for (name, is_leaving) in resting {
            match is_leaving {
                false => self.take_next(&name).await?,
                true if self.rests(&name) && self.entry(&name).heir.is_some() => {
                    self.hand_down(&name).await?;
                }
                true if self.rests(&name) && !self.is_settling(&name) => self.let_go(&name).await?,
                true => {}
            }
        }
        if self.entries.values().all(|entry| entry.next.is_none() && !entry.leaving) {
            self.paid();
        }
        Ok(())
    }

    /// Its last process is gone, its state on disk. Whoever requires it, and goes too, goes first.
    async fn let_go(&mut self, name: &ServiceName) -> Result<(), CoreError> {
        let chance = self.chance();
        let Ok(commands) = self.roster.unregister(name, crate::core::now(), chance) else { return Ok(()) };
        self.perform_all(commands).await?;
        self.forget(name).await?;
        let text = "removed: it is in the configuration no more; what it has on disk stays";
        self.events.add(Logged::of(name, "removed", text));
        Ok(())
    }

    /// The deeds a new core does again, as they may not have been.
    pub(super) async fn owe_again(
        &mut self,
        by: &Actor,
        restarts: &BTreeMap<ServiceName, Incarnation>,
    ) -> Result<(), CoreError> {
        use watchdog_lifecycle::{Event, Verb};
        let mut verbs = Vec::new();
        for (name, entry) in &self.entries {
            let Some(service) = self.roster.get(name) else { continue };
            if entry.leaving && !service.is_removed() {
                verbs.push((name.clone(), Verb::Remove));
            } else if let (Some(ends), Some(_)) = (restarts.get(name), &entry.next)
                && service.phase().incarnation() == Some(*ends)
                && *service.wanted() == Wanted::Up
            {
                verbs.push((name.clone(), Verb::Reload));
            }
        }
        for (name, verb) in verbs {
            let event = Event::Asked { verb, by: by.clone() };
            let commands = self.roster.step(&name, event, crate::core::now(), self.chance());
            self.perform_all(commands).await?;
        }
        Ok(())
    }

    /// Says of a table that a running service has settings of, what of it is new.
    fn settings_of_file(
        &mut self,
        name: &ServiceName,
        schema: crate::config::schema::Schema,
    ) -> Option<Revision> {
        if schema.has_no_settings() {
            self.entry_mut(name).settings = None;
            return None;
        }
        let spec = self.entry(name).spec.clone();
        if self.entry(name).settings.is_none() {
            let settings = self.load_settings(&spec, schema);
            self.entry_mut(name).settings = Some(Box::new(settings));
            return None;
        }
        let settings = self.entry_mut(name).settings.as_mut().expect("looked at above");
        settings.schema = schema;
        let before = settings.updater.standing().revision;
        match settings.table(&spec) {
            Ok(revision) => (revision != before).then_some(revision),
            Err(reason) => {
                let text = format!("its table's settings wait or do not fit: {reason}");
                self.events.add(Logged::of(name, "settings", text).because("settings"));
                None
            }
        }
    }
}

/// What a plan comes to, in a line.
fn in_words(plan: &Plan) -> String {
    let words = [
        (Deed::Live, "changed live"),
        (Deed::Restart, "restarted"),
        (Deed::Recreate, "recreated"),
        (Deed::Rename, "renamed"),
        (Deed::Add, "added"),
        (Deed::Remove, "removed"),
    ];
    let counted = words.into_iter().filter_map(|(deed, words)| {
        let names = plan.services.iter().filter(|service| service.deed == deed);
        let names: Vec<_> = names.map(|service| service.service.as_str()).collect();
        (!names.is_empty()).then(|| format!("{} {words} ({})", names.len(), names.join(", ")))
    });
    let mut all: Vec<_> = counted.collect();
    if !plan.watchdog.is_empty() || !plan.groups.is_empty() {
        all.push("the watchdog's own keys or groups changed".to_owned());
    }
    if all.is_empty() { "nothing that matters".to_owned() } else { all.join(", ") }
}
