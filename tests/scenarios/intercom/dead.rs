//! Messages that kill their receiver every time.

use watchdog_protocol::dead::DeadLetter;
use watchdog_tests::Said;
use watchdog_tests::inject::Doomed;

use super::*;

fn letters(wd: &TestWatchdog) -> Vec<DeadLetter> {
    wd.cli(&["dead", "ls", "--json"]).ok().json()
}

/// Lets the receiver die of its next message, which is `text`.
fn die_of(wd: &TestWatchdog, text: &str) {
    assert_eq!(wd.puppet("b").next().text, text);
    kill_and_wait(wd, "b");
}

#[test]
fn a_message_that_killed_three_processes_is_a_dead_letter_and_the_rest_is_served() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    // Of one packet.
    a.does(Order::Feed { to: "b".into(), count: 4 });
    a.does(Order::Flush { to: "b".into() });
    assert_eq!(b.next().text, "1");
    let first = b.next();
    kill_and_wait(&wd, "b");
    die_of(&wd, "2");
    // It is no matter how they die.
    assert_eq!(b.next().text, "2");
    let before = wd.status().of("b").incarnation;
    b.begin(Order::Panic { text: "indigestible".into() });
    wd.until("the next one is there", |seen| seen.of("b").incarnation > before && seen.of("b").pid.is_some());
    b.does(Order::Ready);
    let third = b.next();
    assert_eq!((third.text.as_str(), third.redelivered), ("3", false));

    let letters = letters(&wd);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!((letter.sender.as_str(), letter.receiver.as_str()), ("a", "b"));
    assert_eq!((letter.message.as_deref(), letter.asked), (Some("Say"), false));
    assert_eq!(letter.id.to_string(), first.id);
    assert_eq!(letter.deaths.len(), 3);
    assert!(letter.deaths[2].cause.contains("101"), "{letter:?}");
    let shown = wd.cli(&["dead", "show", "b", &first.id]).ok().stdout;
    assert!(shown.contains("SIGKILL") && shown.contains(r#"{"Say":{"text":"2"}}"#), "{shown}");
    let event = wd.until_event("the log tells of it", |event| event.what == "dead-letter");
    assert!(event.text.contains(&first.id), "{event:?}");

    wd.cli(&["dead", "retry", "b", &first.id]).ok();
    assert_eq!(b.next().text, "4");
    let again = b.next();
    assert_eq!((again.text.as_str(), again.redelivered, again.sender.as_str()), ("2", true, "a"));
    assert_ne!(again.id, first.id);
    assert!(self::letters(&wd).is_empty());
}

#[test]
fn a_message_is_not_to_blame_for_what_an_operator_does() {
    let wd = ready_by_hand();
    let b = wd.puppet("b");
    wd.puppet("a").does(say("b", "patient"));
    for _ in 0..5 {
        assert_eq!(b.next().text, "patient");
        wd.cli(&["kill", "b"]).ok();
        wd.cli(&["start", "--no-wait", "b"]).ok();
        b.does(Order::Ready);
        wd.until("it is ready", |seen| seen.of("b").is_ready());
    }
    assert_eq!(b.next().text, "patient");
    assert!(letters(&wd).is_empty());
}

#[test]
fn a_message_waiting_at_the_head_is_not_to_blame_for_another_lanes() {
    let patient = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), puppet("z", ByItself), patient]);
    let b = wd.puppet("b");
    b.does(Order::Ready);
    wd.until("all are ready", Seen::all_ready);
    // Its lane is there before the other, and so the first of each process.
    wd.puppet("a").does(say("b", "hello"));
    assert_eq!(b.next().text, "hello");
    wd.puppet("z").does(say("b", "innocent"));
    assert_eq!(b.next().text, "innocent");
    wd.puppet("a").does(say("b", "guilty"));
    // From now on the page says taken and not done, whatever the others die of.
    kill_and_wait(&wd, "b");
    for _ in 0..3 {
        die_of(&wd, "guilty");
    }
    let letters = letters(&wd);
    assert!(letters.len() == 1 && letters[0].sender.as_str() == "a", "{letters:?}");
    let heard = b.next();
    assert_eq!((heard.text.as_str(), heard.redelivered), ("innocent", true));
}

