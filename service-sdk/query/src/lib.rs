//! WatchdogQuery: the typed client of the watchdog's commands, for the command line, tests, tools and services
//! that hold a grant.
//!
//! ```text
//! WatchdogQuery ── one async method a verb
//!      │ Answers: one call, its id, repeated while a core is being replaced
//!      ▼
//!  Transport ─┬─ ControlSocket    operators: one connection a call
//!             └─ a session        services: implemented by the SDK
//! ```
//! Invariants:
//! - A [`WatchdogQuery`] can't be cloned: it is privilege, and whoever has it was given it.
//! - A call has one id for life. It is repeated only under that id, which the watchdog answers with the stored
//!   outcome: nothing is done twice because a connection broke.
//! - No length is believed: memory is taken as bytes arrive, up to `MAX_FRAME`.
//! - There is no task in here, and no thread: dropping a future ends all it did.

mod answers;
pub mod frames;
mod short_path;
mod socket;
mod transport;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use watchdog_protocol::audit::AuditRecord;
use watchdog_protocol::control::{
    Call, Change, Failure, FrameError, Outcome, Reply, Request, RevisionRecord, SetOutcome, SettingsView,
    StateValue, StateView,
};
use watchdog_protocol::dead::{DeadLetter, WholeDeadLetter};
use watchdog_protocol::fit::Finding;
use watchdog_protocol::graph::Graph;
use watchdog_protocol::layout::Encoded;
use watchdog_protocol::limits::MAX_FRAME;
use watchdog_protocol::plan::Plan;
use watchdog_protocol::resources::{LimitChange, LimitsView};
use watchdog_protocol::status::{InboxStatus, Status};
use watchdog_protocol::usage::Usage;
use watchdog_protocol::why::Why;
use watchdog_protocol::{Manifest, MessageId, RequestId, Revision, ServiceName};

use crate::answers::Answers;
pub use crate::answers::{Events, Logs};
pub use crate::short_path::ShortPath;
pub use crate::socket::ControlSocket;
pub use crate::transport::{BoxFuture, Replies, Transport};

/// The right to command a watchdog.
///
/// Every method is one call. With a `wait` it comes back when the effect is there, or fails with
/// `TryAgain` after that time, in which case the effect may still come; without, as soon as the request is
/// accepted. Methods take `&self` and may run side by side. All are cancel safe in this sense: dropping the
/// future gives up waiting, not the request.
///
/// A call whose connection breaks is repeated under the same id until the watchdog is back, for at most 10 s.
///
/// ```compile_fail
/// fn lend(query: &watchdog_query::WatchdogQuery) -> watchdog_query::WatchdogQuery {
///     query.clone() // it is not Clone; and a reference can't be cloned into a value
/// }
/// ```
pub struct WatchdogQuery {
    transport: Box<dyn Transport>,
    progress: Option<Box<Progress>>,
}

/// Shows one line.
type Progress = dyn Fn(&str) + Send + Sync;

/// Why a call did not lead to what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody listens at the control socket.
    #[error("no watchdog answers at {}", path.display())]
    NotReachable {
        /// The socket.
        path: PathBuf,
        /// Of connecting to it.
        source: io::Error,
    },
    /// The watchdog said no, and why.
    #[error(transparent)]
    Refused(Failure),
    /// The watchdog speaks another version of the protocol.
    #[error("the watchdog speaks version {theirs} of the control protocol, this program version {ours}")]
    Version {
        /// Of this program.
        ours: u16,
        /// Of the watchdog.
        theirs: u16,
    },
    /// Something listens at the control socket, and it is no watchdog.
    #[error("what listens at {} is no watchdog", path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
    },
    /// The connection ended before the call did, and did not come back. Whether the request was done is not
    /// known.
    #[error("the watchdog closed the connection before it answered")]
    Closed {
        /// Of the connection; `None` at a plain end.
        source: Option<io::Error>,
    },
    /// The watchdog is there and says nothing. The request may still be done.
    #[error("the watchdog has not answered for {} s", waited.as_secs())]
    Silent {
        /// For how long.
        waited: Duration,
    },
    /// A reply of more bytes than any has.
    #[error("the watchdog announced a reply of {length} bytes, at most {MAX_FRAME} are read")]
    Long {
        /// As announced.
        length: usize,
    },
    /// A reply that is none.
    #[error("the watchdog's reply can't be read")]
    Garbled(#[source] FrameError),
    /// A reply to another question.
    #[error("the watchdog answered something else than {expected}")]
    Unexpected {
        /// What the call asks for.
        expected: &'static str,
    },
}

