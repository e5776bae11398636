//! Several instances of one service, and how many there are.

use watchdog_protocol::control::SettingsView;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Seen, TestWatchdog, probe, program, sample};

/// Three workers, and a user that requires all of them.
fn workers() -> TestWatchdog {
    let wd = TestWatchdog::run(&[
        puppet("worker", ByItself).key("instances = 3"),
        probe("user", "mirror", &[]).key("requires = [\"worker\"]"),
    ]);
    wd.until("all are ready", Seen::all_ready);
    wd
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.services.iter().map(|service| service.name.as_str()).collect()
}

#[test]
fn each_instance_has_its_own_process_state_log_and_inbox() {
    let wd = workers();
    let seen = wd.status();
    assert_eq!(names(&seen), ["user", "worker@1", "worker@2", "worker@3"]);
    let started = |name: &str| wd.last_event("ready", name);
    assert!(
        ["worker@1", "worker@2", "worker@3"]
            .iter()
            .all(|name| started(name) < wd.last_event("starting", "user"))
    );
    wd.puppet("worker@2").does(Order::Update { text: "mine".into() });
    wd.puppet("worker@2").does(Order::Save);
    assert_eq!(wd.puppet("worker@1").text(Order::State), "");
    let killed = wd.kill("worker@2", nix::sys::signal::Signal::SIGKILL);
    wd.until("it is back", |seen| seen.of("worker@2").is_ready_after(killed));
    assert_eq!(wd.puppet("worker@2").text(Order::State), "mine");
    wd.puppet("worker@1").does(Order::Tell { to: "worker@2".into(), text: "hello".into(), deadline: None });
    wd.until_some("it is heard", || {
        wd.puppet("worker@2").heard().pop().filter(|heard| heard.sender == "worker@1")
    });
    let environ = std::fs::read(format!("/proc/{}/environ", wd.status().of("worker@3").process().pid));
    let environ = String::from_utf8(environ.expect("it runs")).expect("ours is text");
    assert!(environ.split('\0').any(|pair| pair == "WATCHDOG_INSTANCE=3"), "{environ}");
    assert!(wd.path(".watchdog/logs/worker@3.log").exists());
}

#[test]
fn the_name_of_all_stands_for_each_in_verbs_rules_and_settings() {
    let wd = TestWatchdog::run(&[
        puppet("worker", ByItself).key("instances = 2").key("offer = [\"boss\"]"),
        puppet("boss", ByItself).key("instances = 2").key("use = [\"worker\"]"),
    ]);
    wd.until("all are ready", Seen::all_ready);
    wd.puppet("boss@2").does(Order::Tell { to: "worker@1".into(), text: "work".into(), deadline: None });
    let sent = wd.puppet("worker@1").order(Order::Intercom { to: "worker@2".into() });
    assert!(matches!(&sent, Shown::Failed { text, .. } if text.contains("Denied")), "{sent:?}");

    wd.cli(&["stop", "worker"]).ok();
    let seen = wd.status();
    assert!(["worker@1", "worker@2"].iter().all(|name| seen.of(name).is(PhaseStatus::Stopped)));
    assert!(seen.of("boss@1").is_ready());
    wd.cli(&["start", "worker@2"]).ok();
    assert!(wd.status().of("worker@1").is(PhaseStatus::Stopped));
    wd.cli(&["start", "worker"]).ok();
    let said = wd.cli(&["status", "worker"]).ok().stdout;
    assert!(said.contains("worker@1") && said.contains("worker@2") && !said.contains("boss"), "{said}");
    let said = wd.cli(&["why", "worker"]).with_code(2);
    assert!(said.stderr.contains("they are worker@1, worker@2"), "{said}");
}

