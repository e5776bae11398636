//! Why a service is in the state it is in: the way back to the first cause, on real processes.

use nix::sys::signal::Signal;
use watchdog_protocol::status::{PhaseStatus, STATUS_VERSION};
use watchdog_protocol::why::{Origin, Why};
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

#[test]
fn a_crash_loop_is_told_by_its_first_and_last_failure_with_what_they_said() {
    let script = "echo starting >&2; echo \"no database\" >&2; exit 3";
    let wd = TestWatchdog::run(&[looping(program("c", &["sh", "-c", script]))]);
    given_up(&wd, "c");
    let why = why(&wd, "c");
    assert_eq!(why.version, STATUS_VERSION);
    let [failed, last, first] = &why.chain[..] else { panic!("{why:#?}") };
    assert!(failed.what.contains("crash loop: 6 failures within 60s"), "{failed:?}");
    assert_eq!(failed.cause.as_deref(), Some("limit"));
    assert_eq!([&last.last_lines, &first.last_lines], [&["starting", "no database"]; 2]);
    assert_eq!([last, first].map(|end| end.incarnation.map(|it| it.get())), [Some(6), Some(1)]);
    assert!(first.what.starts_with("the first of 6 failures"), "{first:?}");
    assert_eq!(first.exit.as_deref(), Some("exit code 3"));
    assert_eq!(first_cause(&why), "c: ended by itself with exit code 3");

    let said = wd.cli(&["why", "c"]).ok().stdout;
    let event = format!("event {}, process 1", first.event.expect("it is in the log"));
    for words in [&*event, "| no database", "first cause: c: ended by itself", "watchdog reset c"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

#[test]
fn a_chain_of_three_ends_in_the_one_that_crashes_and_its_last_line() {
    let crashes = looping(program("c", &["sh", "-c", "echo \"c can't open its index\" >&2; exit 1"]));
    let wd = TestWatchdog::run(&chain(crashes));
    given_up(&wd, "c");
    let why = why(&wd, "a");
    assert_eq!(whom(&why), ["a", "b", "c", "c", "c"]);
    assert!(why.chain[0].what.contains("requires `b`"), "{why:#?}");
    assert!(why.chain[1].what.contains("requires `c`, which is failed"), "{why:#?}");
    assert_eq!(why.chain.last().expect("it has links").last_lines, ["c can't open its index"]);
    assert_eq!(first_cause(&why), "c: ended by itself with exit code 1");
    let said = wd.cli(&["why", "a"]).ok().stdout;
    assert!(said.contains("| c can't open its index"), "{said}");
    assert!(said.contains("watchdog reset c"), "what is to be done is to be done to c\n{said}");
}

#[test]
fn a_chain_of_three_ends_in_the_one_whose_program_is_missing_with_step_and_path() {
    let wd = TestWatchdog::run(&chain(looping(program("c", &["/no/such/program"]))));
    given_up(&wd, "c");
    let why = why(&wd, "a");
    assert_eq!(why.chain.last().and_then(|link| link.cause.as_deref()), Some("spawn"));
    let words = first_cause(&why);
    assert!(
        words.starts_with("c: ") && words.contains("exec") && words.contains("/no/such/program"),
        "{words}"
    );
}

#[test]
fn what_was_stopped_with_what_it_requires_tells_who_stopped_that() {
    let wd = TestWatchdog::run(&chain(probe("c", "mirror", &[])));
    wd.until("all are ready", Seen::all_ready);
    wd.cli(&["stop", "c"]).ok();
    wd.until("a is stopped", |seen| seen.of("a").is(PhaseStatus::Stopped));
    let stopped = first_cause(&why(&wd, "a"));
    assert!(stopped.starts_with("c: stop by operator (uid "), "{stopped}");
    let own = why(&wd, "c");
    assert_eq!(whom(&own), ["c", "c"], "its end, and who asked for it");
    assert_eq!(first_cause(&own), stopped);
    assert_eq!(own.advice, ["watchdog start c"]);
    assert_eq!(own.chain[1].event, Some(wd.last_event("asked", "c")));

    wd.cli(&["start", "c"]).ok();
    wd.until("all are ready again", Seen::all_ready);
    let again = why(&wd, "a");
    assert!(again.chain[0].what.starts_with("runs well"), "{again:#?}");
    assert_eq!(first_cause(&again), stopped, "it is why it was started again");
}

#[test]
fn refused_settings_are_told_with_revision_reason_and_who_set_them() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand)]);
    let a = wd.puppet("a");
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    let next = a.begin(Order::Next);
    wd.cli(&["set", "a", "number=5", "--no-wait"]).ok();
    assert_eq!(next.shown(), Shown::SettingsUpdated);
    a.does(Order::Refuse { reason: "five is taken".into() });
    wd.until("it is refused", |seen| seen.of("a").settings.as_ref().is_some_and(|it| it.refused.is_some()));
    let why = why(&wd, "a");
    let [runs, refused, set] = &why.chain[..] else { panic!("{why:#?}") };
    assert!(runs.what.starts_with("runs well"), "{runs:?}");
    assert_eq!(refused.revision.map(|it| it.get()), Some(2));
    assert!(refused.what.contains("five is taken"), "{refused:?}");
    assert_eq!(set.revision, refused.revision);
    assert!(set.what.contains("operator (uid ") && set.what.contains("number"), "{set:?}");
}

