//! Services that come and go while the watchdog runs: `register`, `unregister`, and programs that were built anew.
//!
//! A program describes itself off the event loop: it may take seconds, and may hang.

use std::fs;
use std::future;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;
use watchdog_keeper::protocol::ToKeeper;
use watchdog_lifecycle::settings::SettingsUpdater;
use watchdog_lifecycle::values::Values;
use watchdog_protocol::control::{Failure, FailureKind, Outcome};
use watchdog_protocol::record::LOGGING;
use watchdog_protocol::{Incarnation, Manifest, ServiceName};
use watchdog_seqpacket::payload;

use super::events::Entry as Logged;
use super::note::Note;
use super::settings::Settings;
use super::verbs::Asked;
use super::waiting::{Target, end};
use super::{Core, CoreError, Entry, Kept, Outlets, Registered, chain, now, stored, wall_time};
use crate::capture::Stream;
use crate::config::fit;
use crate::config::{self, CheckedService, ConfigErrors, LogSigns, ServiceSpec};
use crate::store::record;
use crate::store::replace::replace;

/// A program that described itself, or did not.
#[derive(Debug)]
pub(super) struct Described {
    spec: ServiceSpec,
    outcome: Result<Option<CheckedService>, ConfigErrors>,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Register { asked: Asked, text: String },
    BuiltAnew,
}

/// The next program that described itself; waits for ever while none is asked. Cancel safe.
pub(super) async fn next_described(describing: &mut JoinSet<Described>) -> Described {
    match describing.join_next().await {
        Some(Ok(described)) => described,
        Some(Err(err)) => match err.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(err) => unreachable!("no description is ever cancelled: {err}"),
        },
        None => future::pending().await,
    }
}

/// Where the tables lie that were registered while the watchdog ran.
pub(crate) fn registered_folder(state: &Path) -> PathBuf {
    state.join("registered")
}

/// A registered table: its first line says where it was read.
pub(crate) fn registered(file: &Path, text: &str) -> Result<ServiceSpec, config::ConfigErrors> {
    // Without that line, so that places are those of the file that was read.
    match text.split_once('\n').and_then(|(first, table)| Some((first.strip_prefix("# ")?, table))) {
        Some((source, table)) => config::parse_one(Path::new(source), table),
        None => config::parse_one(file, text),
    }
}

impl Core {
    fn ask_to_describe(&mut self, spec: ServiceSpec, why: Why) {
        let cache = config::manifest_cache(&self.config);
        self.describing.spawn_blocking(move || {
            let outcome = config::check_service(&spec, Some(&cache));
            Described { spec, outcome, why }
        });
    }

    /// The running program is another one than described itself.
    pub(super) fn describe_again(&mut self, service: &ServiceName) {
        let spec = self.entry(service).spec.clone();
        self.ask_to_describe(spec, Why::BuiltAnew);
    }

    /// `register`: the table is read at once, the program asked, then the service is taken in.
    pub(super) fn register(&mut self, asked: Asked, file: &str, text: String) {
        if self.answered.find(asked.id).is_some() {
            return end(&asked.replies, Ok(Outcome::Done("registered".to_owned())));
        }
        let wrong = |err: String| Failure::new(FailureKind::Configuration, err);
        let spec = match config::parse_one(Path::new(file), &text) {
            Ok(spec) => spec,
            Err(errors) => return end(&asked.replies, Err(wrong(errors.to_string()))),
        };
        if self.roster.members(&spec.name).is_some() {
            return end(&asked.replies, Err(wrong(format!("`{}` is the name of a group", spec.name))));
        }
        if self.is_settling(&spec.name) {
            let text = format!("the last state of the `{}` before is still being written", spec.name);
            return end(&asked.replies, Err(Failure::new(FailureKind::TryAgain, text)));
        }
        if self.entries.contains_key(&spec.name) {
            let failure = wrong(format!("`{}` is already registered", spec.name));
            let hint = format!("watchdog unregister {}", spec.name);
            return end(&asked.replies, Err(failure.hint(hint)));
        }
        self.ask_to_describe(spec, Why::Register { asked, text });
    }

