//! What a watchdog could have said, for tests.

use std::collections::BTreeMap;

use watchdog_service::query::status::{
    BucketStatus, InboxStatus, LaneStatus, PhaseStatus, PropagationStatus, STATUS_VERSION, ServiceKind,
    ServiceStatus, SettingsStatus, StateStatus, Status, VerdictStatus, WantedStatus, WatchdogStatus,
};
use watchdog_service::query::usage::{MachineUsage, Pressure, ServiceUsage, Stall, Throttled, Usage};
use watchdog_service::{Health, Incarnation, LaneEpoch, Revision, Sequence, ServiceName};

use super::lives::Lives;
use super::restarts::sample::entry;
use super::{Counts, Gathering, Moves, Restarts};
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

pub(crate) fn usage(services: &[&str]) -> Usage {
    let stall = |some_us| Some(Stall { some_us, full_us: some_us / 2 });
    let pressure = Pressure { cpu: stall(4_000_000), memory: stall(200), io: stall(50_000) };
    let of = |of: &&str| ServiceUsage {
        name: name(of),
        incarnation: Incarnation::from_stored(3),
        processes: 2,
        threads: Some(9),
        cpu_us: Some(1_240_000),
        waited_us: Some(250_000),
        rss: Some(13_002_342),
        pss: None,
        swap: Some(4096),
        memory: Some(20_000_000),
        read_bytes: Some(81_920),
        written_bytes: Some(40_960),
        descriptors: Some(17),
        throttled: Some(Throttled { count: 12, us: 600_000 }),
        oom_kills: Some(1),
        pressure,
        is_frozen: false,
    };
    let machine = MachineUsage {
        processors: 2,
        busy_us: Some(900_000_000),
        load: Some([0.4, 0.3, 0.2]),
        memory: Some(8 << 30),
        available: Some(5 << 30),
        swap: None,
        swap_free: None,
        pressure,
    };
    Usage { at_us: 9_000_000_000, services: services.iter().map(of).collect(), machine }
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
    let (mut status, usage, inboxes) = (status(&["a", "b"]), usage(&["a", "b"]), vec![inbox("a", &["b"])]);
    let mut moves = Moves::default();
    moves.take(1, &entry(3, "a", "frozen", None));
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
        moves,
        follows_events: true,
    };
    let begun = Lives::default().look(AT, Some(&mut status), Some(&usage), &inboxes);
    Gathering {
        at: AT,
        host: "box".into(),
        status: Some(status),
        usage: Some(usage),
        inboxes,
        begun,
        counts,
        missing: Vec::new(),
    }
}
