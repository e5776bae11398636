//! One line a service, and what they are sorted by.

use std::cmp::Ordering;

use serde::Deserialize;
use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitKey, ServiceLimits};
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{EventRecord, PhaseStatus, ServiceStatus, WantedStatus};
use watchdog_protocol::usage::{ServiceRates, ServiceUsage};

use crate::cli::figures::span;
use crate::cli::look::{Paint, harmless};
use crate::cli::status;

/// What a service is told by, in the order it is shown and chosen as what comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Status,
    Since,
    Priority,
    Cpu,
    CpuLimit,
    Memory,
    MemoryLimit,
    Stalled,
    Read,
    Written,
    Tasks,
    Restarts,
    Last,
}

impl Column {
    pub(super) const ALL: [Self; 14] = [
        Self::Name,
        Self::Status,
        Self::Since,
        Self::Priority,
        Self::Cpu,
        Self::CpuLimit,
        Self::Memory,
        Self::MemoryLimit,
        Self::Stalled,
        Self::Read,
        Self::Written,
        Self::Tasks,
        Self::Restarts,
        Self::Last,
    ];

    /// The one so many places further, from the last on to the first.
    pub(super) fn after(self, places: isize) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or(0);
        let count = Self::ALL.len() as isize;
        Self::ALL[(at as isize + places).rem_euclid(count) as usize]
    }

    pub(super) fn head(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Status => "STATUS",
            Self::Since => "SINCE",
            Self::Priority => "PRI",
            Self::Cpu => "CPU%",
            Self::CpuLimit => "CPUMAX",
            Self::Memory => "MEM",
            Self::MemoryLimit => "MEMMAX",
            Self::Stalled => "STALLED",
            Self::Read => "READ/s",
            Self::Written => "WRITE/s",
            Self::Tasks => "TASKS",
            Self::Restarts => "RESTARTS",
            Self::Last => "LAST MOVE OR REASON",
        }
    }
}

/// What the resource manager lets a service have. What it says beside this is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Standing {
    pub(super) service: String,
    pub(super) priority: u8,
    pub(super) cpu: String,
    pub(super) memory: String,
}

/// All that is known of one service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'k> {
    pub(super) status: &'k ServiceStatus,
    /// So long ago.
    pub(super) age_ms: u64,
    pub(super) usage: Option<&'k ServiceUsage>,
    pub(super) rates: Option<&'k ServiceRates>,
    pub(super) limits: Option<&'k ServiceLimits>,
    pub(super) standing: Option<&'k Standing>,
    /// Asked for, and not yet in its standing.
    pub(super) asked_priority: Option<u8>,
    pub(super) last_move: Option<&'k EventRecord>,
}

/// One service as it is shown. What is not known is `None`, and never a 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: ServiceName,
    pub(super) status: &'static str,
    pub(super) paint: Paint,
    pub(super) since_ms: u64,
    pub(super) priority: Option<u8>,
    pub(super) is_priority_asked: bool,
    pub(super) cpu: Option<f64>,
    /// The rates are lower bounds: it was restarted between two readings.
    pub(super) at_least: bool,
    pub(super) cpu_limit: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    /// Some limit of it is not in force.
    pub(super) is_unheeded: bool,
    pub(super) stalled: Option<(&'static str, f64)>,
    pub(super) read: Option<f64>,
    pub(super) written: Option<f64>,
    pub(super) tasks: Option<u64>,
    pub(super) restarts: u64,
    pub(super) last: String,
    /// When it was moved last.
    moved: u64,
    pub(super) is_frozen: bool,
    /// It is wanted up, and has not given up.
    pub(super) is_up: bool,
}

impl Row {
    pub(super) fn of(known: &Known<'_>) -> Self {
        let Known { status, usage, rates, limits, .. } = *known;
        let is_frozen = status.frozen || usage.is_some_and(|usage| usage.is_frozen && usage.processes > 0);
        let usage = usage.filter(|usage| usage.processes > 0);
        let rates = rates.filter(|_| usage.is_some());
        let limit = |key| limits.and_then(|limits| limits.limits.get(key));
        let memory_limits = [LimitKey::MemoryHigh, LimitKey::MemoryMax].map(limit);
        let asked = known.asked_priority;
        Self {
            name: status.name.clone(),
            status: word(status, is_frozen),
            paint: if is_frozen { Paint::Doubtful } else { status::paint(status) },
            since_ms: status.phase_ms + known.age_ms,
            priority: asked.or(known.standing.map(|standing| standing.priority)),
            is_priority_asked: asked.is_some(),
            cpu: rates.and_then(|rates| rates.cpu_percent),
            at_least: rates.is_some_and(|rates| rates.restarted),
            cpu_limit: limit(LimitKey::Cpu),
            memory: usage.and_then(|usage| usage.rss),
            memory_limit: memory_limits.into_iter().flatten().min(),
            is_unheeded: limits.is_some_and(|limits| !limits.not_in_force.is_empty()),
            stalled: rates.and_then(|rates| rates.stalled.worst()),
            read: rates.and_then(|rates| rates.read),
            written: rates.and_then(|rates| rates.written),
            tasks: usage.and_then(|usage| usage.threads),
            restarts: status.starts.saturating_sub(1),
            last: harmless(&reason(status).or_else(|| known.last_move.map(moved)).unwrap_or_default()),
            moved: known.last_move.map_or(0, |event| event.number),
            is_frozen,
            is_up: status.wanted == WantedStatus::Up
                && !matches!(status.phase, PhaseStatus::Failed | PhaseStatus::Completed),
        }
    }

