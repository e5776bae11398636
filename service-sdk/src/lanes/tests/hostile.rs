//! Ends that break the protocol: the damage stays on their lane.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use watchdog_protocol::lane::{Direction, Envelope, Kind, Packer, Place};
use watchdog_seqpacket::{ReceiverPage, Seqpacket, payload};

use super::peers::*;
use crate::intercom::{AskError, Intercom};
use crate::lanes::LANE_PACKET;

fn envelope(at: u64, kind: Kind, length: usize) -> Envelope {
    Envelope {
        kind,
        number: number(at),
        sent_at: watchdog_seqpacket::clock::monotonic_ns(),
        left: u64::from(kind == Kind::Ask) * 50_000_000_000,
        length: length.try_into().unwrap(),
        place: Place::Inline,
        trace: None,
        again: false,
    }
}

fn packet(direction: Direction, envelope: &Envelope, payload: &[u8]) -> Vec<u8> {
    let mut packer = Packer::new(direction);
    assert!(packer.push(envelope, payload));
    packer.bytes().to_vec()
}

async fn ask(handle: &Intercom<Msg>) -> Result<u64, AskError> {
    handle.ask_within(LONG, |reply| Msg::Ask { n: 1, reply }).await
}

/// Sends every kind of packet that is none of a lane.
fn send_bad_packets(from: &Seqpacket, direction: Direction) {
    let send = |bytes: &[u8]| from.send(&[IoSlice::new(bytes)], &[]).unwrap();
    send(b"garbage");
    send(&vec![1; LANE_PACKET + 1]);
    let null = std::fs::File::open("/dev/null").unwrap();
    from.send(&[IoSlice::new(b"two")], &[null.as_fd(), null.as_fd()]).unwrap();
    let other = match direction {
        Direction::Requests => packet(Direction::Replies, &envelope(1, Kind::Answer, 0), b""),
        Direction::Replies => packet(Direction::Requests, &envelope(1, Kind::Tell, 0), b""),
    };
    send(&other);
    // No bytes at all, which the kernel lets pass.
    let empty = std::os::unix::net::UnixDatagram::from(std::os::fd::OwnedFd::from(from.try_clone().unwrap()));
    empty.send(b"").unwrap();
}

#[tokio::test]
async fn packets_that_are_none_are_skipped_and_the_lane_goes_on() {
    let lane = Lane::with(1, 32 << 20);
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    handle.tell(Msg::Say(1)).await.unwrap();
    for _ in 0..20 {
        send_bad_packets(&lane.sender_end, Direction::Requests);
    }
    handle.tell(Msg::Say(2)).await.unwrap();
    assert_eq!(receiver.said().await, 1);
    assert_eq!(receiver.said().await, 2);
}

#[tokio::test]
async fn answers_that_are_none_are_skipped_and_the_lane_goes_on() {
    let lane = Lane::with(1, 32 << 20);
    let (_process, handle) = lane.sender::<Msg>();
    let mut open = pin!(ask(&handle));
    assert!(once(&mut open).await.is_none());
    for _ in 0..20 {
        send_bad_packets(&lane.receiver_end, Direction::Replies);
    }
    let mut receiver = lane.receiver();
    within(async {
        tokio::select! { answer = open => assert_eq!(answer.unwrap(), 1), never = receiver.answer() => never }
    })
    .await;
}

#[tokio::test]
async fn a_message_that_can_not_be_read_is_skipped_and_its_ask_dropped() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    // Not of this contract.
    lane.send_raw(&packet(Direction::Requests, &envelope(lane.reserve(), Kind::Tell, 1), &[99]));
    handle.tell(Msg::Say(2)).await.unwrap();
    assert_eq!(receiver.said().await, 2);
    let mut open = pin!(ask(&handle));
    assert!(once(&mut open).await.is_none());
    assert!(matches!(receiver.next().await.0, Msg::Ask { .. }));
    assert!(matches!(within(open).await, Err(AskError::Dropped { .. })));
    // An ask where it is told.
    lane.send_raw(&packet(Direction::Requests, &envelope(lane.reserve(), Kind::Ask, 2), &[0, 5]));
    handle.tell(Msg::Say(3)).await.unwrap();
    assert_eq!(receiver.said().await, 3);
}

