//! Random event logs, most of which no watchdog would write: the way back ends all the same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use watchdog_lifecycle::why::why;
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{
    EventRecord, Evidence, PhaseStatus, ServiceKind, ServiceStatus, SettingsStatus, VerdictStatus,
    WantedStatus,
};
use watchdog_protocol::why::Origin;
use watchdog_protocol::{Incarnation, Revision, ServiceName};

use crate::config;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn names() -> impl Strategy<Value = ServiceName> {
    prop::sample::select(&NAMES[..]).prop_map(|name| name.parse().unwrap())
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let verbs = prop::sample::select(&["start", "stop", "kill", "restart", "reset"][..]);
    (
        prop::option::of(Just("operator (uid 0)".to_owned())),
        prop::option::of(verbs.prop_map(str::to_owned)),
        prop::option::of(names()),
        prop::option::of(0_i32..12),
        prop::option::of(0_u32..9),
    )
        .prop_map(|(by, verb, on, signal, failures)| Evidence {
            by,
            verb,
            on,
            signal,
            failures,
            last_lines: vec!["a line".into()],
            ..Evidence::default()
        })
}

fn records() -> impl Strategy<Value = EventRecord> {
    let whats = [
        "asked",
        "starting",
        "ready",
        "stopping",
        "killing",
        "survivors",
        "ended",
        "backoff",
        "failed",
        "completed",
        "stopped",
        "settings",
        "state",
        "signal",
        "registered",
        "shutdown",
        "started",
    ];
    let causes = [
        "exit-code",
        "signal",
        "oom",
        "unseen",
        "hung",
        "failing",
        "spawn",
        "not-ready",
        "state",
        "protocol",
        "limit",
        "dependency",
        "settings",
        "operator",
        "watchdog",
        "of another build",
    ];
    (
        prop::option::weighted(0.9, names()),
        prop::option::of(0_u64..4),
        prop::sample::select(whats.to_vec()),
        prop::option::weighted(0.7, prop::sample::select(causes.to_vec())),
        prop::option::of(1_u64..4),
        prop::option::weighted(0.8, evidence()),
    )
        .prop_map(|(service, incarnation, what, cause, revision, evidence)| EventRecord {
            number: 0,
            at_us: 0,
            service,
            incarnation: incarnation.map(Incarnation::from_stored),
            what: what.into(),
            cause: cause.map(str::to_owned),
            text: what.into(),
            revision: revision.map(Revision::from_stored),
            sequence: None,
            evidence: evidence.map(Box::new),
        })
}

/// Also such as wait for themselves.
fn statuses() -> impl Strategy<Value = ServiceStatus> {
    let phases = [
        PhaseStatus::Stopped,
        PhaseStatus::Starting,
        PhaseStatus::Ready,
        PhaseStatus::Stopping,
        PhaseStatus::Backoff,
        PhaseStatus::Failed,
        PhaseStatus::Completed,
    ];
    (
        prop::sample::select(phases.to_vec()),
        prop::bool::weighted(0.2),
        prop::collection::vec(names(), 0..3),
        prop::collection::vec(names(), 0..3),
        0_u64..4,
        any::<bool>(),
    )
        .prop_map(|(phase, is_down, requires, blocked_by, number, has_refused)| ServiceStatus {
            name: "a".parse().unwrap(),
            kind: ServiceKind::Service,
            task: false,
            wanted: if is_down { WantedStatus::Down } else { WantedStatus::Up },
            wanted_by: None,
            phase,
            phase_ms: 0,
            requires,
            blocked_by,
            progress: None,
            says: None,
            health: Health::Ok,
            incarnation: Incarnation::from_stored(number),
            pid: None,
            uptime_ms: None,
            starts: number,
            last_end: None,
            next_try_ms: None,
            memory: None,
            cpu_ms: None,
            descriptors: None,
            settings: has_refused.then(|| SettingsStatus {
                revision: Revision::FIRST,
                verdict: VerdictStatus::Accepted,
                refused: Some("no".into()),
                waiting: 0,
            }),
            state: None,
            handles: 0,
            messages_in: 0,
            messages_out: 0,
            queued: 0,
            survivors: vec![],
            drift: false,
            frozen: false,
        })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_way_back_ends_and_tells_no_entry_twice_and_no_other_that_is_not_in_the_log(
        mut log in prop::collection::vec(records(), 0..40),
        mut services in prop::collection::vec(statuses(), NAMES.len()),
        first in 1_u64..3,
    ) {
        for (record, number) in log.iter_mut().zip(first..) {
            record.number = number;
        }
        for (service, name) in services.iter_mut().zip(NAMES) {
            service.name = name.parse().unwrap();
        }
        for service in &services {
            let why = why(&service.name, &services, &log).unwrap();
            prop_assert!(!why.chain.is_empty());
            prop_assert_eq!(why.chain[0].service.as_ref(), Some(&service.name));
            let told: Vec<u64> = why.chain.iter().filter_map(|link| link.event).collect();
            prop_assert!(told.iter().all(|number| log.iter().any(|record| record.number == *number)));
            // A service that is held tells since when by an entry that may also be a step of its own.
            let silent = why.chain.iter().filter(|link| link.event.is_none() || link.what.starts_with("does not run"));
            prop_assert!(silent.count() <= services.len());
            let steps: Vec<u64> = why.chain.iter()
                .filter(|link| !link.what.starts_with("does not run"))
                .filter_map(|link| link.event)
                .collect();
            prop_assert_eq!(steps.iter().collect::<BTreeSet<_>>().len(), steps.len());
            prop_assert!(why.chain.len() <= log.len() + services.len());
            match &why.origin {
                Origin::FirstCause(words) => prop_assert!(!words.is_empty()),
                Origin::NotInLog(words) => {
                    prop_assert!(words.contains("does not tell"));
                    let begins_later = log.first().is_some_and(|record| record.number > 1);
                    prop_assert_eq!(words.contains("which begins with entry"), begins_later);
                }
            }
        }
    }
}
