//! All an operator reads, pinned.

use std::io;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply};
use watchdog_protocol::session::{Health, Progress};
use watchdog_protocol::status::{
    BucketStatus, EndStatus, InboxStatus, LaneStatus, PhaseStatus, PropagationStatus, STATUS_VERSION,
    ServiceKind, ServiceStatus, SettingsStatus, StateStatus, Status, VerdictStatus, WantedStatus,
    WatchdogStatus,
};
use watchdog_protocol::{Incarnation, LaneEpoch, Revision, Sequence, ServiceName};
use watchdog_query::QueryError;

use super::console::{Console, Format};
use super::look::{ColorChoice, Look, Paint};
use super::report::CliError;
use super::{Arguments, Exit, command, intercoms, status};
use crate::core::control::{ControlDoor, Hours};

const WIDE: Look = Look { color: false, width: None };

fn narrow(width: usize) -> Look {
    Look { color: false, width: Some(width) }
}

pub(in crate::cli) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(in crate::cli) fn service(of: &str, phase: PhaseStatus) -> ServiceStatus {
    ServiceStatus {
        name: name(of),
        kind: ServiceKind::Service,
        task: false,
        wanted: WantedStatus::Up,
        wanted_by: None,
        phase,
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

pub(in crate::cli) fn down(of: &str, phase: PhaseStatus) -> ServiceStatus {
    ServiceStatus {
        pid: None,
        uptime_ms: None,
        memory: None,
        cpu_ms: None,
        descriptors: None,
        ..service(of, phase)
    }
}

/// One of each kind of trouble.
pub(in crate::cli) fn motley() -> Status {
    let ended = |why: &str, cause: &str| {
        Some(EndStatus {
            incarnation: Incarnation::from_stored(2),
            cause: cause.into(),
            why: why.into(),
            ago_ms: 61_000,
            last_lines: vec!["panicked at src/main.rs:7".into(), "\x1b[31mred\x1b[0m".into()],
        })
    };
    let services = vec![
        ServiceStatus {
            last_end: ended("killed by SIGKILL", "signal"),
            ..service("counter", PhaseStatus::Ready)
        },
        ServiceStatus { blocked_by: vec![name("db")], state: None, ..down("bumper", PhaseStatus::Stopped) },
        ServiceStatus {
            progress: Some(Progress { fraction: Some(0.4), text: "reads its index".into() }),
            ..service("db", PhaseStatus::Starting)
        },
        ServiceStatus {
            next_try_ms: Some(3_200),
            last_end: ended("exit code 1", "exit"),
            ..down("flaky", PhaseStatus::Backoff)
        },
        ServiceStatus {
            last_end: ended("it ended 6 times in 60 s", "crash loop"),
            ..down("broken", PhaseStatus::Failed)
        },
        ServiceStatus {
            wanted: WantedStatus::Down,
            wanted_by: Some("an operator (uid 0)".into()),
            survivors: vec![77],
            drift: true,
            ..down("stuck", PhaseStatus::Stopping)
        },
        ServiceStatus {
            kind: ServiceKind::Program,
            health: Health::Degraded { reason: "slow disk".into() },
            settings: None,
            state: None,
            ..service("nginx", PhaseStatus::Ready)
        },
    ];
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
        notes: vec!["no cgroup: orphans are found by their environment".into()],
    };
    Status { version: STATUS_VERSION, watchdog, services, groups: Vec::new() }
}

fn lane(sender: &str, held_ms: Option<u64>, mismatch: Option<&str>) -> LaneStatus {
    LaneStatus {
        lane: LaneEpoch::from_stored(1),
        sender: name(sender),
        receiver: name("counter"),
        queued: 3,
        held_ms,
        handed_over: 2,
        sent: 1003,
        handled: 1000,
        redelivered: 1,
        full: 0,
        rate: 12.54,
        age_ms: 79_745,
        propagation: PropagationStatus {
            count: 3,
            mean: 15_000.0,
            variance: 25e6,
            deviation: 5_000.0,
            p50: 15_000,
            p99: 20_000,
            max: 1_200_000,
            buckets: vec![
                BucketStatus { below: 16_384, count: 2 },
                BucketStatus { below: 2_097_152, count: 1 },
            ],
        },
        mismatch: mismatch.map(str::to_owned),
        is_retired: false,
        used: 2304,
        size: 1 << 20,
    }
}

fn inboxes() -> Vec<InboxStatus> {
    let quiet = LaneStatus {
        queued: 0,
        used: 0,
        handed_over: 1,
        propagation: PropagationStatus::default(),
        ..lane("quiet", None, Some("variant 2 is `Total` here and `Sum` there"))
    };
    vec![
        InboxStatus { service: name("bumper"), handles: 0, lanes: vec![] },
        InboxStatus {
            service: name("counter"),
            handles: 2,
            lanes: vec![lane("bumper", Some(12_000), None), quiet],
        },
    ]
}

#[test]
fn status_is_a_table() {
    insta::assert_snapshot!(status::text(&motley(), &WIDE));
}

#[test]
fn status_fits_80_columns() {
    let text = status::text(&motley(), &narrow(80));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn status_keeps_its_main_columns_in_40() {
    let text = status::text(&motley(), &narrow(40));
    assert!(text.lines().skip(2).all(|line| line.chars().count() <= 40), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn status_is_coloured_by_how_things_are() {
    insta::assert_snapshot!(
        status::text(&motley(), &Look { color: true, width: Some(80) }).replace('\x1b', "␛")
    );
}

#[test]
fn status_of_one_service_is_all_there_is_to_know() {
    let mut refused = motley().services[0].clone();
    refused.settings = Some(SettingsStatus {
        revision: Revision::from_stored(6),
        verdict: VerdictStatus::Pending,
        refused: Some("step is too large".into()),
        waiting: 2,
    });
    let mut all: Vec<_> = motley().services;
    all.push(refused);
    let texts: Vec<_> = all.iter().map(|service| status::detail(service, &WIDE)).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn status_without_services_says_what_to_do() {
    insta::assert_snapshot!(status::text(&Status { services: vec![], ..motley() }, &WIDE));
}

#[test]
fn status_as_json_is_the_status() {
    let status = Status { services: motley().services[..1].to_vec(), ..motley() };
    let json = serde_json::to_string_pretty(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    insta::assert_snapshot!(json);
}

#[test]
fn intercoms_are_a_table_of_lanes() {
    insta::assert_snapshot!(intercoms::text(&inboxes(), &WIDE));
}

#[test]
fn intercoms_are_paragraphs_where_a_table_is_too_wide() {
    let text = intercoms::text(&inboxes(), &narrow(80));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let config = || PathBuf::from("/shop/watchdog.toml");
    let socket = || PathBuf::from("/shop/.watchdog/run/watchdog.sock");
    let unreachable = |source: QueryError| CliError::Unreachable { config: config(), source };
    let denied = QueryError::NotReachable { path: socket(), source: io::ErrorKind::PermissionDenied.into() };
    let late = Failure::new(FailureKind::TryAgain, "`db` is starting since 10s: reads its index");
    let refused = Failure::new(FailureKind::Usage, "no service `countre` is registered")
        .hint("did you mean `counter`?");
    let errors = [
        CliError::NoWatchdog { config: config(), named: false },
        CliError::NoWatchdog { config: config(), named: true },
        CliError::NoAnswer { config: config(), pid: 12 },
        unreachable(denied),
        unreachable(QueryError::Version { ours: 1, theirs: 2 }),
        unreachable(QueryError::Stranger { path: socket() }),
        CliError::Query(QueryError::Refused(refused)),
        CliError::Query(QueryError::Refused(late)),
        CliError::Query(QueryError::Closed { source: Some(io::ErrorKind::ConnectionReset.into()) }),
        CliError::Query(QueryError::Silent { waited: std::time::Duration::from_secs(30) }),
        CliError::SettingsRefused {
            service: name("counter"),
            refused: 5,
            reason: "step is too large".into(),
            now: 6,
        },
        CliError::NoSetting { service: name("counter"), key: "setp".into(), nearest: Some("step".into()) },
        CliError::NoSetting { service: name("counter"), key: "x".into(), nearest: None },
        CliError::NoLog { service: name("countre"), nearest: Some("counter".into()) },
        CliError::File { what: "read", path: config(), source: io::ErrorKind::NotFound.into() },
        CliError::BytesToTerminal,
        CliError::Exists { path: "/home/me/counter.tar".into() },
        CliError::KeeperStays { pid: 12, seconds: 10 },
        CliError::from(crate::config::Problem::NotFound { start: "/home/me".into() }),
    ];
    let said = errors.iter().map(|error| format!("{}\n[exit {}]\n", error.text(&WIDE), error.exit().code()));
    insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"));
}

#[test]
fn an_error_of_a_service_commands_no_terminal() {
    let failure = Failure::new(FailureKind::Failed, "it said \x1b[2J").hint("\x07");
    let text = CliError::Query(QueryError::Refused(failure)).text(&Look { color: true, width: None });
    assert_eq!(text.matches('\x1b').count(), 4, "{text:?}");
    assert!(!text.contains('\x07'));
}

#[test]
fn help_lists_verbs_options_and_exit_codes() {
    insta::assert_snapshot!(command().render_long_help());
}

#[test]
fn every_verb_has_help_with_an_example() {
    let mut text = String::new();
    let mut command = command();
    command.build();
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        let help = verb.render_long_help().to_string();
        assert!(help.contains("Example:\n"), "{help}");
        text += &format!("──── {}\n{help}\n", verb.get_name());
        for inner in verb.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let help = inner.render_long_help().to_string();
            assert!(help.contains("Example:\n"), "{help}");
            text += &format!("──── {}\n{help}\n", inner.get_name());
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_command_line_that_makes_no_sense_says_what_would() {
    let said = |line: &str| {
        let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
        format!("$ {line}\n{}", error.render())
    };
    let lines = [
        "watchdog stop",
        "watchdog stop Counter!",
        "watchdog start a --wait=soon",
        "watchdog start a --wait=1s --no-wait",
        "watchdog set counter step",
        "watchdog kill a --signal HAP",
        "watchdog --colour never status",
    ];
    insta::assert_snapshot!(lines.map(said).join("\n"));
}

#[test]
fn a_verb_that_is_none_is_named_with_the_one_that_was_meant() {
    let said = |line: &str| {
        let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
        super::unknown_verb(&error).unwrap().text(&Look { color: false, width: None })
    };
    let lines =
        ["watchdog stpo counter", "watchdog --json qqqq", "watchdog state shw x", "watchdog --json dead qq"];
    insta::assert_snapshot!(lines.map(said).join("\n"), @r"
    error: `watchdog` has no verb `stpo`
      hint: did you mean `watchdog stop`?
    error: `watchdog` has no verb `qqqq`
      hint: watchdog --help lists them
    error: `watchdog state` has no verb `shw`
      hint: did you mean `watchdog state show`?
    error: `watchdog dead` has no verb `qq`
      hint: watchdog dead --help lists them
    ");
    let other = Arguments::try_parse_from(["watchdog", "stop"]).unwrap_err();
    assert!(super::unknown_verb(&other).is_none());
}

#[test]
fn the_command_line_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn a_verb_waits_unless_told_otherwise() {
    let wait = |line: &str| match Arguments::try_parse_from(line.split(' ')).unwrap().verb {
        super::Verb::Start(start) => start.wait(),
        other => panic!("{other:?}"),
    };
    let seconds = |seconds| Some(std::time::Duration::from_secs(seconds));
    assert_eq!(wait("watchdog start a"), seconds(60));
    assert_eq!(wait("watchdog start --wait a"), seconds(60));
    assert_eq!(wait("watchdog start --wait=5s a"), seconds(5));
    assert_eq!(wait("watchdog start a --no-wait"), None);
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let codes = [
        (Exit::Ok, 0),
        (Exit::Failed, 1),
        (Exit::Usage, 2),
        (Exit::NotRunning, 3),
        (Exit::NotReachable, 69),
        (Exit::AlreadyRunning, 73),
        (Exit::TryAgain, 75),
        (Exit::NotPermitted, 77),
        (Exit::Configuration, 78),
    ];
    for (exit, code) in codes {
        assert_eq!(exit.code(), code);
    }
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    assert_eq!(WIDE.paint(Paint::Bad, "x"), "x");
    assert_eq!(Look { color: true, width: None }.paint(Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
}

#[tokio::test]
async fn a_command_reaches_the_watchdog_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("watchdog.toml");
    std::fs::write(&config, "[watchdog]\nruntime = \"here\"\n").unwrap();
    let console = Console::new(Some(config.clone()), Format::Json, ColorChoice::Never);
    let error = console.ask(async |query| query.status(&[]).await).await.unwrap_err();
    assert!(matches!(&error, CliError::NoWatchdog { config: of, named: true } if *of == config), "{error}");

    let door = ControlDoor::open(&folder.path().join("here"), u32::MAX, |_| None).unwrap();
    let (sender, mut calls) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let (_hours, until) = tokio::sync::watch::channel(Hours::Open);
    tasks.spawn(door.serve(sender, until));
    let answer = async {
        let call = calls.recv().await.unwrap();
        call.replies.send(Reply::End(Ok(Outcome::Status(Box::new(motley()))))).await.unwrap();
    };
    let (status, ()) = tokio::join!(console.ask(async |query| query.status(&[]).await), answer);
    assert_eq!(status.unwrap(), motley());
}
