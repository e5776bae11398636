//! The session: one seqpacket pair per incarnation, service ↔ core. One packet is one postcard message.
//!
//! Enums grow at their end only: postcard numbers variants by position, and the golden bytes in `testdata/`
//! hold every older program to account.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_PACKET;
use crate::manifest::{Contract, Mismatch};
use crate::{Incarnation, LaneEpoch, MessageNumber, Revision, Sequence, ServiceName};

/// The environment variable that names the session's descriptor in a service.
pub const SESSION: &str = "WATCHDOG_SESSION";

/// The environment variable that tells whose process this is; orphans are told apart by it.
pub const SERVICE: &str = "WATCHDOG_SERVICE";

/// The environment variable that says that there is a service [`LOGGING`](crate::record::LOGGING), when the process is
/// another one.
pub const HAS_LOGGING: &str = "WATCHDOG_LOGGING";

/// The environment variable of the service [`LOGGING`](crate::record::LOGGING) that names the folder of the logs: its
/// records belong below it.
pub const LOGS: &str = "WATCHDOG_LOGS";

/// What both sides of a session speak. A service that speaks another one is told so and ends with 76.
pub const SESSION_VERSION: u16 = 1;

/// Core to service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToService {
    /// The first packet, queued before the process starts.
    Welcome(Welcome),
    /// A new revision, whole. Answered by [`FromService::Verdict`].
    Settings {
        /// Its number.
        revision: Revision,
        /// The settings as JSON text.
        json: Content,
    },
    /// The state arrived; the next one may go. Not said of one that somebody waits for and that is being written at once:
    /// what comes of that is said instead, and one more may go meanwhile.
    StateReceived {
        /// Of the update.
        sequence: Sequence,
    },
    /// The state is on disk, and so are all before it.
    StateSynced {
        /// Of the update.
        sequence: Sequence,
    },
    /// The state could not be written; it is still the newest the watchdog knows, in memory.
    StateFailed {
        /// Of the update.
        sequence: Sequence,
        /// Step, path and cause.
        reason: String,
    },
    /// End in good order: `next()` yields `None` after the message in hand.
    Stop,
    /// A lane to this service's inbox. Beside it: socket, receiver's page (writable), sender's page.
    LaneIn(LaneIn),
    /// Answers [`FromService::Introduce`]. Beside an `Ok`: socket, sender's page (writable), receiver's page.
    Introduced {
        /// Of the request.
        request: u64,
        /// The lane, or why there is none.
        outcome: Result<LaneOut, Refusal>,
    },
    /// The receiver of a lane died. Sent before its next incarnation starts.
    PeerDied {
        /// Which lane.
        lane: LaneEpoch,
        /// Who died.
        incarnation: Incarnation,
        /// The largest number it had taken: an ask up to it without an answer is lost, unless it comes again.
        taken: MessageNumber,
        /// The largest number up to which all was done: none of it comes again.
        done: MessageNumber,
    },
    /// The lane's contract was compared again: `None` fits.
    LaneFits {
        /// Which lane.
        lane: LaneEpoch,
        /// Where the contracts part.
        mismatch: Option<Mismatch>,
    },
    /// The lane is gone for good: its peer was unregistered.
    LaneClosed {
        /// Which lane.
        lane: LaneEpoch,
    },
    /// A new core took over: repeat what was not answered, then [`FromService::Resumed`].
    TookOver,
    /// Answers [`FromService::Control`]: an encoded [`Reply`](crate::control::Reply).
    Answer {
        /// Of the request.
        request: u64,
        /// The encoded reply.
        reply: Content,
    },
    /// The session ends here, for this reason: the peer broke the protocol or is of another version.
    Rejected {
        /// What was wrong.
        reason: String,
    },
    /// A message of a lane is a dead letter: if it is an ask, it has died for good.
    Buried {
        /// Which lane.
        lane: LaneEpoch,
        /// Who died with it last.
        incarnation: Incarnation,
        /// The message.
        number: MessageNumber,
    },
    /// The rules do not allow this service to send on the lane any more. What was sent is served, and answered; a lane
    /// that is allowed later is another one.
    LaneDenied {
        /// Which lane.
        lane: LaneEpoch,
    },
    /// Messages of a lane to the inbox became dead letters: they are passed over. Before the lane itself.
    PassOver {
        /// Which lane.
        lane: LaneEpoch,
        /// The messages.
        numbers: Vec<MessageNumber>,
    },
    /// The service [`LOGGING`](crate::record::LOGGING) is registered, and may be talked to: for those who have no lane to
    /// it.
    LoggingRegistered,
}

