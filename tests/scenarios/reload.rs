//! Another configuration while everything runs: what differs, what is done about it, and what stays as it was.

mod death;

use std::fs;
use std::thread;

use nix::sys::signal::Signal;
use watchdog_protocol::audit::AuditRecord;
use watchdog_protocol::plan::{Deed, Plan, Way};
use watchdog_protocol::status::{PhaseStatus, VerdictStatus};
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Entry, Said, Seen, TestWatchdog, binary, probe, program};

/// Puts these in force, and gives what was said.
#[track_caller]
fn reloaded(wd: &TestWatchdog, entries: &[Entry]) -> Said {
    wd.configure("", entries);
    wd.cli(&["reload"]).ok()
}

fn running(entries: &[Entry]) -> TestWatchdog {
    let wd = TestWatchdog::run(entries);
    wd.until("all are ready", Seen::all_ready);
    wd
}

/// What differs, by `watchdog diff`.
fn differing(wd: &TestWatchdog) -> Plan {
    wd.cli(&["diff", "--json"]).with_code(1).json()
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.services.iter().map(|service| service.name.as_str()).collect()
}

#[test]
fn diff_says_what_differs_by_its_exit_code_too_and_changes_nothing() {
    let wd = running(&[puppet("a", ByItself), probe("b", "mirror", &[])]);
    wd.cli(&["diff"]).ok();
    wd.configure(
        "log_files = 7",
        &[
            puppet("a", ByItself).key("stop_timeout = \"3s\"").settings("number = 2"),
            probe("b", "mirror", &["more"]),
            probe("c", "mirror", &[]),
        ],
    );
    let plan = differing(&wd);
    let deeds: Vec<_> = plan.services.iter().map(|it| (it.service.as_str(), it.deed)).collect();
    assert_eq!(deeds, [("a", Deed::Live), ("b", Deed::Restart), ("c", Deed::Add)]);
    let fields: Vec<_> =
        plan.services[0].fields.iter().map(|field| (field.field.as_str(), field.way)).collect();
    assert_eq!(fields, [("stop_timeout", Way::Live), ("settings.number", Way::Live)]);
    assert_eq!(plan.services[0].fields[0].running.as_deref(), Some("10s"));
    assert_eq!(plan.watchdog[0].field, "log_files");
    let said = wd.cli(&["diff", "b"]).with_code(1).stdout;
    assert!(said.starts_with("b: restart\n  exec: ") && !said.contains("a:"), "{said}");
    let said = wd.cli(&["diff", "bb"]).with_code(2);
    assert!(said.stderr.contains("did you mean `b`?"), "{said}");
    let said = wd.cli(&["reload", "--dry-run"]).ok().stdout;
    assert!(said.contains("c: add"), "{said}");
    let seen = wd.status();
    assert_eq!(names(&seen), ["a", "b"]);
    assert!(seen.services.iter().all(|service| service.starts == 1));
    // A short mark says that there is something to see.
    assert!(seen.of("a").drift && seen.of("b").drift);
    assert!(seen.watchdog.notes.iter().any(|note| note.contains("differs from what is in force")));
    let said = wd.cli(&["status"]).ok().stdout;
    assert!(said.contains("ready, differs"), "{said}");
    assert_eq!(differing(&wd), plan);
    wd.cli(&["reload"]).ok();
    let seen = wd.status();
    assert!(!seen.services.iter().any(|service| service.drift), "{seen:?}");
    assert!(!seen.watchdog.notes.iter().any(|note| note.contains("differs")));
}

