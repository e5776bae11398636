//! What was gathered, as families of metrics. Pure.

use std::collections::{BTreeMap, BTreeSet};

use watchdog_service::query::status::{InboxStatus, LaneStatus, ServiceStatus, Status};
use watchdog_service::query::usage::Usage;
use watchdog_service::{Health, ServiceName};

use super::catalogue::{
    DROPPED, HEALTH, LANES, LOST, MACHINE, MOVES, Of, PHASE, PHASES, QUEUED, RECEIVED, RESTARTS, SERVICES,
    STARTS, USAGE, WAITING, WATCHDOG, WRITTEN,
};
use super::family::{Family, Kind, Metric, Point, Value};
use super::{Counts, Gathering};

/// One family for each metric of which there is something, in the order of the table.
pub(crate) fn families(found: &Gathering) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(status) = &found.status {
        of_services(found, status, &mut families);
    }
    if let Some(usage) = &found.usage {
        of_usage(found, usage, &mut families);
    }
    of_lanes(found, &mut families);
    of_records(&found.counts, &mut families);
    families.retain(|family| !family.points.is_empty());
    families
}

fn of_services(found: &Gathering, status: &Status, families: &mut Vec<Family>) {
    let begun = &found.begun;
    for Of { metric, read } in &WATCHDOG {
        let value = read(&status.watchdog);
        families.push(family(metric, value.map(|value| point(metric, [], begun.keeper, value))));
    }
    let services = || status.services.iter();
    let name = |service: &ServiceStatus| ("service", service.name.to_string());
    let phases = services().flat_map(|service| {
        PHASES.map(|phase| {
            let labels = [name(service), ("phase", phase.as_str().to_owned())];
            point(&PHASE, labels, 0, Value::of_bool(service.phase == phase))
        })
    });
    families.push(family(&PHASE, phases));
    let levels = services().flat_map(|service| {
        let is = match service.health {
            Health::Ok => "ok",
            Health::Degraded { .. } => "degraded",
            Health::Failing { .. } => "failing",
        };
        ["ok", "degraded", "failing"].map(|level| {
            point(&HEALTH, [name(service), ("level", level.to_owned())], 0, Value::of_bool(is == level))
        })
    });
    families.push(family(&HEALTH, levels));
    for Of { metric, read } in &SERVICES {
        let points = services().filter_map(|service| {
            let since = begun.processes.get(&service.name).copied().unwrap_or(begun.keeper);
            read(service).map(|value| point(metric, [name(service)], since, value))
        });
        families.push(family(metric, points));
    }
    let starts = services().filter_map(|service| {
        let value = (STARTS.read)(service)?;
        Some(point(&STARTS.metric, [name(service)], begun.keeper, value))
    });
    families.push(family(&STARTS.metric, starts));
    // What is registered no more has left its counts behind.
    let registered: BTreeSet<_> = services().map(|service| &service.name).collect();
    let restarts = found.counts.restarts.counts().filter(|(service, ..)| registered.contains(service));
    let restarts = restarts.map(|(service, cause, count)| {
        let labels = [("service", service.to_string()), ("reason", cause.to_owned())];
        point(&RESTARTS, labels, found.counts.restarts.since(), Value::Whole(count))
    });
    families.push(family(&RESTARTS, restarts));
    let moves = found.counts.moves.counts().filter(|(service, ..)| registered.contains(service));
    let moves = moves.map(|(service, kind, count)| {
        let labels = [("service", service.to_string()), ("kind", kind.to_owned())];
        point(&MOVES, labels, found.counts.moves.since(), Value::Whole(count))
    });
    families.push(family(&MOVES, moves));
}

fn of_usage(found: &Gathering, usage: &Usage, families: &mut Vec<Family>) {
    let begun = &found.begun;
    for Of { metric, read } in &USAGE {
        let points = usage.services.iter().filter_map(|service| {
            let since = begun.usage.get(&service.name).copied().unwrap_or(begun.keeper);
            read(service).map(|value| point(metric, [("service", service.name.to_string())], since, value))
        });
        families.push(family(metric, points));
    }
    for Of { metric, read } in &MACHINE {
        let value = read(&usage.machine);
        families.push(family(metric, value.map(|value| point(metric, [], begun.machine, value))));
    }
}

/// Of two services there is one lane that may be sent on, and there may be some that are retired: they add to what waits.
fn of_lanes(found: &Gathering, families: &mut Vec<Family>) {
    let lanes = || found.inboxes.iter().flat_map(|inbox: &InboxStatus| &inbox.lanes);
    let mut queued: BTreeMap<[(&'static str, String); 2], u64> = BTreeMap::new();
    for lane in lanes() {
        *queued.entry(pair(lane)).or_default() += lane.queued;
    }
    let queued = queued.into_iter().map(|(pair, count)| point(&QUEUED, pair, 0, Value::Whole(count)));
    families.push(family(&QUEUED, queued));
    for Of { metric, read } in &LANES {
        let points = lanes().filter(|lane| !lane.is_retired).filter_map(|lane| {
            let since = found.begun.lanes.get(&lane.lane).copied().unwrap_or_default();
            read(lane).map(|value| point(metric, pair(lane), since, value))
        });
        families.push(family(metric, points));
    }
}

fn pair(lane: &LaneStatus) -> [(&'static str, String); 2] {
    [("sender", lane.sender.to_string()), ("receiver", lane.receiver.to_string())]
}

fn of_records(counts: &Counts, families: &mut Vec<Family>) {
    let whose = |service: &ServiceName| ("service", service.to_string());
    let received = counts
        .received
        .iter()
        .map(|(service, count)| point(&RECEIVED, [whose(service)], counts.since, Value::Whole(*count)));
    families.push(family(&RECEIVED, received));
    let lost = counts.lost.iter().map(|((service, reason), count)| {
        let labels = [whose(service), ("reason", (*reason).to_owned())];
        point(&LOST, labels, counts.since, Value::Whole(*count))
    });
    families.push(family(&LOST, lost));
    let output = |name: &str| ("output", name.to_owned());
    let written = counts.outputs.iter().flat_map(|(name, of)| {
        of.written.iter().map(move |(service, count)| {
            let labels = [output(name)].into_iter().chain(service.as_ref().map(whose));
            point(&WRITTEN, labels, counts.since, Value::Whole(*count))
        })
    });
    families.push(family(&WRITTEN, written));
    let dropped = counts.outputs.iter().flat_map(|(name, of)| {
        of.dropped.iter().map(move |((service, reason), count)| {
            let labels = [output(name)].into_iter().chain(service.as_ref().map(whose));
            let labels = labels.chain([("reason", (*reason).to_owned())]);
            point(&DROPPED, labels, counts.since, Value::Whole(*count))
        })
    });
    families.push(family(&DROPPED, dropped));
    let waiting = counts
        .outputs
        .iter()
        .map(|(name, of)| point(&WAITING, [output(name)], counts.since, Value::Whole(of.waiting)));
    families.push(family(&WAITING, waiting));
}

fn family(metric: &'static Metric, points: impl IntoIterator<Item = Point>) -> Family {
    Family { metric, points: points.into_iter().collect() }
}

fn point(
    metric: &Metric,
    labels: impl IntoIterator<Item = (&'static str, String)>,
    since: u64,
    value: Value,
) -> Point {
    let since = if metric.kind == Kind::Gauge { 0 } else { since };
    Point { labels: labels.into_iter().collect(), since, value }
}
