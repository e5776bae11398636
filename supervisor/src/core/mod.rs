//! The core: every decision, in one task.
//!
//! ```text
//!  keeper ───────────┐                    ┌─► keeper: spawn, signal, store
//!  sessions (a task each) ─► event loop ──┼─► sessions
//!  operators (a task each) ─┤   roster    ├─► store (durable writes, off the loop)
//!  store, probes, timers ───┘  .step()    └─► waiters: answers to operators
//! ```
//! The [`Core`] is the sole owner of the roster, the lanes and the event log. An input becomes a lifecycle event,
//! the roster's step decides, the note that a new core would read is written, then the commands are performed.
//! What comes of them returns as an input.
//!
//! Absent here: policy (it is in `watchdog-lifecycle`), message bytes (they go past the core; an
//! operator's and dead letters by it, undecoded), blocking writes.

mod answer;
pub(crate) mod audit;
pub(crate) mod build;
mod candidate;
mod cgroups;
pub(crate) mod control;
mod dead;
mod event_loop;
pub(crate) mod events;
mod exits;
mod fit;
mod from_service;
mod hand_over;
mod host;
mod in_force;
mod instances;
mod introduce;
mod keeper_link;
mod lanes;
mod launch;
mod limits;
mod logs;
mod note;
mod notified;
pub(crate) mod registration;
mod reload;
mod revoke;
mod safe;
mod send;
mod session;
mod settings;
mod slack;
mod spawn;
mod state;
mod status;
mod stored;
mod takeover;
mod unfit;
mod upgrade;
mod usage;
mod verbs;
mod waiting;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use watchdog_lifecycle::{Event, Fact, Haste, Moment, Roster, WallTime, Wanted};
use watchdog_protocol::control::Failure;
use watchdog_protocol::session::ToService;
use watchdog_protocol::{Incarnation, Manifest, RequestId, ServiceName};
use watchdog_seqpacket::clock;

use crate::capture::Capture;
use crate::config::{Config, ServiceSpec};
use crate::notify::Notified;
use crate::probe::Probes;
use crate::processes::cgroup::{Cgroup, CgroupTree};
use crate::store::writer::{ChangeNumber, Writer};
use crate::usage::Meter;
use events::EventLog;
use exits::Ending;
use keeper_link::{KeeperLink, LinkError};
use lanes::Lanes;
use note::Note;
use session::{FromSession, Session, SessionEvent};
use upgrade::Upgrade;
use waiting::Waiter;

pub(crate) use in_force::InForce;
pub(crate) use takeover::{Extent, main};

/// Messages of sessions that wait for the event loop. A full one makes the sessions' tasks wait, and with them the
/// services that send.
const SESSION_INBOX: usize = 256;

/// Notifications that wait for the event loop. Behind a full one they wait in their sockets.
const NOTIFICATIONS: usize = 64;

/// Signs in what programs print that wait for the event loop. Behind a full queue the capture waits: they are few, one a
/// start and a beat now and then.
const SIGNS: usize = 64;

/// Calls that wait for the event loop: a burst of `status`. A full one delays operators, never services.
const CONTROL_INBOX: usize = 64;

