//! Messages between services, and what they survive.

use std::time::Duration;

use nix::sys::signal::Signal;
use watchdog_protocol::status::{InboxStatus, LaneStatus};
use watchdog_tests::proof::{self, Plan};
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Heard, Manner, Order, Shown, puppet};
use watchdog_tests::{Entry, Seen, TestWatchdog, sample};

/// Long enough never to be the reason.
const LONG: Option<Duration> = Some(Duration::from_secs(50));

/// So short that it passes while one looks.
const SHORT: Option<Duration> = Some(Duration::from_millis(50));

#[test]
fn ic_1_a_registered_service_has_an_inbox_before_anyone_asks_for_it() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let inbox = inbox(&wd, "b");
    assert_eq!((inbox.handles, inbox.lanes.len()), (0, 0));
    wd.puppet("a").does(Order::Intercom { to: "b".into() });
    assert_eq!(self::inbox(&wd, "b").handles, 1);
    assert_eq!(wd.status().of("b").handles, 1);
}

#[test]
fn ic_1_a_service_that_is_down_has_its_inbox_all_the_same() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    wd.cli(&["stop", "b"]).ok();
    wd.puppet("a").does(say("b", "hello"));
    let lane = lane(&wd, "a", "b");
    assert_eq!((lane.queued, lane.handled), (1, 0));
    assert!(lane.held_ms.is_some());
}

#[test]
fn ic_2_any_service_asks_for_a_handle_to_any_other_at_run_time() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    std::fs::write(wd.path("late.toml"), puppet("late", ByItself).render(wd.folder())).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "late"), ("late", "b")] {
        assert_eq!(wd.puppet(from).text(ask(to, "who?")), "who?", "{from} asks {to}");
        assert_eq!(wd.puppet(to).heard().last().expect("it heard").sender, from);
    }
}

#[test]
fn ic_2_an_unknown_name_is_an_error_at_once() {
    let wd = ready(&[puppet("a", ByItself)]);
    assert_eq!(wd.puppet("a").fails(ask("nobody", "who?")), "NoSuchService");
    assert_eq!(wd.puppet("a").fails(ask("No Name At All", "who?")), "NoSuchService");
}

#[test]
fn ic_2_a_plain_program_has_no_inbox() {
    let wd = ready(&[puppet("a", ByItself), watchdog_tests::probe("p", "mirror", &[])]);
    assert_eq!(wd.puppet("a").fails(ask("p", "who?")), "NoInbox");
}

#[test]
fn ic_2_what_the_rules_of_one_side_forbid_is_denied() {
    let wd = ready(&[
        puppet("a", ByItself).key("use = [\"c*\"]"),
        puppet("b", ByItself),
        puppet("closed", ByItself).key("offer = [\"b\"]"),
    ]);
    assert_eq!(wd.puppet("a").fails(ask("b", "who?")), "Denied");
    assert_eq!(wd.puppet("a").fails(ask("closed", "who?")), "Denied");
    assert_eq!(wd.puppet("b").text(ask("closed", "who?")), "who?");
}

#[test]
fn ic_3_a_handle_taken_before_a_kill_works_after_it() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("b", "before")), "before");
    let killed = wd.kill("b", Signal::SIGKILL);
    // Waits for the next one: it is queued, and nobody had taken it.
    assert_eq!(a.text(ask("b", "after")), "after");
    wd.until("the next one is ready", |seen| seen.of("b").is_ready_after(killed));
    let lane = lane(&wd, "a", "b");
    assert_eq!(lane.handed_over, 2);
    assert_eq!(inbox(&wd, "b").handles, 1);
}

#[test]
fn ic_3_a_handle_works_after_the_core_was_killed_and_while_it_is_away() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("b", "before")), "before");
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    assert_eq!(a.text(ask("b", "without a core")), "without a core");
    core.signal(Signal::SIGKILL);
    wd.until("the next core is there", |seen| seen.watchdog.core_pid != core.pid);
    assert_eq!(a.text(ask("b", "after")), "after");
    // And handles are made anew by the new core.
    assert_eq!(wd.puppet("b").text(ask("a", "back")), "back");
}

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

