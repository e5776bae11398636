//! Settings: from the file and the operator to the service, and back with a verdict.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use watchdog_protocol::control::SettingsView;
use watchdog_protocol::status::{PhaseStatus, VerdictStatus};
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Entry, Said, Seen, TestWatchdog, probe, sample};

#[test]
fn cfg_1_a_service_starts_with_the_value_of_the_configuration_over_its_defaults() {
    let wd = ready(&puppet("a", ByItself).settings("number = 7\ninner = { on = true }"));
    assert_eq!(current(&wd), json!({"word": "", "number": 7, "inner": {"on": true}}));
    let view = view(&wd);
    assert_eq!(view.revision.get(), 1);
    assert_eq!(view.verdict, VerdictStatus::Accepted);
    assert_eq!(view.overrides, Vec::<String>::new());
}

#[test]
fn cfg_1_without_a_table_the_defaults_are_the_initial_value() {
    let wd = ready(&puppet("a", ByItself));
    assert_eq!(current(&wd), json!({"word": "", "number": 1, "inner": {"on": false}}));
}

#[test]
fn cfg_1_a_required_value_that_is_missing_is_an_error_before_anything_starts() {
    let wd = TestWatchdog::idle();
    wd.configure("", &[sample("counter")]);
    let said = wd.cli(&["run"]).with_code(78);
    assert!(said.stderr.contains("counter") && said.stderr.contains("step"), "{said}");
    let said = wd.cli(&["check"]).with_code(78);
    assert!(said.stderr.contains("step"), "{said}");
}

#[test]
fn cfg_2_settings_are_read_in_another_process_than_the_one_that_keeps_them() {
    let wd = ready(&puppet("a", ByItself).settings("word = \"over there\""));
    let (service, core) = (wd.status().of("a").process().pid, wd.core().pid);
    assert_ne!(service, core);
    assert_eq!(current(&wd)["word"], "over there");
}

#[test]
fn cfg_3_a_new_value_is_durable_when_it_is_acknowledged_and_outlives_everything() {
    let mut wd = ready(&puppet("a", ByItself).settings("number = 7"));
    set(&wd, &["number=8"]).ok();
    let view = view(&wd);
    assert_eq!((view.revision.get(), view.verdict), (2, VerdictStatus::Accepted));
    assert_eq!(view.overrides, ["number"]);
    assert_eq!(current(&wd)["number"], 8);
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    assert_eq!(current(&wd)["number"], 8);
    wd.kill_core();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(current(&wd)["number"], 8);
    wd.kill_keeper();
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(current(&wd)["number"], 8);
    assert_eq!(self::view(&wd).revision.get(), 2);

    wd.cli(&["unset", "a", "number"]).ok();
    assert_eq!(current(&wd)["number"], 7);
    assert_eq!(self::view(&wd).revision.get(), 3);
    assert_eq!(self::view(&wd).overrides, Vec::<String>::new());
}

#[test]
fn cfg_3_several_keys_change_together_or_not_at_all() {
    let wd = ready(&puppet("a", ByItself));
    set(&wd, &["number=5", "word=five", "inner.on=true"]).ok();
    assert_eq!(current(&wd), json!({"word": "five", "number": 5, "inner": {"on": true}}));
    assert_eq!(view(&wd).revision.get(), 2);
    let said = set(&wd, &["word=six", "number=1001"]);
    assert_ne!(said.code, 0, "{said}");
    assert_eq!(current(&wd)["word"], "five");
    assert_eq!(view(&wd).revision.get(), 2);
}

#[test]
fn cfg_3_a_value_against_the_schema_is_refused_with_what_where_and_what_is_expected() {
    let wd = ready(&puppet("a", ByItself));
    let said = set(&wd, &["number=1001"]);
    assert_eq!(said.code, 78, "{said}");
    for word in ["a", "number", "1001", "1000", "revision 1 stays in force"] {
        assert!(said.stderr.contains(word), "{word} is not in it: {said}");
    }
    let said = set(&wd, &["nubmer=5"]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("number"), "the nearest key is not named: {said}");
    let said = set(&wd, &["number=\"text\""]);
    assert!(said.code != 0 && said.stderr.contains("number"), "{said}");
    assert_eq!(current(&wd)["number"], 1);
    assert_eq!(view(&wd).revision.get(), 1);
}