impl QueryError {
    /// Whether a watchdog whose core is being replaced looks like this.
    fn may_pass(&self) -> bool {
        match self {
            Self::Closed { .. } => true,
            // A socket file without a listener is what a killed core leaves; the new one replaces it in one
            // step, so that a missing file means a missing watchdog.
            Self::NotReachable { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::WouldBlock
            ),
            _ => false,
        }
    }
}

/// What a verb that changes phases led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// Accepted, in words.
    Accepted(String),
    /// How the services are that were named.
    Status(Box<Status>),
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is in the lane.
    Queued {
        /// Why it waits there, in words; `None`: its receiver is ready.
        waits: Option<String>,
    },
    /// It was asked, and this is the answer, as the receiver wrote it.
    Answered(Vec<u8>),
}

impl fmt::Debug for WatchdogQuery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WatchdogQuery").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl WatchdogQuery {
    /// Over the control socket. Connects with the first call, and anew with each.
    pub fn at(socket: &Path) -> Self {
        Self::over(ControlSocket::at(socket))
    }

    /// Over another transport.
    pub fn over(transport: impl Transport) -> Self {
        Self { transport: Box::new(transport), progress: None }
    }

    /// Calls `show` with each line that says what a call waits for.
    #[must_use]
    pub fn on_progress(mut self, show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(show));
        self
    }

    /// These services, or all when none is named.
    ///
    /// # Errors
    /// [`QueryError`], as of every method here.
    pub async fn status(&self, services: &[ServiceName]) -> Result<Status, QueryError> {
        match self.call(Request::Status { services: services.to_vec() }, None).await? {
            Outcome::Status(status) => Ok(*status),
            _ => Err(QueryError::Unexpected { expected: "a status" }),
        }
    }

    /// What these services use, or all when none is named, and the machine: counters, of which two readings are rates
    /// ([`Usage::since`]). A new reading, or one that is not older than a tenth of a second. With `pss` also what is dear to
    /// read: a tenth of a millisecond a process and more.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn usage(&self, services: &[ServiceName], pss: bool) -> Result<Usage, QueryError> {
        match self.call(Request::Usage { services: services.to_vec(), pss }, None).await? {
            Outcome::Usage(usage) => Ok(*usage),
            _ => Err(QueryError::Unexpected { expected: "a reading of use" }),
        }
    }

    /// Wants them up; clears a failure. Waits for ready.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn start(
        &self,
        services: &[ServiceName],
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Start { services: services.to_vec() }, wait).await
    }

    /// Wants them down, with time to save. Waits until nothing of them is left.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn stop(
        &self,
        services: &[ServiceName],
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Stop { services: services.to_vec() }, wait).await
    }

    /// Wants them down, at once. Waits until nothing of them is left.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn kill(
        &self,
        services: &[ServiceName],
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Kill { services: services.to_vec(), signal: None }, wait).await
    }

    /// Only sends a signal to their processes; what is wanted stays as it is.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn signal(&self, services: &[ServiceName], signal: i32) -> Result<Changed, QueryError> {
        self.change(Request::Kill { services: services.to_vec(), signal: Some(signal) }, None).await
    }

    /// Stops and starts them. Waits for ready.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn restart(
        &self,
        services: &[ServiceName],
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Restart { services: services.to_vec() }, wait).await
    }

    /// Clears a failure and starts again what is wanted up; the state is kept. Waits for ready.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn reset(
        &self,
        services: &[ServiceName],
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Reset { services: services.to_vec() }, wait).await
    }

    /// Wants so many instances of a service up, the lowest numbers, and the others down. Waits until it is so. It stays
    /// so, also when the watchdog is started anew.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn scale(
        &self,
        service: &ServiceName,
        instances: u32,
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Scale { service: service.clone(), instances }, wait).await
    }

    /// Changes settings, all or none. Waits for the service's verdict; what does not come is *pending*, not an
    /// error.
    ///
    /// With `if_revision`, only if that is the newest revision and nothing waits to follow it: of several callers with
    /// the same one, one succeeds. The others change nothing and fail with `TryAgain`; [`get`](Self::get) tells what
    /// is there now.
    ///
    /// # Errors
    /// [`QueryError`]; a value against the schema is refused and changes nothing.
    pub async fn set(
        &self,
        service: &ServiceName,
        changes: Vec<Change>,
        if_revision: Option<Revision>,
        wait: Option<Duration>,
    ) -> Result<SetOutcome, QueryError> {
        self.settle(Request::Set { service: service.clone(), changes, if_revision }, wait).await
    }

    /// Takes the values at these paths back to the file's, all or none. In all else as [`set`](Self::set).
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn unset(
        &self,
        service: &ServiceName,
        paths: Vec<String>,
        if_revision: Option<Revision>,
        wait: Option<Duration>,
    ) -> Result<SetOutcome, QueryError> {
        let changes = paths.into_iter().map(|path| Change { path, value: None }).collect();
        self.set(service, changes, if_revision, wait).await
    }

    /// Makes a new revision with the values that were in force at `to`; `None`: with those in force before the newest
    /// change, so that a second call undoes the first. In all else as [`set`](Self::set).
    ///
    /// # Errors
    /// [`QueryError`]; a revision that is not in the [`history`](Self::history), or was never in force, changes
    /// nothing, and neither do values that do not fit the service's settings type any more.
    pub async fn rollback(
        &self,
        service: &ServiceName,
        to: Option<Revision>,
        if_revision: Option<Revision>,
        wait: Option<Duration>,
    ) -> Result<SetOutcome, QueryError> {
        self.settle(Request::Rollback { service: service.clone(), to, if_revision }, wait).await
    }

    /// The newest settings, and where each value comes from.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn get(&self, service: &ServiceName) -> Result<SettingsView, QueryError> {
        match self.call(Request::Get { service: service.clone() }, None).await? {
            Outcome::Settings(view) => Ok(view),
            _ => Err(QueryError::Unexpected { expected: "settings" }),
        }
    }

    /// The newest revisions of the settings, oldest first: at most 50, and fewer when their changes are very large.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn history(&self, service: &ServiceName) -> Result<Vec<RevisionRecord>, QueryError> {
        match self.call(Request::History { service: service.clone() }, None).await? {
            Outcome::History(revisions) => Ok(revisions),
            _ => Err(QueryError::Unexpected { expected: "a history" }),
        }
    }

    /// The dead letters of these services, or of all, without their payloads.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn dead_letters(&self, services: &[ServiceName]) -> Result<Vec<DeadLetter>, QueryError> {
        match self.call(Request::DeadLetters { services: services.to_vec() }, None).await? {
            Outcome::DeadLetters(letters) => Ok(letters),
            _ => Err(QueryError::Unexpected { expected: "dead letters" }),
        }
    }

    /// One dead letter, with its payload.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn dead_letter(
        &self,
        service: &ServiceName,
        id: MessageId,
    ) -> Result<WholeDeadLetter, QueryError> {
        match self.call(Request::DeadLetter { service: service.clone(), id }, None).await? {
            Outcome::DeadLetter(letter) => Ok(*letter),
            _ => Err(QueryError::Unexpected { expected: "a dead letter" }),
        }
    }

    /// Puts dead letters back into their lanes, all of the service when none is named. Each comes as a message of its
    /// old sender, behind what is queued, under a new id and marked as redelivered. At least once: a watchdog that
    /// dies in the middle may leave one in both places.
    ///
    /// # Errors
    /// [`QueryError`]; it stops at the first that can't be put back, which stays a dead letter as those after it do.
    pub async fn dead_retry(&self, service: &ServiceName, ids: &[MessageId]) -> Result<String, QueryError> {
        self.words(Request::DeadRetry { service: service.clone(), ids: ids.to_vec() }, None).await
    }

    /// Takes dead letters away for good, all of the service when none is named.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn dead_drop(&self, service: &ServiceName, ids: &[MessageId]) -> Result<String, QueryError> {
        self.words(Request::DeadDrop { service: service.clone(), ids: ids.to_vec() }, None).await
    }

    /// The newest `last` changing calls, refused ones too, oldest first; those of this service and about it, or all.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn audit(
        &self,
        service: Option<&ServiceName>,
        last: u64,
    ) -> Result<Vec<AuditRecord>, QueryError> {
        match self.call(Request::Audit { service: service.cloned(), last }, None).await? {
            Outcome::Audit(records) => Ok(records),
            _ => Err(QueryError::Unexpected { expected: "an audit" }),
        }
    }

    /// What is known of the state on disk.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn state_show(&self, service: &ServiceName) -> Result<StateView, QueryError> {
        match self.call(Request::StateShow { service: service.clone() }, None).await? {
            Outcome::State(view) => Ok(view),
            _ => Err(QueryError::Unexpected { expected: "a state" }),
        }
    }

    /// The state itself, as JSON. The watchdog runs the service's program for it, beside the service, for up to 10 s.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn state_value(&self, service: &ServiceName) -> Result<StateValue, QueryError> {
        match self.call(Request::StateValue { service: service.clone() }, None).await? {
            Outcome::StateValue(value) => Ok(*value),
            _ => Err(QueryError::Unexpected { expected: "a state's value" }),
        }
    }

    /// The state as the bytes of a snapshot file.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn state_export(&self, service: &ServiceName) -> Result<Vec<u8>, QueryError> {
        match self.call(Request::StateExport { service: service.clone() }, None).await? {
            Outcome::Snapshot(bytes) => Ok(bytes),
            _ => Err(QueryError::Unexpected { expected: "a snapshot" }),
        }
    }

    /// Puts the bytes of an export in place of the state; only while the service is stopped.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn state_import(&self, service: &ServiceName, snapshot: Vec<u8>) -> Result<String, QueryError> {
        self.words(Request::StateImport { service: service.clone(), snapshot }, None).await
    }

    /// Back to the initial state; only while the service is stopped. The old files are set aside.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn state_reset(&self, service: &ServiceName) -> Result<String, QueryError> {
        self.words(Request::StateReset { service: service.clone() }, None).await
    }

    /// The inboxes of these services, or of all when none is named.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn intercoms(&self, services: &[ServiceName]) -> Result<Vec<InboxStatus>, QueryError> {
        match self.call(Request::Intercoms { services: services.to_vec() }, None).await? {
            Outcome::Intercoms(inboxes) => Ok(inboxes),
            _ => Err(QueryError::Unexpected { expected: "inboxes" }),
        }
    }

    /// How services hang together: order, permissions, lanes.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn graph(&self) -> Result<Graph, QueryError> {
        match self.call(Request::Graph, None).await? {
            Outcome::Graph(graph) => Ok(*graph),
            _ => Err(QueryError::Unexpected { expected: "a graph" }),
        }
    }

    /// What another build of a service, which says this of itself, would meet in the place of the present one: who sends
    /// to it, the settings in force, the stored state. Nothing is changed. No service is granted it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn fit(&self, service: &ServiceName, manifest: &Manifest) -> Result<Vec<Finding>, QueryError> {
        let request = Request::Fit { service: service.clone(), manifest: manifest.to_json() };
        match self.call(request, None).await? {
            Outcome::Findings(findings) => Ok(findings),
            _ => Err(QueryError::Unexpected { expected: "findings" }),
        }
    }

    /// Sends a message into a service's lane, as the sender `operator`. Whatever `offer` and `use` say; it is recorded.
    ///
    /// Without a `wait` it comes back when the message is in the lane, where it waits while the service is down. With
    /// one, an ask comes back with its answer, at most after that time; a receiver that gets to it later skips it.
    ///
    /// # Errors
    /// [`QueryError`]. Of a refusal, its kind: `Unknown`, the receiver died with it in hand, or the watchdog's core while
    /// it was being sent; `TryAgain`, no answer in time, the lane is full, or the receiver was built anew meanwhile;
    /// `Failed`, the receiver let go of it unanswered.
    pub async fn send(
        &self,
        service: &ServiceName,
        message: Encoded,
        wait: Option<Duration>,
    ) -> Result<Sent, QueryError> {
        let Encoded { payload, contract, asks, .. } = message;
        let request = Request::Send { service: service.clone(), contract, asks, payload };
        match self.call(request, wait).await? {
            Outcome::Sent { waits } => Ok(Sent::Queued { waits }),
            Outcome::Answered(answer) => Ok(Sent::Answered(answer)),
            _ => Err(QueryError::Unexpected { expected: "what became of a message" }),
        }
    }

    /// What these services print, or all when none is named: the `last` newest records, at most
    /// [`MAX_LOGS`](watchdog_protocol::control::MAX_LOGS) and 8 MiB, oldest first, then with `follow` those that come.
    /// Asked for with the first [`Logs::next`].
    ///
    /// Where the log files can be read they tell more, and also while no watchdog runs: `watchdog logs` reads them.
    pub fn logs(&self, services: &[ServiceName], last: u64, follow: bool) -> Logs<'_> {
        let request = Request::Logs { services: services.to_vec(), last, follow, resume: None };
        Logs::of(self.begin(request, None))
    }

    /// The event log: the `last` newest entries with a number above `after`, oldest first, then with `follow`
    /// those that come. Asked for with the first [`Events::next`].
    pub fn events(&self, after: u64, last: u64, follow: bool) -> Events<'_> {
        // Where to go on from when the core is replaced is known by an entry: the newest one is asked for, too. It
        // is there, since a log begins with the start of its watchdog.
        let unseen = follow && last == 0 && after == 0;
        let last = if unseen { 1 } else { last };
        Events::of(self.begin(Request::Events { after, last, follow }, None), unseen)
    }

    /// Why a service is in the state it is in: from that state back to the first cause, by the newest 10 000 entries
    /// of the event log. Where they do not reach so far, the answer says so.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn why(&self, service: &ServiceName) -> Result<Why, QueryError> {
        match self.call(Request::Why { service: service.clone() }, None).await? {
            Outcome::Why(why) => Ok(*why),
            _ => Err(QueryError::Unexpected { expected: "the way to a first cause" }),
        }
    }

    /// What a service said of itself, as JSON text: settings type, state type, contract. `None` for a program. Needs a
    /// grant for `status`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn manifest(&self, service: &ServiceName) -> Result<Option<String>, QueryError> {
        match self.call(Request::Manifest { service: service.clone() }, None).await? {
            Outcome::Manifest(text) => Ok(text),
            _ => Err(QueryError::Unexpected { expected: "a manifest" }),
        }
    }

    /// Adds one service or program: a text of one `[service.NAME]` or `[program.NAME]` table, and the file it
    /// was read from, for errors. Waits for ready.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn register(
        &self,
        file: String,
        text: String,
        wait: Option<Duration>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Register { file, text }, wait).await
    }

    /// Takes a stopped service out, with its lanes.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn unregister(&self, service: &ServiceName) -> Result<String, QueryError> {
        self.words(Request::Unregister { service: service.clone() }, None).await
    }

    /// The limits of these services, or of all when none is named, and what they are made of on this machine.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn limits(&self, services: &[ServiceName]) -> Result<LimitsView, QueryError> {
        match self.call(Request::Limits { services: services.to_vec() }, None).await? {
            Outcome::Limits(view) => Ok(*view),
            _ => Err(QueryError::Unexpected { expected: "limits" }),
        }
    }

    /// Changes limits of a service, all or none, `reason` being told in the event. They hold across restarts of the
    /// service and of the watchdog. Waits until they are on disk and in force for what lives; what could not be put in
    /// force is no error, and told.
    ///
    /// # Errors
    /// [`QueryError`]; a limit that this machine does not carry at all is refused and changes nothing.
    pub async fn limit(
        &self,
        service: &ServiceName,
        changes: Vec<LimitChange>,
        reason: Option<String>,
        wait: Duration,
    ) -> Result<LimitsView, QueryError> {
        let request = Request::Limit { service: service.clone(), changes, reason };
        match self.call(request, Some(wait)).await? {
            Outcome::Limits(view) => Ok(*view),
            _ => Err(QueryError::Unexpected { expected: "limits" }),
        }
    }

    /// Lets all processes of these services stand still where they are, until [`thaw`](Self::thaw) or their end: a
    /// stop, a kill and a restart thaw first, and the next process runs. Waits until nothing of them runs.
    ///
    /// # Errors
    /// [`QueryError`]; when one of them does not run, nothing changes.
    pub async fn freeze(
        &self,
        services: &[ServiceName],
        reason: Option<String>,
        wait: Duration,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Freeze { services: services.to_vec(), reason }, Some(wait)).await
    }

    /// Lets them go on. One that is not frozen stays as it is.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn thaw(
        &self,
        services: &[ServiceName],
        reason: Option<String>,
    ) -> Result<Changed, QueryError> {
        self.change(Request::Thaw { services: services.to_vec(), reason }, None).await
    }

    /// What differs between the configuration's file, what is in force, and what running processes started with; and
    /// what a [`reload`](Self::reload) would do about it: of these services, or of all when none is named. Nothing changes.
    ///
    /// # Errors
    /// [`QueryError`]; a file that can't be put in force is refused with all that is wrong with it.
    pub async fn diff(&self, services: &[ServiceName]) -> Result<Plan, QueryError> {
        match self.call(Request::Diff { services: services.to_vec() }, None).await? {
            Outcome::Plan(plan) => Ok(*plan),
            _ => Err(QueryError::Unexpected { expected: "a plan" }),
        }
    }

    /// Puts what the configuration's file says in force. With a `wait`, comes back when all that it takes is done:
    /// whatever starts is ready, whatever was removed has ended, settings are judged. With a `plan`, only if
    /// [`diff`](Self::diff) of all services would give that very one still.
    ///
    /// # Errors
    /// [`QueryError`]; a file that can't be put in force changes nothing at all.
    pub async fn reload(&self, plan: Option<&Plan>, wait: Option<Duration>) -> Result<String, QueryError> {
        self.words(Request::Reload { plan: plan.map(|plan| plan.id) }, wait).await
    }

    /// Runs another build of the watchdog as its core, while services go on: the file at `program`, or the one the
    /// watchdog was started from as it is by now. With a `wait`, comes back when the new core serves. A build that can't
    /// go on from what is there is refused and nothing happens; one that is not ready within that time, or ends before,
    /// is taken back.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn upgrade(
        &self,
        program: Option<String>,
        ready_within: Duration,
        wait: Option<Duration>,
    ) -> Result<String, QueryError> {
        let ready_within_ms = u64::try_from(ready_within.as_millis()).unwrap_or(u64::MAX);
        self.words(Request::Upgrade { program, ready_within_ms }, wait).await
    }

    /// Stops everything, then the watchdog. With a `wait`, comes back when every service has ended; the
    /// watchdog's own processes end after it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn shutdown(&self, wait: Option<Duration>) -> Result<String, QueryError> {
        let mut answers = self.begin(Request::Shutdown, wait);
        match self.end(&mut answers).await {
            Ok(Outcome::Done(words)) => Ok(words),
            Ok(_) => Err(QueryError::Unexpected { expected: "words" }),
            // It took the request, and its socket is gone: it ended before its answer was read.
            Err(QueryError::NotReachable { .. }) if answers.delivered() => {
                Ok("the watchdog has ended".into())
            }
            Err(error) => Err(error),
        }
    }

    async fn change(&self, request: Request, wait: Option<Duration>) -> Result<Changed, QueryError> {
        match self.call(request, wait).await? {
            Outcome::Done(words) => Ok(Changed::Accepted(words)),
            Outcome::Status(status) => Ok(Changed::Status(status)),
            _ => Err(QueryError::Unexpected { expected: "words or a status" }),
        }
    }

    async fn settle(&self, request: Request, wait: Option<Duration>) -> Result<SetOutcome, QueryError> {
        match self.call(request, wait).await? {
            Outcome::Set(outcome) => Ok(outcome),
            _ => Err(QueryError::Unexpected { expected: "the outcome of a settings change" }),
        }
    }

    async fn words(&self, request: Request, wait: Option<Duration>) -> Result<String, QueryError> {
        match self.call(request, wait).await? {
            Outcome::Done(words) => Ok(words),
            _ => Err(QueryError::Unexpected { expected: "words" }),
        }
    }

    async fn call(&self, request: Request, wait: Option<Duration>) -> Result<Outcome, QueryError> {
        self.end(&mut self.begin(request, wait)).await
    }

    fn begin(&self, request: Request, wait: Option<Duration>) -> Answers<'_> {
        let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        Answers::to(&*self.transport, Call { id: fresh_id(), wait_ms, request })
    }

    async fn end(&self, answers: &mut Answers<'_>) -> Result<Outcome, QueryError> {
        loop {
            match answers.next().await? {
                Reply::Progress(line) => {
                    if let Some(show) = &self.progress {
                        show(&line);
                    }
                }
                Reply::Event(_) | Reply::Log(_) => {}
                Reply::End(outcome) => return outcome.map_err(QueryError::Refused),
            }
        }
    }
}

fn fresh_id() -> RequestId {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the kernel has random bits once it runs programs");
    RequestId::from_bits(u128::from_le_bytes(bits))
}
