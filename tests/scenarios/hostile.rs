//! Services that do not keep to the rules harm themselves, and nobody else.

use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Entry, TestWatchdog, probe};

/// What does wrong at once, and the cause its end has.
const WRONGS: &[(&str, &str)] = &[
    ("garbage", "protocol"),
    ("late-garbage", "protocol"),
    ("version", "protocol"),
    ("twice", "protocol"),
    ("large", "protocol"),
    ("forged", "protocol"),
    ("empty", "protocol"),
    ("silence", "not-ready"),
];

#[test]
fn a_service_that_breaks_the_session_protocol_is_ended_with_a_reason_and_nobody_else_notices() {
    let wrong = |(mode, _): &(&str, &str)| hostile(mode).key("start_timeout = \"2s\"");
    let entries: Vec<Entry> = WRONGS.iter().map(wrong).chain([puppet("b", ByItself)]).collect();
    let wd = TestWatchdog::run(&entries);
    let core = wd.core();
    let seen = wd.until("all that did wrong have ended", |seen| {
        WRONGS.iter().all(|(mode, _)| seen.of(mode).is(PhaseStatus::Failed)) && seen.of("b").is_ready()
    });
    let found: Vec<(&str, &str)> = WRONGS.iter().map(|(mode, _)| (*mode, seen.of(mode).cause())).collect();
    assert_eq!(found, WRONGS);
    assert_eq!(seen.of("b").starts, 1);
    assert_eq!(wd.core(), core, "the core died of it");
    wd.puppet("b").does(Order::Update { text: "unharmed".into() });
    wd.puppet("b").does(Order::Save);
}

#[test]
fn a_service_that_never_stops_talking_delays_nobody() {
    let wd = TestWatchdog::run(&[hostile("endless"), puppet("b", ByItself)]);
    wd.until("the other one is ready", |seen| seen.of("b").is_ready());
    let b = wd.puppet("b");
    for round in 0..10 {
        b.does(Order::Update { text: round.to_string() });
        b.does(Order::Save);
    }
    wd.cli(&["stop", "endless"]).ok();
    assert_eq!(wd.status().of("b").starts, 1);
}

fn hostile(mode: &str) -> Entry {
    probe(mode, "hostile", &[mode]).with_session().key("restart = \"never\"").key("stop_timeout = \"100ms\"")
}
