//! What an operator is shown, computed when asked for.

use std::io;
use std::time::Duration;

use watchdog_keeper::protocol::Hello;
use watchdog_lifecycle::restart::Limit;
use watchdog_lifecycle::{Group, GroupPolicy, Kind, Moment, Phase, Policy, Service, Standing, Wanted, Work};
use watchdog_protocol::ServiceName;
use watchdog_protocol::graph::{Graph, GraphService};
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{
    EndStatus, GroupStatus, LimitStatus, PhaseStatus, STATUS_VERSION, ServiceKind, ServiceStatus, Status,
    WantedStatus, WatchdogStatus,
};

use super::limits::Still;
use super::{Core, Shutdown, now};
use crate::config;
use crate::processes::proc::Process;

impl Core {
    /// Of the named services, or of all.
    pub(super) fn status(&self, services: &[ServiceName]) -> Status {
        let names = self.named_services(services);
        Status {
            version: STATUS_VERSION,
            watchdog: self.watchdog_status(),
            services: names.iter().filter_map(|name| self.service_status(name)).collect(),
            groups: self.groups_status(&names),
        }
    }

    /// Of those that one of these is in.
    fn groups_status(&self, services: &[ServiceName]) -> Vec<GroupStatus> {
        let groups = self.roster.groups();
        let groups = groups.filter(|(_, policy, _)| policy.members.iter().any(|it| services.contains(it)));
        let status = |(name, policy, group): (&ServiceName, &GroupPolicy, &Group)| GroupStatus {
            name: name.clone(),
            strategy: policy.strategy.as_str().to_owned(),
            members: policy.members.clone(),
            failures: group.failures(policy, now()) as u64,
            limit: match policy.limit {
                Limit::Off => None,
                Limit::Within { failures, window } => {
                    let within_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                    Some(LimitStatus { failures, within_ms })
                }
            },
            failed: group.failed().map(ToString::to_string),
        };
        groups.map(status).collect()
    }

    /// Of all services, with the rules in force.
    pub(super) fn graph(&self) -> Graph {
        let service = |(name, policy, service): (&ServiceName, &Policy, &Service)| GraphService {
            phase: Some(phase_status(service.phase())),
            ..config::drawn_service(name, policy, &self.entry(name).spec.control)
        };
        let groups = self.roster.groups().map(|(name, policy, _)| config::drawn_group(name, policy));
        Graph {
            services: self.roster.iter().map(service).collect(),
            groups: groups.collect(),
            lanes: self.lanes.drawn(),
        }
    }

    fn watchdog_status(&self) -> WatchdogStatus {
        let hello = &self.keeper_hello;
        let section = &self.config.watchdog;
        WatchdogStatus {
            keeper_pid: hello.pid,
            core_pid: std::process::id(),
            cores: hello.core_generation,
            up_ms: up_ms(hello),
            config: self.config.path.display().to_string(),
            state: section.state.display().to_string(),
            runtime: section.runtime.display().to_string(),
            logs: section.logs.display().to_string(),
            stopping: self.shutdown == Shutdown::Stopping,
            notes: self.notes.iter().cloned().chain(self.drift_note()).collect(),
        }
    }

    fn service_status(&self, name: &ServiceName) -> Option<ServiceStatus> {
        let service = self.roster.get(name)?;
        let policy = self.roster.policy(name)?;
        let entry = self.entry(name);
        let present = now();
        let phase = service.phase();
        let totals = self.lanes.totals(name);
        let used = self.used(name);
        let started = match phase {
            Phase::Starting(starting) => Some(starting.since),
            Phase::Ready(_) | Phase::Stopping(_) => entry.started,
            Phase::Stopped { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed { .. } => None,
        };
        Some(ServiceStatus {
            task: policy.work == Work::Once,
            requires: policy.requires.clone(),
            blocked_by: blocked_by(&self.roster.standing(name), service),
            pid: entry.process.as_ref().map(|process| process.pid),
            uptime_ms: entry.process.as_ref().and(started).map(|at| millis(present.since(at))),
            memory: used.map(|used| used.memory),
            cpu_ms: used.map(|used| used.cpu_ms),
            descriptors: used.and_then(|used| used.descriptors),
            settings: self.settings_status(name),
            state: self.state_status(name),
            handles: totals.handles,
            messages_in: totals.messages_in,
            messages_out: totals.messages_out,
            queued: totals.queued,
            drift: self.has_drifted(name),
            frozen: entry.still == Still::Frozen,
            ..recorded(name, kind(policy), service, present)
        })
    }

    /// All its processes, as far as they can be found at once.
    pub(super) fn pids(&self, name: &ServiceName) -> Vec<i32> {
        let entry = self.entry(name);
        match (&entry.cgroup, &entry.process) {
            (Some(cgroup), _) => cgroup.pids().unwrap_or_default(),
            (None, Some(leader)) => vec![leader.pid.cast_signed()],
            (None, None) => Vec::new(),
        }
    }

    /// What all its processes use.
    fn used(&self, name: &ServiceName) -> Option<Used> {
        self.entry(name).process.as_ref()?;
        let mut used = Used { memory: 0, cpu_ms: 0, descriptors: Some(0) };
        let pids = self.pids(name);
        for process in pids.iter().filter_map(|pid| Process::read(*pid).ok()) {
            used.memory += process.resident;
            used.cpu_ms += millis(process.cpu);
            used.descriptors = match process.descriptors() {
                Ok(count) => used.descriptors.map(|sum| sum + count),
                // It has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => used.descriptors,
                // A part of them is not how many there are.
                Err(_) => None,
            };
        }
        Some(used)
    }
}

/// What the processes of a service use.
#[derive(Debug, Clone, Copy)]
struct Used {
    /// Resident, in bytes.
    memory: u64,
    cpu_ms: u64,
    descriptors: Option<u64>,
}

/// Since the keeper started.
pub(super) fn up_ms(keeper: &Hello) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, millis).saturating_sub(keeper.started_unix_ms)
}

