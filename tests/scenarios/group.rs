//! Services that restart together, and fail as one.

use nix::sys::signal::Signal;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

/// These entries, and a group `g` of those named.
fn grouped(entries: &[Entry], members: &[&str], keys: &str) -> TestWatchdog {
    let mut wd = TestWatchdog::idle();
    wd.configure("", entries);
    let file = wd.path("watchdog.toml");
    let text = std::fs::read_to_string(&file).expect("written above");
    std::fs::write(&file, format!("{text}\n[group.g]\nmembers = {members:?}\n{keys}\n")).expect("a file");
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    wd
}

fn mirrors(names: &[&str]) -> Vec<Entry> {
    names.iter().map(|name| probe(name, "mirror", &[])).collect()
}

fn incarnations(seen: &Seen, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| seen.of(name).incarnation.get()).collect()
}

#[test]
fn one_for_all_restarts_all_in_order_and_leaves_who_requires_a_member_alone() {
    let mut entries = mirrors(&["a", "b", "c"]);
    entries.push(probe("user", "mirror", &[]).key("requires = [\"a\"]"));
    let wd = grouped(&entries, &["a", "b", "c"], "strategy = \"one-for-all\"");
    let killed = wd.kill("b", Signal::SIGKILL);
    let seen = wd.until("all are back", |seen| {
        ["a", "b", "c"].iter().all(|name| seen.of(name).is_ready_after(killed))
    });
    assert_eq!(incarnations(&seen, &["a", "b", "c", "user"]), [2, 2, 2, 1]);
    assert_eq!((seen.of("a").cause(), seen.of("b").cause()), ("group", "signal"));
    assert_eq!(seen.of("a").why(), "restarted with `b` of group `g`");
    assert!(wd.last_event("ended", "b") < wd.last_event("ended", "c"));
    assert!(wd.last_event("ended", "c") < wd.last_event("ended", "a"), "in reverse order");
    assert!(wd.last_event("ended", "a") < wd.last_event("starting", "a"));
    assert!(wd.last_event("ready", "a") < wd.last_event("starting", "b"));
    assert!(wd.last_event("ready", "b") < wd.last_event("starting", "c"));
    let said = wd.cli(&["why", "a"]).ok().stdout;
    assert!(said.contains("first cause: b: killed by SIGKILL (signal 9), from outside"), "{said}");
}

#[test]
fn rest_for_one_restarts_those_behind() {
    let wd = grouped(&mirrors(&["a", "b", "c"]), &["a", "b", "c"], "strategy = \"rest-for-one\"");
    let killed = wd.kill("b", Signal::SIGKILL);
    let seen =
        wd.until("both are back", |seen| ["b", "c"].iter().all(|name| seen.of(name).is_ready_after(killed)));
    assert_eq!(incarnations(&seen, &["a", "b", "c"]), [1, 2, 2]);
}

#[test]
fn a_group_whose_members_fail_too_often_stops_as_one_and_a_reset_brings_it_back() {
    let broken = program("broken", &["sh", "-c", "[ ! -e now ] || exit 3; sleep 1000"]);
    let mut entries = mirrors(&["a", "z"]);
    entries.push(broken.key("restart_delay = \"0s\""));
    let keys = "strategy = \"one-for-one\"\nrestart_limit = \"2/60s\"";
    let wd = grouped(&entries, &["a", "broken"], keys);
    std::fs::write(wd.path("now"), "").expect("a file");
    wd.kill("broken", Signal::SIGKILL);
    let seen = wd.until("both are failed", |seen| {
        ["a", "broken"].iter().all(|name| seen.of(name).is(PhaseStatus::Failed))
    });
    assert_eq!(incarnations(&seen, &["a", "broken", "z"]), [1, 3, 1]);
    assert!(seen.of("z").is_ready(), "others are untouched");
    assert_eq!(seen.of("a").cause(), "group");
    let why =
        "group `g` failed: 3 failures within 60s, the last one of `broken`: ended by itself with exit code 3";
    assert_eq!(seen.groups[0].failed.as_deref(), Some(why));
    let said = wd.cli(&["status", "g"]).ok().stdout;
    assert!(said.contains(&format!("group g: one-for-one of a, broken; {why}")), "{said}");
    let said = wd.cli(&["why", "a"]).ok().stdout;
    assert!(said.contains("first cause: broken: ended by itself with exit code 3"), "{said}");

    // A new core knows that it failed.
    wd.kill_core();
    assert!(wd.status().of("a").is(PhaseStatus::Failed));
    std::fs::remove_file(wd.path("now")).expect("it is there");
    wd.cli(&["reset", "g"]).ok();
    let seen = wd.until("all are ready", Seen::all_ready);
    assert_eq!((seen.groups[0].failures, &seen.groups[0].failed), (0, &None));
}

#[test]
fn verbs_take_a_group_for_its_members() {
    let wd = grouped(&mirrors(&["x", "a", "b"]), &["b", "a"], "strategy = \"one-for-one\"");
    wd.cli(&["stop", "g"]).ok();
    let seen = wd.status();
    assert!(["a", "b"].iter().all(|name| seen.of(name).is(PhaseStatus::Stopped)));
    assert!(seen.of("x").is_ready());
    assert!(wd.last_event("ended", "a") < wd.last_event("ended", "b"), "in reverse order");
    wd.cli(&["start", "g"]).ok();
    let started = wd.status();
    wd.cli(&["restart", "g"]).ok();
    let seen = wd.status();
    for name in ["a", "b"] {
        assert!(seen.of(name).is_ready_after(started.of(name).incarnation));
    }
    assert!(wd.last_event("ended", "a") < wd.last_event("ended", "b"));
    assert!(wd.last_event("ended", "b") < wd.last_event("starting", "b"));
    assert!(wd.last_event("ready", "b") < wd.last_event("starting", "a"));
    assert_eq!(seen.groups[0].failures, 0, "what an operator wants is no failure");
    let said = wd.cli(&["why", "g"]).with_code(2);
    assert!(said.stderr.contains("`g` is a group") && said.stderr.contains("b, a"), "{said}");
}

#[test]
fn a_restart_of_a_group_goes_on_when_the_core_dies_in_it() {
    let script = "trap 'until [ -e go ]; do sleep 0.01; done; exit 0' TERM; while :; do sleep 0.02; done";
    let entries = [probe("a", "mirror", &[]), program("slow", &["sh", "-c", script])];
    let wd = grouped(&entries, &["a", "slow"], "strategy = \"one-for-all\"");
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the other one is asked to end", |seen| seen.of("slow").is(PhaseStatus::Stopping));
    wd.kill_core();
    let seen = wd.status();
    assert!(seen.of("slow").is(PhaseStatus::Stopping), "{:?}", seen.of("slow").phase);
    assert_eq!(seen.of("a").blocked_by(), ["slow"]);
    std::fs::write(wd.path("go"), "").expect("a file");
    let seen = wd
        .until("both are back", |seen| ["a", "slow"].iter().all(|name| seen.of(name).is_ready_after(killed)));
    assert_eq!(incarnations(&seen, &["a", "slow"]), [2, 2]);
    assert_eq!(seen.groups[0].failures, 1, "told twice, counted once");
}
