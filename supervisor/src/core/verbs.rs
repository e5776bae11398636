//! WatchdogQuery, served: what each request does and what it answers.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use watchdog_keeper::protocol::Whom;
use watchdog_lifecycle::{Actor, Event, Haste, Kind, Service, Verb, Wanted};
use watchdog_protocol::audit::Auditee;
use watchdog_protocol::control::{Call, Failure, FailureKind, Outcome, Request};
use watchdog_protocol::session::Content;
use watchdog_protocol::status::Evidence;
use watchdog_protocol::{Incarnation, Manifest, RequestId, ServiceName};

use super::audit::{self, Replies};
use super::control::ControlCall;
use super::dead::Deed;
use super::events::Entry as Logged;
use super::logs::LogCall;
use super::send::Post;
use super::waiting::{Target, Waiter, end};
use super::{Core, CoreError, now};
use crate::nearest::nearest;

/// How long a call that does not wait for an effect waits for the disk.
const DISK: Duration = Duration::from_secs(30);

/// How long a shutdown may take before its caller is told to look again.
const SHUTDOWN: Duration = Duration::from_secs(600);

/// Replies to a service that wait for its session's task.
const SERVICE_REPLIES: usize = 64;

/// Events that wait for one follower: a burst of a thousand starts. One that falls further behind is let go.
const FOLLOWED: usize = 8192;

/// One call on its way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) by: Actor,
    pub(super) wait: Option<Duration>,
    pub(super) replies: Replies,
}

impl Core {
    /// A call of an operator, whose process was let in at the door.
    pub(super) async fn call(&mut self, call: ControlCall) -> Result<(), CoreError> {
        let ControlCall { call, caller, replies } = call;
        let by = Actor::Operator { uid: caller.uid };
        let replies = self.audit.replies(call.id, caller.into(), &call.request, replies);
        self.asked(call, by, replies).await
    }

    /// A call of a service over its session, within its grant.
    pub(super) async fn call_of_service(
        &mut self,
        service: &ServiceName,
        incarnation: Incarnation,
        request: u64,
        call: Content,
    ) -> Result<(), CoreError> {
        let Content::Inline(bytes) = call else { unreachable!("the session's task reads what lies beside") };
        let call: Call = match watchdog_protocol::control::decode(&bytes) {
            Ok(call) => call,
            Err(err) => {
                self.broken(service, incarnation, format!("it sent a call that is {err}"));
                return Ok(());
            }
        };
        let (replies, answers) = mpsc::channel(SERVICE_REPLIES);
        if let Some(session) = self.entries.get_mut(service).and_then(|entry| entry.session.as_mut()) {
            session.answer(call.id, request, answers, &mut self.tasks);
        }
        let by = Auditee::Service { name: service.clone(), incarnation };
        let replies = self.audit.replies(call.id, by, &call.request, replies);
        if let Err(failure) = self.granted(service, &call.request) {
            end(&replies, Err(failure));
            return Ok(());
        }
        self.asked(call, Actor::Service(service.clone()), replies).await
    }

    fn granted(&self, service: &ServiceName, request: &Request) -> Result<(), Failure> {
        let grant = &self.entry(service).spec.control;
        let verb = verb_of(request);
        let targets = self.targets(request);
        let allowed = if targets.is_empty() {
            grant.iter().any(|entry| entry.allows(verb, None))
        } else {
            targets.iter().all(|target| grant.iter().any(|entry| entry.allows(verb, Some(target))))
        };
        if allowed {
            return Ok(());
        }
        let whom = targets.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
        let what = if whom.is_empty() { verb.to_owned() } else { format!("{verb} {whom}") };
        let message = format!("`{service}` has no grant to `{what}`");
        let hint = format!("add control = [\"{verb}\"] to its table");
        Err(Failure::new(FailureKind::NotPermitted, message).hint(hint))
    }

