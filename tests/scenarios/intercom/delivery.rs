//! What is told arrives, in order, whoever dies.

use super::*;

#[test]
fn ic_3_a_message_to_a_service_not_yet_started_arrives() {
    let wd = TestWatchdog::run(&[
        puppet("a", ByItself),
        // It starts when the program it requires is ready, which is when the file is there.
        watchdog_tests::probe("gate", "mirror", &[]).key("ready = { exec = [\"test\", \"-e\", \"open\"] }"),
        puppet("b", ByItself).key("requires = [\"gate\"]"),
    ]);
    wd.until("the sender is ready", |seen| seen.of("a").is_ready());
    let a = wd.puppet("a");
    a.does(say("b", "early"));
    let question = a.begin(ask("b", "are you there?"));
    assert_eq!(wd.status().of("b").starts, 0);
    std::fs::write(wd.path("open"), "").expect("a file");
    assert_eq!(question.shown(), Shown::Text("are you there?".into()));
    let heard = wd.puppet("b").heard();
    assert_eq!(texts(&heard), ["early", "are you there?"]);
    assert!(!heard[0].redelivered);
}

#[test]
fn relay_a_message_arrives_though_sender_and_receiver_both_died_after_it_was_sent() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(say("b", "my last word"));
    // It waits in the lane, at a receiver that did not look yet.
    let receiver = wd.kill("b", Signal::SIGKILL);
    wd.cli(&["kill", "a"]).ok();
    wd.kill_core();
    b.does(Order::Ready);
    wd.until("the receiver is back", |seen| seen.of("b").is_ready_after(receiver));
    let heard = b.next();
    assert_eq!((heard.text.as_str(), heard.sender.as_str()), ("my last word", "a"));
    assert!(!heard.redelivered, "nobody had it in hand");
}

#[test]
fn what_was_in_hand_at_a_death_is_delivered_again_and_marked() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    for text in ["one", "two", "three"] {
        a.does(say("b", text));
    }
    assert_eq!(b.next().text, "one");
    let first = b.next();
    assert_eq!((first.text.as_str(), first.redelivered), ("two", false));
    kill_and_wait(&wd, "b");
    let again = b.next();
    assert_eq!((again.text.as_str(), again.redelivered, &again.id), ("two", true, &first.id));
    let last = b.next();
    assert_eq!((last.text.as_str(), last.redelivered), ("three", false));
    assert_eq!(lane(&wd, "a", "b").redelivered, 1);
}

#[test]
fn what_was_packed_into_one_packet_is_resumed_at_the_right_message() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(Order::Feed { to: "b".into(), count: 5 });
    assert_eq!(wd.puppet("b").heard(), []);
    a.does(Order::Flush { to: "b".into() });
    for expected in ["1", "2"] {
        assert_eq!(b.next().text, expected);
    }
    kill_and_wait(&wd, "b");
    let again = b.next();
    assert_eq!((again.text.as_str(), again.redelivered), ("2", true));
    for expected in ["3", "4", "5"] {
        let heard = b.next();
        assert_eq!((heard.text.as_str(), heard.redelivered), (expected, false));
    }
}

#[test]
fn numbers_go_on_through_restarts_of_both_sides() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let mut ids = Vec::new();
    for round in 0..3 {
        a.does(say("b", &round.to_string()));
        ids.push(b.next().id);
        wd.cli(&["restart", "a"]).ok();
        kill_and_wait(&wd, "b");
        assert_eq!(b.next().id, ids[round], "it was in hand");
    }
    let (epochs, numbers): (Vec<&str>, Vec<u64>) = ids
        .iter()
        .map(|id| id.rsplit_once('-').expect("epoch and number"))
        .map(|(epoch, number)| (epoch, number.parse::<u64>().expect("a number")))
        .unzip();
    assert!(epochs.windows(2).all(|pair| pair[0] == pair[1]), "{epochs:?}");
    assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
}

#[test]
fn a_large_message_in_the_lane_outlives_its_sender() {
    let wd = ready_by_hand();
    wd.puppet("a").does(Order::TellBytes { to: "b".into(), count: 1024 * 1024 });
    wd.cli(&["kill", "a"]).ok();
    kill_and_wait(&wd, "b");
    assert!(wd.puppet("b").next().text.starts_with("1048576 bytes"));
}

#[test]
fn what_is_told_to_a_counter_is_counted_once_whoever_dies() {
    let wd = ready(&[
        puppet("a", ByItself),
        sample("counter").settings("step = 2").key("restart_delay = \"0s\"").key("restart_limit = \"off\""),
    ]);
    let a = wd.puppet("a");
    for round in 0..10 {
        for _ in 0..10 {
            a.does(Order::Add { to: "counter".into(), n: 1 });
        }
        if round % 2 == 0 {
            wd.kill("counter", Signal::SIGKILL);
        } else {
            wd.kill_core();
        }
    }
    wd.until("all is handled", |seen| seen.of("counter").is_ready() && seen.of("counter").queued == 0);
    assert_eq!(a.text(Order::Total { to: "counter".into() }), "200");
}

#[test]
fn ic_3_no_number_is_lost_or_out_of_order_though_receiver_core_and_senders_are_killed() {
    let plan = Plan { messages: 9000, receiver_kills: 8, core_kills: 3, sender_kills: 3, seed: 1 };
    let shown = proof::intercom(plan).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(shown.arrived >= plan.messages, "{shown:?}");
}
