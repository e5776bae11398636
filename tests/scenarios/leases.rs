//! Tokens that are lent by the resource manager: who has how many, whoever dies.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::puppet;
use watchdog_tests::uses::{most_at_once, uses};
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program, sample};

const GRANT: &str =
    "control = [\"status\", \"limits\", \"limit\", \"freeze\", \"thaw\", \"stop\", \"start\"]";

const MANAGER: &str = "resource-manager";

/// Looks often, so that a test waits for little.
fn manager(services: &str) -> Entry {
    let entry = sample(MANAGER).key(GRANT).key("restart_limit = \"off\"").key("restart_delay = \"0s\"");
    entry.settings(&format!("period = \"200ms\"\nservices = {{ {services} }}"))
}

/// Has so many slots.
fn owner(slots: u32) -> Entry {
    program("gpu", &["sleep", "1000"]).key(&format!("resources = {{ gpu-slots = {slots} }}"))
}

fn borrower(name: &str, want: u32, hold_ms: u64) -> Entry {
    let entry = probe(name, "borrower", &[]).with_session();
    let entry = entry.key("restart_limit = \"off\"").key("restart_delay = \"0s\"");
    entry.settings(&format!("resource = \"gpu-slots\"\nwant = {want}\nhold_ms = {hold_ms}"))
}

/// By the word of the resource manager: of each borrower, one of its figures.
fn figure(wd: &TestWatchdog, what: &str) -> Vec<(String, u64)> {
    let said = wd.cli(&["send", MANAGER, "\"Leases\""]);
    let all: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
    let borrowers = all[0]["borrowers"].as_array().cloned().unwrap_or_default();
    let one = |borrower: &Value| {
        (borrower["service"].as_str().unwrap_or_default().to_owned(), borrower[what].as_u64().unwrap_or(0))
    };
    borrowers.iter().map(one).collect()
}

fn lent(wd: &TestWatchdog, who: &str) -> u64 {
    figure(wd, "lent").into_iter().find(|(name, _)| name == who).map_or(0, |(_, lent)| lent)
}

fn until_lent(wd: &TestWatchdog, who: &str, tokens: u64) {
    wd.until_some(&format!("{who} has {tokens}"), || (lent(wd, who) == tokens).then_some(()));
}

/// Of this service, so far.
fn count(wd: &TestWatchdog, who: &str) -> usize {
    uses(wd.folder(), &[who]).len()
}

fn until_used(wd: &TestWatchdog, who: &str) {
    let before = count(wd, who);
    wd.until_some(&format!("{who} uses another one"), || (count(wd, who) > before).then_some(()));
}

#[test]
fn never_are_more_in_use_than_there_are_whoever_dies_and_none_is_lost() {
    let services = "high = { priority = 90 }, low = { priority = 10, guaranteed = { gpu-slots = 1 } }";
    let names = ["high", "mid", "low"];
    let borrowers = [borrower("high", 3, 40), borrower("mid", 6, 70), borrower("low", 6, 100)];
    let [high, mid, low] = borrowers;
    let wd = TestWatchdog::run(&[owner(6), manager(services), high, mid, low]);
    wd.until("all are ready", Seen::all_ready);
    until_lent(&wd, "high", 3);
    until_lent(&wd, "low", 1);
    until_lent(&wd, "mid", 2);
    let said = wd.cli(&["resources", "leases"]).ok();
    assert!(said.stdout.starts_with("gpu-slots: 6 of 6 lent\nBORROWER"), "{said}");

    let set = |change: &str| wd.cli(&["set", MANAGER, change]).ok();
    for round in 0..4 {
        for name in names {
            let killed = wd.kill(name, Signal::SIGKILL);
            wd.until("it is back", |seen| seen.of(name).is_ready_after(killed));
        }
        let (high, low) = if round % 2 == 0 { (10, 90) } else { (90, 10) };
        set(&format!("services.high.priority={high}"));
        set(&format!("services.low.priority={low}"));
        let killed = wd.kill(MANAGER, Signal::SIGKILL);
        wd.until("it is back", |seen| seen.of(MANAGER).is_ready_after(killed));
        wd.kill_core();
        wd.until("all are ready", Seen::all_ready);
        names.iter().for_each(|name| until_used(&wd, name));
    }
    until_lent(&wd, "high", 3);
    until_lent(&wd, "low", 1);

    wd.cli(&["stop", "high", "mid", "low"]).ok();
    wd.until_some("all are free", || figure(&wd, "lent").is_empty().then_some(()));
    let used = uses(wd.folder(), &names);
    assert_eq!(most_at_once(&used), 6, "all are used, and never more");
    wd.cli(&["start", "mid"]).ok();
    until_lent(&wd, "mid", 6);
}