    async fn asked(&mut self, call: Call, by: Actor, replies: Replies) -> Result<(), CoreError> {
        let wait = call.wait_ms.map(Duration::from_millis);
        let asked = Asked { id: call.id, by, wait, replies };
        if let Err(failure) = self.known(&self.targets(&call.request)) {
            end(&asked.replies, Err(failure));
            return Ok(());
        }
        match call.request {
            Request::Status { services } => {
                self.look_for_drift();
                end(&asked.replies, Ok(Outcome::Status(Box::new(self.status(&services)))));
            }
            Request::Intercoms { services } => {
                let at = now().as_nanos();
                let mut names = self.named_services(&services);
                names.retain(|name| self.entry(name).spec.kind() == Kind::Service);
                let inboxes = names.iter().map(|name| self.lanes.inbox(name, at)).collect();
                end(&asked.replies, Ok(Outcome::Intercoms(inboxes)));
            }
            Request::Events { after, last, follow } => self.events_asked(&asked, after, last, follow),
            Request::Logs { services, last, follow, resume } => {
                let (folder, services) = (self.config.watchdog.logs.clone(), self.named_services(&services));
                let replies = asked.replies.sender().clone();
                let call = LogCall { folder, services, last, follow, resume, replies };
                self.tasks.spawn(call.serve());
            }
            Request::Why { service } => {
                let services = self.status(&[]).services;
                let replies = asked.replies.sender().clone();
                self.tasks.spawn(self.events.view().serve_why(service, services, replies));
            }
            Request::Manifest { service } => {
                let text = self.entry(&service).manifest.as_deref().map(Manifest::to_json);
                end(&asked.replies, Ok(Outcome::Manifest(text)));
            }
            Request::Get { service } => {
                let view = self.settings_view(&service);
                end(&asked.replies, view.map(Outcome::Settings));
            }
            Request::History { service } => {
                let history = self.settings_history(&service);
                end(&asked.replies, history.map(Outcome::History));
            }
            Request::Audit { service, last } => {
                let replies = asked.replies.sender().clone();
                self.tasks.spawn(audit::serve(self.audit.view(), service, last, replies));
            }
            Request::StateShow { service } => self.state_show(&asked, &service),
            Request::StateValue { service } => self.state_value(&asked, &service),
            Request::Graph => end(&asked.replies, Ok(Outcome::Graph(Box::new(self.graph())))),
            Request::StateExport { service } => self.state_export(&asked, &service),
            Request::Start { services } => self.verb(asked, services, Verb::Start).await?,
            Request::Stop { services } => self.verb(asked, services, Verb::Stop).await?,
            Request::Kill { services, signal: None } => self.verb(asked, services, Verb::Kill).await?,
            Request::Kill { services, signal: Some(signal) } => {
                self.only_signal(&asked, &services, signal).await?;
            }
            Request::Restart { services } => self.verb(asked, services, Verb::Restart).await?,
            Request::Reset { services } => self.verb(asked, services, Verb::Reset).await?,
            Request::Scale { service, instances } => self.scale(asked, &service, instances).await?,
            Request::Set { service, changes, if_revision } => {
                self.set(asked, &service, changes, if_revision);
            }
            Request::Rollback { service, to, if_revision } => {
                self.roll_back(asked, &service, to, if_revision);
            }
            Request::StateImport { service, snapshot } => self.state_import(asked, &service, &snapshot),
            Request::StateReset { service } => self.state_reset(&asked, &service),
            Request::Register { file, text } => self.register(asked, &file, text),
            Request::Unregister { service } => self.unregister(&asked, &service).await?,
            Request::Shutdown => self.shutdown_asked(asked),
            Request::Upgrade { program, ready_within_ms } => {
                self.upgrade_asked(asked, program, ready_within_ms);
            }
            Request::DeadLetters { services } => self.dead_letters(&asked, &services),
            Request::DeadLetter { service, id } => self.dead_letter(&asked, &service, id),
            Request::DeadRetry { service, ids } => self.dead_deed(&asked, &service, &ids, Deed::Retry),
            Request::DeadDrop { service, ids } => self.dead_deed(&asked, &service, &ids, Deed::Drop),
            Request::Diff { services } => self.diff_asked(asked, services),
            Request::Reload { plan } => self.reload_asked(asked, plan),
            Request::Fit { service, manifest } => self.fit_asked(&asked, &service, manifest),
            Request::Limits { services } => {
                let view = self.limits_view(&self.named_services(&services));
                end(&asked.replies, Ok(Outcome::Limits(Box::new(view))));
            }
            Request::Limit { service, changes, reason } => {
                self.limit_asked(asked, &service, &changes, reason.as_deref());
            }
            Request::Freeze { services, reason } => self.freeze_asked(asked, &services, reason.as_deref()),
            Request::Thaw { services, reason } => self.thaw_asked(&asked, &services, reason.as_deref()),
            Request::Usage { services, pss } => self.usage_asked(&asked, &services, pss),
            Request::Send { service, contract, asks, payload } => {
                self.send_asked(asked, &service, Post { contract, asks, payload }).await?;
            }
        }
        Ok(())
    }

