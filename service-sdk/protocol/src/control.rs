//! WatchdogQuery on the wire. Over the control socket every message is a frame: its length as four bytes,
//! little-endian, then that many bytes of postcard. Over a session, a [`Call`] and its [`Reply`]s ride in
//! `Control` and `Answer`. Enums grow at their end only.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audit::AuditRecord;
use crate::dead::{DeadLetter, WholeDeadLetter};
use crate::fit::Finding;
use crate::graph::Graph;
use crate::layout::Asks;
use crate::plan::Plan;
use crate::resources::{LimitChange, LimitsView};
use crate::status::{EventRecord, InboxStatus, LogRecord, Status, VerdictStatus};
use crate::usage::Usage;
use crate::why::Why;
use crate::{Contract, MessageId, RequestId, Revision, Sequence, ServiceName};

/// The version both sides of the control socket say first.
pub const CONTROL_VERSION: u16 = 1;

/// The first frame of either side: says what it speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// `WDOG`, so that a peer of another kind is told apart at once.
    pub magic: [u8; 4],
    /// [`CONTROL_VERSION`].
    pub version: u16,
    /// Empty, or why the watchdog closes the connection.
    pub refused: Option<Failure>,
}

impl Greeting {
    /// What this crate says.
    pub fn ours() -> Self {
        Self { magic: *b"WDOG", version: CONTROL_VERSION, refused: None }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// A repeated id of a changing request gets the stored outcome.
    pub id: RequestId,
    /// How long to wait for the effect; `None`: answer when the request is accepted.
    pub wait_ms: Option<u64>,
    /// What is asked for.
    pub request: Request,
}

/// What is asked for. The services named in a request are all done or, when one is unknown, none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Of these services, or of all when none is named. Answered by [`Outcome::Status`].
    Status {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// Wants them up; clears a failure.
    Start {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// Wants them down, with time to save.
    Stop {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// Wants them down, at once; or only sends a signal.
    Kill {
        /// Names.
        services: Vec<ServiceName>,
        /// Sent to the service's process, changing nothing of what is wanted.
        signal: Option<i32>,
    },
    /// Stops and starts them.
    Restart {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// Clears a failure and starts again what is wanted up.
    Reset {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// Changes settings, all or none. Answered by [`Outcome::Set`].
    Set {
        /// Whose.
        service: ServiceName,
        /// What.
        changes: Vec<Change>,
        /// Only if this is the newest revision; else nothing changes and the answer is
        /// [`FailureKind::TryAgain`]. `None`: whichever is.
        if_revision: Option<Revision>,
    },
    /// Answered by [`Outcome::Settings`].
    Get {
        /// Whose.
        service: ServiceName,
    },
    /// Answered by [`Outcome::State`].
    StateShow {
        /// Whose.
        service: ServiceName,
    },
    /// Answered by [`Outcome::Snapshot`].
    StateExport {
        /// Whose.
        service: ServiceName,
    },
    /// Puts a snapshot in place; only while the service is stopped.
    StateImport {
        /// Whose.
        service: ServiceName,
        /// The bytes of an export.
        #[serde(with = "serde_bytes")]
        snapshot: Vec<u8>,
    },
    /// Back to the initial value; only while the service is stopped. The old files are set aside.
    StateReset {
        /// Whose.
        service: ServiceName,
    },
    /// The inboxes of these services, or of all. Answered by [`Outcome::Intercoms`].
    Intercoms {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// The event log. Answered by [`Reply::Event`]s.
    Events {
        /// Entries with a larger number only.
        after: u64,
        /// At most so many of the newest.
        last: u64,
        /// Goes on as they happen.
        follow: bool,
    },
    /// What services printed. Answered by [`Reply::Log`]s.
    Logs {
        /// Names; all when there is none.
        services: Vec<ServiceName>,
        /// At most so many of the newest; the watchdog gives at most [`MAX_LOGS`].
        last: u64,
        /// Goes on as they print.
        follow: bool,
        /// The call is repeated: what was given stays away.
        resume: Option<LogResume>,
    },
    /// Adds one service or program.
    Register {
        /// Where the text was read, for errors.
        file: String,
        /// One `[service.NAME]` or `[program.NAME]` table.
        text: String,
    },
    /// Takes a stopped service out, with its lanes.
    Unregister {
        /// Whose.
        service: ServiceName,
    },
    /// Stops everything, then the watchdog.
    Shutdown,
    /// The newest revisions of the settings, at most 50. Answered by [`Outcome::History`].
    History {
        /// Whose.
        service: ServiceName,
    },
    /// Back to the values of an older revision, as a new one. Answered by [`Outcome::Set`].
    Rollback {
        /// Whose.
        service: ServiceName,
        /// Which revision's values; `None`: those in force before the newest change.
        to: Option<Revision>,
        /// As of [`Request::Set`].
        if_revision: Option<Revision>,
    },
    /// Why it is in the state it is in. Answered by [`Outcome::Why`].
    Why {
        /// Whose state.
        service: ServiceName,
    },
    /// What it said of itself. Answered by [`Outcome::Manifest`].
    Manifest {
        /// Whose.
        service: ServiceName,
    },
    /// Runs another build of the watchdog as its core, while services go on. Answered by [`Outcome::Done`], by the new
    /// core; or by a failure when that one is no good and the old build runs again.
    Upgrade {
        /// Its path; `None`: the file the watchdog was started from, as it is by now.
        program: Option<String>,
        /// Milliseconds it has until it is ready.
        ready_within_ms: u64,
    },
    /// The dead letters of these services, or of all. Answered by [`Outcome::DeadLetters`].
    DeadLetters {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// One of them. Answered by [`Outcome::DeadLetter`].
    DeadLetter {
        /// Whose.
        service: ServiceName,
        /// Which.
        id: MessageId,
    },
    /// Puts dead letters back into the lanes they came from. One that is not there: none; it stops at the first that
    /// can't be put back.
    DeadRetry {
        /// Whose.
        service: ServiceName,
        /// Which; all when there is none.
        ids: Vec<MessageId>,
    },
    /// Takes dead letters away for good. One that is not there: none.
    DeadDrop {
        /// Whose.
        service: ServiceName,
        /// Which; all when there is none.
        ids: Vec<MessageId>,
    },
    /// How many instances of a service there are to be; lower numbers first. Answered by [`Outcome::Status`] of all.
    Scale {
        /// The name of all of them.
        service: ServiceName,
        /// From 1.
        instances: u32,
    },
    /// The newest changing calls, refused ones too. Answered by [`Outcome::Audit`].
    Audit {
        /// Made by this service, or naming it; `None`: all.
        service: Option<ServiceName>,
        /// At most so many, [`MAX_AUDIT`](crate::audit::MAX_AUDIT) at the most.
        last: u64,
    },
    /// The state itself, as its own program shows it. Answered by [`Outcome::StateValue`].
    StateValue {
        /// Whose.
        service: ServiceName,
    },
    /// How services hang together. Answered by [`Outcome::Graph`].
    Graph,
    /// What differs between the configuration's file, what is in force, and what runs. Answered by [`Outcome::Plan`].
    Diff {
        /// Only of these services, which may be in the file alone; of all when none is named.
        services: Vec<ServiceName>,
    },
    /// Puts what the file says in force. All or nothing: what is wrong with it changes nothing.
    Reload {
        /// Only if the plan is the one of this id; else nothing changes and the answer is
        /// [`FailureKind::TryAgain`]. `None`: whichever it is.
        plan: Option<u64>,
    },
    /// A message to a service's inbox. Answered by [`Outcome::Sent`], when it is in the lane; with a wait, an ask by
    /// [`Outcome::Answered`].
    Send {
        /// To whom.
        service: ServiceName,
        /// The receiver's contract as the sender knows it, up to and with this message.
        contract: Contract,
        /// How it is asked; `None`: it is told.
        asks: Option<Asks>,
        /// The message.
        #[serde(with = "serde_bytes")]
        payload: Vec<u8>,
    },
    /// What another build of a service would meet. Answered by [`Outcome::Findings`].
    Fit {
        /// Whose place it is to take.
        service: ServiceName,
        /// What it says of itself, as JSON text.
        manifest: String,
    },
    /// Changes limits, all or none. Answered by [`Outcome::Limits`] of this service: they are on disk, and in force as
    /// far as it says.
    Limit {
        /// Whose.
        service: ServiceName,
        /// What.
        changes: Vec<LimitChange>,
        /// Why, in words; told in the event.
        reason: Option<String>,
    },
    /// The limits of these services, or of all. Answered by [`Outcome::Limits`].
    Limits {
        /// Names.
        services: Vec<ServiceName>,
    },
    /// Lets all their processes stand still where they are, until [`Request::Thaw`] or the end of the process. Answered
    /// by [`Outcome::Status`].
    Freeze {
        /// Names. Each is running, or nothing changes.
        services: Vec<ServiceName>,
        /// Why, in words; told in the event.
        reason: Option<String>,
    },
    /// Lets them go on. Answered by [`Outcome::Status`].
    Thaw {
        /// Names.
        services: Vec<ServiceName>,
        /// Why, in words; told in the event.
        reason: Option<String>,
    },
    /// What these services use, or all when none is named, and the machine. Answered by [`Outcome::Usage`]: a new reading,
    /// or one that is not older than a tenth of a second.
    Usage {
        /// Names.
        services: Vec<ServiceName>,
        /// Also what is dear to read: a tenth of a millisecond a process and more.
        pss: bool,
    },
}

/// The most records of [`Request::Logs`] before those that come.
pub const MAX_LOGS: u64 = 10_000;

/// How far the logs were given, for a call that is repeated after its connection broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogResume {
    /// When the call was begun, wall clock, microseconds since 1970, UTC. What is older and of a service without a
    /// place was not wanted.
    pub begun_us: u64,
    /// The newest record of each service that has given one.
    pub places: Vec<LogPlace>,
}

/// Records of one service have the same time where they were written together, so a place has a time and a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// Whose.
    pub service: ServiceName,
    /// The time of the newest record given.
    pub at_us: u64,
    /// So many records of this very time were given.
    pub given: u64,
}

/// One key of a settings change. `Debug` does not show the value: it may be secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Names joined by dots: `filter.level`.
    pub path: String,
    /// The new value as typed: JSON, or text where the schema wants text; `None`: back to the file.
    pub value: Option<String>,
}

impl fmt::Debug for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Change").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What comes back: any number of the first three, then one end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// What the request waits for now, in words.
    Progress(String),
    /// One entry of the event log.
    Event(EventRecord),
    /// One line of what a service printed.
    Log(LogRecord),
    /// The last reply.
    End(Result<Outcome, Failure>),
}

/// What a request led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, or accepted when there was no wait; in words for a person.
    Done(String),
    /// Of [`Request::Status`], and of every verb that changes a phase: the services it named.
    Status(Box<Status>),
    /// Of [`Request::Set`] and [`Request::Rollback`].
    Set(SetOutcome),
    /// Of [`Request::Get`].
    Settings(SettingsView),
    /// Of [`Request::StateShow`].
    State(StateView),
    /// Of [`Request::StateExport`].
    Snapshot(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Of [`Request::Intercoms`].
    Intercoms(Vec<InboxStatus>),
    /// Of [`Request::History`], oldest first.
    History(Vec<RevisionRecord>),
    /// Of [`Request::Why`].
    Why(Box<Why>),
    /// Of [`Request::Manifest`]: JSON text; `None` for a program.
    Manifest(Option<String>),
    /// Of [`Request::DeadLetters`], without payloads, in the order they were moved.
    DeadLetters(Vec<DeadLetter>),
    /// Of [`Request::DeadLetter`].
    DeadLetter(Box<WholeDeadLetter>),
    /// Of [`Request::Audit`], oldest first.
    Audit(Vec<AuditRecord>),
    /// Of [`Request::StateValue`].
    StateValue(Box<StateValue>),
    /// Of [`Request::Graph`].
    Graph(Box<Graph>),
    /// Of [`Request::Diff`].
    Plan(Box<Plan>),
    /// Of [`Request::Send`].
    Sent {
        /// Why it waits in the lane, in words; `None`: its receiver is ready.
        waits: Option<String>,
    },
    /// Of [`Request::Send`]: the answer, as the receiver wrote it.
    Answered(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Of [`Request::Fit`].
    Findings(Vec<Finding>),
    /// Of [`Request::Limit`] and [`Request::Limits`].
    Limits(Box<LimitsView>),
    /// Of [`Request::Usage`].
    Usage(Box<Usage>),
}

/// What became of a settings change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetOutcome {
    /// The revision it made.
    pub revision: Revision,
    /// `Pending` when the service is down, silent, or nobody waited.
    pub verdict: VerdictStatus,
    /// The service's reason, and the revision with the old values.
    pub refused: Option<(String, Revision)>,
    /// Of a rollback: the revision whose values these are.
    pub back_to: Option<Revision>,
}

/// Stands for a value that nobody is shown.
pub const SECRET: &str = "(secret)";

/// A service's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsView {
    /// The newest revision.
    pub revision: Revision,
    /// What became of it.
    pub verdict: VerdictStatus,
    /// All values of it, as JSON text; the string [`SECRET`] for those that are secret.
    pub json: String,
    /// The paths that were set over the file.
    pub overrides: Vec<String>,
    /// Each value by itself, tables taken apart, and where it comes from.
    pub values: Vec<ValueView>,
}

/// One value of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueView {
    /// Its path, keys joined by dots.
    pub path: String,
    /// As JSON text; the string [`SECRET`] if it is secret.
    pub json: String,
    /// Where it comes from.
    pub origin: ValueOrigin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueOrigin {
    /// Nobody gave it: the settings type's default.
    Default,
    /// The configuration.
    File {
        /// Where it stands there; `None` when the file says something else by now.
        place: Option<FilePlace>,
    },
    /// It was set over the file.
    Set {
        /// Which revision did; `None`: not known, an older build did it.
        revision: Option<Revision>,
    },
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlace {
    /// Its path.
    pub file: String,
    /// From 1.
    pub line: u64,
}

/// One revision of a service's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: Revision,
    /// When it was made: wall clock, microseconds since 1970, UTC. `None`: not known, an older build made it.
    pub at_us: Option<u64>,
    /// Who made it.
    pub by: RevisionAuthor,
    /// What it changed against the revision before; what only the settings type's defaults change is not told.
    pub changes: Vec<ValueChange>,
    /// What became of it.
    pub verdict: RevisionVerdict,
}

/// Who made a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevisionAuthor {
    /// An older build, which did not note it.
    Unknown,
    /// The configuration, first read or changed.
    File,
    /// Somebody by `set` or `unset`.
    Set {
        /// Who.
        by: Caller,
    },
    /// Somebody by `rollback`.
    Rollback {
        /// Who.
        by: Caller,
        /// To the values of this revision.
        to: Revision,
    },
    /// The watchdog: the values before a revision that was refused.
    Fallback {
        /// That revision.
        refused: Revision,
    },
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caller {
    /// A person or script at the control socket; the uid is the kernel's word.
    Operator {
        /// Whose process it was.
        uid: u32,
    },
    /// A service, by its grant.
    Service {
        /// Its name.
        name: ServiceName,
    },
    /// The watchdog itself.
    Watchdog,
}

/// One value that a revision changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueChange {
    /// Its path, keys joined by dots.
    pub path: String,
    /// JSON text, the string [`SECRET`] if it is secret; `None`: it was not given, so that the settings type's default held.
    pub before: Option<String>,
    /// In the same way.
    pub after: Option<String>,
}

/// What became of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevisionVerdict {
    /// It waits: the service is down or has not answered.
    Pending,
    /// It was in force, or is.
    Applied,
    /// It was not taken.
    Refused {
        /// In the service's words.
        reason: String,
    },
    /// Another was made before any process had it; what it changed is in that one too.
    Superseded {
        /// That revision.
        by: Revision,
    },
}

