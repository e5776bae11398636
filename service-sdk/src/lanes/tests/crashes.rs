//! Processes that die at every point, against what is promised: no tell is lost, no ask is handled twice, and what
//! comes again says so.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::pin::pin;

use proptest::prelude::*;
use watchdog_protocol::lane::{self, PACKET_HEADER};
use watchdog_protocol::{MessageId, MessageNumber};
use watchdog_seqpacket::{Received, ReceiverPage, SenderPage};

use super::peers::*;
use crate::intercom::Intercom;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Tell,
    Feed(u8),
    Flush,
    Ask,
    /// The receiver asks for its next message.
    Next,
    /// It keeps the one in hand open, if there is one.
    Defer,
    /// One of those it keeps open is done.
    Finish(u8),
    /// The sender dies: between two messages, or with numbers reserved and nothing sent.
    SenderDies {
        reserved: u8,
    },
    ReceiverDies(Point),
}

/// Where in a message the receiver dies.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// It has taken the message at the head, and the handler never saw it.
    Taken,
    /// With a message in hand, if there is one.
    InHand,
    /// It has marked the one in hand as done.
    Done,
    /// It has consumed the packet of the one in hand, and not said so.
    Consumed,
    /// Between two messages.
    Between,
}

fn step() -> impl Strategy<Value = Step> {
    let point = prop_oneof![
        Just(Point::Taken),
        Just(Point::InHand),
        Just(Point::Done),
        Just(Point::Consumed),
        Just(Point::Between)
    ];
    prop_oneof![
        3 => Just(Step::Tell),
        3 => (1..6_u8).prop_map(Step::Feed),
        2 => Just(Step::Flush),
        3 => Just(Step::Ask),
        8 => Just(Step::Next),
        3 => Just(Step::Defer),
        3 => any::<u8>().prop_map(Step::Finish),
        1 => (0..3_u8).prop_map(|reserved| Step::SenderDies { reserved }),
        4 => point.prop_map(Step::ReceiverDies),
    ]
}

/// Both sides, and what one knows of them.
struct World {
    lane: Lane,
    sender: (Process, Intercom<Msg>),
    receiver: Receiver,
    next: u64,
    /// Told, and known to be in the lane.
    told: Vec<u64>,
    fed: Vec<u64>,
    in_hand: Option<(u64, MessageNumber)>,
    open: Vec<(u64, MessageId)>,
    /// What each number said, how often it was handled, and how often unmarked.
    seen: BTreeMap<u64, Seen>,
    /// Of the process there is.
    order: Vec<MessageId>,
}

#[derive(Debug, Default)]
struct Seen {
    handled: u32,
    unmarked: u32,
    is_ask: bool,
    /// By a process that lived on.
    is_done: bool,
}

