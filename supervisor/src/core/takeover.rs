//! How a core begins: the first of a keeper, and each that follows one that died.
//!
//! ```text
//! keeper's hand-over ─► configuration in force ─► entries and roster, from the notes
//!        └ sessions, lanes, pipes, notes, children, exits that nobody acknowledged
//! ─► what happened meanwhile is said as facts ─► what may not have been performed is commanded again
//! ─► services are told, and repeat what was not answered
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use watchdog_keeper::protocol::{FromKeeper, Hello, ToKeeper};
use watchdog_keeper::{CHANNEL, PidRecord, STDERR, start_time, widen_table};
use watchdog_lifecycle::{Fact, Group, Occurrence, Phase, Roster, Service};
use watchdog_protocol::session::ToService;
use watchdog_protocol::{Incarnation, Manifest, ServiceName};
use watchdog_seqpacket::{InheritedError, Seqpacket, inherited, inherited_descriptor, payload};

use super::answer::Answered;
use super::audit::Audit;
use super::cgroups::{self, OfMachine};
use super::control::{ControlDoor, Hours};
use super::event_loop::{End, Inputs};
use super::events::{Entry as Logged, EventLog};
use super::exits::Whose;
use super::fit::Comparisons;
use super::hand_over::{hand, hand_over};
use super::in_force::InForce;
use super::keeper_link::{KeeperLink, LinkError};
use super::lanes::answers::Answers;
use super::lanes::{Lane, Lanes};
use super::limits::Limiting;
use super::note::{Note, Noted};
use super::registration::{Found, registered, registered_folder};
use super::reload::{Before, Reloads};
use super::session::Session;
use super::slack::Slack;
use super::stored::{self, Stored};
use super::unfit::Unfit;
use super::upgrade::{Told, Upgrade};
use super::words::{self, Said};
use super::{
    CONTROL_INBOX, Core, CoreError, NOTIFICATIONS, Process, Registered, SESSION_INBOX, SIGNS, Shutdown,
    chain, now, started_at,
};
use crate::capture::{Capture, Hand, Logs, Sign};
use crate::config::{self, CheckedService, Config, ServiceSpec};
use crate::notify::Notified;
use crate::probe::Probes;
use crate::processes::leftovers;
use crate::run::{former_incarnations, kept_config, sweep_state};
use crate::store::writer::Writer;
use crate::usage::Meter;

/// The version of the keeper that wants to know when a core serves.
const READY_SINCE: u16 = 2;

/// Exit code of a core that can't go on; the keeper starts another.
const FAILED: u8 = 1;

/// How much a core does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// What can be done without deciding anything: [`safe`](super::safe).
    Safe,
}

/// The core's whole life: called in a process of its own, started by the keeper.
pub(crate) fn main(config: &Path, runtime: &Path, extent: Extent) -> ExitCode {
    let filter = EnvFilter::try_from_env("WATCHDOG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let console = fmt::layer().with_writer(std::io::stderr).with_target(false).with_filter(filter);
    let (words, said) = words::channel();
    tracing_subscriber::registry().with(console).with(words.with_filter(LevelFilter::WARN)).init();
    // So that a process of the same user can't take descriptors out of it.
    if let Err(err) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("the core stays dumpable: {err}");
    }
    let keeper = match inherited(CHANNEL) {
        Ok(keeper) => keeper,
        Err(err) => {
            tracing::error!("`core` is started by `watchdog run` alone: {}", chain(&err));
            return ExitCode::from(2);
        }
    };
    let stderr = match inherited_descriptor(STDERR) {
        Ok(stderr) => Some(stderr),
        Err(InheritedError::NotSet { .. }) => None,
        Err(err) => {
            tracing::error!("the core's words stay with the keeper: {}", chain(&err));
            None
        }
    };
    // Run by descriptor, its name would be that number.
    let _ = nix::sys::prctl::set_name(c"watchdog");
    // Before there is a second thread.
    widen_table();
    let tokio = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(err) => {
            tracing::error!("cannot start the runtime: {err}");
            return ExitCode::from(FAILED);
        }
    };
    let lived = match extent {
        Extent::Whole => tokio.block_on(live(keeper, stderr, (config, runtime), said)),
        Extent::Safe => tokio.block_on(super::safe::live(keeper, config, runtime, said)),
    };
    match lived {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            tracing::error!("the core ends: {}", chain(&err));
            ExitCode::from(FAILED)
        }
    }
}

