//! The lanes of this process: those it sends on and those that arrive at its inbox.
//!
//! ```text
//!  session ── opened, died, fits, closed ──▶ OutLane ◀── Intercom<M>      tell, ask, feed
//!          └─ arrived, closed ─────────────▶ Arriving ─▶ Inbox<M>         one message a lane a turn
//!                                               └─ Answers ◀── Reply<T>
//! ```
//! Invariants:
//! - A call of the session never waits here, and neither does an answer.
//! - Answers are read by one task a lane, apart from any handler: two services that ask each other wait for their
//!   deadlines, and not for ever.
//! - A lane that has nothing costs nothing: no call is made to find that out.
//! - What one peer sends or writes into its page is that lane's damage alone.

mod answers;
mod arriving;
mod asks;
mod fit;
mod head;
mod outgoing;
mod turns;
mod unfinished;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use watchdog_protocol::lane::{MESSAGE_HEADER, PACKET_HEADER};
use watchdog_protocol::session::{LaneIn, LaneOut};
use watchdog_protocol::trace::TRACE;
use watchdog_protocol::{Contract, Incarnation, LaneEpoch, MessageId, MessageNumber, Mismatch};
use watchdog_seqpacket::clock::monotonic_ns;
use watchdog_seqpacket::{PageError, Seqpacket};

use self::answers::Answers;
use self::arriving::{Arriving, Yield};
pub(crate) use self::asks::AskEnd;
pub(crate) use self::fit::Fit;
pub(crate) use self::outgoing::{OutLane, Outgoing, Undelivered};
use self::turns::{Turn, Turns};
use crate::delivery::Delivery;
use crate::message::Message;
use crate::session::{self, Death, LaneEnds, chain};

/// Turns without a message before other tasks have theirs.
const IDLE_TURNS: usize = 64;

/// One packet of a lane, in bytes; a payload that fits goes in it, a longer one as a sealed memfd beside it.
///
/// Up to 84 KiB the kernel needs no run of more than four free pages for a packet, so that it always finds some.
/// Measured, there and back on one core: 64 KiB in packets take 40 µs, beside them 200.
pub(crate) const LANE_PACKET: usize = 80 * 1024;

/// Between two tries for what nothing tells of.
const RETRY: Duration = Duration::from_millis(5);

/// What the kernel takes of a send bound for itself.
const SEND_BOUND_MARGIN: usize = 32;

/// The lengths a lane allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Of a payload, in bytes.
    pub(crate) max_message: usize,
    /// Of all that is in a lane, in bytes as the kernel charges them.
    pub(crate) lane_bytes: usize,
    /// Of a packet.
    packet: usize,
    /// Of a payload in a packet.
    inline: usize,
}

