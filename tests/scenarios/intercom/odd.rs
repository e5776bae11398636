//! Odd cases of the intercom: what one does not do on purpose, and what must come of it all the same.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_service_has_a_lane_to_itself_like_to_any_other() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand)]);
    let a = wd.puppet("a");
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    a.does(say("a", "note to self"));
    let heard = a.next();
    assert_eq!((heard.text.as_str(), heard.sender.as_str()), ("note to self", "a"));
    let question = a.begin(ask("a", "who am I?"));
    assert_eq!(a.next().text, "who am I?");
    a.does(Order::Answer { text: "a".into() });
    assert_eq!(question.shown(), Shown::Text("a".into()));
    // Its own death is its receiver's too.
    a.does(say("a", "for later"));
    kill_and_wait(&wd, "a");
    assert_eq!(a.next().text, "for later");
    wd.kill_core();
    a.does(say("a", "by a new core"));
    assert_eq!(a.next().text, "by a new core");
    assert_eq!(inbox(&wd, "a").lanes.len(), 1);
}

#[test]
fn a_lane_to_itself_ends_with_the_permission() {
    let selfish = |rule: &str| [puppet("a", ByHand).key(rule)];
    let wd = TestWatchdog::run(&selfish("use = [\"*\"]"));
    let a = wd.puppet("a");
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    a.does(say("a", "last words"));
    in_force(&wd, &selfish("use = []"));
    assert_eq!(a.fails(say("a", "no more")), "Denied");
    assert_eq!(a.next().text, "last words");
    let _nothing = a.begin(Order::Next);
    wd.until_some("the lane is gone", || inbox(&wd, "a").lanes.is_empty().then_some(()));
}

#[test]
fn a_hundred_senders_to_one_receiver_are_each_heard_in_order_also_over_its_death_and_the_cores() {
    const SENDERS: u32 = 100;
    let sender = puppet("a", ByItself).key(&format!("instances = {SENDERS}"));
    let b = puppet("b", ByItself).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = ready(&[sender, b]);
    let said = |round: u32| {
        for n in 1..=SENDERS {
            wd.puppet(&format!("a@{n}")).does(say("b", &round.to_string()));
        }
    };
    said(1);
    wd.cli(&["stop", "b"]).ok();
    said(2);
    wd.kill_core();
    wd.cli(&["start", "b"]).ok();
    said(3);
    let heard = wd.until_some("all is heard", || {
        let heard = wd.puppet("b").heard();
        (heard.len() >= 3 * SENDERS as usize).then_some(heard)
    });
    assert_eq!(heard.len(), 3 * SENDERS as usize);
    for n in 1..=SENDERS {
        let sender = format!("a@{n}");
        let of = heard.iter().filter(|heard| heard.sender == sender);
        assert_eq!(of.map(|heard| heard.text.as_str()).collect::<Vec<_>>(), ["1", "2", "3"], "{sender}");
    }
    assert_eq!(inbox(&wd, "b").lanes.len(), SENDERS as usize);
}

#[test]
fn max_message_is_the_last_length_that_goes_and_the_first_that_does_not_comes_back() {
    let mut wd = TestWatchdog::idle();
    wd.configure("max_message = \"64KiB\"", &[puppet("a", ByItself), puppet("b", ByItself)]);
    wd.run_again();
    wd.until("both are ready", Seen::all_ready);
    let a = wd.puppet("a");
    // One byte of variant, three of length.
    let most = 64 * 1024 - 4;
    a.does(Order::TellBytes { to: "b".into(), count: most });
    assert_eq!(a.fails(Order::TellBytes { to: "b".into(), count: most + 1 }), "TooLarge");
    assert_eq!(a.text(ask("b", "there?")), "there?");
    let heard = wd.puppet("b").heard();
    assert!(heard[0].text.starts_with(&format!("{most} bytes")) && heard.len() == 2, "{:?}", texts(&heard));
}

