//! State: what a restart does not lose.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use watchdog_protocol::control::StateView;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Entry, Rebuilt, Seen, TestWatchdog, probe, sample, service};

#[test]
fn ss_1_a_registered_service_has_a_state_before_it_ever_ran() {
    let gate = probe("gate", "listener", &["1", "/nowhere/at/all"]).key("ready = { exec = [\"false\"] }");
    let wd = TestWatchdog::run(&[gate, puppet("a", ByItself).key("requires = [\"gate\"]")]);
    let seen = wd.status();
    let state = seen.of("a").state.clone().expect("it has a state");
    assert_eq!((state.sequence.get(), state.synced.get(), state.version, state.age_ms), (0, 0, 1, None));
    assert_eq!(seen.of("a").starts, 0);
    assert!(seen.of("gate").state.is_none(), "a program has none");
}

#[test]
fn ss_2_and_3_a_state_is_read_and_changed_in_another_process_than_the_one_that_keeps_it() {
    let wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    assert_eq!(a.text(Order::State), "");
    assert_eq!(a.text(Order::Origin), "Fresh");
    a.does(Order::Update { text: "changed".into() });
    assert_eq!(a.text(Order::State), "changed");
}

#[test]
fn ss_4_the_watchdog_hears_of_an_update_and_a_save_returns_when_it_is_on_disk() {
    let wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    a.does(Order::Update { text: "one".into() });
    wd.until("it is known", |seen| {
        seen.of("a").state.as_ref().is_some_and(|state| state.sequence.get() >= 1)
    });
    a.does(Order::Update { text: "two".into() });
    a.does(Order::Save);
    // Whatever happens after it: it is on disk.
    assert!(is_kept(&wd, b"two"));
    let state = wd.status().of("a").state.clone().expect("it has a state");
    assert!(state.synced == state.sequence && state.age_ms.is_some() && state.failed.is_none(), "{state:?}");
}

#[test]
fn ss_4_an_update_is_on_disk_soon_without_a_save() {
    let wd = ready(&puppet("a", ByItself));
    wd.puppet("a").does(Order::Update { text: "soon".into() });
    wd.until_some("it is on disk", || is_kept(&wd, b"soon").then_some(()));
}

#[test]
fn ss_5_the_initial_value_is_no_update() {
    let wd = ready(&puppet("a", ByItself));
    wd.puppet("a").does(Order::Save);
    let state = wd.status().of("a").state.clone().expect("it has a state");
    assert_eq!((state.sequence.get(), state.age_ms), (0, None));
    assert!(!snapshot(&wd).exists());
}

#[test]
fn ss_a_killed_service_resumes_from_its_last_state() {
    let wd = ready(&puppet("a", ByItself).key("restart_delay = \"0s\"").key("restart_limit = \"off\""));
    let a = wd.puppet("a");
    for round in 0..5 {
        let text = format!("round {round}");
        a.does(Order::Update { text: text.clone() });
        // Known to the watchdog, not yet on disk.
        wd.until("it is known", |seen| {
            seen.of("a").state.as_ref().is_some_and(|state| state.sequence.get() > round)
        });
        let killed = wd.kill("a", Signal::SIGKILL);
        wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
        assert_eq!(a.text(Order::State), text);
        assert_eq!(a.text(Order::Origin), "Restored");
    }
}

#[test]
fn a_killed_service_resumes_from_its_last_saved_state() {
    let wd = TestWatchdog::run(&[sample("counter").settings("step = 1"), puppet("hand", ByItself)]);
    wd.until("both are ready", Seen::all_ready);
    let total = || wd.puppet("hand").text(Order::Total { to: "counter".into() });
    wd.puppet("hand").does(Order::Add { to: "counter".into(), n: 3 });
    assert_eq!(total(), "3");
    let killed = wd.kill("counter", Signal::SIGKILL);
    wd.until("counter is ready again", |seen| seen.of("counter").is_ready_after(killed));
    assert_eq!(total(), "3");
}

