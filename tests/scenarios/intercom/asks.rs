//! What comes of an ask.

use super::*;

#[test]
fn an_ask_in_hand_at_a_death_has_died_and_is_not_delivered_again() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let taken = a.begin(ask("b", "taken"));
    assert_eq!(b.next().text, "taken");
    let waiting = a.begin(ask("b", "waiting"));
    kill_and_wait(&wd, "b");
    assert_eq!(taken.fails(), "Died");
    // The one behind it lives on.
    let heard = b.next();
    assert_eq!((heard.text.as_str(), heard.redelivered), ("waiting", false));
    b.does(Order::Answer { text: "here".into() });
    assert_eq!(waiting.shown(), Shown::Text("here".into()));
}

#[test]
fn an_answer_sent_before_a_death_arrives() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let question = a.begin(ask("b", "what?"));
    b.next();
    b.does(Order::Answer { text: "that".into() });
    wd.kill("b", Signal::SIGKILL);
    assert_eq!(question.shown(), Shown::Text("that".into()));
}

#[test]
fn an_idempotent_ask_lives_through_the_receivers_restart() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself), patient("b", ByHand)]);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    let question = a.begin(Order::AskPatiently { to: "b".into(), text: "sure?".into(), deadline: LONG });
    let first = b.next();
    kill_and_wait(&wd, "b");
    let again = b.next();
    assert_eq!((again.redelivered, again.id), (true, first.id));
    b.does(Order::Answer { text: "quite sure".into() });
    assert_eq!(question.shown(), Shown::Text("quite sure".into()));
}

#[test]
fn nobody_notices_a_restart_whose_asks_are_idempotent() {
    let plan = restart::Plan { callers: 10, rate: 100, restarts: 5 };
    let shown = restart::restart(plan).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(shown.calls >= 10 * 5 * 20, "{shown:?}");
}

#[test]
fn a_reply_that_is_dropped_is_an_answer() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let question = a.begin(ask("b", "what?"));
    b.next();
    b.does(Order::DropReply);
    assert_eq!(question.fails(), "Dropped");
}

#[test]
fn an_ask_that_is_not_answered_in_time_is_late_and_skipped_when_its_turn_comes() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    assert_eq!(a.fails(Order::Ask { to: "b".into(), text: "quick!".into(), deadline: SHORT }), "Late");
    a.does(say("b", "after it"));
    assert_eq!(b.next().text, "after it");
    // Also when it was taken in time, and is not answered.
    let next = b.begin(Order::Next);
    assert_eq!(a.fails(Order::Ask { to: "b".into(), text: "slow".into(), deadline: SHORT }), "Late");
    a.does(say("b", "the end"));
    match next.shown() {
        Shown::Message(heard) => assert!(heard.text == "slow" || heard.text == "the end", "{heard:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_services_that_ask_each_other_meet_their_deadlines_and_no_standstill() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand), puppet("b", ByHand)]);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(Order::Ready);
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    let from_a = a.begin(ask("b", "from a"));
    let from_b = b.begin(ask("a", "from b"));
    // Each has the other's ask in hand while its own is open.
    assert_eq!(a.next().text, "from b");
    assert_eq!(b.next().text, "from a");
    a.does(Order::Answer { text: "to b".into() });
    b.does(Order::Answer { text: "to a".into() });
    assert_eq!(from_a.shown(), Shown::Text("to a".into()));
    assert_eq!(from_b.shown(), Shown::Text("to b".into()));
    assert_eq!(a.fails(Order::Ask { to: "b".into(), text: "again".into(), deadline: SHORT }), "Late");
}
