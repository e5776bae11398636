//! Metrics: of the watchdog, its services and their lanes, and of the records that came.
//!
//! ```text
//! output ── asks ─► gatherer, a task ── status, usage, intercoms ─► core          by this service's grant
//!        ◄─ Gathering ─┘  └── counts ─► desk: ledger, outputs, restarts by the event log
//!   └─► families ─► text: Prometheus, or OTLP                               on the output's thread
//! ```
//! Nothing is gathered while no output asks. What is gathered is of one moment, so that numbers of it add up: for each
//! output that was there from the beginning, and takes all kinds of records, *received = written + dropped + waiting*.
//!
//! # All metrics
//! Names are as OpenTelemetry writes them; for Prometheus dots become underscores, seconds and bytes are put behind, and
//! `_total` behind a counter: `watchdog_service_cpu_time_seconds_total`. Units are base units.
//!
//! | metric | unit | kind | labels | |
//! |---|---|---|---|---|
//! | `watchdog.uptime` | s | gauge | | since the keeper started |
//! | `watchdog.core.starts` | | counter | | cores since the keeper started: one more than were replaced |
//! | `watchdog.notes` | | gauge | | what is worse than it should be, as `watchdog status` says in words |
//! | `watchdog.service.phase` | | gauge | `service`, `phase` | 1 for the phase it is in, 0 for the others |
//! | `watchdog.service.health` | | gauge | `service`, `level` | 1 for the level it says it has, `ok`, `degraded` or `failing`; 0 for the others |
//! | `watchdog.service.wanted` | | gauge | `service` | 1: up, 0: an operator wants it down |
//! | `watchdog.service.uptime` | s | gauge | `service` | since its process started; not of one that is down, as the next four |
//! | `watchdog.service.cpu.time` | s | counter | `service` | of all its processes, and of their children that have ended; from 0 with each start |
//! | `watchdog.service.memory.usage` | By | gauge | `service` | resident memory of all its processes |
//! | `watchdog.service.descriptors` | | gauge | `service` | open in all its processes; not where the kernel is older than 6.2 and they are of another user |
//! | `watchdog.service.settings.revision` | | gauge | `service` | the newest revision of its settings |
//! | `watchdog.service.settings.pending` | | gauge | `service` | 1 while it has not judged that revision |
//! | `watchdog.service.state.age` | s | gauge | `service` | since its state was written to disk |
//! | `watchdog.service.state.size` | By | gauge | `service` | how large that is |
//! | `watchdog.service.state.unsaved` | | gauge | `service` | 1 while its newest state can't be written to disk |
//! | `watchdog.service.drift` | | gauge | `service` | 1 when its table or program is not what it runs with |
//! | `watchdog.service.frozen` | | gauge | `service` | 1 while all its processes stand still |
//! | `watchdog.service.starts` | | counter | `service` | processes since the keeper started |
//! | `watchdog.service.restarts` | | counter | `service`, `reason` | processes started after one had ended, by the cause of that end, as `watchdog why` names causes: `signal`, `exit-code`, `oom`, `hung`, `operator`, … Lives through restarts of this service |
//! | `watchdog.service.moves` | | counter | `service`, `kind` | changes of what it may use, by the event log: `limited`, `frozen`, `thawed`. Lives through restarts of this service |
//! | `watchdog.service.processes` | | gauge | `service` | that live; not of one that is down, as the next ten |
//! | `watchdog.service.threads` | | gauge | `service` | of all its processes |
//! | `watchdog.service.swap.usage` | By | gauge | `service` | memory of it that was moved to the disk |
//! | `watchdog.service.wait.time` | s | counter | `service` | its threads were ready to run and were not let. This one and the next seven begin again when they fall, with a start most often |
//! | `watchdog.service.disk.read` | By | counter | `service` | from disks, not from caches |
//! | `watchdog.service.disk.written` | By | counter | `service` | what goes to disks |
//! | `watchdog.service.throttled.time` | s | counter | `service` | held back by its limit of processor time, added up over processors; where it has one |
//! | `watchdog.service.oom.kills` | | counter | `service` | processes that the kernel ended for lack of memory; where its cgroup counts them |
//! | `watchdog.service.stalled.cpu` | s | counter | `service` | at least one thread waited for a processor; where it has a cgroup, as the next two |
//! | `watchdog.service.stalled.memory` | s | counter | `service` | at least one waited for memory |
//! | `watchdog.service.stalled.io` | s | counter | `service` | at least one waited for the disks |
//! | `watchdog.machine.cpu.time` | s | counter | | processors were busy, added up; since the machine started, as the stalls below |
//! | `watchdog.machine.memory.size` | By | gauge | | memory of the machine, or of a cgroup around the watchdog that has less |
//! | `watchdog.machine.memory.available` | By | gauge | | of that, what could be had without swapping |
//! | `watchdog.machine.stalled.cpu` | s | counter | | somebody waited for a processor |
//! | `watchdog.machine.stalled.memory` | s | counter | | somebody waited for memory |
//! | `watchdog.machine.stalled.io` | s | counter | | somebody waited for the disks |
//! | `watchdog.lane.queued` | | gauge | `sender`, `receiver` | messages that wait, also those of a sender that may send no more |
//! | `watchdog.lane.used` | By | gauge | `sender`, `receiver` | what is in the lane, as the kernel charges |
//! | `watchdog.lane.size` | By | gauge | `sender`, `receiver` | what it holds |
//! | `watchdog.lane.sent` | | counter | `sender`, `receiver` | messages sent |
//! | `watchdog.lane.handled` | | counter | `sender`, `receiver` | messages handed to the handler for the first time |
//! | `watchdog.lane.redelivered` | | counter | `sender`, `receiver` | messages handed over again after a death |
//! | `watchdog.lane.full` | | counter | `sender`, `receiver` | times it was full for its sender |
//! | `watchdog.lane.handovers` | | counter | `sender`, `receiver` | times it was handed to a process of the receiver |
//! | `watchdog.lane.propagation` | s | histogram | `sender`, `receiver` | from accepted by `tell` or `ask` until handed to the handler, waiting included; bounds are powers of two of nanoseconds from a microsecond to 17 s |
//! | `watchdog.log.received` | | counter | `service` | records that came, since this process started, as all below |
//! | `watchdog.log.lost` | | counter | `service`, `reason` | records that the service said it dropped before they came |
//! | `watchdog.log.output.written` | | counter | `output`, `service` | records that an output has written, or a collector taken |
//! | `watchdog.log.output.dropped` | | counter | `output`, `service`, `reason` | records that it will never have: `queue-full`, `stopped`; of a collector also `refused`, `expired`, and `rejected`, which with all that was taken beside it has no `service` |
//! | `watchdog.log.output.waiting` | | gauge | `output` | records that it has not written yet |

