//! Deliveries that are done later than the next one is asked for.

use watchdog_protocol::MessageId;
use watchdog_protocol::limits::MAX_DEFERRED;

use super::peers::*;
use crate::inbox::Inbox;
use crate::intercom::Intercom;
use crate::session::Lanes as _;

/// Hands over the next message and keeps it open.
async fn defer(receiver: &mut Receiver) -> MessageId {
    let (_, delivery) = receiver.next().await;
    let id = receiver.process.lanes.defer().unwrap();
    assert_eq!(id, delivery.id());
    id
}

async fn tell(handle: &Intercom<Msg>, numbers: std::ops::Range<u64>) {
    for n in numbers {
        handle.tell(Msg::Say(n)).await.unwrap();
    }
}

#[tokio::test]
async fn packets_leave_in_order_when_all_in_them_and_before_them_is_done() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    handle.tell(Msg::Bytes(vec![7; 200_000])).await.unwrap();
    tell(&handle, 1..3).await;
    for n in 3..6 {
        handle.feed(Msg::Say(n)).await.unwrap();
    }
    handle.flush().await.unwrap();
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(defer(&mut receiver).await);
    }
    assert!(receiver.is_empty().await);
    let marks = || lane.received().marks();
    assert_eq!((marks().taken, marks().done, marks().consumed), (number(6), number(0), number(0)));
    for (finished, done, consumed) in [(1, 0, 0), (3, 0, 0), (0, 2, 2), (2, 4, 3), (5, 4, 3), (4, 6, 6)] {
        receiver.process.lanes.finish_deferred(open[finished]);
        assert_eq!((marks().done, marks().consumed), (number(done), number(consumed)), "{finished}");
    }
    assert_eq!(lane.sender_end.outstanding().unwrap(), 0);
    assert_eq!(lane.received().stats().memfd_consumed, lane.sent().stats().memfd_bytes);
    // The lane goes on.
    tell(&handle, 6..7).await;
    assert_eq!(receiver.said().await, 6);
}

#[tokio::test]
async fn what_was_deferred_at_a_death_comes_again_with_all_behind_it_and_says_so() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    tell(&handle, 1..6).await;
    let mut first = lane.receiver();
    assert_eq!(first.said().await, 1);
    defer(&mut first).await;
    assert_eq!(first.said().await, 3);
    assert_eq!(first.said().await, 4);
    drop(first);
    let mut second = lane.receiver();
    for (n, again) in [(2, true), (3, true), (4, true), (5, false)] {
        let (message, delivery) = second.next().await;
        assert!(matches!(message, Msg::Say(said) if said == n), "{message:?}");
        assert_eq!(delivery.redelivered(), again, "{n}");
    }
    assert!(second.is_empty().await);
    assert_eq!(lane.sender_end.outstanding().unwrap(), 0);
}

#[tokio::test]
async fn a_lane_waits_when_too_many_are_open_and_the_others_go_on() {
    let (full, other) = (Lane::with(1, 8 << 20), Lane::with(2, 1 << 20));
    let (_process, handle) = full.sender::<Msg>();
    let (_other_process, other_handle) = other.sender::<Msg>();
    let mut receiver: Receiver = full.receiver();
    other.arrive(&mut receiver.process, "other");
    tell(&handle, 0..MAX_DEFERRED as u64 + 1).await;
    let mut open = Vec::new();
    for _ in 0..MAX_DEFERRED {
        open.push(defer(&mut receiver).await);
    }
    assert!(receiver.is_empty().await);
    tell(&other_handle, 1000..1001).await;
    assert_eq!(receiver.said().await, 1000);
    assert!(receiver.is_empty().await);
    receiver.process.lanes.finish_deferred(open[77]);
    assert_eq!(receiver.said().await, MAX_DEFERRED as u64);
}

#[tokio::test]
async fn a_bad_packet_behind_what_is_open_is_skipped_in_its_turn() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    tell(&handle, 1..2).await;
    lane.send_raw(b"garbage");
    tell(&handle, 2..3).await;
    let first = defer(&mut receiver).await;
    assert!(receiver.is_empty().await);
    receiver.process.lanes.finish_deferred(first);
    assert_eq!(receiver.said().await, 2);
}

#[tokio::test]
async fn the_answer_to_a_deferred_ask_arrives_after_later_ones() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver: Receiver = lane.receiver();
    let ask = |n| handle.ask_within(LONG, move |reply| Msg::Ask { n, reply });
    let serve = async {
        let (Msg::Ask { n: 1, reply: first }, _) = receiver.next().await else { panic!("the first") };
        let id = receiver.process.lanes.defer().unwrap();
        let (Msg::Ask { n: 2, reply: second }, _) = receiver.next().await else { panic!("the second") };
        second.send(20);
        first.send(10);
        receiver.process.lanes.finish_deferred(id);
        receiver.inbox.finish();
    };
    let (first, second, ()) = within(async { tokio::join!(ask(1), ask(2), serve) }).await;
    assert_eq!((first.unwrap(), second.unwrap()), (10, 20));
    assert_eq!(lane.sender_end.outstanding().unwrap(), 0);
}

#[tokio::test]
async fn the_page_says_what_is_in_hand_and_nothing_of_what_is_deferred_or_handled() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    tell(&handle, 1..4).await;
    let mut receiver = lane.receiver();
    // What is done is in nobody's hand.
    let in_hand = || Some(lane.received().in_hand()).filter(|number| *number > lane.received().marks().done);
    assert_eq!((receiver.said().await, in_hand()), (1, Some(number(1))));
    receiver.inbox.finish();
    assert_eq!(in_hand(), None);
    defer(&mut receiver).await;
    assert_eq!(in_hand(), None);
    assert_eq!((receiver.said().await, in_hand()), (3, Some(number(3))));
    receiver.inbox.finish();
    assert_eq!(in_hand(), None);
}

#[tokio::test]
async fn a_dead_letter_behind_a_deferred_message_is_passed_over_until_it_is_gone() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    tell(&handle, 1..4).await;
    for _ in 0..2 {
        let mut process = lane.process();
        process.lanes.pass_over(lane.epoch, vec![number(2)]);
        lane.arrive(&mut process, "sender");
        let mut receiver = Receiver { inbox: Inbox::new(process.lanes.clone()), process };
        defer(&mut receiver).await;
        assert_eq!(receiver.said().await, 3);
        assert!(receiver.is_empty().await);
        assert_eq!(lane.received().marks().done, number(0));
    }
    let mut receiver = lane.receiver();
    assert_eq!(receiver.said().await, 1, "the watchdog says it to each process");
    assert_eq!(receiver.said().await, 2);
}
