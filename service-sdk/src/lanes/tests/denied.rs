//! A lane that its sender may use no more.

use std::pin::pin;

use super::peers::*;
use crate::intercom::{AskError, FlushError, TellError};
use crate::session::Lanes as _;

#[tokio::test]
async fn what_is_queued_is_served_and_answered_and_then_the_lane_is_at_its_end() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver::<Msg>();
    handle.tell(Msg::Say(1)).await.unwrap();
    let mut asked = pin!(handle.ask_within(LONG, |reply| Msg::Ask { n: 2, reply }));
    assert!(once(&mut asked).await.is_none());
    lane.sender_end.shut_sending().unwrap();
    process.lanes.denied(lane.epoch);
    assert_eq!(receiver.said().await, 1);
    let (Msg::Ask { n, reply }, _) = receiver.next().await else { panic!("an ask is queued") };
    // Not before it is done.
    assert!(receiver.process.drained.is_empty());
    reply.send(n);
    assert_eq!(within(asked).await.unwrap(), 2);
    assert!(receiver.is_empty().await);
    assert_eq!(within(receiver.process.drained.recv()).await, Some(lane.epoch));
    assert_eq!(lane.received().marks().consumed, number(2));
}

#[tokio::test]
async fn a_sender_is_denied_whether_it_was_told_or_not() {
    for is_told in [true, false] {
        let lane = Lane::new();
        let (mut process, handle) = lane.sender::<Msg>();
        handle.feed(Msg::Say(1)).await.unwrap();
        lane.sender_end.shut_sending().unwrap();
        if is_told {
            process.lanes.denied(lane.epoch);
            assert!(matches!(handle.feed(Msg::Say(2)).await, Err(TellError::Denied(Msg::Say(2)))));
        }
        assert!(matches!(handle.flush().await, Err(FlushError::Denied)));
        assert!(matches!(handle.tell(Msg::Say(3)).await, Err(TellError::Denied(Msg::Say(3)))));
        assert!(matches!(handle.try_tell(Msg::Say(3)), Err(TellError::Denied(Msg::Say(3)))));
        let asked = handle.ask(|reply| Msg::Ask { n: 4, reply }).await;
        assert!(matches!(asked, Err(AskError::Denied { .. })), "{asked:?}");
        assert_eq!(lane.sent().stats().messages, 0);
    }
}

#[tokio::test]
async fn who_waits_for_room_is_denied_and_has_its_message_again() {
    let lane = Lane::with(1, 8192);
    let (mut process, handle) = lane.sender::<Msg>();
    while handle.try_tell(Msg::Say(0)).is_ok() {}
    let mut waiting = pin!(handle.tell_within(LONG, Msg::Say(7)));
    assert!(once(&mut waiting).await.is_none());
    lane.sender_end.shut_sending().unwrap();
    process.lanes.denied(lane.epoch);
    assert!(matches!(within(waiting).await, Err(TellError::Denied(Msg::Say(7)))));
}

#[tokio::test]
async fn what_is_deferred_keeps_a_lane_from_its_end_and_an_answer_still_arrives_after_it() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver::<Msg>();
    let mut asked = pin!(handle.ask_within(LONG, |reply| Msg::Ask { n: 1, reply }));
    assert!(once(&mut asked).await.is_none());
    let (Msg::Ask { reply, .. }, delivery) = receiver.next().await else { panic!("an ask is queued") };
    receiver.process.lanes.defer().unwrap();
    lane.sender_end.shut_sending().unwrap();
    process.lanes.denied(lane.epoch);
    assert!(receiver.is_empty().await);
    assert!(receiver.process.drained.is_empty());
    receiver.process.lanes.finish_deferred(delivery.id());
    assert!(receiver.is_empty().await);
    assert_eq!(within(receiver.process.drained.recv()).await, Some(lane.epoch));
    receiver.process.lanes.closed(lane.epoch);
    reply.send(9);
    assert_eq!(within(asked).await.unwrap(), 9);
}

/// What keeps a task from asking the runtime for ever does not keep a thread.
#[tokio::test]
async fn what_is_done_by_a_thread_after_the_lane_was_shut_leads_it_to_its_end() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver::<Msg>();
    handle.tell(Msg::Say(1)).await.unwrap();
    let (_, delivery) = receiver.next().await;
    receiver.process.lanes.defer().unwrap();
    lane.sender_end.shut_sending().unwrap();
    process.lanes.denied(lane.epoch);
    // The runtime has seen it.
    assert!(receiver.is_empty().await);
    let (lanes, (done, is_done)) = (receiver.process.lanes.clone(), std::sync::mpsc::channel());
    let thread = std::thread::spawn(move || {
        lanes.finish_deferred(delivery.id());
        done.send(()).unwrap();
    });
    is_done.recv_timeout(LONG).expect("it comes back");
    thread.join().unwrap();
    assert!(receiver.is_empty().await);
    assert_eq!(within(receiver.process.drained.recv()).await, Some(lane.epoch));
}

#[tokio::test]
async fn the_next_lane_to_the_same_peer_takes_the_place_of_the_one_before() {
    let (first, second) = (Lane::with(1, 1 << 20), Lane::with(2, 1 << 20));
    let (mut process, handle) = first.sender::<Msg>();
    process.lanes.denied(first.epoch);
    let again = second.open::<Msg>(&mut process);
    again.tell(Msg::Say(1)).await.unwrap();
    assert!(matches!(handle.tell(Msg::Say(2)).await, Err(TellError::Denied(_))));
    assert!(process.lanes.introduced(&first.out(), contract::<Msg>()).is_none());
    assert_eq!(second.receiver::<Msg>().said().await, 1);
}