    pub(super) async fn described(&mut self, described: Described) -> Result<(), CoreError> {
        let Described { spec, outcome, why } = described;
        let name = spec.name.clone();
        match (why, outcome) {
            (Why::Register { asked, .. }, Err(errors)) => {
                let failure = Failure::new(FailureKind::Configuration, errors.to_string());
                end(&asked.replies, Err(failure));
            }
            (Why::Register { asked, text }, Ok(checked)) => {
                for warning in checked.iter().flat_map(|checked| &checked.warnings) {
                    self.events.add(Logged::of(&name, "settings", warning.to_string()));
                }
                self.take_in(asked, spec, &text, checked).await?;
            }
            (Why::BuiltAnew, Ok(Some(checked))) => {
                if self.entries.contains_key(&name) {
                    self.built_anew(&name, checked).await?;
                }
            }
            (Why::BuiltAnew, Ok(None)) => {}
            (Why::BuiltAnew, Err(errors)) => {
                let text = format!("the new build can't be used as configured: {errors}");
                self.events.add(Logged::of(&name, "manifest", text).because("settings"));
            }
        }
        Ok(())
    }

    async fn take_in(
        &mut self,
        asked: Asked,
        spec: ServiceSpec,
        text: &str,
        checked: Option<CheckedService>,
    ) -> Result<(), CoreError> {
        let name = spec.name.clone();
        if let Err(failure) = self.reloads.may_come_and_go() {
            end(&asked.replies, Err(failure));
            return Ok(());
        }
        let wrong = |text: String| Failure::new(FailureKind::Configuration, text);
        // Somebody else may have been faster while its program was asked.
        if self.entries.contains_key(&name) {
            let failure = wrong(format!("`{name}` is already registered"));
            end(&asked.replies, Err(failure.hint(format!("watchdog unregister {name}"))));
            return Ok(());
        }
        let others = self.entries.values().map(|entry| &entry.spec);
        if let Err(errors) = ConfigErrors::none_of(config::graph::check(others.chain([&spec]))) {
            end(&asked.replies, Err(wrong(errors.to_string())));
            return Ok(());
        }
        let folder = registered_folder(&self.config.watchdog.state);
        let source = spec.source().path().display().to_string();
        let file = folder.join(format!("{name}.toml"));
        let kept = fs::create_dir_all(&folder).map_err(|err| err.to_string()).and_then(|()| {
            replace(&file, format!("# {source}\n{text}").as_bytes()).map_err(|err| chain(&err))
        });
        let policy = spec.policy.clone();
        let added = match kept {
            Ok(()) => self.add_entry(spec, checked, Registered::ByOperator, None).await,
            Err(reason) => Err(CoreError::Start { step: reason.clone(), source: reason.into() }),
        };
        if let Err(err) = added {
            let _ = fs::remove_file(&file);
            end(&asked.replies, Err(Failure::new(FailureKind::Failed, chain(&err))));
            return Ok(());
        }
        let service = self.begin_wanted(&name);
        let chance = self.chance();
        let commands = match self.roster.register(name.clone(), policy, service, now(), chance) {
            Ok(commands) => commands,
            Err(err) => {
                self.forget(&name).await?;
                // It would come back with the next start, which says the same of it.
                let _ = fs::remove_file(&file);
                end(&asked.replies, Err(wrong(err.to_string())));
                return Ok(());
            }
        };
        self.enter(asked.id, Vec::new());
        self.events.add(Logged::of(&name, "registered", format!("registered by {}", asked.by)));
        self.perform_all(commands).await?;
        let target = match asked.wait {
            None => Target::Durable { answer: Outcome::Done(format!("{name} is registered")) },
            Some(_) => Target::Up { services: vec![(name, Incarnation::NONE)] },
        };
        self.wait_for(asked, target, Vec::new());
        Ok(())
    }

    pub(super) async fn unregister(&mut self, asked: &Asked, name: &ServiceName) -> Result<(), CoreError> {
        let chance = self.chance();
        let failed = |text: String| Failure::new(FailureKind::Failed, text);
        if let Err(failure) = self.reloads.may_come_and_go() {
            end(&asked.replies, Err(failure));
            return Ok(());
        }
        if self.entry(name).registered == Registered::Config {
            let failure = failed(format!("{name} is in {}", self.config.path.display()));
            let hint = "take its table out of the file; `watchdog stop` stops it for good";
            end(&asked.replies, Err(failure.hint(hint)));
            return Ok(());
        }
        match self.roster.unregister(name, now(), chance) {
            Ok(commands) => self.perform_all(commands).await?,
            Err(err) => {
                let failure = failed(err.to_string()).hint(format!("watchdog stop {name}"));
                end(&asked.replies, Err(failure));
                return Ok(());
            }
        }
        let queued = self.lanes.totals(name).queued;
        self.forget(name).await?;
        let file = registered_folder(&self.config.watchdog.state).join(format!("{name}.toml"));
        self.events.add(Logged::of(name, "unregistered", format!("unregistered by {}", asked.by)));
        let result = match fs::remove_file(&file) {
            Ok(()) => {
                let lost = match queued {
                    0 => String::new(),
                    1 => "; the message that waited for it is dropped".to_owned(),
                    many => format!("; {many} messages that waited for it are dropped"),
                };
                let text = format!("{name} is unregistered; its state and settings stay on disk{lost}");
                Ok(Outcome::Done(text))
            }
            Err(err) => {
                Err(failed(format!("{name} comes back with the next start: {}: {err}", file.display())))
            }
        };
        end(&asked.replies, result);
        Ok(())
    }