#[test]
fn what_changed_live_goes_on_and_what_must_restart_keeps_all_it_has() {
    let wd = running(&[puppet("live", ByItself), puppet("anew", ByItself), probe("other", "mirror", &[])]);
    wd.puppet("anew").does(Order::Update { text: "kept".into() });
    let before = wd.status();
    reloaded(
        &wd,
        &[
            puppet("live", ByItself).key("restart_limit = \"off\"").key("use = []").settings("number = 7"),
            puppet("anew", ByItself).env("MODE", "fast").settings("number = 8"),
            probe("other", "mirror", &[]),
        ],
    );
    let seen = wd.status();
    for name in ["live", "other"] {
        assert_eq!(seen.of(name).pid, before.of(name).pid, "{name} goes on");
    }
    assert!(seen.of("anew").is_ready_after(before.of("anew").incarnation));
    assert!(seen.of("anew").last_end.as_ref().is_some_and(|end| end.why.contains("reload")));
    assert_eq!(wd.puppet("anew").text(Order::State), "kept");
    assert!(wd.puppet("anew").text(Order::Settings).contains("\"number\":8"));
    // The command came back when it was applied.
    assert!(wd.puppet("live").text(Order::Settings).contains("\"number\":7"));
    assert!(seen.of("live").settings_are(VerdictStatus::Accepted));
    assert_eq!(wd.puppet("live").fails(Order::Intercom { to: "anew".into() }), "Denied");
    let environ = fs::read(format!("/proc/{}/environ", seen.of("anew").process().pid)).expect("it runs");
    assert!(String::from_utf8_lossy(&environ).split('\0').any(|pair| pair == "MODE=fast"));
    wd.cli(&["diff"]).ok();
}

#[test]
fn a_file_with_anything_wrong_in_it_changes_nothing_at_all() {
    let wd = running(&[puppet("a", ByItself), probe("b", "mirror", &[])]);
    let kept = || fs::read_to_string(wd.path(".watchdog/run/watchdog.toml")).expect("it is kept");
    let (before, in_force) = (wd.status(), kept());
    wd.configure("", &[probe("b", "mirror", &["changed"]), probe("c", "mirror", &[])]);
    let good = fs::read_to_string(wd.path("watchdog.toml")).expect("it is there");
    for (wrong, says) in [
        ("[program.d\n", "error: "),
        ("[program.d]\nexec = [\"sleep\", \"9\"]\nrestrat = \"never\"\n", "unknown key `restrat`"),
        ("[program.d]\nexec = [\"sleep\", \"9\"]\nrequires = [\"cc\"]\n", "there is no such service"),
        ("[program.d]\nexec = [\"sleep\", \"9\"]\nafter = [\"d\"]\n", "these wait for each other: d → d"),
        ("[program.d]\nexec = [\"/no/such/program\"]\n", "d: cannot read /no/such/program"),
        ("[program.d]\nexec = [\"no-such-program\"]\n", "there is no program `no-such-program` in PATH"),
        ("[program.d]\nexec = [\"/etc/passwd\"]\n", "d: /etc/passwd can't be executed: chmod +x it"),
        ("[service.d]\nexec = [\"/bin/true\"]\n", "was asked to describe itself"),
        (
            "[program.d]\nexec = [\"sleep\", \"9\"]\nuser = \"nobody-here\"\n",
            "there is no user `nobody-here`",
        ),
        ("[program.c]\nexec = [\"sleep\", \"9\"]\n", "`c` is given twice"),
    ] {
        fs::write(wd.path("watchdog.toml"), format!("{good}{wrong}")).expect("the folder can be written");
        let said = wd.cli(&["reload"]).with_code(78);
        assert!(said.stderr.contains(says), "{wrong}: {said}");
        wd.cli(&["diff"]).with_code(78);
    }
    // Both places of what is there twice, each with its line.
    let said = wd.cli(&["reload"]).with_code(78).stderr;
    let lines = good.lines().collect::<Vec<_>>();
    let first = lines.iter().position(|line| *line == "[program.c]").expect("it is there") + 1;
    let file = wd.path("watchdog.toml").display().to_string();
    assert!(said.contains(&format!("{file}:{}:", lines.len() + 1)), "{said}");
    assert!(said.contains(&format!("the first one is at {file}:{first}:")), "{said}");
    wd.configure("state = \"elsewhere\"", &[puppet("a", ByItself)]);
    let said = wd.cli(&["reload"]).with_code(78).stderr;
    assert!(said.contains("[watchdog] state can't change while it runs"), "{said}");
    let said = wd.cli(&["reload", "--dry-run"]).ok().stdout;
    assert!(said.contains("(never)"), "{said}");
    wd.configure("", &[puppet("a", ByItself).settings("number = 5000"), probe("b", "mirror", &[])]);
    let said = wd.cli(&["reload"]).with_code(78).stderr;
    assert!(
        said.contains("a: number = 5000, expected 1 to 1000") && said.contains("nothing was changed"),
        "{said}"
    );
    let seen = wd.status();
    assert_eq!(names(&seen), ["a", "b"]);
    for name in ["a", "b"] {
        assert_eq!((seen.of(name).pid, seen.of(name).starts), (before.of(name).pid, 1));
    }
    assert_eq!(kept(), in_force);
}

