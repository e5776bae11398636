//! An output that is asked for metrics: Prometheus reads them as text from a port of the loopback.
//!
//! ```text
//! Prometheus ── GET /metrics ─► listener ─► connection, a task ── asks ─► gatherer        one thread of its own
//! ```
//! - A connection is one request, and has so long and no longer; so many are served at once, and more wait in the
//!   kernel. Whoever connects harms nobody: what is gathered within a second is one gathering.
//! - A port that is taken is tried again, and the output says so meanwhile.

mod answer;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::Dispatch;

use crate::metrics::Source;
use crate::output::{Backoff, Board};

/// How much of this service those who connect may have.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Served at once.
    connections: usize,
    /// For the head of a request.
    head: Duration,
    /// From the connection to the last byte of the answer.
    all: Duration,
}

/// More than those who look, and longer than the watchdog's core takes to be replaced.
const LIMITS: Limits = Limits { connections: 16, head: Duration::from_secs(5), all: Duration::from_secs(15) };

/// What is wrong, in words for an operator.
#[derive(Debug)]
struct Trouble {
    words: Mutex<Words>,
    board: Arc<Board>,
}

#[derive(Debug, Default)]
struct Words {
    /// Why nobody can connect.
    listening: Option<String>,
    /// What the grant lacks.
    lack: Option<String>,
}

/// Metrics at a port.
#[derive(Debug)]
pub(crate) struct Scraped {
    trouble: Arc<Trouble>,
    /// Where; `None`: nowhere any more.
    listen: watch::Sender<Option<SocketAddr>>,
    thread: JoinHandle<()>,
}

impl Scraped {
    /// On a thread of its own. It tells the board when what is wrong may be something else.
    pub(crate) fn start(listen: SocketAddr, board: &Arc<Board>, source: &Source) -> io::Result<Self> {
        Self::start_within(LIMITS, listen, board, source)
    }

    fn start_within(
        limits: Limits,
        listen: SocketAddr,
        board: &Arc<Board>,
        source: &Source,
    ) -> io::Result<Self> {
        let trouble = Arc::new(Trouble { words: Mutex::default(), board: board.clone() });
        let (listen, at) = watch::channel(Some(listen));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = Server { limits, trouble: trouble.clone(), source: source.clone() };
        let thread = thread::Builder::new().name("prometheus".to_owned()).spawn(move || {
            // What hyper logs goes nowhere: a service that tells of its readers would have one more thing to tell.
            let _quiet = tracing::dispatcher::set_default(&Dispatch::none());
            runtime.block_on(server.serve(at));
        })?;
        Ok(Self { trouble, listen, thread })
    }

    /// From now on there.
    pub(crate) fn configure(&self, listen: SocketAddr) {
        self.listen.send_replace(Some(listen));
    }

    /// Nobody is served any more.
    pub(crate) fn stop(&self) {
        self.listen.send_replace(None);
    }

    /// Whether it has come to its end after a stop.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// What is wrong with it.
    pub(crate) fn trouble(&self) -> Option<String> {
        let words = self.trouble.words.lock().expect("nobody panics while holding it");
        words.listening.clone().or_else(|| words.lack.clone())
    }
}

impl Trouble {
    fn set(&self, change: impl FnOnce(&mut Words)) {
        change(&mut self.words.lock().expect("nobody panics while holding it"));
        self.board.tell_change();
    }

    fn lacks(&self, lack: Option<String>) {
        let known = self.words.lock().expect("nobody panics while holding it").lack.clone();
        if known != lack {
            self.set(|words| words.lack = lack);
        }
    }
}

/// Who serves.
#[derive(Debug, Clone)]
struct Server {
    limits: Limits,
    trouble: Arc<Trouble>,
    source: Source,
}

impl Server {
    /// At one address after the other, until there is none.
    async fn serve(self, mut listen: watch::Receiver<Option<SocketAddr>>) {
        let mut backoff = Backoff::default();
        loop {
            let Some(address) = *listen.borrow_and_update() else { return };
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    backoff.reset();
                    self.trouble.set(|words| words.listening = None);
                    self.accept(&listener, &mut listen).await;
                }
                Err(error) => {
                    let why = format!("cannot listen at {address}: {}", error.kind());
                    self.trouble.set(|words| words.listening = Some(why));
                    tokio::select! {
                        () = sleep(backoff.pause()) => {}
                        _ = listen.changed() => backoff.reset(),
                    }
                }
            }
        }
    }

    /// As long as it is to be at this address. With it go its connections.
    async fn accept(&self, listener: &TcpListener, listen: &mut watch::Receiver<Option<SocketAddr>>) {
        /// Too many files are open, which may pass.
        const AGAIN: Duration = Duration::from_millis(100);
        let mut connections = JoinSet::new();
        // What the grant lacks is known before anybody asks.
        connections.spawn(self.clone().look());
        loop {
            tokio::select! {
                found = listener.accept(), if connections.len() < self.limits.connections => match found {
                    Ok((stream, _)) => drop(connections.spawn(self.clone().answer(stream))),
                    Err(_) => sleep(AGAIN).await,
                },
                Some(_) = connections.join_next() => {}
                _ = listen.changed() => return,
            }
        }
    }

    async fn look(self) {
        if let Ok(found) = self.source.gather().await {
            self.trouble.lacks(found.lack());
        }
    }

    async fn answer(self, stream: TcpStream) {
        let service =
            service_fn(|request| answer::to(request, &self.source, |found| self.trouble.lacks(found.lack())));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // Who asked may be gone, or slow, or speak something else.
        let _ = timeout(self.limits.all, connection).await;
    }
}