    /// Takes everything of a service out that is not on disk. The roster has it no more.
    pub(super) async fn forget(&mut self, name: &ServiceName) -> Result<(), CoreError> {
        self.close_lanes(name).await?;
        self.put_away(name).await
    }

    /// As [`forget`](Self::forget), but for its lanes.
    pub(super) async fn put_away(&mut self, name: &ServiceName) -> Result<(), CoreError> {
        self.clearing.remove(name);
        let removed = self.entries.remove(name);
        if removed.as_ref().is_some_and(|entry| entry.limits.is_some()) {
            self.limiting.means.forget(name);
        }
        let cgroup = removed.and_then(|entry| entry.cgroup);
        if let Some(Err(err)) = cgroup.map(|cgroup| cgroup.remove()) {
            tracing::warn!("cannot remove the cgroup of {name}: {err}");
        }
        if let Some(task) = self.listening.remove(name) {
            task.abort();
        }
        for stored in [stored::note(name), stored::pipes(name), stored::notify(name), stored::manifest(name)]
        {
            self.keeper.send(&ToKeeper::Drop { name: stored }, &[]).await.map_err(CoreError::Keeper)?;
        }
        self.capture.remove(name);
        Ok(())
    }

    /// A new build of a running service: its lanes are compared again, its settings checked by its new type.
    async fn built_anew(&mut self, name: &ServiceName, checked: CheckedService) -> Result<(), CoreError> {
        self.keep_manifest(name, &checked.manifest).await?;
        if let Some(present) = &self.entry(name).manifest {
            let changes = fit::changes(present, &checked.manifest);
            if !changes.is_empty() {
                let text = format!("the new build takes other messages: {}", changes.join("; "));
                self.events.add(Logged::of(name, "contract", text));
            }
        }
        let known = checked.manifest.state.as_ref().map_or(0, |state| state.version);
        let entry = self.entry_mut(name);
        entry.manifest = Some(Box::new(checked.manifest));
        if let Some(settings) = &mut entry.settings {
            settings.schema = checked.schema;
        }
        if let Some(state) = &mut entry.state {
            state.known = known;
        }
        self.compare_contracts(name);
        if let Some(incarnation) = self.entry(name).session.as_ref().map(super::session::Session::incarnation)
        {
            self.recognize(name, incarnation).await?;
        }
        Ok(())
    }

    /// A new core takes what a service said of itself from the keeper: its program may be another one by then.
    pub(super) async fn keep_manifest(
        &mut self,
        name: &ServiceName,
        manifest: &Manifest,
    ) -> Result<(), CoreError> {
        let sealed = payload::seal(manifest.to_json().as_bytes()).map_err(|err| CoreError::Start {
            step: format!("keep the manifest of `{name}`"),
            source: err.into(),
        })?;
        let message = ToKeeper::Store { name: stored::manifest(name) };
        self.keeper.send(&message, &[sealed.as_fd()]).await.map_err(CoreError::Keeper)
    }