#[test]
fn what_was_set_stays_over_the_file_and_must_fit_it() {
    let wd = running(&[puppet("a", ByItself).settings("number = 1\nword = \"x\"")]);
    wd.cli(&["set", "a", "number=9"]).ok();
    let said = reloaded(&wd, &[puppet("a", ByItself).settings("number = 2\nword = \"y\"")]).stdout;
    assert!(said.contains("settings.number: 1 → 2") && said.contains("`watchdog unset a number`"), "{said}");
    let now = wd.puppet("a").text(Order::Settings);
    assert!(now.contains("\"number\":9") && now.contains("\"word\":\"y\""), "{now}");
    wd.cli(&["unset", "a", "number"]).ok();
    assert!(wd.puppet("a").text(Order::Settings).contains("\"number\":2"));
    assert_eq!(wd.status().of("a").starts, 1);
}

#[test]
fn what_is_gone_ends_with_time_to_save_and_finds_all_of_it_when_it_is_back() {
    let all = [puppet("a", ByItself), puppet("b", ByItself).key("requires = [\"a\"]"), puppet("c", ByItself)];
    let wd = running(&all);
    wd.puppet("a").does(Order::Update { text: "precious".into() });
    wd.cli(&["set", "a", "number=5"]).ok();
    let said = reloaded(&wd, &[puppet("c", ByItself)]).stdout;
    assert!(said.contains("a: remove") && said.contains("to drop it: rm "), "{said}");
    assert!(said.contains("a.snapshot") || said.contains("a.record"), "{said}");
    assert_eq!(names(&wd.status()), ["c"]);
    // Whoever requires it goes first.
    assert!(wd.last_event("removed", "b") < wd.last_event("removed", "a"));
    assert!(wd.last_event("ended", "b") < wd.last_event("stopping", "a"));
    assert!(wd.path(".watchdog/state/a.snapshot").exists());
    let said = wd.cli(&["status", "a"]).with_code(2);
    assert!(said.stderr.contains("no service `a`"), "{said}");
    reloaded(&wd, &all);
    wd.until("all are ready", Seen::all_ready);
    assert_eq!(wd.puppet("a").text(Order::State), "precious");
    assert!(wd.puppet("a").text(Order::Settings).contains("\"number\":5"));
    assert!(wd.status().of("a").incarnation.get() > 1, "numbers only grow");
}

#[test]
fn a_stop_is_sticky_what_is_done_is_done_and_scaled_stays_scaled() {
    let task = |arg: &str| program("task", &["sh", "-c", "echo ran >> runs", arg]).once();
    let entries = |arg: &str, instances: u32| {
        [
            probe("stopped", "mirror", &[arg]),
            task(arg),
            probe("worker", "mirror", &[arg]).key(&format!("instances = {instances}")),
        ]
    };
    let wd = TestWatchdog::run(&entries("x", 3));
    wd.until("the task is done", |seen| seen.of("task").is(PhaseStatus::Completed));
    wd.cli(&["stop", "stopped"]).ok();
    wd.cli(&["scale", "worker", "2"]).ok();
    let said = reloaded(&wd, &entries("y", 4)).stdout;
    assert!(said.contains("stays down: stop by") && said.contains("is done, and not run again"), "{said}");
    let seen = wd.status();
    assert!(seen.of("stopped").is(PhaseStatus::Stopped) && seen.of("task").is(PhaseStatus::Completed));
    assert!(seen.of("worker@2").is_ready() && seen.of("worker@2").starts == 2);
    assert!(seen.of("worker@3").pid.is_none() && seen.of("worker@4").pid.is_none());
    assert_eq!(fs::read_to_string(wd.path("runs")).expect("it ran"), "ran\n");
    wd.cli(&["diff"]).ok();
    // As it is configured by now.
    wd.cli(&["start", "stopped"]).ok();
    let line =
        fs::read(format!("/proc/{}/cmdline", wd.status().of("stopped").process().pid)).expect("it runs");
    assert!(line.ends_with(b"y\0"));
    wd.cli(&["scale", "worker", "4"]).ok();
    assert!(wd.status().of("worker@4").is_ready());
    // An instance less is one that is removed.
    wd.cli(&["scale", "worker", "1"]).ok();
    reloaded(&wd, &entries("y", 1));
    assert_eq!(names(&wd.status()), ["stopped", "task", "worker@1"]);
}