    /// How much there is to mend, the most first.
    pub(super) fn severity(&self) -> u8 {
        match self.paint {
            Paint::Bad => 3,
            Paint::Doubtful => 2,
            Paint::Good | Paint::Plain | Paint::Strong => 1,
            Paint::Faint => 0,
        }
    }

    /// Which of two comes first: the larger, of names the smaller; what is not known comes last.
    pub(super) fn compare(&self, other: &Self, by: Column) -> Ordering {
        fn larger<T: PartialOrd + Copy>(one: Option<T>, other: Option<T>) -> Ordering {
            other.partial_cmp(&one).unwrap_or(Ordering::Equal)
        }
        let known = match by {
            Column::Name => Ordering::Equal,
            Column::Status => other.severity().cmp(&self.severity()).then(self.status.cmp(other.status)),
            // What changed last.
            Column::Since => self.since_ms.cmp(&other.since_ms),
            Column::Priority => larger(self.priority, other.priority),
            Column::Cpu => larger(self.cpu, other.cpu),
            Column::CpuLimit => larger(self.cpu_limit, other.cpu_limit),
            Column::Memory => larger(self.memory, other.memory),
            Column::MemoryLimit => larger(self.memory_limit, other.memory_limit),
            Column::Stalled => {
                larger(self.stalled.map(|(_, share)| share), other.stalled.map(|(_, share)| share))
            }
            Column::Read => larger(self.read, other.read),
            Column::Written => larger(self.written, other.written),
            Column::Tasks => larger(self.tasks, other.tasks),
            Column::Restarts => other.restarts.cmp(&self.restarts),
            Column::Last => other.moved.cmp(&self.moved),
        };
        known.then_with(|| self.name.cmp(&other.name))
    }
}

/// The phase, or what is worse than it says.
fn word(service: &ServiceStatus, is_frozen: bool) -> &'static str {
    match (service.phase, &service.health) {
        _ if is_frozen => "frozen",
        (PhaseStatus::Ready, Health::Failing { .. }) => "failing",
        (PhaseStatus::Ready, Health::Degraded { .. }) => "degraded",
        (PhaseStatus::Ready, Health::Ok) if service.task => "running",
        (PhaseStatus::Stopped | PhaseStatus::Starting, _) if !service.blocked_by.is_empty() => "blocked",
        (phase, _) => phase.as_str(),
    }
}

/// Why it is not as one would have it.
fn reason(service: &ServiceStatus) -> Option<String> {
    let end = || service.last_end.as_ref().map(|end| end.why.clone());
    if !service.survivors.is_empty() {
        return Some("processes of its that can't be killed block its start".to_owned());
    }
    match (service.phase, &service.health) {
        (PhaseStatus::Failed, _) => end(),
        (PhaseStatus::Backoff, _) => {
            let next = service.next_try_ms.map(|next| format!("next try in {}", span(next)));
            let parts: Vec<String> = next.into_iter().chain(end()).collect();
            Some(parts.join("; ")).filter(|text| !text.is_empty())
        }
        (PhaseStatus::Ready, Health::Degraded { reason } | Health::Failing { reason }) => {
            Some(reason.clone())
        }
        (PhaseStatus::Stopped | PhaseStatus::Starting, _) if !service.blocked_by.is_empty() => {
            let names: Vec<_> = service.blocked_by.iter().map(ServiceName::as_str).collect();
            Some(format!("waits for {}", names.join(", ")))
        }
        (PhaseStatus::Stopped, _) => service.wanted_by.clone(),
        (PhaseStatus::Starting | PhaseStatus::Stopping, _) => {
            let progress = service.progress.as_ref()?;
            let share = progress.fraction.map(|share| format!("{:.0}% ", share * 100.0)).unwrap_or_default();
            Some(format!("{share}{}", progress.text))
        }
        (PhaseStatus::Ready | PhaseStatus::Completed, _) => None,
    }
}

/// Whether an entry of the event log tells that something was taken or given.
pub(super) fn is_move(event: &EventRecord) -> bool {
    matches!(&*event.what, "limit" | "frozen" | "thawed")
}

/// What was moved, and why.
fn moved(event: &EventRecord) -> String {
    event.text.strip_prefix("limits changed: ").unwrap_or(&event.text).to_owned()
}
