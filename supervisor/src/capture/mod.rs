//! Standard output and error of every service, into rotated files: nothing lost, nothing doubled, whoever dies.
//!
//! ```text
//! service ─1─► pipe ─┐  splice   ┌──────┐  append   logs/counter.log
//!         ─2─► pipe ─┴─────────► │ hand │ ────────► logs/counter.log.1 …      2026-11-24T09:00:00.123456Z out text
//!                                └──────┘
//! ```
//! One thread of its own serves all pipes, so a slow disk makes services wait that write faster than it, and never
//! the event loop. The keeper stores both ends of every pipe, the hand and its mark: they outlive every core.
//!
//! # Why nothing is lost or doubled when the core is killed
//! Reading a pipe and appending to a file can't be one step, and comparing the file's tail with the pipe's head
//! fails when lines repeat. So the bytes of a batch go through the **hand**, a second pipe that only we write to,
//! and the **mark** (a memfd) says before whose they are and how long the log file was:
//!
//! | step | pipe | hand | file | after a kill behind this step, the next core |
//! |---|---|---|---|---|
//! | peek: `tee` the pipe, find the last line end | A B | – | – | reads the pipe |
//! | mark: service, stream, length L of the file | A B | – | L | finds the hand empty: reads the pipe |
//! | take: `splice` the lines A into the hand | B | A | L | cuts the file to L, writes A again |
//! | append A | B | A | L + A, or part of it | cuts the file to L, writes A again |
//! | consume: empty the hand by one read | B | – | L + A | finds the hand empty: reads the pipe |
//!
//! *The hand is not empty* means *the mark describes it, and the file behind L holds it wholly, partly or not at
//! all*; *the hand is empty* means *the file holds all that is out of the pipe*. Both hold at every instant: the
//! mark is only written while the hand is empty; `splice` between pipes moves buffers under the locks of both, and a
//! read of what a pipe holds copies it under the pipe's lock: neither stops half-way for a signal, a kill included.
//! The next core starts when the old one is reaped, so no two hands are in one pipe. What the file held is never
//! compared with anything, so repeated lines are no special case.
//!
//! After a death of the keeper the pipes are gone with what was in them; what is in the files stays.
//!
//! # What a log file holds
//! One record a line: `TIME STREAM TEXT`. The time is UTC in microseconds, taken once per batch, always 27
//! characters; the stream is `out`, `err`, or `dog` for what the watchdog says itself; the text is the line. A line
//! longer than 64 KiB, or one that was not ended within a second, comes in pieces: `out+` goes on in the next
//! record of its stream. Control characters other than tab, bytes that are not UTF-8 and characters that change
//! the direction of text are escaped when they are *written* (`\x1b`, `\u{202e}`), so `cat` is as safe as
//! `watchdog logs`. An incomplete line stays in the service's pipe until it is ended: no core's memory holds it.
//!
//! When the disk is full, batches are dropped and counted, and the count stands before the next one that has room.

mod collector;
mod hand;
mod lines;
mod log;
pub mod reader;
mod signs;
mod source;
mod tails;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::pipe2;
use tokio::sync::oneshot;
use tokio::time::timeout;
pub use watchdog_protocol::status::LogStream as Stream;
use watchdog_protocol::{Incarnation, ServiceName};

use collector::{Collector, Command};
pub use hand::Hand;
use signs::Watch;
pub use signs::{Sign, SignOf};
use tails::Tails;

use crate::config::LogSigns;

/// Where the logs lie and how large they grow.
#[derive(Debug, Clone)]
pub struct Logs {
    /// The folder, made when it is not there.
    pub folder: PathBuf,
    /// From this size on, in bytes, a file is rotated before the next batch. Default 10 MiB.
    pub size: u64,
    /// Files per service, the one being written included. Default 5.
    pub files: u32,
}

/// The pipe of one stream of one service: read end, write end. Made once per service and stream, stored by the
/// keeper; the write end goes to each incarnation.
///
/// # Errors
/// Out of descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    // Room for a burst while the core is replaced. Refused above the user's sum: the default does too.
    let _ = fcntl(write.as_fd(), FcntlArg::F_SETPIPE_SZ(CAPACITY));
    Ok((read, write))
}

/// The pipes of both streams: read and write end of standard output, then of standard error.
///
/// # Errors
/// Out of descriptors.
pub fn pipes() -> io::Result<[OwnedFd; 4]> {
    let ((out_read, output), (err_read, errors)) = (pipe()?, pipe()?);
    Ok([out_read, output, err_read, errors])
}

/// Four times the longest line: a full pipe holds a page of a few bytes for a small write in the worst case, and
/// still the longest line fits.
const CAPACITY: i32 = 256 * 1024;

/// How long the event loop waits for the last lines of a process: the drain of a full pipe takes a millisecond, only
/// a disk that stands still takes longer.
const LAST_LINES_WAIT: Duration = Duration::from_millis(500);

/// How long a stop waits for what is still in the pipes.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The event loop's handle of the capturing thread. Dropped, the thread writes what is in the pipes and ends.
#[derive(Debug)]
pub struct Capture {
    /// Unbounded by itself; bounded by its use: a few commands per incarnation, and before a service's next
    /// incarnation its last lines were waited for.
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    has_added: bool,
    thread: Option<JoinHandle<()>>,
    /// To see whether anything is left to write: the pipes of each service, and the hand.
    pipes: HashMap<ServiceName, Vec<Arc<OwnedFd>>>,
    hand: OwnedFd,
    tails: Tails,
}