#[test]
fn a_program_built_anew_is_drift_that_outlives_the_core() {
    let mut wd = TestWatchdog::idle();
    let program = wd.path("puppet-copy");
    deploy(&program);
    fs::write(wd.path("script.sh"), "while :; do sleep 1000; done\n").expect("a script");
    let script = wd.path("script.sh").display().to_string();
    wd.configure("", &[puppet("a", ByItself).exec(&program), shell("s", &script)]);
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    wd.cli(&["diff"]).ok();
    deploy(&program);
    fs::write(wd.path("script.sh"), "while :; do sleep 1001; done\n").expect("a script");
    wd.kill_core();
    assert!(["a", "s"].iter().all(|name| wd.status().of(name).drift));
    let plan = differing(&wd);
    let drift: Vec<_> =
        plan.services.iter().map(|it| (it.service.as_str(), it.fields[0].field.as_str())).collect();
    assert_eq!(drift, [("a", "program"), ("s", "program")]);
    let before = wd.status();
    wd.cli(&["reload"]).ok();
    let seen = wd.status();
    assert!(["a", "s"].iter().all(|name| seen.of(name).is_ready_after(before.of(name).incarnation)));
    wd.cli(&["diff"]).ok();
}

/// A new build of the puppet takes the place of what is there.
fn deploy(program: &std::path::Path) {
    let new = program.with_extension("new");
    fs::copy(binary("probe-puppet"), &new).expect("the copy");
    fs::rename(&new, program).expect("in its place");
}

fn shell(name: &str, path: &str) -> Entry {
    program(name, &["sh", path])
}

#[test]
fn what_becomes_something_else_begins_anew_under_its_name() {
    let wd = running(&[puppet("a", ByItself), probe("b", "mirror", &[])]);
    wd.puppet("a").does(Order::Update { text: "of a service".into() });
    let said = reloaded(&wd, &[probe("a", "mirror", &[]), puppet("b", ByItself)]).stdout;
    assert!(said.contains("a: recreate\n  kind: service → program (recreate)"), "{said}");
    let seen = wd.status();
    assert!(seen.of("a").settings.is_none() && seen.of("b").settings.is_some() && seen.all_ready());
    reloaded(&wd, &[puppet("a", ByItself), puppet("b", ByItself)]);
    wd.puppet("b").does(Order::Tell { to: "a".into(), text: "hello".into(), deadline: None });
    assert_eq!(wd.puppet("a").text(Order::State), "of a service");
}

#[test]
fn order_and_groups_are_those_of_the_new_file() {
    let wd = running(&[probe("a", "mirror", &[]), probe("b", "mirror", &[])]);
    wd.configure("", &[probe("a", "mirror", &[]), probe("b", "mirror", &[]).key("requires = [\"a\"]")]);
    let group = "[group.both]\nmembers = [\"a\", \"b\"]\nstrategy = \"one-for-all\"\n";
    let text = fs::read_to_string(wd.path("watchdog.toml")).expect("it is there");
    fs::write(wd.path("watchdog.toml"), text + group).expect("the folder can be written");
    wd.cli(&["reload"]).ok();
    let before = wd.status();
    assert!(before.services.iter().all(|service| service.starts == 1));
    wd.kill("a", Signal::SIGKILL);
    wd.until("the other one came along", |seen| {
        ["a", "b"].iter().all(|name| seen.of(name).is_ready_after(before.of(name).incarnation))
    });
    wd.cli(&["stop", "a"]).ok();
    wd.until("b is blocked", |seen| seen.of("b").blocked_by() == ["a"]);
    // Nothing holds it any more.
    reloaded(&wd, &[probe("a", "mirror", &[]), probe("b", "mirror", &[])]);
    wd.until("b is back", |seen| seen.of("b").is_ready() && seen.of("a").is(PhaseStatus::Stopped));
}

