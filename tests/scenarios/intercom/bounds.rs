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