impl World {
    fn new() -> Self {
        let lane = Lane::new();
        let (sender, receiver) = (lane.sender(), lane.receiver());
        Self {
            lane,
            sender,
            receiver,
            next: 0,
            told: Vec::new(),
            fed: Vec::new(),
            in_hand: None,
            open: Vec::new(),
            seen: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    fn say(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Tell => {
                let n = self.say();
                self.sender.1.try_tell(Msg::Say(n)).unwrap();
                self.flushed();
                self.told.push(n);
            }
            Step::Feed(count) => {
                for _ in 0..count {
                    let n = self.say();
                    self.sender.1.feed(Msg::Say(n)).await.unwrap();
                    self.fed.push(n);
                }
            }
            Step::Flush => {
                self.sender.1.flush().await.unwrap();
                self.flushed();
            }
            Step::Ask => {
                let n = self.say();
                // Its caller goes away at once: what is asked here is how often it is handled.
                let mut ask = pin!(self.sender.1.ask_within(LONG, |reply| Msg::Ask { n, reply }));
                assert!(once(&mut ask).await.is_none());
                self.fed.drain(..).for_each(|fed| self.told.push(fed));
            }
            Step::Next => self.handle().await,
            Step::Defer => {
                if let Some((n, _)) = self.in_hand.take() {
                    let id = self.receiver.process.lanes.defer().unwrap();
                    self.open.push((n, id));
                }
            }
            Step::Finish(which) => {
                if !self.open.is_empty() {
                    let (n, id) = self.open.remove(usize::from(which) % self.open.len());
                    self.receiver.process.lanes.finish_deferred(id);
                    self.done(n);
                }
            }
            Step::SenderDies { reserved } => {
                self.fed.clear();
                let page = SenderPage::map_rw(self.lane.sender_page.as_fd()).unwrap();
                if reserved > 0 {
                    page.reserve(reserved.into());
                }
                self.sender = self.lane.sender();
            }
            Step::ReceiverDies(point) => {
                self.die(point);
                self.in_hand = None;
                self.open.clear();
                self.order.clear();
                self.receiver = self.lane.receiver();
            }
        }
    }

    fn done(&mut self, n: u64) {
        self.seen.get_mut(&n).expect("it was handled").is_done = true;
    }

    fn flushed(&mut self) {
        self.told.append(&mut self.fed);
    }

    async fn handle(&mut self) {
        let next =
            tokio::time::timeout(std::time::Duration::from_millis(1), self.receiver.inbox.next()).await;
        if let Some((n, _)) = self.in_hand.take() {
            self.done(n);
        }
        let Ok((message, delivery)) = next else { return };
        let (n, is_ask) = match message {
            Msg::Say(n) => (n, false),
            Msg::Ask { n, reply } => {
                reply.send(n);
                (n, true)
            }
            other => panic!("{other:?}"),
        };
        self.in_hand = Some((n, delivery.id().number));
        assert!(self.order.last().is_none_or(|last| *last < delivery.id()), "out of order: {delivery:?}");
        self.order.push(delivery.id());
        let seen = self.seen.entry(n).or_default();
        seen.handled += 1;
        seen.unmarked += u32::from(!delivery.redelivered());
        seen.is_ask = is_ask;
    }

    /// What a receiver leaves behind that dies there.
    fn die(&mut self, point: Point) {
        let mut page = ReceiverPage::map_rw(self.lane.receiver_page.as_fd()).unwrap();
        match (point, self.in_hand) {
            // With others open, the mark and the packet stay.
            (Point::Done, Some((n, number))) if self.open.is_empty() => {
                page.mark_done(number);
                self.done(n);
            }
            (Point::Consumed, Some((n, number))) if self.open.is_empty() => {
                self.done(n);
                // Only the last of a packet is followed by its end.
                page.mark_done(number);
                if self.head().last() == Some(&number) {
                    self.lane.receiver_end.consume(&mut []).unwrap();
                }
            }
            (Point::Between, Some((n, _))) => {
                self.receiver.inbox.finish();
                self.done(n);
            }
            (Point::Taken, None) if self.open.is_empty() => {
                let done = page.marks().done;
                if let Some(next) = self.head().into_iter().find(|number| *number > done) {
                    // The mark never goes back.
                    page.mark_taken(next.max(page.marks().taken));
                }
            }
            _ => {}
        }
    }

    /// The numbers of the packet at the head.
    fn head(&self) -> Vec<MessageNumber> {
        let mut buffer = vec![0; 1 << 17];
        let Ok(Received::Packet(packet)) = self.lane.receiver_end.peek(&mut buffer, 0) else { return vec![] };
        let header = lane::check(&buffer[..packet.length]).unwrap();
        let mut at = PACKET_HEADER;
        let mut numbers = Vec::new();
        for _ in 0..header.count {
            let (envelope, payload) = lane::read(&buffer[..packet.length], at).unwrap();
            numbers.push(envelope.number);
            at = payload.end;
        }
        numbers
    }

    /// Handles what is left, and holds all of it against what was promised.
    async fn check(mut self) {
        for (n, id) in std::mem::take(&mut self.open) {
            self.receiver.process.lanes.finish_deferred(id);
            self.done(n);
        }
        while !self.head().is_empty() {
            self.handle().await;
        }
        for n in &self.told {
            assert!(self.seen.get(n).is_some_and(|seen| seen.is_done), "{n} was told and is lost");
        }
        for (n, seen) in &self.seen {
            assert!(seen.unmarked <= 1, "{n} came again and did not say so: {seen:?}");
            assert!(!seen.is_ask || seen.handled == 1, "ask {n} was handled twice: {seen:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whoever_dies_wherever_no_tell_is_lost_no_ask_is_doubled_and_what_comes_again_says_so(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            world.check().await;
        });
    }
}

#[tokio::test]
async fn what_was_in_hand_at_a_death_comes_again_marked_in_its_place() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    for n in 0..5 {
        handle.feed(Msg::Say(n)).await.unwrap();
    }
    handle.flush().await.unwrap();
    let mut seen = Vec::new();
    // Each process dies with its second message in hand.
    for _ in 0..4 {
        let mut receiver = lane.receiver();
        for _ in 0..2 {
            let (message, delivery) = receiver.next().await;
            seen.push((
                matches!(message, Msg::Say(n) if n + 1 == delivery.id().number.get()),
                delivery.id().number.get(),
                delivery.redelivered(),
            ));
        }
    }
    let expected =
        [(1, false), (2, false), (2, true), (3, false), (3, true), (4, false), (4, true), (5, false)];
    assert_eq!(seen, expected.map(|(number, again)| (true, number, again)));
    let received = lane.received();
    assert_eq!((received.stats().redelivered, received.propagation().count()), (3, 5));
}

#[tokio::test]
async fn a_message_arrives_though_sender_and_receiver_both_died_after_it_was_sent() {
    let lane = Lane::new();
    let (process, handle) = lane.sender::<Msg>();
    let receiver = lane.receiver::<Msg>();
    handle.tell(Msg::Say(42)).await.unwrap();
    drop((process, handle, receiver));
    let mut receiver = lane.receiver::<Msg>();
    let (message, delivery) = receiver.next().await;
    assert!(matches!(message, Msg::Say(42)) && !delivery.redelivered());
}

#[tokio::test]
async fn a_handle_outlives_the_receiver_it_was_taken_for() {
    let lane = Lane::new();
    let (_process, handle) = lane.sender::<Msg>();
    for n in 0..10 {
        let mut receiver = lane.receiver();
        handle.tell(Msg::Say(n)).await.unwrap();
        assert_eq!(receiver.said().await, n);
        receiver.inbox.finish();
    }
}
