//! The thread behind all pipes.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use watchdog_protocol::{Incarnation, ServiceName};

use super::hand::{Hand, Mark, Peek};
use super::lines::{self, End, LONGEST};
use super::log::Log;
use super::signs::{Sign, Watch};
use super::source::{Source, Tail};
use super::tails::{LAST_LINES, Tails};
use super::{Logs, Stream, reader};

/// What the event loop asks of the thread.
#[derive(Debug)]
pub(super) enum Command {
    First { service: ServiceName },
    Add { service: ServiceName, stream: Stream, pipe: Arc<OwnedFd> },
    Remove { service: ServiceName },
    Starting { service: ServiceName, incarnation: Incarnation },
    Resuming { service: ServiceName, incarnation: Incarnation },
    Watch { service: ServiceName, watch: Watch },
    Limit { size: u64, files: u32 },
    LastLines { service: ServiceName, reply: oneshot::Sender<Vec<String>> },
    Stop { reply: Option<oneshot::Sender<()>> },
}

/// What the pipe of a service may hold at most, if the service made it larger.
const LARGEST_PIPE: usize = 1024 * 1024;

/// The token of the eventfd.
const WAKE: u64 = u64::MAX;

/// Everything the thread has.
#[derive(Debug)]
pub(super) struct Collector {
    logs: Logs,
    hand: Hand,
    peek: Peek,
    epoll: Epoll,
    inbox: Receiver<Command>,
    wake: Arc<EventFd>,
    /// Boxed: a map has room for more than it holds.
    sources: HashMap<u64, Box<Source>>,
    next_token: u64,
    written: HashMap<ServiceName, Log>,
    tails: Tails,
    watches: HashMap<ServiceName, Watch>,
    signs: Sender<Sign>,
    raw: Vec<u8>,
    records: String,
}

impl Collector {
    /// Finishes the batch a killed core left in the hand.
    pub(super) fn new(
        logs: Logs,
        hand: Hand,
        tails: Tails,
        signs: Sender<Sign>,
        inbox: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let mut collector = Self {
            logs,
            hand,
            peek: Peek::new()?,
            epoll,
            inbox,
            wake,
            sources: HashMap::new(),
            next_token: 0,
            written: HashMap::new(),
            tails,
            watches: HashMap::new(),
            signs,
            raw: vec![0; LONGEST],
            records: String::new(),
        };
        collector.finish_batch()?;
        Ok(collector)
    }

    /// Until told to stop, or until the event loop is gone.
    pub(super) fn run(&mut self) {
        loop {
            match self.obey() {
                Obeyed::All => {}
                Obeyed::Stop(reply) => {
                    self.drain_all();
                    // Whoever asked may have gone on without us.
                    let _ = reply.map(|reply| reply.send(()));
                    return;
                }
            }
            self.turn();
            self.wait();
        }
    }

    fn obey(&mut self) -> Obeyed {
        loop {
            match self.inbox.try_recv() {
                Err(TryRecvError::Empty) => return Obeyed::All,
                Err(TryRecvError::Disconnected) => return Obeyed::Stop(None),
                Ok(Command::Stop { reply }) => return Obeyed::Stop(reply),
                Ok(Command::First { service }) => self.first(&service),
                Ok(Command::Add { service, stream, pipe }) => self.add(service, stream, pipe),
                Ok(Command::Remove { service }) => self.remove(&service),
                Ok(Command::Starting { service, incarnation }) => self.starting(&service, incarnation),
                Ok(Command::Resuming { service, incarnation }) => {
                    let printed = reader::printed_by(&self.logs.folder, &service, incarnation);
                    if !matches!(printed, Ok(Some(_))) {
                        self.starting(&service, incarnation);
                    }
                }
                Ok(Command::Watch { service, watch }) => self.watch(service, watch),
                Ok(Command::Limit { size, files }) => (self.logs.size, self.logs.files) = (size, files),
                Ok(Command::LastLines { service, reply }) => {
                    // Nobody waits any more: a disk that stood still.
                    let _ = reply.send(self.last_lines(&service));
                }
            }
        }
    }

    pub(super) fn first(&mut self, service: &ServiceName) {
        if !self.written.contains_key(service) {
            self.begin(service, Vec::new());
        }
    }

