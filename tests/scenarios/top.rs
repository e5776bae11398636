//! The live view, on a terminal of its own.

use nix::sys::signal::Signal;
use watchdog_protocol::audit::AuditRecord;
use watchdog_tests::inject::Hampered;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::puppet;
use watchdog_tests::terminal::Terminal;
use watchdog_tests::{Entry, Seen, TestWatchdog, program, sample};

const MANAGER: &str = "resource-manager";

const SIZE: (u16, u16) = (100, 30);

fn sleeper(name: &str) -> Entry {
    program(name, &["sleep", "1000"])
}

fn manager() -> Entry {
    let grant = "control = [\"status\", \"limits\", \"limit\", \"freeze\", \"thaw\", \"stop\", \"start\"]";
    sample(MANAGER).key(grant).settings("period = \"200ms\"\nservices = { a = { priority = 70 } }")
}

/// The figures of the machine and the line of this service are there.
fn shows(screen: &str, service: &str) -> bool {
    line(screen, service).is_some() && screen.contains("cpu     [")
}

/// The line of the table about a service.
fn line<'s>(screen: &'s str, service: &str) -> Option<&'s str> {
    let table = screen.split("── events").next().unwrap_or_default();
    table.lines().find(|line| line.split_whitespace().next() == Some(service))
}

/// What the table says of this service's status; the rest of its line tells what was last done to it.
fn status_of<'s>(screen: &'s str, service: &str) -> Option<&'s str> {
    line(screen, service)?.split_whitespace().nth(1)
}

