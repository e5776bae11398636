//! What an operator is shown: computed when asked for, never stored twice. The same types are the `--json`
//! output; ages and spans are milliseconds, sizes bytes, propagation nanoseconds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::session::{Health, Progress};
use crate::{Incarnation, LaneEpoch, Revision, Sequence, ServiceName};

/// The version of the `--json` outputs. Fields are added under the same number; one that changes its meaning
/// or goes away takes the next.
pub const STATUS_VERSION: u32 = 1;

/// Everything `watchdog status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_VERSION`].
    pub version: u32,
    /// The watchdog itself.
    pub watchdog: WatchdogStatus,
    /// Services, programs and tasks, by name.
    pub services: Vec<ServiceStatus>,
    /// The groups that these are in, by name.
    pub groups: Vec<GroupStatus>,
}

/// Services that restart together, and fail as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: ServiceName,
    /// Whom a failure takes along: `one-for-one`, `rest-for-one` or `one-for-all`.
    pub strategy: String,
    /// In the order of their starts.
    pub members: Vec<ServiceName>,
    /// Failures that still count against the limit.
    pub failures: u64,
    /// How many are borne; `None`: any number.
    pub limit: Option<LimitStatus>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// How many failures are borne within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// So many; one more is too much.
    pub failures: u32,
    /// Within this time.
    pub within_ms: u64,
}

/// The watchdog itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchdogStatus {
    /// The keeper's process.
    pub keeper_pid: u32,
    /// The core's process.
    pub core_pid: u32,
    /// How many cores there have been since the keeper started, this one included.
    pub cores: u64,
    /// Since the keeper started.
    pub up_ms: u64,
    /// The configuration in force.
    pub config: String,
    /// Folder of settings and states.
    pub state: String,
    /// Folder of the control socket.
    pub runtime: String,
    /// Folder of the log files.
    pub logs: String,
    /// It was asked to shut down.
    pub stopping: bool,
    /// What is worse than it should be, in words; empty when all is well.
    pub notes: Vec<String>,
}

/// SDK service or plain program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// Built on the SDK.
    Service,
    /// Anything else.
    Program,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WantedStatus {
    /// Running.
    Up,
    /// Not running, whoever else may need it.
    Down,
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseStatus {
    /// No process, none planned.
    Stopped,
    /// A process that is not ready yet.
    Starting,
    /// At work.
    Ready,
    /// Asked to end.
    Stopping,
    /// Waiting for the next try.
    Backoff,
    /// Given up until `reset` or `start`.
    Failed,
    /// Ended in good order and done.
    Completed,
}

impl PhaseStatus {
    /// As shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

/// One service or program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// What it is.
    pub kind: ServiceKind,
    /// It is a task: it runs once, to its end, and is at work in phase `ready`.
    pub task: bool,
    /// What the operator wants.
    pub wanted: WantedStatus,
    /// Who wanted it down, and why; `None` when it is wanted up.
    pub wanted_by: Option<String>,
    /// Where it is.
    pub phase: PhaseStatus,
    /// In this phase for so long.
    pub phase_ms: u64,
    /// The services it requires, as configured.
    pub requires: Vec<ServiceName>,
    /// The services it waits for.
    pub blocked_by: Vec<ServiceName>,
    /// Of a start or stop under way.
    pub progress: Option<Progress>,
    /// What the process says that it does, by a notification.
    pub says: Option<String>,
    /// The level it raised.
    pub health: Health,
    /// The current or last process, [`Incarnation::NONE`] when there was none.
    pub incarnation: Incarnation,
    /// The process.
    pub pid: Option<u32>,
    /// How long the process has been up.
    pub uptime_ms: Option<u64>,
    /// Processes started since the keeper started.
    pub starts: u64,
    /// The last end.
    pub last_end: Option<EndStatus>,
    /// Until the next try, in backoff.
    pub next_try_ms: Option<u64>,
    /// Resident memory of all its processes.
    pub memory: Option<u64>,
    /// Processor time of all its processes, and of their children that have ended.
    pub cpu_ms: Option<u64>,
    /// Descriptors that all its processes have open; `None` also where that may not be read.
    pub descriptors: Option<u64>,
    /// `None` when it has none.
    pub settings: Option<SettingsStatus>,
    /// `None` when it has none.
    pub state: Option<StateStatus>,
    /// Services that hold an intercom handle to it.
    pub handles: u64,
    /// Messages handed to it, over all lanes and incarnations.
    pub messages_in: u64,
    /// Messages it sent, over all lanes and incarnations.
    pub messages_out: u64,
    /// Messages that wait for it.
    pub queued: u64,
    /// Processes of an ended incarnation that could not be killed.
    pub survivors: Vec<u32>,
    /// The configuration's file says something else of it than is in force, or its program was built anew since its
    /// process started: `watchdog diff` tells what.
    pub drift: bool,
    /// All its processes stand still, until `thaw` or their end.
    pub frozen: bool,
}

/// Why and when a process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndStatus {
    /// Which process.
    pub incarnation: Incarnation,
    /// The cause's name: `exit`, `signal`, `operator`, …
    pub cause: String,
    /// The cause in words.
    pub why: String,
    /// How long ago.
    pub ago_ms: u64,
    /// The last lines of its standard error.
    pub last_lines: Vec<String>,
}

/// Settings at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsStatus {
    /// The newest revision.
    pub revision: Revision,
    /// What became of it; `Refused` when it is in force with the values of before, since the change was not taken.
    pub verdict: VerdictStatus,
    /// The service's reason for the last refusal, if the newest revision came of one.
    pub refused: Option<String>,
    /// Changes that wait for the verdict.
    pub waiting: u64,
}

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictStatus {
    /// Not yet taken: the service is down or has not answered.
    Pending,
    /// In force.
    Accepted,
    /// Not taken.
    Refused,
}

