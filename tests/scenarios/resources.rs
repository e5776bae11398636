//! The resource manager: takes from the low priority to give to the high, and gives back.

use nix::sys::signal::Signal;
use watchdog_protocol::resources::LimitsView;
use watchdog_protocol::session::Health;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::puppet;
use watchdog_tests::{Entry, Seen, TestWatchdog, program, sample};

const GRANT: &str =
    "control = [\"status\", \"limits\", \"limit\", \"freeze\", \"thaw\", \"stop\", \"start\"]";

const MANAGER: &str = "resource-manager";

/// Looks often, so that a test waits for little.
fn manager(services: &str) -> Entry {
    sample(MANAGER).key(GRANT).settings(&format!("period = \"200ms\"\nservices = {{ {services} }}"))
}

/// Wants all processors there are, and one more.
fn greedy(name: &str) -> Entry {
    let spin = "for i in $(seq $(nproc)); do (while :; do :; done) & done; while :; do :; done";
    program(name, &["sh", "-c", spin])
}

fn limits_of(wd: &TestWatchdog, service: &str) -> String {
    let view: LimitsView = wd.cli(&["limits", service, "--json"]).ok().json();
    view.services[0].limits.to_string()
}

/// Nothing is moved where nothing can be limited.
fn can_limit(wd: &TestWatchdog) -> bool {
    let view: LimitsView = wd.cli(&["limits", "--json"]).ok().json();
    view.back_end.starts_with("cgroup-")
}

/// For whom something was taken from `service`.
fn until_taken(wd: &TestWatchdog, service: &str, after: u64) -> u64 {
    let taken = wd.until_event("something is taken from it", |event| {
        let is_its = event.service.as_ref().is_some_and(|name| name.as_str() == service);
        is_its && event.number > after && event.text.ends_with(": node is short of processor time")
    });
    taken.number
}

#[test]
fn the_low_give_to_the_high_when_it_is_short_and_get_it_all_back() {
    let services = "node = { class = \"critical\" }, hog = { class = \"batch\", may_freeze = false }";
    let wd = TestWatchdog::run(&[manager(services), greedy("node"), greedy("hog"), greedy("other")]);
    wd.until("all are ready", Seen::all_ready);
    if !can_limit(&wd) {
        return;
    }
    wd.until_some("they weigh by their priority", || {
        (limits_of(&wd, "node") == "cpu_weight=1600").then_some(())
    });
    let first = until_taken(&wd, "hog", 0);
    wd.until_some("its processor time is capped", || limits_of(&wd, "hog").starts_with("cpu=").then_some(()));
    // Who is not in the settings has a priority too: above the hog's, below that of the node.
    until_taken(&wd, "other", first);
    let said = wd.cli(&["send", MANAGER, "\"Standings\""]).ok();
    assert!(
        said.stdout.contains("{\"service\":\"node\",\"priority\":90,\"cpu\":\"all\",\"memory\":\"all\"}"),
        "{said}"
    );

    let said = wd.cli(&["resources", "history", "hog"]).ok().stdout;
    assert!(
        said.contains(" looks, 200ms each") && said.contains("node is short of processor time"),
        "{said}"
    );

    // What is taken stays taken, whoever dies.
    wd.kill_core();
    wd.until("all are ready", Seen::all_ready);
    let killed = wd.kill(MANAGER, Signal::SIGKILL);
    wd.until("it is back", |seen| seen.of(MANAGER).is_ready_after(killed));
    assert!(limits_of(&wd, "hog").contains("cpu_weight=1"), "{}", limits_of(&wd, "hog"));

    wd.cli(&["stop", "node"]).ok();
    wd.until_some("the one in the middle has all again", || limits_of(&wd, "other").is_empty().then_some(()));
    wd.cli(&["stop", "other"]).ok();
    wd.until_some("the hog has all again", || (limits_of(&wd, "hog") == "cpu_weight=6").then_some(()));
    let given = wd.until_event("it says why", |event| event.text.contains("cpu_weight 1 → 6"));
    assert!(given.text.ends_with(": nobody above it is short of processor time"), "{}", given.text);
}

#[test]
fn a_batch_service_with_nothing_left_to_give_stands_still_and_goes_on_when_it_is_calm() {
    let services = "node = { priority = 80 }, hog = { class = \"batch\" }";
    let wd = TestWatchdog::run(&[manager(services), greedy("node"), greedy("hog")]);
    wd.until("all are ready", Seen::all_ready);
    if !can_limit(&wd) {
        return;
    }
    // One processor time more than there is: the node waits for itself when nobody else is left.
    wd.until("it is frozen", |seen| seen.of("hog").frozen);
    wd.cli(&["stop", "node"]).ok();
    wd.until("it goes on", |seen| !seen.of("hog").frozen);
    wd.until_some("it has all again", || (limits_of(&wd, "hog") == "cpu_weight=6").then_some(()));
}

#[test]
fn what_can_not_hold_is_refused_and_what_is_set_holds_at_once() {
    let wd =
        TestWatchdog::run(&[manager("a = { nofile = 500 }"), puppet("a", ByItself), puppet("b", ByItself)]);
    wd.until("all are ready", Seen::all_ready);
    wd.until_some("it is limited", || (limits_of(&wd, "a") == "nofile=500").then_some(()));
    let set = |change: &str| wd.cli(&["set", MANAGER, change]);
    let said = set("services.a.guaranteed={ cpu = \"1000000%\" }").with_code(78);
    assert!(
        said.stderr.contains("services.*.guaranteed.cpu: 1000000% in all, and the machine has"),
        "{said}"
    );
    let said = set("services.a.cpu=50").with_code(78);
    assert!(said.stderr.contains("services.a.cpu"), "{said}");
    set("services.a.nofile=600").ok();
    wd.until_some("it is changed", || (limits_of(&wd, "a") == "nofile=600").then_some(()));

    // One that is in the settings for a while has again what it had.
    wd.cli(&["limit", "b", "nofile=700"]).ok();
    set("services.b={ nofile = 800 }").ok();
    wd.until_some("it is changed", || (limits_of(&wd, "b") == "nofile=800").then_some(()));
    wd.cli(&["unset", MANAGER, "services.b"]).ok();
    wd.until_some("it is as before", || (limits_of(&wd, "b") == "nofile=700").then_some(()));
}

#[test]
fn without_a_grant_it_moves_nothing_and_says_what_it_needs() {
    let wd = TestWatchdog::run(&[sample(MANAGER).settings("period = \"200ms\""), puppet("a", ByItself)]);
    let seen = wd.until("it says so", |seen| seen.of(MANAGER).health != Health::Ok);
    let Health::Degraded { reason } = &seen.of(MANAGER).health else {
        panic!("{:?}", seen.of(MANAGER).health)
    };
    assert!(
        reason.contains("it has no grant; expected control = [\"status\", \"limits\", \"limit\""),
        "{reason}"
    );
}