#[test]
fn a_saved_state_outlives_service_core_and_keeper() {
    let mut wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    a.does(Order::Update { text: "saved".into() });
    a.does(Order::Save);
    wd.kill_keeper();
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(a.text(Order::State), "saved");
}

#[test]
fn an_update_survives_the_death_of_the_core_and_then_of_the_service() {
    let wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    a.does(Order::Update { text: "first".into() });
    a.does(Order::Save);
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    a.does(Order::Update { text: "second".into() });
    let save = a.begin(Order::Save);
    core.signal(Signal::SIGKILL);
    // The new core is sent the newest state again, and the save returns.
    assert_eq!(save.shown(), watchdog_tests::puppet::Shown::Done);
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    assert_eq!(a.text(Order::State), "second");
}

#[test]
fn a_stop_saves_what_was_changed_last() {
    let mut wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    a.does(Order::Update { text: "at the end".into() });
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    let bytes = fs::read(snapshot(&wd)).expect("the file is there");
    assert!(bytes.windows(10).any(|bytes| bytes == b"at the end"));
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(a.text(Order::State), "at the end");
}

#[test]
fn a_damaged_newest_state_falls_back_to_the_one_before_and_says_so() {
    for damage in [
        &b""[..],
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"not at all a snapshot, but long enough for its header",
    ] {
        let wd = ready(&puppet("a", ByItself));
        let a = wd.puppet("a");
        for text in ["older", "newer"] {
            a.does(Order::Update { text: text.into() });
            a.does(Order::Save);
        }
        wd.cli(&["stop", "a"]).ok();
        fs::write(snapshot(&wd), damage).expect("the file can be damaged");
        wd.kill_core();
        wd.cli(&["start", "a"]).ok();
        assert_eq!(a.text(Order::State), "older");
        assert_eq!(a.text(Order::Origin), "Recovered");
        wd.until_event("it is told", |event| event.text.contains("snapshot") && event.service.is_some());
        // Set aside, not deleted.
        let kept = fs::read_dir(snapshot(&wd).parent().expect("a folder")).expect("the folder");
        let is_kept = |entry: fs::DirEntry| fs::read(entry.path()).is_ok_and(|bytes| bytes == damage);
        assert!(kept.filter_map(Result::ok).any(is_kept));
    }
}

#[test]
fn every_flipped_bit_of_a_state_is_noticed() {
    let wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    for text in ["older", "newer"] {
        a.does(Order::Update { text: text.into() });
        a.does(Order::Save);
    }
    wd.cli(&["stop", "a"]).ok();
    let said = wd.cli(&["state", "export", "a", "whole"]).ok();
    let whole = fs::read(wd.path("whole")).unwrap_or_else(|err| panic!("{err}: {said}"));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(wd.path("flipped"), flipped).expect("a file");
        assert_ne!(wd.cli(&["state", "import", "a", "flipped"]).code, 0, "byte {at}");
    }
    wd.cli(&["state", "import", "a", "whole"]).ok();
    wd.cli(&["start", "a"]).ok();
    assert_eq!(a.text(Order::State), "newer");
}

