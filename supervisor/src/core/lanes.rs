//! The lanes: made at an introduction, handed to each incarnation of either side, taken back at its end.
//!
//! ```text
//! introduce ─► Lane { socket pair, two pages, note } ─► keeper stores all five descriptors
//!     sender's end + sender's page (rw) + receiver's page (ro)   ──► sender's session:   Introduced
//!     receiver's end + receiver's page (rw) + sender's page (ro) ──► receiver's session: LaneIn
//! ```
//! A lane is named by its epoch and exists while both sides are registered, running or not. Nothing here reads a
//! message: what waits is counted from the pages, which tell it after a crash too. One that its sender may no longer
//! use is [retired], and what is sent later goes on another one.
//!
//! [retired]: Lanes::retire

pub(super) mod answers;
mod packet;
mod post;
mod retired;
mod suspect;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchdog_lifecycle::poison::Suspects;
use watchdog_protocol::graph::GraphLane;
use watchdog_protocol::status::{BucketStatus, InboxStatus, LaneStatus, PropagationStatus};
use watchdog_protocol::{Contract, Incarnation, LaneEpoch, MessageNumber, Mismatch, ServiceName};
use watchdog_seqpacket::{
    Handover, Marks, PageError, Propagation, ReceiverPage, ReceiverPageReader, SenderPage, SenderPageReader,
    Seqpacket, Wear, read_only,
};

pub(crate) use self::packet::Found;
pub(crate) use self::post::{Letter, PostError};
use self::retired::bounded;
pub(crate) use self::suspect::{Copied, LetterError};
use super::note::Note;
use super::status::millis;

/// The descriptors of one lane in the keeper, in this order: sender's end, receiver's end, sender's page,
/// receiver's page, note.
const STORED: usize = 5;

