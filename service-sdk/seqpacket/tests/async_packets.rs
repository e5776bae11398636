//! The socket in a tokio runtime: edges that came before anyone waited, room, cancellation.
#![cfg(feature = "tokio")]
#![expect(clippy::unwrap_used, reason = "a test that fails here should say so here")]

use std::fs::File;
use std::future::Future;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use watchdog_seqpacket::{AsyncSeqpacket, Packet, Received, Seqpacket};

const LONG: Duration = Duration::from_secs(60);

fn packet(received: Received) -> Packet {
    match received {
        Received::Packet(packet) => packet,
        other => panic!("{other:?} and no packet"),
    }
}

async fn next(socket: &AsyncSeqpacket) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let received = timeout(LONG, socket.recv(&mut buffer, 1)).await.expect("a packet in time").unwrap();
    let length = packet(received).length;
    buffer[..length].to_vec()
}

fn fill(socket: &Seqpacket) -> usize {
    (0..).find(|_| socket.send(&[IoSlice::new(&[7; 64])], &[]).is_err()).unwrap()
}

/// Once, without a wake-up.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn packets_queued_before_the_registration_are_received() {
    let (a, b) = Seqpacket::pair().unwrap();
    for text in [b"one", b"two"] {
        a.send(&[IoSlice::new(text)], &[]).unwrap();
    }
    let b = AsyncSeqpacket::new(b).unwrap();
    assert_eq!(next(&b).await, b"one");
    assert_eq!(next(&b).await, b"two");
    drop(a);
    let end = timeout(LONG, b.recv(&mut [0; 8], 0)).await.unwrap();
    assert!(matches!(end, Ok(Received::End)));
}

