//! The answers of one arriving lane, on their way back.
//!
//! ```text
//!  Reply::send, drop ──▶ the socket, at once         when nothing waits and there is room
//!                   └──▶ the line ──▶ the socket     else, by a task, when there is room
//! ```
//! Nothing here ever waits but the task.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use watchdog_protocol::lane::{Direction, Envelope, Kind, Packer, Place};
use watchdog_protocol::limits::MAX_OPEN_ASKS;
use watchdog_protocol::{LaneEpoch, MessageNumber, ServiceName};
use watchdog_seqpacket::{AsyncSeqpacket, payload};

use super::turns::Turn;
use super::{Bounds, LANE_PACKET, RETRY};
use crate::reply::{self, Encoded};
use crate::session::{EXHAUSTED_PAUSE, may_pass};

/// What waits for room at most, in bytes: each ask a sender may have open, answered by a whole packet. Beyond it an
/// answer becomes `Dropped`, which has none: a sender that reads nothing costs no more memory than this.
const MAX_WAITING: usize = MAX_OPEN_ASKS * LANE_PACKET;

/// The way back of one lane.
pub(super) struct Answers {
    lane: LaneEpoch,
    sender: ServiceName,
    socket: Arc<AsyncSeqpacket>,
    bounds: Bounds,
    state: Mutex<State>,
    /// Something waits, or the lane itself asks to be looked at later.
    news: Notify,
    /// Nothing waits any more.
    flushed: Notify,
    turn: Arc<Turn>,
}

#[derive(Debug)]
struct State {
    packet: Packer,
    waiting: VecDeque<Answer>,
    waiting_bytes: usize,
    /// Bytes beside packets that the sender may not have read.
    beside: usize,
    look_later: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Answer {
    kind: Kind,
    ask: MessageNumber,
    payload: Encoded,
    /// The payload, when it is too long for a packet.
    sealed: Option<OwnedFd>,
}

/// What came of a try to send.
enum Try {
    Gone,
    /// The kernel tells when there is room.
    NoRoom,
    /// Nothing tells.
    Later,
}

impl Answers {
    pub(super) fn new(
        lane: LaneEpoch,
        sender: ServiceName,
        socket: Arc<AsyncSeqpacket>,
        bounds: Bounds,
        turn: Arc<Turn>,
    ) -> Self {
        let state = State {
            packet: Packer::new(Direction::Replies),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            beside: 0,
            look_later: false,
            is_closed: false,
        };
        Self {
            lane,
            sender,
            socket,
            bounds,
            state: Mutex::new(state),
            news: Notify::new(),
            flushed: Notify::new(),
            turn,
        }
    }

    /// Sends an answer, or leaves it to the task.
    pub(super) fn send(&self, kind: Kind, ask: MessageNumber, payload: Encoded) {
        let mut answer = Answer { kind, ask, payload, sealed: None };
        if answer.payload.len() > self.bounds.max_message {
            let (length, limit) = (answer.payload.len(), self.bounds.max_message);
            tracing::error!(sender = %self.sender, length, limit, "an answer is too long, and counts as dropped");
            answer = Answer { kind: Kind::Dropped, payload: Encoded::default(), ..answer };
        }
        let mut state = self.state();
        if state.waiting.is_empty() && matches!(self.try_send(&mut state, &mut answer), Try::Gone) {
            return;
        }
        if state.is_closed && state.waiting.is_empty() {
            // Its task has ended.
            tracing::warn!(sender = %self.sender, lane = %self.lane, "an answer is not sent: the lane is closed, and full");
            return;
        }
        if state.waiting.len() >= MAX_OPEN_ASKS {
            // An honest sender has no more open: nobody waits for this one.
            tracing::warn!(sender = %self.sender, lane = %self.lane, "an answer is not sent: the sender reads none");
            return;
        }
        if state.waiting_bytes + answer.payload.len() > MAX_WAITING {
            tracing::warn!(sender = %self.sender, lane = %self.lane, "an answer counts as dropped: too many wait");
            answer = Answer { kind: Kind::Dropped, payload: Encoded::default(), sealed: None, ..answer };
        }
        state.waiting_bytes += answer.payload.len();
        state.waiting.push_back(answer);
        self.news.notify_one();
    }

    /// The lane could not be read for want of descriptors: it gets its turn again after a while.
    pub(super) fn look_later(&self) {
        self.state().look_later = true;
        self.news.notify_one();
    }

