//! What a lane holds, and who waits for whom.

use super::*;

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
fn a_lane_of_a_small_size_is_full_at_the_message_its_bytes_say_and_a_tell_waits_for_room() {
    const SIZE: u64 = 16 << 10;
    let small = puppet("b", ByHand).key("lane_size = \"16KiB\"");
    let wd = TestWatchdog::run(&[puppet("a", ByItself), small]);
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    b.does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    let try_tell = |text: &str| a.order(Order::TryTell { to: "b".into(), text: text.into() });
    assert_eq!(try_tell("0"), Shown::Done);
    let first = lane(&wd, "a", "b");
    assert_eq!(first.size, SIZE);
    // A message goes while less than the size is in it.
    let room = SIZE.div_ceil(first.used);
    for n in 1..room {
        assert_eq!(try_tell("more"), Shown::Done, "{n} of {room}");
    }
    assert!(matches!(try_tell("no room"), Shown::Failed { kind, .. } if kind == "Full"));
    let full = lane(&wd, "a", "b");
    assert_eq!((full.queued, full.used, full.full), (room, room * first.used, 1));
    let mut waiting = a.begin(Order::Tell { to: "b".into(), text: "waited".into(), deadline: LONG });
    assert!(waiting.is_open());
    let text = wd.cli(&["intercoms", "b"]).ok().stdout;
    assert!(text.contains("of 16.0KiB"), "{text}");
    for _ in 0..=1 {
        b.next();
    }
    assert_eq!(waiting.shown(), Shown::Done);
    // One that is larger than the lane goes when nothing else is in it.
    let mut large = a.begin(Order::TellBytes { to: "b".into(), count: 100_000 });
    assert!(large.is_open());
    let mut last = String::new();
    for _ in 2..=room {
        last = b.next().text;
    }
    assert_eq!(last, "waited");
    assert!(b.next().text.starts_with("100000 bytes"));
    assert_eq!(large.shown(), Shown::Done);
}

#[test]
fn another_size_holds_from_the_senders_next_start_and_loses_nothing() {
    let sized = |size: &str| {
        let key = format!("lane_size = \"{size}\"");
        let b = puppet("b", ByHand).key(&key).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
        [puppet("a", ByItself), b]
    };
    let wd = TestWatchdog::run(&sized("1MiB"));
    wd.puppet("b").does(Order::Ready);
    wd.until("both are ready", Seen::all_ready);
    wd.puppet("a").does(Order::TellBytes { to: "b".into(), count: 50_000 });
    in_force(&wd, &sized("8KiB"));
    // Its packets are longer than the new size takes.
    wd.puppet("a").does(Order::TellBytes { to: "b".into(), count: 60_000 });
    assert_eq!(lane(&wd, "a", "b").size, 1 << 20);
    kill_and_wait(&wd, "a");
    wd.puppet("a").does(Order::Intercom { to: "b".into() });
    assert_eq!(lane(&wd, "a", "b").size, 8 << 10);
    assert_eq!(wd.puppet("a").fails(Order::TryTell { to: "b".into(), text: "no room".into() }), "Full");
    // A receiver reads what is longer than the size, also one that died of it.
    for _ in 0..2 {
        assert!(wd.puppet("b").next().text.starts_with("50000 bytes"));
        kill_and_wait(&wd, "b");
    }
    assert!(wd.puppet("b").next().redelivered);
    kill_and_wait(&wd, "b");
    let letters: Vec<watchdog_protocol::dead::DeadLetter> = wd.cli(&["dead", "ls", "--json"]).ok().json();
    assert!(letters.len() == 1 && letters[0].size > 50_000, "{letters:?}");
    assert!(wd.puppet("b").next().text.starts_with("60000 bytes"));
    let nothing = wd.puppet("b").begin(Order::Next);
    wd.until("the lane is empty", |seen| seen.of("b").queued == 0);
    // Back it goes, beside a packet.
    wd.cli(&["dead", "retry", "b", &letters[0].id.to_string()]).ok();
    match nothing.shown() {
        Shown::Message(heard) => assert!(heard.text.starts_with("50000 bytes") && heard.redelivered),
        other => panic!("{other:?}"),
    }
}