#[test]
fn settings_are_those_of_one_instance_or_of_all() {
    let counter = sample("counter").settings("step = 1").key("instances = 2");
    let wd = TestWatchdog::run(&[counter]);
    wd.until("all are ready", Seen::all_ready);
    let values = |name: &str| {
        let said = wd.cli(&["get", name, "--json"]).ok();
        said.json::<SettingsView>().json
    };
    let said = wd.cli(&["set", "counter", "step=3"]).ok();
    assert_eq!(said.stdout.lines().count(), 2, "{said}");
    wd.cli(&["set", "counter@2", "step=5"]).ok();
    assert_eq!((&*values("counter@1"), &*values("counter@2")), (r#"{"step":3}"#, r#"{"step":5}"#));
    wd.cli(&["unset", "counter", "step"]).ok();
    assert_eq!((&*values("counter@1"), &*values("counter@2")), (r#"{"step":1}"#, r#"{"step":1}"#));
    let said = wd.cli(&["set", "counter", "step=0"]).with_code(78);
    assert!(said.stderr.contains("counter@1"), "{said}");
}

#[test]
fn what_is_scaled_away_keeps_its_state_blocks_nobody_and_comes_back_with_it() {
    let mut wd = workers();
    let user = wd.status().of("user").incarnation;
    wd.puppet("worker@3").does(Order::Update { text: "mine".into() });
    wd.cli(&["scale", "worker", "1"]).ok();
    let seen = wd.status();
    assert!(["worker@2", "worker@3"].iter().all(|name| seen.of(name).is(PhaseStatus::Stopped)));
    assert!(seen.of("user").is_ready() && seen.of("user").incarnation == user, "it goes on with one");
    assert_eq!(
        seen.of("worker@3").wanted_by.as_deref().map(|by| by.starts_with("scale by operator")),
        Some(true)
    );
    wd.cli(&["restart", "worker", "user"]).ok();
    let seen = wd.status();
    assert!(seen.of("worker@2").is(PhaseStatus::Stopped), "the name of all leaves out what is too many");

    // It outlives the core and the watchdog.
    wd.kill_core();
    assert!(wd.status().of("worker@3").is(PhaseStatus::Stopped));
    wd.cli(&["shutdown"]).ok();
    assert!(wd.ended().success());
    wd.run_again();
    let seen = wd.until("those that are to be are up", |seen| seen.of("user").is_ready());
    assert!(seen.of("worker@1").is_ready() && seen.of("worker@3").is(PhaseStatus::Stopped));
    wd.cli(&["scale", "worker", "3"]).ok();
    let seen = wd.status();
    assert!(seen.all_ready());
    assert_eq!(wd.puppet("worker@3").text(Order::State), "mine");
}

#[test]
fn more_instances_than_configured_are_made_and_made_again() {
    let mut wd = workers();
    let said = wd.cli(&["scale", "worker", "5"]).ok();
    assert!(said.stdout.contains("worker@5: ready"), "{said}");
    assert!(wd.status().of("user").is_ready());
    wd.puppet("worker@5").does(Order::Update { text: "fifth".into() });
    wd.puppet("worker@5").does(Order::Save);
    wd.kill_core();
    wd.until("all are ready", |seen| seen.all_ready() && seen.services.len() == 6);
    wd.cli(&["shutdown"]).ok();
    assert!(wd.ended().success());
    wd.run_again();
    wd.until("all are ready again", |seen| seen.all_ready() && seen.services.len() == 6);
    assert_eq!(wd.puppet("worker@5").text(Order::State), "fifth");

    wd.cli(&["scale", "worker", "2"]).ok();
    wd.cli(&["scale", "worker", "5"]).ok();
    assert_eq!(wd.puppet("worker@5").text(Order::State), "fifth");
}

#[test]
fn what_can_not_be_scaled_is_told() {
    let entry = program("many", &["sleep", "1000"]).key("instances = 2");
    let mut wd = TestWatchdog::idle();
    wd.configure("", &[entry, probe("one", "mirror", &[])]);
    let file = wd.path("watchdog.toml");
    let text = std::fs::read_to_string(&file).expect("written above");
    let group = "[group.g]\nmembers = [\"many\", \"one\"]\nstrategy = \"one-for-all\"";
    std::fs::write(&file, format!("{text}\n{group}\n")).expect("a file");
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    let said = wd.cli(&["scale", "one", "2"]).with_code(2);
    assert!(said.stderr.contains("`one` has no instances"), "{said}");
    let said = wd.cli(&["scale", "many", "3"]).with_code(2);
    assert!(said.stderr.contains("in group `g`"), "{said}");
    wd.cli(&["scale", "many", "1"]).ok();
    let seen = wd.status();
    let members: Vec<_> = seen.groups[0].members.iter().map(|name| name.as_str()).collect();
    assert_eq!(members, ["many@1", "many@2", "one"]);
    assert!(seen.of("many@2").is(PhaseStatus::Stopped) && seen.of("one").is_ready());
}
