//! What a service and its watchdog owe each other, apart from the socket: pure, so that a test is a list of
//! what was said.
//!
//! What is owed is kept as levels and not as a queue: a service that raises its health a thousand times while
//! the watchdog is away owes one packet. So nothing here grows but by open requests, whose futures wait.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use watchdog_protocol::limits::MAX_TEXT;
use watchdog_protocol::session::{FromService, Health, LaneOut, Progress, Refusal, Resumed, Urgency};
use watchdog_protocol::{Contract, LaneEpoch, Revision};

use super::SessionEnd;
use super::offers::{Offer, Offers};
use super::saves::Saves;
use crate::context::NextError;

/// One side's view of a session.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) settings: Offers,
    pub(crate) state: Saves,
    ready: Ready,
    health: Health,
    health_due: bool,
    progress: Option<Progress>,
    heartbeat_due: bool,
    requests: u64,
    introductions: BTreeMap<u64, Introduction>,
    calls: BTreeMap<u64, Call>,
    lanes: Lanes,
    resume_due: bool,
    last_word: Option<String>,
    closing: bool,
    stop: bool,
    /// A logging service may be had, and nobody has looked.
    logging: bool,
    end: Option<SessionEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    NotYet,
    Due,
    Said,
}

/// The answer to an introduction: which lane.
pub(crate) type Introduced = Result<LaneOut, Refusal>;

#[derive(Debug)]
struct Introduction {
    peer: String,
    contract: Contract,
    due: bool,
    answer: oneshot::Sender<Introduced>,
}

/// A call of WatchdogQuery. Its end is the caller's to see, who drops the receiver then.
#[derive(Debug)]
struct Call {
    /// Until it goes.
    due: Option<Vec<u8>>,
    replies: mpsc::Sender<Vec<u8>>,
}

/// Replies a caller may be behind: two seconds of a busy event log. One that is further behind is cut off, and
/// asks again for what it has not seen.
const REPLIES_BEHIND: usize = 256;

#[derive(Debug, Default)]
struct Lanes {
    out: Vec<LaneEpoch>,
    arriving: Vec<LaneEpoch>,
    /// Of the arriving, to be said.
    drained: Vec<LaneEpoch>,
}

/// What a service hears beside messages.
#[derive(Debug)]
pub(crate) enum News {
    /// It can't go on.
    Failed(NextError),
    /// A stop was asked for, or the watchdog is gone.
    Over,
    /// New settings, on trial now.
    Settings(Offer),
}

/// What goes next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// This, as it is.
    Say(FromService),
    /// The newest state, encoded when it goes.
    State(Urgency),
    /// A call of WatchdogQuery.
    Call {
        /// Its number.
        request: u64,
        /// Encoded.
        call: Vec<u8>,
    },
    /// Nothing more, ever.
    Done,
}

impl Ledger {
    pub(crate) fn new(settings: Offers, state: Saves) -> Self {
        Self {
            settings,
            state,
            ready: Ready::NotYet,
            health: Health::Ok,
            health_due: false,
            progress: None,
            heartbeat_due: false,
            requests: 0,
            introductions: BTreeMap::new(),
            calls: BTreeMap::new(),
            lanes: Lanes::default(),
            resume_due: false,
            last_word: None,
            closing: false,
            stop: false,
            logging: false,
            end: None,
        }
    }

    // ---- what the service says ----

    /// Says ready, once, which accepts the initial settings.
    pub(crate) fn ready(&mut self) {
        self.settings.ready();
        if self.ready == Ready::NotYet {
            self.ready = Ready::Due;
        }
    }

    pub(crate) fn is_ready_said(&self) -> bool {
        self.ready == Ready::Said
    }

    /// Raises a level; the one in force is not said again.
    pub(crate) fn health(&mut self, health: Health) {
        let health = match health {
            Health::Ok => Health::Ok,
            Health::Degraded { reason } => Health::Degraded { reason: cut(reason) },
            Health::Failing { reason } => Health::Failing { reason: cut(reason) },
        };
        self.health_due |= health != self.health;
        self.health = health;
    }

    pub(crate) fn progress(&mut self, progress: Progress) {
        self.progress = Some(Progress { text: cut(progress.text), ..progress });
    }

    pub(crate) fn heartbeat(&mut self) {
        self.heartbeat_due = true;
    }

    /// Asks for a lane. Dropping the receiver takes the request back, if it has not gone yet.
    pub(crate) fn introduce(&mut self, peer: String, contract: Contract) -> oneshot::Receiver<Introduced> {
        let (answer, receiver) = oneshot::channel();
        // After the session's end nobody answers: the sender is dropped with the request.
        if self.end.is_none() {
            self.requests += 1;
            self.introductions.insert(self.requests, Introduction { peer, contract, due: true, answer });
        }
        receiver
    }

    /// Calls; what comes back comes out of the receiver. It ends without an end of the call when a new core took
    /// over, when its caller is too far behind, or with the session.
    pub(crate) fn call(&mut self, call: Vec<u8>) -> mpsc::Receiver<Vec<u8>> {
        let (replies, receiver) = mpsc::channel(REPLIES_BEHIND);
        self.calls.retain(|_, open| !open.replies.is_closed());
        if self.end.is_none() {
            self.requests += 1;
            self.calls.insert(self.requests, Call { due: Some(call), replies });
        }
        receiver
    }

    /// Nothing more will be said after what is owed now; a last word goes last.
    pub(crate) fn close(&mut self, last_word: Option<String>) {
        self.last_word = last_word.map(cut);
        self.closing = true;
    }

