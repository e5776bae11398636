//! How a service says it is, and how the watchdog finds out by itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use watchdog_protocol::session::Health;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Level, Order, puppet};
use watchdog_tests::{Seen, TestWatchdog, probe, proc, program};

#[test]
fn hc_a_service_raises_its_own_level_and_it_is_shown() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    let seen = wd.until("it is ready", Seen::all_ready);
    assert_eq!(seen.of("a").health, Health::Ok);
    let a = wd.puppet("a");
    a.does(Order::Health { level: Level::Degraded("slow disk".into()) });
    let degraded = Health::Degraded { reason: "slow disk".into() };
    wd.until("it is degraded", |seen| seen.of("a").health == degraded);
    wd.kill_core();
    wd.until("the new core knows it", |seen| seen.of("a").is_ready() && seen.of("a").health == degraded);
    a.does(Order::Health { level: Level::Ok });
    let seen = wd.until("it is well", |seen| seen.of("a").health == Health::Ok);
    assert_eq!(seen.of("a").starts, 1);
    assert!(wd.cli(&["status"]).ok().stdout.contains('a'));
}

#[test]
fn hc_a_reason_that_counts_is_shown_as_it_is_and_told_once() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    let a = wd.puppet("a");
    for waiting in [1, 20, 300] {
        a.does(Order::Health { level: Level::Degraded(format!("{waiting} wait")) });
        let now = Health::Degraded { reason: format!("{waiting} wait") };
        wd.until("it is shown", |seen| seen.of("a").health == now);
    }
    a.does(Order::Health { level: Level::Ok });
    wd.until("it is well", |seen| seen.of("a").health == Health::Ok);
    let told = wd.events().into_iter().filter(|event| event.what == "health");
    assert_eq!(told.map(|event| event.text).collect::<Vec<_>>(), ["degraded: 1 wait", "all is well"]);
}

#[test]
fn hc_failing_for_longer_than_the_policy_allows_is_a_restart() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("failing_timeout = \"100ms\"")]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("a").incarnation;
    wd.puppet("a").does(Order::Health { level: Level::Failing("no database".into()) });
    let seen = wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(first));
    assert_eq!(seen.of("a").cause(), "failing");
    assert!(seen.of("a").why().contains("no database"), "{}", seen.of("a").why());
    assert_eq!(seen.of("a").health, Health::Ok);
}

#[test]
fn hc_without_a_policy_failing_is_only_shown() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    wd.puppet("a").does(Order::Health { level: Level::Failing("no database".into()) });
    let seen = wd.until("it is failing", |seen| matches!(seen.of("a").health, Health::Failing { .. }));
    assert!(seen.of("a").is_ready());
    assert_eq!(seen.of("a").starts, 1);
}

#[test]
fn hc_a_service_that_gives_no_sign_of_life_is_ended_and_started_again() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("liveness = \"100ms\"")]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("a").incarnation;
    wd.puppet("a").begin(Order::Hang);
    let seen = wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(first));
    assert_eq!(seen.of("a").cause(), "hung");
}

#[test]
fn hc_a_frozen_service_is_no_hung_one_and_a_halted_one_is() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("liveness = \"50ms\"")]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let process = seen.of("a").process();
    let freeze = proc::cgroup(process.pid).map(|cgroup| cgroup.join("cgroup.freeze"));
    // Where there are no cgroups nobody can freeze it.
    if let Some(freeze) = freeze.filter(|file| file.exists()) {
        fs::write(&freeze, "1").expect("ours to freeze");
        let told = wd.until_event("it is left alone", |event| event.what == "excused");
        assert_eq!(told.text, "3 signs of life missed, and left alone: it is frozen");
        fs::write(&freeze, "0").expect("ours to thaw");
        wd.puppet("a").does(Order::Update { text: "goes on".into() });
        assert_eq!(wd.status().of("a").starts, 1);
    }
    let halted = wd.kill("a", Signal::SIGSTOP);
    let seen = wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(halted));
    assert_eq!(seen.of("a").cause(), "hung");
}

