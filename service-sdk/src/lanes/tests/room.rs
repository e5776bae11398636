//! A lane's bound: who waits, who gets a message back, and what goes beside packets.

use std::future::Future as _;
use std::pin::pin;
use std::time::Duration;

use watchdog_protocol::limits::DEFAULT_MAX_MESSAGE;
use watchdog_protocol::{MessageNumber, Mismatch};

use super::peers::*;
use crate::intercom::{AskError, FlushError, Intercom, TellError};
use crate::reply::Reply;
use crate::session::Lanes as _;

const SMALL: usize = 16 << 10;

/// Tells until there is no room; the first number not told.
fn fill(handle: &Intercom<Msg>) -> u64 {
    for n in 0.. {
        match handle.try_tell(Msg::Say(n)) {
            Ok(()) => {}
            Err(TellError::Full(Msg::Say(back))) => {
                assert_eq!(back, n);
                return n;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    unreachable!("a lane without a bound")
}

fn bytes(count: usize) -> Msg {
    Msg::Bytes((0..count).map(|at| (at % 251) as u8).collect())
}

async fn heard_bytes(receiver: &mut Receiver) -> usize {
    match receiver.next().await.0 {
        Msg::Bytes(bytes) => {
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
            bytes.len()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_lane_gives_the_message_back_at_the_deadline_and_numbers_have_no_gap_for_it() {
    let lane = Lane::with(1, SMALL);
    let (_process, handle) = lane.sender::<Msg>();
    let told = fill(&handle);
    let back = handle.tell_within(SHORT, Msg::Say(99)).await;
    assert!(matches!(back, Err(TellError::Full(Msg::Say(99)))));
    let not_sent = handle.ask_within(SHORT, |reply| Msg::Ask { n: 1, reply }).await;
    assert!(matches!(not_sent, Err(AskError::NotSent { .. })));
    let stats = handle.stats();
    assert_eq!((stats.sent, stats.queued, stats.refused), (told, told, 3));
    assert_eq!(lane.sent().reserved(), number(told));
    let mut receiver = lane.receiver();
    for n in 0..told {
        assert_eq!(receiver.said().await, n);
    }
    assert!(receiver.is_empty().await);
}

#[tokio::test]
async fn who_waits_for_room_goes_when_it_comes_in_the_order_of_waiting() {
    let lane = Lane::with(1, SMALL);
    let (_process, handle) = lane.sender::<Msg>();
    let told = fill(&handle);
    let mut waiting: Vec<_> =
        (0..5).map(|n| Box::pin(handle.tell_within(LONG, Msg::Say(told + n)))).collect();
    for wait in &mut waiting {
        assert!(once(wait).await.is_none());
    }
    let mut receiver = lane.receiver();
    assert_eq!(receiver.said().await, 0);
    assert_eq!(receiver.said().await, 1);
    // There is room for one, and it is not for who comes now.
    assert!(matches!(handle.try_tell(Msg::Say(0)), Err(TellError::Full(_))));
    let tells = async {
        for wait in waiting {
            wait.await.unwrap();
        }
    };
    let receive = async {
        for n in 2..told + 5 {
            assert_eq!(receiver.said().await, n);
        }
    };
    within(async { tokio::join!(tells, receive) }).await;
}

#[tokio::test]
async fn a_dropped_tell_has_sent_nothing_and_lets_the_next_one_go() {
    let lane = Lane::with(1, SMALL);
    let (_process, handle) = lane.sender::<Msg>();
    let told = fill(&handle);
    {
        let mut dropped = pin!(handle.tell_within(LONG, Msg::Say(1_000_000)));
        assert!(once(&mut dropped).await.is_none());
    }
    let mut receiver = lane.receiver();
    let tell = async { handle.tell_within(LONG, Msg::Say(told)).await.unwrap() };
    let receive = async {
        for n in 0..=told {
            assert_eq!(receiver.said().await, n);
        }
        assert!(receiver.is_empty().await);
    };
    within(async { tokio::join!(tell, receive) }).await;
}

#[tokio::test]
async fn what_was_fed_stays_where_the_lane_is_full_and_goes_first_when_it_is_not() {
    let lane = Lane::with(1, SMALL);
    let (_process, handle) = lane.sender::<Msg>();
    let told = fill(&handle);
    let handle = handle.with_deadline(SHORT);
    handle.feed(Msg::Say(told)).await.unwrap();
    handle.feed(Msg::Say(told + 1)).await.unwrap();
    assert!(matches!(handle.flush().await, Err(FlushError::Full { fed: 2 })));
    let mut receiver = lane.receiver();
    let tell = async { handle.tell_within(LONG, Msg::Say(told + 2)).await.unwrap() };
    let receive = async {
        for n in 0..told + 3 {
            assert_eq!(receiver.said().await, n);
        }
    };
    within(async { tokio::join!(tell, receive) }).await;
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let sizes = [0, 1, 60_000, 65_536, 81_000, 90_000, 1 << 20, DEFAULT_MAX_MESSAGE - 8];
    let tell = async {
        for size in sizes {
            handle.tell_within(LONG, bytes(size)).await.unwrap();
        }
    };
    let receive = async {
        for size in sizes {
            assert_eq!(heard_bytes(&mut receiver).await, size);
        }
    };
    within(async { tokio::join!(tell, receive) }).await;
    receiver.inbox.finish();
    assert_eq!(lane.sent().stats().memfd_bytes, lane.received().stats().memfd_consumed);
}

#[tokio::test]
async fn a_message_beyond_the_largest_is_too_large() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    match handle.tell(bytes(DEFAULT_MAX_MESSAGE)).await {
        Err(TellError::TooLarge { message: Msg::Bytes(back), limit: DEFAULT_MAX_MESSAGE }) => {
            assert_eq!(back.len(), DEFAULT_MAX_MESSAGE);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lane.sent().reserved(), MessageNumber::NONE);
}

#[tokio::test]
async fn what_goes_beside_packets_counts_and_one_beyond_the_bound_goes_into_an_empty_lane() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    // Above the bound, alone.
    handle.try_tell(bytes(5 << 20)).unwrap();
    assert!(matches!(handle.try_tell(Msg::Say(1)), Err(TellError::Full(_))));
    assert!(matches!(handle.try_tell(bytes(200_000)), Err(TellError::Full(_))));
    assert_eq!(heard_bytes(&mut receiver).await, 5 << 20);
    assert!(matches!(handle.try_tell(bytes(200_000)), Err(TellError::Full(_))), "it is in hand");
    receiver.inbox.finish();
    // Up to the bound, together.
    for _ in 0..5 {
        handle.try_tell(bytes(200_000)).unwrap();
    }
    assert!(matches!(handle.try_tell(bytes(200_000)), Err(TellError::Full(Msg::Bytes(_)))));
    handle.try_tell(Msg::Say(1)).unwrap();
    // It waits for exactly as much as it needs.
    let wait = async { handle.tell_within(LONG, bytes(200_000)).await.unwrap() };
    let receive = async {
        for _ in 0..5 {
            assert_eq!(heard_bytes(&mut receiver).await, 200_000);
        }
        assert_eq!(receiver.said().await, 1);
        assert_eq!(heard_bytes(&mut receiver).await, 200_000);
    };
    within(async { tokio::join!(wait, receive) }).await;
}

#[tokio::test]
async fn who_waits_for_room_beside_packets_does_not_spin() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    handle.try_tell(bytes(1 << 20)).unwrap();
    // The socket has room all the time, and it is not what is waited for.
    let mut wait = pin!(handle.tell_within(Duration::from_millis(100), bytes(200_000)));
    let mut polls = 0;
    let full = std::future::poll_fn(|context| {
        polls += 1;
        wait.as_mut().poll(context)
    })
    .await;
    assert!(matches!(full, Err(TellError::Full(_))));
    assert!(polls < 100, "{polls} looks in 100 ms");
}

#[tokio::test]
async fn what_a_killed_sender_counted_and_did_not_send_does_not_fill_the_lane() {
    let lane = Lane::new();
    let (process, handle) = lane.sender::<Msg>();
    drop((process, handle));
    use std::os::fd::AsFd as _;
    watchdog_seqpacket::SenderPage::map_rw(lane.sender_page.as_fd()).unwrap().count_memfd(1 << 40);
    let (_process, handle) = lane.sender::<Msg>();
    for _ in 0..5 {
        handle.try_tell(bytes(200_000)).unwrap();
    }
}

#[tokio::test]
async fn a_lane_smaller_than_a_packet_takes_messages_all_the_same() {
    let lane = Lane::with(1, SMALL);
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    for size in [10_000, 20_000, 70_000] {
        handle.tell_within(LONG, bytes(size)).await.unwrap();
        assert_eq!(heard_bytes(&mut receiver).await, size);
        receiver.inbox.finish();
    }
    let feed = async {
        for n in 0..2000 {
            handle.feed(Msg::Say(n)).await.unwrap();
        }
        handle.flush().await.unwrap();
    };
    let receive = async {
        for n in 0..2000 {
            assert_eq!(receiver.said().await, n);
        }
    };
    within(async { tokio::join!(feed, receive) }).await;
}

#[tokio::test]
async fn a_message_with_a_reply_is_not_told() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let back = handle.tell(Msg::Ask { n: 1, reply: Reply::inert() }).await;
    assert!(matches!(back, Err(TellError::NotTold(Msg::Ask { n: 1, .. }))));
}

#[tokio::test]
async fn a_contract_that_does_not_fit_is_told_as_long_as_it_does_not() {
    let lane = Lane::new();
    let (mut process, handle) = lane.sender::<Msg>();
    let mismatch = Mismatch::Unknown { at: 3, sender: "Grow".into() };
    process.lanes.fits(lane.epoch, Some(mismatch.clone()));
    assert!(matches!(handle.tell(Msg::Say(1)).await, Err(TellError::ContractMismatch(Msg::Say(1)))));
    assert!(matches!(handle.feed(Msg::Say(1)).await, Err(TellError::ContractMismatch(_))));
    let asked = handle.ask(|reply| Msg::Ask { n: 1, reply }).await;
    assert!(matches!(asked, Err(AskError::ContractMismatch { source, .. }) if source == mismatch));
    assert_eq!(handle.mismatch(), Some(mismatch));
    process.lanes.fits(lane.epoch, None);
    handle.tell(Msg::Say(1)).await.unwrap();
}

#[tokio::test]
async fn each_contract_of_a_lane_fits_by_itself() {
    let lane = Lane::new();
    let (process, handle) = lane.sender::<Msg>();
    let mismatch = Mismatch::Unknown { at: 0, sender: "Ask".into() };
    let out = watchdog_protocol::session::LaneOut { mismatch: Some(mismatch), ..lane.out() };
    let (other, fit) = process.lanes.introduced(&out, contract::<Patient>()).unwrap();
    let other = Intercom::<Patient>::new(other, fit);
    let asked = other.ask(|reply| Patient::Ask { n: 1, reply }).await;
    assert!(matches!(asked, Err(AskError::ContractMismatch { .. })));
    handle.tell(Msg::Say(1)).await.unwrap();
}

#[tokio::test]
async fn a_lane_that_is_gone_is_no_service_and_ends_who_waits() {
    let lane = Lane::with(1, SMALL);
    let (mut process, handle) = lane.sender::<Msg>();
    fill(&handle);
    let mut waiting = pin!(handle.tell_within(LONG, Msg::Say(1)));
    assert!(once(&mut waiting).await.is_none());
    process.lanes.closed(lane.epoch);
    assert!(matches!(within(waiting).await, Err(TellError::NoSuchService(_))));
    assert!(matches!(handle.try_tell(Msg::Say(1)), Err(TellError::NoSuchService(_))));
    assert!(process.lanes.introduced(&lane.out(), contract::<Msg>()).is_none());
}

#[tokio::test]
async fn a_lane_whose_other_end_nobody_has_is_no_service() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    drop(lane);
    assert!(matches!(handle.tell(Msg::Say(1)).await, Err(TellError::NoSuchService(_))));
}

#[tokio::test]
async fn a_lane_that_was_shut_is_denied() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let end = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(
        lane.sender_end.try_clone().unwrap(),
    ));
    end.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(handle.tell(Msg::Say(1)).await, Err(TellError::Denied(Msg::Say(1)))));
}

#[tokio::test]
async fn a_deadline_of_nothing_is_one_try() {
    let lane = Lane::with(1, SMALL);
    let (_process, handle) = lane.sender::<Msg>();
    handle.tell_within(Duration::ZERO, Msg::Say(1)).await.unwrap();
    fill(&handle);
    assert!(matches!(handle.tell_within(Duration::ZERO, Msg::Say(1)).await, Err(TellError::Full(_))));
}

#[test]
fn an_error_shows_itself_without_its_message() {
    struct NotDebug;
    let texts: Vec<String> = [TellError::Full(NotDebug), TellError::TooLarge { message: NotDebug, limit: 9 }]
        .iter()
        .map(|error| format!("{error:?}: {error}"))
        .collect();
    assert_eq!(texts, ["Full: the lane is full", "TooLarge { limit: 9 }: the message has more than 9 bytes"]);
}
