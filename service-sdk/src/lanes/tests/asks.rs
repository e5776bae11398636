//! Asks: every end they can have.

use std::pin::pin;
use std::time::Duration;

use watchdog_protocol::limits::MAX_OPEN_ASKS;

use super::peers::*;
use crate::intercom::{AskError, Intercom};
use crate::reply::Reply;
use crate::session::Lanes as _;

async fn ask(handle: &Intercom<Msg>, n: u64) -> Result<u64, AskError> {
    handle.ask_within(LONG, |reply| Msg::Ask { n, reply }).await
}

/// The ask at the head, in hand.
async fn asked(receiver: &mut Receiver) -> (u64, Reply<u64>) {
    match receiver.next().await.0 {
        Msg::Ask { n, reply } => (n, reply),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_ask_is_answered() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let asks = async {
        for n in 0..500 {
            assert_eq!(ask(&handle, n).await.unwrap(), n);
        }
    };
    within(async {
        tokio::select! { () = asks => {}, never = receiver.answer() => never }
    })
    .await;
    assert_eq!(lane.sent().stats().asks, 500);
}

#[tokio::test]
async fn many_asks_at_once_each_get_their_own_answer_in_whatever_order() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let mut asks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let handle = handle.clone();
        asks.spawn(async move { assert_eq!(ask(&handle, n).await.unwrap(), n) });
    }
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(asked(&mut receiver).await);
    }
    while let Some((n, reply)) = open.pop() {
        reply.send(n);
    }
    within(asks.join_all()).await;
}

#[tokio::test]
async fn a_reply_is_answered_after_the_handler_and_from_another_thread() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let mut open = pin!(ask(&handle, 1));
    assert!(once(&mut open).await.is_none());
    let (_, reply) = asked(&mut receiver).await;
    handle.tell(Msg::Say(2)).await.unwrap();
    assert_eq!(receiver.said().await, 2, "next() does not wait for it");
    std::thread::spawn(move || reply.send(77)).join().unwrap();
    assert_eq!(within(open).await.unwrap(), 77);
}

#[tokio::test]
async fn a_dropped_reply_is_an_end() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let mut open = pin!(ask(&handle, 1));
    assert!(once(&mut open).await.is_none());
    drop(asked(&mut receiver).await);
    assert!(
        matches!(within(open).await, Err(AskError::Dropped { receiver }) if receiver.as_str() == "receiver")
    );
}

#[tokio::test]
async fn an_ask_without_an_answer_is_late_and_one_still_queued_then_is_skipped() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let late = handle.ask_within(SHORT, |reply| Msg::Ask { n: 1, reply }).await;
    assert!(matches!(late, Err(AskError::Late { .. })));
    handle.tell(Msg::Say(2)).await.unwrap();
    let mut receiver = lane.receiver();
    assert_eq!(receiver.said().await, 2);
    // An answer after the deadline is nobody's, and harms no later one. By this clock it is taken in time.
    receiver.process.lanes.set_clock(|| 0);
    let mut slow = pin!(handle.ask_within(SHORT, |reply| Msg::Ask { n: 3, reply }));
    assert!(once(&mut slow).await.is_none());
    let (_, reply) = asked(&mut receiver).await;
    assert!(matches!(within(slow).await, Err(AskError::Late { .. })));
    reply.send(3);
    let mut open = pin!(ask(&handle, 4));
    assert!(once(&mut open).await.is_none());
    let (n, reply) = asked(&mut receiver).await;
    reply.send(n);
    assert_eq!(within(open).await.unwrap(), 4);
}

#[tokio::test]
async fn an_earlier_deadline_is_kept_beside_a_later_one() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut patient = pin!(ask(&handle, 1));
    assert!(once(&mut patient).await.is_none());
    let hasty = within(handle.ask_within(SHORT, |reply| Msg::Ask { n: 2, reply })).await;
    assert!(matches!(hasty, Err(AskError::Late { .. })));
    let mut receiver = lane.receiver();
    let (n, reply) = asked(&mut receiver).await;
    reply.send(n);
    assert_eq!(within(patient).await.unwrap(), 1);
}