/// All a new incarnation starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`SESSION_VERSION`] of the core.
    pub version: u16,
    /// Whose process this is.
    pub service: ServiceName,
    /// Which one.
    pub incarnation: Incarnation,
    /// Time from a stop until the watchdog kills, in milliseconds. The SDK ends its process itself after it
    /// when the session is at its end.
    pub stop_timeout_ms: u64,
    /// The largest payload, in bytes.
    pub max_message: u64,
    /// What one lane holds unless configured, in bytes as the kernel charges them. What each holds its socket tells.
    pub lane_bytes: u64,
    /// Between heartbeats, in milliseconds; `None`: none are wanted.
    pub heartbeat_ms: Option<u64>,
    /// The revision to start with; `None` when the settings type is `()`.
    pub settings: Option<Initial>,
    /// The state to start with; `None` when the state type is `()`.
    pub state: Option<Stored>,
    /// The verbs and targets this service may use of WatchdogQuery; empty: none.
    pub grant: Vec<String>,
}

/// The settings of a welcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Initial {
    /// Its number.
    pub revision: Revision,
    /// The settings as JSON text.
    pub json: Content,
}

/// Where the state of a welcome comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateOrigin {
    /// There was none: the initial value.
    Fresh,
    /// The newest known.
    Restored,
    /// The newest was damaged: the one before it.
    Recovered,
}

/// The state of a welcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Where it comes from.
    pub origin: StateOrigin,
    /// The sequence it had; the first update takes the next.
    pub sequence: Sequence,
    /// The version it was written with; meaningless when `Fresh`.
    pub version: u32,
    /// Its content; meaningless when `Fresh`.
    pub content: Content,
}

/// Bytes in the packet, or beside it. A welcome may have two beside it: its settings, then its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// In the packet.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// In the sealed memfd beside the packet.
    Beside {
        /// How many bytes it holds.
        length: u64,
    },
}

/// A lane that arrives at an inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneIn {
    /// Names the lane, and is the epoch of its ids.
    pub lane: LaneEpoch,
    /// Who sends.
    pub sender: ServiceName,
}

/// A lane to a peer's inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneOut {
    /// Names the lane, and is the epoch of its ids.
    pub lane: LaneEpoch,
    /// Who receives.
    pub receiver: ServiceName,
    /// Where the contracts part; `None`: they fit.
    pub mismatch: Option<Mismatch>,
}

/// Why there is no lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Nobody of that name is registered.
    #[error("no service `{name}` is registered{}", hint(.nearest.as_ref()))]
    NoSuchService {
        /// The name asked for.
        name: String,
        /// The nearest registered one.
        nearest: Option<ServiceName>,
    },
    /// The rules of one side forbid it.
    #[error("`{sender}` may not talk to `{receiver}`: {rule}")]
    Denied {
        /// Who asked.
        sender: ServiceName,
        /// For whom.
        receiver: ServiceName,
        /// Which rule.
        rule: String,
    },
    /// The peer is a plain program: it has no inbox.
    #[error("`{name}` is a plain program and has no inbox")]
    NoInbox {
        /// The name asked for.
        name: ServiceName,
    },
    /// The watchdog could not make it.
    #[error("the watchdog could not make the lane: {reason}")]
    Failed {
        /// Step and cause.
        reason: String,
    },
}

