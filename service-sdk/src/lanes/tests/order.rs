//! Order, turns, and what is said of a message.

use std::cell::Cell;

use super::peers::*;
use crate::lanes::Bounds;
use watchdog_protocol::MessageId;

#[tokio::test]
async fn messages_come_in_the_order_they_were_told_with_growing_numbers() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver::<Msg>();
    for n in 0..100 {
        handle.tell(Msg::Say(n)).await.unwrap();
    }
    for n in 0..100 {
        let (message, delivery) = receiver.next().await;
        assert!(matches!(message, Msg::Say(said) if said == n));
        assert_eq!(delivery.sender().as_str(), "sender");
        assert_eq!(delivery.id(), MessageId { epoch: lane.epoch, number: number(n + 1) });
        assert!(!delivery.redelivered());
    }
}

#[tokio::test]
async fn clones_and_other_handles_of_a_process_share_the_order() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let handles = [handle.clone(), lane.open(&mut process), handle];
    for (n, handle) in (0..9).zip(handles.iter().cycle()) {
        handle.tell(Msg::Say(n)).await.unwrap();
    }
    let mut receiver = lane.receiver();
    for n in 0..9 {
        assert_eq!(receiver.said().await, n);
    }
}

#[tokio::test]
async fn ten_thousand_fed_messages_arrive_in_few_packets() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let feed = async {
        for n in 0..10_000 {
            handle.feed(Msg::Say(n)).await.unwrap();
        }
        handle.flush().await.unwrap();
    };
    let receive = async {
        for n in 0..10_000 {
            assert_eq!(receiver.said().await, n);
        }
    };
    within(async { tokio::join!(feed, receive) }).await;
    assert_eq!(handle.stats().sent, 10_000);
}

#[tokio::test]
async fn nothing_fed_goes_before_the_flush_and_what_is_told_goes_after_it() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let other = handle.clone();
    let mut receiver = lane.receiver();
    handle.feed(Msg::Say(1)).await.unwrap();
    handle.feed(Msg::Say(2)).await.unwrap();
    assert!(receiver.is_empty().await);
    other.tell(Msg::Say(3)).await.unwrap();
    for n in 1..=3 {
        assert_eq!(receiver.said().await, n);
    }
    handle.flush().await.unwrap();
    assert!(receiver.is_empty().await, "there was nothing left to flush");
}

#[tokio::test]
async fn what_was_fed_and_not_flushed_dies_with_its_process_and_its_numbers_are_a_gap() {
    let lane = Lane::new();
    let (process, handle) = lane.sender::<Msg>();
    handle.tell(Msg::Say(1)).await.unwrap();
    handle.feed(Msg::Say(2)).await.unwrap();
    handle.feed(Msg::Say(3)).await.unwrap();
    drop((process, handle));
    let (_process, handle) = lane.sender::<Msg>();
    handle.tell(Msg::Say(4)).await.unwrap();
    let mut receiver = lane.receiver();
    assert_eq!(receiver.said().await, 1);
    let (message, delivery) = receiver.next().await;
    assert!(matches!(message, Msg::Say(4)));
    assert_eq!(delivery.id().number, number(4));
}

#[tokio::test]
async fn a_flooder_has_one_message_a_turn_whatever_it_packed() {
    let (flooded, polite) = (Lane::with(1, 1 << 20), Lane::with(2, 1 << 20));
    let (_flooder, flood) = flooded.sender::<Msg>();
    let (_other, please) = polite.sender::<Msg>();
    for n in 0..1000 {
        flood.feed(Msg::Say(n)).await.unwrap();
    }
    flood.flush().await.unwrap();
    for n in 0..10 {
        please.tell(Msg::Say(n)).await.unwrap();
    }
    let mut receiver = flooded.receiver::<Msg>();
    polite.arrive(&mut receiver.process, "polite");
    let mut senders = String::new();
    for _ in 0..20 {
        senders.push_str(&receiver.next().await.1.sender().as_str()[..1]);
    }
    assert_eq!(senders, "sp".repeat(10));
}

#[tokio::test]
async fn a_message_that_comes_while_a_flood_is_handled_waits_for_few_of_it() {
    let (flooded, polite) = (Lane::with(1, 1 << 20), Lane::with(2, 1 << 20));
    let (_flooder, flood) = flooded.sender::<Msg>();
    let (_other, please) = polite.sender::<Msg>();
    for n in 0..4000 {
        flood.feed(Msg::Say(n)).await.unwrap();
    }
    flood.flush().await.unwrap();
    let mut receiver = flooded.receiver::<Msg>();
    polite.arrive(&mut receiver.process, "polite");
    receiver.next().await;
    please.tell(Msg::Say(0)).await.unwrap();
    // Each of the flood takes longer to handle than a turn lasts, and nothing else in here ever waits.
    let mut before = 0;
    while receiver.next().await.1.sender().as_str() != "polite" {
        let begin = std::time::Instant::now();
        while begin.elapsed() < std::time::Duration::from_micros(150) {}
        before += 1;
    }
    assert!(before <= 2, "{before} messages of a flooder went first");
}

