//! The sender's end of one lane, shared by all handles of the process.
//!
//! ```text
//!  tell ─┐                                              ┌▶ number reserved ─▶ packet ─▶ counted
//!  ask ──┼─▶ outlet: one caller at a time, in order ────┤
//!  feed ─┘             (who waits for room keeps it)    └▶ fed: packed, and sent before anything after it
//!
//!  the task: answers ─▶ open asks;  a death: reads all answers first;  deadlines
//! ```
//! A finished `tell` is with the kernel: only what was fed is buffered here.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};
use watchdog_protocol::lane::{
    self, Direction, Envelope, EnvelopeError, Kind, MESSAGE_HEADER, PACKET_HEADER, Packer, Place,
};
use watchdog_protocol::limits::{MAX_BATCH, MAX_OPEN_ASKS, MAX_PACKET, PACKET_OVERHEAD};
use watchdog_protocol::session::LaneOut;
use watchdog_protocol::{Contract, Incarnation, LaneEpoch, MessageNumber, Mismatch, ServiceName};
use watchdog_seqpacket::clock::monotonic_ns;
use watchdog_seqpacket::payload::{self, PayloadError};
use watchdog_seqpacket::{AsyncSeqpacket, Received, ReceiverPageReader, SenderPage, Seqpacket};

use super::asks::{AskEnd, Asks, Watch};
use super::{AdoptError, Bounds, LANE_PACKET};
use crate::intercom::LaneStats;
use crate::message::{Asks as Repeat, EncodeError, Message};
use crate::session::{EXHAUSTED_PAUSE, LaneEnds, chain, may_pass};

/// Packets of answers read at a time: the service has its turn in between.
const ANSWERS_A_TURN: usize = 64;

/// A lane to a peer's inbox.
pub(crate) struct OutLane {
    lane: LaneEpoch,
    receiver: ServiceName,
    socket: AsyncSeqpacket,
    page: SenderPage,
    peer: ReceiverPageReader,
    bounds: Bounds,
    outlet: tokio::sync::Mutex<Outlet>,
    asks: Mutex<Asks>,
    ask_slots: Semaphore,
    fits: Mutex<Vec<Arc<Fit>>>,
    deaths: Mutex<VecDeque<(Incarnation, MessageNumber)>>,
    /// Wakes the task: a death, an earlier deadline, the end.
    news: Notify,
    is_closed: AtomicBool,
    since: Instant,
    handed_before: u64,
}

/// Whether one contract of this process's handles fits the receiver's.
#[derive(Debug)]
pub(crate) struct Fit {
    contract: Contract,
    mismatch: Mutex<Option<Mismatch>>,
}

/// A message as bytes.
pub(crate) struct Outgoing {
    payload: Vec<u8>,
    /// The payload, when it is too long for a packet.
    sealed: Option<OwnedFd>,
    /// When it was accepted: nanoseconds of the monotonic clock.
    accepted: u64,
}

/// Why a message is not in the lane.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// No room now, or until the deadline.
    Full,
    /// The lane is gone.
    NoSuchService,
    /// The lane was shut.
    Denied,
    /// The contracts differ.
    Mismatch(Mismatch),
    /// It is longer than this.
    TooLarge { limit: usize },
    /// It can't be written.
    Unwritable(EncodeError),
    /// The system refuses.
    System(io::Error),
}

/// What only the caller whose turn it is may touch.
struct Outlet {
    /// Of a message that goes by itself.
    single: Packer,
    fed: Fed,
}

/// Messages of a packet that is not sent yet.
struct Fed {
    packet: Packer,
    bytes: u64,
}

/// How far answers are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    NobodyWaits,
    Dry,
}

/// What reading answers came to.
enum Found {
    /// As far as was wanted.
    Enough,
    More,
    /// Nobody has the other end, and nobody will: the watchdog is gone too.
    End,
}

/// Who waits for an answer; gone, nobody does.
struct Waiting<'a> {
    lane: &'a OutLane,
    number: MessageNumber,
}

/// How long a caller waits. Its clock is not read before there is something to wait for.
struct Patience {
    within: Duration,
    deadline: Option<Instant>,
}

impl Patience {
    fn new(within: Duration) -> Self {
        Self { within, deadline: None }
    }