/// Why a lane could not be made or found again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    #[error("cannot make a socket pair")]
    Pair(#[source] io::Error),
    #[error("cannot make or map a page")]
    Page(#[from] PageError),
    #[error("cannot make its note")]
    Note(#[source] io::Error),
    #[error("cannot copy a descriptor")]
    Copy(#[source] io::Error),
    #[error("cannot make an end as good as new")]
    Reset(#[source] io::Error),
    #[error("a process left an end unusable: {0:?}")]
    Worn(Wear),
    #[error("cannot shut its sending")]
    Shut(#[source] io::Error),
    #[error("cannot watch an end")]
    Watch(#[source] io::Error),
    #[error("it is stored under the name {0:?}, with {1} descriptors")]
    Stored(String, usize),
    #[error("{0} older lanes are left that nobody has read to their ends")]
    Unread(usize),
    #[error("cannot read random bits")]
    Random(#[source] getrandom::Error),
}

/// What a new core must know of a lane.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// What the sender compiled against when it last asked.
    contract: Contract,
    /// How often the receiver's end was handed to a process.
    handed_over: u64,
    /// When the lane was made, boot clock, nanoseconds.
    made_at: u64,
    /// Since when no process has the receiver's end, boot clock, nanoseconds.
    held_since: Option<u64>,
    /// The receiver's last process.
    given: Option<Incarnation>,
    /// The messages that processes of the receiver died with.
    suspects: Suspects,
    /// Dead letters that are still in it: the receiver's next process passes over them.
    buried: Vec<MessageNumber>,
    /// Nothing more goes in.
    is_retired: bool,
}

/// One lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) epoch: LaneEpoch,
    pub(crate) sender: ServiceName,
    pub(crate) receiver: ServiceName,
    sender_end: Seqpacket,
    receiver_end: Seqpacket,
    sender_page: OwnedFd,
    receiver_page: OwnedFd,
    sent: SenderPageReader,
    taken: ReceiverPageReader,
    note: Note,
    record: Record,
    /// Where the contracts part; then the receiver is not given the lane.
    pub(crate) mismatch: Option<Mismatch>,
    /// The sender's process that has a handle.
    open_by: Option<Incarnation>,
    /// The receiver's process that was given the lane.
    given_to: Option<Incarnation>,
}

/// The three descriptors one side gets: socket, its own page, the other side's page.
pub(crate) type Ends = Vec<OwnedFd>;

impl Lane {
    fn make(
        sender: &ServiceName,
        receiver: &ServiceName,
        contract: Contract,
        now: u64,
    ) -> Result<Self, LaneError> {
        let (sender_end, receiver_end) = Seqpacket::pair().map_err(LaneError::Pair)?;
        let sender_page = SenderPage::create()?;
        let receiver_page = ReceiverPage::create()?;
        let sent = SenderPageReader::map_ro(sender_page.as_fd())?;
        let taken = ReceiverPageReader::map_ro(receiver_page.as_fd())?;
        let note = Note::create().map_err(LaneError::Note)?;
        let epoch = LaneEpoch::from_stored(getrandom::u64().map_err(LaneError::Random)?);
        let record = Record {
            contract,
            handed_over: 0,
            made_at: now,
            held_since: Some(now),
            given: None,
            suspects: Suspects::default(),
            buried: Vec::new(),
            is_retired: false,
        };
        let mut lane = Self {
            epoch,
            sender: sender.clone(),
            receiver: receiver.clone(),
            sender_end,
            receiver_end,
            sender_page,
            receiver_page,
            sent,
            taken,
            note,
            record,
            mismatch: None,
            open_by: None,
            given_to: None,
        };
        lane.keep()?;
        Ok(lane)
    }

    /// What the keeper stored for an older core.
    pub(crate) fn restore(name: &str, fds: Vec<OwnedFd>) -> Result<Self, LaneError> {
        let count = fds.len();
        let wrong = || LaneError::Stored(name.to_owned(), count);
        let mut parts = name.split('/').skip(1);
        let mut part = || parts.next().ok_or_else(wrong);
        let epoch = u64::from_str_radix(part()?, 16).map_err(|_| wrong())?;
        let sender = part()?.parse().map_err(|_| wrong())?;
        let receiver = part()?.parse().map_err(|_| wrong())?;
        let [sender_end, receiver_end, sender_page, receiver_page, note]: [OwnedFd; STORED] =
            fds.try_into().map_err(|_| wrong())?;
        let sent = SenderPageReader::map_ro(sender_page.as_fd())?;
        let taken = ReceiverPageReader::map_ro(receiver_page.as_fd())?;
        let (note, record) = Note::reopen(note).map_err(LaneError::Note)?;
        Ok(Self {
            epoch: LaneEpoch::from_stored(epoch),
            sender,
            receiver,
            sender_end: Seqpacket::from_fd(sender_end).map_err(|_| wrong())?,
            receiver_end: Seqpacket::from_fd(receiver_end).map_err(|_| wrong())?,
            sender_page,
            receiver_page,
            sent,
            taken,
            note,
            record: record.ok_or_else(wrong)?,
            mismatch: None,
            open_by: None,
            given_to: None,
        })
    }

    /// The name in the keeper's store.
    pub(crate) fn stored_name(&self) -> String {
        format!("lane/{}/{}/{}", self.epoch, self.sender, self.receiver)
    }

    /// One of its ends, or both, have another name from now on.
    pub(crate) fn rename(&mut self, from: &ServiceName, to: &ServiceName) {
        for end in [&mut self.sender, &mut self.receiver] {
            if end == from {
                end.clone_from(to);
            }
        }
    }

    /// What the keeper stores.
    pub(crate) fn stored(&self) -> [std::os::fd::BorrowedFd<'_>; STORED] {
        [
            self.sender_end.as_fd(),
            self.receiver_end.as_fd(),
            self.sender_page.as_fd(),
            self.receiver_page.as_fd(),
            self.note.fd(),
        ]
    }

    /// The sender's end, for this process of the sender. `size`: what the lane is to hold; a process that has it goes on
    /// with no less than it knows of, for its packets may be longer than a smaller lane takes.
    pub(crate) fn give_to_sender(&mut self, to: Incarnation, size: usize) -> Result<Ends, LaneError> {
        let known = if self.open_by == Some(to) { self.size() } else { 0 };
        self.reset(&self.sender_end, size.max(known))?;
        let ends = ends(&self.sender_end, &self.sender_page, &self.receiver_page)?;
        self.open_by = Some(to);
        Ok(ends)
    }

    /// The receiver's end, for this process of the receiver. `size`: what its answers may take.
    pub(crate) fn give_to_receiver(&mut self, to: Incarnation, size: usize) -> Result<Ends, LaneError> {
        self.reset(&self.receiver_end, size)?;
        let ends = ends(&self.receiver_end, &self.receiver_page, &self.sender_page)?;
        if self.given_to != Some(to) {
            self.record.handed_over += 1;
            self.record.given = Some(to);
            self.begin_again()?;
        }
        self.given_to = Some(to);
        self.record.held_since = None;
        self.keep()?;
        Ok(ends)
    }

    /// The receiver's process ended: how far it had come.
    pub(crate) fn take_back(&mut self, now: u64) -> Marks {
        self.given_to = None;
        self.record.held_since = Some(now);
        if let Err(err) = self.keep() {
            tracing::warn!("lane {} to {}: {err}", self.sender, self.receiver);
        }
        self.taken.marks()
    }

    /// The sender's process ended.
    pub(crate) fn close_handle(&mut self) {
        self.open_by = None;
    }

    /// A process went on through a change of cores with this lane in hand.
    pub(crate) fn resumed_sender(&mut self, by: Incarnation) {
        self.open_by = Some(by);
    }

    /// As [`resumed_sender`](Self::resumed_sender), of the receiver.
    pub(crate) fn resumed_receiver(&mut self, by: Incarnation) {
        self.given_to = Some(by);
    }

    /// Whether the receiver's process has it.
    pub(crate) fn given_to(&self) -> Option<Incarnation> {
        self.given_to
    }

    /// Whether a process of the sender has a handle, and may use it.
    fn is_usable(&self) -> bool {
        self.open_by.is_some() && !self.is_retired()
    }

    /// What the sender compiled against.
    pub(crate) fn contract(&self) -> &Contract {
        &self.record.contract
    }

    /// The sender was built anew.
    pub(crate) fn set_contract(&mut self, contract: Contract) -> Result<(), LaneError> {
        self.record.contract = contract;
        self.keep()
    }

    fn reset(&self, end: &Seqpacket, size: usize) -> Result<(), LaneError> {
        match end.reset_for_handover(size).map_err(LaneError::Reset)? {
            Handover::Clean => Ok(()),
            Handover::Worn(Wear::Shutdown) if self.is_retired() => Ok(()),
            Handover::Worn(wear) => Err(LaneError::Worn(wear)),
        }
    }

    fn keep(&mut self) -> Result<(), LaneError> {
        self.note.write(&self.record).map_err(LaneError::Note)
    }

    /// Messages in the lane. Numbers have gaps where a sender died between reserving and sending, so an empty
    /// socket is empty whatever the numbers say.
    pub(crate) fn queued(&self) -> u64 {
        let marks = self.taken.marks();
        let reserved = self.sent.reserved().get();
        if self.is_empty() {
            return 0;
        }
        reserved.saturating_sub(marks.done.get())
    }

    /// What it holds, as the kernel made it.
    fn size(&self) -> usize {
        self.sender_end.send_bound().unwrap_or_default()
    }

    /// What is in it, with what lies beside packets.
    fn used(&self) -> u64 {
        let outstanding = self.sender_end.outstanding().unwrap_or_default();
        if outstanding == 0 {
            return 0;
        }
        let beside = self.sent.stats().memfd_bytes.saturating_sub(self.taken.stats().memfd_consumed);
        beside.saturating_add(outstanding as u64)
    }

    /// Messages sent on it, over all incarnations.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.stats().messages
    }

    /// Messages handed to a handler for the first time, over all incarnations.
    pub(crate) fn handled(&self) -> u64 {
        let stats = self.taken.stats();
        stats.handed.saturating_sub(stats.redelivered)
    }

    fn status(&self, now: u64) -> LaneStatus {
        let (sent, received) = (self.sent.stats(), self.taken.stats());
        let age = Duration::from_nanos(now.saturating_sub(self.record.made_at));
        let handled = self.handled();
        LaneStatus {
            lane: self.epoch,
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            queued: self.queued(),
            held_ms: self.record.held_since.map(|since| now.saturating_sub(since) / 1_000_000),
            handed_over: self.record.handed_over,
            sent: sent.messages,
            handled,
            redelivered: received.redelivered,
            full: sent.refused,
            rate: if age.is_zero() { 0.0 } else { handled as f64 / age.as_secs_f64() },
            age_ms: millis(age),
            propagation: propagation(&self.taken.propagation()),
            mismatch: self.mismatch.as_ref().map(ToString::to_string),
            is_retired: self.is_retired(),
            used: self.used(),
            size: self.size() as u64,
        }
    }
}

fn ends(socket: &Seqpacket, own: &OwnedFd, other: &OwnedFd) -> Result<Ends, LaneError> {
    Ok(vec![
        socket.try_clone().map_err(LaneError::Copy)?.into(),
        own.try_clone().map_err(LaneError::Copy)?,
        read_only(other.as_fd()).map_err(LaneError::Copy)?,
    ])
}

fn propagation(measured: &Propagation) -> PropagationStatus {
    PropagationStatus {
        count: measured.count(),
        mean: measured.mean_ns().unwrap_or_default(),
        variance: measured.variance_ns2().unwrap_or_default(),
        deviation: measured.standard_deviation_ns().unwrap_or_default(),
        p50: measured.p50_ns().unwrap_or_default(),
        p99: measured.p99_ns().unwrap_or_default(),
        max: measured.max_ns().unwrap_or_default(),
        buckets: measured.octaves().map(|(below, count)| BucketStatus { below, count }).collect(),
    }
}

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// By receiver and sender.
    lanes: BTreeMap<(ServiceName, ServiceName), Lane>,
    /// Oldest first.
    retired: Vec<Lane>,
}

impl Lanes {
    /// Takes in a lane that an older core made.
    pub(crate) fn insert(&mut self, lane: Lane) {
        if lane.is_retired() {
            self.insert_retired(lane);
        } else {
            self.lanes.insert((lane.receiver.clone(), lane.sender.clone()), lane);
        }
    }

    /// The lane between two services, made when it is not there; says whether it is new.
    pub(crate) fn between(
        &mut self,
        sender: &ServiceName,
        receiver: &ServiceName,
        contract: &Contract,
        now: u64,
    ) -> Result<(&mut Lane, Made), LaneError> {
        match self.lanes.entry((receiver.clone(), sender.clone())) {
            std::collections::btree_map::Entry::Occupied(found) => Ok((found.into_mut(), Made::Before)),
            std::collections::btree_map::Entry::Vacant(free) => {
                bounded(&self.retired, sender, receiver)?;
                let lane = Lane::make(sender, receiver, contract.clone(), now)?;
                Ok((free.insert(lane), Made::Now))
            }
        }
    }

    /// The lane on which one service sends to another, if there is one.
    pub(crate) fn find(&mut self, sender: &ServiceName, receiver: &ServiceName) -> Option<&mut Lane> {
        self.lanes.get_mut(&(receiver.clone(), sender.clone()))
    }

    /// The lane of this name.
    pub(crate) fn named(&mut self, epoch: LaneEpoch) -> Option<&mut Lane> {
        self.all_mut().find(|lane| lane.epoch == epoch)
    }

    /// Those that the core sends on, or did, on an operator's behalf.
    pub(crate) fn operators(&self) -> impl Iterator<Item = &Lane> {
        self.all().filter(|lane| lane.is_operators())
    }

    /// The lanes that arrive at a service, those first that are retired.
    pub(crate) fn arriving_at(&mut self, receiver: &ServiceName) -> impl Iterator<Item = &mut Lane> {
        let receiver = receiver.clone();
        self.all_mut().filter(move |lane| lane.receiver == receiver)
    }

    /// The lanes a service sends on, or did.
    pub(crate) fn leaving(&mut self, sender: &ServiceName) -> impl Iterator<Item = &mut Lane> {
        let sender = sender.clone();
        self.all_mut().filter(move |lane| lane.sender == sender)
    }

    /// Takes out every lane to a service.
    pub(crate) fn remove(&mut self, receiver: &ServiceName) -> Vec<Lane> {
        let current = self.lanes.extract_if(.., |_, lane| lane.receiver == *receiver).map(|(_, lane)| lane);
        let retired = self.retired.extract_if(.., |lane| lane.receiver == *receiver);
        current.chain(retired).collect()
    }

    /// Takes out every lane of a service, both ways, to be put in again.
    pub(crate) fn take(&mut self, service: &ServiceName) -> Vec<Lane> {
        let is_its = |lane: &Lane| lane.receiver == *service || lane.sender == *service;
        let current = self.lanes.extract_if(.., |_, lane| is_its(lane)).map(|(_, lane)| lane);
        let retired = self.retired.extract_if(.., |lane| is_its(lane));
        retired.chain(current).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Lane> {
        self.retired.iter().chain(self.lanes.values())
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.retired.iter_mut().chain(self.lanes.values_mut())
    }

    /// What `watchdog intercoms` shows of one inbox.
    pub(crate) fn inbox(&self, service: &ServiceName, now: u64) -> InboxStatus {
        let lanes: Vec<_> = self.all().filter(|lane| lane.receiver == *service).collect();
        InboxStatus {
            service: service.clone(),
            handles: lanes.iter().filter(|lane| lane.is_usable()).count() as u64,
            lanes: lanes.iter().map(|lane| lane.status(now)).collect(),
        }
    }

    /// As `watchdog graph` draws them.
    pub(crate) fn drawn(&self) -> Vec<GraphLane> {
        let drawn = self.all().map(|lane| GraphLane {
            sender: lane.sender.clone(),
            receiver: lane.receiver.clone(),
            sent: lane.sent(),
            queued: lane.queued(),
            is_retired: lane.is_retired(),
        });
        drawn.collect()
    }

    /// Handles to a service, messages in, messages out, and what waits for it.
    pub(crate) fn totals(&self, service: &ServiceName) -> Totals {
        let mut totals = Totals::default();
        for lane in self.all() {
            if lane.receiver == *service {
                totals.handles += u64::from(lane.is_usable());
                totals.messages_in += lane.handled();
                totals.queued += lane.queued();
            }
            if lane.sender == *service {
                totals.messages_out += lane.sent();
            }
        }
        totals
    }
}

/// Whether a lane was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Now,
    Before,
}

/// What a service's lanes add up to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) handles: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) queued: u64,
}