#[tokio::test]
async fn a_dropped_wait_for_the_next_message_loses_none() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let tell = async {
        for n in 0..200 {
            handle.tell(Msg::Say(n)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let receive = async {
        let mut said = 0;
        while said < 200 {
            let mut ticks = 0;
            tokio::select! {
                biased;
                (message, _) = receiver.inbox.next() => {
                    assert!(matches!(message, Msg::Say(n) if n == said));
                    said += 1;
                }
                () = async { while ticks <= said % 3 { ticks += 1; tokio::task::yield_now().await } } => {}
            }
        }
    };
    within(async { tokio::join!(tell, receive) }).await;
}

#[tokio::test]
async fn a_stop_between_two_messages_of_a_packet_leaves_the_rest_to_the_next_process() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    for n in 0..5 {
        handle.feed(Msg::Say(n)).await.unwrap();
    }
    handle.flush().await.unwrap();
    let mut first = lane.receiver();
    assert_eq!(first.said().await, 0);
    assert_eq!(first.said().await, 1);
    first.inbox.finish();
    drop(first);
    let mut next = lane.receiver::<Msg>();
    for n in 2..5 {
        let (message, delivery) = next.next().await;
        assert!(matches!(message, Msg::Say(said) if said == n));
        assert!(!delivery.redelivered(), "nobody had it in hand");
    }
}

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

#[tokio::test]
async fn ic_4_times_of_10_15_and_20_have_a_deviation_of_5() {
    use watchdog_protocol::lane::{Direction, Envelope, Kind, Packer, Place};

    use crate::message::Message as _;
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver::<Msg>();
    receiver.process.lanes.set_clock(|| CLOCK.get());
    for (n, waited) in (1..).zip([10, 15, 20]) {
        let mut payload = Vec::new();
        Msg::Say(n).encode(&mut payload).unwrap();
        let envelope = Envelope {
            kind: Kind::Tell,
            number: number(n),
            sent_at: 1000,
            left: 0,
            length: payload.len().try_into().unwrap(),
            place: Place::Inline,
            trace: None,
            again: false,
        };
        let mut packet = Packer::new(Direction::Requests);
        assert!(packet.push(&envelope, &payload));
        lane.send_raw(packet.bytes());
        CLOCK.set(1000 + waited);
        let (_, delivery) = receiver.next().await;
        assert_eq!(delivery.waited().as_nanos(), u128::from(waited));
    }
    let stats = handle.stats();
    assert_eq!((stats.handed, stats.redelivered), (3, 0));
    let times = stats.propagation;
    assert_eq!((times.count(), times.mean_ns(), times.variance_ns2()), (3, Some(15.0), Some(25.0)));
    assert_eq!((times.standard_deviation_ns(), times.max_ns()), (Some(5.0), Some(20)));
}

#[tokio::test]
async fn the_statistics_count_what_is_queued() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    for n in 0..7 {
        handle.tell(Msg::Say(n)).await.unwrap();
    }
    assert_eq!((handle.stats().sent, handle.stats().queued, handle.stats().handed), (7, 7, 0));
    let mut receiver = lane.receiver();
    for _ in 0..3 {
        receiver.said().await;
    }
    assert_eq!((handle.stats().queued, handle.stats().handed), (5, 3), "the one in hand is not done");
    assert!(handle.stats().rate > 0.0);
    for _ in 3..7 {
        receiver.said().await;
    }
    receiver.inbox.finish();
    assert_eq!((handle.stats().queued, handle.stats().handed), (0, 7));
}

#[tokio::test]
async fn a_process_with_lanes_that_say_nothing_hears_the_one_that_does() {
    let lanes: Vec<_> = (0..100).map(|name| Lane::with(name, 1 << 16)).collect();
    let mut process = lanes[0].process();
    for lane in &lanes {
        lane.arrive(&mut process, "sender");
    }
    let mut inbox = crate::inbox::Inbox::<Msg>::new(process.lanes.clone());
    assert!(tokio::time::timeout(SHORT, inbox.next()).await.is_err());
    for speaker in [99, 3, 50] {
        let (_process, handle) = lanes[speaker].sender::<Msg>();
        handle.tell(Msg::Say(1)).await.unwrap();
        let (_, delivery) = within(inbox.next()).await;
        assert_eq!(delivery.id().epoch, lanes[speaker].epoch);
    }
}

#[tokio::test]
async fn a_lane_that_arrives_twice_is_one_lane() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    handle.tell(Msg::Say(1)).await.unwrap();
    assert_eq!(receiver.said().await, 1);
    lane.arrive(&mut receiver.process, "sender");
    handle.tell(Msg::Say(2)).await.unwrap();
    assert_eq!(receiver.said().await, 2);
    assert!(receiver.is_empty().await);
}

#[tokio::test]
async fn a_lane_that_is_closed_is_heard_no_more() {
    use crate::session::Lanes as _;
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    handle.tell(Msg::Say(1)).await.unwrap();
    handle.tell(Msg::Say(2)).await.unwrap();
    assert_eq!(receiver.said().await, 1);
    receiver.process.lanes.closed(lane.epoch);
    assert!(receiver.is_empty().await);
}

#[test]
fn bounds_leave_room_for_the_header_of_a_packet() {
    let (socket, _other) = watchdog_seqpacket::Seqpacket::pair().unwrap();
    let small = socket.set_send_bound(16 * 1024).unwrap();
    let bounds = Bounds::of(usize::MAX, &socket).unwrap();
    assert!(bounds.lane_bytes == small && bounds.packet < small && bounds.inline < bounds.packet);
    assert_eq!(bounds.max_message, u32::MAX as usize);
}