    pub(super) fn add(&mut self, service: ServiceName, stream: Stream, pipe: Arc<OwnedFd>) {
        let token = self.next_token;
        self.next_token += 1;
        // Edge-triggered: an incomplete line stays in the pipe and must not wake us until it grows.
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        if let Err(error) = self.epoll.add(&pipe, EpollEvent::new(wanted, token)) {
            tracing::error!("cannot capture what `{service}` writes to {stream}: {error}");
            return;
        }
        self.log_of(&service);
        self.sources.insert(token, Box::new(Source::new(service, stream, pipe)));
    }

    fn remove(&mut self, service: &ServiceName) {
        self.drain(service);
        for token in self.tokens_of(service) {
            if let Some(source) = self.sources.remove(&token) {
                // Before the close: the keeper's copy of this descriptor would go on waking us.
                let _ = self.epoll.delete(&source.pipe);
            }
        }
        self.written.remove(service);
        self.tails.forget(service);
        self.watches.remove(service);
    }

    pub(super) fn starting(&mut self, service: &ServiceName, incarnation: Incarnation) {
        let stamp = stamp();
        let record = format!("{stamp} {} {}\n", Stream::Watchdog, reader::start_of(incarnation));
        self.log_of(service);
        let Self { logs, written, .. } = self;
        let log = written.get_mut(service).expect("made above");
        let length = log.length(logs);
        log.append(logs, length, &stamp, &record, 1);
    }

    /// First in what it has printed: it may have been faster than this was asked for, or an older core was killed
    /// before it told.
    pub(super) fn watch(&mut self, service: ServiceName, mut watch: Watch) {
        let printed = reader::printed_by(&self.logs.folder, &service, watch.incarnation);
        let now = Instant::now();
        for record in printed.ok().flatten().unwrap_or_default() {
            tell(&self.signs, &service, &mut watch, &record.text, now);
        }
        self.watches.insert(service, watch);
    }

    pub(super) fn last_lines(&mut self, service: &ServiceName) -> Vec<String> {
        self.drain(service);
        self.tails.take(service).unwrap_or_default()
    }

    pub(super) fn drain_all(&mut self) {
        for service in self.written.keys().cloned().collect::<Vec<_>>() {
            // The services go on: what has no line end yet waits for the next core.
            for token in self.tokens_of(&service) {
                self.drain_pipe(token, Tail::Waits);
            }
        }
    }

    /// Writes all that a service that ended left in its pipes.
    fn drain(&mut self, service: &ServiceName) {
        for token in self.tokens_of(service) {
            self.drain_pipe(token, Tail::Taken(End::Line));
        }
    }

    /// Bounded: something else that holds the pipe may write on for ever.
    fn drain_pipe(&mut self, token: u64, tail: Tail) {
        let mut left = LARGEST_PIPE;
        loop {
            match self.batch(token, tail) {
                0 => return,
                taken if taken >= left => return,
                taken => left -= taken,
            }
        }
    }

    fn tokens_of(&self, service: &ServiceName) -> Vec<u64> {
        self.sources
            .iter()
            .filter(|(_, source)| source.service == *service)
            .map(|(token, _)| *token)
            .collect()
    }