#[test]
fn a_deadline_of_nothing_is_a_try_at_once() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let now = Some(Duration::ZERO);
    a.does(Order::Tell { to: "b".into(), text: "at once".into(), deadline: now });
    assert_eq!(a.fails(Order::Ask { to: "b".into(), text: "too late".into(), deadline: now }), "Late");
    assert_eq!(b.next().text, "at once");
    a.does(say("b", "next"));
    // The ask was over before it could be taken.
    assert_eq!(b.next().text, "next");
}

#[test]
fn what_instances_that_were_scaled_away_had_queued_waits_for_them() {
    let worker = puppet("worker", ByItself).key("instances = 2");
    let wd = ready(&[puppet("a", ByItself), worker]);
    let a = wd.puppet("a");
    a.does(say("worker@2", "1"));
    wd.until_some("it is heard", || wd.puppet("worker@2").heard().first().cloned());
    wd.cli(&["scale", "worker", "1"]).ok();
    a.does(say("worker@2", "2"));
    let late = a.begin(ask("worker@2", "3"));
    wd.until("they wait", |seen| seen.of("worker@2").queued == 2);
    wd.cli(&["scale", "worker", "2"]).ok();
    assert_eq!(late.shown(), Shown::Text("3".into()));
    assert_eq!(texts(&wd.puppet("worker@2").heard()), ["1", "2", "3"]);
    // And what one has sent before it went is served.
    wd.puppet("worker@2").does(say("a", "from two"));
    wd.cli(&["scale", "worker", "1"]).ok();
    wd.until_some("it is heard", || {
        wd.puppet("a").heard().last().filter(|last| last.text == "from two").cloned()
    });
}

