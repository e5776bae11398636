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

mod listening;
mod outlet;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};
use watchdog_protocol::limits::MAX_OPEN_ASKS;
use watchdog_protocol::session::LaneOut;
use watchdog_protocol::trace::TraceContext;
use watchdog_protocol::{Incarnation, LaneEpoch, MessageNumber, Mismatch, ServiceName};
use watchdog_seqpacket::clock::monotonic_ns;
use watchdog_seqpacket::{AsyncSeqpacket, ReceiverPageReader, SenderPage, Seqpacket, payload};

use self::outlet::{Outlet, Patience};
use super::asks::{AskEnd, Asks};
use super::fit::{Fit, Fits};
use super::{AdoptError, Bounds};
use crate::intercom::LaneStats;
use crate::message::{Asks as Repeat, EncodeError, Message};
use crate::session::{Death, LaneEnds};

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
    pub(super) fits: Fits,
    deaths: Mutex<VecDeque<Death>>,
    /// Wakes the task: a death, an earlier deadline, the end.
    news: Notify,
    /// A [`Standing`].
    standing: AtomicU8,
    since: Instant,
    handed_before: u64,
}

/// Whether more may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    Open,
    /// The rules do not allow it any more.
    Denied,
    /// The peer is not registered any more.
    Gone,
}

/// A message as bytes.
pub(crate) struct Outgoing {
    payload: Vec<u8>,
    /// The payload, when it is too long for a packet.
    sealed: Option<OwnedFd>,
    /// When it was accepted: nanoseconds of the monotonic clock.
    accepted: u64,
    trace: Option<TraceContext>,
}

/// Why a message is not in the lane.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// No room now, or until the deadline.
    Full,
    /// No room beside packets, which the kernel does not count.
    FullBeside,
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

/// Who waits for an answer; gone, nobody does.
struct Waiting<'a> {
    lane: &'a OutLane,
    number: MessageNumber,
}

impl OutLane {
    pub(super) fn adopt(lane: &LaneOut, ends: LaneEnds, max_message: usize) -> Result<Self, AdoptError> {
        let LaneEnds { socket, own_page, peer_page } = ends;
        let socket = Seqpacket::from_fd(socket).map_err(AdoptError::Socket)?;
        let bounds = Bounds::of(max_message, &socket)?;
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
            outlet: tokio::sync::Mutex::new(Outlet::new()),
            asks: Mutex::default(),
            ask_slots: Semaphore::new(MAX_OPEN_ASKS),
            fits: Fits::default(),
            deaths: Mutex::default(),
            news: Notify::new(),
            standing: AtomicU8::new(Standing::Open as u8),
            since: Instant::now(),
            handed_before,
        })
    }

    pub(crate) fn receiver(&self) -> &ServiceName {
        &self.receiver
    }

    // ---- what the session says ----

    pub(super) fn receiver_died(&self, death: Death) {
        self.deaths.lock().expect("nothing panics while it is held").push_back(death);
        self.news.notify_one();
    }

    pub(super) fn buried(&self, incarnation: Incarnation, number: MessageNumber) {
        self.asks().ended(number, AskEnd::Died(incarnation));
    }

    /// Nothing more is sent. What was asked is still answered.
    pub(super) fn deny(&self) {
        let (open, denied) = (Standing::Open as u8, Standing::Denied as u8);
        // One that is gone stays so.
        let _ = self.standing.compare_exchange(open, denied, Ordering::AcqRel, Ordering::Acquire);
        self.news.notify_one();
    }

    pub(super) fn close(&self) {
        self.standing.store(Standing::Gone as u8, Ordering::Release);
        self.asks().closed();
        self.news.notify_one();
    }

    fn standing(&self) -> Standing {
        let standing = self.standing.load(Ordering::Acquire);
        let all = [Standing::Open, Standing::Denied, Standing::Gone];
        all.into_iter().find(|known| *known as u8 == standing).expect("nothing else is stored")
    }

    /// Nothing goes on it any more, and nobody waits for an answer.
    pub(super) fn is_over(&self) -> bool {
        match self.standing() {
            Standing::Open => false,
            Standing::Denied => !self.asks().is_any_waiting(),
            Standing::Gone => true,
        }
    }

    // ---- what handles do ----

    /// A message as bytes, accepted now.
    pub(crate) fn encode<M: Message>(
        &self,
        message: &M,
        trace: Option<TraceContext>,
    ) -> Result<Outgoing, Undelivered> {
        let accepted = monotonic_ns();
        let mut payload = Vec::with_capacity(128);
        message.encode(&mut payload).map_err(Undelivered::Unwritable)?;
        self.wrap(payload, accepted, trace)
    }

    /// A message that is bytes already, accepted now.
    pub(crate) fn encoded(&self, payload: Vec<u8>) -> Result<Outgoing, Undelivered> {
        self.wrap(payload, monotonic_ns(), None)
    }

    fn wrap(
        &self,
        payload: Vec<u8>,
        accepted: u64,
        trace: Option<TraceContext>,
    ) -> Result<Outgoing, Undelivered> {
        if payload.len() > self.bounds.max_message {
            return Err(Undelivered::TooLarge { limit: self.bounds.max_message });
        }
        let sealed = if payload.len() > self.bounds.inline {
            Some(payload::seal(&payload).map_err(Undelivered::System)?)
        } else {
            None
        };
        Ok(Outgoing { payload, sealed, accepted, trace })
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

    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().expect("nothing panics while it is held")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lane.asks().forget(self.number);
    }
}
