//! One session: one incarnation's socket, the task that reads it, and the packets that wait to be sent.
//!
//! The event loop sends without waiting: what the service does not read at once is kept in the outbox, and the
//! session's task sends it when there is room. A service that lets the outbox grow past its bound breaks the
//! protocol.
//!
//! At an exit the event loop calls [`Session::drain`]: the task reads what is queued, to the last packet, and
//! ends with [`SessionEvent::Ended`]. Only then is the exit handled, so the last word of an incarnation is
//! applied before the next one is spawned.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use watchdog_protocol::control::Reply;
use watchdog_protocol::limits::{MAX_FRAME, MAX_INLINE, MAX_PACKET};
use watchdog_protocol::session::{Content, FromService, ToService, decode, encode};
use watchdog_protocol::{Incarnation, RequestId, ServiceName};
use watchdog_seqpacket::{AsyncSeqpacket, Received, Seqpacket, payload};

/// Packets one service may leave unread: a death of each of its peers, many times over. Beyond it the service
/// does not read its session at all.
const OUTBOX: usize = 4096;

/// With so many unread, answers to its calls wait: a long one, as of all entries of the event log, is no reason to call
/// it deaf.
const ANSWERS_UNREAD: usize = 256;

/// Descriptors a service may send beside one packet: the content of a state.
const FROM_SERVICE_FDS: usize = 1;

/// A packet comes without its descriptor in both cases.
const MISSING: &str =
    "a content did not come with its message: it was not sent, or the core can open no more files";

/// Between two tries to send descriptors when too many of this user are in flight.
const RETRY: Duration = Duration::from_millis(20);

/// What a session tells the event loop.
#[derive(Debug)]
pub(crate) struct FromSession {
    pub(crate) service: ServiceName,
    pub(crate) incarnation: Incarnation,
    pub(crate) event: SessionEvent,
}

#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// A message, the bytes that lay beside it already read.
    Message(Box<FromService>),
    /// The service broke the protocol: the session is of no more use.
    Broken(String),
    /// Nothing more will come: end of file, or drained after an exit.
    Ended,
}

/// The event loop's side of a session. Dropping it ends the task and closes the core's descriptor.
#[derive(Debug)]
pub(crate) struct Session {
    incarnation: Incarnation,
    shared: Arc<Shared>,
    ended: bool,
    greeted: bool,
    known: bool,
    /// What is answered, each call by its id.
    answering: BTreeMap<RequestId, AbortHandle>,
    over: watch::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncSeqpacket,
    outbox: Mutex<VecDeque<Arc<Outgoing>>>,
    room_wanted: Notify,
    room_made: Notify,
    drain: Notify,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    beside: Vec<OwnedFd>,
}

/// The service does not read its session.
#[derive(Debug, thiserror::Error)]
#[error("it left {OUTBOX} packets of its session unread")]
pub(crate) struct Unread;