#[tokio::test]
async fn what_was_taken_at_a_death_has_died_and_what_was_queued_lives_on() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let (mut taken, mut queued) = (pin!(ask(&handle, 1)), pin!(ask(&handle, 2)));
    assert!(once(&mut taken).await.is_none() && once(&mut queued).await.is_none());
    let mut receiver = lane.receiver();
    let in_hand = asked(&mut receiver).await;
    std::mem::forget(in_hand.1); // as a death does: nothing is said
    drop(receiver);
    lane.say_died(&mut process);
    assert!(matches!(within(taken).await, Err(AskError::Died { incarnation, .. }) if incarnation.get() == 4));
    assert!(once(&mut queued).await.is_none());
    let mut next = lane.receiver();
    let (n, reply) = asked(&mut next).await;
    assert_eq!(n, 2, "the one that died is not handed over again");
    reply.send(n);
    assert_eq!(within(queued).await.unwrap(), 2);
}

#[tokio::test]
async fn an_answer_queued_behind_the_notice_of_a_death_counts() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let (mut answered, mut lost) = (pin!(ask(&handle, 1)), pin!(ask(&handle, 2)));
    assert!(once(&mut answered).await.is_none() && once(&mut lost).await.is_none());
    let mut receiver = lane.receiver();
    asked(&mut receiver).await.1.send(11);
    std::mem::forget(asked(&mut receiver).await.1);
    drop(receiver);
    // The notice is there before any task of the sender has run.
    lane.say_died(&mut process);
    assert_eq!(within(answered).await.unwrap(), 11);
    assert!(matches!(within(lost).await, Err(AskError::Died { .. })));
}

#[tokio::test]
async fn an_idempotent_ask_lives_through_the_death_of_its_receiver() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Patient>();
    let mut open = pin!(handle.ask_within(LONG, |reply| Patient::Ask { n: 5, reply }));
    assert!(once(&mut open).await.is_none());
    let mut receiver = lane.receiver::<Patient>();
    let (message, first) = receiver.next().await;
    std::mem::forget(message);
    drop(receiver);
    lane.say_died(&mut process);
    assert!(once(&mut open).await.is_none());
    let mut next = lane.receiver::<Patient>();
    let (Patient::Ask { n, reply }, again) = next.next().await;
    assert_eq!((n, again.id(), again.redelivered()), (5, first.id(), true));
    reply.send(6);
    assert_eq!(within(open).await.unwrap(), 6);
}

#[tokio::test]
async fn an_answer_to_the_ask_of_a_dead_process_reaches_no_other_ask() {
    let lane = Lane::new();
    let (process, handle) = lane.sender::<Msg>();
    {
        let mut open = pin!(ask(&handle, 1));
        assert!(once(&mut open).await.is_none());
    }
    drop((process, handle));
    let (_process, handle) = lane.sender::<Msg>();
    let mut open = pin!(ask(&handle, 2));
    assert!(once(&mut open).await.is_none());
    let mut receiver = lane.receiver();
    asked(&mut receiver).await.1.send(111);
    let (_, reply) = asked(&mut receiver).await;
    assert!(once(&mut open).await.is_none());
    reply.send(222);
    assert_eq!(within(open).await.unwrap(), 222);
}

#[tokio::test]
async fn a_closure_that_loses_its_reply_fails_at_once_and_nothing_is_sent() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let lost = handle.ask(|_: Reply<u64>| Msg::Say(1)).await;
    assert!(matches!(lost, Err(AskError::NoReply { .. })));
    assert!(lane.receiver::<Msg>().is_empty().await);
}

#[tokio::test]
async fn an_open_ask_of_a_lane_that_is_closed_ends() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let mut open = pin!(ask(&handle, 1));
    assert!(once(&mut open).await.is_none());
    process.lanes.closed(lane.epoch);
    assert!(matches!(within(open).await, Err(AskError::NoSuchService { .. })));
    assert!(matches!(ask(&handle, 2).await, Err(AskError::NoSuchService { .. })));
}

#[tokio::test]
async fn a_lane_has_so_many_open_asks_and_one_that_is_dropped_makes_room() {
    let lane = Lane::with(1, 4 << 20);
    let (_process, handle) = lane.sender::<Msg>();
    let mut open: Vec<_> = (0..MAX_OPEN_ASKS as u64).map(|n| Box::pin(ask(&handle, n))).collect();
    for ask in &mut open {
        assert!(once(ask).await.is_none());
    }
    let over = handle.ask_within(SHORT, |reply| Msg::Ask { n: 0, reply }).await;
    assert!(matches!(over, Err(AskError::NotSent { .. })));
    let mut next = pin!(ask(&handle, 7777));
    assert!(once(&mut next).await.is_none());
    assert_eq!(lane.sent().stats().asks, MAX_OPEN_ASKS as u64, "it waits for a slot");
    drop(open.pop());
    assert!(once(&mut next).await.is_none());
    assert_eq!(lane.sent().stats().asks, MAX_OPEN_ASKS as u64 + 1);
    let mut receiver = lane.receiver();
    within(async {
        tokio::select! { answer = next => assert_eq!(answer.unwrap(), 7777), never = receiver.answer() => never }
    })
    .await;
}

