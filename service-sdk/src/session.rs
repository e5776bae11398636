//! The one task that owns the session's socket: says what the ledger owes, and files what comes.
//!
//! ```text
//! Context, SettingsReader, StateHandler ──▶ ledger ──▶ session ──▶ socket ──▶ watchdog
//!                                       ◀──        ◀──         ◀──
//! ```
//! It interprets no settings and no state, and decides nothing: what is owed and what an answer means is the
//! ledger's to say. Sending never keeps it from reading: both ends could wait for each other.

pub(crate) mod ledger;
mod link;
pub(crate) mod offers;
pub(crate) mod opening;
mod packet;
pub(crate) mod saves;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use watchdog_protocol::limits::{MAX_FRAME, MAX_PACKET, MAX_SETTINGS};
use watchdog_protocol::session::{FromService, LaneIn, LaneOut, ToService, Urgency, decode};
use watchdog_protocol::{Incarnation, LaneEpoch, MessageNumber, Mismatch, Sequence};
use watchdog_seqpacket::{AsyncSeqpacket, Received};

use self::ledger::{Ledger, Step};
pub(crate) use self::link::{Changes, Link};
use self::packet::{Fault, Packet};

/// Descriptors beside one packet of a session: a lane has three.
pub(crate) const MAX_BESIDE: usize = 3;

/// Before what needs a free descriptor or memory is tried again: nothing tells when there is one.
pub(crate) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The watchdog is gone.
    WatchdogGone,
    /// It ended the session.
    Rejected(String),
    /// What came was not the session protocol.
    Broken(String),
}

/// The session with the watchdog is over, and not because the watchdog is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The watchdog ended it.
    #[error("the watchdog ended the session: {reason}")]
    Rejected {
        /// Its words.
        reason: String,
    },
    /// The watchdog said what this SDK does not understand.
    #[error("the watchdog broke the session protocol: {reason}")]
    Broken {
        /// What was wrong.
        reason: String,
    },
}

impl SessionEnd {
    /// The error it is to a service; a watchdog that is gone is none, but a reason to end in good order.
    pub(crate) fn error(&self) -> Option<SessionError> {
        match self {
            Self::WatchdogGone => None,
            Self::Rejected(reason) => Some(SessionError::Rejected { reason: reason.clone() }),
            Self::Broken(reason) => Some(SessionError::Broken { reason: reason.clone() }),
        }
    }
}

/// The service's state, for whoever sends it.
pub(crate) trait Snapshot: Send + Sync {
    /// The newest value and its number.
    fn encode(&self) -> (Sequence, Result<Vec<u8>, postcard::Error>);
    /// `State::VERSION`.
    fn version(&self) -> u32;
}

/// What the session tells the lanes. No call waits.
pub(crate) trait Lanes: Send {
    /// A lane to this service's inbox; one that is known already is the same lane again.
    fn arrived(&mut self, lane: LaneIn, ends: LaneEnds);
    /// Messages of a lane that is about to arrive are dead letters.
    fn pass_over(&mut self, lane: LaneEpoch, numbers: Vec<MessageNumber>);
    /// A lane to a peer.
    fn opened(&mut self, lane: &LaneOut, ends: LaneEnds);
    /// The receiver of a lane died.
    fn peer_died(&mut self, lane: LaneEpoch, death: Death);
    /// A message of a lane is a dead letter.
    fn buried(&mut self, lane: LaneEpoch, incarnation: Incarnation, number: MessageNumber);
    /// The rules allow no more to be sent on a lane.
    fn denied(&mut self, lane: LaneEpoch);
    /// A lane's contracts were compared again.
    fn fits(&mut self, lane: LaneEpoch, mismatch: Option<Mismatch>);
    /// A lane is gone for good.
    fn closed(&mut self, lane: LaneEpoch);
}

/// How far a receiver had come that died.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) incarnation: Incarnation,
    /// An ask up to this number without an answer is lost, unless it comes again.
    pub(crate) taken: MessageNumber,
    /// What is up to this number does not.
    pub(crate) done: MessageNumber,
}

/// What comes beside a lane, in the order of the protocol: this side's page is writable.
#[derive(Debug)]
pub(crate) struct LaneEnds {
    pub(crate) socket: OwnedFd,
    pub(crate) own_page: OwnedFd,
    pub(crate) peer_page: OwnedFd,
}