#[test]
fn a_name_of_all_instances_is_no_peer_and_says_which_are() {
    let wd = ready(&[puppet("a", ByItself), puppet("worker", ByItself).key("instances = 2")]);
    match wd.puppet("a").order(say("worker", "whoever")) {
        Shown::Failed { kind, text } => {
            assert!(kind == "NoSuchService" && text.contains("worker@"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_permission_taken_and_given_ten_times_loses_and_doubles_nothing() {
    let rules = |allowed: bool| {
        let key = if allowed { "use = [\"*\"]" } else { "use = []" };
        let free = |entry: Entry| entry.key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
        [free(puppet("a", ByItself).key(key)), free(puppet("b", ByItself))]
    };
    let wd = ready(&rules(true));
    let mut expected = BTreeSet::new();
    for round in 0..10 {
        let text = round.to_string();
        wd.puppet("a").does(say("b", &text));
        expected.insert(text);
        if round % 3 == 0 {
            wd.cli(&["stop", "b"]).ok();
            let text = format!("{round} while it is down");
            wd.puppet("a").does(say("b", &text));
            expected.insert(text);
        }
        in_force(&wd, &rules(false));
        wd.until_some("it is denied", || (wd.puppet("a").order(say("b", "no")) != Shown::Done).then_some(()));
        match round % 4 {
            0 => drop(wd.kill_core()),
            1 => drop(wd.cli(&["start", "b"]).ok()),
            _ => {}
        }
        in_force(&wd, &rules(true));
        // A handle is taken anew by a new process.
        kill_and_wait(&wd, "a");
    }
    wd.cli(&["start", "b"]).ok();
    wd.until_some("one lane is left", || {
        let lanes = inbox(&wd, "b").lanes;
        (lanes.iter().all(|lane| lane.queued == 0) && lanes.len() <= 1).then_some(())
    });
    let heard = texts(&wd.puppet("b").heard());
    assert_eq!(heard.len(), expected.len(), "{heard:?}");
    assert_eq!(heard.iter().cloned().collect::<BTreeSet<_>>(), expected);
    // In the order they were told.
    let first_of = |round: usize| heard.iter().position(|text| *text == round.to_string());
    assert!((1..10).all(|round| first_of(round - 1) < first_of(round)), "{heard:?}");
}

#[test]
fn an_ask_that_is_open_when_its_permission_goes_is_answered_and_died_when_its_receiver_does() {
    let rules = |rule: &str| {
        let b = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
        [puppet("a", ByItself), b.key(rule)]
    };
    let wd = TestWatchdog::run(&rules("offer = [\"a\"]"));
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    let taken = a.begin(ask("b", "taken"));
    assert_eq!(b.next().text, "taken");
    let queued = a.begin(ask("b", "queued"));
    wd.until("it is queued", |seen| seen.of("b").queued == 2);
    in_force(&wd, &rules("offer = []"));
    assert_eq!(a.fails(ask("b", "denied")), "Denied");
    kill_and_wait(&wd, "b");
    assert_eq!(taken.fails(), "Died");
    assert_eq!(b.next().text, "queued");
    b.does(Order::Answer { text: "in spite of it".into() });
    assert_eq!(queued.shown(), Shown::Text("in spite of it".into()));
}

#[test]
fn a_dead_letter_of_a_sender_that_may_send_no_more_stays_and_says_why() {
    let rules = |rule: &str| {
        let b = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
        [puppet("a", ByItself).key(rule), b]
    };
    let wd = TestWatchdog::run(&rules("use = [\"*\"]"));
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    a.does(say("b", "deadly"));
    a.does(say("b", "behind it"));
    assert_eq!(b.next().text, "deadly");
    kill_and_wait(&wd, "b");
    in_force(&wd, &rules("use = []"));
    for _ in 0..2 {
        assert_eq!(b.next().text, "deadly");
        kill_and_wait(&wd, "b");
    }
    assert_eq!(b.next().text, "behind it");
    let said = wd.cli(&["dead", "retry", "b", "--all"]);
    assert!(said.code != 0 && said.stderr.contains("no lane") && said.stderr.contains("hint"), "{said}");
    assert!(wd.cli(&["dead", "ls"]).ok().stdout.contains('a'));
}

#[test]
fn an_unregistered_receiver_ends_open_asks_says_what_it_drops_and_comes_back_without_it() {
    let wd = ready(&[puppet("a", ByItself)]);
    register(&wd, &puppet("late", ByItself)).ok();
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("late", "hello")), "hello");
    wd.cli(&["stop", "late"]).ok();
    let question = a.begin(ask("late", "anybody?"));
    a.does(say("late", "never heard"));
    wd.until("both wait", |seen| seen.of("late").queued == 2);
    let said = wd.cli(&["unregister", "late"]).ok();
    assert!(said.stdout.contains("2 messages that waited for it are dropped"), "{said}");
    wd.until_event("the log tells of it", |event| event.what == "lane" && event.text.contains("of a: 2"));
    assert_eq!(question.fails(), "NoSuchService");
    register(&wd, &puppet("late", ByItself)).ok();
    // The handle is of the one that is gone.
    assert_eq!(a.fails(say("late", "it's me")), "NoSuchService");
    kill_and_wait(&wd, "a");
    assert_eq!(wd.puppet("a").text(ask("late", "it's me")), "it's me");
    assert_eq!(texts(&wd.puppet("late").heard()), ["hello", "it's me"]);
}

#[test]
fn a_receiver_that_is_halted_loses_nothing_and_who_waits_for_room_goes_on_with_it() {
    let b = puppet("b", ByItself).key("lane_size = \"8KiB\"");
    let wd = ready(&[puppet("a", ByItself), b]);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    assert_eq!(a.text(ask("b", "hello")), "hello");
    let process = wd.status().of("b").process();
    process.signal(Signal::SIGSTOP);
    wd.until_some("it is halted", || process.is_stopped().then_some(()));
    let mut told = 0;
    while a.order(Order::TryTell { to: "b".into(), text: told.to_string() }) == Shown::Done {
        told += 1;
    }
    let mut waiting = a.begin(Order::Tell { to: "b".into(), text: "waited".into(), deadline: LONG });
    wd.kill_core();
    assert!(waiting.is_open());
    process.signal(Signal::SIGCONT);
    assert_eq!(waiting.shown(), Shown::Done);
    let heard = wd.until_some("all is heard", || {
        let heard = texts(&b.heard());
        (heard.last().map(String::as_str) == Some("waited")).then_some(heard)
    });
    let expected: Vec<_> = (0..told).map(|n| n.to_string()).collect();
    assert_eq!(heard[1..heard.len() - 1], expected);
}

#[test]
fn a_sender_that_dies_waiting_for_room_leaves_what_it_told_and_no_more() {
    let small = puppet("b", ByHand).key("lane_size = \"8KiB\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), small]);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    let mut told = 0;
    while a.order(Order::TryTell { to: "b".into(), text: told.to_string() }) == Shown::Done {
        told += 1;
    }
    let _waiting = a.begin(Order::Tell { to: "b".into(), text: "never".into(), deadline: LONG });
    kill_and_wait(&wd, "a");
    for n in 0..told {
        assert_eq!(b.next().text, n.to_string());
    }
    wd.puppet("a").does(say("b", "anew"));
    let heard = b.next();
    assert_eq!((heard.text.as_str(), heard.redelivered), ("anew", false));
}

#[test]
fn a_sender_that_shuts_its_lane_loses_nothing_it_sent_and_its_next_process_has_another() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(say("b", "before"));
    a.does(Order::ShutLanes { way: Way::Out });
    assert_eq!(a.fails(say("b", "after")), "Denied");
    assert_eq!(b.next().text, "before");
    let next = b.begin(Order::Next);
    wd.until_some("the lane is gone", || inbox(&wd, "b").lanes.is_empty().then_some(()));
    kill_and_wait(&wd, "a");
    wd.puppet("a").does(say("b", "anew"));
    match next.shown() {
        Shown::Message(heard) => assert_eq!(heard.text, "anew"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_receiver_that_shuts_its_lanes_is_served_what_is_queued_and_heard_again_by_another() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    for text in ["1", "2"] {
        a.does(say("b", text));
    }
    assert_eq!(b.next().text, "1");
    b.does(Order::ShutLanes { way: Way::Out });
    kill_and_wait(&wd, "b");
    wd.until_event("the log tells of it", |event| event.what == "lane" && event.text.contains("Shutdown"));
    assert_eq!(a.fails(say("b", "no more")), "Denied");
    let again = b.next();
    assert_eq!((again.text.as_str(), again.redelivered), ("1", true));
    kill_and_wait(&wd, "a");
    let question = wd.puppet("a").begin(ask("b", "3"));
    assert_eq!(b.next().text, "2");
    assert_eq!(b.next().text, "3");
    b.does(Order::Answer { text: "heard".into() });
    assert_eq!(question.shown(), Shown::Text("heard".into()));
}

#[test]
fn lanes_that_nobody_has_read_are_few_however_often_their_sender_shuts_them() {
    let a = puppet("a", ByItself).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = ready(&[a, puppet("b", ByItself)]);
    wd.cli(&["stop", "b"]).ok();
    let refused = (0..20).find_map(|round: u32| {
        let shown = wd.puppet("a").order(say("b", &round.to_string()));
        wd.puppet("a").does(Order::ShutLanes { way: Way::Out });
        kill_and_wait(&wd, "a");
        (shown != Shown::Done).then_some((round, shown))
    });
    let (told, refused) = refused.expect("it ends");
    match refused {
        Shown::Failed { kind, text } => assert!(kind == "Failed" && text.contains("older lanes"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(inbox(&wd, "b").lanes.len(), told as usize);
    assert_eq!(told, 8);
    // What is in them is served, and then there is room.
    wd.cli(&["start", "b"]).ok();
    wd.until_some("they are gone", || inbox(&wd, "b").lanes.is_empty().then_some(()));
    wd.puppet("a").does(say("b", "again"));
    let expected: Vec<_> = (0..told).map(|round| round.to_string()).chain(["again".to_owned()]).collect();
    wd.until_some("all is heard", || (texts(&wd.puppet("b").heard()) == expected).then_some(()));
}