#[test]
fn a_registered_service_stays_and_one_that_is_in_the_file_too_is_the_files() {
    let wd = running(&[probe("a", "mirror", &[])]);
    let late = probe("late", "mirror", &[]).key("requires = [\"a\"]").render(wd.folder());
    fs::write(wd.path("late.toml"), late).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    wd.cli(&["diff"]).ok();
    wd.configure("", &[probe("b", "mirror", &[])]);
    let said = wd.cli(&["reload"]).with_code(78);
    assert!(said.stderr.contains("requires names `a`, and there is no such service"), "{said}");
    let before = wd.status();
    let said =
        reloaded(&wd, &[probe("a", "mirror", &[]), probe("late", "mirror", &[]).key("requires = [\"a\"]")]);
    assert!(said.stdout.contains("was registered, and is in the file now"), "{said}");
    assert_eq!(wd.status().of("late").pid, before.of("late").pid);
    assert!(!wd.path(".watchdog/state/registered/late.toml").exists());
    reloaded(&wd, &[probe("a", "mirror", &[])]);
    assert_eq!(names(&wd.status()), ["a"]);
}

#[test]
fn a_hangup_reloads_and_the_event_log_tells_what_came_of_it() {
    let wd = running(&[probe("a", "mirror", &[])]);
    wd.configure("", &[probe("a", "mirror", &[]), probe("b", "mirror", &[])]);
    wd.keeper().signal(Signal::SIGHUP);
    wd.until("it is there", |seen| seen.find("b").is_some_and(|b| b.is_ready()));
    wd.until_event("it is told", |event| event.what == "reload" && event.text.contains("1 added (b)"));
    fs::write(wd.path("watchdog.toml"), "[program.a]\nexec = 1\n").expect("the folder can be written");
    wd.keeper().signal(Signal::SIGHUP);
    let told = wd.until_event("what is wrong is told", |event| event.text.contains("nothing was changed"));
    assert!(told.text.contains("watchdog.toml:2:8: exec = 1"), "{}", told.text);
    assert_eq!(names(&wd.status()), ["a", "b"]);
    wd.configure("", &[probe("a", "mirror", &[])]);
    wd.cli(&["reload"]).ok();
}

#[test]
fn reloads_come_one_after_the_other_and_each_does_what_it_printed_or_nothing() {
    let wd = running(&[probe("a", "mirror", &[])]);
    wd.configure("", &[probe("a", "mirror", &["x"]), probe("b", "mirror", &[])]);
    let operators: Vec<_> = (0..4)
        .map(|_| {
            let operator = wd.operator();
            thread::spawn(move || operator.run(&["reload"]))
        })
        .collect();
    for said in operators.into_iter().map(|operator| operator.join().expect("no panic")) {
        said.ok();
    }
    let seen = wd.status();
    assert_eq!((seen.of("a").starts, seen.of("b").starts), (2, 1), "done once");
    let records: Vec<AuditRecord> = wd.cli(&["audit", "--json"]).ok().json();
    assert_eq!(records.iter().filter(|record| record.verb == "reload").count(), 4);
    let begun = wd.events().into_iter().filter(|event| event.what == "reload").count();
    assert_eq!(begun, 1);
}

#[test]
fn a_service_that_refuses_its_new_settings_or_fails_is_told_by_the_reload() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand)]);
    wd.puppet("a").does(Order::Ready);
    let next = wd.puppet("a").begin(Order::Next);
    wd.configure("", &[puppet("a", ByHand).settings("number = 3")]);
    let operator = wd.operator();
    let reload = thread::spawn(move || operator.run(&["reload"]));
    assert_eq!(next.shown(), watchdog_tests::puppet::Shown::SettingsUpdated);
    wd.puppet("a").does(Order::Refuse { reason: "three is too many".into() });
    let said = reload.join().expect("no panic").with_code(1);
    assert!(
        said.stderr.contains("in force, but a refused its settings")
            && said.stderr.contains("three is too many"),
        "{said}"
    );
    wd.configure(
        "",
        &[probe("b", "ender", &["7"]).key("restart_limit = \"1/60s\"").key("restart_delay = \"0s\"")],
    );
    let said = wd.cli(&["reload"]).with_code(1);
    assert!(said.stderr.contains("in force, but b failed"), "{said}");
}

