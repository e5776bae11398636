//! Messages of an operator.

use std::thread::JoinHandle;

use watchdog_tests::{Said, probe};

use super::*;

/// `send` by somebody at another shell, who waits for the answer.
fn sending(wd: &TestWatchdog, args: &[&str]) -> JoinHandle<Said> {
    let (operator, mut words) = (wd.operator(), vec!["send".to_owned()]);
    words.extend(args.iter().map(|&word| word.to_owned()));
    std::thread::spawn(move || operator.run(&words))
}

fn said(asking: JoinHandle<Said>) -> Said {
    asking.join().expect("nothing panics there")
}

const QUESTION: &str = r#"{"Question": {"text": "how much?"}}"#;

#[test]
fn an_operator_tells_asks_and_is_answered_in_json() {
    let wd = ready(&[puppet("b", ByItself), sample("counter").settings("step = 2")]);
    wd.cli(&["send", "b", r#"{"Say": {"text": "hello"}}"#]).ok();
    let heard = wd.until_some("it arrives", || wd.puppet("b").heard().first().cloned());
    assert_eq!((heard.text.as_str(), heard.sender.as_str(), heard.redelivered), ("hello", "operator", false));
    assert_eq!(wd.cli(&["send", "b", QUESTION]).ok().stdout, "\"how much?\"\n");

    let from_input = wd.operator().run_with_input(&["send", "b", "-"], QUESTION);
    assert_eq!(from_input.ok().stdout, "\"how much?\"\n");
    // What would command the terminal is written in another way, and is the same text.
    let clears = r#"{"Question": {"text": "\u009b2J\u001b[2J\u007f"}}"#;
    assert_eq!(wd.cli(&["send", "b", clears]).ok().stdout, "\"\\u009b2J\\u001b[2J\\u007f\"\n");

    wd.cli(&["send", "counter", r#"{"Add": {"n": 21}}"#]).ok();
    assert_eq!(wd.cli(&["send", "counter", "Total"]).ok().stdout, "42\n");
    std::fs::write(wd.path("message"), r#" {"Add": {"n": 4}} "#).expect("a file");
    wd.cli(&["send", "counter", "@message", "--timeout", "50s"]).ok();
    wd.cli(&["send", "counter", "Total", "--tell"]).ok();
    assert_eq!(wd.cli(&["send", "counter", "Total"]).ok().stdout, "50\n");

    // A message and an answer of more than a packet.
    let long = "x".repeat(200_000);
    std::fs::write(wd.path("long"), format!(r#"{{"Question": {{"text": "{long}"}}}}"#)).expect("a file");
    assert_eq!(wd.cli(&["send", "b", "@long"]).ok().stdout, format!("\"{long}\"\n"));

    let schema = wd.cli(&["send", "counter", "--schema"]).ok().stdout;
    assert!(schema.contains(r#"watchdog send counter '{"Add": {"n": 1}}'"#), "{schema}");
    assert_eq!(lane(&wd, "operator", "counter").handled, 5);
    let audit = wd.cli(&["audit", "-n", "1"]).ok().stdout;
    assert!(audit.contains("send") && audit.contains("Question"), "{audit}");
}

#[test]
fn what_is_no_message_is_not_sent_and_says_where() {
    let wd = ready(&[puppet("b", ByItself), probe("plain", "mirror", &[])]);
    let wrong = |to: &str, message: &str, code: i32| wd.cli(&["send", to, message]).with_code(code).stderr;
    assert!(wrong("c", "Total", 2).contains("no service `c`"));
    assert!(wrong("plain", "Total", 2).contains("no inbox"));
    assert!(wrong("b", "Total", 65).contains("there is no message `Total`"));
    let near = wrong("b", r#"{"Sai": {"text": "x"}}"#, 65);
    assert!(near.contains("did you mean `Say`?"), "{near}");
    assert!(wrong("b", r#"{"Say": {"text": 7}}"#, 65).contains("Say.text: 7, expected a string"));
    assert!(wrong("b", "{", 65).contains("no JSON"));
    assert_eq!(wd.puppet("b").heard(), []);
}

#[test]
fn a_message_waits_for_a_service_that_is_down() {
    let wd = ready_by_hand();
    wd.cli(&["stop", "b"]).ok();
    let told = wd.cli(&["send", "b", r#"{"Say": {"text": "later"}}"#]).ok();
    assert!(told.stdout.contains("b is stopped"), "{told}");
    let late = wd.cli(&["send", "b", QUESTION, "--timeout", "50ms"]).with_code(75);
    assert!(late.stderr.contains("b is stopped"), "{late}");
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    wd.until_some("all wait", || (lane(&wd, "operator", "b").queued == 3).then_some(()));
    wd.cli(&["start", "b", "--no-wait"]).ok();
    let b = wd.puppet("b");
    b.does(Order::Ready);
    assert_eq!(b.next().text, "later");
    // The one that is late is skipped.
    assert_eq!(b.next().text, "how much?");
    b.does(Order::Answer { text: "7".into() });
    assert_eq!(said(asking).ok().stdout, "\"7\"\n");
}

#[test]
fn a_question_that_is_let_go_or_dies_ends_as_such() {
    let wd = ready_by_hand();
    let b = wd.puppet("b");
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    b.does(Order::DropReply);
    assert!(said(asking).with_code(1).stderr.contains("without an answer"));

    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    kill_and_wait(&wd, "b");
    assert!(said(asking).with_code(70).stderr.contains("died with `Question` in hand"));

    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50ms"]);
    assert!(said(asking).with_code(75).stderr.contains("has not answered"));
}

#[test]
fn a_question_that_may_be_repeated_outlives_its_receiver() {
    let wd = ready(&[patient("b", ByHand).key("restart_delay = \"0s\"").key("ready = \"exec\"")]);
    let b = wd.puppet("b");
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    let killed = wd.kill("b", Signal::SIGKILL);
    wd.until("the next one is there", |seen| seen.of("b").incarnation > killed && seen.of("b").pid.is_some());
    assert!(b.next().redelivered);
    b.does(Order::Answer { text: "7".into() });
    assert_eq!(said(asking).ok().stdout, "\"7\"\n");
}

#[test]
fn a_core_that_dies_over_a_question_leaves_it_unknown_and_one_that_may_be_repeated_answered() {
    let wd = ready_by_hand();
    let b = wd.puppet("b");
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    wd.kill_core();
    let unknown = said(asking).with_code(70);
    assert!(unknown.stderr.contains("core was replaced"), "{unknown}");
    // The lane is the next core's, and the old answer nobody's.
    b.does(Order::Answer { text: "too late".into() });
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    b.does(Order::Answer { text: "7".into() });
    assert_eq!(said(asking).ok().stdout, "\"7\"\n");
}

#[test]
fn a_question_that_may_be_repeated_outlives_the_core_too() {
    let wd = ready(&[patient("b", ByHand).key("ready = \"exec\"")]);
    let b = wd.puppet("b");
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    wd.kill_core();
    b.does(Order::Answer { text: "to nobody".into() });
    let again = b.next();
    assert_eq!((again.text.as_str(), again.sender.as_str()), ("how much?", "operator"));
    b.does(Order::Answer { text: "7".into() });
    assert_eq!(said(asking).ok().stdout, "\"7\"\n");
}

#[test]
fn of_a_question_that_is_repeated_nobody_says_that_it_was_not_sent() {
    let b = patient("b", ByHand).key("ready = \"exec\"").key("lane_size = \"8KiB\"");
    let wd = ready(&[b]);
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    wd.until("it is in the lane", |seen| seen.of("b").queued == 1);
    // Behind it there is room for no other.
    while wd.cli(&["send", "b", QUESTION, "--tell"]).code == 0 {}
    wd.kill_core();
    let unknown = said(asking).with_code(70);
    assert!(unknown.stderr.contains("core was replaced") && unknown.stderr.contains("is full"), "{unknown}");
    assert_eq!(wd.puppet("b").next().text, "how much?");
}

#[test]
fn a_receiver_that_shuts_its_lane_keeps_nobody_waiting_and_is_heard_again_on_another() {
    let wd = ready_by_hand();
    let b = wd.puppet("b");
    let first = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    let behind_it = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    wd.until("it is queued", |seen| seen.of("b").queued == 2);
    b.does(Order::ShutLanes { way: Way::Out });
    for asking in [first, behind_it] {
        let unknown = said(asking).with_code(70);
        assert!(unknown.stderr.contains("shut its lane before it answered"), "{unknown}");
    }
    wd.until_event("the log tells of it", |event| event.what == "lane" && event.text.contains("Shutdown"));
    // What it has not taken is its own to take.
    assert_eq!(b.next().text, "how much?");
    let asking = sending(&wd, &["b", QUESTION, "--timeout", "50s"]);
    assert_eq!(b.next().text, "how much?");
    b.does(Order::Answer { text: "7".into() });
    assert_eq!(said(asking).ok().stdout, "\"7\"\n");
}

#[test]
fn a_lane_that_takes_nothing_any_more_is_replaced_by_the_next_message() {
    for by_another_core in [false, true] {
        let wd = ready_by_hand();
        let b = wd.puppet("b");
        wd.cli(&["send", "b", r#"{"Say": {"text": "1"}}"#]).ok();
        assert_eq!(b.next().text, "1");
        b.does(Order::ShutLanes { way: Way::In });
        if by_another_core {
            wd.kill_core();
        }
        wd.cli(&["send", "b", r#"{"Say": {"text": "2"}}"#]).ok();
        assert_eq!(b.next().text, "2", "{by_another_core}");
    }
}

#[test]
fn a_service_sends_within_its_grant() {
    let wd = ready(&[
        puppet("a", ByItself).key("control = [\"status\", \"send:b\"]"),
        puppet("b", ByItself).key("offer = []"),
        puppet("c", ByItself),
    ]);
    let send = |to: &str| wd.puppet("a").order(Order::SendByGrant { to: to.into(), text: "hello".into() });
    assert_eq!(send("b"), Shown::Text("sent".into()));
    let heard = wd.until_some("it arrives", || wd.puppet("b").heard().first().cloned());
    assert_eq!((heard.text.as_str(), heard.sender.as_str()), ("hello", "operator"));
    match send("c") {
        Shown::Failed { kind, text } => assert!(kind == "Refused" && text.contains("send c"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_sent_to_another_build_waits_for_it_and_holds_up_nothing() {
    let mut wd = TestWatchdog::idle();
    let program = Rebuilt::new(wd.path("program"), "probe-puppet");
    wd.configure("", &[puppet("b", ByItself).exec(program.path())]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    wd.cli(&["stop", "b"]).ok();
    wd.cli(&["send", "b", r#"{"Say": {"text": "for a puppet"}}"#]).ok();
    program.becomes("probe-puppet-patient");
    wd.cli(&["start", "b"]).ok();
    wd.until_some("the lane says where they part", || lane(&wd, "operator", "b").mismatch);
    assert_eq!(wd.cli(&["send", "b", QUESTION]).ok().stdout, "\"how much?\"\n");
    program.becomes("probe-puppet");
    wd.cli(&["restart", "b"]).ok();
    wd.until_some("what waited arrives", || {
        wd.puppet("b").heard().iter().any(|heard| heard.text == "for a puppet").then_some(())
    });
    assert_eq!(wd.cli(&["send", "b", QUESTION]).ok().stdout, "\"how much?\"\n");
}