#[test]
fn a_full_lane_gives_the_message_back_and_nothing_is_lost() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let mut sent = 0_u32;
    let kind = loop {
        match a.order(Order::TellMany { to: "b".into(), count: 500 }) {
            Shown::Done => sent += 500,
            Shown::Failed { kind, text } => {
                // It says how many went before.
                sent += text.parse::<u32>().expect("how many were told");
                break kind;
            }
            other => panic!("{other:?}"),
        }
        assert!(sent < 1_000_000, "a lane without a bound");
    };
    assert_eq!(kind, "Full");
    assert_eq!(a.fails(Order::TryTell { to: "b".into(), text: "no room".into() }), "Full");
    assert_eq!(a.fails(Order::Ask { to: "b".into(), text: "no room".into(), deadline: SHORT }), "NotSent");
    let before = lane(&wd, "a", "b");
    assert_eq!(before.queued, u64::from(sent));
    assert!(before.full >= 1);
    // With room again it goes on, in order.
    for n in 0..3 {
        assert_eq!(b.next().text, (n % 500 + 1).to_string());
    }
    a.does(Order::Tell { to: "b".into(), text: "room".into(), deadline: LONG });
    let mut last = String::new();
    for _ in 3..=sent {
        last = b.next().text;
    }
    assert_eq!(last, "room");
}

#[test]
fn a_message_beyond_the_packet_goes_beside_it_and_one_beyond_the_bound_is_too_large() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    let sizes = [0, 1, 60 * 1024, 64 * 1024, 65 * 1024, 1024 * 1024, 15 * 1024 * 1024];
    for count in sizes {
        a.does(Order::TellBytes { to: "b".into(), count });
    }
    assert_eq!(a.fails(Order::TellBytes { to: "b".into(), count: 17 * 1024 * 1024 }), "TooLarge");
    assert_eq!(a.text(ask("b", "done?")), "done?");
    let heard = wd.puppet("b").heard();
    let expected: Vec<String> = sizes
        .iter()
        .map(|count| format!("{count} bytes, sum {}", (0..*count).map(|n| (n % 251) as u64).sum::<u64>()))
        .chain(["done?".to_owned()])
        .collect();
    assert_eq!(texts(&heard), expected);
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
fn a_flooder_delays_nobody_else() {
    let wd =
        TestWatchdog::run(&[puppet("flooder", ByItself), puppet("polite", ByItself), puppet("b", ByHand)]);
    let b = wd.puppet("b");
    b.does(Order::Ready);
    wd.until("all are ready", Seen::all_ready);
    wd.puppet("flooder").does(Order::TellMany { to: "b".into(), count: 400 });
    wd.puppet("polite").does(say("b", "please"));
    wd.until("all is queued", |seen| seen.of("b").queued == 401);
    // Its turn comes after one message of the other at most.
    let first = [b.next().sender, b.next().sender, b.next().sender];
    assert!(first.contains(&"polite".to_owned()), "{first:?}");
}

#[test]
fn what_a_flooder_packed_does_not_take_more_than_its_turn() {
    let wd =
        TestWatchdog::run(&[puppet("flooder", ByItself), puppet("polite", ByItself), puppet("b", ByHand)]);
    let b = wd.puppet("b");
    b.does(Order::Ready);
    wd.until("all are ready", Seen::all_ready);
    let flooder = wd.puppet("flooder");
    flooder.does(Order::Feed { to: "b".into(), count: 300 });
    flooder.does(Order::Flush { to: "b".into() });
    wd.puppet("polite").does(say("b", "please"));
    wd.until("all is queued", |seen| seen.of("b").queued == 301);
    let first = [b.next().sender, b.next().sender, b.next().sender];
    assert!(first.contains(&"polite".to_owned()), "{first:?}");
}