fn hint(nearest: Option<&ServiceName>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Service to core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromService {
    /// The first packet.
    Hello(Hello),
    /// Whoever waits for this service may start now. Accepts the initial settings.
    Ready,
    /// The newest state.
    State {
        /// Its number.
        sequence: Sequence,
        /// `State::VERSION`.
        version: u32,
        /// Written as soon as it arrives when a `save` waits for it, else within the save interval.
        urgency: Urgency,
        /// The encoded state.
        content: Content,
    },
    /// What the service thinks of a revision.
    Verdict {
        /// Its number.
        revision: Revision,
        /// Taken or not.
        verdict: Verdict,
    },
    /// Asks for a lane. Answered by [`ToService::Introduced`].
    Introduce {
        /// Numbers the request within this incarnation.
        request: u64,
        /// Whom to talk to; not yet a checked name, so that a wrong one is an answer and not an end.
        peer: String,
        /// What the caller compiled against.
        contract: Contract,
    },
    /// How the service says it is.
    Health(Health),
    /// How far a start or stop has come; extends its deadline.
    Progress(Progress),
    /// The service's own task is alive.
    Heartbeat,
    /// A call of WatchdogQuery: an encoded [`Call`](crate::control::Call).
    Control {
        /// Numbers the request within this incarnation.
        request: u64,
        /// The encoded call.
        call: Content,
    },
    /// The last word: why the process is about to end, when it is not a stop that was asked for.
    LastWord {
        /// The error's chain of causes, as text.
        reason: String,
    },
    /// Answers [`ToService::TookOver`], after all that was not answered has been repeated.
    Resumed(Resumed),
    /// A lane to the inbox was read to its end, and all of it is done: its sender may send no more.
    LaneDrained {
        /// Which lane.
        lane: LaneEpoch,
    },
}

/// What a service says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`SESSION_VERSION`] of the SDK.
    pub version: u16,
    /// Its process, as it sees it.
    pub pid: u32,
    /// [`Manifest::hash`](crate::manifest::Manifest::hash) of the running program.
    pub manifest: u64,
}

/// What a new core is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// The service has said ready.
    pub ready: bool,
    /// The last level it raised.
    pub health: Health,
    /// The revision it runs with; [`Revision::NONE`] when it has no settings.
    pub revision: Revision,
    /// The lanes it sends on.
    pub lanes_out: Vec<LaneEpoch>,
    /// The lanes that arrive at it.
    pub lanes_in: Vec<LaneEpoch>,
}

/// Whether somebody waits for a state to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Urgency {
    /// Within the save interval.
    Soon,
    /// A `save` waits.
    Now,
}

/// What a service thinks of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// In force.
    Accepted,
    /// Not taken; the values before it stay.
    Refused {
        /// In the service's words.
        reason: String,
    },
}

/// A service's own judgement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Health {
    /// All is well.
    #[default]
    Ok,
    /// It works, worse than it should.
    Degraded {
        /// In the service's words.
        reason: String,
    },
    /// It does not do its work; for longer than the policy allows is a restart.
    Failing {
        /// In the service's words.
        reason: String,
    },
}

/// How far a start or stop has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1; `None` when it is not known.
    pub fraction: Option<f32>,
    /// One line.
    pub text: String,
}

/// Bytes that are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any packet.
    #[error("{length} bytes, at most {MAX_PACKET} are read")]
    Long {
        /// Its length.
        length: usize,
    },
    /// Not of this protocol.
    #[error("not a message of this protocol")]
    Postcard(#[source] postcard::Error),
    /// A message with something behind it.
    #[error("{extra} bytes behind the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// One message as the bytes of one packet.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("session messages hold nothing postcard can't write")
}

/// One message from the bytes of one packet: all of them, no more.
///
/// # Errors
/// [`DecodeError`] when they are not exactly one message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MAX_PACKET {
        return Err(DecodeError::Long { length: bytes.len() });
    }
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(DecodeError::Postcard)?;
    if rest.is_empty() { Ok(message) } else { Err(DecodeError::Trailing { extra: rest.len() }) }
}