    /// The lane was read to its end, or its sender is gone. What waits is still sent, and what is answered from now on
    /// where there is room.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.news.notify_one();
    }

    /// Waits until nothing waits here.
    pub(super) async fn flushed(&self) {
        loop {
            let flushed = self.flushed.notified();
            if self.state().waiting.is_empty() {
                return;
            }
            flushed.await;
        }
    }

    /// Sends what waits. Ends when the lane is closed, and nothing waits.
    pub(super) async fn tend(self: Arc<Self>) {
        loop {
            self.news.notified().await;
            if std::mem::take(&mut self.state().look_later) {
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                self.turn.queue();
            }
            loop {
                match self.flush() {
                    Try::Gone if self.is_finished() => return,
                    Try::Gone => break,
                    Try::NoRoom if self.socket.room().await.is_ok() => {}
                    Try::NoRoom | Try::Later => tokio::time::sleep(RETRY).await,
                }
            }
        }
    }

    fn is_finished(&self) -> bool {
        let state = self.state();
        state.is_closed && state.waiting.is_empty()
    }

    /// Sends all that waits, as far as it goes now.
    fn flush(&self) -> Try {
        let mut state = self.state();
        while let Some(mut answer) = state.waiting.pop_front() {
            let bytes = answer.payload.len();
            match self.try_send(&mut state, &mut answer) {
                Try::Gone => state.waiting_bytes -= bytes,
                wait @ (Try::NoRoom | Try::Later) => {
                    state.waiting.push_front(answer);
                    return wait;
                }
            }
        }
        self.flushed.notify_waiters();
        Try::Gone
    }

    fn try_send(&self, state: &mut State, answer: &mut Answer) -> Try {
        let length = answer.payload.len();
        let is_beside = length > self.bounds.inline;
        if is_beside {
            match self.seal(state, answer) {
                Ok(true) => {}
                Ok(false) => return Try::Later,
                Err(error) => return self.judge(&error),
            }
        }
        let envelope = Envelope {
            kind: answer.kind,
            number: answer.ask,
            sent_at: 0,
            left: 0,
            length: u32::try_from(length).expect("at most max_message"),
            place: if is_beside { Place::Beside } else { Place::Inline },
            trace: None,
            again: false,
        };
        state.packet.clear();
        // Its payload follows as a part of its own, so that it is not copied here.
        let fits = state.packet.push(&envelope, &[]);
        debug_assert!(fits, "the packet is empty");
        let head = IoSlice::new(state.packet.bytes());
        let sent = match &answer.sealed {
            Some(sealed) => self.socket.try_send(&[head], &[sealed.as_fd()]),
            None => {
                let Encoded { head: start, body } = &answer.payload;
                self.socket.try_send(&[head, IoSlice::new(start), IoSlice::new(body)], &[])
            }
        };
        match sent {
            Ok(()) => {
                if is_beside {
                    state.beside += length;
                }
                Try::Gone
            }
            Err(error) => self.judge(&error),
        }
    }

    /// Makes the payload one that goes beside its packet. `false`: there is no room for it, which the kernel does
    /// not count.
    fn seal(&self, state: &mut State, answer: &mut Answer) -> io::Result<bool> {
        if state.beside > 0 && self.socket.socket().outstanding()? == 0 {
            state.beside = 0;
        }
        if state.beside > 0 && state.beside + answer.payload.len() > self.bounds.lane_bytes {
            return Ok(false);
        }
        if answer.sealed.is_none() {
            answer.sealed = Some(payload::seal(&answer.payload.concat())?);
        }
        Ok(true)
    }

    fn judge(&self, error: &io::Error) -> Try {
        match error.kind() {
            io::ErrorKind::WouldBlock => Try::NoRoom,
            // Nobody has the other end any more.
            io::ErrorKind::BrokenPipe => Try::Gone,
            _ if may_pass(error) => Try::Later,
            _ => {
                tracing::error!(sender = %self.sender, lane = %self.lane, %error, "an answer can't be sent");
                Try::Gone
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

impl reply::Answers for Answers {
    fn answer(&self, ask: MessageNumber, answer: Option<Encoded>) {
        match answer {
            Some(payload) => self.send(Kind::Answer, ask, payload),
            None => self.send(Kind::Dropped, ask, Encoded::default()),
        }
    }
}