mod catalogue;
mod families;
mod family;
mod gather;
mod histogram;
mod lives;
mod moves;
mod once;
mod restarts;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use watchdog_service::ServiceName;
use watchdog_service::query::status::{InboxStatus, Status};
use watchdog_service::query::usage::Usage;

pub(crate) use self::families::families;
pub(crate) use self::family::{Family, Kind, Point, Value};
#[cfg(test)]
pub(crate) use self::gather::Unanswered;
pub(crate) use self::gather::{Gatherer, Source};
pub(crate) use self::histogram::BOUNDS;
use self::lives::Begun;
pub(crate) use self::moves::Moves;
pub(crate) use self::restarts::Restarts;
pub(crate) use self::text::{CONTENT_TYPE, text};
use crate::output::OutputCounts;

/// All that was known at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gathering {
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    /// The name of this host.
    pub(crate) host: Arc<str>,
    status: Option<Status>,
    usage: Option<Usage>,
    inboxes: Vec<InboxStatus>,
    begun: Begun,
    counts: Counts,
    /// What this service may not ask for.
    missing: Vec<&'static str>,
}

/// What this service counts itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    /// Since when, but for restarts: nanoseconds since 1970.
    pub(crate) since: u64,
    /// Records that came, by service.
    pub(crate) received: BTreeMap<ServiceName, u64>,
    /// Records that services said they had dropped, by reason.
    pub(crate) lost: BTreeMap<(ServiceName, &'static str), u64>,
    /// What became of records, by output.
    pub(crate) outputs: BTreeMap<String, OutputCounts>,
    pub(crate) restarts: Restarts,
    pub(crate) moves: Moves,
    /// It may read the event log, which restarts are counted by.
    pub(crate) follows_events: bool,
}

impl Gathering {
    /// What the grant lacks for all that there could be, for the operator.
    pub(crate) fn lack(&self) -> Option<String> {
        let verbs: Vec<_> = self.missing.iter().map(|verb| format!("\"{verb}\"")).collect();
        (!verbs.is_empty()).then(|| {
            format!(
                "metrics are not all there: expected in this service's table: control = [{}]",
                verbs.join(", ")
            )
        })
    }

    /// Which watchdog it is of, among all that send to the same collector: the host and, where it may be known, the
    /// configuration.
    pub(crate) fn instance(&self) -> String {
        match &self.status {
            Some(status) => format!("{}:{}", self.host, status.watchdog.config),
            None => self.host.to_string(),
        }
    }

    #[cfg(test)]
    pub(crate) fn gathered_at(self, at: u64) -> Self {
        Self { at, ..self }
    }

    #[cfg(test)]
    pub(crate) fn set_inboxes(&mut self, inboxes: Vec<InboxStatus>) {
        self.inboxes = inboxes;
    }