/// State at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateStatus {
    /// The newest known.
    pub sequence: Sequence,
    /// The newest on disk.
    pub synced: Sequence,
    /// Its version.
    pub version: u32,
    /// Its size.
    pub bytes: u64,
    /// Since it was written to disk; `None` when it never was.
    pub age_ms: Option<u64>,
    /// Why the last write failed, until one succeeds.
    pub failed: Option<String>,
}

/// The lanes of one inbox: what `watchdog intercoms` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboxStatus {
    /// Whose inbox.
    pub service: ServiceName,
    /// Services that hold a handle to it.
    pub handles: u64,
    /// One a sender.
    pub lanes: Vec<LaneStatus>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Names the lane's life.
    pub lane: LaneEpoch,
    /// Who sends.
    pub sender: ServiceName,
    /// Who receives.
    pub receiver: ServiceName,
    /// Messages that wait.
    pub queued: u64,
    /// The receiver is down and the watchdog holds the lane, for so long.
    pub held_ms: Option<u64>,
    /// How often it was handed to a process of the receiver.
    pub handed_over: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages handed to the handler for the first time.
    pub handled: u64,
    /// Messages handed over again after a death.
    pub redelivered: u64,
    /// Times the lane was full for a sender.
    pub full: u64,
    /// Messages handled a second, since the lane was made.
    pub rate: f64,
    /// Since it was made.
    pub age_ms: u64,
    /// From accepted to handed to the handler.
    pub propagation: PropagationStatus,
    /// Where the two contracts part.
    pub mismatch: Option<String>,
    /// Its sender may send no more: what is queued is served, and then the lane goes.
    pub is_retired: bool,
    /// What is in it, in bytes as the kernel charges them, with what lies beside packets.
    pub used: u64,
    /// What it holds.
    pub size: u64,
}

/// The propagation time of a lane: accepted by `tell` or `ask` until handed to the handler, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PropagationStatus {
    /// Messages measured.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample variance (n − 1), in square nanoseconds.
    pub variance: f64,
    /// Its square root.
    pub deviation: f64,
    /// Half are faster.
    pub p50: u64,
    /// 99 of 100 are faster.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
    /// How many took how long, the fastest first; where there are none is left out.
    pub buckets: Vec<BucketStatus>,
}

/// Messages whose propagation times are between two powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketStatus {
    /// They took less nanoseconds than this, and no less than half of it; the first, of 64, has all that were faster.
    pub below: u64,
    /// So many.
    pub count: u64,
}

/// One entry of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its place in the log; grows by one.
    pub number: u64,
    /// Wall clock, microseconds since 1970, UTC.
    pub at_us: u64,
    /// Whom it is about; `None`: the watchdog itself.
    pub service: Option<ServiceName>,
    /// The process it is about.
    pub incarnation: Option<Incarnation>,
    /// What happened, a short fixed word: `started`, `ready`, `ended`, `settings`, …
    pub what: String,
    /// The cause's name, where there is one.
    pub cause: Option<String>,
    /// The whole of it in words.
    pub text: String,
    /// Settings revision, where it is about one.
    pub revision: Option<Revision>,
    /// State sequence, where it is about one.
    pub sequence: Option<Sequence>,
    /// What it rests on, as values; `None` where the text is all, and in entries of a build that had none.
    #[serde(default)]
    pub evidence: Option<Box<Evidence>>,
}

/// What an entry of the event log rests on. What does not apply is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Who asked for it or did it, in words.
    pub by: Option<String>,
    /// What was asked for: `start`, `stop`, `kill`, `restart` or `reset`.
    pub verb: Option<String>,
    /// What is required and not there: the service at the end of the chain, not the nearest one.
    pub on: Option<ServiceName>,
    /// How the process ended, as the kernel tells, in words.
    pub exit: Option<String>,
    /// The signal that was sent or that ended the process, by its number.
    pub signal: Option<i32>,
    /// How long the process had been ready, in milliseconds; `None`: it never was.
    pub ready_ms: Option<u64>,
    /// Failures: in a row for `backoff`, within the limit's time for `failed`.
    pub failures: Option<u32>,
    /// The last lines of the process's standard error, oldest first; at most
    /// [`MAX_EVIDENCE_LINES`](crate::limits::MAX_EVIDENCE_LINES), each cut to
    /// [`MAX_EVIDENCE_LINE`](crate::limits::MAX_EVIDENCE_LINE) characters.
    pub last_lines: Vec<String>,
}

impl Evidence {
    /// Of an entry that rests on nothing but its words.
    pub const NONE: Self = Self {
        by: None,
        verb: None,
        on: None,
        exit: None,
        signal: None,
        ready_ms: None,
        failures: None,
        last_lines: Vec::new(),
    };
}

/// One line, or a piece of a long one, of what a service printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Whose.
    pub service: ServiceName,
    /// When it was written, wall clock, microseconds since 1970, UTC.
    pub at_us: u64,
    /// Where it comes from; `None`: a line in the file that no watchdog wrote.
    pub stream: Option<LogStream>,
    /// The next record of this stream goes on with the same line.
    pub goes_on: bool,
    /// The line, without anything a terminal would obey.
    pub text: String,
}

/// Where a log record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogStream {
    /// The service's standard output.
    Output,
    /// The service's standard error.
    Errors,
    /// The watchdog.
    Watchdog,
}

impl LogStream {
    /// Its word in log files and in JSON: three letters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Output => "out",
            Self::Errors => "err",
            Self::Watchdog => "dog",
        }
    }

    /// By its word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Output, Self::Errors, Self::Watchdog].into_iter().find(|stream| stream.word() == word)
    }
}

impl fmt::Display for LogStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}