#[tokio::test]
async fn a_payload_beside_its_packet_that_lies_is_skipped() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    let beside = |length| {
        packet(
            Direction::Requests,
            &Envelope { place: Place::Beside, ..envelope(lane.reserve(), Kind::Tell, length) },
            b"",
        )
    };
    let sealed = payload::seal(&[7; 100]).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for (length, descriptor) in [(99, sealed.as_fd()), (101, sealed.as_fd()), (100, null.as_fd())] {
        lane.sender_end.send(&[IoSlice::new(&beside(length))], &[descriptor]).unwrap();
    }
    lane.send_raw(&beside(100));
    handle.tell(Msg::Say(1)).await.unwrap();
    assert_eq!(receiver.said().await, 1);
}

#[tokio::test]
async fn a_descriptor_that_nobody_wants_is_closed() {
    use std::os::unix::fs::MetadataExt as _;
    let lane = Lane::new();
    let mut receiver = lane.receiver();
    let unwanted = std::fs::File::from(payload::seal(b"unwanted").unwrap());
    let inode = unwanted.metadata().unwrap().ino();
    for n in 1..20 {
        let bytes = packet(Direction::Requests, &envelope(lane.reserve(), Kind::Tell, 2), &[0, n as u8]);
        lane.sender_end.send(&[IoSlice::new(&bytes)], &[unwanted.as_fd()]).unwrap();
        assert_eq!(receiver.said().await, n);
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    // Those of other tests come and go.
    let of_it = open.filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        std::fs::metadata(path).is_ok_and(|found| found.ino() == inode && found.len() == 8)
    });
    assert_eq!(of_it.count(), 1);
}

#[tokio::test]
async fn a_reader_that_takes_what_is_in_hand_is_noticed_and_the_lane_left_alone() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    let mut receiver = lane.receiver();
    for n in 0..3 {
        handle.tell(Msg::Say(n)).await.unwrap();
    }
    assert_eq!(receiver.said().await, 0);
    // Another holder of the end consumes the packet in hand: a blind consume would lose the next one.
    lane.receiver_end.consume(&mut []).unwrap();
    assert!(receiver.is_empty().await);
    assert_eq!(lane.received().marks().done, number(1));
    assert_eq!(lane.received().marks().consumed, number(0));
}

#[tokio::test]
async fn pages_that_lie_cost_no_message_of_another_lane() {
    let (lying, honest) = (Lane::with(1, 1 << 20), Lane::with(2, 1 << 20));
    let mut marks = ReceiverPage::map_rw(lying.receiver_page.as_fd()).unwrap();
    marks.mark_taken(number(u64::MAX));
    marks.mark_done(number(u64::MAX));
    marks.mark_consumed(number(u64::MAX), u64::MAX);
    drop(marks);
    let (_one, lies) = lying.sender::<Msg>();
    let (_other, says) = honest.sender::<Msg>();
    let mut receiver = lying.receiver();
    honest.arrive(&mut receiver.process, "honest");
    for n in 0..20 {
        lies.tell(Msg::Say(n)).await.unwrap();
        says.tell(Msg::Say(n)).await.unwrap();
    }
    let mut heard = 0;
    for _ in 0..40 {
        heard += receiver.said().await;
    }
    assert_eq!(heard, 2 * (0..20).sum::<u64>());
}

#[tokio::test]
async fn a_sender_that_reads_no_answers_costs_no_more_than_it_may_ask() {
    let lane = Lane::with(1, 16 << 10);
    let mut receiver = lane.receiver::<Msg>();
    // Nobody reads at the sender's end.
    for _ in 0..3000 {
        let bytes = packet(Direction::Requests, &envelope(lane.reserve(), Kind::Ask, 2), &[1, 5]);
        lane.send_raw(&bytes);
        match receiver.next().await.0 {
            Msg::Ask { n, reply } => reply.send(n),
            other => panic!("{other:?}"),
        }
    }
    let still_waits = tokio::time::timeout(Duration::from_millis(20), receiver.process.lanes.flushed()).await;
    assert!(still_waits.is_err());
}