#[test]
fn a_sender_of_another_contract_is_told_and_what_is_queued_stays() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    assert_eq!(wd.puppet("a").fails(Order::TellWrong { to: "b".into() }), "ContractMismatch");
    assert_eq!(wd.puppet("a").fails(Order::Total { to: "b".into() }), "ContractMismatch");
    let lane = lane(&wd, "a", "b");
    assert!(lane.mismatch.is_some_and(|text| text.contains("Say")));
    assert_eq!(wd.puppet("b").heard(), []);
}

#[test]
fn a_receiver_that_comes_back_with_another_contract_is_noticed_and_its_queue_waits_for_the_right_one() {
    let mut wd = TestWatchdog::idle();
    let (link, fresh) = (wd.path("program"), wd.path("fresh-link"));
    let point_at = |binary: &str| {
        std::os::unix::fs::symlink(watchdog_tests::binary(binary), &fresh).expect("a link");
        std::fs::rename(&fresh, &link).expect("the link takes its place");
    };
    point_at("probe-puppet");
    wd.configure("", &[puppet("a", ByItself), puppet("b", ByItself).exec(&link)]);
    wd.run_again();
    wd.until("both are ready", Seen::all_ready);
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("b", "hello")), "hello");
    wd.cli(&["stop", "b"]).ok();
    a.does(say("b", "for a puppet"));
    point_at("probe-puppet-patient");
    wd.cli(&["start", "b"]).ok();
    wd.until_some("the lane says where they part", || lane(&wd, "a", "b").mismatch);
    assert_eq!(a.fails(say("b", "more")), "ContractMismatch");
    assert_eq!(lane(&wd, "a", "b").queued, 1);
    wd.cli(&["stop", "b"]).ok();
    point_at("probe-puppet");
    wd.cli(&["start", "b"]).ok();
    let heard = wd.until_some("what waited arrives", || wd.puppet("b").heard().get(1).cloned());
    assert_eq!(heard.text, "for a puppet");
    assert_eq!(a.text(ask("b", "again")), "again");
}

#[test]
fn ic_4_the_statistics_of_a_lane_are_kept_across_restarts_and_shown_for_a_service_that_is_down() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    for _ in 0..3 {
        a.text(ask("b", "x"));
    }
    let before = lane(&wd, "a", "b");
    assert_eq!((before.sent, before.handled, before.queued), (3, 3, 0));
    assert_eq!(before.propagation.count, 3);
    let p = before.propagation;
    assert!(p.mean > 0.0 && p.max > 0 && p.p50 <= p.p99 && p.p99 <= p.max, "{p:?}");
    assert!((p.deviation * p.deviation - p.variance).abs() <= p.variance * 1e-6, "{p:?}");
    assert!(before.rate > 0.0);

    kill_and_wait(&wd, "b");
    wd.kill_core();
    a.text(ask("b", "x"));
    assert_eq!(lane(&wd, "a", "b").propagation.count, 4);
    wd.cli(&["stop", "b"]).ok();
    let down = lane(&wd, "a", "b");
    assert_eq!((down.sent, down.handled), (4, 4));
    assert!(down.held_ms.is_some());
    let seen = wd.status();
    assert_eq!((seen.of("b").messages_in, seen.of("a").messages_out), (4, 4));
    let table = wd.cli(&["intercoms", "b"]).ok().stdout;
    assert!(table.contains('a') && table.contains('b'), "{table}");
}

#[test]
fn ic_4_the_propagation_time_holds_the_waiting() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(say("b", "patience"));
    kill_and_wait(&wd, "b");
    let heard = b.next();
    assert!(heard.waited > Duration::ZERO);
    let measured =
        wd.until_some("it is measured", || Some(lane(&wd, "a", "b").propagation).filter(|p| p.count == 1));
    assert_eq!(u128::from(measured.max), heard.waited.as_nanos());
    assert!((measured.mean - heard.waited.as_nanos() as f64).abs() < 1.0, "{measured:?}");
    assert!(measured.variance.abs() < f64::EPSILON, "of one there is none");
}

