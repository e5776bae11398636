//! [`run`]: from `main` to the exit code.

use std::any::TypeId;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;
use watchdog_protocol::manifest::{
    DESCRIBE, MANIFEST_FORMAT, Manifest, SHOW_STATE, StateManifest, UNREADABLE_STATE,
};
use watchdog_protocol::record::LOGGING;
use watchdog_protocol::session::{FromService, HAS_LOGGING, SESSION, StateOrigin, Verdict, encode};
use watchdog_protocol::{Revision, Sequence};
use watchdog_seqpacket::{AsyncSeqpacket, InheritedError, Seqpacket, inherited};

use crate::context::{About, Context};
use crate::lanes::Lanes;
use crate::log::{Log, spans};
use crate::message::{self, Message};
use crate::session::ledger::Ledger;
use crate::session::offers::Offers;
use crate::session::opening::{self, Opening, OpeningError, StoredState};
use crate::session::saves::Saves;
use crate::session::{Link, Session, SessionEnd, chain};
use crate::settings::{self, Settings, SettingsReader};
use crate::state::{self, State, StateHandler};

/// The variable that filters what the default subscriber writes.
const LOG: &str = "WATCHDOG_LOG";

/// How long a process that ends waits for room for the last of its records.
const LAST_RECORDS: Duration = Duration::from_secs(1);

/// Any error, with its causes, that ends a service: `?` makes one of whatever is an error.
///
/// It is no [`Error`](std::error::Error) itself, which is what lets it be made of all of them.
pub struct ServiceError(Box<dyn std::error::Error + Send + Sync>);

impl ServiceError {
    /// An error that is only a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ServiceError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// The error and all its causes, in one line.
impl fmt::Display for ServiceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&chain(&*self.0))
    }
}

impl fmt::Debug for ServiceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// How a service's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It returned `Ok(())`.
    Done = 0,
    /// It returned an error.
    Failed = 1,
    /// Its stored state can't be read by this program.
    State = UNREADABLE_STATE,
    /// The watchdog and this program do not understand each other.
    Protocol = 76,
    /// It was not started by a watchdog, or its settings can't be used.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs a service: all of a `main`, and its first line.
///
/// Started by the watchdog, it opens the session, reads settings and state, and polls `service` on a runtime of
/// this one thread until it returns. What `service` returned goes to the watchdog, and decides the exit code:
///
/// | code | |
/// |---|---|
/// | 0 | `service` returned `Ok(())` |
/// | 1 | it returned an error, which standard error and the watchdog are told with all its causes |
/// | 65 | the stored state is of a newer version, or can't be migrated or read; it is left as it is |
/// | 76 | program and watchdog speak different versions of the session, or one broke it |
/// | 78 | not started by a watchdog; or the settings are not of type `S`, or were refused before ready |
/// | 101 | `service` panicked |
///
/// When the watchdog is gone, `next()` gives `None`, and a service that does not return within its stop timeout
/// is aborted.
///
/// With `WATCHDOG_DESCRIBE=1` in its environment the program prints what it is, its manifest, and does nothing
/// else. With `WATCHDOG_SHOW_STATE=VERSION` it reads a stored state of that version from standard input, as it would
/// at a start, and prints it as JSON, and nothing else. What `tracing` says goes to the service `logging`, or to standard error when there is none ([`log`](crate::log));
/// unless `main` has set a subscriber.
///
/// It takes what the environment tells, for which the process must have no other thread yet.
pub fn run<S, T, M, F>(service: F) -> ExitCode
where
    S: Settings,
    T: State,
    M: Message,
    F: AsyncFnOnce(Context<S, T, M>) -> Result<(), ServiceError>,
{
    if std::env::var_os(DESCRIBE).is_some_and(|value| value == "1") {
        return describe::<S, T, M>().into();
    }
    if let Some(version) = std::env::var_os(SHOW_STATE) {
        return show_state::<T>(&version).into();
    }
    let exit = match inherited(SESSION) {
        Ok(socket) => start(socket, service),
        Err(InheritedError::NotSet { .. }) => {
            complain(&not_started_by_a_watchdog());
            Exit::Configuration
        }
        Err(error) => {
            complain(&chain(&error));
            match error {
                InheritedError::Threads { .. } | InheritedError::Count(_) => Exit::Failed,
                _ => Exit::Protocol,
            }
        }
    };
    exit.into()
}