impl Capture {
    /// Starts the thread. First it finishes the batch that a killed core left in `hand`. Signs of life are told to
    /// `signs`.
    ///
    /// # Errors
    /// The thread or its descriptors can't be made; or the mark can't be read.
    pub fn start(logs: Logs, hand: Hand, signs: tokio::sync::mpsc::Sender<Sign>) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let wake = Arc::new(wake);
        let (commands, inbox) = mpsc::channel();
        let (tails, out) = (Tails::default(), hand.out().try_clone()?.into());
        let mut collector = Collector::new(logs, hand, tails.clone(), signs, inbox, Arc::clone(&wake))?;
        let thread = thread::Builder::new().name("capture".into()).spawn(move || collector.run())?;
        Ok(Self {
            commands,
            wake,
            has_added: false,
            thread: Some(thread),
            pipes: HashMap::new(),
            hand: out,
            tails,
        })
    }

    /// The service has had no process in this life of the watchdog: what its file ends in, one of a former life said.
    /// Before its pipes are added.
    pub fn first(&self, service: &ServiceName) {
        let _ = self.commands.send(Command::First { service: service.clone() });
    }

    /// Captures what comes out of `pipe`, the read end, from the next [`begin`](Self::begin) on. Not twice for one
    /// service and stream.
    pub fn add(&mut self, service: &ServiceName, stream: Stream, pipe: OwnedFd) {
        let pipe = Arc::new(pipe);
        self.pipes.entry(service.clone()).or_default().push(Arc::clone(&pipe));
        self.has_added |= self.commands.send(Command::Add { service: service.clone(), stream, pipe }).is_ok();
    }

    /// Begins to read the pipes that were added. Apart from it, because waking the thread for each of a thousand takes
    /// longer than all that is done with them.
    pub fn begin(&mut self) {
        if std::mem::take(&mut self.has_added) {
            self.wake();
        }
    }

    /// Writes what is in the service's pipes and lets go of them. Its files stay.
    pub fn remove(&mut self, service: &ServiceName) {
        self.pipes.remove(service);
        self.command(Command::Remove { service: service.clone() });
    }

    /// Notes in the service's log that a process begins, before anything it prints. Said before it is spawned, and
    /// written with the next batch at the latest: a start does not wait for it.
    pub fn starting(&self, service: &ServiceName, incarnation: Incarnation) {
        let _ = self.commands.send(Command::Starting { service: service.clone(), incarnation });
    }

    /// As [`starting`](Self::starting), for a process that an older core started: that one may have been killed before
    /// it wrote the note. Before its pipes are added, so that all it prints is behind the note.
    pub fn resuming(&self, service: &ServiceName, incarnation: Incarnation) {
        let _ = self.commands.send(Command::Resuming { service: service.clone(), incarnation });
    }

    /// From the next batch on log files are rotated at `size` bytes, and `files` of a service are kept.
    pub fn limit(&self, size: u64, files: u32) {
        self.command(Command::Limit { size, files });
    }

    /// Looks for signs in what this process has printed, and in what it prints from now on, until the next one is
    /// looked at. They are told by [`signs`](Self::start).
    pub fn watch(&self, service: &ServiceName, incarnation: Incarnation, signs: &LogSigns, beat: Duration) {
        let watch = Watch::new(incarnation, signs.clone(), beat);
        self.command(Command::Watch { service: service.clone(), watch });
    }

    /// The last lines of standard error of the incarnation that just ended, at most 20, the oldest first. Its pipes
    /// are drained to the file before. Empty after half a second on a disk that stands still. Cancel safe.
    pub async fn last_lines(&self, service: &ServiceName) -> Vec<String> {
        // A restart waits for this, and most processes die silent.
        if let Some(lines) = self.is_written(service).then(|| self.tails.take(service)).flatten() {
            return lines;
        }
        let (reply, lines) = oneshot::channel();
        self.command(Command::LastLines { service: service.clone(), reply });
        timeout(LAST_LINES_WAIT, lines).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Nothing is in the service's pipes, then nothing in the hand: what went from one to the other in between was
    /// written before it left the hand.
    fn is_written(&self, service: &ServiceName) -> bool {
        let Some(pipes) = self.pipes.get(service) else { return false };
        is_empty(pipes.iter().map(|pipe| pipe.as_fd())) && is_empty([self.hand.as_fd()])
    }

    /// Writes what is in the pipes and ends the thread; waits at most two seconds for it.
    pub async fn stop(&mut self) {
        let (reply, stopped) = oneshot::channel();
        self.command(Command::Stop { reply: Some(reply) });
        if timeout(STOP_WAIT, stopped).await.is_ok()
            && let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_err() {
            // Its panic was printed; services go on, their pipes fill.
            tracing::error!("the thread that captures output has ended");
            return;
        }
        self.wake();
    }

    fn wake(&self) {
        // Fails only on a full counter, which wakes as well.
        let _ = self.wake.write(1);
    }
}

/// Whether none of these pipes holds a byte; no when the kernel does not say.
fn is_empty<'a>(pipes: impl IntoIterator<Item = BorrowedFd<'a>>) -> bool {
    let mut pipes: Vec<_> = pipes.into_iter().map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)).collect();
    let readable = |pipe: &PollFd<'_>| pipe.revents().is_none_or(|seen| seen.contains(PollFlags::POLLIN));
    poll(&mut pipes, PollTimeout::ZERO).is_ok() && !pipes.iter().any(readable)
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.thread.is_some() && self.commands.send(Command::Stop { reply: None }).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}