#[test]
fn a_newer_version_migrates_and_an_older_one_leaves_a_newer_state_alone() {
    let mut wd = TestWatchdog::idle();
    let program = Rebuilt::new(wd.path("program"), "probe-puppet");
    wd.configure("", &[puppet("a", ByItself).exec(program.path()).key("restart = \"never\"")]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let a = wd.puppet("a");
    a.does(Order::Update { text: "old".into() });
    wd.cli(&["stop", "a"]).ok();
    program.becomes("probe-puppet-newer");
    wd.cli(&["start", "a"]).ok();
    assert_eq!(a.text(Order::State), "old after 0 changes");
    a.does(Order::Update { text: "new".into() });
    a.does(Order::Save);
    wd.cli(&["stop", "a"]).ok();
    let before = fs::read(snapshot(&wd)).expect("the file is there");

    program.becomes("probe-puppet");
    wd.cli(&["start", "a", "--no-wait"]);
    let seen = wd.until("it is failed", |seen| seen.of("a").is(PhaseStatus::Failed));
    assert!(seen.of("a").why().contains("version 2"), "{}", seen.of("a").why());
    assert_eq!(fs::read(snapshot(&wd)).expect("the file is there"), before);

    program.becomes("probe-puppet-newer");
    wd.cli(&["start", "a"]).ok();
    assert_eq!(a.text(Order::State), "new after 1 changes");
}

#[test]
fn a_state_is_shown_as_its_program_reads_it_also_while_it_is_down_or_built_anew() {
    let mut wd = TestWatchdog::idle();
    let program = Rebuilt::new(wd.path("program"), "probe-puppet");
    wd.configure("", &[puppet("a", ByItself).exec(program.path())]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let none = wd.cli(&["state", "show", "a", "--json"]);
    assert!(none.code == 1 && none.stderr.contains("no state on disk yet"), "{none:?}");
    assert!(none.stderr.contains("hint:"), "{none:?}");

    let a = wd.puppet("a");
    a.does(Order::Update { text: "kept".into() });
    a.does(Order::Save);
    let shown: Value = wd.cli(&["state", "show", "a", "--json"]).ok().json();
    assert_eq!((&shown["version"], &shown["value"]), (&json!(1), &json!({ "text": "kept" })));

    wd.cli(&["stop", "a"]).ok();
    program.becomes("probe-puppet-newer");
    let before = fs::read(snapshot(&wd)).expect("the file is there");
    let shown: Value = wd.cli(&["state", "show", "a", "--json"]).ok().json();
    assert_eq!((&shown["version"], &shown["value"]), (&json!(1), &json!({ "changes": 0, "text": "kept" })));
    assert_eq!(fs::read(snapshot(&wd)).expect("the file is there"), before, "nothing is changed");
    let seen = wd.status();
    assert!(seen.of("a").is(PhaseStatus::Stopped) && seen.of("a").starts == 1, "nothing is started");

    // And an older program does not know what a newer one has written.
    wd.cli(&["start", "a"]).ok();
    a.does(Order::Update { text: "new".into() });
    a.does(Order::Save);
    wd.cli(&["stop", "a"]).ok();
    program.becomes("probe-puppet");
    let refused = wd.cli(&["state", "show", "a", "--json"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for part in
        ["the stored state has version 2, this program reads up to 1", "hint: the state is left as it is"]
    {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
}

#[test]
fn a_program_that_hangs_or_prints_junk_over_its_state_delays_nobody_else() {
    let wd = TestWatchdog::idle();
    let real = watchdog_tests::binary("probe-puppet");
    let pretend = |name: &str, instead: &str| {
        let script = wd.path(&format!("{name}.sh"));
        let text = format!("[ -z \"$WATCHDOG_SHOW_STATE\" ] || {instead}\nexec {}\n", real.display());
        fs::write(&script, text).expect("a script");
        service(name, &["/bin/sh", script.to_str().expect("a path of ours")])
    };
    let entries = [
        pretend("hangs", "{ echo looking >&2; exec sleep 1000; }"),
        pretend("babbles", "{ echo no JSON; exit; }"),
        pretend("dies", "kill -SEGV $$"),
    ];
    let mut wd = wd;
    wd.configure("", &entries);
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    for name in ["hangs", "babbles", "dies"] {
        wd.puppet(name).does(Order::Update { text: "kept".into() });
        wd.puppet(name).does(Order::Save);
    }
    let mut hanging = wd.operator().command(&["state", "show", "hangs", "--json"]);
    let hanging = hanging.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command runs");
    for (name, part) in [("babbles", "printed no JSON"), ("dies", "ended with SIGSEGV")] {
        let said = wd.cli(&["state", "show", name, "--json"]);
        assert!(said.code == 1 && said.stderr.contains(part) && said.stderr.contains("hint:"), "{said:?}");
    }
    wd.cli(&["state", "show", "hangs"]).ok();
    let said = hanging.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{text}");
    for part in ["took longer than 10s", "stderr: looking", "hint: without its program"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(wd.status().all_ready(), "the services themselves noticed nothing");
}

#[test]
fn a_state_is_shown_exported_imported_and_reset_by_its_operator() {
    let wd = ready(&puppet("a", ByItself));
    let a = wd.puppet("a");
    a.does(Order::Update { text: "kept".into() });
    a.does(Order::Save);
    let view: StateView = wd.cli(&["state", "show", "a", "--json"]).ok().json();
    assert_eq!((view.version, view.sequence, view.newest), (1, view.newest, view.sequence));
    assert_eq!(view.incarnation, wd.status().of("a").incarnation.get());
    // One byte says how long it is.
    assert_eq!(view.bytes, 5);
    assert!(PathBuf::from(&view.file).exists());

    wd.cli(&["state", "export", "a", "exported"]).ok();
    // Only while it is stopped.
    assert_ne!(wd.cli(&["state", "reset", "a"]).code, 0);
    assert_ne!(wd.cli(&["state", "import", "a", "exported"]).code, 0);
    wd.cli(&["stop", "a"]).ok();
    wd.cli(&["state", "reset", "a"]).ok();
    wd.cli(&["start", "a"]).ok();
    assert_eq!((a.text(Order::State), a.text(Order::Origin)), (String::new(), "Fresh".to_owned()));
    wd.cli(&["stop", "a"]).ok();
    wd.cli(&["state", "import", "a", "exported"]).ok();
    wd.cli(&["start", "a"]).ok();
    assert_eq!((a.text(Order::State), a.text(Order::Origin)), ("kept".to_owned(), "Restored".to_owned()));
}

#[test]
fn a_service_without_state_needs_no_ceremony() {
    let wd = ready(&probe("p", "mirror", &[]));
    assert!(wd.status().of("p").state.is_none());
    for form in [&["state", "show", "p"][..], &["state", "show", "p", "--json"]] {
        let said = wd.cli(form);
        assert!(said.code == 2 && said.stderr.contains("p has no state"), "{said:?}");
        assert!(said.stderr.contains("hint: it is a plain program"), "{said:?}");
    }
}

fn ready(entry: &Entry) -> TestWatchdog {
    let wd = TestWatchdog::run(std::slice::from_ref(entry));
    wd.until("it is ready", Seen::all_ready);
    wd
}

fn snapshot(wd: &TestWatchdog) -> PathBuf {
    wd.path(".watchdog/state/a.snapshot")
}

/// Some file of the state folder holds this.
fn is_kept(wd: &TestWatchdog, content: &[u8]) -> bool {
    let files = fs::read_dir(wd.path(".watchdog/state")).expect("the folder");
    files
        .filter_map(|file| fs::read(file.ok()?.path()).ok())
        .any(|bytes| bytes.windows(content.len()).any(|found| found == content))
}

#[test]
fn a_service_reads_the_state_of_another_within_its_grant() {
    let wd = TestWatchdog::run(&[
        puppet("reader", ByItself).key("control = [\"state:a\"]"),
        puppet("other", ByItself).key("control = [\"status\"]"),
        puppet("a", ByItself),
        puppet("b", ByItself),
    ]);
    wd.until("all are ready", Seen::all_ready);
    for text in ["first", "second"] {
        wd.puppet("a").does(Order::Update { text: text.into() });
        wd.puppet("a").does(Order::Save);
        let json = wd.puppet("reader").text(Order::StateOf { service: "a".into() });
        let shown: serde_json::Value = wd.cli(&["state", "show", "a", "--json"]).ok().json();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON"), shown["value"]);
        assert!(json.contains(text), "{json}");
    }
    for (who, whose) in [("reader", "b"), ("other", "a")] {
        assert_eq!(wd.puppet(who).fails(Order::StateOf { service: whose.into() }), "Refused", "{who}");
    }
}