    /// All the core knows of a service, made or found again. The roster has it already, or gets it next.
    pub(super) async fn add_entry(
        &mut self,
        spec: ServiceSpec,
        checked: Option<CheckedService>,
        registered: Registered,
        found: Option<Found>,
    ) -> Result<(), CoreError> {
        let name = spec.name.clone();
        let failed = |step: &str| {
            let step = format!("{step} of `{name}`");
            move |source: std::io::Error| CoreError::Start { step, source: source.into() }
        };
        let (note, pipes, notify, manifest_is_kept, cgroup) = match found {
            Some(Found { note, pipes, notify, manifest_is_kept }) => {
                let cgroup = self.cgroups.as_ref().map(|tree| tree.service(&name)).transpose();
                (note, pipes, notify, manifest_is_kept, cgroup.map_err(failed("find the cgroup"))?)
            }
            None => {
                let note = Note::create().map_err(failed("make the note"))?;
                let message = ToKeeper::Store { name: stored::note(&name) };
                self.keeper.send(&message, &[note.fd()]).await.map_err(CoreError::Keeper)?;
                (note, None, None, false, None)
            }
        };
        if let Some(checked) = &checked
            && !manifest_is_kept
        {
            self.keep_manifest(&name, &checked.manifest).await?;
        }
        self.open_notifications(&spec, notify).await?;
        let lives = self.keeper_hello.children.iter().find(|child| child.service == name);
        if let Some(child) = lives.filter(|_| spec.log_signs != LogSigns::default()) {
            self.capture.resuming(&name, child.incarnation);
        }
        let outlets = pipes.map(|pipes| self.capture_from(&name, pipes));
        let (manifest, schema) = match checked {
            Some(checked) => (Some(Box::new(checked.manifest)), Some(checked.schema)),
            None => (None, None),
        };
        let schema = schema.filter(|schema| !schema.has_no_settings());
        let settings = schema.map(|schema| Box::new(self.load_settings(&spec, schema)));
        let entry = Entry {
            spec,
            manifest,
            settings,
            state: None,
            note,
            outlets,
            cgroup_worn: cgroup.is_some(),
            cgroup,
            session: None,
            process: None,
            spawning: None,
            early: Vec::new(),
            started: None,
            last_pid: None,
            ending: None,
            strain: None,
            last_word: None,
            notifications: super::notified::Notifications::default(),
            registered,
            unfit: None,
            next: None,
            leaving: false,
            heir: None,
            built: 0,
            kept: None,
            kept_change: None,
            limits: None,
            still: super::limits::Still::Runs,
        };
        self.entries.insert(name.clone(), Box::new(entry));
        if name.as_str() == LOGGING {
            self.tell_of_logging(None);
        }
        let state = self.load_state(&name);
        self.entry_mut(&name).state = state.map(Box::new);
        let limits = self.load_limits(&name);
        self.entry_mut(&name).limits = limits;
        Ok(())
    }

    /// The settings as they were left; the file's values are a new revision when they are others.
    pub(super) fn load_settings(&mut self, spec: &ServiceSpec, schema: config::schema::Schema) -> Settings {
        let file = Values::new(spec.settings.values.clone());
        let folder = self.config.watchdog.state.join("settings");
        let loaded = record::load::<SettingsUpdater>(&mut self.store, &folder, spec.name.as_str());
        let mut told = |text: String| {
            self.events.add(Logged::of(&spec.name, "settings", text).because("settings"));
        };
        let updater = match loaded {
            Ok(loaded) => {
                for aside in loaded.set_aside() {
                    told(format!("a settings file is damaged and was set aside as {}", aside.now.display()));
                }
                loaded.content()
            }
            Err(err) => {
                told(format!("its settings can't be read, the file's are used: {}", chain(&err)));
                None
            }
        };
        let Some(updater) = updater else {
            return Settings::new(&spec.name, SettingsUpdater::new(file, wall_time()), schema);
        };
        let mut settings = Settings::new(&spec.name, updater, schema);
        if let Err(reason) = settings.file_changed(file) {
            let revision = settings.updater.standing().revision;
            told(format!(
                "what was set does not fit the changed file: {reason}; revision {revision} stays in force"
            ));
        }
        settings
    }

    /// The write ends of these pipes, once their read ends are captured: read and write end of standard output, then of
    /// standard error.
    pub(super) fn capture_from(&mut self, name: &ServiceName, pipes: [OwnedFd; 4]) -> Outlets {
        let [out_read, output, err_read, errors] = pipes;
        self.capture.add(name, Stream::Output, out_read);
        self.capture.add(name, Stream::Errors, err_read);
        Outlets { output, errors }
    }

    /// What the operator wanted in an earlier life of the watchdog.
    pub(super) fn load_wanted(&mut self, name: &ServiceName) -> Option<Kept> {
        let folder = self.config.watchdog.state.join("wanted");
        match record::load::<Kept>(&mut self.store, &folder, name.as_str()) {
            Ok(loaded) => loaded.content(),
            Err(err) => {
                let text = format!("what was wanted of it can't be read, it is started: {}", chain(&err));
                self.events.add(Logged::of(name, "wanted", text));
                None
            }
        }
    }
}

/// What an older core left with the keeper.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) note: Note,
    /// Read and write end of standard output, then of standard error; none before the first start.
    pub(super) pipes: Option<[OwnedFd; 4]>,
    /// The socket of a program that notifies.
    pub(super) notify: Option<OwnedFd>,
    pub(super) manifest_is_kept: bool,
}
