//! What was registered once, when what it names is gone: it says so, and keeps nobody else from starting.

use std::fs;

use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::puppet;
use watchdog_tests::{Entry, Rebuilt, Seen, TestWatchdog, probe};

/// The watchdog of `a`, with this one registered, which is at work.
fn with_registered(wd: &TestWatchdog, late: &Entry) {
    fs::write(wd.path("late.toml"), late.render(wd.folder())).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    wd.until("all are ready", Seen::all_ready);
}

/// The same watchdog once more, after `change`: all but the registered one are at work, and that one says why it is not.
fn is_told(wd: &mut TestWatchdog, change: impl FnOnce(&TestWatchdog), thing: &str) {
    wd.stop();
    change(wd);
    wd.run_again();
    let is_seen = |seen: &Seen| seen.of("a").is_ready() && seen.of("late").is(PhaseStatus::Failed);
    let seen = wd.until("one is ready, the other failed", is_seen);
    assert!(seen.of("late").why().contains(thing), "{}", seen.of("late").why());
    let why = wd.cli(&["why", "late"]).stdout;
    assert!(why.contains(thing), "{why}");
    wd.kill_core();
    wd.until("the next core sees the same", is_seen);
}

#[test]
fn one_that_requires_what_is_gone_has_failed_until_that_is_back() {
    let b = puppet("b", ByItself);
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself), b.clone()]);
    with_registered(&wd, &puppet("late", ByItself).key("requires = [\"b\"]").key("after = [\"a\"]"));
    is_told(&mut wd, |wd| wd.configure("", &[puppet("a", ByItself)]), "there is no `b`");
    let said = wd.cli(&["start", "late"]).with_code(1);
    assert!(said.stderr.contains("there is no `b`"), "{said}");
    wd.configure("", &[puppet("a", ByItself), b]);
    wd.cli(&["reload"]).ok();
    wd.cli(&["start", "late"]).ok();
    wd.until("all are ready", Seen::all_ready);
}

#[test]
fn one_whose_secret_lies_in_a_file_that_is_gone_has_failed_until_it_is_back() {
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    let secret = wd.path("token");
    fs::write(&secret, "canary").expect("a file");
    let settings = format!("token = {{ file = {secret:?} }}");
    with_registered(&wd, &probe("late", "discreet", &[]).with_session().settings(&settings));
    is_told(&mut wd, |_| fs::remove_file(&secret).expect("it can be removed"), "/token");
    fs::write(&secret, "canary").expect("a file");
    wd.cli(&["start", "late"]).ok();
    wd.until("all are ready", Seen::all_ready);
}

#[test]
fn one_whose_program_is_gone_has_failed_until_it_is_registered_again() {
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    let program = Rebuilt::new(wd.path("program"), "probe-puppet");
    with_registered(&wd, &puppet("late", ByItself).exec(program.path()));
    is_told(&mut wd, |_| fs::remove_file(program.path()).expect("it can be removed"), "/program");
    program.becomes("probe-puppet");
    let said = wd.cli(&["start", "late"]).with_code(1);
    assert!(said.stderr.contains("watchdog unregister late"), "{said}");
    wd.cli(&["stop", "late"]).ok();
    wd.cli(&["unregister", "late"]).ok();
    wd.cli(&["register", "late.toml"]).ok();
    wd.until("all are ready", Seen::all_ready);
}
