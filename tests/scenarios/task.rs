//! What runs once, to its end, and who waits for that.

use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

/// Writes a line at each run, and waits until there is a file `go`. Fails while there is a file `broken`.
fn migrate() -> Entry {
    let script = "echo ran >> runs; [ ! -e broken ] || exit 1; until [ -e go ]; do sleep 0.01; done";
    program("migrate", &["sh", "-c", script]).once()
}

fn app() -> Entry {
    probe("app", "mirror", &[]).key("requires = [\"migrate\"]")
}

fn runs(wd: &TestWatchdog) -> usize {
    std::fs::read_to_string(wd.path("runs")).unwrap_or_default().lines().count()
}

#[test]
fn whoever_requires_a_task_starts_when_it_has_completed() {
    let wd = TestWatchdog::run(&[migrate(), app()]);
    let seen = wd.until("it runs", |seen| seen.of("migrate").is_ready());
    assert!(seen.of("migrate").task && seen.of("app").starts == 0);
    wd.until("the app waits for it", |seen| seen.of("app").blocked_by() == ["migrate"]);
    let said = wd.cli(&["status", "migrate"]).ok().stdout;
    assert!(said.starts_with("migrate: running, pid "), "{said}");
    let said = wd.cli(&["why", "app"]).ok().stdout;
    assert!(said.contains("it requires `migrate`, which is not done yet"), "{said}");
    std::fs::write(wd.path("go"), "").expect("a file");
    let seen = wd.until("the app is ready", |seen| seen.of("app").is_ready());
    assert!(seen.of("migrate").is(PhaseStatus::Completed));
    assert_eq!((seen.of("app").starts, runs(&wd)), (1, 1));
    let said = wd.cli(&["why", "migrate"]).ok().stdout;
    assert!(said.contains("did its work and ended; nothing is wrong"), "{said}");
}

#[test]
fn a_start_waits_for_the_end_of_a_task_and_runs_a_completed_one_again() {
    let wd = TestWatchdog::run(&[migrate()]);
    wd.until("it runs", |seen| seen.of("migrate").is_ready());
    let said = wd.cli(&["start", "migrate", "--wait=50ms"]).with_code(75);
    assert!(said.stderr.contains("migrate: running"), "{said}");
    std::fs::write(wd.path("go"), "").expect("a file");
    wd.until("it is completed", |seen| seen.of("migrate").is(PhaseStatus::Completed));
    std::fs::remove_file(wd.path("go")).expect("it is there");

    let operator = wd.operator();
    let start = std::thread::spawn(move || operator.run(&["start", "migrate"]));
    wd.until("it runs again", |seen| seen.of("migrate").is_ready());
    assert!(!start.is_finished(), "a start waits for the end");
    std::fs::write(wd.path("go"), "").expect("a file");
    let said = start.join().expect("it does not panic").ok();
    assert!(said.stdout.contains("migrate: completed"), "{said}");
    assert_eq!(runs(&wd), 2);
}

#[test]
fn a_task_that_fails_is_tried_again_as_its_policy_says_and_nobody_starts_on_it_meanwhile() {
    let wd = TestWatchdog::idle();
    for file in ["broken", "go"] {
        std::fs::write(wd.path(file), "").expect("a file");
    }
    let mut wd = wd;
    wd.configure("", &[migrate().key("restart_limit = \"2/60s\""), app()]);
    wd.run_again();
    let seen = wd.until("it is given up", |seen| seen.of("migrate").is(PhaseStatus::Failed));
    assert_eq!((seen.of("app").starts, runs(&wd)), (0, 3));
    let said = wd.cli(&["start", "migrate"]).with_code(1);
    assert!(said.stderr.contains("migrate failed"), "{said}");
    std::fs::remove_file(wd.path("broken")).expect("it is there");
    wd.cli(&["start", "migrate"]).ok();
    wd.until("the app is ready", |seen| seen.of("app").is_ready());
}

#[test]
fn a_new_core_runs_no_task_again_and_a_new_watchdog_does() {
    let mut wd = TestWatchdog::run(&[migrate(), app()]);
    std::fs::write(wd.path("go"), "").expect("a file");
    let all_done = |seen: &Seen| seen.of("app").is_ready() && seen.of("migrate").is(PhaseStatus::Completed);
    wd.until("all is up", all_done);
    wd.kill_core();
    let seen = wd.until("all is as it was", all_done);
    assert_eq!((seen.of("migrate").starts, runs(&wd)), (1, 1));
    wd.cli(&["shutdown"]).ok();
    assert!(wd.ended().success());
    wd.run_again();
    wd.until("all is up again", all_done);
    assert_eq!(runs(&wd), 2);
}

#[test]
fn a_task_that_links_the_sdk_has_state_and_is_done_when_it_returns() {
    let wd = TestWatchdog::run(&[puppet("load", ByItself).once()]);
    let seen = wd.until("it runs", |seen| seen.of("load").is_ready());
    assert!(seen.of("load").task && seen.of("load").state.is_some());
    wd.puppet("load").does(Order::Update { text: "half".into() });
    wd.puppet("load").does(Order::Save);
    wd.puppet("load").begin(Order::Exit { code: 1 });
    wd.until("it is tried again", |seen| seen.of("load").starts == 2 && seen.of("load").is_ready());
    assert_eq!(wd.puppet("load").text(Order::State), "half");
    wd.puppet("load").begin(Order::Exit { code: 0 });
    let seen = wd.until("it is completed", |seen| seen.of("load").is(PhaseStatus::Completed));
    assert_eq!(seen.of("load").starts, 2);
}