#[test]
fn cfg_3_a_wrong_value_in_the_file_points_at_its_line_and_column() {
    let wd = TestWatchdog::idle();
    wd.configure("", &[puppet("a", ByItself).settings("word = \"x\"\nnumber = 0")]);
    let text = std::fs::read_to_string(wd.path("watchdog.toml")).expect("the file");
    let line = text.lines().position(|line| line == "number = 0").expect("the line") + 1;
    let said = wd.cli(&["check"]).with_code(78);
    assert!(said.stderr.contains(&format!("watchdog.toml:{line}:")), "{said}");
    assert!(said.stderr.contains("number"), "{said}");
}

#[test]
fn cfg_4_each_new_value_is_yielded_and_asking_for_the_next_event_accepts_it() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    let next = a.begin(Order::Next);
    set(&wd, &["number=3", "--no-wait"]).ok();
    assert_eq!(next.shown(), Shown::SettingsUpdated);
    assert_eq!(current(&wd)["number"], 3);
    assert!(wd.status().of("a").settings_are(VerdictStatus::Pending));
    let next = a.begin(Order::Next);
    wd.until("it is accepted", |seen| seen.of("a").settings_are(VerdictStatus::Accepted));
    set(&wd, &["number=4", "--no-wait"]).ok();
    assert_eq!(next.shown(), Shown::SettingsUpdated);
    assert_eq!(current(&wd)["number"], 4);
}

#[test]
fn cfg_4_the_current_value_changes_only_when_it_is_yielded_and_never_to_an_older_one() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    for number in 3..=6 {
        set(&wd, &[&format!("number={number}"), "--no-wait"]).ok();
    }
    assert_eq!(current(&wd)["number"], 2);
    let mut last = 2;
    while last < 6 {
        assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
        let number = current(&wd)["number"].as_u64().expect("a number");
        assert!(number > last, "{number} after {last}");
        last = number;
    }
    let mut nothing = a.begin(Order::Next);
    wd.until("the last one is accepted", |seen| {
        let settings = seen.of("a").settings.clone().expect("it has settings");
        settings.verdict == VerdictStatus::Accepted && settings.waiting == 0
    });
    assert!(nothing.is_open());
}

#[test]
fn cfg_5_the_initial_value_is_no_update() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    let next = a.begin(Order::Next);
    // Were there one, it would come before what is told after it: settings go before messages.
    a.does(Order::Tell { to: "a".into(), text: "to myself".into(), deadline: None });
    match next.shown() {
        Shown::Message(heard) => assert_eq!(heard.text, "to myself"),
        other => panic!("{other:?}"),
    }
    let killed = wd.kill("a", Signal::SIGKILL);
    a.does(Order::Ready);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    match a.order(Order::Next) {
        Shown::Message(heard) => assert!(heard.redelivered),
        other => panic!("after a restart: {other:?}"),
    }
}

#[test]
fn a_service_refuses_with_a_reason_and_the_values_before_stay() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    let operator = wd.operator();
    let setting = std::thread::spawn(move || operator.run(&["set", "a", "number=3"]));
    assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
    assert_eq!(current(&wd)["number"], 3);
    a.does(Order::Refuse { reason: "three is a crowd".into() });
    assert_eq!(current(&wd)["number"], 2);
    let said = setting.join().expect("the operator has an answer");
    assert_ne!(said.code, 0, "{said}");
    assert!(said.stderr.contains("three is a crowd"), "{said}");
    // A new revision with the old values.
    let view = view(&wd);
    assert_eq!(view.revision.get(), 3);
    assert_eq!(values(&view)["number"], 2);
    assert_eq!(
        wd.status().of("a").settings.as_ref().and_then(|s| s.refused.clone()).as_deref(),
        Some("three is a crowd")
    );
    let killed = wd.kill("a", Signal::SIGKILL);
    a.does(Order::Ready);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    assert_eq!(current(&wd)["number"], 2);
}

#[test]
fn a_service_that_dies_of_a_pending_revision_starts_with_the_last_accepted_one() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    set(&wd, &["number=3", "--no-wait"]).ok();
    assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is there", |seen| seen.of("a").incarnation > killed && seen.of("a").pid.is_some());
    assert_eq!(current(&wd)["number"], 2);
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(values(&view(&wd))["number"], 2);
}