#[test]
fn w5_a_time_in_which_the_core_stood_still_is_held_against_nobody() {
    let late = puppet("late", ByHand).key("start_timeout = \"1s\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("liveness = \"100ms\""), late]);
    wd.until("one is ready, one starts", |seen| {
        seen.of("a").is_ready() && seen.of("late").is(PhaseStatus::Starting) && seen.of("late").pid.is_some()
    });
    wd.until_some("it can be told what to do", || wd.path("puppet-late.sock").exists().then_some(()));
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let ready = wd.puppet("late").begin(Order::Ready);
    // Longer than it has to become ready: what is tried is this time itself.
    wd.until_some("its time is over", || (begun.elapsed() > Duration::from_secs(2)).then_some(()));
    core.signal(Signal::SIGCONT);
    drop(ready);
    let seen = wd.until("both are ready", Seen::all_ready);
    assert_eq!((seen.of("a").starts, seen.of("late").starts), (1, 1));
    wd.until_event("it is told", |event| event.what == "paused");
}

#[test]
fn hc_a_probe_finds_out_that_a_program_does_not_work_any_more() {
    let mut wd = TestWatchdog::idle();
    std::fs::write(wd.path("well"), "").expect("a file");
    let probed = probe("a", "mirror", &[])
        .key("liveness = { exec = [\"test\", \"-e\", \"well\"], interval = \"50ms\" }")
        .key("restart_limit = \"off\"");
    wd.configure("", &[probed]);
    wd.run_again();
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("a").incarnation;
    std::fs::remove_file(wd.path("well")).expect("a file of ours");
    let seen = wd.until("another one is started", |seen| seen.of("a").incarnation > first);
    assert_eq!(seen.of("a").cause(), "hung");
    std::fs::write(wd.path("well"), "").expect("a file");
    wd.until("it is ready", Seen::all_ready);
}

#[test]
fn hc_progress_is_shown_and_extends_the_time_to_get_ready() {
    let wd =
        TestWatchdog::run(&[puppet("a", ByHand).key("start_timeout = \"2s\"").key("restart = \"never\"")]);
    let a = wd.puppet("a");
    a.does(Order::Progress { fraction: Some(0.25), text: "reading the index".into() });
    let seen = wd.until("progress is shown", |seen| seen.of("a").progress.is_some());
    let progress = seen.of("a").progress.clone().expect("just seen");
    assert_eq!((progress.fraction, progress.text.as_str()), (Some(0.25), "reading the index"));
    // It says no more: it is ended after all, and the last thing it said is the evidence.
    let seen = wd.until("it is failed", |seen| seen.of("a").is(PhaseStatus::Failed));
    assert_eq!(seen.of("a").cause(), "not-ready");
    assert!(seen.of("a").why().contains("reading the index"), "{}", seen.of("a").why());
}

#[test]
fn hc_the_last_error_of_a_service_is_the_cause_of_its_end() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("restart = \"never\"")]);
    wd.until("it is ready", Seen::all_ready);
    wd.puppet("a").begin(Order::Fail { text: "the index is gone".into() });
    let seen = wd.until("it is failed", |seen| seen.of("a").is(PhaseStatus::Failed));
    let end = seen.of("a").last_end.clone().expect("it ended");
    assert!(
        end.why.contains("the index is gone") || end.last_lines.join("\n").contains("the index is gone"),
        "{end:?}"
    );
}

#[test]
fn hc_a_panic_is_an_end_with_its_words() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("restart = \"never\"")]);
    wd.until("it is ready", Seen::all_ready);
    wd.puppet("a").begin(Order::Panic { text: "that can't be".into() });
    let seen = wd.until("it is failed", |seen| seen.of("a").is(PhaseStatus::Failed));
    let end = seen.of("a").last_end.clone().expect("it ended");
    assert_eq!(end.cause, "exit-code");
    assert!(end.last_lines.join("\n").contains("that can't be"), "{end:?}");
}