/// Why the core can't go on. It ends, and the keeper starts another.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    #[error("lost the keeper")]
    Keeper(#[source] LinkError),
    #[error("cannot read /proc")]
    Proc(#[source] io::Error),
    #[error("cannot write the note of `{service}`")]
    Note { service: ServiceName, source: io::Error },
    #[error("cannot write the note of the groups")]
    GroupsNote { source: io::Error },
    #[error("cannot start: {step}")]
    Start { step: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// The core's whole memory.
#[derive(Debug)]
pub(crate) struct Core {
    config: Config,
    roster: Roster,
    /// Boxed: the nodes of the map are half empty.
    entries: BTreeMap<ServiceName, Box<Entry>>,
    lanes: Lanes,
    events: EventLog,
    audit: audit::Audit,
    keeper: KeeperLink,
    keeper_hello: watchdog_keeper::protocol::Hello,
    /// The keeper's children that are no leaders, as last told.
    orphans: Vec<u32>,
    /// Services that were killed and are not known to be gone, with the process that was meant.
    clearing: BTreeMap<ServiceName, Incarnation>,
    capture: Capture,
    store: Writer,
    tasks: JoinSet<()>,
    describing: JoinSet<registration::Described>,
    comparisons: fit::Comparisons,
    probes: Probes,
    meter: Meter,
    cgroups: Option<CgroupTree>,
    /// Until all that may be wanted are there.
    making_cgroups: Option<JoinHandle<()>>,
    limiting: limits::Limiting,
    /// The newest end of a write, by file.
    stored: BTreeMap<PathBuf, (ChangeNumber, Result<(), String>)>,
    from_sessions: mpsc::Sender<FromSession>,
    from_notifications: mpsc::Sender<Notified>,
    /// The tasks that listen to the sockets of programs that notify.
    listening: BTreeMap<ServiceName, AbortHandle>,
    /// Facts that performing a command brought up, for the next step.
    pending: VecDeque<(ServiceName, Event)>,
    /// Ends whose notes are not written yet.
    acknowledge: Vec<(ServiceName, Incarnation)>,
    slack: slack::Slack,
    /// This turn asked the keeper for a process.
    is_starting: bool,
    waiters: Vec<Waiter>,
    /// To an operator's messages.
    answers: lanes::answers::Answers,
    answered: answer::Answered,
    /// What this core answered of dead letters that were put back or dropped.
    deeds: VecDeque<(RequestId, Result<String, Failure>)>,
    upgrade: Upgrade,
    reloads: reload::Reloads,
    groups_note: Note,
    shutdown: Shutdown,
    shutdown_asked: Option<Haste>,
    /// Until when operators are let in.
    hours: watch::Sender<control::Hours>,
    notes: Vec<String>,
}

/// How far the end of the whole watchdog has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    No,
    /// Services are being stopped.
    Stopping,
}

/// All the core knows of one service beside its lifecycle.
#[derive(Debug)]
struct Entry {
    spec: ServiceSpec,
    /// What it said of itself; `None` for a program.
    manifest: Option<Box<Manifest>>,
    settings: Option<Box<settings::Settings>>,
    state: Option<Box<state::State>>,
    note: Note,
    /// Made for the first start, and given to each process; so is the cgroup.
    outlets: Option<Outlets>,
    cgroup: Option<Cgroup>,
    /// The cgroup was killed as a whole, or may have been by an older core.
    cgroup_worn: bool,
    session: Option<Session>,
    process: Option<Process>,
    /// The incarnation the keeper was asked for and has not answered yet: it may live already.
    spawning: Option<Incarnation>,
    /// What it said before the keeper told that it lives.
    early: Vec<SessionEvent>,
    /// When it was spawned.
    started: Option<Moment>,
    /// The pid of the newest process, also after its end: its session's number.
    last_pid: Option<u32>,
    ending: Option<Ending>,
    /// What was seen at the last sign of life it missed.
    strain: Option<Box<host::Seen>>,
    last_word: Option<String>,
    notifications: notified::Notifications,
    registered: Registered,
    /// Why it is not started, as a core found when it began.
    unfit: Option<unfit::Unfit>,
    /// How it is configured, from its next process on.
    next: Option<Box<reload::Next>>,
    /// It is in no configuration any more, and goes when nothing of it is left.
    leaving: bool,
    /// Who gets all it has then.
    heir: Option<reload::Heir>,
    /// A digest of the files its process was started from; 0: not known.
    built: u64,
    /// What is, or will be, on disk of what the operator wants.
    kept: Option<Kept>,
    kept_change: Option<ChangeNumber>,
    /// `None`: it has none, and never had.
    limits: Option<Box<limits::Held>>,
    still: limits::Still,
}

/// Where a service's output goes in: the write ends of pipes that are captured.
#[derive(Debug)]
struct Outlets {
    output: OwnedFd,
    errors: OwnedFd,
}

/// What outlives a restart of the watchdog, beside settings and state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    wanted: Wanted,
    incarnation: Incarnation,
}

/// Where a service's table comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registered {
    /// `watchdog.toml`.
    Config,
    /// `watchdog register`.
    ByOperator,
}

/// A leader that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    incarnation: Incarnation,
    pid: u32,
}

/// Now, by the clock the lifecycle counts in.
pub(crate) fn now() -> Moment {
    Moment::from_nanos(clock::boottime_ns())
}

/// The time as people read it.
pub(crate) fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    WallTime::from_micros(u64::try_from(since).unwrap_or(u64::MAX))
}

/// When a process started, from the kernel's clock ticks since boot.
fn started_at(ticks: u64) -> Moment {
    // USER_HZ, the same on every architecture Rust knows.
    const TICK: u64 = 1_000_000_000 / 100;
    Moment::from_nanos(ticks.saturating_mul(TICK))
}

impl Core {
    fn entry(&self, service: &ServiceName) -> &Entry {
        self.entries.get(service).expect("the roster and the entries hold the same names")
    }

    fn entry_mut(&mut self, service: &ServiceName) -> &mut Entry {
        self.entries.get_mut(service).expect("the roster and the entries hold the same names")
    }

    /// Something happened to a process: decided on with the next step.
    fn fact(&mut self, service: &ServiceName, incarnation: Incarnation, fact: Fact) {
        self.pending.push_back((service.clone(), Event::Fact { incarnation, fact }));
    }

    /// Says something to a service, if it has a session. One that does not read its session broke the protocol.
    fn tell(&mut self, service: &ServiceName, message: &ToService, beside: Vec<OwnedFd>) {
        let Some(session) = self.entries.get(service).and_then(|entry| entry.session.as_ref()) else {
            return;
        };
        if let Err(unread) = session.send(message, beside) {
            let incarnation = session.incarnation();
            self.fact(service, incarnation, Fact::ProtocolBroken { reason: unread.to_string() });
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