    /// All named services are there, or the failure names the first that is not and the nearest that is.
    pub(super) fn known(&self, services: &[ServiceName]) -> Result<(), Failure> {
        let Some(unknown) = services.iter().find(|name| !self.entries.contains_key(*name)) else {
            return Ok(());
        };
        let failure = Failure::new(FailureKind::Usage, format!("no service `{unknown}` is registered"));
        if let Some(members) = self.roster.members(unknown) {
            let message = format!("`{unknown}` is a group, and this is for one service");
            let names = members.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::new(FailureKind::Usage, message).hint(format!("its members are {names}")));
        }
        if let instances @ [_, ..] = &self.instances(unknown)[..] {
            let message = format!("`{unknown}` has instances, and this is for one");
            let names = instances.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::new(FailureKind::Usage, message).hint(format!("they are {names}")));
        }
        let groups = self.roster.groups().map(|(name, _, _)| name);
        Err(match nearest(unknown.as_str(), self.entries.keys().chain(groups)) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("`watchdog status` lists them"),
        })
    }

    /// The named services, or all.
    pub(super) fn named_services(&self, services: &[ServiceName]) -> Vec<ServiceName> {
        if services.is_empty() { self.entries.keys().cloned().collect() } else { self.spread(services) }
    }

    /// These services, a group's members in its place, instances in that of the name of all; each once.
    fn spread(&self, names: &[ServiceName]) -> Vec<ServiceName> {
        let mut services: Vec<ServiceName> = Vec::new();
        for name in names {
            let instances = self.instances(name);
            let members = match (self.roster.members(name), &instances[..]) {
                (Some(members), _) => members,
                (None, []) => std::slice::from_ref(name),
                (None, instances) => instances,
            };
            let new = members.iter().filter(|member| !services.contains(member)).cloned();
            services.extend(new.collect::<Vec<_>>());
        }
        services
    }

    /// The services a request is about.
    fn targets(&self, request: &Request) -> Vec<ServiceName> {
        match named_in(request) {
            Named::Services(names) => self.spread(names),
            Named::Service(name) => vec![name.clone()],
            Named::Instances(name) => self.all_instances(name),
            Named::None => Vec::new(),
        }
    }

    /// A verb of the lifecycle, on each service. One that was taken before is not taken again, but waited for.
    async fn verb(&mut self, asked: Asked, named: Vec<ServiceName>, verb: Verb) -> Result<(), CoreError> {
        let services = self.spread(&named);
        let before = match self.answered.find(asked.id) {
            Some(taken) => taken.before.clone(),
            None => {
                let before =
                    services.iter().map(|name| (name.clone(), self.newest(name))).collect::<Vec<_>>();
                let mut commands = Vec::new();
                // The members of a group restart in an order of theirs.
                let mut units = match verb {
                    Verb::Restart => named
                        .iter()
                        .flat_map(|name| match self.roster.members(name) {
                            Some(_) => vec![name.clone()],
                            None => self.spread(std::slice::from_ref(name)),
                        })
                        .collect::<Vec<_>>(),
                    Verb::Start
                    | Verb::Stop
                    | Verb::Kill
                    | Verb::Reset
                    | Verb::Scale
                    | Verb::Reload
                    | Verb::Remove => services.clone(),
                };
                if verb == Verb::Stop {
                    // One that is to stop waits for those behind it that are, too.
                    units.reverse();
                }
                for unit in &units {
                    commands.extend(match self.roster.members(unit) {
                        Some(_) => self.roster.restart_group(unit, &asked.by, now(), self.chance()),
                        None => {
                            let event = Event::Asked { verb, by: asked.by.clone() };
                            self.roster.step(unit, event, now(), self.chance())
                        }
                    });
                }
                // Decided and noted first: a core killed in between must not leave a request that counts as taken and
                // was not. One that is noted and repeated comes to the same.
                self.note_all(&commands)?;
                self.enter(asked.id, before.clone());
                self.perform_all(commands).await?;
                before
            }
        };
        let durable = services
            .iter()
            .filter_map(|name| {
                let change = self.entry(name).kept_change?;
                Some((self.wanted_path(name), change))
            })
            .collect();
        let target = match (asked.wait, verb) {
            (None, _) => Target::Durable { answer: Outcome::Done(accepted(verb, &services)) },
            (Some(_), Verb::Stop | Verb::Kill | Verb::Scale | Verb::Remove) => Target::Down { services },
            // What was up before a start or reset is what was asked for.
            (Some(_), Verb::Start | Verb::Reset) => Target::Up { services: self.up_again(before) },
            (Some(_), Verb::Restart | Verb::Reload) => {
                Target::Up { services: self.wanted_up(before).collect() }
            }
        };
        self.wait_for(asked, target, durable);
        Ok(())
    }

    pub(super) fn wanted_up(
        &self,
        services: Vec<(ServiceName, Incarnation)>,
    ) -> impl Iterator<Item = (ServiceName, Incarnation)> {
        let is_wanted =
            |name: &ServiceName| self.roster.get(name).is_some_and(|it| *it.wanted() == Wanted::Up);
        services.into_iter().filter(move |(name, _)| is_wanted(name))
    }

    /// Those of them that are wanted up, each with an incarnation that its next is newer than: its present one counts.
    pub(super) fn up_again(
        &self,
        before: Vec<(ServiceName, Incarnation)>,
    ) -> Vec<(ServiceName, Incarnation)> {
        let is_live = |name: &ServiceName| self.roster.get(name).is_some_and(Service::is_live);
        let older = |newest: Incarnation| Incarnation::from_stored(newest.get().saturating_sub(1));
        let again = self.wanted_up(before);
        again
            .map(|(name, newest)| if is_live(&name) { (name, older(newest)) } else { (name, newest) })
            .collect()
    }

    pub(super) fn newest(&self, service: &ServiceName) -> Incarnation {
        self.roster.get(service).map_or(Incarnation::NONE, watchdog_lifecycle::Service::incarnation)
    }

    pub(super) fn enter(&mut self, id: RequestId, before: Vec<(ServiceName, Incarnation)>) {
        if let Err(err) = self.answered.enter(id, before) {
            tracing::error!("cannot note a request: {err}");
        }
    }

    pub(super) fn wait_for(
        &mut self,
        asked: Asked,
        target: Target,
        durable: Vec<(std::path::PathBuf, crate::store::writer::ChangeNumber)>,
    ) {
        let deadline = now().after(asked.wait.unwrap_or(DISK));
        self.waiters.push(Waiter { replies: asked.replies, target, deadline, durable, told: String::new() });
    }

    /// `kill --signal`: sends, and changes nothing of what is wanted.
    async fn only_signal(
        &mut self,
        asked: &Asked,
        named: &[ServiceName],
        signal: i32,
    ) -> Result<(), CoreError> {
        let services = &self.spread(named)[..];
        let Ok(signal) = Signal::try_from(signal) else {
            let failure = Failure::new(FailureKind::Usage, format!("there is no signal {signal}"));
            end(&asked.replies, Err(failure));
            return Ok(());
        };
        if self.answered.find(asked.id).is_some() {
            end(&asked.replies, Ok(Outcome::Status(Box::new(self.status(services)))));
            return Ok(());
        }
        if let Some(down) = services.iter().find(|name| self.entry(name).process.is_none()) {
            end(&asked.replies, Err(Failure::new(FailureKind::NotRunning, format!("{down} is not running"))));
            return Ok(());
        }
        self.enter(asked.id, Vec::new());
        for service in services {
            let process = self.entry(service).process.expect("looked at above");
            let text = format!("{signal} sent by {}", asked.by);
            let evidence = Evidence {
                by: Some(asked.by.to_string()),
                signal: Some(signal as i32),
                ..Evidence::default()
            };
            self.events.add(Logged::of(service, "signal", text).at(process.incarnation).resting_on(evidence));
            self.signal(service, process.incarnation, signal, Whom::Leader).await?;
        }
        end(&asked.replies, Ok(Outcome::Status(Box::new(self.status(services)))));
        Ok(())
    }

    /// What is there, then what comes: by a task, for a client reads as fast as it likes.
    fn events_asked(&mut self, asked: &Asked, after: u64, last: u64, follow: bool) {
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        let view = self.events.view();
        let coming = follow.then(|| {
            let (follower, coming) = mpsc::channel(FOLLOWED);
            self.events.follow(follower);
            coming
        });
        self.tasks.spawn(view.serve(after, last, coming, asked.replies.sender().clone()));
    }

    fn shutdown_asked(&mut self, asked: Asked) {
        if self.answered.find(asked.id).is_none() {
            self.enter(asked.id, Vec::new());
            let text = format!("shutdown by {}: stopping every service", asked.by);
            self.events.add(Logged::new("shutdown", text).by(&asked.by));
            self.begin_shutdown(Haste::Orderly);
        }
        let wait = asked.wait.or(Some(SHUTDOWN));
        self.wait_for(Asked { wait, ..asked }, Target::Shutdown, Vec::new());
    }
}