fn not_started_by_a_watchdog() -> String {
    let program = std::env::args().next().unwrap_or_else(|| "PROGRAM".into());
    format!(
        "this program is a service of the watchdog, and was not started by one\n  \
         hint: name it as `exec` of a `[service.NAME]` table in watchdog.toml, then: watchdog run\n  \
         hint: what it takes and keeps: {DESCRIBE}=1 {program}"
    )
}

/// Prints to standard error by itself: nobody may have asked for the events of `tracing`.
fn complain(text: &str) {
    // There is no other place to tell.
    let _ = writeln!(io::stderr(), "error: {text}");
}

fn describe<S: Settings, T: State, M: Message>() -> Exit {
    let text = match manifest::<S, T, M>() {
        Ok(manifest) => manifest.to_json(),
        Err(error) => {
            complain(&format!("the initial state can't be written in postcard: {error}"));
            return Exit::State;
        }
    };
    print("the manifest", &text)
}

/// Prints all of what this process was run for.
fn print(what: &str, text: &str) -> Exit {
    let mut out = io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&format!("cannot write {what} to standard output: {error}"));
            Exit::Failed
        }
    }
}

/// The stored state on standard input, as JSON on standard output.
fn show_state<T: State>(version: &OsStr) -> Exit {
    if is_none::<T>() {
        complain("this program has no state");
        return Exit::Configuration;
    }
    let Some(version) = version.to_str().and_then(|version| version.parse().ok()) else {
        complain(&format!("{SHOW_STATE}={} is no version of a state", version.display()));
        return Exit::Configuration;
    };
    let mut bytes = Vec::new();
    if let Err(error) = io::stdin().lock().read_to_end(&mut bytes) {
        complain(&format!("cannot read the state from standard input: {error}"));
        return Exit::Failed;
    }
    let stored = StoredState { origin: StateOrigin::Restored, sequence: Sequence::NONE, version, bytes };
    let value: T = match state::restore(&stored) {
        Ok(value) => value,
        Err(error) => {
            complain(&chain(&error));
            return Exit::State;
        }
    };
    match state::to_json(&value) {
        Ok(text) => print("the state", &text),
        Err(error) => {
            complain(&chain(&error));
            Exit::Failed
        }
    }
}

fn manifest<S: Settings, T: State, M: Message>() -> postcard::Result<Manifest> {
    let settings = (!is_none::<S>()).then(|| schemars::schema_for!(S).as_value().to_string());
    let state = if is_none::<T>() {
        None
    } else {
        Some(StateManifest { version: T::VERSION, initial: postcard::to_stdvec(&T::default())? })
    };
    let (contract, layouts) = (M::contract(), message::layouts::<M>());
    Ok(Manifest { format: MANIFEST_FORMAT, settings, state, contract, layouts })
}

/// `()` is the type of what a service does not have.
pub(crate) fn is_none<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<()>()
}