    /// One batch for each pipe that is due: a flooder delays the others by one batch.
    pub(super) fn turn(&mut self) {
        let now = Instant::now();
        let due: Vec<(u64, Tail)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.due_in(now) == Some(Duration::ZERO))
            .map(|(token, source)| (*token, source.tail(now)))
            .collect();
        for (token, tail) in due {
            self.batch(token, tail);
        }
    }

    /// The lines at the head of a pipe, into their file. How many bytes were taken; with 0 nothing is to be had now.
    fn batch(&mut self, token: u64, tail: Tail) -> usize {
        match self.try_batch(token, tail) {
            Ok(taken) => taken,
            Err(error) => {
                // Only pipes of our own and memory are involved: a bug or a host out of memory.
                if let Some(source) = self.sources.get_mut(&token) {
                    tracing::error!(
                        "cannot capture what `{}` writes to {}: {error}",
                        source.service,
                        source.stream
                    );
                    source.rest();
                }
                0
            }
        }
    }

    fn try_batch(&mut self, token: u64, tail: Tail) -> io::Result<usize> {
        let Some(source) = self.sources.get_mut(&token) else { return Ok(0) };
        let seen = self.peek.at(&source.pipe, &mut self.raw)?;
        let (length, end) = source.choose(&self.raw[..seen], tail, Instant::now());
        if length == 0 {
            return Ok(0);
        }
        let (service, stream) = (source.service.clone(), source.stream);
        let file_length = {
            let Self { logs, written, .. } = self;
            written.get_mut(&service).map_or(0, |log| log.length(logs))
        };
        self.hand.mark(&Mark { service: service.clone(), stream, end, length: file_length })?;
        let taken = self.hand.take(&self.sources[&token].pipe, length)?;
        // Fewer than wanted only when its buffers are more than the hand has places: then the last is a piece.
        let end = if taken < length { End::GoesOn } else { end };
        self.write(&service, stream, end, file_length, taken)?;
        Ok(taken)
    }

    /// Appends what is in the hand, the first `taken` bytes of `raw`, and empties it.
    fn write(
        &mut self,
        service: &ServiceName,
        stream: Stream,
        end: End,
        file_length: u64,
        taken: usize,
    ) -> io::Result<()> {
        let stamp = stamp();
        self.log_of(service);
        let Self { logs, written, tails, watches, signs, records, raw, hand, .. } = self;
        let (mut watch, now) = (watches.get_mut(service), Instant::now());
        let log = written.get_mut(service).expect("made above");
        records.clear();
        let lines = lines::append(&raw[..taken], &stamp, stream.word(), end, records, |text| {
            if stream == Stream::Errors {
                tails.add(service, text);
            }
            if let Some(watch) = &mut watch {
                tell(signs, service, watch, text, now);
            }
        });
        log.append(logs, file_length, &stamp, records, lines);
        hand.consume(&mut raw[..taken])
    }

    /// The hand is not empty: a core was killed after it took these bytes. The mark says where they belong, and
    /// what of them may be in the file is cut off.
    fn finish_batch(&mut self) -> io::Result<()> {
        let taken = self.peek.at(self.hand.out(), &mut self.raw)?;
        if taken == 0 {
            return Ok(());
        }
        match self.hand.marked()? {
            Some(Mark { service, stream, end, length }) => {
                if let Err(error) = Log::new(service.clone()).cut(&self.logs, length) {
                    tracing::error!("lines in the log of `{service}` may stand there twice: {error}");
                }
                self.write(&service, stream, end, length, taken)
            }
            None => {
                // The mark is written before anything is taken: a bug, and nobody knows whose bytes these are.
                tracing::error!("{taken} bytes of some service's output are lost: the mark can't be read");
                self.hand.consume(&mut self.raw[..taken])
            }
        }
    }

    /// What this service's errors said before this core began is read from its file.
    fn log_of(&mut self, service: &ServiceName) {
        if !self.written.contains_key(service) {
            let before = reader::last_errors(&self.logs.folder, service, LAST_LINES);
            self.begin(service, before.unwrap_or_default());
        }
    }

    fn begin(&mut self, service: &ServiceName, before: Vec<String>) {
        self.tails.begin(service, before);
        self.written.insert(service.clone(), Log::new(service.clone()));
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let wait = self.sources.values().filter_map(|source| source.due_in(now)).min();
        let timeout = match wait {
            None => EpollTimeout::NONE,
            // Rounded up: a wait of 0.4 ms must not become none.
            Some(wait) => {
                EpollTimeout::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            count => count.expect("epoll waits on descriptors that are ours"),
        };
        for event in &events[..count] {
            if event.data() == WAKE {
                // Level before work: a command sent from here on wakes again.
                let _ = self.wake.read();
            } else if let Some(source) = self.sources.get_mut(&event.data()) {
                source.wake();
            }
        }
    }
}

enum Obeyed {
    All,
    Stop(Option<oneshot::Sender<()>>),
}

fn tell(signs: &Sender<Sign>, service: &ServiceName, watch: &mut Watch, text: &str, now: Instant) {
    for of in watch.line(text, now) {
        // A full queue is read in a moment; without an event loop this thread ends, too.
        let _ = signs.blocking_send(Sign { service: service.clone(), incarnation: watch.incarnation, of });
    }
}

/// Now, in UTC: always 27 characters.
fn stamp() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