/// What is said of a verb whose effect nobody waits for.
fn accepted(verb: Verb, services: &[ServiceName]) -> String {
    let names = services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
    format!("{verb} of {names} accepted")
}

/// The verb of a request, as grants list it.
pub(super) fn verb_of(request: &Request) -> &'static str {
    match request {
        Request::Status { .. } | Request::Manifest { .. } | Request::Usage { .. } => "status",
        Request::Start { .. } => "start",
        Request::Stop { .. } => "stop",
        Request::Kill { .. } => "kill",
        Request::Restart { .. } => "restart",
        Request::Reset { .. } => "reset",
        Request::Scale { .. } => "scale",
        Request::Set { changes, .. } if changes.iter().all(|change| change.value.is_none()) => "unset",
        Request::Set { .. } => "set",
        Request::Rollback { .. } => "rollback",
        Request::Get { .. } => "get",
        Request::History { .. } => "history",
        Request::Audit { .. } => "audit",
        Request::StateShow { .. }
        | Request::StateValue { .. }
        | Request::StateExport { .. }
        | Request::StateImport { .. }
        | Request::StateReset { .. } => "state",
        Request::Intercoms { .. } => "intercoms",
        Request::Graph => "graph",
        Request::Events { .. } => "events",
        Request::Logs { .. } => "logs",
        Request::Register { .. } => "register",
        Request::Unregister { .. } => "unregister",
        Request::Shutdown => "shutdown",
        Request::Why { .. } => "why",
        Request::Upgrade { .. } => "upgrade",
        Request::DeadLetters { .. }
        | Request::DeadLetter { .. }
        | Request::DeadRetry { .. }
        | Request::DeadDrop { .. } => "dead",
        Request::Diff { .. } => "diff",
        Request::Reload { .. } => "reload",
        Request::Send { .. } => "send",
        Request::Limit { .. } => "limit",
        Request::Limits { .. } => "limits",
        Request::Freeze { .. } => "freeze",
        Request::Thaw { .. } => "thaw",
        // No grant lists it.
        Request::Fit { .. } => "check",
    }
}

