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
fn a_message_that_kills_behind_a_deferred_one_becomes_a_dead_letter_and_takes_nothing_with_it() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(Order::TellBytes { to: "b".into(), count: 300_000 });
    // Of one packet, which stays for the sake of the others.
    a.does(Order::Feed { to: "b".into(), count: 3 });
    a.does(Order::Flush { to: "b".into() });
    let mut deadly = String::new();
    for _ in 0..3 {
        assert!(b.next().text.starts_with("300000 bytes"));
        b.does(Order::Defer);
        assert_eq!(b.next().text, "1");
        b.does(Order::Defer);
        let heard = b.next();
        assert_eq!(heard.text, "2");
        deadly = heard.id;
        kill_and_wait(&wd, "b");
    }
    let letters: Vec<watchdog_protocol::dead::DeadLetter> = wd.cli(&["dead", "ls", "--json"]).ok().json();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((letters[0].id.to_string(), letters[0].deaths.len()), (deadly, 3));
    // By each process, also after a new core.
    for _ in 0..2 {
        let large = b.next();
        assert!(large.text.starts_with("300000 bytes") && large.redelivered);
        b.does(Order::Defer);
        let first = b.next();
        assert_eq!((first.text.as_str(), first.redelivered), ("1", true));
        wd.kill_core();
        assert_eq!(b.next().text, "3");
        kill_and_wait(&wd, "b");
    }
    for _ in 0..3 {
        b.next();
    }
    a.does(say("b", "at last"));
    assert_eq!(b.next().text, "at last");
    wd.until("only the one in hand is left", |seen| seen.of("b").queued == 1);
}

#[test]
fn neither_what_is_deferred_nor_what_was_handled_is_blamed_for_a_death_with_nothing_in_hand() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(say("b", "deferred"));
    a.does(say("b", "handled"));
    for _ in 0..4 {
        assert_eq!(b.next().text, "deferred");
        b.does(Order::Defer);
        assert_eq!(b.next().text, "handled");
        // Nothing is in hand: what is deferred is not blamed, nor what was handled behind it.
        let _nothing = b.begin(Order::Next);
        wd.until_some("it is passed", || (lane(&wd, "a", "b").handled == 2).then_some(()));
        let before = wd.status().of("b").incarnation;
        b.begin(Order::Exit { code: 3 });
        wd.until("the next one is there", |seen| {
            seen.of("b").incarnation > before && seen.of("b").pid.is_some()
        });
        b.does(Order::Ready);
    }
    assert_eq!(wd.cli(&["dead", "ls"]).ok().stdout, "no dead letters\n");
}
