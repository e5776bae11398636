//! What a watchdog could have said, for tests.

use std::collections::BTreeMap;

use watchdog_service::query::status::{
    BucketStatus, InboxStatus, LaneStatus, PhaseStatus, PropagationStatus, STATUS_VERSION, ServiceKind,
    ServiceStatus, SettingsStatus, StateStatus, Status, VerdictStatus, WantedStatus, WatchdogStatus,
};
use watchdog_service::{Health, Incarnation, LaneEpoch, Revision, Sequence, ServiceName};

use super::lives::Lives;
use super::restarts::sample::entry;
use super::{Counts, Gathering, Restarts};
use crate::output::OutputCounts;

const AT: u64 = 1_764_474_000_123_456_789;

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(crate) fn status(services: &[&str]) -> Status {
    let watchdog = WatchdogStatus {
        keeper_pid: 4000,
        core_pid: 4011,
        cores: 2,
        up_ms: 7_384_000,
        config: "/w/watchdog.toml".into(),
        state: "/w/.watchdog/state".into(),
        runtime: "/w/.watchdog/run".into(),
        logs: "/w/.watchdog/logs".into(),
        stopping: false,
        notes: vec!["no cgroup".into()],
    };
    let services = services.iter().map(|name| service(name)).collect();
    Status { version: STATUS_VERSION, watchdog, services, groups: Vec::new() }
}

fn service(of: &str) -> ServiceStatus {
    ServiceStatus {
        name: name(of),
        kind: ServiceKind::Service,
        task: false,
        wanted: WantedStatus::Up,
        wanted_by: None,
        phase: PhaseStatus::Ready,
        phase_ms: 125_000,
        requires: vec![],
        blocked_by: vec![],
        progress: None,
        says: None,
        health: Health::Ok,
        incarnation: Incarnation::from_stored(3),
        pid: Some(4242),
        uptime_ms: Some(125_400),
        starts: 3,
        last_end: None,
        next_try_ms: None,
        memory: Some(13_002_342),
        cpu_ms: Some(1_240),
        descriptors: Some(17),
        settings: Some(SettingsStatus {
            revision: Revision::from_stored(4),
            verdict: VerdictStatus::Accepted,
            refused: None,
            waiting: 0,
        }),
        state: Some(StateStatus {
            sequence: Sequence::from_stored(120),
            synced: Sequence::from_stored(118),
            version: 1,
            bytes: 1536,
            age_ms: Some(340),
            failed: None,
        }),
        handles: 2,
        messages_in: 1200,
        messages_out: 0,
        queued: 3,
        survivors: vec![],
        drift: false,
        frozen: false,
    }
}

/// Lanes of four messages: three took a millisecond and more, one longer than any bound.
pub(crate) fn inbox(receiver: &str, senders: &[&str]) -> InboxStatus {
    let lane = |(number, sender): (u64, &&str)| LaneStatus {
        lane: LaneEpoch::from_stored(number),
        sender: name(sender),
        receiver: name(receiver),
        queued: 3,
        held_ms: None,
        handed_over: 2,
        sent: 7,
        handled: 4,
        redelivered: 1,
        full: 0,
        rate: 12.54,
        age_ms: 79_745,
        propagation: PropagationStatus {
            count: 4,
            mean: 1.5e9,
            buckets: vec![
                BucketStatus { below: 1 << 21, count: 3 },
                BucketStatus { below: 1 << 36, count: 1 },
            ],
            ..PropagationStatus::default()
        },
        mismatch: None,
        is_retired: false,
        used: 2304,
        size: 1 << 20,
    };
    let lanes = (1..).zip(senders).map(lane).collect();
    InboxStatus { service: name(receiver), handles: senders.len() as u64, lanes }
}

/// Something of every metric: services `a` and `b`, which sends to `a`.
pub(crate) fn gathering() -> Gathering {
    let (mut status, inboxes) = (status(&["a", "b"]), vec![inbox("a", &["b"])]);
    let mut restarts = Restarts::default();
    restarts.take(1, &entry(1, "a", "ended", Some("signal")));
    restarts.take(1, &entry(2, "a", "starting", None));
    let file = OutputCounts {
        written: BTreeMap::from([(Some(name("a")), 90)]),
        dropped: BTreeMap::from([((Some(name("a")), "queue-full"), 7)]),
        waiting: 3,
    };
    let counts = Counts {
        since: AT - 60_000_000_000,
        received: BTreeMap::from([(name("a"), 100)]),
        lost: BTreeMap::from([((name("a"), "full"), 5)]),
        outputs: BTreeMap::from([("file".to_owned(), file)]),
        restarts,
        follows_events: true,
    };
    let begun = Lives::default().look(AT, Some(&mut status), &inboxes);
    Gathering {
        at: AT,
        host: "box".into(),
        status: Some(status),
        inboxes,
        begun,
        counts,
        missing: Vec::new(),
    }
}