/// What a request names.
enum Named<'r> {
    /// Services, or groups in place of their members.
    Services(&'r [ServiceName]),
    /// One service.
    Service(&'r ServiceName),
    /// All instances of a service.
    Instances(&'r ServiceName),
    /// None.
    None,
}

/// The services and groups a request names.
pub(super) fn names_in(request: &Request) -> Vec<ServiceName> {
    match named_in(request) {
        Named::Services(names) => names.to_vec(),
        Named::Service(name) | Named::Instances(name) => vec![name.clone()],
        Named::None => Vec::new(),
    }
}

fn named_in(request: &Request) -> Named<'_> {
    match request {
        Request::Status { services }
        | Request::Start { services }
        | Request::Stop { services }
        | Request::Kill { services, .. }
        | Request::Restart { services }
        | Request::Reset { services }
        | Request::Intercoms { services }
        | Request::Logs { services, .. }
        | Request::DeadLetters { services }
        | Request::Usage { services, .. }
        | Request::Limits { services }
        | Request::Freeze { services, .. }
        | Request::Thaw { services, .. } => Named::Services(services),
        Request::Set { service, .. }
        | Request::Rollback { service, .. }
        | Request::Get { service }
        | Request::History { service }
        | Request::StateShow { service }
        | Request::StateValue { service }
        | Request::StateExport { service }
        | Request::StateImport { service, .. }
        | Request::StateReset { service }
        | Request::Unregister { service }
        | Request::Why { service }
        | Request::Manifest { service }
        | Request::DeadLetter { service, .. }
        | Request::DeadRetry { service, .. }
        | Request::DeadDrop { service, .. }
        | Request::Send { service, .. }
        | Request::Fit { service, .. }
        | Request::Limit { service, .. }
        | Request::Audit { service: Some(service), .. } => Named::Service(service),
        Request::Audit { service: None, .. } => Named::None,
        Request::Scale { service, .. } => Named::Instances(service),
        Request::Events { .. }
        | Request::Register { .. }
        | Request::Shutdown
        | Request::Graph
        | Request::Upgrade { .. }
        | Request::Diff { .. }
        | Request::Reload { .. } => Named::None,
    }
}