pub(super) fn starting<E: std::error::Error + Send + Sync + 'static>(
    step: &str,
) -> impl FnOnce(E) -> CoreError {
    let step = step.to_owned();
    move |source| CoreError::Start { step, source: Box::new(source) }
}

async fn live(
    keeper: Seqpacket,
    stderr: Option<OwnedFd>,
    (config, runtime): (&Path, &Path),
    said: Said,
) -> Result<u8, CoreError> {
    let mut keeper = KeeperLink::new(keeper).map_err(starting("open the channel to the keeper"))?;
    let mut handed = hand_over(&mut keeper).await?;
    write_pid_record(runtime, handed.hello.core_generation)
        .map_err(starting("write the core's pid record"))?;
    let step = "read the configuration in force";
    let in_force = InForce::parse(&fs::read_to_string(kept_config(runtime)).map_err(starting(step))?);
    let config = config::parse(config, Arc::clone(&in_force.text)).map_err(starting(step))?;
    let (from_sessions, sessions) = mpsc::channel(SESSION_INBOX);
    let (calls_in, calls) = mpsc::channel(CONTROL_INBOX);
    let hand = hand(&keeper, handed.stored.remove(stored::HAND)).await?;
    let (from_notifications, notifications) = mpsc::channel(NOTIFICATIONS);
    let (from_signs, signs) = mpsc::channel(SIGNS);
    let tells = Tells { sessions: from_sessions, notifications: from_notifications, signs: from_signs };
    let reloads = Reloads::of(in_force);
    let mut core = Core::new((config, reloads), keeper, handed.hello, handed.upgrade, hand, tells)?;
    let door = ControlDoor::open(
        &core.config.watchdog.runtime,
        core.keeper_hello.pid,
        leftovers::led_by(&core.config.watchdog.runtime),
    )
    .map_err(starting("open the control socket"))?;
    let mut doors = JoinSet::new();
    core.restore(handed.stored, handed.told).await?;
    doors.spawn(door.serve(calls_in, core.hours.subscribe()));
    core.say_ready(stderr).await?;
    let mut inputs = Inputs { sessions, notifications, signs, calls, said };
    let outcome = core.run(&mut inputs).await;
    while let Some(entry) = inputs.said.now() {
        core.events.add(entry);
    }
    let code = match outcome {
        Ok(End::Finished(code)) => code,
        Ok(End::Replaced(leave)) => {
            // The socket's file stays, so that who calls waits for the next core.
            doors.shutdown().await;
            core.leave(&leave).await?;
            return Ok(0);
        }
        Err(CoreError::Keeper(LinkError::Gone)) => {
            // The keeper is gone, and with it the promise that a service has one process: all of them end here.
            tracing::error!("the keeper is gone: every service is stopped");
            core.end_all_without_keeper().await;
            core.capture.stop().await;
            return Ok(FAILED);
        }
        Err(err) => return Err(err),
    };
    core.hours.send_replace(Hours::Closed);
    doors.join_all().await;
    core.remove_cgroups();
    core.events.add(Logged::new("stopped", "everything is stopped"));
    core.events.write_out();
    core.capture.stop().await;
    core.keeper.send(&ToKeeper::Finish { code }, &[]).await.map_err(CoreError::Keeper)?;
    // All is written, and this process ends: taking its memory apart piece by piece would make whoever stops wait.
    std::mem::forget(core);
    Ok(code)
}

