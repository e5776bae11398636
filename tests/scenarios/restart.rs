//! Services that end, and what comes next.

use nix::sys::signal::Signal;
use watchdog_protocol::status::{PhaseStatus, WantedStatus};
use watchdog_tests::{Seen, TestWatchdog, probe, program};

/// Restarts follow each other at once, so that a test need not wait.
const AT_ONCE: &str = "restart_delay = \"0s\"";

#[test]
fn a_killed_program_is_started_again() {
    let wd = TestWatchdog::run(&[probe("deaf", "deaf", &[]).key("stop_timeout = \"0s\"")]);
    wd.until("it is ready", Seen::all_ready);
    let killed = wd.kill("deaf", Signal::SIGKILL);
    let seen = wd.until("the next one is ready", |seen| seen.of("deaf").is_ready_after(killed));
    let deaf = seen.of("deaf");
    assert_eq!(deaf.incarnation, killed.next());
    assert_eq!(deaf.starts, 2);
    assert_eq!(deaf.cause(), "signal");
    assert!(deaf.why().contains("SIGKILL"), "{}", deaf.why());
}

#[test]
fn the_first_early_death_is_not_throttled_and_a_crash_loop_is_given_up_until_reset() {
    let loops = probe("ender", "ender", &["exit", "3", "no database"])
        .key("restart_delay = { min = \"1ms\", max = \"1ms\" }")
        .key("restart_limit = { count = 5, within = \"60s\" }");
    let wd = TestWatchdog::run(&[loops, probe("mirror", "mirror", &[])]);
    let seen = wd.until("it is given up", |seen| seen.of("ender").is(PhaseStatus::Failed));
    // More than 5 failures: the 6th is one too many.
    assert_eq!(seen.of("ender").starts, 6);
    assert_eq!(seen.of("ender").wanted, WantedStatus::Up);
    let end = seen.of("ender").last_end.clone().expect("it ended");
    assert_eq!(end.last_lines, ["no database"]);
    assert!(
        wd.until_event("the loop is told", |event| event.cause.as_deref() == Some("limit"))
            .text
            .contains('3')
    );
    // Others are untouched.
    assert!(wd.status().of("mirror").is_ready());
    assert_eq!(wd.status().of("mirror").starts, 1);

    wd.cli(&["reset", "ender"]);
    let again = |seen: &Seen| seen.of("ender").is(PhaseStatus::Failed) && seen.of("ender").starts == 12;
    wd.until("a reset gives it as many tries again", again);
}

#[test]
fn a_start_that_fails_at_once_and_is_tried_at_once_for_ever_keeps_no_operator_waiting() {
    let never = |name: &str, exec: &str| program(name, &[exec]).key(AT_ONCE).key("restart_limit = \"off\"");
    // One fails before the keeper is asked, the other at the keeper.
    let wd = TestWatchdog::run(&[never("unknown", "no-such-program"), never("missing", "/no/such/file")]);
    let seen = wd.until("both were tried again", |seen| {
        ["unknown", "missing"].iter().all(|name| seen.of(name).starts > 300)
    });
    assert!(seen.of("unknown").why().contains("no-such-program"), "{}", seen.of("unknown").why());
    assert!(seen.of("missing").why().contains("/no/such/file"), "{}", seen.of("missing").why());
    wd.cli(&["stop", "unknown", "missing"]).ok();
    let seen = wd.status();
    assert!(["unknown", "missing"].iter().all(|name| seen.of(name).is(PhaseStatus::Stopped)));
}

#[test]
fn a_program_that_is_done_is_completed_and_not_started_again() {
    let wd = TestWatchdog::run(&[probe("ender", "ender", &["exit", "0"])]);
    let seen = wd.until("it is completed", |seen| seen.of("ender").is(PhaseStatus::Completed));
    assert_eq!(seen.of("ender").starts, 1);
    assert_eq!(seen.of("ender").wanted, WantedStatus::Up);
}

#[test]
fn a_policy_of_always_starts_again_what_ended_well() {
    let ender = probe("ender", "ender", &["exit", "0"]).key("restart = \"always\"").key(AT_ONCE);
    let wd = TestWatchdog::run(&[ender.key("restart_limit = \"off\"")]);
    wd.until("it was started a few times", |seen| seen.of("ender").starts > 3);
}

#[test]
fn a_policy_of_never_leaves_a_killed_program_down() {
    let wd = TestWatchdog::run(&[probe("mirror", "mirror", &[]).key("restart = \"never\"")]);
    wd.until("it is ready", Seen::all_ready);
    wd.kill("mirror", Signal::SIGABRT);
    let seen = wd.until("it is failed", |seen| seen.of("mirror").is(PhaseStatus::Failed));
    assert_eq!(seen.of("mirror").starts, 1);
    assert!(seen.of("mirror").why().contains("SIGABRT"), "{}", seen.of("mirror").why());
}

