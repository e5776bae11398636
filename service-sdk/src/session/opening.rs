//! The first packets: a welcome that is queued before the process starts, and the hello that answers it.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use watchdog_protocol::limits::{MAX_PACKET, MAX_SETTINGS};
use watchdog_protocol::session::{
    FromService, Hello, SESSION_VERSION, StateOrigin, ToService, Welcome, decode, encode,
};
use watchdog_protocol::{Revision, Sequence};
use watchdog_seqpacket::{Received, Seqpacket};

use super::MAX_BESIDE;
use super::chain;
use super::packet::{self, Fault};

/// Only a watchdog that is not one keeps a welcome back.
const WELCOME_WAIT: Duration = Duration::from_secs(10);

/// What a process starts from, its contents read.
#[derive(Debug)]
pub(crate) struct Opening {
    /// All but the contents, which are taken out.
    pub(crate) welcome: Welcome,
    pub(crate) settings: Option<(Revision, Vec<u8>)>,
    pub(crate) state: Option<StoredState>,
}

/// The state of a welcome, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredState {
    pub(crate) origin: StateOrigin,
    pub(crate) sequence: Sequence,
    pub(crate) version: u32,
    pub(crate) bytes: Vec<u8>,
}

impl StoredState {
    /// None was stored.
    pub(crate) fn fresh() -> Self {
        Self { origin: StateOrigin::Fresh, sequence: Sequence::NONE, version: 0, bytes: Vec::new() }
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    #[error("the watchdog speaks session version {watchdog}, this program speaks {SESSION_VERSION}")]
    Version { watchdog: u16 },
    #[error("the watchdog refused this program: {reason}")]
    Rejected { reason: String },
    #[error("the watchdog is gone")]
    Gone,
    #[error("the watchdog's welcome is none: {reason}")]
    Broken { reason: String },
}

impl From<Fault> for OpeningError {
    fn from(fault: Fault) -> Self {
        Self::Broken { reason: chain(&fault) }
    }
}

/// Says hello and reads the welcome.
pub(crate) fn open(socket: &Seqpacket, manifest: u64) -> Result<Opening, OpeningError> {
    let hello = Hello { version: SESSION_VERSION, pid: std::process::id(), manifest };
    match socket.send(&[IoSlice::new(&encode(&FromService::Hello(hello)))], &[]) {
        // A watchdog that went after its welcome: the session's end says so.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Fault::Write(error).into()),
        _ => {}
    }
    let mut buffer = vec![0; MAX_PACKET];
    let deadline = Instant::now() + WELCOME_WAIT;
    let packet = match socket.recv_by(&mut buffer, MAX_BESIDE, deadline).map_err(Fault::Read)? {
        Received::Packet(packet) => packet,
        Received::End => return Err(OpeningError::Gone),
        Received::Oversize { .. } | Received::TooManyDescriptors | Received::Empty => {
            return Err(Fault::Packet("the packet is none of this protocol").into());
        }
    };
    let bytes = &buffer[..packet.length];
    let mut welcome = match decode(bytes) {
        Ok(ToService::Welcome(welcome)) => welcome,
        Ok(ToService::Rejected { reason }) => return Err(OpeningError::Rejected { reason }),
        Ok(_) => return Err(Fault::Packet("another message came first").into()),
        // Another version's welcome has other fields, but starts with its number.
        Err(error) => return Err(foreign_version(bytes).unwrap_or_else(|| Fault::Decode(error).into())),
    };
    if welcome.version != SESSION_VERSION {
        return Err(OpeningError::Version { watchdog: welcome.version });
    }
    let limit = usize::try_from(welcome.max_message).unwrap_or(usize::MAX);
    let mut beside = packet.descriptors.into_iter();
    let settings = match welcome.settings.take() {
        Some(initial) => {
            let json = packet::content("settings", initial.json, &mut beside, MAX_SETTINGS)?;
            Some((initial.revision, json))
        }
        None => None,
    };
    let state = match welcome.state.take() {
        Some(stored) => Some(StoredState {
            origin: stored.origin,
            sequence: stored.sequence,
            version: stored.version,
            bytes: packet::content("state", stored.content, &mut beside, limit)?,
        }),
        None => None,
    };
    Ok(Opening { welcome, settings, state })
}

/// The version of a welcome this program can't read further.
fn foreign_version(bytes: &[u8]) -> Option<OpeningError> {
    const WELCOME: u32 = 0;
    let (variant, rest) = postcard::take_from_bytes::<u32>(bytes).ok()?;
    let (watchdog, _) = postcard::take_from_bytes::<u16>(rest).ok()?;
    (variant == WELCOME && watchdog != SESSION_VERSION).then_some(OpeningError::Version { watchdog })
}
