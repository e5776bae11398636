//! Plain programs that say themselves how they are, by `sd_notify`.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::signal::Signal;
use watchdog_protocol::Incarnation;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::{Seen, TestWatchdog, probe, proc};

/// A watchdog with one program that notifies.
struct Stage {
    wd: TestWatchdog,
}

impl Stage {
    /// With these lines in its table.
    fn run(lines: &[&str]) -> Self {
        let mut wd = TestWatchdog::idle();
        let db = probe("db", "notifier", &[]).env("NOTIFIER_AT", wd.path("pipe").display().to_string());
        let db = lines.iter().fold(db.key("restart_delay = \"0s\""), |entry, line| entry.key(line));
        wd.configure("", &[db]);
        wd.run_again();
        Self { wd }
    }

    /// Gives it a command. What it says is on its way when this returns, and may not have arrived.
    fn command(&self, command: &str) {
        let seen = self.until("it runs", |db| db.pid.is_some());
        self.command_to(seen.of("db").process().pid, command);
    }

    fn command_to(&self, pid: u32, command: &str) {
        let pipe = self.wd.path(&format!("pipe-{pid}"));
        self.wd.until_some("it listens", || pipe.exists().then_some(()));
        fs::write(&pipe, command).expect("it listens");
    }

    fn until(&self, what: &str, shows: impl Fn(&watchdog_tests::Service<'_>) -> bool) -> Seen {
        self.wd.until(what, |seen| shows(&seen.of("db")))
    }

    fn says(&self, text: &str) {
        self.until("it says so", |db| db.says.as_deref() == Some(text));
    }
}

const NOTIFY: &str = "ready = \"notify\"";

#[test]
fn hc_a_program_is_ready_when_it_says_so_and_its_words_are_shown() {
    let stage = Stage::run(&[NOTIFY]);
    stage.command("say STATUS=reading the catalogue");
    stage.says("reading the catalogue");
    let seen = stage.wd.status();
    assert!(seen.of("db").is(PhaseStatus::Starting));
    assert!(stage.wd.cli(&["status"]).ok().stdout.contains("reading the"));
    stage.command("say STATUS=42 clients;READY=1");
    stage.until("it is ready", |db| db.is_ready());
    stage.says("42 clients");
    stage.command("say RELOADING=1");
    stage.says("reloading");
    stage.command("say READY=1");
    stage.until("the reload is over", |db| db.is_ready() && db.says.is_none());
    // The next process has said nothing yet.
    stage.command("say STATUS=old");
    stage.says("old");
    let old = stage.wd.kill("db", Signal::SIGKILL);
    stage.until("the next one", |db| db.incarnation > old && db.says.is_none());
}

#[test]
fn hc_only_a_programs_own_processes_are_heeded() {
    let stage = Stage::run(&[NOTIFY]);
    let seen = stage.until("it runs", |db| db.pid.is_some());
    let address = proc::environment(seen.of("db").pid.expect("it runs"))["NOTIFY_SOCKET"].clone();
    let address = SocketAddr::from_abstract_name(address.trim_start_matches('@')).expect("an address");
    let stranger = UnixDatagram::unbound().expect("a socket");
    stranger.send_to_addr(b"READY=1\nSTATUS=mine", &address).expect("anybody can send");
    stage.wd.until_event("the stranger is named", |event| event.text.contains("is none of it"));
    let seen = stage.wd.status();
    assert!(seen.of("db").is(PhaseStatus::Starting) && seen.of("db").says.is_none());
    stage.command("child STATUS=from a child");
    stage.says("from a child");
}

#[test]
fn hc_what_a_program_says_outlives_the_core_and_waits_for_the_next_one() {
    let stage = Stage::run(&[NOTIFY]);
    stage.command("say STATUS=half way");
    stage.says("half way");
    stage.wd.kill_core();
    stage.says("half way");
    let (core, pid) = (stage.wd.core(), stage.wd.status().of("db").process().pid);
    core.signal(Signal::SIGSTOP);
    stage.wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    stage.command_to(pid, "say READY=1;STATUS=all the way");
    core.signal(Signal::SIGKILL);
    stage.until("the next core hears of it", |db| db.is_ready());
    stage.says("all the way");
    assert_eq!(stage.wd.status().of("db").starts, 1);
}

#[test]
fn hc_a_program_that_says_that_it_leaves_and_stays_is_killed() {
    let stage = Stage::run(&[NOTIFY, "stop_timeout = \"1s\"", "restart_limit = \"off\""]);
    stage.command("say READY=1");
    stage.until("it is ready", |db| db.is_ready());
    stage.command("say STOPPING=1");
    let seen = stage.until("the next one", |db| db.starts == 2 && db.pid.is_some());
    assert_eq!(seen.of("db").cause(), "hung", "{}", seen.of("db").why());
}

#[test]
fn hc_a_program_that_says_that_it_leaves_and_does_is_completed() {
    let stage = Stage::run(&[NOTIFY, "stop_timeout = \"10m\""]);
    stage.command("say READY=1");
    stage.until("it is ready", |db| db.is_ready());
    stage.command("say STOPPING=1");
    stage.until("it leaves", |db| db.is(PhaseStatus::Stopping));
    stage.command("exit 0");
    stage.until("its work is done", |db| db.is(PhaseStatus::Completed));
}

#[test]
fn hc_a_program_without_its_signs_of_life_is_hung() {
    // Asked for rarely, so that a busy machine is no hang; and a program may ask for its end itself.
    let stage = Stage::run(&[NOTIFY, "liveness = { notify = \"10m\" }"]);
    let seen = stage.until("it runs", |db| db.pid.is_some());
    let environment = proc::environment(seen.of("db").pid.expect("it runs"));
    assert_eq!(environment["WATCHDOG_USEC"], "1200000000");
    stage.command("say READY=1;WATCHDOG=1");
    stage.until("it is ready", |db| db.is_ready());
    stage.command("say WATCHDOG=trigger");
    let seen = stage.until("the next one", |db| db.starts == 2);
    assert_eq!(seen.of("db").cause(), "hung");

    let stage = Stage::run(&["liveness = { notify = \"10ms\" }", "restart_limit = \"off\""]);
    let seen = stage.until("it gives no sign and is replaced", |db| db.starts > 1);
    assert!(seen.of("db").why().contains("3 signs of life missed"), "{}", seen.of("db").why());
}

#[test]
fn hc_a_notification_that_can_not_be_heeded_is_named() {
    let stage = Stage::run(&[NOTIFY]);
    stage.command("say EXTEND_TIMEOUT_USEC=soon;READY=1");
    stage.until("the rest of it counts", |db| db.is_ready());
    stage.wd.until_event("the line is named", |event| {
        event.what == "notification" && event.text.contains("EXTEND_TIMEOUT_USEC=soon")
    });
}

#[test]
fn hc_a_program_that_goes_into_the_background_is_watched_there() {
    let stage = Stage::run(&[NOTIFY, "restart_limit = \"off\""]);
    let seen = stage.until("it runs", |db| db.pid.is_some());
    let first = seen.of("db").process();
    stage.command("daemon READY=1;STATUS=in the background");
    let seen = stage.until("it goes on", |db| db.pid.is_some_and(|pid| pid != first.pid) && db.is_ready());
    let daemon = seen.of("db").process();
    assert!(!first.exists());
    assert_eq!((seen.of("db").starts, seen.of("db").incarnation), (1, Incarnation::FIRST));
    // A new core finds it, and its end is the service's.
    stage.wd.kill_core();
    let seen = stage.until("the new core knows it", |db| db.is_ready());
    assert_eq!(seen.of("db").process(), daemon);
    daemon.signal(Signal::SIGKILL);
    let seen = stage.until("the next one", |db| db.starts == 2);
    assert!(seen.of("db").why().contains("SIGKILL"), "{}", seen.of("db").why());
    // And it can be stopped there.
    let seen = stage.until("it runs", |db| db.starts == 2 && db.pid.is_some());
    let second = seen.of("db").process();
    stage.command("daemon READY=1");
    let seen =
        stage.until("it is there again", |db| db.pid.is_some_and(|pid| pid != second.pid) && db.is_ready());
    let daemon = seen.of("db").process();
    stage.wd.cli(&["stop", "db"]).ok();
    assert!(!daemon.exists());
}

#[test]
fn hc_the_last_words_of_a_program_come_before_its_end() {
    let stage = Stage::run(&[NOTIFY]);
    for _ in 0..20 {
        // Ends without an answer awaited.
        stage.command("last READY=1");
        let seen = stage.until("its work is done", |db| db.is(PhaseStatus::Completed));
        assert_eq!(seen.of("db").cause(), "exit-code");
        stage.wd.cli(&["start", "db", "--no-wait"]).ok();
        stage.until("it runs again", |db| db.pid.is_some());
    }
}
