//! Who may talk to whom.

use super::*;

#[test]
fn a_service_is_not_registered_when_it_can_never_talk_to_whom_it_names() {
    let wd = ready(&[
        puppet("closed", ByItself).key("offer = [\"friend\", \"late-*\"]"),
        puppet("friend", ByItself),
    ]);
    let refused = register(&wd, &puppet("late", ByItself).key("use = [\"closed\"]"));
    assert_eq!(refused.code, 78, "{refused}");
    // Where both rules are.
    assert!(refused.stderr.contains("late.toml:4:8"), "{refused}");
    assert!(
        refused.stderr.contains("watchdog.toml:") && refused.stderr.contains("leaves out `late`"),
        "{refused}"
    );
    let refused = register(&wd, &puppet("late", ByItself).key("use = [\"closd\"]"));
    assert!(refused.code == 78 && refused.stderr.contains("did you mean `closed`?"), "{refused}");
    register(&wd, &puppet("late-1", ByItself).key("use = [\"closed\"]")).ok();
    assert_eq!(wd.puppet("late-1").text(ask("closed", "who?")), "who?");
}

#[test]
fn nothing_starts_while_a_rule_refuses_another_and_a_rule_for_nobody_is_a_warning() {
    let wd = TestWatchdog::idle();
    let closed = puppet("closed", ByItself).key("offer = [\"friend\"]");
    wd.configure(
        "",
        &[closed.clone(), puppet("friend", ByItself), puppet("a", ByItself).key("use = [\"closed\"]")],
    );
    for verb in ["check", "run"] {
        let said = wd.cli(&[verb]);
        assert!(said.code == 78 && said.stderr.contains("which leaves out `a`"), "{said}");
    }
    wd.configure("", &[closed, puppet("friend", ByItself).key("use = [\"a*\"]"), puppet("a", ByItself)]);
    let said = wd.cli(&["check"]).ok();
    assert!(said.stderr.starts_with("warning: ") && said.stderr.contains("offer lets nobody in"), "{said}");
    assert!(!wd.path(".watchdog/state").exists());
}

/// `a`, which may use what `rules` say, and `b`, led by hand.
fn pair(rules: &str) -> [Entry; 2] {
    let patient = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    [puppet("a", ByItself).key(rules), patient]
}

const OPEN: &str = "use = [\"*\"]";
const CLOSED: &str = "use = []";

fn started(rules: &str) -> TestWatchdog {
    let wd = TestWatchdog::run(&pair(rules));
    wd.puppet("b").does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    wd
}

#[test]
fn a_rule_taken_away_lets_what_is_queued_be_served_and_denies_the_rest() {
    let wd = started(OPEN);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    for text in ["1", "2"] {
        a.does(say("b", text));
    }
    assert_eq!(b.next().text, "1");
    let question = a.begin(ask("b", "3"));
    wd.until("all is queued", |seen| seen.of("b").queued == 3);
    in_force(&wd, &pair(CLOSED));
    wd.until_event("the log tells of it", |event| event.what == "revoked");
    assert_eq!(a.fails(say("b", "no")), "Denied");
    assert_eq!(a.fails(ask("b", "no")), "Denied");
    assert_eq!(a.fails(Order::TryTell { to: "b".into(), text: "no".into() }), "Denied");
    assert!(lane(&wd, "a", "b").is_retired);
    assert_eq!(b.next().text, "2");
    assert_eq!(b.next().text, "3");
    b.does(Order::Answer { text: "yes".into() });
    assert_eq!(question.shown(), Shown::Text("yes".into()));
    let nothing = b.begin(Order::Next);
    wd.until_some("the lane is gone", || inbox(&wd, "b").lanes.is_empty().then_some(()));
    // Allowed again it is another lane, for a handle that was asked for anew.
    in_force(&wd, &pair(OPEN));
    assert_eq!(a.fails(say("b", "no")), "Denied");
    kill_and_wait(&wd, "a");
    wd.puppet("a").does(say("b", "4"));
    match nothing.shown() {
        Shown::Message(heard) => assert_eq!((heard.text.as_str(), heard.redelivered), ("4", false)),
        other => panic!("{other:?}"),
    }
    assert_eq!(texts(&b.heard()), ["1", "2", "3", "4"]);
}