#[test]
fn a_kill_from_outside_is_told_from_one_through_the_watchdog() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let killed = wd.kill("a", Signal::SIGKILL);
    let seen = wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    let outside = why(&wd, "a");
    assert_eq!(outside.chain.last().and_then(|link| link.incarnation), Some(killed));
    let words = first_cause(&outside);
    assert!(words.contains("SIGKILL") && words.contains("from outside"), "{words}");
    let killed = seen.of("a").incarnation;
    wd.cli(&["kill", "a", "--signal", "KILL"]).ok();
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    let words = first_cause(&why(&wd, "a"));
    assert!(words.contains("SIGKILL sent by operator"), "{words}");
}

#[test]
fn the_answer_is_the_same_whichever_core_gives_it() {
    let crashes = looping(program("c", &["sh", "-c", "echo out of luck >&2; exit 1"]));
    let [a, b, c] = chain(crashes);
    let wd = TestWatchdog::run(&[a, b, c, probe("d", "mirror", &[]), probe("e", "mirror", &[])]);
    given_up(&wd, "c");
    wd.cli(&["stop", "d"]).ok();
    let killed = wd.kill("e", Signal::SIGKILL);
    wd.until("e is ready again", |seen| seen.of("e").is_ready_after(killed));
    let ask = || ["a", "b", "c", "d", "e"].map(|name| why(&wd, name));
    let before = ask();
    wd.kill_core();
    assert_eq!(ask(), before);
}

#[test]
fn a_service_asks_why_as_far_as_its_grant_goes_and_an_unknown_name_gets_the_nearest() {
    let wd = TestWatchdog::run(&[
        puppet("chief", ByItself).key("control = [\"why:w-*\"]"),
        probe("w-1", "mirror", &[]),
        probe("other", "mirror", &[]),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let chief = wd.puppet("chief");
    let of_its = chief.text(Order::Why { service: "w-1".into() });
    assert_eq!(of_its, "w-1: started with the watchdog, and has not ended since");
    assert_eq!(chief.fails(Order::Why { service: "other".into() }), "Refused");
    let said = wd.cli(&["why", "othre"]).with_code(2);
    assert!(said.stderr.contains("othre") && said.stderr.contains("did you mean `other`"), "{said}");
}

/// `a` requires `b`, which requires `c`.
fn chain(c: Entry) -> [Entry; 3] {
    let a = probe("a", "mirror", &[]).key("requires = [\"b\"]");
    [a, probe("b", "mirror", &[]).key("requires = [\"c\"]"), c]
}

/// Fails six times without a wait a test would feel.
fn looping(entry: Entry) -> Entry {
    entry
        .key("restart_delay = { min = \"1ms\", max = \"1ms\" }")
        .key("restart_limit = { count = 5, within = \"60s\" }")
}

fn given_up(wd: &TestWatchdog, name: &str) {
    wd.until("it is given up", |seen| seen.of(name).is(PhaseStatus::Failed));
}

fn why(wd: &TestWatchdog, name: &str) -> Why {
    wd.cli(&["why", name, "--json"]).ok().json()
}

fn first_cause(why: &Why) -> String {
    match &why.origin {
        Origin::FirstCause(words) => words.clone(),
        Origin::NotInLog(words) => panic!("not known: {words}\n{why:#?}"),
    }
}

fn whom(why: &Why) -> Vec<&str> {
    why.chain.iter().map(|link| link.service.as_ref().map_or("watchdog", |name| name.as_str())).collect()
}