pub(super) fn write_pid_record(runtime: &Path, generation: u64) -> std::io::Result<()> {
    let pid = std::process::id();
    let record =
        PidRecord { incarnation: Incarnation::from_stored(generation), pid, start_time: start_time(pid)? };
    // Written over, not emptied before: ext4 would write it to the disk at once.
    let file =
        File::options().write(true).create(true).truncate(false).open(leftovers::core_pid_file(runtime))?;
    file.write_all_at(&record.to_bytes(), 0)
}

/// The first core of this keeper: none noted anything before it.
fn is_first(keeper: &Hello) -> bool {
    keeper.core_generation <= 1
}

/// Where those outside the event loop tell it what they hear.
struct Tells {
    sessions: mpsc::Sender<super::FromSession>,
    notifications: mpsc::Sender<Notified>,
    signs: mpsc::Sender<Sign>,
}

impl Core {
    fn new(
        (config, reloads): (Config, Reloads),
        keeper: KeeperLink,
        keeper_hello: Hello,
        upgrade: Option<Told>,
        hand: Hand,
        tells: Tells,
    ) -> Result<Self, CoreError> {
        let section = &config.watchdog;
        let is_first = is_first(&keeper_hello);
        let ahead = config.services.keys().filter(|_| is_first).cloned().collect();
        let (of_machine, making_cgroups) = cgroups::find(section.state.clone(), ahead);
        let mut events = EventLog::open(&section.logs).map_err(starting("open the event log"))?;
        let logs = Logs { folder: section.logs.clone(), size: section.log_size, files: section.log_files };
        let capture = Capture::start(logs, hand, tells.signs).map_err(starting("start the log capture"))?;
        if !is_first && let Err(err) = sweep_state(&section.state) {
            tracing::warn!("what the core before was writing is left: {}", chain(&err));
        }
        let mut opened = Writer::open(&section.state).map_err(starting("read the journal"))?;
        if let Some(err) = &opened.failed {
            let text = format!("the journal takes nothing yet, it is tried again: {}", chain(err));
            events.add(Logged::new("disk", text));
        }
        if opened.cut_off > 0 {
            let text = format!(
                "the journal ended in {} bytes of a write that was cut off, and was promised to nobody",
                opened.cut_off
            );
            events.add(Logged::new("journal", text));
        }
        for aside in opened.writer.set_aside() {
            let text = format!("the journal is damaged; it was set aside as {}", aside.now.display());
            events.add(Logged::new("journal", text));
        }
        let (audit, opening) = Audit::open(&section.logs, &section.state, &mut opened.writer)
            .map_err(starting("open the audit"))?;
        for text in opening.told() {
            events.add(Logged::new("audit", text));
        }
        let mut notes = Vec::new();
        let OfMachine { cgroups, means } =
            of_machine.recv().map_err(starting("find the cgroups of services"))?;
        let cgroups = match cgroups {
            Ok(tree) => Some(tree),
            Err(none) => {
                notes
                    .push(format!("no cgroups, processes are tracked by group and parent: {}", chain(&none)));
                None
            }
        };
        Ok(Self {
            roster: Roster::default(),
            entries: BTreeMap::new(),
            lanes: Lanes::default(),
            events,
            audit,
            keeper,
            keeper_hello,
            orphans: Vec::new(),
            clearing: BTreeMap::new(),
            capture,
            store: opened.writer,
            tasks: JoinSet::new(),
            describing: JoinSet::new(),
            comparisons: Comparisons::default(),
            probes: Probes::new(),
            limiting: Limiting::new(means),
            meter: Meter::new(&section.state),
            cgroups,
            making_cgroups: Some(making_cgroups),
            stored: BTreeMap::new(),
            from_sessions: tells.sessions,
            from_notifications: tells.notifications,
            listening: BTreeMap::new(),
            pending: VecDeque::new(),
            acknowledge: Vec::new(),
            slack: Slack::after(tokio::time::Instant::now()),
            is_starting: false,
            waiters: Vec::new(),
            answers: Answers::default(),
            answered: Answered::create().map_err(starting("make the note of answered requests"))?,
            deeds: VecDeque::new(),
            upgrade: Upgrade::of(upgrade),
            reloads,
            groups_note: Note::create().map_err(starting("make the note of the groups"))?,
            shutdown: Shutdown::No,
            shutdown_asked: None,
            hours: watch::Sender::new(Hours::Open),
            notes,
            config,
        })
    }