/// Why a lane that came can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    #[error("its socket is none")]
    Socket(#[source] watchdog_seqpacket::AdoptError),
    #[error("its socket can't be asked for its bound")]
    Bound(#[source] io::Error),
    #[error("its page can't be used")]
    Page(#[source] PageError),
    #[error("its socket can't be watched")]
    Watch(#[source] io::Error),
}

/// All lanes of this process. A clone is the same lanes.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Shared>);

struct Shared {
    max_message: usize,
    outgoing: Mutex<BTreeMap<LaneEpoch, Arc<OutLane>>>,
    arriving: Mutex<ArrivingLanes>,
    turns: Arc<Turns>,
    #[cfg(test)]
    clock: std::sync::OnceLock<fn() -> u64>,
    /// Lanes whose task is not started yet.
    new: Mutex<Vec<Task>>,
    news: Notify,
}

enum Task {
    Outgoing(Arc<OutLane>),
    Answers(Arc<Answers>),
}

struct ArrivingLanes {
    lanes: BTreeMap<LaneEpoch, Arriving>,
    /// Whose message is in hand.
    in_hand: Option<LaneEpoch>,
    /// Memory for a packet, for all lanes in turn.
    buffer: Vec<u8>,
    /// Read to their ends, and not told yet.
    drained: Vec<LaneEpoch>,
    /// Dead letters of lanes that have not arrived yet.
    buried: BTreeMap<LaneEpoch, BTreeSet<MessageNumber>>,
}

impl Bounds {
    /// Of one lane: what it holds its socket tells, which may take less than a whole packet.
    fn of(max_message: usize, socket: &Seqpacket) -> Result<Self, AdoptError> {
        let lane_bytes = socket.send_bound().map_err(AdoptError::Bound)?;
        let packet = LANE_PACKET.min(lane_bytes.saturating_sub(SEND_BOUND_MARGIN));
        let inline = packet.saturating_sub(PACKET_HEADER + MESSAGE_HEADER + TRACE);
        // A length goes in 32 bits.
        Ok(Self { max_message: max_message.min(u32::MAX as usize), lane_bytes, packet, inline })
    }
}

impl Lanes {
    /// `max_message`: the longest payload, in bytes.
    pub(crate) fn new(max_message: usize) -> Self {
        let arriving = ArrivingLanes {
            lanes: BTreeMap::new(),
            in_hand: None,
            buffer: Vec::new(),
            drained: Vec::new(),
            buried: BTreeMap::new(),
        };
        Self(Arc::new(Shared {
            max_message,
            outgoing: Mutex::default(),
            arriving: Mutex::new(arriving),
            turns: Arc::default(),
            #[cfg(test)]
            clock: std::sync::OnceLock::new(),
            new: Mutex::default(),
            news: Notify::new(),
        }))
    }

    /// The lane that was introduced under this name, for handles of this contract. `None`: it could not be used, or
    /// is gone already.
    pub(crate) fn introduced(&self, lane: &LaneOut, contract: Contract) -> Option<(Arc<OutLane>, Arc<Fit>)> {
        let found = Arc::clone(self.outgoing().get(&lane.lane)?);
        let fit = found.fits.introduced(contract, lane.mismatch.clone());
        Some((found, fit))
    }

    /// The message in hand is done: it does not come again.
    pub(crate) fn finish(&self) {
        if let Some(turn) = self.arriving().finish() {
            turn.queue();
        }
    }

    /// The message in hand is kept open. `None`: there is none.
    pub(crate) fn defer(&self) -> Option<MessageId> {
        let mut arriving = self.arriving();
        let epoch = arriving.in_hand.take()?;
        let lane = arriving.lanes.get_mut(&epoch)?;
        let (number, goes_on) = lane.defer()?;
        if goes_on {
            lane.turn.queue();
        }
        Some(MessageId { epoch, number })
    }

    /// A message that was kept open is done. One of a lane that is gone is nobody's.
    pub(crate) fn finish_deferred(&self, id: MessageId) {
        if let Some(lane) = self.arriving().lanes.get_mut(&id.epoch)
            && lane.finish_deferred(id.number)
        {
            lane.turn.queue();
        }
    }

    /// As [`finish`](Self::finish), and the next message that is there, of the lane whose turn it is. Taken when it
    /// is returned.
    pub(crate) fn try_next<M: Message>(&self, now: u64) -> Option<(M, Delivery)> {
        let mut arriving = self.arriving();
        let epoch = match arriving.finish() {
            Some(turn) => self.0.turns.first_before(turn),
            None => self.0.turns.first()?,
        };
        self.turn(&mut arriving, epoch, now)
    }

    /// The next message, of the lane whose turn it is. Taken when it is returned.
    pub(crate) fn poll_next<M: Message>(&self, context: &mut Context<'_>) -> Poll<(M, Delivery)> {
        let mut arriving = self.arriving();
        for _ in 0..IDLE_TURNS {
            let Some(epoch) = self.0.turns.next(context.waker()) else { return Poll::Pending };
            if let Some(delivered) = self.turn(&mut arriving, epoch, self.now()) {
                return Poll::Ready(delivered);
            }
        }
        // Much to skip: the others have their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn turn<M: Message>(
        &self,
        arriving: &mut ArrivingLanes,
        epoch: LaneEpoch,
        now: u64,
    ) -> Option<(M, Delivery)> {
        let delivered = arriving.turn(epoch, now);
        if delivered.is_none() && !arriving.drained.is_empty() {
            self.0.news.notify_one();
        }
        delivered
    }

    /// Nanoseconds of the monotonic clock.
    pub(crate) fn now(&self) -> u64 {
        #[cfg(test)]
        if let Some(clock) = self.0.clock.get() {
            return clock();
        }
        monotonic_ns()
    }

    /// Measures times by another clock.
    #[cfg(test)]
    pub(crate) fn set_clock(&self, clock: fn() -> u64) {
        assert!(self.0.clock.set(clock).is_ok(), "a clock is set once");
    }

    /// Runs the tasks of all lanes, for ever, and says which lane to the inbox was read to its end. A task that panics
    /// takes this with it.
    pub(crate) async fn tend(self, mut drained: impl FnMut(LaneEpoch)) {
        let buffer = Arc::default();
        let mut tasks = JoinSet::new();
        loop {
            let ended = std::mem::take(&mut self.arriving().drained);
            ended.into_iter().for_each(&mut drained);
            for task in std::mem::take(&mut *self.0.new.lock().expect("nothing panics while it is held")) {
                match task {
                    Task::Outgoing(lane) => tasks.spawn(lane.tend(Arc::clone(&buffer))),
                    Task::Answers(answers) => tasks.spawn(answers.tend()),
                };
            }
            tokio::select! {
                () = self.0.news.notified() => {}
                Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                },
            }
        }
    }

    /// Waits until every answer that this process gave is with the kernel.
    pub(crate) async fn flushed(&self) {
        let all: Vec<_> = self.arriving().lanes.values().map(|lane| Arc::clone(&lane.answers)).collect();
        for answers in all {
            answers.flushed().await;
        }
    }

    fn start(&self, task: Task) {
        self.0.new.lock().expect("nothing panics while it is held").push(task);
        self.0.news.notify_one();
    }

    fn outgoing(&self) -> MutexGuard<'_, BTreeMap<LaneEpoch, Arc<OutLane>>> {
        self.0.outgoing.lock().expect("nothing panics while it is held")
    }

    fn arriving(&self) -> MutexGuard<'_, ArrivingLanes> {
        self.0.arriving.lock().expect("a message whose reading panicked ends the process")
    }
}