    fn deadline(&mut self) -> Instant {
        // A wait that is longer than the clock counts is a very long one.
        const AGES: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        *self.deadline.get_or_insert_with(|| {
            let now = Instant::now();
            now.checked_add(self.within).unwrap_or(now + AGES)
        })
    }
}

/// What is wrong with a packet of answers. It is skipped; the lane goes on.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error("a packet without bytes")]
    Empty,
    #[error("a packet of {length} bytes")]
    Oversize { length: usize },
    #[error("a packet with more than one descriptor")]
    TooManyDescriptors,
    #[error("a packet that is none of a lane")]
    Envelope(#[source] EnvelopeError),
    #[error("a packet of requests")]
    Direction,
}

impl Fit {
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        self.state().clone()
    }

    fn check(&self) -> Result<(), Undelivered> {
        match &*self.state() {
            Some(mismatch) => Err(Undelivered::Mismatch(mismatch.clone())),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Mismatch>> {
        self.mismatch.lock().expect("nothing panics while it is held")
    }
}

impl OutLane {
    pub(super) fn adopt(lane: &LaneOut, ends: LaneEnds, bounds: Bounds) -> Result<Self, AdoptError> {
        let LaneEnds { socket, own_page, peer_page } = ends;
        let socket = Seqpacket::from_fd(socket).map_err(AdoptError::Socket)?;
        let bounds = bounds.of(&socket)?;
        let page = SenderPage::map_rw(own_page.as_fd()).map_err(AdoptError::Page)?;
        let peer = ReceiverPageReader::map_ro(peer_page.as_fd()).map_err(AdoptError::Page)?;
        if socket.outstanding().is_ok_and(|bytes| bytes == 0) {
            // What an older process counted and could not send any more would fill the lane for ever.
            page.settle_memfd(peer.stats().memfd_consumed);
        }
        let handed_before = peer.propagation().count();
        Ok(Self {
            lane: lane.lane,
            receiver: lane.receiver.clone(),
            socket: AsyncSeqpacket::new(socket).map_err(AdoptError::Watch)?,
            page,
            peer,
            bounds,
            outlet: tokio::sync::Mutex::new(Outlet {
                single: Packer::new(Direction::Requests),
                fed: Fed { packet: Packer::new(Direction::Requests), bytes: 0 },
            }),
            asks: Mutex::default(),
            ask_slots: Semaphore::new(MAX_OPEN_ASKS),
            fits: Mutex::default(),
            deaths: Mutex::default(),
            news: Notify::new(),
            is_closed: AtomicBool::new(false),
            since: Instant::now(),
            handed_before,
        })
    }

    pub(crate) fn receiver(&self) -> &ServiceName {
        &self.receiver
    }

    // ---- what the session says ----

    /// A handle of this contract was introduced: whether it fits.
    pub(super) fn introduced(&self, contract: Contract, mismatch: Option<Mismatch>) -> Arc<Fit> {
        let mut fits = self.fits.lock().expect("nothing panics while it is held");
        let fit = match fits.iter().position(|fit| fit.contract == contract) {
            Some(at) => fits.remove(at),
            None => Arc::new(Fit { contract, mismatch: Mutex::new(None) }),
        };
        *fit.state() = mismatch;
        // The newest is last: the one the watchdog compares.
        fits.push(Arc::clone(&fit));
        fit
    }

    /// The contract of the newest introduction was compared again.
    pub(super) fn compared(&self, mismatch: Option<Mismatch>) {
        if let Some(newest) = self.fits.lock().expect("nothing panics while it is held").last() {
            *newest.state() = mismatch;
        }
    }

    pub(super) fn receiver_died(&self, incarnation: Incarnation, taken: MessageNumber) {
        self.deaths.lock().expect("nothing panics while it is held").push_back((incarnation, taken));
        self.news.notify_one();
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.asks().closed();
        self.news.notify_one();
    }

    // ---- what handles do ----

    /// A message as bytes, accepted now.
    pub(crate) fn encode<M: Message>(&self, message: &M) -> Result<Outgoing, Undelivered> {
        let accepted = monotonic_ns();
        let mut payload = Vec::with_capacity(128);
        message.encode(&mut payload).map_err(Undelivered::Unwritable)?;
        if payload.len() > self.bounds.max_message {
            return Err(Undelivered::TooLarge { limit: self.bounds.max_message });
        }
        let sealed = if payload.len() > self.bounds.inline {
            Some(payload::seal(&payload).map_err(Undelivered::System)?)
        } else {
            None
        };
        Ok(Outgoing { payload, sealed, accepted })
    }

    /// Puts a tell into the lane, waiting for room until the deadline.
    pub(crate) async fn send(
        &self,
        fit: &Fit,
        message: &Outgoing,
        within: Duration,
    ) -> Result<(), Undelivered> {
        let mut patience = Patience::new(within);
        let sent = match self.turn(&mut patience).await {
            Some(mut outlet) => self
                .until_room(fit, &mut patience, || self.try_single(&mut outlet, message, None))
                .await
                .map(drop),
            None => Err(Undelivered::Full),
        };
        self.counted(sent)
    }

    /// Puts a tell into the lane, unless there is no room, or others wait for some.
    pub(crate) fn try_send(&self, fit: &Fit, message: &Outgoing) -> Result<(), Undelivered> {
        let sent = match self.outlet.try_lock() {
            Ok(mut outlet) => {
                self.check(fit).and_then(|()| self.try_single(&mut outlet, message, None)).map(drop)
            }
            Err(_) => Err(Undelivered::Full),
        };
        self.counted(sent)
    }

    /// Packs a tell. A packet without room for it is sent first.
    pub(crate) async fn feed(
        &self,
        fit: &Fit,
        message: &Outgoing,
        within: Duration,
    ) -> Result<(), Undelivered> {
        let mut patience = Patience::new(within);
        let fed = match self.turn(&mut patience).await {
            Some(mut outlet) if message.sealed.is_some() => {
                // It is alone in its packet anyway.
                self.until_room(fit, &mut patience, || self.try_single(&mut outlet, message, None))
                    .await
                    .map(drop)
            }
            Some(mut outlet) => {
                self.until_room(fit, &mut patience, || {
                    if !self.has_place(&outlet.fed, message) {
                        self.try_fed(&mut outlet.fed)?;
                    }
                    self.pack(&mut outlet.fed, message);
                    Ok(())
                })
                .await
            }
            None => Err(Undelivered::Full),
        };
        self.counted(fed)
    }

    /// Sends what was fed, waiting for room until the deadline. The error says how many messages did not go.
    pub(crate) async fn flush(&self, fit: &Fit, within: Duration) -> Result<(), (Undelivered, usize)> {
        let mut patience = Patience::new(within);
        let Some(mut outlet) = self.turn(&mut patience).await else {
            return Err((Undelivered::Full, 0));
        };
        if outlet.fed.packet.is_empty() {
            return Ok(());
        }
        let flushed = self.until_room(fit, &mut patience, || self.try_fed(&mut outlet.fed)).await;
        self.counted(flushed).map_err(|undelivered| (undelivered, outlet.fed.packet.count()))
    }

    /// Puts an ask into the lane and waits for its end.
    pub(crate) async fn ask(
        &self,
        fit: &Fit,
        repeat: Repeat,
        message: &Outgoing,
        within: Duration,
    ) -> Result<AskEnd, Undelivered> {
        let mut patience = Patience::new(within);
        // Both are free most of the time: then there is no timer.
        let slot = match self.ask_slots.try_acquire() {
            Ok(slot) => Ok(slot),
            Err(_) => match timeout_at(patience.deadline(), self.ask_slots.acquire()).await {
                Ok(slot) => Ok(slot.expect("it is never closed")),
                Err(_) => Err(Undelivered::Full),
            },
        };
        let _slot = self.counted(slot)?;
        let sent = match self.turn(&mut patience).await {
            Some(mut outlet) => {
                let ask = (patience.deadline(), within, repeat);
                self.until_room(fit, &mut patience, || self.try_single(&mut outlet, message, Some(ask))).await
            }
            None => Err(Undelivered::Full),
        };
        let waiting = Waiting { lane: self, number: self.counted(sent)? };
        Ok(std::future::poll_fn(|context| self.asks().poll(waiting.number, context)).await)
    }

    pub(crate) fn stats(&self) -> LaneStats {
        let (sent, received) = (self.page.stats(), self.peer.stats());
        let propagation = self.peer.propagation();
        let is_empty = self.socket.socket().outstanding().is_ok_and(|bytes| bytes == 0);
        let reserved = self.page.reserved().get();
        let queued = if is_empty { 0 } else { reserved.saturating_sub(self.peer.marks().done.get()) };
        let seconds = self.since.elapsed().as_secs_f64();
        let handed = received.handed.saturating_sub(received.redelivered);
        let since = propagation.count().saturating_sub(self.handed_before) as f64;
        LaneStats {
            sent: sent.messages,
            handed,
            redelivered: received.redelivered,
            refused: sent.refused,
            queued,
            rate: if seconds > 0.0 { since / seconds } else { 0.0 },
            propagation,
        }
    }

    // ---- one caller at a time ----

    /// The turn of this caller, in order. `None`: the deadline came first.
    async fn turn(&self, patience: &mut Patience) -> Option<tokio::sync::MutexGuard<'_, Outlet>> {
        // Nobody else is here most of the time: then there is no timer.
        match self.outlet.try_lock() {
            Ok(outlet) => Some(outlet),
            Err(_) => timeout_at(patience.deadline(), self.outlet.lock()).await.ok(),
        }
    }

    /// Tries until there is room, or the deadline has passed, with a last try at it.
    async fn until_room<T>(
        &self,
        fit: &Fit,
        patience: &mut Patience,
        mut attempt: impl FnMut() -> Result<T, Undelivered>,
    ) -> Result<T, Undelivered> {
        loop {
            match self.check(fit).and_then(|()| attempt()) {
                Err(undelivered) if undelivered.may_pass() => {
                    if Instant::now() >= patience.deadline() {
                        return Err(undelivered);
                    }
                }
                outcome => return outcome,
            }
            let deadline = patience.deadline();
            // At the deadline there is one more try. An error is that no descriptor is free to watch the lane with.
            if let Ok(Err(_)) = timeout_at(deadline, self.socket.room()).await {
                tokio::time::sleep(EXHAUSTED_PAUSE.min(deadline - Instant::now())).await;
            }
        }
    }

    fn check(&self, fit: &Fit) -> Result<(), Undelivered> {
        if self.is_closed.load(Ordering::Acquire) { Err(Undelivered::NoSuchService) } else { fit.check() }
    }

    /// Sends one message by itself, after all that was fed. Returns its number.
    fn try_single(
        &self,
        outlet: &mut Outlet,
        message: &Outgoing,
        ask: Option<(Instant, Duration, Repeat)>,
    ) -> Result<MessageNumber, Undelivered> {
        if !outlet.fed.packet.is_empty() {
            self.try_fed(&mut outlet.fed)?;
        }
        let beside = if message.sealed.is_some() { message.payload.len() } else { 0 };
        self.has_room_for(beside)?;
        let number = self.page.reserve(1);
        let envelope = message.envelope(number, ask.map(|(_, left, _)| left));
        outlet.single.clear();
        // Its payload follows as a part of its own, so that it is not copied here.
        let fits = outlet.single.push(&envelope, &[]);
        debug_assert!(fits, "the packet is empty");
        if let Some((deadline, _, repeat)) = ask
            && self.asks().open(number, deadline, repeat) == Watch::Sooner
        {
            self.news.notify_one();
        }
        self.page.count_memfd(beside as u64);
        let head = IoSlice::new(outlet.single.bytes());
        let sent = match &message.sealed {
            Some(sealed) => self.socket.try_send(&[head], &[sealed.as_fd()]),
            None => self.socket.try_send(&[head, IoSlice::new(&message.payload)], &[]),
        };
        match sent {
            Ok(()) => {
                self.page.count_sent(1, message.payload.len() as u64, ask.is_some().into());
                Ok(number)
            }
            Err(error) => {
                self.page.uncount_memfd(beside as u64);
                self.page.give_back(number, 1);
                if ask.is_some() {
                    self.asks().forget(number);
                }
                Err(self.judge(error))
            }
        }
    }

    /// Sends what was fed.
    fn try_fed(&self, fed: &mut Fed) -> Result<(), Undelivered> {
        self.has_room_for(0)?;
        match self.socket.try_send(&[IoSlice::new(fed.packet.bytes())], &[]) {
            Ok(()) => {
                self.page.count_sent(fed.packet.count() as u64, fed.bytes, 0);
                fed.clear();
                Ok(())
            }
            Err(error) => {
                let undelivered = self.judge(error);
                if matches!(undelivered, Undelivered::NoSuchService | Undelivered::Denied) {
                    fed.clear();
                }
                Err(undelivered)
            }
        }
    }

    fn has_place(&self, fed: &Fed, message: &Outgoing) -> bool {
        let size = fed.packet.bytes().len() + MESSAGE_HEADER + message.payload.len();
        size <= MAX_PACKET.min(self.bounds.packet) && fed.packet.count() < MAX_BATCH
    }

    /// Appends a message to what was fed. Its number is reserved now: whatever is sent after it is sent after what
    /// was fed.
    fn pack(&self, fed: &mut Fed, message: &Outgoing) {
        let envelope = message.envelope(self.page.reserve(1), None);
        let fits = fed.packet.push(&envelope, &message.payload);
        debug_assert!(fits, "there was place for it");
        fed.bytes += message.payload.len() as u64;
    }

    /// Whether the lane's bound allows `beside` bytes beside a packet. What is in the packets the kernel counts.
    fn has_room_for(&self, beside: usize) -> Result<(), Undelivered> {
        let consumed = self.peer.stats().memfd_consumed;
        let in_lane = self.page.stats().memfd_bytes.saturating_sub(consumed);
        if beside == 0 && in_lane == 0 {
            return Ok(());
        }
        let outstanding = self.socket.socket().outstanding().map_err(Undelivered::System)?;
        if outstanding == 0 {
            // Then nothing is beside it either, whatever was counted: a receiver may have died consuming.
            self.page.settle_memfd(consumed);
            return Ok(());
        }
        let total = in_lane.saturating_add((outstanding + beside) as u64);
        if total <= self.bounds.lane_bytes as u64 { Ok(()) } else { Err(Undelivered::Full) }
    }

    fn judge(&self, error: io::Error) -> Undelivered {
        match error.kind() {
            io::ErrorKind::WouldBlock => Undelivered::Full,
            // Either nobody has the other end, or this one was shut.
            io::ErrorKind::BrokenPipe => match self.socket.socket().peek(&mut [0], 0) {
                Ok(Received::End) => Undelivered::NoSuchService,
                _ => Undelivered::Denied,
            },
            _ => Undelivered::System(error),
        }
    }

    fn counted<T>(&self, outcome: Result<T, Undelivered>) -> Result<T, Undelivered> {
        if matches!(outcome, Err(Undelivered::Full)) {
            self.page.count_refused();
        }
        outcome
    }

    // ---- the task ----

    /// Reads answers, apart from any handler, and watches deadlines. Ends with the lane.
    ///
    /// `buffer` is memory for a packet, which all lanes use in turn.
    pub(super) async fn tend(self: Arc<Self>, buffer: Arc<Mutex<Vec<u8>>>) {
        let mut violations = 0;
        let mut is_ended = false;
        let mut watch = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
        let mut watched = None;
        while !self.is_closed.load(Ordering::Acquire) {
            let next = self.asks().expire(Instant::now());
            if next != watched {
                watched = next;
                if let Some(next) = next {
                    watch.as_mut().reset(next);
                }
            }
            tokio::select! {
                biased;
                readable = self.socket.readable(), if !is_ended => match readable {
                    Ok(readable) => {
                        // Once nobody waits there is nothing to read: the next answer is to an ask that is not sent
                        // yet, and an event to come. It spares the call that would find nothing.
                        let until = if self.asks().is_any_waiting() { Until::NobodyWaits } else { Until::Dry };
                        match self.read(&buffer, until, ANSWERS_A_TURN, &mut violations) {
                            Found::Enough => readable.drained(),
                            Found::End => is_ended = true,
                            Found::More => tokio::task::yield_now().await,
                        }
                    }
                    // The runtime shuts down.
                    Err(_) => return,
                },
                () = self.news.notified() => {}
                () = watch.as_mut(), if watched.is_some() => {}
            }
            while let Some((incarnation, taken)) = self.death() {
                // An answer may be queued behind the notice: first all that the dead one can have sent.
                let most = self.bounds.lane_bytes / PACKET_OVERHEAD + 1;
                self.read(&buffer, Until::Dry, most, &mut violations);
                self.asks().died(incarnation, taken);
            }
        }
    }

    fn death(&self) -> Option<(Incarnation, MessageNumber)> {
        self.deaths.lock().expect("nothing panics while it is held").pop_front()
    }

    /// Reads at most `most` packets of answers.
    fn read(&self, buffer: &Mutex<Vec<u8>>, until: Until, most: usize, violations: &mut u64) -> Found {
        let mut buffer = buffer.lock().expect("nothing panics while it is held");
        buffer.resize(LANE_PACKET, 0);
        for _ in 0..most {
            let filed = match self.socket.socket().take(&mut buffer, 1) {
                Ok(Received::Packet(packet)) => {
                    self.file(&buffer[..packet.length], packet.descriptors.first())
                }
                Ok(Received::Empty) => Err(Violation::Empty),
                Ok(Received::Oversize { length }) => Err(Violation::Oversize { length }),
                Ok(Received::TooManyDescriptors) => Err(Violation::TooManyDescriptors),
                Ok(Received::End) => return Found::End,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Found::Enough,
                Err(error) => {
                    tracing::error!(receiver = %self.receiver, %error, "answers can't be read");
                    return Found::End;
                }
            };
            if let Err(violation) = filed {
                *violations += 1;
                // A receiver that sends nothing else does not fill the log.
                if violations.is_power_of_two() {
                    let (receiver, lane) = (&self.receiver, self.lane);
                    tracing::warn!(%receiver, %lane, count = violations, "skipped {}", chain(&violation));
                }
            }
            if until == Until::NobodyWaits && !self.asks().is_any_waiting() {
                return Found::Enough;
            }
        }
        Found::More
    }

    /// Hands the answers of a packet to who waits for them.
    fn file(&self, packet: &[u8], descriptor: Option<&OwnedFd>) -> Result<(), Violation> {
        let header = lane::check(packet).map_err(Violation::Envelope)?;
        if header.direction != Direction::Replies {
            return Err(Violation::Direction);
        }
        let mut asks = self.asks();
        let mut at = PACKET_HEADER;
        for _ in 0..header.count {
            let (envelope, payload) = lane::read(packet, at).expect("the packet was checked");
            at = payload.end;
            if !asks.is_waiting(envelope.number) {
                continue;
            }
            let end = match (envelope.kind, envelope.place) {
                (Kind::Dropped, _) => AskEnd::Dropped,
                (Kind::Skipped, _) => AskEnd::Late,
                (_, Place::Inline) => AskEnd::Answer(packet[payload].to_vec()),
                (_, Place::Beside) => match self.read_beside(&envelope, descriptor) {
                    Ok(answer) => AskEnd::Answer(answer),
                    Err(error) => AskEnd::Unreadable(error),
                },
            };
            asks.ended(envelope.number, end);
        }
        Ok(())
    }

    fn read_beside(&self, envelope: &Envelope, descriptor: Option<&OwnedFd>) -> io::Result<Vec<u8>> {
        let Some(descriptor) = descriptor else {
            // No number was free for it.
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        };
        payload::read(descriptor.as_fd(), envelope.length.into(), self.bounds.max_message).map_err(|error| {
            match error {
                PayloadError::Read(error) => error,
                broken => io::Error::new(io::ErrorKind::InvalidData, broken),
            }
        })
    }

    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().expect("nothing panics while it is held")
    }
}

impl Outgoing {
    /// `left`: until the deadline of an ask.
    fn envelope(&self, number: MessageNumber, left: Option<Duration>) -> Envelope {
        Envelope {
            kind: if left.is_some() { Kind::Ask } else { Kind::Tell },
            number,
            sent_at: self.accepted,
            // 0 is no deadline.
            left: left.map_or(0, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).max(1)),
            length: u32::try_from(self.payload.len()).expect("at most max_message"),
            place: if self.sealed.is_some() { Place::Beside } else { Place::Inline },
            trace: None,
        }
    }
}

impl Undelivered {
    /// Whether another try may pass.
    fn may_pass(&self) -> bool {
        match self {
            Self::Full => true,
            Self::System(error) => may_pass(error),
            Self::NoSuchService
            | Self::Denied
            | Self::Mismatch(_)
            | Self::TooLarge { .. }
            | Self::Unwritable(_) => false,
        }
    }
}

impl Fed {
    fn clear(&mut self) {
        self.packet.clear();
        self.bytes = 0;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lane.asks().forget(self.number);
    }
}