/// A state file's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateView {
    /// Where it lies.
    pub file: String,
    /// The state's own version.
    pub version: u32,
    /// Which process wrote it.
    pub incarnation: u64,
    /// Its number.
    pub sequence: Sequence,
    /// Bytes of content.
    pub bytes: u64,
    /// Since it was written, in milliseconds.
    pub age_ms: u64,
    /// The newest sequence the watchdog knows, which may not be on disk yet.
    pub newest: Sequence,
}

/// A state as its program reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateValue {
    /// What is known of it without its program.
    pub view: StateView,
    /// The value of sequence `view.newest`, as JSON text; migrated when the program is newer than what is stored.
    pub json: String,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Decides the exit code.
    pub kind: FailureKind,
    /// What, where, what was expected, what still holds.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// It was tried and did not work.
    Failed,
    /// The request itself is wrong: an unknown name, a value out of range.
    Usage,
    /// The service is not running, and must be.
    NotRunning,
    /// The effect did not come within the wait; it may still come. Or the newest revision is another than the one
    /// asked for, and nothing changed.
    TryAgain,
    /// The caller may not.
    NotPermitted,
    /// A configuration or settings error.
    Configuration,
    /// It was begun, and nobody can tell whether it was done.
    Unknown,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The bytes of one frame, its length first.
pub fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes = postcard::to_extend(message, bytes).expect("control messages hold nothing postcard can't write");
    let length = u32::try_from(bytes.len() - 4).expect("a frame is far below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Reads the body of a frame.
///
/// # Errors
/// When it is not exactly one message of this protocol.
pub fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(FrameError::Postcard)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing { extra: rest.len() }) }
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not of this protocol.
    #[error("not a message of the control protocol")]
    Postcard(#[source] postcard::Error),
    /// A message with something behind it.
    #[error("{extra} bytes behind the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
}