#[test]
fn an_idempotent_ask_that_became_a_dead_letter_has_died() {
    let b = patient("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), b]);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    let question = a.begin(Order::AskPatiently { to: "b".into(), text: "sure?".into(), deadline: LONG });
    for _ in 0..3 {
        die_of(&wd, "sure?");
    }
    assert_eq!(question.fails(), "Died");
    let letters = letters(&wd);
    assert!(letters.len() == 1 && letters[0].asked, "{letters:?}");
    wd.cli(&["dead", "drop", "b", "--all"]).ok();
    assert!(self::letters(&wd).is_empty());
    // Nothing is in its way.
    let question = a.begin(Order::AskPatiently { to: "b".into(), text: "now?".into(), deadline: LONG });
    assert_eq!(b.next().text, "now?");
    b.does(Order::Answer { text: "now".into() });
    assert_eq!(question.shown(), Shown::Text("now".into()));
}

#[test]
fn a_large_dead_letter_comes_back_whole() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(Order::TellBytes { to: "b".into(), count: 300_000 });
    a.does(say("b", "behind it"));
    for _ in 0..3 {
        assert!(b.next().text.starts_with("300000 bytes"));
        kill_and_wait(&wd, "b");
    }
    assert_eq!(b.next().text, "behind it");
    let letter = letters(&wd).remove(0);
    assert!(letter.size > 300_000, "{letter:?}");
    wd.cli(&["dead", "retry", "b", "--all"]).ok();
    let again = b.next();
    assert!(again.text.starts_with("300000 bytes") && again.redelivered, "{again:?}");
}

#[test]
fn an_unknown_dead_letter_is_a_usage_error_with_a_hint() {
    let wd = ready_by_hand();
    let said = wd.cli(&["dead", "drop", "b", "00000000000000aa-7"]).with_code(2);
    assert!(said.stderr.contains("00000000000000aa-7") && said.stderr.contains("dead ls b"), "{said}");
    wd.cli(&["dead", "show", "b", "7"]).with_code(2);
}

/// Each sync and rename of the core while it moves a letter, and each of its notes, one after the other.
#[test]
fn a_core_killed_at_any_step_of_the_move_neither_loses_nor_doubles_the_message() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let mut killed = 0;
    for call in ["fsync", "rename", "pwrite64"] {
        for nth in 1.. {
            let text = format!("{call} {nth}");
            a.does(say("b", &text));
            a.does(say("b", "behind it"));
            die_of(&wd, &text);
            die_of(&wd, &text);
            assert_eq!(b.next().text, text);
            let cores = wd.status().watchdog.cores;
            let doomed = Doomed::at(wd.core(), call, nth);
            kill_and_wait(&wd, "b");
            drop(doomed);
            let heard = b.next();
            assert_eq!((heard.text.as_str(), heard.redelivered), ("behind it", false), "{text}");
            let letters = letters(&wd);
            assert_eq!(letters.len(), 1, "{text}: {letters:?}");
            let deaths: Vec<_> = letters[0].deaths.iter().map(|death| death.incarnation).collect();
            assert_eq!(deaths.len(), 3, "{text}: {letters:?}");
            wd.cli(&["dead", "drop", "b", "--all"]).ok();
            if wd.status().watchdog.cores == cores {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 4, "it syncs file and folder, renames, and notes; it was killed at {killed}");
}

/// Of two letters the core drops one, and dies.
fn a_core_that_dies_over_a_drop(drop: impl Fn(&[String]) -> Vec<String>) -> (TestWatchdog, Said) {
    let b = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), b]);
    wd.puppet("b").does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    for text in ["1", "2"] {
        wd.puppet("a").does(say("b", text));
        for _ in 0..3 {
            die_of(&wd, text);
        }
    }
    let ids: Vec<_> = letters(&wd).iter().map(|letter| letter.id.to_string()).collect();
    assert_eq!(ids.len(), 2);
    let cores = wd.status().watchdog.cores;
    let doomed = Doomed::at(wd.core(), "unlink", 2);
    let said = wd.cli(&[vec!["dead".to_owned(), "drop".to_owned(), "b".to_owned()], drop(&ids)].concat());
    std::mem::drop(doomed);
    assert_eq!(wd.status().watchdog.cores, cores + 1, "it was not killed: {said}");
    (wd, said)
}

#[test]
fn a_core_that_dies_over_letters_that_were_named_is_followed_by_one_that_drops_the_rest() {
    let (wd, said) = a_core_that_dies_over_a_drop(<[String]>::to_vec);
    assert!(said.with_code(0).stdout.contains("2 dead letters dropped"));
    assert!(letters(&wd).is_empty());
}

#[test]
fn a_core_that_dies_over_all_letters_is_followed_by_one_that_says_what_is_left() {
    let (wd, said) = a_core_that_dies_over_a_drop(|_| vec!["--all".to_owned()]);
    let unknown = said.with_code(70);
    assert!(unknown.stderr.contains("1 dead letter of `b` is there"), "{unknown}");
    assert_eq!(letters(&wd).len(), 1);
    wd.cli(&["dead", "drop", "b", "--all"]).ok();
    assert!(letters(&wd).is_empty());
}
