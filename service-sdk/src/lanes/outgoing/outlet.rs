//! From a message to a packet that the kernel has: one caller at a time, in the order they came.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use watchdog_protocol::MessageNumber;
use watchdog_protocol::lane::{Direction, Envelope, Kind, MESSAGE_HEADER, Packer, Place};
use watchdog_protocol::limits::{MAX_BATCH, MAX_PACKET};
use watchdog_protocol::trace::TRACE;
use watchdog_seqpacket::Received;

use super::{OutLane, Outgoing, Standing, Undelivered};
use crate::lanes::asks::Watch;
use crate::lanes::{Fit, RETRY};
use crate::message::Asks as Repeat;
use crate::session::may_pass;

/// What only the caller whose turn it is may touch.
pub(super) struct Outlet {
    /// Of a message that goes by itself.
    single: Packer,
    pub(super) fed: Fed,
}

/// Messages of a packet that is not sent yet.
pub(super) struct Fed {
    pub(super) packet: Packer,
    bytes: u64,
}

/// How long a caller waits. Its clock is not read before there is something to wait for.
pub(super) struct Patience {
    within: Duration,
    deadline: Option<Instant>,
}

impl Patience {
    pub(super) fn new(within: Duration) -> Self {
        Self { within, deadline: None }
    }

    pub(super) fn deadline(&mut self) -> Instant {
        // A wait that is longer than the clock counts is a very long one.
        const AGES: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        *self.deadline.get_or_insert_with(|| {
            let now = Instant::now();
            now.checked_add(self.within).unwrap_or(now + AGES)
        })
    }
}

impl Outlet {
    pub(super) fn new() -> Self {
        Self {
            single: Packer::new(Direction::Requests),
            fed: Fed { packet: Packer::new(Direction::Requests), bytes: 0 },
        }
    }
}

impl OutLane {
    /// The turn of this caller, in order. `None`: the deadline came first.
    pub(super) async fn turn(&self, patience: &mut Patience) -> Option<tokio::sync::MutexGuard<'_, Outlet>> {
        // Nobody else is here most of the time: then there is no timer.
        match self.outlet.try_lock() {
            Ok(outlet) => Some(outlet),
            Err(_) => timeout_at(patience.deadline(), self.outlet.lock()).await.ok(),
        }
    }

    /// Tries until there is room, or the deadline has passed, with a last try at it.
    pub(super) async fn until_room<T>(
        &self,
        fit: &Fit,
        patience: &mut Patience,
        mut attempt: impl FnMut() -> Result<T, Undelivered>,
    ) -> Result<T, Undelivered> {
        loop {
            let undelivered = match self.check(fit).and_then(|()| attempt()) {
                Err(undelivered) if undelivered.may_pass() => undelivered,
                outcome => return outcome,
            };
            let deadline = patience.deadline();
            if Instant::now() >= deadline {
                return Err(undelivered);
            }
            // Cut off by the deadline, for one more try at it.
            let _ = timeout_at(deadline, self.room(&undelivered)).await;
        }
    }

    /// Waits until another try may pass.
    async fn room(&self, undelivered: &Undelivered) {
        // Of all there is to wait for, only room for packets is told by the kernel; and not even that when no
        // descriptor is free to watch for it.
        if !matches!(undelivered, Undelivered::Full) || self.socket.room().await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }

    pub(super) fn check(&self, fit: &Fit) -> Result<(), Undelivered> {
        match self.standing() {
            Standing::Open => fit.check(),
            Standing::Denied => Err(Undelivered::Denied),
            Standing::Gone => Err(Undelivered::NoSuchService),
        }
    }

    /// Sends one message by itself, after all that was fed. Returns its number.
    pub(super) fn try_single(
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
    pub(super) fn try_fed(&self, fed: &mut Fed) -> Result<(), Undelivered> {
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

    pub(super) fn has_place(&self, fed: &Fed, message: &Outgoing) -> bool {
        let trace = if message.trace.is_some() { TRACE } else { 0 };
        let size = fed.packet.bytes().len() + MESSAGE_HEADER + trace + message.payload.len();
        size <= MAX_PACKET.min(self.bounds.packet) && fed.packet.count() < MAX_BATCH
    }

    /// Appends a message to what was fed. Its number is reserved now: whatever is sent after it is sent after what
    /// was fed.
    pub(super) fn pack(&self, fed: &mut Fed, message: &Outgoing) {
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
        if total <= self.bounds.lane_bytes as u64 { Ok(()) } else { Err(Undelivered::FullBeside) }
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

    pub(super) fn counted<T>(&self, outcome: Result<T, Undelivered>) -> Result<T, Undelivered> {
        if matches!(outcome, Err(Undelivered::Full | Undelivered::FullBeside)) {
            self.page.count_refused();
        }
        outcome
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
            trace: self.trace,
            again: false,
        }
    }
}

impl Undelivered {
    /// Whether another try may pass.
    fn may_pass(&self) -> bool {
        match self {
            Self::Full | Self::FullBeside => true,
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
