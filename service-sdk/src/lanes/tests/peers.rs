//! A watchdog's part of one lane, and the processes at its ends.

use std::future::Future;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchdog_protocol::limits::{DEFAULT_LANE_BYTES, DEFAULT_MAX_MESSAGE};
use watchdog_protocol::session::{LaneIn, LaneOut};
use watchdog_protocol::{Contract, Incarnation, LaneEpoch, MessageNumber};
use watchdog_seqpacket::{
    Marks, ReceiverPage, ReceiverPageReader, SenderPage, SenderPageReader, Seqpacket, read_only,
};

use crate::Message;
use crate::delivery::Delivery;
use crate::inbox::Inbox;
use crate::intercom::Intercom;
use crate::lanes::Lanes;
use crate::reply::Reply;
use crate::session::{Death, LaneEnds, Lanes as _};

/// Long enough never to be the reason.
pub(super) const LONG: Duration = Duration::from_secs(50);

/// More lanes than a test reads to their ends.
const DRAINED: usize = 8;

/// So short that it passes while one looks.
pub(super) const SHORT: Duration = Duration::from_millis(30);

#[derive(Debug, Message)]
pub(super) enum Msg {
    Say(u64),
    Ask { n: u64, reply: Reply<u64> },
    Bytes(Vec<u8>),
    Grow { bytes: u32, reply: Reply<Vec<u8>> },
}

#[derive(Debug, Message)]
#[message(idempotent)]
pub(super) enum Patient {
    Ask { n: u64, reply: Reply<u64> },
}

/// A lane as the watchdog has it: both ends, both pages.
pub(super) struct Lane {
    pub(super) epoch: LaneEpoch,
    pub(super) sender_end: Seqpacket,
    pub(super) receiver_end: Seqpacket,
    pub(super) sender_page: OwnedFd,
    pub(super) receiver_page: OwnedFd,
}

/// A process: its lanes and their tasks. Dropped it is dead.
pub(super) struct Process {
    pub(super) lanes: Lanes,
    /// Lanes that were read to their ends.
    pub(super) drained: mpsc::Receiver<LaneEpoch>,
    _tasks: JoinSet<()>,
}

/// A process that receives.
pub(super) struct Receiver<M = Msg> {
    pub(super) process: Process,
    pub(super) inbox: Inbox<M>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self::with(1, DEFAULT_LANE_BYTES)
    }

    /// A lane of its own name that holds so many bytes.
    pub(super) fn with(name: u64, bytes: usize) -> Self {
        let (sender_end, receiver_end) = Seqpacket::pair().unwrap();
        sender_end.set_send_bound(bytes).unwrap();
        receiver_end.set_send_bound(bytes).unwrap();
        Self {
            epoch: LaneEpoch::from_stored(name),
            sender_end,
            receiver_end,
            sender_page: SenderPage::create().unwrap(),
            receiver_page: ReceiverPage::create().unwrap(),
        }
    }

    /// A process of the sender, and its handle.
    pub(super) fn sender<M: Message>(&self) -> (Process, Intercom<M>) {
        let mut process = self.process();
        let handle = self.open(&mut process);
        (process, handle)
    }

    /// Opens the lane in a process.
    pub(super) fn open<M: Message>(&self, process: &mut Process) -> Intercom<M> {
        let out = self.out();
        process.lanes.opened(&out, ends(&self.sender_end, &self.sender_page, &self.receiver_page));
        let (lane, fit) = process.lanes.introduced(&out, M::contract()).unwrap();
        Intercom::new(lane, fit)
    }

    pub(super) fn out(&self) -> LaneOut {
        LaneOut { lane: self.epoch, receiver: "receiver".parse().unwrap(), mismatch: None }
    }

    /// A process of the receiver.
    pub(super) fn receiver<M: Message>(&self) -> Receiver<M> {
        let mut process = self.process();
        self.arrive(&mut process, "sender");
        Receiver { inbox: Inbox::new(process.lanes.clone()), process }
    }

    /// Hands the lane to a process, as one of this sender.
    pub(super) fn arrive(&self, process: &mut Process, sender: &str) {
        let lane = LaneIn { lane: self.epoch, sender: sender.parse().unwrap() };
        process.lanes.arrived(lane, ends(&self.receiver_end, &self.receiver_page, &self.sender_page));
    }

    pub(super) fn process(&self) -> Process {
        Process::new(DEFAULT_MAX_MESSAGE)
    }

    pub(super) fn sent(&self) -> SenderPageReader {
        SenderPageReader::map_ro(self.sender_page.as_fd()).unwrap()
    }

    pub(super) fn received(&self) -> ReceiverPageReader {
        ReceiverPageReader::map_ro(self.receiver_page.as_fd()).unwrap()
    }

    /// What the watchdog says when the receiver has died.
    pub(super) fn say_died(&self, to: &mut Process) {
        let Marks { taken, done, .. } = self.received().marks();
        to.lanes.peer_died(self.epoch, Death { incarnation: Incarnation::from_stored(4), taken, done });
    }

    /// The next number of the lane, for a message of one's own making.
    pub(super) fn reserve(&self) -> u64 {
        SenderPage::map_rw(self.sender_page.as_fd()).unwrap().reserve(1).get()
    }

    /// A packet of its own making, from the sender's end.
    pub(super) fn send_raw(&self, bytes: &[u8]) {
        self.sender_end.send(&[IoSlice::new(bytes)], &[]).unwrap();
    }
}

impl Process {
    pub(super) fn new(max_message: usize) -> Self {
        let lanes = Lanes::new(max_message);
        let mut tasks = JoinSet::new();
        let (tell, drained) = mpsc::channel(DRAINED);
        tasks.spawn(lanes.clone().tend(move |lane| tell.try_send(lane).expect("a test has few lanes")));
        Self { lanes, drained, _tasks: tasks }
    }
}

impl<M: Message> Receiver<M> {
    /// The next message, which is there or comes.
    pub(super) async fn next(&mut self) -> (M, Delivery) {
        within(self.inbox.next()).await
    }

    /// Whether nothing is there. What was in hand is done.
    pub(super) async fn is_empty(&mut self) -> bool {
        tokio::time::timeout(SHORT, self.inbox.next()).await.is_err()
    }
}

impl Receiver {
    /// The number the next message says.
    pub(super) async fn said(&mut self) -> u64 {
        match self.next().await.0 {
            Msg::Say(n) => n,
            other => panic!("{other:?}"),
        }
    }

    /// Answers every ask with its number, for ever.
    pub(super) async fn answer(&mut self) -> ! {
        loop {
            if let (Msg::Ask { n, reply }, _) = self.inbox.next().await {
                reply.send(n);
            }
        }
    }
}

/// What must come, in a time that says something is wrong.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("it comes in time")
}

/// Polls it once.
pub(super) async fn once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

pub(super) fn number(number: u64) -> MessageNumber {
    MessageNumber::from_stored(number)
}

pub(super) fn contract<M: Message>() -> Contract {
    M::contract()
}

fn ends(socket: &Seqpacket, own: &OwnedFd, peer: &OwnedFd) -> LaneEnds {
    LaneEnds {
        socket: socket.try_clone().unwrap().into(),
        own_page: own.try_clone().unwrap(),
        peer_page: read_only(peer.as_fd()).unwrap(),
    }
}