    #[cfg(test)]
    pub(crate) fn set_missing(&mut self, missing: Vec<&'static str>) {
        self.missing = missing;
    }
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::catalogue;
    use super::*;

    /// The rows of the table above.
    fn table() -> Vec<Vec<String>> {
        let text = include_str!("mod.rs");
        let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `watchdog."));
        rows.map(|row| {
            let row = format!("`watchdog.{row}");
            row.split('|').map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
    }

    fn word(kind: Kind) -> &'static str {
        match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }

    #[test]
    fn the_table_has_every_metric_with_its_unit_and_kind_in_order() {
        let rows = table();
        let found: Vec<_> = rows.iter().map(|row| [row[0].clone(), row[1].clone(), row[2].clone()]).collect();
        let expected: Vec<_> = catalogue::all()
            .iter()
            .map(|metric| {
                let unit = metric.unit.otel();
                let unit = if unit.starts_with('{') { String::new() } else { unit };
                [format!("`{}`", metric.name), unit, word(metric.kind).to_owned()]
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_gathered_has_every_metric_of_the_table_with_its_labels_and_no_series_twice() {
        let families = families(&sample::gathering());
        let names: Vec<_> = families.iter().map(|family| family.metric.name).collect();
        assert_eq!(names, catalogue::all().iter().map(|metric| metric.name).collect::<Vec<_>>());
        for (family, row) in families.iter().zip(table()) {
            let labels: BTreeSet<_> = family
                .points
                .iter()
                .flat_map(|point| point.labels.iter().map(|label| format!("`{}`", label.0)))
                .collect();
            let told: BTreeSet<_> = row[3]
                .split(',')
                .map(|label| label.trim().to_owned())
                .filter(|label| !label.is_empty())
                .collect();
            assert_eq!(labels, told, "{}", family.metric.name);
            let different: BTreeSet<_> = family.points.iter().map(|point| point.labels.clone()).collect();
            assert_eq!(different.len(), family.points.len(), "{}", family.metric.name);
            for point in &family.points {
                assert_eq!(point.since > 0, family.metric.kind != Kind::Gauge, "{}", family.metric.name);
            }
        }
    }

    #[test]
    fn of_a_service_that_is_down_there_is_no_use_and_it_is_in_one_phase() {
        let mut found = sample::gathering();
        let down = &mut found.status.as_mut().unwrap().services[1];
        (down.uptime_ms, down.cpu_ms, down.memory, down.descriptors) = (None, None, None, None);
        let name = down.name.to_string();
        let families = families(&found);
        let of = |metric: &str| -> Vec<&Point> {
            let family = families.iter().find(|family| family.metric.name == metric).unwrap();
            family.points.iter().filter(|point| point.labels[0].1 == name).collect()
        };
        for metric in ["uptime", "cpu.time", "memory.usage", "descriptors"] {
            assert_eq!(of(&format!("watchdog.service.{metric}")), Vec::<&Point>::new(), "{metric}");
        }
        let phases = of("watchdog.service.phase");
        assert_eq!(phases.len(), 7);
        assert_eq!(phases.iter().filter(|point| point.value == Value::Whole(1)).count(), 1);
    }

    #[test]
    fn a_lane_that_is_retired_adds_to_what_waits_and_to_nothing_else() {
        let mut found = sample::gathering();
        let lanes = &mut found.inboxes[0].lanes;
        let mut retired = lanes[0].clone();
        (retired.is_retired, retired.queued) = (true, 100);
        let queued = lanes[0].queued;
        lanes.insert(0, retired);
        let families = families(&found);
        let of = |metric: &str| -> Vec<Value> {
            let family = families.iter().find(|family| family.metric.name == metric).unwrap();
            family
                .points
                .iter()
                .filter(|point| point.labels[0].1 == "b")
                .map(|point| point.value.clone())
                .collect()
        };
        assert_eq!(of("watchdog.lane.queued"), [Value::Whole(queued + 100)]);
        assert_eq!(of("watchdog.lane.sent").len(), 1);
    }

    #[test]
    fn a_service_that_is_registered_no_more_has_no_restarts() {
        let mut found = sample::gathering();
        found.status.as_mut().unwrap().services.retain(|service| service.name.as_str() != "a");
        assert!(families(&found).iter().all(|family| family.metric.name != "watchdog.service.restarts"));
    }

    #[test]
    fn without_a_grant_there_is_what_this_service_counts_and_the_lack_is_named() {
        let mut found = sample::gathering();
        (found.status, found.inboxes) = (None, Vec::new());
        found.usage = None;
        found.missing = vec!["status", "intercoms", "events"];
        assert!(families(&found).iter().all(|family| family.metric.name.starts_with("watchdog.log.")));
        assert!(found.lack().unwrap().ends_with("control = [\"status\", \"intercoms\", \"events\"]"));
        assert_eq!(sample::gathering().lack(), None);
    }
}