#[test]
fn an_operators_stop_is_sticky_across_a_restart_of_the_watchdog() {
    let mut wd =
        TestWatchdog::run(&[probe("a", "mirror", &[]), probe("b", "mirror", &[]).key("requires = [\"a\"]")]);
    wd.until("both are ready", Seen::all_ready);
    wd.cli(&["stop", "a"]).ok();
    let seen = wd.status();
    assert!(seen.of("a").is(PhaseStatus::Stopped));
    assert_eq!(seen.of("a").wanted, WantedStatus::Down);
    assert!(seen.of("a").wanted_by.is_some());
    wd.cli(&["shutdown"]).ok();
    assert!(wd.ended().success());

    wd.run_again();
    let seen = wd.until("what needs it waits", |seen| seen.of("b").blocked_by() == ["a"]);
    assert!(seen.of("a").is(PhaseStatus::Stopped));
    assert_eq!(seen.of("a").wanted, WantedStatus::Down);
    assert_eq!(seen.of("b").wanted, WantedStatus::Up);
    wd.cli(&["start", "a"]).ok();
    wd.until("both are ready again", Seen::all_ready);
}

#[test]
fn what_requires_it_starts_after_it_is_ready_stops_before_it_and_comes_back_with_it() {
    let port = free_port();
    let wd = TestWatchdog::idle();
    let go = wd.path("go");
    let server = probe("server", "listener", &[&port.to_string(), go.to_str().expect("a path of ours")])
        .key(&format!("ready = {{ tcp = \"127.0.0.1:{port}\" }}"));
    let mut wd = wd;
    wd.configure("", &[server, probe("user", "mirror", &[]).key("requires = [\"server\"]")]);
    wd.run_again();
    let seen = wd.until("the server starts", |seen| seen.of("server").is(PhaseStatus::Starting));
    assert_eq!(seen.of("user").blocked_by(), ["server"]);
    assert_eq!(seen.of("user").starts, 0);
    std::fs::write(&go, "").expect("a file");
    let seen = wd.until("both are ready", Seen::all_ready);
    let user = seen.of("user").incarnation;

    // A crash of what it requires leaves it alone.
    let killed = wd.kill("server", Signal::SIGKILL);
    let seen = wd.until("the server is back", |seen| seen.of("server").is_ready_after(killed));
    assert_eq!(seen.of("user").incarnation, user);

    // An operator's stop ends it first.
    wd.cli(&["stop", "server"]).ok();
    let seen = wd.status();
    assert!(seen.of("server").is(PhaseStatus::Stopped) && seen.of("user").is(PhaseStatus::Stopped));
    assert_eq!(seen.of("user").wanted, WantedStatus::Up);
    assert_eq!(seen.of("user").blocked_by(), ["server"]);
    assert_eq!(seen.of("user").cause(), "dependency");
    assert!(wd.last_event("ended", "user") < wd.last_event("ended", "server"));

    wd.cli(&["start", "server"]).ok();
    let seen = wd.until("both are back", Seen::all_ready);
    assert!(seen.of("user").is_ready_after(user));
}

#[test]
fn a_program_that_never_gets_ready_is_ended_and_the_cause_says_so() {
    let port = free_port();
    let never = probe("never", "listener", &[&port.to_string(), "/nowhere/at/all"])
        .key(&format!("ready = {{ tcp = \"127.0.0.1:{port}\" }}"))
        .key("start_timeout = \"50ms\"")
        .key("restart = \"never\"");
    let wd = TestWatchdog::run(&[never, probe("user", "mirror", &[]).key("requires = [\"never\"]")]);
    let seen = wd.until("it is failed", |seen| seen.of("never").is(PhaseStatus::Failed));
    assert_eq!(seen.of("never").cause(), "not-ready");
    assert_eq!(seen.of("user").blocked_by(), ["never"]);
    assert_eq!(seen.of("user").starts, 0);
}

#[test]
fn a_command_decides_when_a_program_is_ready() {
    let wd = TestWatchdog::idle();
    let sign = wd.path("sign");
    let mut wd = wd;
    let probed =
        probe("a", "mirror", &[]).key(&format!("ready = {{ exec = [\"test\", \"-e\", {:?}] }}", sign));
    wd.configure("", &[probed]);
    wd.run_again();
    wd.until("it starts", |seen| seen.of("a").is(PhaseStatus::Starting) && seen.of("a").pid.is_some());
    std::fs::write(&sign, "").expect("a file");
    let seen = wd.until("it is ready", Seen::all_ready);
    assert_eq!(seen.of("a").starts, 1);
}

#[test]
fn a_stopped_process_is_ended_by_a_stop_all_the_same() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let process = seen.of("a").process();
    process.signal(Signal::SIGSTOP);
    wd.until_some("it is halted", || process.is_stopped().then_some(()));
    wd.cli(&["stop", "a"]).ok();
    assert!(!process.exists());
}

#[test]
fn a_kill_from_outside_is_a_failure_and_one_by_an_operator_is_none() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let process = seen.of("a").process();
    wd.cli(&["kill", "a"]).ok();
    let seen = wd.until("it is stopped", |seen| seen.of("a").is(PhaseStatus::Stopped));
    assert!(!process.exists());
    assert_eq!(seen.of("a").cause(), "operator");
    assert_eq!(seen.of("a").wanted, WantedStatus::Down);

    wd.cli(&["start", "a"]).ok();
    wd.cli(&["kill", "--signal", "TERM", "a"]).ok();
    // Only a signal: it is still wanted, and an end by it is its own.
    let seen = wd.until("it ended by the signal", |seen| seen.of("a").cause() == "signal");
    assert_eq!(seen.of("a").wanted, WantedStatus::Up);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
    listener.local_addr().expect("it is bound").port()
}
