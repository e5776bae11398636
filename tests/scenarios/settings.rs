//! Settings: from the file and the operator to the service, and back with a verdict.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::{Value, json};
use watchdog_protocol::Revision;
use watchdog_protocol::control::{
    Caller, RevisionAuthor, RevisionRecord, RevisionVerdict, SetOutcome, SettingsView, ValueOrigin,
};
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

#[test]
fn cfg_3_the_history_says_who_what_and_what_became_of_it_and_outlives_everything() {
    let mut wd = by_hand("number = 2");
    let a = wd.puppet("a");
    let operator = || Caller::Operator { uid: Uid::current().as_raw() };
    set(&wd, &["number=3", "inner.on=true", "--no-wait"]).ok();
    assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
    assert_eq!(history(&wd)[1].verdict, RevisionVerdict::Pending);
    a.does(Order::Refuse { reason: "three is a crowd".into() });
    wd.until("the values before are in force", |seen| {
        seen.of("a").settings.as_ref().is_some_and(|settings| settings.revision.get() == 3)
    });
    wd.until_some("status says so", || {
        let said = wd.cli(&["status", "a"]).ok().stdout;
        said.contains("revision 3, in force; the change before was refused: three is a crowd").then_some(())
    });
    let said = wd.cli(&["get", "a"]).ok().stdout;
    assert!(said.starts_with("# a: revision 3, in force with the values of before; "), "{said}");
    set(&wd, &["word=x", "--no-wait"]).ok();
    assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
    let _accepts = a.begin(Order::Next);
    wd.until("it is accepted", |seen| seen.of("a").settings_are(VerdictStatus::Accepted));
    let set_by = |by| RevisionAuthor::Set { by };
    let refused = RevisionVerdict::Refused { reason: "three is a crowd".into() };
    let fallback = RevisionAuthor::Fallback { refused: Revision::from_stored(2) };
    let expected = [
        (1, RevisionAuthor::File, "number: - 2", RevisionVerdict::Applied),
        (2, set_by(operator()), "number: 2 3, inner: - {\"on\":true}", refused),
        (3, fallback, "number: 3 2, inner: {\"on\":true} -", RevisionVerdict::Applied),
        (4, set_by(operator()), "word: - \"x\"", RevisionVerdict::Applied),
    ]
    .map(|(number, by, changes, verdict)| (number, by, changes.to_owned(), verdict));
    let as_expected = |wd: &TestWatchdog| {
        let found = history(wd);
        assert!(found.iter().all(|one| one.at_us.is_some()));
        let found = found.into_iter().map(|one| {
            let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let changes = one.changes.iter();
            let changes =
                changes.map(|one| format!("{}: {} {}", one.path, said(&one.before), said(&one.after)));
            (one.revision.get(), one.by, changes.collect::<Vec<_>>().join(", "), one.verdict)
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    };
    as_expected(&wd);
    let said = wd.cli(&["history", "a"]).ok().stdout;
    for words in ["by the file", "refused: three is a crowd", "fallback after 2", "number: 2 → 3"] {
        assert!(said.contains(words), "{words} is not in it: {said}");
    }

    let killed = wd.kill("a", Signal::SIGKILL);
    a.does(Order::Ready);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    as_expected(&wd);
    wd.kill_core();
    as_expected(&wd);
    wd.kill_keeper();
    wd.run_again();
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    as_expected(&wd);
}

#[test]
fn cfg_3_of_many_revisions_the_history_has_the_newest_fifty() {
    let wd = ready(&puppet("a", ByItself));
    for number in 2..=60 {
        set(&wd, &[&format!("number={number}")]).ok();
    }
    let numbers: Vec<_> = history(&wd).iter().map(|one| one.revision.get()).collect();
    assert_eq!(numbers, (11..=60).collect::<Vec<_>>());
    let said = wd.cli(&["rollback", "a", "--to", "10"]).with_code(2);
    assert!(
        said.stderr.contains("revision 10 is not in its history") && said.stderr.contains("11-60"),
        "{said}"
    );
    wd.cli(&["rollback", "a", "--to", "11"]).ok();
    assert_eq!(current(&wd)["number"], 11);
}

#[test]
fn cfg_3_a_rollback_is_applied_live_as_a_new_revision() {
    let wd = ready(&puppet("a", ByItself).settings("number = 2"));
    let process = wd.status().of("a").process().pid;
    set(&wd, &["number=3"]).ok();
    set(&wd, &["number=4", "word=x"]).ok();
    let said = wd.cli(&["rollback", "a"]).ok();
    assert!(said.stdout.contains("revision 4") && said.stdout.contains("of revision 2"), "{said}");
    assert_eq!(current(&wd), json!({"word": "", "number": 3, "inner": {"on": false}}));
    // Once more undoes it.
    wd.cli(&["rollback", "a"]).ok();
    assert_eq!((&current(&wd)["number"], &current(&wd)["word"]), (&json!(4), &json!("x")));
    let outcome: SetOutcome = wd.cli(&["rollback", "a", "--to", "1", "--json"]).ok().json();
    assert_eq!((outcome.revision.get(), outcome.back_to), (6, Some(Revision::FIRST)));
    assert_eq!(outcome.verdict, VerdictStatus::Accepted);
    assert_eq!(current(&wd)["number"], 2);
    assert_eq!(view(&wd).overrides, Vec::<String>::new(), "the file says it");
    assert_eq!(wd.status().of("a").process().pid, process, "without a restart");

    let newest = history(&wd).pop().expect("there is one");
    assert!(matches!(newest.by, RevisionAuthor::Rollback { to: Revision::FIRST, .. }), "{newest:?}");
    let said = wd.cli(&["rollback", "a", "--to", "99"]).with_code(2);
    for words in ["a: revision 99", "1-6", "revision 6 stays in force", "watchdog history a"] {
        assert!(said.stderr.contains(words), "{words} is not in it: {said}");
    }
    assert_eq!(view(&wd).revision.get(), 6);
}

#[test]
fn cfg_3_a_rollback_may_be_refused_and_one_may_not_go_back_to_what_was_refused() {
    let wd = by_hand("number = 2");
    let a = wd.puppet("a");
    let said = wd.cli(&["rollback", "a"]).with_code(1);
    assert!(said.stderr.contains("no values before those of revision 1"), "{said}");
    set(&wd, &["number=3", "--no-wait"]).ok();
    assert_eq!(a.order(Order::Next), Shown::SettingsUpdated);
    let next = a.begin(Order::Next);
    wd.until("it is accepted", |seen| seen.of("a").settings_are(VerdictStatus::Accepted));
    let operator = wd.operator();
    let back = thread::spawn(move || operator.run(&["rollback", "a"]));
    assert_eq!(next.shown(), Shown::SettingsUpdated);
    assert_eq!(current(&wd)["number"], 2);
    a.does(Order::Refuse { reason: "never back".into() });
    let said = back.join().expect("the operator has an answer").with_code(78);
    assert!(said.stderr.contains("never back"), "{said}");
    assert_eq!((view(&wd).revision.get(), &values(&view(&wd))["number"]), (4, &json!(3)));
    let said = wd.cli(&["rollback", "a", "--to", "3"]).with_code(2);
    for words in ["revision 3 was never in force", "never back", "1-2, 4"] {
        assert!(said.stderr.contains(words), "{words} is not in it: {said}");
    }
}

#[test]
fn cfg_3_each_value_says_whether_it_is_a_default_of_the_file_or_set() {
    let wd = ready(&puppet("a", ByItself).settings("number = 7"));
    set(&wd, &["word=x"]).ok();
    let text = std::fs::read_to_string(wd.path("watchdog.toml")).expect("the file");
    let line = text.lines().position(|line| line == "number = 7").expect("the line") + 1;
    let said = wd.cli(&["get", "a", "--origin"]).ok().stdout;
    for words in [
        &format!("watchdog.toml:{line}\n"),
        "word = \"x\"  # set by revision 2\n",
        "inner.on = false  # default\n",
    ] {
        assert!(said.contains(words), "{words:?} is not in it: {said}");
    }
    let origins = |wd: &TestWatchdog| -> BTreeMap<String, ValueOrigin> {
        view(wd).values.into_iter().map(|one| (one.path, one.origin)).collect()
    };
    let found = origins(&wd);
    let place = match &found["number"] {
        ValueOrigin::File { place: Some(place) } => (place.file.ends_with("watchdog.toml"), place.line),
        other => panic!("{other:?}"),
    };
    assert_eq!(place, (true, line as u64));
    assert_eq!(found["word"], ValueOrigin::Set { revision: Some(Revision::from_stored(2)) });
    assert_eq!(found["inner.on"], ValueOrigin::Default);
    // What was set stays set by the revision that set it, whatever else is, and until it is unset.
    set(&wd, &["number=8"]).ok();
    assert_eq!(origins(&wd)["word"], ValueOrigin::Set { revision: Some(Revision::from_stored(2)) });
    wd.cli(&["unset", "a", "word", "number"]).ok();
    let expected = found.into_iter().map(|(path, origin)| match &*path {
        "word" => (path, ValueOrigin::Default),
        _ => (path, origin),
    });
    assert_eq!(origins(&wd), expected.collect());
    let said = wd.cli(&["get", "a", "inner", "--origin"]).ok().stdout;
    assert_eq!(said, "inner.on = false  # default\n");
}

#[test]
fn cfg_3_of_eight_who_change_the_same_revision_at_once_one_wins() {
    let wd = ready(&puppet("a", ByItself));
    for on in 1..=5 {
        let operator = wd.operator();
        let said: Vec<Said> = thread::scope(|scope| {
            let write = |writer: u64| {
                let (operator, change) = (operator.clone(), format!("number={}", on * 10 + writer));
                scope.spawn(move || operator.run(&["set", "a", &change, "--if-revision", &on.to_string()]))
            };
            let writers: Vec<_> = (0..8).map(write).collect();
            writers.into_iter().map(|writer| writer.join().expect("it has an answer")).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = said.into_iter().partition(|said| said.code == 0);
        assert_eq!(won.len(), 1, "{won:?} {lost:?}");
        for said in lost {
            let said = said.with_code(75);
            assert!(said.stderr.contains(&format!("was to follow revision {on}, but")), "{said}");
        }
        assert_eq!(view(&wd).revision.get(), on + 1);
        let set = current(&wd)["number"].to_string();
        assert!(won[0].command.contains(&format!("number={set} ")), "{set} is in force: {won:?}");
    }
    for verb in [&["unset", "a", "number"][..], &["rollback", "a"]] {
        let said = wd.cli(&[verb, &["--if-revision", "5"]].concat()).with_code(75);
        for words in ["revision 6 is the newest", "nothing was changed", "revision 6 stays in force"] {
            assert!(said.stderr.contains(words), "{words} is not in it: {said}");
        }
    }
    assert_eq!(view(&wd).revision.get(), 6);
    wd.cli(&["rollback", "a", "--to", "1", "--if-revision", "6"]).ok();
    wd.cli(&["set", "a", "word=x", "--if-revision", "7"]).ok();
    wd.cli(&["unset", "a", "word", "--if-revision", "8"]).ok();
    assert_eq!(current(&wd), json!({"word": "", "number": 1, "inner": {"on": false}}));
}

#[test]
fn cfg_3_a_service_changes_settings_and_goes_back_as_far_as_its_grant_goes() {
    let grant = "control = [\"set:a\", \"rollback:a\", \"history:*\"]";
    let wd = TestWatchdog::run(&[
        puppet("a", ByItself),
        puppet("b", ByItself),
        puppet("chief", ByItself).key(grant),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let chief = wd.puppet("chief");
    let set =
        |service: &str| Order::Set { service: service.into(), path: "number".into(), value: "5".into() };
    let back = |service: &str| Order::RollBack { service: service.into(), to: 1 };
    assert_eq!(chief.text(set("a")), "2");
    assert_eq!(chief.text(back("a")), "3");
    for order in [set("b"), back("b")] {
        assert_eq!(chief.fails(order), "Refused");
    }
    assert_eq!(chief.text(Order::CountRevisions { service: "b".into() }), "1");
    let authors: Vec<_> = history(&wd).into_iter().map(|one| one.by).collect();
    let by = || Caller::Service { name: "chief".parse().expect("a name") };
    let rollback = RevisionAuthor::Rollback { by: by(), to: Revision::FIRST };
    assert_eq!(authors, [RevisionAuthor::File, RevisionAuthor::Set { by: by() }, rollback]);
}

/// What one looked at: a revision and a value of it, in the order of looking.
type Looked = Vec<(Revision, String)>;

#[test]
fn cfg_3_a_thousand_changes_by_eight_writers_under_load_come_in_one_order_for_all() {
    const WRITERS: usize = 8;
    const EACH: usize = 125;
    let wd = TestWatchdog::run(&[puppet("a", ByItself), puppet("b", ByItself)]);
    wd.until("both are ready", Seen::all_ready);
    let done = AtomicBool::new(false);
    let written = |writer: usize| -> Looked {
        let operator = wd.operator();
        let set = |n: usize| {
            let word = format!("{writer}-{n}");
            let said = operator.run(&["set", "a", &format!("word={word}"), "--json"]);
            if said.code == 75 && said.stderr.contains("not done in time") {
                return None; // a slow disk: it is made all the same, and counted below
            }
            let outcome: SetOutcome = said.ok().json();
            // One that is still pending after its wait has no revision of its own to tell yet.
            (outcome.verdict == VerdictStatus::Accepted).then_some((outcome.revision, word))
        };
        (0..EACH).filter_map(set).collect()
    };
    let until_done = |look: &dyn Fn()| {
        while !done.load(Ordering::Relaxed) {
            look();
        }
    };
    let (writers, shown, held): (Vec<Looked>, Looked, Vec<String>) = thread::scope(|scope| {
        // A full lane is load as well.
        let load = scope.spawn(|| {
            until_done(&|| drop(wd.puppet("b").order(Order::TellMany { to: "a".into(), count: 500 })));
        });
        let shown = scope.spawn(|| {
            let looks = std::cell::RefCell::new(Looked::new());
            until_done(&|| {
                let view = view(&wd);
                let word = values(&view)["word"].as_str().expect("a text").to_owned();
                looks.borrow_mut().push((view.revision, word));
            });
            looks.into_inner()
        });
        let held = scope.spawn(|| {
            let looks = std::cell::RefCell::new(Vec::new());
            until_done(&|| {
                looks.borrow_mut().push(current(&wd)["word"].as_str().expect("a text").to_owned());
            });
            looks.into_inner()
        });
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || written(writer))).collect();
        let writers: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        load.join().expect("it only tells");
        let looked = (shown.join().expect("it looks"), held.join().expect("it looks"));
        (writers.into_iter().map(|writer| writer.expect("it writes")).collect(), looked.0, looked.1)
    });
    wd.until("all are accepted", |seen| {
        let settings = seen.of("a").settings.clone().expect("it has settings");
        settings.verdict == VerdictStatus::Accepted && settings.waiting == 0
    });

    // The model: each change is one revision, and all who look see them in this order.
    let grows = |looks: &[Revision]| looks.windows(2).all(|pair| pair[0] <= pair[1]);
    let mut model: BTreeMap<Revision, String> = BTreeMap::from([(Revision::FIRST, String::new())]);
    for looked in &writers {
        assert!(grows(&looked.iter().map(|(revision, _)| *revision).collect::<Vec<_>>()), "{looked:?}");
        for (revision, word) in looked {
            let other = model.insert(*revision, word.clone());
            assert_eq!(other, None, "two changes are revision {revision}");
        }
    }
    assert!(grows(&shown.iter().map(|(revision, _)| *revision).collect::<Vec<_>>()), "{shown:?}");
    for (revision, word) in &shown {
        let known = model.entry(*revision).or_insert_with(|| word.clone());
        assert_eq!(known, word, "revision {revision} has two values");
    }
    let revision_of: BTreeMap<&str, Revision> =
        model.iter().map(|(revision, word)| (&**word, *revision)).collect();
    let held: Vec<_> = held.iter().filter_map(|word| revision_of.get(&**word)).copied().collect();
    assert!(grows(&held), "the service went back: {held:?}");

    let last = view(&wd);
    assert_eq!(last.revision.get(), 1 + (WRITERS * EACH) as u64, "one revision a change");
    assert_eq!(current(&wd), values(&last), "the last one arrived");
    let newest = history(&wd);
    assert_eq!(newest.len(), 50);
    let mut before = None;
    for one in newest {
        assert_eq!((one.verdict, one.changes.len()), (RevisionVerdict::Applied, 1));
        let change = &one.changes[0];
        assert!(before.is_none() || before == change.before, "{change:?} after {before:?}");
        let word = change.after.as_ref().map(|text| serde_json::from_str::<String>(text).expect("a text"));
        assert!(model.get(&one.revision).is_none_or(|known| Some(known) == word.as_ref()), "{change:?}");
        before.clone_from(&change.after);
    }
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

/// The newest revisions, oldest first.
fn history(wd: &TestWatchdog) -> Vec<RevisionRecord> {
    wd.cli(&["history", "a", "--json"]).ok().json()
}