/// The names in the table, from above.
fn order(screen: &str) -> Vec<String> {
    let table = screen.split("── events").next().unwrap_or_default();
    let rows = table.lines().skip_while(|line| !line.starts_with("NAME")).skip(1);
    rows.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn an_operator_sorts_raises_freezes_and_restarts_without_leaving_it() {
    let wd = TestWatchdog::run(&[
        manager(),
        puppet("a", ByItself),
        program("busy", &["sh", "-c", "while :; do :; done"]),
        sleeper("calm"),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let mut top = Terminal::run(&wd.operator(), &["top", "--interval=200ms"], SIZE);
    top.until("who works comes first", |seen| order(seen).first().is_some_and(|name| name == "busy"));
    top.keys("N");
    top.until("they are in order", |seen| order(seen) == ["a", "busy", "calm", MANAGER]);
    top.keys("r");
    top.until("the other way round", |seen| order(seen) == [MANAGER, "calm", "busy", "a"]);

    // Its own priority comes from its settings, raised and lowered by keys.
    top.until("its priority is known", |seen| line(seen, "a").is_some_and(|line| line.contains(" 70 ")));
    top.keys("G]]");
    top.until("it is raised", |seen| line(seen, "a").is_some_and(|line| line.contains(" 90 ")));
    let set = wd.cli(&["get", MANAGER, "services.a.priority"]).ok();
    assert_eq!(set.stdout.trim(), "90", "{set}");
    // One without an entry gets one.
    top.keys("kk[");
    top.until("it is lowered", |seen| line(seen, "calm").is_some_and(|line| line.contains(" 40 ")));
    assert_eq!(wd.cli(&["get", MANAGER, "services.calm.priority"]).ok().stdout.trim(), "40");

    top.keys("f");
    top.until("it is frozen", |seen| status_of(seen, "calm") == Some("frozen"));
    assert!(wd.status().of("calm").frozen);
    top.keys("f");
    top.until("it goes on", |seen| status_of(seen, "calm") == Some("ready"));

    let before = wd.status().of("calm").incarnation;
    top.keys("R");
    top.until("it asks", |seen| seen.contains("restart calm? y/n"));
    top.keys("n");
    top.until("nothing was done", |seen| seen.contains("nothing was done: restart calm"));
    assert_eq!(wd.status().of("calm").incarnation, before);
    top.keys("Ry");
    wd.until("it is another process", |seen| seen.of("calm").is_ready_after(before));
    top.until("and tells so", |seen| seen.contains("calm#2"));

    top.keys("\r");
    top.until("all of it is told", |seen| seen.contains("number 2, up") && seen.contains("runs well"));
    top.keys("q/bus\r");
    top.until("those of a name", |seen| {
        order(seen) == ["busy"] && seen.contains("1 of 4 services like `bus`")
    });
    top.keys("q");
    assert!(top.ended().success());
    // Who did it is on record, as of any call.
    let records: Vec<AuditRecord> = wd.cli(&["audit", "--json"]).ok().json();
    let verbs: Vec<String> = records.into_iter().map(|record| record.verb).collect();
    for verb in ["set", "freeze", "thaw", "restart"] {
        assert!(verbs.iter().any(|found| found == verb), "{verb} is not in {verbs:?}");
    }
}

#[test]
fn it_lives_through_the_death_of_the_core_and_tells_of_one_that_hangs() {
    let wd = TestWatchdog::run(&[sleeper("a"), sleeper("b")]);
    wd.until("all are ready", Seen::all_ready);
    let mut top = Terminal::run(&wd.operator(), &["top", "--interval=200ms"], SIZE);
    top.until("it shows them", |seen| shows(seen, "a"));
    wd.kill_core();
    top.until("the next core answers", |seen| seen.contains("2 cores since") && shows(seen, "b"));
    top.until("its log goes on", |seen| seen.contains("took over"));

    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    top.until("it hangs", |seen| seen.starts_with("watchdog: no answer for 2s"));
    // Keys work all the same.
    top.keys("?");
    top.until("the help", |seen| seen.contains("any other key: back"));
    top.keys(" q");
    core.signal(Signal::SIGCONT);
    top.until("it goes on", |seen| seen.starts_with("watchdog up"));
    top.keys("q");
    assert!(top.ended().success());
}

#[test]
fn a_watchdog_that_ends_is_waited_for_and_found_again() {
    let mut wd = TestWatchdog::run(&[sleeper("a")]);
    wd.until("all are ready", Seen::all_ready);
    let mut top = Terminal::run(&wd.operator(), &["top", "--interval=200ms"], SIZE);
    top.until("it shows it", |seen| shows(seen, "a"));
    wd.stop();
    top.until("it is gone", |seen| seen.starts_with("watchdog: no watchdog runs for "));
    wd.run_again();
    top.until("it is there again", |seen| seen.starts_with("watchdog up") && shows(seen, "a"));
    top.keys("\u{3}");
    assert!(top.ended().success());
    // None is there from the beginning: it is told as by any verb.
    wd.stop();
    let said = wd.cli(&["top", "--once"]);
    assert!(said.code != 0 && said.stderr.contains("no watchdog runs for"), "{said}");
}

#[test]
fn another_size_is_another_frame() {
    let services: Vec<Entry> = (0..30).map(|at| sleeper(&format!("s{at:02}"))).collect();
    let wd = TestWatchdog::run(&services);
    wd.until("all are ready", Seen::all_ready);
    let mut top = Terminal::run(&wd.operator(), &["top", "--sort=name", "--interval=200ms"], (80, 24));
    top.until("the first ones are seen", |seen| shows(seen, "s00") && order(seen).len() < 20);
    top.resize((200, 60));
    // The keys are the last line of a frame, which comes in pieces.
    let is_whole =
        |seen: &str| order(seen).len() == 30 && seen.contains("LAST MOVE") && seen.contains("period");
    top.until("all are seen", is_whole);
    top.resize((30, 10));
    top.until("there is no room", |seen| seen.starts_with("40 columns and 8 lines are"));
    top.resize((40, 8));
    top.keys("\x1b[F");
    top.until("the last one is seen", |seen| line(seen, "s29").is_some());
    top.keys("q");
    assert!(top.ended().success());
}

/// A key and a new size may reach it at the same moment: neither waits for another key.
#[test]
fn keys_are_heard_while_the_size_changes() {
    let wd = TestWatchdog::run(&[sleeper("a")]);
    wd.until("it is ready", Seen::all_ready);
    let mut top = Terminal::run(&wd.operator(), &["top", "--interval=200ms"], SIZE);
    top.until("it shows it", |seen| shows(seen, "a"));
    for round in 0..500 {
        let is_help = round % 2 == 0;
        top.resize((SIZE.0 + round % 7, SIZE.1));
        top.keys(if is_help { "?" } else { "x" });
        top.until("help comes and goes", |seen| seen.contains("choose      Up Down") == is_help);
    }
    top.keys("q");
    assert!(top.ended().success());
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    let wd = TestWatchdog::run(&[sleeper("a")]);
    wd.until("all are ready", Seen::all_ready);
    let shown = || {
        let mut top = Terminal::run(&wd.operator(), &["top"], SIZE);
        top.until("it shows it", |seen| shows(seen, "a"));
        top
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut top = shown();
        top.signal(signal);
        assert!(top.ended().success(), "{signal}");
    }
    // Neither the runtime nor who reads the keys can go on without this call; the first to notice says so.
    let mut top = shown();
    let hampered = Hampered::failing(top.process(), "epoll_wait", "EIO");
    let status = top.ended();
    drop(hampered);
    assert!(!status.success());
    let told = top.written().split_once("\x1b[?1049l").unwrap_or_default().1.to_owned();
    assert!(
        ["panicked", "cannot read keys"].iter().any(|why| told.contains(why)),
        "it does not say why: {told:?}"
    );
}

#[test]
fn colour_is_used_where_it_is_wanted() {
    let wd = TestWatchdog::run(&[sleeper("a")]);
    wd.until("all are ready", Seen::all_ready);
    let written = |args: &[&str]| {
        let mut top = Terminal::run(&wd.operator(), args, SIZE);
        top.until("it shows it", |seen| shows(seen, "a"));
        top.keys("q");
        top.ended();
        top.written().to_owned()
    };
    // The green of what is ready.
    let green = "\x1b[38;5;2";
    assert!(written(&["top"]).contains(green));
    assert!(!written(&["top", "--color=never"]).contains("\x1b[38;"));
}

#[test]
fn what_is_no_terminal_is_given_one_frame_if_it_asks_for_it() {
    let wd = TestWatchdog::run(&[sleeper("a"), program("broken", &["false"])]);
    wd.until("it fails", |seen| !seen.all_ready());
    let said = wd.cli(&["top"]).with_code(2);
    assert!(
        said.stderr.contains("needs a terminal") && said.stderr.contains("watchdog top --once"),
        "{said}"
    );
    wd.cli(&["top", "--json"]).with_code(2);
    let said = wd.cli(&["top", "--once", "--interval=100ms"]).ok();
    assert!(said.stdout.contains("2 services: ") && !said.stdout.contains('\x1b'), "{said}");
    assert_eq!(said.stdout.lines().filter(|line| line.starts_with("NAME")).count(), 1);
}