#[test]
fn a_renamed_service_keeps_all_it_has_and_whoever_requires_it_waits_for_it() {
    let wd = TestWatchdog::run(&[puppet("old", ByItself), puppet("a", ByItself), puppet("b", ByHand)]);
    wd.puppet("b").does(Order::Ready);
    wd.until("all are ready", Seen::all_ready);
    let (old, a) = (wd.puppet("old"), wd.puppet("a"));
    old.does(Order::Update { text: "precious".into() });
    wd.cli(&["set", "old", "number=5"]).ok();
    a.does(Order::Tell { to: "old".into(), text: "1".into(), deadline: None });
    old.does(Order::Tell { to: "b".into(), text: "from old".into(), deadline: None });
    let before = wd.status();
    let said = reloaded(
        &wd,
        &[
            puppet("new", ByItself).key("renamed_from = \"old\""),
            puppet("a", ByItself),
            puppet("b", ByHand),
            probe("after", "mirror", &[]).key("requires = [\"new\"]"),
        ],
    );
    assert!(said.stdout.contains("new: rename of old"), "{said}");
    let seen = wd.until("all are ready", Seen::all_ready);
    assert_eq!(names(&seen), ["a", "after", "b", "new"]);
    assert!(wd.last_event("ready", "new") < wd.last_event("starting", "after"));
    assert_eq!((seen.of("a").pid, seen.of("b").pid), (before.of("a").pid, before.of("b").pid));
    assert!(seen.of("new").incarnation > before.of("old").incarnation);
    let new = wd.puppet("new");
    assert_eq!(new.text(Order::State), "precious");
    assert!(new.text(Order::Settings).contains("\"number\":5"));
    assert!(wd.cli(&["history", "new"]).ok().stdout.contains("number"));
    // Its lanes, both ways, in order: by the handles of before, and by its new name.
    new.does(Order::Tell { to: "b".into(), text: "from new".into(), deadline: None });
    assert_eq!(wd.puppet("b").next().text, "from old");
    assert_eq!(wd.puppet("b").next().text, "from new");
    a.does(Order::Tell { to: "new".into(), text: "2".into(), deadline: None });
    wd.until_some("both are heard", || (new.heard().len() == 1).then_some(()));
    let lines = wd.cli(&["logs", "new"]).ok().stdout;
    assert!(
        wd.path(".watchdog/logs/new.log").exists() && !wd.path(".watchdog/logs/old.log").exists(),
        "{lines}"
    );
    assert!(!wd.path(".watchdog/state/old.snapshot").exists());
    // The key may stay.
    wd.cli(&["diff"]).ok();
    // A stop stays one, and so does all else when the core is killed and when the watchdog is started anew.
    wd.cli(&["stop", "new", "after"]).ok();
    reloaded(&wd, &[puppet("newer", ByItself).key("renamed_from = \"new\""), puppet("a", ByItself)]);
    wd.kill_core();
    assert!(wd.status().of("newer").is(PhaseStatus::Stopped));
    wd.cli(&["start", "newer"]).ok();
    assert_eq!(wd.puppet("newer").text(Order::State), "precious");
}

#[test]
fn a_service_renamed_while_no_watchdog_ran_has_all_it_had() {
    let mut wd = running(&[puppet("old", ByItself), probe("b", "mirror", &[])]);
    wd.puppet("old").does(Order::Update { text: "precious".into() });
    wd.cli(&["set", "old", "number=5"]).ok();
    wd.cli(&["stop", "b"]).ok();
    wd.stop();
    wd.configure(
        "",
        &[
            puppet("new", ByItself).key("renamed_from = \"old\""),
            probe("c", "mirror", &[]).key("renamed_from = \"b\""),
        ],
    );
    wd.run_again();
    wd.until("it is ready", |seen| seen.of("new").is_ready());
    assert_eq!(wd.puppet("new").text(Order::State), "precious");
    assert!(wd.puppet("new").text(Order::Settings).contains("\"number\":5"));
    assert!(wd.status().of("c").is(PhaseStatus::Stopped));
    // Two can't have been one, and none another that is there.
    for other in [puppet("other", ByItself).key("renamed_from = \"old\""), puppet("old", ByItself)] {
        wd.configure("", &[puppet("new", ByItself).key("renamed_from = \"old\""), other]);
        let said = wd.cli(&["reload"]).with_code(78).stderr;
        assert!(said.contains("can't be renamed from `old`"), "{said}");
    }
    wd.configure("", &[]);
}
