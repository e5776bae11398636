//! The core or the keeper dies.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use watchdog_protocol::Incarnation;
use watchdog_protocol::status::{EventRecord, PhaseStatus};
use watchdog_tests::inject::Doomed;
use watchdog_tests::proc::Process;
use watchdog_tests::proof::core::{self, Fate};
use watchdog_tests::{Seen, TestWatchdog, probe, sample};

#[test]
fn no_service_restarts_because_a_core_died() {
    let wd =
        TestWatchdog::run(&[probe("a", "mirror", &[]), probe("b", "mirror", &[]).key("requires = [\"a\"]")]);
    let seen = wd.until("both are ready", Seen::all_ready);
    let before = processes(&seen);
    for core in 2..=6 {
        let old = wd.kill_core();
        let seen = wd.until("both are ready to the new core", Seen::all_ready);
        assert!(!old.exists());
        assert_eq!(seen.watchdog.cores, core);
        assert_eq!(processes(&seen), before);
    }
}

/// Each of the core's sends while it takes note of an end and starts the next process, one after the other.
#[test]
fn a_core_killed_at_any_send_of_a_restart_loses_neither_end_nor_start() {
    // The next one at once: end and start are then noted and sent in one go.
    let counter = sample("counter").settings("step = 1");
    let wd = TestWatchdog::run(&[counter.key("restart_delay = \"0s\"").key("restart_limit = \"off\"")]);
    let mut killed = 0;
    for nth in 1.. {
        let seen = wd.until("the service is ready", Seen::all_ready);
        let (process, old, cores) =
            (seen.of("counter").process(), seen.of("counter").incarnation, seen.watchdog.cores);
        let doomed = Doomed::at(wd.core(), "sendmsg", nth);
        process.signal(Signal::SIGKILL);
        let seen = wd.until("the next one is ready", |seen| seen.of("counter").is_ready_after(old));
        drop(doomed);
        assert_eq!(seen.of("counter").incarnation, old.next(), "send {nth}");
        let ends = |event: &&EventRecord| event.what == "ended" && event.incarnation == Some(old);
        let ended = wd.until_some("its end is in the event log", || {
            let ended: Vec<_> = wd.events().iter().filter(ends).cloned().collect();
            (!ended.is_empty()).then_some(ended)
        });
        assert_eq!(ended.len(), 1, "send {nth}: {ended:?}");
        assert!(ended[0].text.contains("SIGKILL"), "send {nth}: {ended:?}");
        if seen.watchdog.cores == cores {
            break;
        }
        killed += 1;
    }
    assert!(
        killed >= 4,
        "the core makes four sends at least: session, start, acknowledgement, welcome; it was killed at {killed}"
    );
}

#[test]
fn messages_settings_and_states_go_on_though_the_core_is_killed_under_them() {
    let plan = core::Plan { fate: Fate::Killed, times: 8, messages: 1000, seed: 1 };
    let shown = core::core(plan).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(shown.messages >= 8000 && shown.revisions > 0 && shown.saves > 0, "{shown:?}");
}

#[test]
fn an_end_without_a_core_is_seen_by_the_next_one() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let (process, incarnation) = (seen.of("a").process(), seen.of("a").incarnation);
    // Halted, it can't see the end; killed, it never will.
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    process.signal(Signal::SIGABRT);
    core.signal(Signal::SIGKILL);
    let seen = wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(incarnation));
    assert_eq!(seen.of("a").incarnation, incarnation.next());
    assert!(seen.of("a").why().contains("SIGABRT"), "{}", seen.of("a").why());
    assert!(!process.exists());
}

#[test]
fn a_stop_under_way_is_finished_by_the_next_core() {
    let wd = TestWatchdog::run(&[probe("deaf", "deaf", &[]).key("stop_timeout = \"1s\"")]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let process = seen.of("deaf").process();
    wd.cli(&["stop", "deaf", "--no-wait"]).ok();
    wd.until("it is stopping", |seen| seen.of("deaf").is(PhaseStatus::Stopping));
    wd.kill_core();
    let seen = wd.until("it is stopped", |seen| seen.of("deaf").is(PhaseStatus::Stopped));
    assert!(!process.exists());
    assert_eq!(seen.of("deaf").starts, 1);
}

#[test]
fn when_the_keeper_dies_everything_ends_and_the_next_run_starts_afresh() {
    let mut wd = TestWatchdog::run(&[
        probe("a", "mirror", &[]),
        probe("deaf", "deaf", &[]).key("stop_timeout = \"200ms\""),
        probe("parent", "orphaner", &[]),
    ]);
    let seen = wd.until("all are ready", Seen::all_ready);
    let old: Vec<Process> = seen.services.iter().filter_map(|service| Process::of(service.pid?)).collect();
    let incarnation = seen.of("a").incarnation;
    wd.kill_keeper();
    assert!(!old.iter().any(|process| process.is_alive()));
    wd.run_again();
    let seen = wd.until("all are ready again", Seen::all_ready);
    // An incarnation's number is never used twice.
    assert!(seen.of("a").incarnation > incarnation);
}

#[test]
fn what_outlived_keeper_and_core_is_ended_before_anything_starts() {
    let mut wd = TestWatchdog::run(&[probe("a", "mirror", &[]), probe("parent", "orphaner", &[])]);
    let seen = wd.until("all are ready", Seen::all_ready);
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    let keeper = Process::of(seen.watchdog.keeper_pid).expect("the keeper runs");
    keeper.signal(Signal::SIGKILL);
    core.signal(Signal::SIGKILL);
    wd.ended();
    let old: Vec<Process> = wd.processes();
    assert!(old.contains(&seen_process(&seen, "a")), "nobody is left to end a plain program");
    wd.run_again();
    wd.until("all are ready again", Seen::all_ready);
    // Their parent is not ours any more: a zombie is somebody else's to reap.
    assert!(!old.iter().any(|process| process.is_alive()), "leftovers live on");
}

#[test]
fn a_second_core_is_started_only_when_the_first_is_gone() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    wd.kill_core();
    let keeper = wd.keeper();
    let cores: Vec<Process> = watchdog_tests::proc::children(keeper.pid)
        .into_iter()
        .filter(|child| !watchdog_tests::proc::environment(child.pid).contains_key("WATCHDOG_SERVICE"))
        .collect();
    assert_eq!(cores, [wd.core()]);
}

fn processes(seen: &Seen) -> BTreeMap<String, (Option<u32>, Incarnation, u64)> {
    let of = |service: &watchdog_protocol::status::ServiceStatus| {
        (service.name.to_string(), (service.pid, service.incarnation, service.starts))
    };
    seen.services.iter().map(of).collect()
}

fn seen_process(seen: &Seen, name: &str) -> Process {
    seen.of(name).process()
}