#[test]
fn nothing_newer_comes_before_what_was_queued_when_the_rule_was_taken_away() {
    let wd = started(OPEN);
    let b = wd.puppet("b");
    for text in ["1", "2"] {
        wd.puppet("a").does(say("b", text));
    }
    let first = b.next();
    in_force(&wd, &pair(CLOSED));
    wd.kill_core();
    in_force(&wd, &pair(OPEN));
    kill_and_wait(&wd, "a");
    wd.puppet("a").does(say("b", "3"));
    in_force(&wd, &pair(CLOSED));
    in_force(&wd, &pair(OPEN));
    kill_and_wait(&wd, "a");
    wd.puppet("a").does(say("b", "4"));
    assert_eq!(inbox(&wd, "b").lanes.len(), 3);
    // What was in hand comes again, and before all else.
    kill_and_wait(&wd, "b");
    let again = b.next();
    assert_eq!((again.text.as_str(), again.redelivered, again.id), ("1", true, first.id));
    kill_and_wait(&wd, "b");
    assert!(b.next().redelivered);
    assert_eq!(b.next().text, "2");
    // Between two lanes too.
    wd.kill_core();
    assert_eq!(b.next().text, "3");
    kill_and_wait(&wd, "b");
    let again = b.next();
    assert_eq!((again.text.as_str(), again.redelivered), ("3", true));
    assert_eq!(b.next().text, "4");
    let _nothing = b.begin(Order::Next);
    wd.until_some("one lane is left", || (inbox(&wd, "b").lanes.len() == 1).then_some(()));
}

#[test]
fn what_an_unregistered_service_has_sent_is_served() {
    let wd = started(OPEN);
    register(&wd, &puppet("late", ByItself)).ok();
    let (late, b) = (wd.puppet("late"), wd.puppet("b"));
    for text in ["1", "2"] {
        late.does(say("b", text));
    }
    assert_eq!(b.next().text, "1");
    wd.cli(&["stop", "late"]).ok();
    wd.cli(&["unregister", "late"]).ok();
    wd.kill_core();
    register(&wd, &puppet("late", ByItself)).ok();
    wd.puppet("late").does(say("b", "3"));
    kill_and_wait(&wd, "b");
    let heard: Vec<_> = (0..3).map(|_| b.next()).collect();
    assert_eq!(texts(&heard), ["1", "2", "3"]);
    assert!(heard.iter().all(|heard| heard.sender == "late"));
    assert_eq!(heard.iter().map(|heard| heard.redelivered).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_graph_is_drawn_of_the_file_alone_and_of_what_runs() {
    let mut wd = TestWatchdog::idle();
    let boss = puppet("boss", ByItself).key("use = [\"worker\"]").key("requires = [\"worker\"]");
    wd.configure("", &[boss, puppet("worker", ByItself).key("offer = [\"boss\"]").key("use = []")]);
    let drawn = |wd: &TestWatchdog, option: &[&str]| wd.cli(&[&["graph"], option].concat()).ok().stdout;
    let table = drawn(&wd, &[]);
    assert!(table.lines().any(|line| line.split_whitespace().eq(["boss", "worker"])), "{table}");
    assert!(!table.contains("PHASE"), "{table}");
    assert!(!wd.path(".watchdog/state").exists(), "drawing leaves nothing behind");
    wd.run_again();
    wd.until("both are ready", Seen::all_ready);
    wd.puppet("boss").text(ask("worker", "ready?"));
    let table = drawn(&wd, &["--permissions"]);
    let rows =
        [&["boss", "ready", "worker"][..], &["worker", "ready", "nobody"], &["boss", "worker", "1", "0"]];
    for row in rows {
        assert!(
            table.lines().any(|line| line.split_whitespace().eq(row.iter().copied())),
            "{row:?}\n{table}"
        );
    }
    let chart = drawn(&wd, &["--permissions", "--mermaid"]);
    assert!(chart.contains("s0 ==>|\"1 sent, 0 queued\"| s1"), "{chart}");
    let graph: serde_json::Value = wd.cli(&["graph", "--permissions", "--json"]).ok().json();
    assert_eq!(graph["may_talk"][0]["receivers"], serde_json::json!(["worker"]));
    assert_eq!(graph["lanes"][0]["sent"], 1);
}