#[test]
fn who_does_not_give_back_what_others_are_to_have_loses_it_at_the_end_of_its_lease() {
    let services = "high = { priority = 90 }, low = { priority = 10 }";
    let wd = TestWatchdog::run(&[owner(4), manager(services), borrower("low", 4, 3_600_000)]);
    wd.until("all are ready", Seen::all_ready);
    until_lent(&wd, "low", 4);
    let folder = wd.folder().to_owned();
    wd.configure("", &[owner(4), manager(services), borrower("low", 4, 3_600_000), borrower("high", 3, 50)]);
    wd.cli(&["reload"]).ok();
    wd.until_some("it is asked to give back", || {
        figure(&wd, "asked_back").contains(&("low".to_owned(), 3)).then_some(())
    });
    until_lent(&wd, "high", 3);
    until_lent(&wd, "low", 1);
    until_used(&wd, "high");
    assert!(most_at_once(&uses(&folder, &["low", "high"])) <= 4);

    // Fewer from now on: the lowest priority goes without.
    wd.configure("", &[owner(2), manager(services), borrower("low", 4, 3_600_000), borrower("high", 3, 50)]);
    wd.cli(&["reload"]).ok();
    until_lent(&wd, "high", 2);
    until_lent(&wd, "low", 0);
}

#[test]
fn without_the_manager_tokens_end_with_their_lease_and_come_back_with_it() {
    let wd = TestWatchdog::run(&[owner(2), manager(""), borrower("one", 2, 3_600_000)]);
    wd.until("all are ready", Seen::all_ready);
    until_lent(&wd, "one", 2);
    wd.cli(&["stop", MANAGER]).ok();
    let end = |wd: &TestWatchdog| uses(wd.folder(), &["one"]).iter().map(|(_, end)| *end).max().unwrap_or(0);
    let stopped = resource_manager::lease::since_boot();
    wd.until_some("nothing is used any more", || {
        let now = resource_manager::lease::since_boot();
        (u128::from(end(&wd)) + 2_000_000 < now.as_micros()).then_some(())
    });
    let after = Duration::from_micros(end(&wd)).saturating_sub(stopped);
    assert!(after <= resource_manager::lease::LEASE, "used for {after:?} after nobody renewed it");
    let before = count(&wd, "one");
    wd.cli(&["start", MANAGER]).ok();
    wd.until_some("it has two others", || (count(&wd, "one") == before + 2).then_some(()));
}

#[test]
fn what_is_not_declared_or_too_much_is_refused_in_words() {
    let wd = TestWatchdog::run(&[
        owner(4),
        manager(""),
        puppet("a", ByItself),
        probe("b", "borrower", &[])
            .with_session()
            .key("restart = \"never\"")
            .settings("resource = \"gpu-slot\"\nwant = 1\nhold_ms = 1"),
    ]);
    let seen = wd.until("it gave up", |seen| seen.of("b").last_end.is_some());
    let end = seen.of("b").last_end.clone().expect("it ended");
    let said = end.last_lines.join("\n");
    assert!(said.contains("no service declares `gpu-slot`; did you mean `gpu-slots`?"), "{said}");
    let set = |change: &str| wd.cli(&["set", MANAGER, change]).with_code(78).stderr;
    let said = set("services.a.guaranteed={ gpu-slots = 5 }");
    assert!(said.contains("services.*.guaranteed.gpu-slots: 5 in all, and 4 are declared"), "{said}");
    let said = set("services.a.guaranteed={ gpu-slot = 1 }");
    assert!(
        said.contains("services.a.guaranteed.gpu-slot: no service declares it; did you mean `gpu-slots`?"),
        "{said}"
    );
    wd.cli(&["set", MANAGER, "services.a.guaranteed={ gpu-slots = 4 }"]).ok();
}

#[test]
fn without_a_manager_it_is_said_how_to_have_one() {
    let wd = TestWatchdog::run(&[program("a", &["sleep", "1000"])]);
    wd.until("it is ready", Seen::all_ready);
    let how = "[service.resource-manager] in watchdog.toml";
    for what in [&["resources", "leases"][..], &["resources", "history", "a"]] {
        let said = wd.cli(what).with_code(2);
        assert!(said.stderr.contains(how), "{said}");
    }
    let said = wd.cli(&["resources", "leases", "--manager=b"]).with_code(2);
    assert!(said.stderr.contains("no service `b` is registered") && !said.stderr.contains(how), "{said}");
}
