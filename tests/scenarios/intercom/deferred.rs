//! Messages that are done later than the next one is asked for.

use super::*;

#[test]
fn a_deferred_ask_is_answered_after_later_ones_of_its_sender() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let first = a.begin(ask("b", "slow?"));
    assert_eq!(b.next().text, "slow?");
    b.does(Order::Defer);
    let second = a.begin(ask("b", "quick?"));
    assert_eq!(b.next().text, "quick?");
    b.does(Order::Answer { text: "quick".into() });
    assert_eq!(second.shown(), Shown::Text("quick".into()));
    b.does(Order::Finish { text: "slow".into() });
    assert_eq!(first.shown(), Shown::Text("slow".into()));
    a.does(say("b", "at last"));
    assert_eq!(b.next().text, "at last");
    wd.until("only the one in hand is left", |seen| seen.of("b").queued == 1);
}

#[test]
fn what_was_deferred_at_a_death_comes_again_with_what_was_behind_it() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(Order::TellBytes { to: "b".into(), count: 300_000 });
    for text in ["one", "two", "three"] {
        a.does(say("b", text));
    }
    assert!(b.next().text.starts_with("300000 bytes"));
    b.does(Order::Defer);
    assert_eq!(b.next().text, "one");
    assert_eq!(b.next().text, "two");
    kill_and_wait(&wd, "b");
    let heard: Vec<Heard> = (0..4).map(|_| b.next()).collect();
    assert!(heard[0].text.starts_with("300000 bytes"));
    assert_eq!(texts(&heard[1..]), ["one", "two", "three"]);
    let again: Vec<bool> = heard.iter().map(|heard| heard.redelivered).collect();
    assert_eq!(again, [true, true, true, false]);
}

#[test]
fn a_message_that_kills_behind_a_deferred_one_takes_nothing_with_it() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(say("b", "deferred"));
    a.does(say("b", "deadly"));
    for _ in 0..4 {
        assert_eq!(b.next().text, "deferred");
        b.does(Order::Defer);
        assert_eq!(b.next().text, "deadly");
        kill_and_wait(&wd, "b");
    }
    wd.until_event("the log says why it stays", |event| {
        event.what == "dead-letter" && event.text.contains("deferred and not done")
    });
    assert_eq!(b.next().text, "deferred");
    assert_eq!(b.next().text, "deadly");
    wd.cli(&["kill", "b"]).ok();
    assert_eq!(wd.cli(&["dead", "ls"]).ok().stdout, "no dead letters\n");
}