#[tokio::test]
async fn a_short_packet_does_not_hide_the_ones_behind_it() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (a, b) = (AsyncSeqpacket::new(a).unwrap(), AsyncSeqpacket::new(b).unwrap());
    let total = 1000_u32;
    let send = async {
        for number in 0..total {
            a.send(&[IoSlice::new(&number.to_ne_bytes())], &[]).await.unwrap();
        }
    };
    let receive = async {
        for number in 0..total {
            assert_eq!(next(&b).await, number.to_ne_bytes());
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn a_packet_is_peeked_and_then_consumed() {
    let (a, b) = Seqpacket::pair().unwrap();
    let b = AsyncSeqpacket::new(b).unwrap();
    a.send(&[IoSlice::new(b"first")], &[File::open("/dev/null").unwrap().as_fd()]).unwrap();
    a.send(&[IoSlice::new(b"second")], &[]).unwrap();
    for _ in 0..2 {
        let peeked = packet(timeout(LONG, b.peek(&mut [0; 16], 1)).await.unwrap().unwrap());
        assert_eq!((peeked.length, peeked.descriptors.len()), (5, 1));
    }
    b.socket().consume(&mut []).unwrap();
    assert_eq!(next(&b).await, b"second");
}

#[tokio::test]
async fn who_finds_nothing_waits_for_the_next_packet() {
    let (a, b) = Seqpacket::pair().unwrap();
    let b = AsyncSeqpacket::new(b).unwrap();
    for round in 0..100_u32 {
        a.send(&[IoSlice::new(&round.to_ne_bytes())], &[]).unwrap();
        let mut buffer = [0; 8];
        loop {
            timeout(LONG, b.readable()).await.expect("readable in time").unwrap();
            match b.try_peek(&mut buffer, 0) {
                Ok(received) => break assert_eq!(packet(received).length, 4),
                Err(nothing) => assert_eq!(nothing.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(b.try_recv(&mut buffer, 0).is_ok());
        assert_eq!(b.try_recv(&mut buffer, 0).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(poll_once(b.readable()).is_pending(), "nothing is queued");
    }
}

#[tokio::test]
async fn who_says_that_all_is_read_waits_for_the_next_packet_and_misses_none() {
    let (a, b) = Seqpacket::pair().unwrap();
    let b = AsyncSeqpacket::new(b).unwrap();
    for round in 0..100_u32 {
        a.send(&[IoSlice::new(&round.to_ne_bytes())], &[]).unwrap();
        let readable = timeout(LONG, b.readable()).await.expect("readable in time").unwrap();
        assert!(b.socket().recv(&mut [0; 8], 0).is_ok());
        // One that comes after the runtime's last look, and before it is said that all is read.
        a.send(&[IoSlice::new(b"late")], &[]).unwrap();
        readable.drained();
        assert!(poll_once(b.readable()).is_pending());
        assert_eq!(next(&b).await, b"late");
    }
}

#[tokio::test]
async fn room_is_there_at_once_or_comes_or_is_looked_for_after_a_while() {
    let (a, b) = Seqpacket::pair().unwrap();
    let a = AsyncSeqpacket::new(a).unwrap();
    timeout(LONG, a.room()).await.unwrap().unwrap();
    fill(a.socket());
    timeout(LONG, a.room()).await.unwrap().unwrap();
    while b.recv(&mut [0; 64], 0).is_ok() {}
    timeout(LONG, a.room()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_send_waits_for_any_room_at_all() {
    let (a, b) = Seqpacket::pair().unwrap();
    fill(&a);
    let a = AsyncSeqpacket::new(a).unwrap();
    let parts = [IoSlice::new(b"at last")];
    let send = a.send(&parts, &[]);
    let read = async { b.recv(&mut [0; 64], 0).unwrap() };
    // One read makes room for one packet, long before the kernel says writable.
    let (sent, _) = timeout(LONG, async { tokio::join!(send, read) }).await.unwrap();
    sent.unwrap();
    assert!(a.socket().outstanding().unwrap() > 100_000, "the others are still queued");
}

#[tokio::test]
async fn a_send_without_room_gives_up_at_its_deadline() {
    let (a, b) = Seqpacket::pair().unwrap();
    let queued = fill(&a);
    let a = AsyncSeqpacket::new(a).unwrap();
    let started = Instant::now();
    let full = a.send_by(&[IoSlice::new(b"x")], &[], started + Duration::from_millis(30)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() >= Duration::from_millis(30));
    drop(a);
    for _ in 0..queued {
        assert_eq!(packet(b.recv(&mut [0; 64], 0).unwrap()).length, 64);
    }
    assert!(matches!(b.recv(&mut [0; 64], 0), Ok(Received::End)), "nothing of it went");
}

#[tokio::test]
async fn a_deadline_that_has_passed_still_allows_one_try() {
    let (a, b) = Seqpacket::pair().unwrap();
    let a = AsyncSeqpacket::new(a).unwrap();
    a.send_by(&[IoSlice::new(b"in time")], &[], Instant::now() - Duration::from_secs(1)).await.unwrap();
    assert_eq!(packet(b.recv(&mut [0; 64], 0).unwrap()).length, 7);
}

#[tokio::test]
async fn dropped_calls_have_neither_sent_nor_taken_anything() {
    let (a, b) = Seqpacket::pair().unwrap();
    let queued = fill(&a);
    let (a, b) = (AsyncSeqpacket::new(a).unwrap(), AsyncSeqpacket::new(b).unwrap());
    assert!(poll_once(a.send(&[IoSlice::new(b"dropped")], &[])).is_pending());
    for _ in 0..queued {
        assert_eq!(next(&b).await, [7; 64]);
    }
    assert!(poll_once(b.recv(&mut [0; 64], 0)).is_pending());
    a.send(&[IoSlice::new(b"kept")], &[]).await.unwrap();
    assert_eq!(next(&b).await, b"kept");
}

#[tokio::test]
async fn a_sender_that_waits_goes_on_with_the_next_receiver() {
    let (a, b) = Seqpacket::pair().unwrap();
    let held = b.try_clone().unwrap(); // as the watchdog does
    let queued = fill(&a);
    let a = AsyncSeqpacket::new(a).unwrap();
    let parts = [IoSlice::new(b"waited")];
    let send = a.send(&parts, &[]);
    let succeed = async {
        drop(AsyncSeqpacket::new(b).unwrap());
        let next_holder = AsyncSeqpacket::new(held).unwrap();
        for _ in 0..queued {
            assert_eq!(next(&next_holder).await, [7; 64]);
        }
        assert_eq!(next(&next_holder).await, b"waited");
    };
    let (sent, ()) = timeout(LONG, async { tokio::join!(send, succeed) }).await.unwrap();
    sent.unwrap();
}

#[tokio::test]
async fn a_closed_end_leaves_no_events_behind() {
    let (a, b) = Seqpacket::pair().unwrap();
    let held = b.try_clone().unwrap();
    drop(AsyncSeqpacket::new(b).unwrap());
    // The same open end registers anew: it would be refused while the first registration lives under its number.
    let again = AsyncSeqpacket::new(held).unwrap();
    a.send(&[IoSlice::new(b"here")], &[]).unwrap();
    assert_eq!(next(&again).await, b"here");
}