impl Session {
    /// Takes over the core's end and starts its task.
    pub(crate) fn open(
        service: ServiceName,
        incarnation: Incarnation,
        socket: Seqpacket,
        tasks: &mut JoinSet<()>,
        events: mpsc::Sender<FromSession>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: AsyncSeqpacket::new(socket)?,
            outbox: Mutex::default(),
            room_wanted: Notify::new(),
            room_made: Notify::new(),
            drain: Notify::new(),
        });
        let over = watch::Sender::new(());
        let task = Task { service, incarnation, shared: Arc::clone(&shared), events };
        tasks.spawn(task.run(over.subscribe()));
        let (ended, greeted, known) = (false, false, false);
        Ok(Self { incarnation, shared, ended, greeted, known, answering: BTreeMap::new(), over })
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Sends now or as soon as the service reads. Order is kept.
    pub(crate) fn send(&self, message: &ToService, beside: Vec<OwnedFd>) -> Result<(), Unread> {
        self.shared.send(encode(message), beside)
    }

    /// Its end was told: nothing more will come.
    pub(crate) fn mark_ended(&mut self) {
        self.ended = true;
    }

    /// Its hello came; `false`: it came before.
    pub(crate) fn greet(&mut self) -> bool {
        !std::mem::replace(&mut self.greeted, true)
    }

    /// Nobody holds the service's end.
    pub(crate) fn is_deserted(&self) -> bool {
        match self.shared.socket.socket().peek(&mut [0; 8], 0) {
            Ok(Received::End) => true,
            Ok(_) => false,
            Err(err) => err.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Its program is the one that described itself: it may have its lanes.
    pub(crate) fn recognize(&mut self) {
        self.known = true;
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Answers a call, by a task of its own, until the last reply or the end of the session. A call that is repeated is
    /// answered anew, and no longer as it was asked before.
    pub(crate) fn answer(
        &mut self,
        call: RequestId,
        request: u64,
        replies: mpsc::Receiver<Reply>,
        tasks: &mut JoinSet<()>,
    ) {
        let (shared, mut over) = (Arc::clone(&self.shared), self.over.subscribe());
        let task = tasks.spawn(async move {
            tokio::select! {
                () = forward(shared, request, replies) => {}
                _ = over.changed() => {}
            }
        });
        self.answering.retain(|_, task| !task.is_finished());
        if let Some(before) = self.answering.insert(call, task) {
            before.abort();
        }
    }

    /// The process is gone: read what it left, then end.
    pub(crate) fn drain(&self) {
        self.shared.drain.notify_one();
    }
}

/// Until the last reply to a call.
async fn forward(shared: Arc<Shared>, request: u64, mut replies: mpsc::Receiver<Reply>) {
    while let Some(reply) = replies.recv().await {
        let mut beside = Vec::new();
        let Ok(reply) = content(encode(&reply), &mut beside) else { return };
        let answer = ToService::Answer { request, reply };
        shared.room().await;
        if shared.send(encode(&answer), beside).is_err() {
            return;
        }
    }
}

/// No room now; later there may be.
fn full(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::WouldBlock || err.raw_os_error() == Some(nix::libc::ETOOMANYREFS)
}

impl Shared {
    fn send(&self, bytes: Vec<u8>, beside: Vec<OwnedFd>) -> Result<(), Unread> {
        let mut outbox = self.outbox();
        if outbox.is_empty() {
            match self.try_send(&bytes, &beside) {
                Ok(()) => return Ok(()),
                Err(err) if full(&err) => {}
                // Gone: what it would have been told no longer matters to it.
                Err(_) => return Ok(()),
            }
        }
        if outbox.len() >= OUTBOX {
            return Err(Unread);
        }
        outbox.push_back(Arc::new(Outgoing { bytes, beside }));
        self.room_wanted.notify_one();
        Ok(())
    }

    fn try_send(&self, bytes: &[u8], beside: &[OwnedFd]) -> io::Result<()> {
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        self.socket.try_send(&[IoSlice::new(bytes)], &beside)
    }

    /// Waits until it has read nearly all. Cancel safe.
    async fn room(&self) {
        loop {
            let mut made = pin!(self.room_made.notified());
            made.as_mut().enable();
            if self.outbox().len() < ANSWERS_UNREAD {
                return;
            }
            made.await;
        }
    }

    /// Sends what waits. Cancel safe: a packet leaves the outbox in the same step in which it was sent.
    async fn flush(&self) {
        loop {
            let next = self.outbox().front().cloned();
            let Some(next) = next else {
                self.room_wanted.notified().await;
                continue;
            };
            let beside: Vec<_> = next.beside.iter().map(AsFd::as_fd).collect();
            match self.socket.send(&[IoSlice::new(&next.bytes)], &beside).await {
                Ok(()) => {}
                Err(err) if err.raw_os_error() == Some(nix::libc::ETOOMANYREFS) => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                // Gone: the reading side of this task will see the end.
                Err(_) => self.outbox().clear(),
            }
            self.outbox().pop_front();
            self.room_made.notify_waiters();
        }
    }

    fn outbox(&self) -> MutexGuard<'_, VecDeque<Arc<Outgoing>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    service: ServiceName,
    incarnation: Incarnation,
    shared: Arc<Shared>,
    events: mpsc::Sender<FromSession>,
}

impl Task {
    async fn run(self, mut over: watch::Receiver<()>) {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            tokio::select! {
                _ = over.changed() => return,
                () = self.shared.flush() => {}
                () = self.shared.drain.notified() => return self.read_rest(&mut buffer).await,
                received = self.shared.socket.take(&mut buffer, FROM_SERVICE_FDS) => {
                    if !self.pass_on(received, &buffer).await {
                        return;
                    }
                    // Mostly there was but one: the event loop need not wait until this is known.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// All that is queued, then the end: nobody writes any more.
    async fn read_rest(&self, buffer: &mut [u8]) {
        loop {
            match self.shared.socket.socket().take(buffer, FROM_SERVICE_FDS) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.tell(SessionEvent::Ended).await;
                    return;
                }
                received => {
                    if !self.pass_on(received, buffer).await {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the event loop what was received; `false`: that was the last.
    async fn pass_on(&self, received: io::Result<Received>, buffer: &[u8]) -> bool {
        let event = match received {
            Ok(Received::Packet(packet)) => match message(&buffer[..packet.length], &packet.descriptors) {
                Ok(message) => SessionEvent::Message(Box::new(message)),
                Err(reason) => SessionEvent::Broken(reason),
            },
            Ok(Received::End) => SessionEvent::Ended,
            Ok(Received::Empty) => SessionEvent::Broken("it sent an empty packet".into()),
            Ok(Received::Oversize { length }) => SessionEvent::Broken(format!(
                "it sent a packet of {length} bytes, at most {MAX_PACKET} are read"
            )),
            Ok(Received::TooManyDescriptors) => {
                SessionEvent::Broken("it sent more descriptors than a message has".into())
            }
            // What was queued before the peer went is still there.
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return true,
            Err(err) => SessionEvent::Broken(format!("its session can't be read: {err}")),
        };
        let ended = matches!(event, SessionEvent::Ended);
        self.tell(event).await;
        !ended
    }

    async fn tell(&self, event: SessionEvent) {
        let told = FromSession { service: self.service.clone(), incarnation: self.incarnation, event };
        // The event loop is gone only when the core ends.
        let _ = self.events.send(told).await;
    }
}

/// One message, what lay beside it put inside.
fn message(bytes: &[u8], beside: &[OwnedFd]) -> Result<FromService, String> {
    let mut message: FromService = decode(bytes).map_err(|err| format!("it sent {err}"))?;
    let content = match &mut message {
        FromService::State { content, .. } => Some(content),
        FromService::Control { call, .. } => Some(call),
        _ => None,
    };
    if let Some(content) = content
        && let Content::Beside { length } = content
    {
        let fd = beside.first().ok_or(MISSING)?;
        let bytes = payload::read(fd.as_fd(), *length, MAX_FRAME).map_err(|err| format!("it sent {err}"))?;
        *content = Content::Inline(bytes);
    }
    Ok(message)
}

/// Puts content into the packet, or into a sealed memfd beside it.
pub(crate) fn content(bytes: Vec<u8>, beside: &mut Vec<OwnedFd>) -> io::Result<Content> {
    // Half a packet: a welcome may carry two contents, and some words beside them.
    if bytes.len() <= MAX_INLINE / 2 {
        return Ok(Content::Inline(bytes));
    }
    beside.push(payload::seal(&bytes)?);
    Ok(Content::Beside { length: bytes.len() as u64 })
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use watchdog_protocol::control::Outcome;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    const MANY: usize = 3 * OUTBOX;

    /// A session, its tasks, and the service's end of it.
    fn session() -> (Session, JoinSet<()>, AsyncSeqpacket) {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        let mut tasks = JoinSet::new();
        let (service, incarnation) = ("a".parse().unwrap(), Incarnation::FIRST);
        let session = Session::open(service, incarnation, ours, &mut tasks, mpsc::channel(1).0).unwrap();
        (session, tasks, AsyncSeqpacket::new(theirs).unwrap())
    }

    /// So many replies, and their end.
    fn replies(
        session: &mut Session,
        tasks: &mut JoinSet<()>,
        id: u128,
        request: u64,
    ) -> mpsc::Sender<Reply> {
        let (out, replies) = mpsc::channel(8);
        session.answer(RequestId::from_bits(id), request, replies, tasks);
        let mine = out.clone();
        tasks.spawn(async move {
            for line in 0..MANY {
                if mine.send(Reply::Progress(line.to_string())).await.is_err() {
                    return;
                }
            }
            let _ = mine.send(Reply::End(Ok(Outcome::Done(String::new())))).await;
        });
        out
    }

    async fn answer(socket: &AsyncSeqpacket, buffer: &mut [u8]) -> (u64, Reply) {
        let received = socket.recv(buffer, 1).await.unwrap();
        let Received::Packet(packet) = received else { panic!("{received:?}") };
        let ToService::Answer { request, reply: Content::Inline(reply) } =
            decode(&buffer[..packet.length]).unwrap()
        else {
            panic!("only answers were sent")
        };
        (request, watchdog_protocol::control::decode(&reply).unwrap())
    }

    #[tokio::test]
    async fn a_long_answer_waits_for_a_service_that_reads_slowly() {
        let (mut session, mut tasks, service) = session();
        drop(replies(&mut session, &mut tasks, 1, 7));
        let mut buffer = vec![0; MAX_PACKET];
        for line in 0..MANY {
            // Whoever answers may go on as far as it can before each packet is read.
            tokio::task::yield_now().await;
            assert!(session.shared.outbox().len() <= ANSWERS_UNREAD);
            assert_eq!(answer(&service, &mut buffer).await, (7, Reply::Progress(line.to_string())));
        }
        assert!(matches!(answer(&service, &mut buffer).await, (7, Reply::End(Ok(_)))));
    }

    #[tokio::test]
    async fn what_a_service_follows_is_let_go_with_its_session_and_when_it_is_asked_anew() {
        let (mut session, mut tasks, service) = session();
        let first = replies(&mut session, &mut tasks, 1, 7);
        let mut buffer = vec![0; MAX_PACKET];
        answer(&service, &mut buffer).await;
        let again = replies(&mut session, &mut tasks, 1, 8);
        timeout(LONG, first.closed()).await.expect("the older one is let go");
        assert!(!again.is_closed());
        while answer(&service, &mut buffer).await.0 != 8 {}
        drop(session);
        timeout(LONG, again.closed()).await.expect("it is let go with the session");
    }
}