/// Why a process ends before its service runs.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot describe the initial state")]
    Manifest(#[source] postcard::Error),
    #[error("no session")]
    Opening(#[source] OpeningError),
    #[error("settings of revision {revision}")]
    Settings { revision: Revision, source: settings::SettingsError },
    #[error("the watchdog gave no {what}: this program has changed since it was described")]
    Missing { what: &'static str },
    #[error(transparent)]
    State(state::RestoreError),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl StartError {
    fn exit(&self) -> Exit {
        match self {
            Self::Opening(OpeningError::Gone) | Self::Runtime(_) => Exit::Failed,
            Self::Opening(_) => Exit::Protocol,
            Self::Manifest(_) | Self::State(_) => Exit::State,
            Self::Settings { .. } | Self::Missing { .. } => Exit::Configuration,
        }
    }
}

fn start<S, T, M, F>(socket: Seqpacket, service: F) -> Exit
where
    S: Settings,
    T: State,
    M: Message,
    F: AsyncFnOnce(Context<S, T, M>) -> Result<(), ServiceError>,
{
    let log = install_log();
    let error = match prepare::<S, T, M>(&socket) {
        Ok(prepared) => match runtime() {
            Ok(runtime) => return runtime.block_on(live(socket, prepared, log.clone(), service)),
            Err(error) => StartError::Runtime(error),
        },
        Err(error) => error,
    };
    if let Some(log) = log {
        log.keep_to_standard_error();
    }
    let reason = chain(&error);
    complain(&reason);
    last_word(&socket, &error, reason);
    error.exit()
}

/// `None`: main has set a subscriber of its own.
fn install_log() -> Option<Log> {
    const DEFAULT: &str = "info";
    let mut directives = DEFAULT.to_owned();
    if let Ok(text) = std::env::var(LOG) {
        match EnvFilter::try_new(&text) {
            Ok(_) => directives = text,
            Err(error) => complain(&format!("{LOG}={text:?} is no filter ({error}); `{DEFAULT}` is used")),
        }
    }
    Log::install(&directives, std::env::var_os(HAS_LOGGING).is_some())
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What the welcome became.
struct Prepared<S, T> {
    opening: Opening,
    /// The revision the settings are of; `None` without settings.
    revision: Option<Revision>,
    settings: S,
    state: T,
    origin: StateOrigin,
    sequence: Sequence,
}

fn prepare<S: Settings, T: State, M: Message>(socket: &Seqpacket) -> Result<Prepared<S, T>, StartError> {
    let manifest = manifest::<S, T, M>().map_err(StartError::Manifest)?;
    let mut opening = opening::open(socket, manifest.hash()).map_err(StartError::Opening)?;
    let (revision, settings) = if is_none::<S>() {
        (None, settings::parse(b"null").expect("() is null"))
    } else {
        let (revision, json) = opening.settings.take().ok_or(StartError::Missing { what: "settings" })?;
        let settings = settings::parse(&json).map_err(|source| StartError::Settings { revision, source })?;
        (Some(revision), settings)
    };
    let stored = if is_none::<T>() {
        StoredState::fresh()
    } else {
        opening.state.take().ok_or(StartError::Missing { what: "state" })?
    };
    let state = state::restore(&stored).map_err(StartError::State)?;
    Ok(Prepared { opening, revision, settings, state, origin: stored.origin, sequence: stored.sequence })
}

/// Tells the watchdog why this process ends before its service runs, as far as it listens.
fn last_word(socket: &Seqpacket, error: &StartError, reason: String) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut words = Vec::new();
    if let StartError::Settings { revision, .. } = error {
        let verdict = Verdict::Refused { reason: reason.clone() };
        words.push(FromService::Verdict { revision: *revision, verdict });
    }
    words.push(FromService::LastWord { reason });
    for word in words {
        if socket.send_by(&[IoSlice::new(&encode(&word))], &[], Instant::now() + PATIENCE).is_err() {
            return;
        }
    }
}

async fn live<S, T, M, F>(socket: Seqpacket, prepared: Prepared<S, T>, log: Option<Log>, service: F) -> Exit
where
    S: Settings,
    T: State,
    M: Message,
    F: AsyncFnOnce(Context<S, T, M>) -> Result<(), ServiceError>,
{
    let Opening { welcome, .. } = prepared.opening;
    let stop_timeout = Duration::from_millis(welcome.stop_timeout_ms);
    let socket = match AsyncSeqpacket::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            complain(&format!("cannot watch the session: {error}"));
            return Exit::Failed;
        }
    };
    let link = Link::new(Ledger::new(
        Offers::starting_with(prepared.revision),
        Saves::starting_from(prepared.sequence),
    ));
    let settings = SettingsReader::new(link.clone(), prepared.settings);
    let state = StateHandler::new(link.clone(), prepared.state, prepared.origin, prepared.sequence);
    let max_message = usize::try_from(welcome.max_message).unwrap_or(usize::MAX);
    let lanes = Lanes::new(max_message);
    let session = Session {
        socket,
        link: link.clone(),
        state: state.snapshot(),
        lanes: lanes.clone(),
        max_message,
        heartbeat: welcome.heartbeat_ms.map(Duration::from_millis),
    };
    let about = About {
        service: welcome.service,
        incarnation: welcome.incarnation,
        is_granted: !welcome.grant.is_empty(),
    };
    let incarnation = about.incarnation;
    let is_logging = about.service.as_str() == LOGGING;
    let context = Context::new(about, link.clone(), settings.clone(), state, lanes.clone());

    let mut tending = JoinSet::new();
    let ledger = link.clone();
    tending.spawn(lanes.clone().tend(move |lane| ledger.write(|ledger| ledger.lane_drained(lane))));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if session.run().await.is_some() {
            abort_after(stop_timeout);
        }
    });
    let log = log.filter(|log| {
        if is_logging {
            log.keep_to_standard_error();
        }
        !is_logging
    });
    if let Some(log) = &log {
        tending.spawn(log.clone().tend(link.clone(), lanes.clone(), incarnation.get()));
    }
    let service = async {
        if let Some(log) = &log {
            log.decided().await;
        }
        spans::handled(service(context)).await
    };
    let result = tokio::select! {
        result = service => result,
        never = crash(&mut tasks) => match never {},
        never = crash(&mut tending) => match never {},
    };
    if result.is_ok() {
        // A service that ends in good order has handled what it got, as if it had asked for more.
        settings.accept();
        lanes.finish();
    }
    let reason = result.as_ref().err().map(ToString::to_string);
    if let Some(reason) = &reason {
        complain(reason);
    }
    link.write(|ledger| ledger.close(reason));
    // The watchdog kills after this time anyway; what is not said by then is not said.
    let _ = tokio::time::timeout(stop_timeout, async {
        lanes.flushed().await;
        tasks.join_next().await;
    })
    .await;
    if let Some(log) = &log {
        log.close(LAST_RECORDS.min(stop_timeout / 2));
    }
    link.read(|ledger| {
        if let Some(error) = ledger.end().and_then(SessionEnd::error) {
            if result.is_ok() {
                complain(&error.to_string());
            }
            Exit::Protocol
        } else if ledger.settings.refused_initial().is_some() {
            Exit::Configuration
        } else if result.is_err() {
            Exit::Failed
        } else {
            Exit::Done
        }
    })
}

/// Waits for a task to panic, and goes on with its panic: without it the service would be deaf.
async fn crash(tasks: &mut JoinSet<()>) -> Infallible {
    match tasks.join_next().await {
        Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        Some(Ok(())) | None => std::future::pending().await,
    }
}

/// Ends this process when it does not end by itself: nobody else is there to do it. By a signal, which no
/// destructor can keep up.
fn abort_after(stop_timeout: Duration) {
    let timer = move || {
        std::thread::sleep(stop_timeout);
        complain("the watchdog is gone, and the service did not end within its stop timeout");
        std::process::abort();
    };
    if let Err(error) = std::thread::Builder::new().name("watchdog-gone".into()).spawn(timer) {
        complain(&format!("the watchdog is gone, and no thread can wait for the service to end: {error}"));
    }
}

#[cfg(test)]
pub(crate) mod fake_core;
#[cfg(test)]
mod tests;