impl ArrivingLanes {
    /// The message in hand is done. The place in line of its lane, if it is to have another turn.
    fn finish(&mut self) -> Option<&Arc<Turn>> {
        let lane = self.in_hand.take().and_then(|epoch| self.lanes.get_mut(&epoch))?;
        lane.finish().then_some(&lane.turn)
    }

    fn turn<M: Message>(&mut self, epoch: LaneEpoch, now: u64) -> Option<(M, Delivery)> {
        // It may be gone.
        let lane = self.lanes.get_mut(&epoch)?;
        match lane.turn(&mut self.buffer, now) {
            Yield::Message(message, delivery) => {
                self.in_hand = Some(epoch);
                return Some((message, delivery));
            }
            Yield::Again => lane.turn.queue(),
            Yield::Drained => self.drained.push(epoch),
            Yield::Nothing => {}
        }
        None
    }
}

impl session::Lanes for Lanes {
    fn arrived(&mut self, lane: LaneIn, ends: LaneEnds) {
        let mut arriving = self.arriving();
        let epoch = lane.lane;
        if arriving.lanes.contains_key(&epoch) {
            return;
        }
        let sender = lane.sender.clone();
        let buried = arriving.buried.remove(&epoch).unwrap_or_default();
        match Arriving::adopt(lane, ends, buried, self.0.max_message, self.0.turns.place(epoch)) {
            Ok(lane) => {
                self.start(Task::Answers(Arc::clone(&lane.answers)));
                lane.turn.queue();
                arriving.lanes.insert(epoch, lane);
            }
            Err(error) => tracing::error!(%sender, lane = %epoch, "a lane can't be used: {}", chain(&error)),
        }
    }

    fn pass_over(&mut self, lane: LaneEpoch, numbers: Vec<MessageNumber>) {
        self.arriving().buried.insert(lane, numbers.into_iter().collect());
    }

    fn opened(&mut self, lane: &LaneOut, ends: LaneEnds) {
        let mut outgoing = self.outgoing();
        if outgoing.contains_key(&lane.lane) {
            return;
        }
        match OutLane::adopt(lane, ends, self.0.max_message) {
            Ok(adopted) => {
                let adopted = Arc::new(adopted);
                // One that was denied, and is allowed again by this one.
                outgoing.retain(|_, older| older.receiver() != adopted.receiver() || !older.is_over());
                self.start(Task::Outgoing(Arc::clone(&adopted)));
                outgoing.insert(lane.lane, adopted);
            }
            Err(error) => {
                tracing::error!(receiver = %lane.receiver, "a lane can't be used: {}", chain(&error));
            }
        }
    }

    fn peer_died(&mut self, lane: LaneEpoch, death: Death) {
        if let Some(lane) = self.outgoing().get(&lane) {
            lane.receiver_died(death);
        }
    }

    fn buried(&mut self, lane: LaneEpoch, incarnation: Incarnation, number: MessageNumber) {
        if let Some(lane) = self.outgoing().get(&lane) {
            lane.buried(incarnation, number);
        }
    }

    fn denied(&mut self, lane: LaneEpoch) {
        if let Some(lane) = self.outgoing().get(&lane) {
            lane.deny();
        }
    }

    fn fits(&mut self, lane: LaneEpoch, mismatch: Option<Mismatch>) {
        if let Some(lane) = self.outgoing().get(&lane) {
            lane.fits.compared(mismatch);
        }
    }

    fn closed(&mut self, lane: LaneEpoch) {
        if let Some(lane) = self.outgoing().remove(&lane) {
            lane.close();
        }
        if let Some(lane) = self.arriving().lanes.remove(&lane) {
            lane.answers.close();
        }
    }
}

#[cfg(test)]
mod tests;