impl LaneEnds {
    fn of(what: &'static str, beside: Vec<OwnedFd>) -> Result<Self, Fault> {
        let [socket, own_page, peer_page] = beside
            .try_into()
            .map_err(|beside: Vec<_>| Fault::Descriptors { what, found: beside.len(), expected: 3 })?;
        Ok(Self { socket, own_page, peer_page })
    }
}

/// The task's own things.
pub(crate) struct Session<L> {
    pub(crate) socket: AsyncSeqpacket,
    pub(crate) link: Link,
    pub(crate) state: Arc<dyn Snapshot>,
    pub(crate) lanes: L,
    /// The largest state, in bytes.
    pub(crate) max_message: usize,
    /// Between heartbeats; `None`: none are wanted.
    pub(crate) heartbeat: Option<Duration>,
}

impl<L: Lanes> Session<L> {
    /// Runs until all is said after [`close`](ledger::Ledger::close), or until the session ends by itself, which
    /// is returned and filed.
    pub(crate) async fn run(mut self) -> Option<SessionEnd> {
        let end = match self.speak().await {
            Ok(end) => end?,
            Err(fault) => SessionEnd::Broken(chain(&fault)),
        };
        self.link.write(|ledger| ledger.ended(end.clone()));
        Some(end)
    }

    async fn speak(&mut self) -> Result<Option<SessionEnd>, Fault> {
        let mut buffer = vec![0; MAX_PACKET];
        let mut next: Option<Packet> = None;
        let mut heartbeat = self.heartbeat.map(|every| {
            let mut ticks = interval_at(Instant::now() + every, every);
            // After a pause one is enough to say that the task is alive.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            tokio::select! {
                received = self.socket.recv(&mut buffer, MAX_BESIDE) => match received {
                    Ok(Received::Packet(packet)) => {
                        let message = decode(&buffer[..packet.length]).map_err(Fault::Decode)?;
                        if let Some(end) = self.file(message, packet.descriptors)? {
                            return Ok(Some(end));
                        }
                    }
                    Ok(Received::End) => return Ok(Some(SessionEnd::WatchdogGone)),
                    Ok(Received::Empty) => return Err(Fault::Packet("an empty packet came")),
                    Ok(Received::Oversize { .. }) => return Err(Fault::Packet("a packet longer than any came")),
                    Ok(Received::TooManyDescriptors) => {
                        return Err(Fault::Packet("a packet with more descriptors than any came"));
                    }
                    Err(error) if may_pass(&error) => wait_out(&error).await,
                    Err(error) => return Err(Fault::Read(error)),
                },
                sent = send(&self.socket, next.as_ref()), if next.is_some() => match sent {
                    Ok(()) => next = None,
                    // What the watchdog said before it went is still to be read, up to the end.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => next = None,
                    Err(error) if may_pass(&error) => wait_out(&error).await,
                    Err(error) => return Err(Fault::Write(error)),
                },
                step = self.link.until(Ledger::step), if next.is_none() => match step {
                    Step::Say(message) => next = Some(Packet::plain(&message)),
                    Step::State(urgency) => next = self.snapshot(urgency).await?,
                    Step::Call { request, call } => {
                        match Packet::with_content(call, |call| FromService::Control { request, call }) {
                            Ok(packet) => next = Some(packet),
                            Err(error) => {
                                wait_out(&error).await;
                                self.link.write(|ledger| ledger.cut_off(request));
                            }
                        }
                    }
                    Step::Done => return Ok(None),
                },
                () = tick(heartbeat.as_mut()) => self.link.write(Ledger::heartbeat),
            }
        }
    }

