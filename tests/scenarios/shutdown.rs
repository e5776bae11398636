//! Ends: of a service with all that it started, and of the whole.

use nix::sys::signal::Signal;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::proc::{self, Process};
use watchdog_tests::{Seen, TestWatchdog, probe};

#[test]
fn what_ignores_the_request_to_end_is_killed_after_its_time() {
    let wd = TestWatchdog::run(&[probe("deaf", "deaf", &[]).key("stop_timeout = \"100ms\"")]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let process = seen.of("deaf").process();
    wd.cli(&["stop", "deaf"]).ok();
    assert!(!process.exists());
    let seen = wd.status();
    assert!(seen.of("deaf").is(PhaseStatus::Stopped));
    assert_eq!(seen.of("deaf").cause(), "operator");
    // It had to be killed, and that is told.
    let told = wd.until_event("the kill is told", |event| event.text.contains("SIGKILL"));
    assert_eq!(told.service.as_ref().map(|name| name.as_str()), Some("deaf"));
}

#[test]
fn a_grandchild_that_hides_is_ended_with_its_service() {
    let wd = TestWatchdog::run(&[probe("parent", "orphaner", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let orphan = orphan(&wd);
    // Adopted by the keeper, in a session of its own.
    wd.until_some("it is adopted", || (orphan.parent() == Some(wd.keeper().pid)).then_some(()));
    wd.cli(&["stop", "parent"]).ok();
    assert!(!orphan.is_alive());
    wd.until_some("it is reaped", || (!orphan.exists()).then_some(()));
    assert_eq!(wd.status().of("parent").survivors, Vec::<u32>::new());
}

#[test]
fn the_next_incarnation_starts_only_when_nothing_of_the_old_one_is_left() {
    let wd = TestWatchdog::run(&[probe("parent", "orphaner", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let orphan = orphan(&wd);
    let killed = wd.kill("parent", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("parent").is_ready_after(killed));
    assert!(!orphan.is_alive());
}

#[test]
fn a_parent_that_ends_well_takes_its_grandchildren_along() {
    let wd = TestWatchdog::run(&[probe("parent", "orphaner", &["end"])]);
    let orphan = orphan(&wd);
    wd.until("it is completed", |seen| seen.of("parent").is(PhaseStatus::Completed));
    assert!(!orphan.is_alive());
}

#[test]
fn a_shutdown_ends_everything_in_reverse_order() {
    let mut wd = TestWatchdog::run(&[
        probe("a", "mirror", &[]),
        probe("b", "mirror", &[]).key("requires = [\"a\"]"),
        probe("c", "orphaner", &[]).key("after = [\"b\"]"),
        probe("d", "deaf", &[]).key("stop_timeout = \"100ms\""),
    ]);
    wd.until("all are ready", Seen::all_ready);
    orphan(&wd);
    wd.cli(&["shutdown"]).ok();
    assert!(wd.ended().success(), "{}", wd.output());
    assert_eq!(wd.processes(), []);
    let ended = ["c", "b", "a"].map(|name| wd.last_event("ended", name));
    assert!(ended.is_sorted(), "{ended:?}");
}

#[test]
fn a_shutdown_leaves_no_cgroup_behind() {
    let mut wd = TestWatchdog::run(&[probe("a", "mirror", &[]), probe("b", "ender", &["exit", "0"])]);
    let seen = wd.until("one is ready, the other done", |seen| {
        seen.of("a").is_ready() && seen.of("b").is(PhaseStatus::Completed)
    });
    let own = proc::cgroup(wd.keeper_pid());
    let service = proc::cgroup(seen.of("a").process().pid);
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    // Where none can be made there is nothing to leave.
    if let Some(service) = service.filter(|found| Some(found) != own.as_ref()) {
        assert!(!service.exists(), "{} is left", service.display());
        let tree = service.parent().expect("a service's is in the watchdog's");
        assert!(!tree.exists(), "{} is left", tree.display());
    }
}

#[test]
fn a_watchdog_that_is_asked_to_end_by_a_signal_ends_in_good_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
        wd.until("it is ready", Seen::all_ready);
        wd.keeper().signal(signal);
        assert!(wd.ended().success(), "{signal}: {}", wd.output());
        assert_eq!(wd.processes(), []);
    }
}

/// The process that `probe-orphaner` says it left behind.
fn orphan(wd: &TestWatchdog) -> Process {
    let said = wd.until_some("the orphan's number is told", || {
        let said = wd.cli(&["logs", "-n", "20"]);
        said.stdout.lines().find(|line| line.contains("orphan ")).map(str::to_owned)
    });
    let words: Vec<&str> = said.rsplitn(3, ' ').collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    Process {
        pid: u32::try_from(number(words[1])).expect("the kernel's numbers fit"),
        started: number(words[0]),
    }
}