#[test]
fn initial_settings_that_are_refused_fall_back_to_the_last_accepted_revision() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    wd.cli(&["stop", "a"]).ok();
    let said = set(&wd, &["number=3"]);
    assert!(wd.status().of("a").settings_are(VerdictStatus::Pending), "{said}");
    wd.cli(&["start", "a", "--no-wait"]).ok();
    assert_eq!(current(&wd)["number"], 3);
    let refused = wd.status().of("a").incarnation;
    a.does(Order::Refuse { reason: "not that".into() });
    assert_eq!(a.fails(Order::Ready), "Refused");
    a.begin(Order::Exit { code: 78 });
    wd.until("the next one is there", |seen| {
        seen.of("a").incarnation > refused && seen.of("a").pid.is_some()
    });
    assert_eq!(current(&wd)["number"], 2);
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
}

#[test]
fn initial_settings_that_are_refused_without_one_before_are_a_failure_that_says_so() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand).settings("number = 2")]);
    let a = wd.puppet("a");
    a.does(Order::Refuse { reason: "never that".into() });
    assert_eq!(a.fails(Order::Ready), "Refused");
    a.begin(Order::Exit { code: 78 });
    let seen = wd.until("it is failed", |seen| seen.of("a").is(PhaseStatus::Failed));
    assert_eq!(seen.of("a").cause(), "settings");
    assert!(seen.of("a").why().contains("never that"), "{}", seen.of("a").why());
    assert_eq!(seen.of("a").starts, 1);
}

#[test]
fn a_change_while_the_core_dies_is_applied_once_and_not_lost() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    set(&wd, &["number=3", "--no-wait"]).ok();
    wd.kill_core();
    assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
    assert_eq!(current(&wd)["number"], 3);
    let mut nothing = a.begin(Order::Next);
    wd.until("it is accepted", |seen| seen.of("a").settings_are(VerdictStatus::Accepted));
    assert_eq!(view(&wd).revision.get(), 2);
    assert!(nothing.is_open());
}

#[test]
fn a_change_for_a_service_that_is_down_is_pending_until_it_starts() {
    let wd = ready(&puppet("a", ByItself).settings("number = 2"));
    wd.cli(&["stop", "a"]).ok();
    let said = set(&wd, &["number=3"]);
    assert!((said.stdout + &said.stderr).contains("pending"));
    assert_eq!(view(&wd).verdict, VerdictStatus::Pending);
    wd.cli(&["start", "a"]).ok();
    wd.until("it is accepted", |seen| seen.of("a").settings_are(VerdictStatus::Accepted));
    assert_eq!(current(&wd)["number"], 3);
}

#[test]
fn a_service_without_settings_needs_no_ceremony() {
    let wd = TestWatchdog::run(&[probe("p", "mirror", &[]), sample("counter").settings("step = 1")]);
    wd.until("both are ready", Seen::all_ready);
    assert!(wd.status().of("p").settings.is_none());
    assert_ne!(wd.cli(&["set", "p", "x=1"]).code, 0);
}

fn ready(entry: &Entry) -> TestWatchdog {
    let wd = TestWatchdog::run(std::slice::from_ref(entry));
    wd.until("it is ready", Seen::all_ready);
    wd
}

fn by_hand(settings: &str) -> TestWatchdog {
    let wd = TestWatchdog::run(&[puppet("a", ByHand).settings(settings).key("restart_delay = \"0s\"")]);
    wd.puppet("a").does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    wd
}

fn set(wd: &TestWatchdog, changes: &[&str]) -> Said {
    wd.cli(&[&["set", "a"], changes].concat())
}

/// The values as the service sees them.
fn current(wd: &TestWatchdog) -> Value {
    serde_json::from_str(&wd.puppet("a").text(Order::Settings)).expect("settings are JSON")
}

/// The settings as the watchdog keeps them.
fn view(wd: &TestWatchdog) -> SettingsView {
    wd.cli(&["get", "a", "--json"]).ok().json()
}

fn values(view: &SettingsView) -> Value {
    serde_json::from_str(&view.json).expect("settings are JSON")
}