/// What the lifecycle knows of a service, which is also what a new core finds noted.
pub(super) fn recorded(
    name: &ServiceName,
    kind: ServiceKind,
    service: &Service,
    present: Moment,
) -> ServiceStatus {
    let phase = service.phase();
    let (wanted, wanted_by) = wanted(service);
    ServiceStatus {
        name: name.clone(),
        kind,
        task: false,
        wanted,
        wanted_by,
        phase: phase_status(phase),
        phase_ms: millis(present.since(phase.since())),
        requires: Vec::new(),
        blocked_by: Vec::new(),
        progress: match phase {
            Phase::Starting(starting) => starting.progress.clone(),
            Phase::Stopping(stopping) => stopping.progress.clone(),
            _ => None,
        },
        says: service.says().map(str::to_owned),
        health: match phase {
            Phase::Starting(starting) => starting.health.clone(),
            Phase::Ready(ready) => ready.health.clone(),
            _ => Health::Ok,
        },
        incarnation: service.incarnation(),
        pid: None,
        uptime_ms: None,
        starts: service.starts(),
        last_end: service.last_end().map(|end| EndStatus {
            incarnation: end.incarnation,
            cause: end.cause.kind().to_owned(),
            why: end.cause.to_string(),
            ago_ms: millis(present.since(end.at)),
            last_lines: end.report.as_ref().map(|report| report.last_lines.clone()).unwrap_or_default(),
        }),
        next_try_ms: match phase {
            Phase::Backoff { until, .. } => Some(millis(until.since(present))),
            _ => None,
        },
        memory: None,
        cpu_ms: None,
        descriptors: None,
        settings: None,
        state: None,
        handles: 0,
        messages_in: 0,
        messages_out: 0,
        queued: 0,
        survivors: phase.survivors().to_vec(),
        drift: false,
        frozen: false,
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn wanted(service: &Service) -> (WantedStatus, Option<String>) {
    match service.wanted() {
        Wanted::Up => (WantedStatus::Up, None),
        Wanted::Down { by, verb } => (WantedStatus::Down, Some(format!("{verb} by {by}"))),
    }
}

pub(super) fn kind(policy: &Policy) -> ServiceKind {
    match policy.kind {
        Kind::Service => ServiceKind::Service,
        Kind::Program => ServiceKind::Program,
    }
}

/// Whom it waits for, as long as that is what keeps it down.
fn blocked_by(standing: &Standing, service: &Service) -> Vec<ServiceName> {
    if *service.wanted() != Wanted::Up {
        return Vec::new();
    }
    match (standing, service.phase()) {
        (Standing::Free, _) => Vec::new(),
        (Standing::Blocked { by, .. }, _) => vec![by.clone()],
        (Standing::Waiting { on }, Phase::Stopped { .. } | Phase::Backoff { .. }) => on.clone(),
        (Standing::Waiting { .. }, _) => Vec::new(),
    }
}

pub(super) fn phase_status(phase: &Phase) -> PhaseStatus {
    match phase {
        Phase::Stopped { .. } => PhaseStatus::Stopped,
        Phase::Starting(_) => PhaseStatus::Starting,
        Phase::Ready(_) => PhaseStatus::Ready,
        Phase::Stopping(_) => PhaseStatus::Stopping,
        Phase::Backoff { .. } => PhaseStatus::Backoff,
        Phase::Failed { .. } => PhaseStatus::Failed,
        Phase::Completed { .. } => PhaseStatus::Completed,
    }
}