#[test]
fn a_lane_ends_when_its_receiver_is_unregistered() {
    let wd = ready(&[puppet("a", ByItself)]);
    std::fs::write(wd.path("late.toml"), puppet("late", ByItself).render(wd.folder())).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("late", "hello")), "hello");
    wd.cli(&["stop", "late"]).ok();
    wd.cli(&["unregister", "late"]).ok();
    wd.until_some("the handle says so", || (a.order(say("late", "hello?")) != Shown::Done).then_some(()));
    assert_eq!(a.fails(say("late", "hello?")), "NoSuchService");
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

#[test]
fn a_restart_of_either_side_leaks_no_descriptor() {
    let [a, b] = ["a", "b"].map(|name| puppet(name, ByItself).key("restart_limit = \"off\""));
    let wd = ready(&[a.key("restart_delay = \"0s\""), b.key("restart_delay = \"0s\"")]);
    wd.puppet("a").text(ask("b", "x"));
    let counts =
        || [wd.keeper(), wd.core()].map(|process| watchdog_tests::proc::descriptors(process.pid).len());
    kill_and_wait(&wd, "b");
    wd.puppet("a").text(ask("b", "x"));
    let before = counts();
    for _ in 0..10 {
        kill_and_wait(&wd, "b");
        kill_and_wait(&wd, "a");
        wd.puppet("a").text(ask("b", "x"));
    }
    wd.until_some("as many descriptors as before", || {
        let now = counts();
        (now[0] <= before[0] && now[1] <= before[1]).then_some(())
    });
}

fn ready(entries: &[Entry]) -> TestWatchdog {
    let entries: Vec<Entry> = entries.to_vec();
    let wd = TestWatchdog::run(&entries);
    wd.until("all are ready", Seen::all_ready);
    wd
}

/// Puppet `a`, and `b` that is led by hand.
fn ready_by_hand() -> TestWatchdog {
    let patient = puppet("b", ByHand).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), patient]);
    wd.puppet("b").does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    wd
}

/// A puppet whose asks may be delivered again.
fn patient(name: &str, manner: Manner) -> Entry {
    puppet(name, manner).exec(&watchdog_tests::binary("probe-puppet-patient"))
}

/// Kills a puppet and waits for the next one, which says ready if it is led by hand.
fn kill_and_wait(wd: &TestWatchdog, name: &str) {
    let killed = wd.kill(name, Signal::SIGKILL);
    wd.until("the next one is there", |seen| {
        seen.of(name).incarnation > killed && seen.of(name).pid.is_some()
    });
    wd.puppet(name).does(Order::Ready);
    wd.until("the next one is ready", |seen| seen.of(name).is_ready_after(killed));
}

fn say(to: &str, text: &str) -> Order {
    Order::Tell { to: to.into(), text: text.into(), deadline: None }
}

fn ask(to: &str, text: &str) -> Order {
    Order::Ask { to: to.into(), text: text.into(), deadline: LONG }
}

fn texts(heard: &[Heard]) -> Vec<String> {
    heard.iter().map(|heard| heard.text.clone()).collect()
}

fn inbox(wd: &TestWatchdog, of: &str) -> InboxStatus {
    let inboxes: Vec<InboxStatus> = wd.cli(&["intercoms", of, "--json"]).ok().json();
    inboxes.into_iter().find(|inbox| inbox.service.as_str() == of).expect("the inbox asked for")
}

fn lane(wd: &TestWatchdog, sender: &str, receiver: &str) -> LaneStatus {
    let inbox = inbox(wd, receiver);
    inbox.lanes.into_iter().find(|lane| lane.sender.as_str() == sender).expect("the lane asked for")
}