    // ---- what the watchdog says ----

    pub(crate) fn stop(&mut self) {
        self.stop = true;
    }

    pub(crate) fn logging_registered(&mut self) {
        self.logging = true;
    }

    /// The session is over: no request will be answered.
    pub(crate) fn ended(&mut self, end: SessionEnd) {
        self.introductions.clear();
        self.calls.clear();
        self.end.get_or_insert(end);
    }

    /// Answers a request; one that is not open, an answer repeated, is nobody's.
    pub(crate) fn introduced(&mut self, request: u64, outcome: Introduced) {
        if let Ok(LaneOut { lane, .. }) = &outcome
            && !self.lanes.out.contains(lane)
        {
            self.lanes.out.push(*lane);
        }
        if let Some(open) = self.introductions.remove(&request) {
            // Whoever asked may have stopped waiting.
            let _ = open.answer.send(outcome);
        }
    }

    /// One reply to a call; one to a call whose caller has gone is nobody's.
    pub(crate) fn answered(&mut self, request: u64, reply: Vec<u8>) {
        if self.calls.get(&request).is_some_and(|open| open.replies.try_send(reply).is_err()) {
            self.calls.remove(&request);
        }
    }

    /// A call that can't go: its caller may repeat it.
    pub(crate) fn cut_off(&mut self, request: u64) {
        self.calls.remove(&request);
    }

    pub(crate) fn lane_arrived(&mut self, lane: LaneEpoch) {
        if !self.lanes.arriving.contains(&lane) {
            self.lanes.arriving.push(lane);
        }
    }

    pub(crate) fn lane_closed(&mut self, lane: LaneEpoch) {
        self.lanes.out.retain(|open| *open != lane);
        self.lanes.arriving.retain(|open| *open != lane);
    }

    /// A lane was read to its end.
    pub(crate) fn lane_drained(&mut self, lane: LaneEpoch) {
        self.lanes.drained.push(lane);
    }

    /// A new core: it is told again whatever the old one may not have answered. Calls that went are cut off: their
    /// callers repeat them, and know from where.
    pub(crate) fn took_over(&mut self) {
        self.settings.repeat();
        self.state.repeat();
        self.calls.retain(|_, open| open.due.is_some());
        self.introductions.retain(|_, open| !open.answer.is_closed());
        for open in self.introductions.values_mut() {
            open.due = true;
        }
        self.resume_due = true;
    }

    // ---- what is asked of the ledger ----

    /// What `next()` is to know before it looks for a message. New settings are taken.
    pub(crate) fn news(&mut self) -> Option<News> {
        if let Some(error) = self.end.as_ref().and_then(SessionEnd::error) {
            return Some(News::Failed(NextError::Session(error)));
        }
        if let Some(reason) = self.state.unwritable() {
            return Some(News::Failed(NextError::State { reason: reason.to_owned() }));
        }
        if self.stop || self.end.is_some() {
            return Some(News::Over);
        }
        self.settings.take().map(News::Settings)
    }

    /// Whether a logging service may be had, said once.
    pub(crate) fn take_logging(&mut self) -> bool {
        std::mem::take(&mut self.logging)
    }

    pub(crate) fn end(&self) -> Option<&SessionEnd> {
        self.end.as_ref()
    }

    /// Takes what goes next, which counts as said. `None`: nothing now.
    pub(crate) fn step(&mut self) -> Option<Step> {
        if let Some((revision, verdict)) = self.settings.verdict_due() {
            return Some(Step::Say(FromService::Verdict { revision, verdict }));
        }
        if self.ready == Ready::Due {
            self.ready = Ready::Said;
            return Some(Step::Say(FromService::Ready));
        }
        for (request, open) in &mut self.introductions {
            if std::mem::take(&mut open.due) {
                let (peer, contract) = (open.peer.clone(), open.contract.clone());
                return Some(Step::Say(FromService::Introduce { request: *request, peer, contract }));
            }
        }
        if let Some(urgency) = self.state.due(self.closing) {
            return Some(Step::State(urgency));
        }
        if let Some(lane) = self.lanes.drained.pop() {
            return Some(Step::Say(FromService::LaneDrained { lane }));
        }
        for (request, open) in &mut self.calls {
            if let Some(call) = open.due.take() {
                return Some(Step::Call { request: *request, call });
            }
        }
        if std::mem::take(&mut self.health_due) {
            return Some(Step::Say(FromService::Health(self.health.clone())));
        }
        if let Some(progress) = self.progress.take() {
            return Some(Step::Say(FromService::Progress(progress)));
        }
        if std::mem::take(&mut self.heartbeat_due) {
            return Some(Step::Say(FromService::Heartbeat));
        }
        if std::mem::take(&mut self.resume_due) {
            return Some(Step::Say(FromService::Resumed(self.resumed())));
        }
        if let Some(reason) = self.last_word.take() {
            return Some(Step::Say(FromService::LastWord { reason }));
        }
        self.closing.then_some(Step::Done)
    }

    fn resumed(&self) -> Resumed {
        Resumed {
            ready: self.is_ready_said(),
            health: self.health.clone(),
            revision: self.settings.in_force().unwrap_or(Revision::NONE),
            lanes_out: self.lanes.out.clone(),
            lanes_in: self.lanes.arriving.clone(),
        }
    }
}

/// The watchdog shows one line of it.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let fits = MAX_TEXT - '…'.len_utf8();
        let end = (0..=fits).rev().find(|at| text.is_char_boundary(*at)).expect("0 is one");
        text.truncate(end);
        text.push('…');
    }
    text
}