#[test]
fn hc_a_web_server_is_ready_when_it_answers_and_hung_when_it_fails() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("its address").port();
    let code = Arc::new(AtomicU16::new(503));
    let answer = {
        let code = Arc::clone(&code);
        move || {
            for stream in server.incoming() {
                let mut stream = stream.expect("a connection");
                let mut line = String::new();
                // Its one request is a line and headers; who gave up meanwhile is no concern.
                let _asked = BufReader::new(&stream).read_line(&mut line);
                let code = code.load(Ordering::SeqCst);
                let _answered = write!(stream, "HTTP/1.1 {code} \r\nContent-Length: 0\r\n\r\n");
                let _read = stream
                    .shutdown(std::net::Shutdown::Write)
                    .and_then(|()| stream.read_to_end(&mut Vec::new()));
            }
        }
    };
    // Ends with the process: it waits for connections for ever.
    thread::spawn(answer);
    let page =
        format!("{{ http = \"http://127.0.0.1:{port}/health\", interval = \"50ms\", timeout = \"30s\" }}");
    let web = probe("web", "mirror", &[]).key(&format!("ready = {page}")).key(&format!("liveness = {page}"));
    let wd = TestWatchdog::run(&[web.key("restart_delay = \"0s\"")]);
    wd.until("it runs", |seen| seen.of("web").pid.is_some());
    assert!(wd.status().of("web").is(PhaseStatus::Starting));
    code.store(204, Ordering::SeqCst);
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("web").incarnation;
    code.store(500, Ordering::SeqCst);
    let seen = wd.until("it is replaced", |seen| seen.of("web").incarnation > first);
    assert_eq!(seen.of("web").cause(), "hung");
}

/// A shell that prints what is written into its pipe.
fn parrot(lines: &[&str]) -> TestWatchdog {
    let mut wd = TestWatchdog::idle();
    // Open for both: it never sees an end, and nothing is lost between two writers.
    let script = "mkfifo say-$$; exec 3<>say-$$; while read -r line <&3; do echo \"$line\"; done";
    let parrot = program("parrot", &["/bin/sh", "-c", script]).key("restart_delay = \"0s\"");
    wd.configure("", &[lines.iter().fold(parrot, |entry, line| entry.key(line))]);
    wd.run_again();
    wd
}

/// Lets the parrot print a line.
fn print(wd: &TestWatchdog, line: &str) {
    let seen = wd.until("it runs", |seen| seen.of("parrot").pid.is_some());
    let pipe = wd.path(&format!("say-{}", seen.of("parrot").process().pid));
    wd.until_some("it listens", || pipe.exists().then_some(()));
    fs::write(pipe, format!("{line}\n")).expect("it listens");
}

#[test]
fn hc_a_line_of_its_output_says_that_a_program_is_ready() {
    let wd = parrot(&["ready = { log = \"ready to accept [a-z]+$\" }"]);
    print(&wd, "not ready to accept connections now");
    wd.until_some("it is printed", || wd.cli(&["logs"]).stdout.contains("not ready").then_some(()));
    assert!(wd.status().of("parrot").is(PhaseStatus::Starting));
    // Printed while nobody listens: the next core looks at what was printed.
    let core = wd.core();
    let say = wd.path(&format!("say-{}", wd.status().of("parrot").process().pid));
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    fs::write(say, "LOG: ready to accept connections\n").expect("it listens");
    core.signal(Signal::SIGKILL);
    let seen = wd.until("it is ready", Seen::all_ready);
    assert_eq!(seen.of("parrot").starts, 1);
    // What the last process printed is no word of this one.
    let old = wd.kill("parrot", Signal::SIGKILL);
    wd.until("the next one runs", |seen| {
        seen.of("parrot").incarnation > old && seen.of("parrot").pid.is_some()
    });
    wd.kill_core();
    let seen = wd.until("a new core looked at it", |seen| seen.watchdog.cores == 3);
    assert!(seen.of("parrot").is(PhaseStatus::Starting));
    print(&wd, "ready to accept connections");
    wd.until("it is ready, too", Seen::all_ready);
}

#[test]
fn hc_a_program_whose_output_falls_silent_is_hung() {
    let wd = parrot(&["liveness = { log = \"^tick\", interval = \"50ms\" }"]);
    let seen = wd.until("it says nothing and is replaced", |seen| seen.of("parrot").starts > 1);
    assert_eq!(seen.of("parrot").cause(), "hung");

    let mut wd = TestWatchdog::idle();
    let script = "while :; do echo tick; sleep 0.05; done";
    let clock = program("clock", &["/bin/sh", "-c", script])
        .key("liveness = { log = \"^tick\", interval = \"20s\" }");
    wd.configure("", &[clock]);
    wd.run_again();
    wd.until_some("it ticks", || (wd.cli(&["logs", "-n", "50"]).stdout.lines().count() == 50).then_some(()));
    assert_eq!(wd.status().of("clock").starts, 1);
}