    /// Entries, roster, lanes and sessions, as the keeper has them; then the facts of the meantime.
    async fn restore(
        &mut self,
        mut stored: HashMap<Vec<u8>, Vec<OwnedFd>>,
        told: Vec<FromKeeper>,
    ) -> Result<(), CoreError> {
        let is_first = is_first(&self.keeper_hello);
        self.restore_answered(stored.remove(stored::ANSWERED)).await?;
        let mut groups = self.restore_groups(stored.remove(stored::GROUPS)).await?;
        let former = former_incarnations(&self.config.watchdog.runtime).unwrap_or_default();
        let before = Before::of(&self.config.path, &self.reloads);
        if is_first {
            self.rename_at_rest().await?;
        }
        let mut specs = self.specs();
        let mut leaving = before.removed();
        leaving.retain(|name, _| stored.contains_key(&stored::note(name)));
        let renamed = before.renamed();
        let heir = |name: &ServiceName| {
            renamed.iter().find(|(old, new)| *new == name && leaving.contains_key(*old)).map(|(old, _)| old)
        };
        let heirs: Vec<_> = specs.extract_if(.., |(spec, _)| heir(&spec.name).is_some()).collect();
        let heirs: Vec<_> =
            heirs.into_iter().filter_map(|(spec, _)| Some((heir(&spec.name)?.clone(), spec))).collect();
        let names: BTreeSet<_> =
            specs.iter().map(|(spec, _)| &spec.name).chain(leaving.keys()).cloned().collect();
        let promised: BTreeMap<_, _> =
            heirs.iter().map(|(_, spec)| (spec.name.clone(), spec.policy.clone())).collect();
        for spec in leaving.values_mut() {
            // What it waited for may be gone before it.
            let is_there = |name: &ServiceName| names.iter().any(|other| name.covers(other));
            let policy = Arc::make_mut(&mut spec.policy);
            policy.requires.retain(is_there);
            policy.after.retain(is_there);
        }
        let is_leaving: BTreeSet<_> = leaving.keys().cloned().collect();
        let leaving = leaving.into_values().map(|spec| (spec, Registered::Config));
        let mut services = Vec::new();
        self.store.begin_loading();
        for (spec, registered) in specs.into_iter().chain(leaving) {
            let name = spec.name.clone();
            let (record, found) = found(&mut stored, &name)?;
            let manifest = manifest(stored.remove(&stored::manifest(&name)));
            // Of a process that is to end, what it said of itself is about the table of before.
            let ends = before.restarts(&name).filter(|ends| {
                record.as_ref().is_some_and(|noted| noted.service.phase().incarnation() == Some(*ends))
            });
            let described = ends.and_then(|_| before.table(&name)).unwrap_or(&spec);
            let (checked, is_kept, unfit) = self.checked(described, registered, manifest)?;
            let policy = spec.policy.clone();
            let notify = stored.remove(&stored::notify(&name)).and_then(|mut fds| fds.pop());
            let found = found.map(|(note, pipes)| Found { note, pipes, notify, manifest_is_kept: is_kept });
            self.add_entry(spec, checked, registered, found).await?;
            self.entry_mut(&name).unfit = unfit;
            let mut service = self.begin_service(&name, former.get(&name).copied());
            if let Some(noted) = record {
                self.entry_mut(&name).built = noted.built;
                service = noted.service;
            }
            self.entry_mut(&name).leaving = is_leaving.contains(&name);
            if ends.is_some() {
                self.runs_still(&name, &before);
            }
            services.push((name, policy, service));
        }
        self.store.end_loading();
        self.capture.begin();
        for (name, spec) in heirs {
            self.will_be(&name, spec);
        }
        self.make_orderly(&mut services, &promised);
        self.roster = Roster::expecting(services, promised).map_err(starting("order the services"))?;
        for (name, policy) in &self.config.groups {
            let group = groups.remove(name).unwrap_or_default();
            self.roster.group(name.clone(), policy.clone(), group);
        }
        if !is_first {
            self.add_missing_events().map_err(starting("read the event log"))?;
        }
        self.restore_lanes(&mut stored, &renamed);
        self.rename_lanes_left(&renamed).await?;
        self.watch_operator_lanes();
        self.restore_sessions(&mut stored)?;
        self.revoke().await?;
        for child in self.keeper_hello.children.clone() {
            self.restore_child(&child);
        }
        for name in stored.into_keys() {
            // Of a service that is gone, or of a session whose process is.
            self.keeper.send(&ToKeeper::Drop { name }, &[]).await.map_err(CoreError::Keeper)?;
        }
        for message in told {
            self.keeper_said(message).await?;
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in &names {
            self.compare_contracts(name);
            if self.rests(name) {
                // The core before this one may have been killed over it.
                self.settle_files(name);
            }
        }
        let text = if is_first {
            format!("the watchdog started (keeper pid {})", self.keeper_hello.pid)
        } else {
            format!("core {} took over", self.keeper_hello.core_generation)
        };
        self.events.add(Logged::new(if is_first { "started" } else { "took-over" }, text));
        if let Some(event) = self.upgrade.event(&self.keeper_hello) {
            self.events.add(event);
        }
        self.decide().await?;
        self.go_on_with_reload(&before).await?;
        let chance = self.chance();
        let commands =
            if is_first { self.roster.begin(now(), chance) } else { self.roster.took_over(now(), chance) };
        self.perform_all(commands).await
    }

    /// What the older core had noted, and was killed before it wrote it into the event log.
    fn add_missing_events(&mut self) -> std::io::Result<()> {
        let mut missing = Vec::new();
        for (name, told) in self.events.newest()? {
            let Some(service) = self.roster.get(&name) else { continue };
            let end = service.last_end().filter(|end| end.incarnation == told.incarnation && !told.is_ended);
            missing.extend(end.map(|end| (name.clone(), Occurrence::Ended(Box::new(end.clone())))));
            if let (Phase::Failed { cause, .. }, false) = (service.phase(), told.has_failed) {
                missing.push((name.clone(), Occurrence::Failed { cause: cause.clone() }));
            }
            let current = service.phase().incarnation().filter(|current| *current > told.incarnation);
            missing.extend(current.map(|incarnation| (name.clone(), Occurrence::Starting { incarnation })));
        }
        for (name, occurrence) in missing {
            self.add_event(&name, &occurrence);
        }
        Ok(())
    }

    async fn restore_answered(&mut self, fds: Option<Vec<OwnedFd>>) -> Result<(), CoreError> {
        match fds.and_then(|mut fds| fds.pop()) {
            Some(fd) => {
                self.answered =
                    Answered::reopen(fd).map_err(starting("read the note of answered requests"))?;
            }
            None => {
                let message = ToKeeper::Store { name: stored::ANSWERED.to_vec() };
                self.keeper.send(&message, &[self.answered.fd()]).await.map_err(CoreError::Keeper)?;
            }
        }
        Ok(())
    }

    /// What the older core remembered of the groups.
    async fn restore_groups(
        &mut self,
        fds: Option<Vec<OwnedFd>>,
    ) -> Result<BTreeMap<ServiceName, Group>, CoreError> {
        if let Some(fd) = fds.and_then(|mut fds| fds.pop()) {
            let (note, groups) = Note::reopen(fd).map_err(starting("read the note of the groups"))?;
            self.groups_note = note;
            return Ok(groups.unwrap_or_default());
        }
        let message = ToKeeper::Store { name: stored::GROUPS.to_vec() };
        self.keeper.send(&message, &[self.groups_note.fd()]).await.map_err(CoreError::Keeper)?;
        Ok(BTreeMap::new())
    }

    /// All services: of the configuration, and registered since.
    fn specs(&mut self) -> Vec<(ServiceSpec, Registered)> {
        // They go to the entries: nothing is looked up here again.
        let configured = std::mem::take(&mut self.config.services);
        let beyond = self.instances_beyond(&configured);
        let configured = configured.into_values();
        let mut specs: Vec<_> = configured.chain(beyond).map(|spec| (spec, Registered::Config)).collect();
        let folder = registered_folder(&self.config.watchdog.state);
        let mut files: Vec<_> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|f| f.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
        files.sort();
        for file in files {
            let read = fs::read_to_string(&file).map_err(|err| err.to_string());
            let parsed = read.and_then(|text| registered(&file, &text).map_err(|err| err.to_string()));
            match parsed {
                Ok(spec) if specs.iter().any(|(other, _)| other.name == spec.name) => {
                    let text = "registered, and in the configuration too, which counts";
                    self.events.add(Logged::of(&spec.name, "registered", text));
                }
                Ok(spec) => specs.push((spec, Registered::ByOperator)),
                Err(reason) => {
                    let text = format!("{} was registered and can't be read: {reason}", file.display());
                    self.events.add(Logged::new("registered", text));
                }
            }
        }
        specs
    }

    /// What a service said of itself: as the older core knew it, else as it says now. `true`: the keeper has it.
    fn checked(
        &mut self,
        spec: &ServiceSpec,
        registered: Registered,
        manifest: Option<Manifest>,
    ) -> Result<(Option<CheckedService>, bool, Option<Unfit>), CoreError> {
        let cache = config::manifest_cache(&self.config);
        let step = "check what a service says of itself";
        match manifest {
            Some(manifest) => {
                let checked = config::as_described(spec, manifest).map_err(starting(step))?;
                Ok((Some(checked), true, None))
            }
            None => match (config::check_service(spec, Some(&cache)), registered) {
                (Ok(checked), _) => Ok((checked, false, None)),
                (Err(errors), Registered::Config) => Err(starting(step)(errors)),
                (Err(_), Registered::ByOperator) => {
                    let (described, unfit) = self.described_at_least(spec);
                    Ok((described, false, unfit))
                }
            },
        }
    }

    fn restore_lanes(
        &mut self,
        stored: &mut HashMap<Vec<u8>, Vec<OwnedFd>>,
        renamed: &BTreeMap<ServiceName, ServiceName>,
    ) {
        let names: Vec<_> = stored.keys().cloned().collect();
        for name in names {
            let Some(Stored::Lane(text)) = stored::parse(&name) else { continue };
            let fds = stored.remove(&name).unwrap_or_default();
            match Lane::restore(&text, fds) {
                // Without its sender it is retired below.
                Ok(lane)
                    if self.entries.contains_key(renamed.get(&lane.receiver).unwrap_or(&lane.receiver))
                        || self.entries.contains_key(&lane.receiver) =>
                {
                    self.lanes.insert(lane);
                }
                Ok(_) => {
                    stored.insert(name, Vec::new());
                }
                Err(err) => {
                    let lost =
                        format!("a lane can't be taken over, what was queued in it is lost: {}", chain(&err));
                    self.events.add(Logged::new("lane", lost));
                    stored.insert(name, Vec::new());
                }
            }
        }
    }

    /// Sessions of living processes go on; of dead ones they are read to their end first.
    fn restore_sessions(&mut self, stored: &mut HashMap<Vec<u8>, Vec<OwnedFd>>) -> Result<(), CoreError> {
        let names: Vec<_> = stored.keys().cloned().collect();
        for name in names {
            let Some(Stored::Session(service, incarnation)) = stored::parse(&name) else { continue };
            let current = self.roster.get(&service).and_then(|s| s.phase().incarnation());
            if current != Some(incarnation) {
                continue;
            }
            let Some(socket) = stored.remove(&name).and_then(|mut fds| fds.pop()) else { continue };
            let socket = Seqpacket::from_fd(socket).map_err(starting("take over a session"))?;
            let session = Session::open(
                service.clone(),
                incarnation,
                socket,
                &mut self.tasks,
                self.from_sessions.clone(),
            )
            .map_err(starting("take over a session"))?;
            self.entry_mut(&service).session = Some(session);
            self.tell(&service, &ToService::TookOver, Vec::new());
            if let Some(state) = self.entry_mut(&service).state.as_mut() {
                state.resumed(incarnation);
            }
        }
        Ok(())
    }

    fn restore_child(&mut self, child: &watchdog_keeper::protocol::Child) {
        let Some(entry) = self.entries.get_mut(&child.service) else { return };
        entry.process = Some(Process { incarnation: child.incarnation, pid: child.pid });
        entry.last_pid = Some(child.pid);
        entry.started = Some(started_at(child.start_time));
        self.fact(&child.service, child.incarnation, Fact::Spawned);
        self.watch_log(&child.service, child.incarnation);
        self.restore_limits(&child.service);
    }

    /// It serves: tells the keeper, and from here on what it says is no last word any more.
    async fn say_ready(&mut self, stderr: Option<OwnedFd>) -> Result<(), CoreError> {
        if self.keeper_hello.version >= READY_SINCE {
            self.keeper.send(&ToKeeper::Ready, &[]).await.map_err(CoreError::Keeper)?;
        }
        if let Some(stderr) = stderr
            && let Err(err) = go_on_at(&stderr)
        {
            tracing::warn!("what the core says is not seen: {err}");
        }
        Ok(())
    }

    /// Without a keeper: everything by cgroup, else by group, at once after the grace the SDK gives itself.
    async fn end_all_without_keeper(&mut self) {
        let patience = self
            .entries
            .values()
            .filter(|entry| entry.process.is_some())
            .map(|entry| entry.spec.policy.stop_timeout)
            .max()
            .unwrap_or_default();
        let services: Vec<_> = self.entries.keys().cloned().collect();
        for service in &services {
            self.tell(service, &ToService::Stop, Vec::new());
            self.signal_left(service, self.entry(service).spec.stop_signal, Whose::Programs);
        }
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline && services.iter().any(|s| self.is_left(s)) {
            tokio::time::sleep(super::exits::LOOK * 10).await;
        }
        for service in &services {
            self.signal_left(service, nix::sys::signal::Signal::SIGKILL, Whose::All);
        }
    }
}

/// Standard error is the keeper's from here on; first comes there what was said so far.
fn go_on_at(stderr: &OwnedFd) -> std::io::Result<()> {
    let mut so_far = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    let length = so_far.stream_position()?;
    so_far.rewind()?;
    let mut keepers = File::from(stderr.try_clone()?);
    std::io::copy(&mut so_far.take(length), &mut keepers)?;
    Ok(nix::unistd::dup2_stderr(stderr)?)
}

/// A service's record, note and pipes.
type FoundService = (Option<Noted<Service>>, Option<(Note, Option<[OwnedFd; 4]>)>);

fn found(stored: &mut HashMap<Vec<u8>, Vec<OwnedFd>>, name: &ServiceName) -> Result<FoundService, CoreError> {
    let note = stored.remove(&stored::note(name)).and_then(|mut fds| fds.pop());
    let pipes = stored.remove(&stored::pipes(name)).and_then(|fds| <[OwnedFd; 4]>::try_from(fds).ok());
    let Some(note) = note else { return Ok((None, None)) };
    let (note, record) = Note::reopen(note).map_err(starting("read a note"))?;
    Ok((record, Some((note, pipes))))
}

fn manifest(fds: Option<Vec<OwnedFd>>) -> Option<Manifest> {
    let fd = fds?.pop()?;
    let length = File::from(fd.try_clone().ok()?).metadata().ok()?.len();
    let bytes = payload::read(fd.as_fd(), length, watchdog_protocol::limits::MAX_MANIFEST).ok()?;
    Manifest::parse(&bytes).ok()
}