#[tokio::test]
async fn two_services_that_ask_each_other_in_their_handlers_meet_their_deadlines() {
    let (there, back) = (Lane::with(1, 1 << 20), Lane::with(2, 1 << 20));
    let mut sides = Vec::new();
    for (out, arriving) in [(&there, &back), (&back, &there)] {
        let mut receiver = arriving.receiver::<Msg>();
        let handle = out.open::<Msg>(&mut receiver.process);
        sides.push((receiver, handle));
    }
    let mut asks = Vec::new();
    for (_, handle) in &sides {
        let handle = handle.clone();
        asks.push(Box::pin(async move { ask(&handle, 1).await }));
    }
    for open in &mut asks {
        assert!(once(open).await.is_none());
    }
    // Each handles the other's ask by asking it, and takes nothing more meanwhile.
    let handlers = sides.iter_mut().map(|(receiver, handle)| async move {
        let (_, reply) = asked(receiver).await;
        let nested = handle.ask_within(SHORT, |reply| Msg::Ask { n: 2, reply }).await;
        assert!(matches!(nested, Err(AskError::Late { .. })));
        reply.send(9);
    });
    let mut handlers = handlers.collect::<Vec<_>>().into_iter();
    let (one, other) = (handlers.next().unwrap(), handlers.next().unwrap());
    within(async { tokio::join!(one, other) }).await;
    for open in asks {
        assert_eq!(within(open).await.unwrap(), 9);
    }
}

#[tokio::test]
async fn answers_that_find_no_room_wait_and_none_is_lost() {
    let lane = Lane::with(1, 64 << 10);
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let mut asks: Vec<_> = (0..40)
        .map(|_| Box::pin(handle.ask_within(LONG, |reply| Msg::Grow { bytes: 10_000, reply })))
        .collect();
    for ask in &mut asks {
        assert!(once(ask).await.is_none());
    }
    let mut open = Vec::new();
    for _ in 0..40 {
        match receiver.next().await.0 {
            Msg::Grow { bytes, reply } => open.push((vec![7; bytes as usize], reply)),
            other => panic!("{other:?}"),
        }
    }
    // More than the lane holds, in one go, and no wait in it.
    for (bytes, reply) in open {
        reply.send(bytes);
    }
    within(receiver.process.lanes.flushed()).await;
    for ask in asks {
        assert_eq!(within(ask).await.unwrap(), vec![7; 10_000]);
    }
}

#[tokio::test]
async fn large_answers_come_whole() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let answer = async {
        loop {
            if let (Msg::Grow { bytes, reply }, _) = receiver.inbox.next().await {
                reply.send((0..bytes).map(|at| (at % 251) as u8).collect());
            }
        }
    };
    let asks = async {
        for bytes in [0, 1, 60_000, 65_536, 81_000, 100_000, 3 << 20] {
            let answer = handle.ask_within(LONG, |reply| Msg::Grow { bytes, reply }).await.unwrap();
            assert_eq!(answer.len(), bytes as usize);
            assert!(answer.iter().zip(0..bytes).all(|(byte, at)| *byte == (at % 251) as u8));
        }
    };
    within(async {
        tokio::select! { () = asks => {}, () = answer => {} }
    })
    .await;
}

#[tokio::test]
async fn a_deadline_longer_than_clocks_count_is_a_deadline() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let patient = handle.ask_within(Duration::MAX, |reply| Msg::Ask { n: 1, reply });
    within(async {
        tokio::select! { answer = patient => assert_eq!(answer.unwrap(), 1), never = receiver.answer() => never }
    })
    .await;
}

#[tokio::test]
async fn large_answers_that_nobody_reads_yet_wait_for_each_other() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let mut asks: Vec<_> = (0..6)
        .map(|_| Box::pin(handle.ask_within(LONG, |reply| Msg::Grow { bytes: 400_000, reply })))
        .collect();
    for ask in &mut asks {
        assert!(once(ask).await.is_none());
    }
    for _ in 0..6 {
        match receiver.next().await.0 {
            Msg::Grow { bytes, reply } => reply.send(vec![7; bytes as usize]),
            other => panic!("{other:?}"),
        }
    }
    for ask in asks {
        assert_eq!(within(ask).await.unwrap().len(), 400_000);
    }
}
