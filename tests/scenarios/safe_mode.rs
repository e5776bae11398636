//! A core that can't start: services go on, the status tells the truth, and an upgrade leads out.

use std::fs;

use nix::sys::signal::Signal;
use watchdog_protocol::audit::AuditRecord;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::{Seen, TestWatchdog, probe, program};

/// No core can write its event log, so none can start; the one that runs is killed.
fn broken(wd: &TestWatchdog) {
    let log = wd.path(".watchdog/logs/events.jsonl");
    fs::rename(&log, wd.path("events.kept")).expect("the log can be moved");
    fs::create_dir(&log).expect("a folder in its place");
    wd.kill_core();
}

fn mended(wd: &TestWatchdog) {
    let log = wd.path(".watchdog/logs/events.jsonl");
    fs::remove_dir(&log).expect("an empty folder");
    fs::rename(wd.path("events.kept"), log).expect("the log comes back");
}

fn is_safe(seen: &Seen) -> bool {
    seen.watchdog.notes.iter().any(|note| note.starts_with("safe mode: 5 cores in a row could not go on"))
}

#[test]
fn services_go_on_the_status_says_why_and_an_upgrade_leads_out() {
    // Prints all the time: without a reader it would stand still at a full pipe.
    let line = "x".repeat(200);
    let talk = format!("i=0; while :; do i=$((i+1)); echo {line}; echo $i > count; done");
    let wd = TestWatchdog::run(&[
        program("talker", &["/bin/sh", "-c", &talk]),
        probe("a", "mirror", &[]),
        probe("b", "mirror", &[]).key("restart = \"always\""),
    ]);
    let before = wd.until("all are ready", Seen::all_ready);
    let audit = || -> Vec<AuditRecord> { wd.cli(&["audit", "--json"]).ok().json() };
    wd.cli(&["kill", "--signal", "CONT", "a"]).ok();
    let first = audit();
    broken(&wd);
    let seen = wd.until("a core in safe mode", is_safe);
    assert!(
        seen.watchdog.notes.iter().any(|note| note.contains("open the event log")),
        "{:?}",
        seen.watchdog.notes
    );
    for name in ["talker", "a", "b"] {
        assert_eq!(seen.of(name).pid, before.of(name).pid, "{name}");
        assert!(seen.of(name).is_ready(), "{name}");
    }
    // A pipe holds at most 256 KiB: so many lines come only if somebody reads.
    let count = || fs::read_to_string(wd.path("count")).ok()?.trim().parse::<u64>().ok();
    let begin = count().unwrap_or(0);
    wd.until_some("it goes on printing", || count().filter(|n| *n > begin + 2000));

    // Nobody restarts what ends, and the status says so.
    wd.kill("b", Signal::SIGKILL);
    let seen = wd.until("its end is seen", |seen| seen.of("b").is(PhaseStatus::Stopped));
    assert!(seen.of("b").why().contains("nobody restarts it"), "{}", seen.of("b").why());
    let said = wd.cli(&["restart", "a"]).with_code(75);
    assert!(said.stderr.contains("safe mode") && said.stderr.contains("watchdog upgrade"), "{said}");
    wd.cli(&["status", "absent"]).with_code(2);
    // Who changed what is shown and recorded as ever.
    let recorded = audit();
    assert_eq!((recorded.len(), &recorded[..1]), (2, &first[..]), "{recorded:?}");
    assert_eq!((recorded[1].number, recorded[1].verb.as_str()), (2, "restart"));

    // As long as the cause is there, the way out leads back.
    let said = wd.cli(&["upgrade"]).with_code(1);
    assert!(said.stderr.contains("before it was ready; the core of before runs again"), "{said}");
    assert!(said.stderr.contains("event log"), "{said}");
    wd.until("safe mode again", is_safe);
    mended(&wd);
    wd.cli(&["upgrade"]).ok();
    let seen = wd.until("all are ready", Seen::all_ready);
    assert!(!is_safe(&seen), "{:?}", seen.watchdog.notes);
    assert_eq!((seen.of("a").pid, seen.of("a").starts), (before.of("a").pid, 1));
    assert_eq!(seen.of("b").starts, 2);
    assert!(seen.of("b").why().contains("SIGKILL"), "{}", seen.of("b").why());
    let after = audit();
    assert_eq!(after[..2], recorded);
    let verbs: Vec<_> = after.iter().map(|record| (record.number, record.verb.as_str())).collect();
    assert_eq!(verbs, [(1, "kill"), (2, "restart"), (3, "upgrade"), (4, "upgrade")]);
}

#[test]
fn a_shutdown_in_safe_mode_stops_everything() {
    let mut wd = TestWatchdog::run(&[
        probe("a", "mirror", &[]),
        probe("deaf", "deaf", &[]).key("stop_timeout = \"200ms\""),
        probe("parent", "orphaner", &[]),
    ]);
    wd.until("all are ready", Seen::all_ready);
    broken(&wd);
    wd.until("a core in safe mode", is_safe);
    wd.cli(&["shutdown"]).ok();
    assert!(wd.ended().success());
    assert!(wd.processes().is_empty());
}