    /// Files what came. `Some`: the session ends with it.
    fn file(&mut self, message: ToService, beside: Vec<OwnedFd>) -> Result<Option<SessionEnd>, Fault> {
        match message {
            ToService::Welcome(_) => return Err(Fault::Packet("a second welcome came")),
            ToService::Settings { revision, json } => {
                let json = packet::content("settings", json, &mut beside.into_iter(), MAX_SETTINGS)?;
                self.link.write(|ledger| ledger.settings.arrived(revision, json));
            }
            ToService::StateReceived { sequence } => {
                self.link.write(|ledger| ledger.state.received(sequence));
            }
            ToService::StateSynced { sequence } => self.link.write(|ledger| ledger.state.synced(sequence)),
            ToService::StateFailed { sequence, reason } => {
                self.link.write(|ledger| ledger.state.failed(sequence, reason));
            }
            ToService::Stop => self.link.write(Ledger::stop),
            ToService::LaneIn(lane) => {
                let ends = LaneEnds::of("a lane to the inbox", beside)?;
                self.link.write(|ledger| ledger.lane_arrived(lane.lane));
                self.lanes.arrived(lane, ends);
            }
            ToService::Introduced { request, outcome } => {
                let outcome = match outcome {
                    Ok(lane) => {
                        self.lanes.opened(&lane, LaneEnds::of("a lane to a peer", beside)?);
                        Ok(lane)
                    }
                    Err(refusal) => Err(refusal),
                };
                self.link.write(|ledger| ledger.introduced(request, outcome));
            }
            ToService::PeerDied { lane, incarnation, taken, done } => {
                self.lanes.peer_died(lane, Death { incarnation, taken, done });
            }
            ToService::Buried { lane, incarnation, number } => {
                self.lanes.buried(lane, incarnation, number);
            }
            ToService::LaneFits { lane, mismatch } => self.lanes.fits(lane, mismatch),
            ToService::LaneDenied { lane } => self.lanes.denied(lane),
            ToService::PassOver { lane, numbers } => self.lanes.pass_over(lane, numbers),
            ToService::LaneClosed { lane } => {
                self.link.write(|ledger| ledger.lane_closed(lane));
                self.lanes.closed(lane);
            }
            ToService::TookOver => self.link.write(Ledger::took_over),
            ToService::LoggingRegistered => self.link.write(Ledger::logging_registered),
            ToService::Answer { request, reply } => {
                let reply = packet::content("answer", reply, &mut beside.into_iter(), MAX_FRAME)?;
                self.link.write(|ledger| ledger.answered(request, reply));
            }
            ToService::Rejected { reason } => return Ok(Some(SessionEnd::Rejected(reason))),
        }
        Ok(None)
    }

    /// The newest state as a packet. `None`: it can't leave this process, which its saves are told, or it can't
    /// now, and is due again.
    async fn snapshot(&self, urgency: Urgency) -> Result<Option<Packet>, Fault> {
        let (sequence, encoded) = self.state.encode();
        let problem = match encoded {
            Ok(bytes) if bytes.len() <= self.max_message => {
                let version = self.state.version();
                let message = |content| FromService::State { sequence, version, urgency, content };
                match Packet::with_content(bytes, message) {
                    Ok(packet) => {
                        self.link.write(|ledger| ledger.state.sent(sequence, urgency));
                        return Ok(Some(packet));
                    }
                    Err(error) if may_pass(&error) => {
                        wait_out(&error).await;
                        return Ok(None);
                    }
                    Err(error) => return Err(Fault::Seal(error)),
                }
            }
            Ok(bytes) => format!("it has {} bytes, at most {} are allowed", bytes.len(), self.max_message),
            Err(error) => format!("it can't be written in postcard: {error}"),
        };
        tracing::error!(%sequence, problem, "the state can't be sent");
        self.link.write(|ledger| ledger.state.unsent(sequence, problem));
        Ok(None)
    }
}

async fn send(socket: &AsyncSeqpacket, packet: Option<&Packet>) -> io::Result<()> {
    match packet {
        Some(packet) => {
            let beside: Vec<_> = packet.beside.iter().map(AsFd::as_fd).collect();
            socket.send(&[IoSlice::new(&packet.bytes)], &beside).await
        }
        None => std::future::pending().await,
    }
}

async fn tick(heartbeat: Option<&mut Interval>) {
    match heartbeat {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// What another process, or another user's, has used up and may give back.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ETOOMANYREFS];
    error.raw_os_error().is_some_and(|number| exhausted.contains(&number))
}

async fn wait_out(error: &io::Error) {
    tracing::error!(%error, "the session waits for what is used up");
    tokio::time::sleep(EXHAUSTED_PAUSE).await;
}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
