//! The door for operators: `watchdog.sock` in the runtime folder.
//!
//! ```text
//! accept ─► greeting ─► who is it? ─► one call ─► event loop
//!                          └► refused               │ replies, at most REPLIES of them unread
//!                                    client ◄───────┘ until the end, or until either side goes
//! ```
//! One connection is one call, and one task in a set that the door joins. What a client does wrong ends its own
//! connection and nothing else: silence and half frames at a deadline, lengths and bytes that are none at once,
//! a client that does not read after [`SLOW`]. There is no decision about services in here; whether the request
//! may be done and is done is the event loop's.

mod folder;
mod peer;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{
    CONTROL_VERSION, Call, Failure, FailureKind, Greeting, Reply, decode, frame,
};
use watchdog_query::ShortPath;
use watchdog_query::frames::{Frames, FramesError};

use crate::processes::proc::Identity;

use self::folder::WatchedFolder;
pub(crate) use self::peer::Caller;
use self::peer::Doorkeeper;

/// The socket's name in the runtime folder.
pub(crate) const SOCKET: &str = "watchdog.sock";

/// Connections at a time: each costs a descriptor and may be an `events -f` that stays. One more is told to try
/// again.
const CONNECTIONS: usize = 64;

/// From the accept to the greeting, and from that to the whole call.
const FRAME: Duration = Duration::from_secs(5);

/// A reply that is not read for so long ends its connection.
const SLOW: Duration = Duration::from_secs(30);

/// Replies that wait for one client: a burst of events passes, a client that does not read holds little.
const REPLIES: usize = 256;

/// After the door was told to close, how long replies under way have to get out.
const CLOSING: Duration = Duration::from_secs(1);

/// How long the door is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hours {
    /// It stays, whatever becomes of its file.
    Open,
    /// Everything is being stopped: whoever comes is let in, a file that is deleted does not come back.
    Closing,
    /// Nobody is let in.
    Closed,
}

/// One request of an operator, for the event loop.
#[derive(Debug)]
pub(crate) struct ControlCall {
    /// As sent.
    pub(crate) call: Call,
    /// Whose.
    pub(crate) caller: Caller,
    /// Any number of replies, the last an [`Reply::End`]. Closed when the client went away; use `try_send`, and
    /// take a full one for a client that does not read: dropping the sender closes its connection.
    pub(crate) replies: mpsc::Sender<Reply>,
}

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// The runtime folder can't be made or closed to others.
    #[error("cannot prepare the runtime folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime folder is another user's.
    #[error("the runtime folder {} belongs to uid {owner}, expected {ours}", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// The socket can't be made.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The listening socket, and who passes.
#[derive(Debug)]
pub(crate) struct ControlDoor {
    folder: PathBuf,
    bound: Bound,
    doorkeeper: Arc<Doorkeeper>,
}

impl ControlDoor {
    /// Listens in `runtime`, which is made when missing and closed to all others. A socket that is there is
    /// replaced: the caller holds the lock of the state folder, so nobody listens at it.
    ///
    /// Descendants of `keeper` do not pass; `service_of` names the service that one of these processes leads, for the
    /// text.
    ///
    /// # Errors
    /// [`DoorError`].
    pub(crate) fn open(
        runtime: &Path,
        keeper: u32,
        service_of: impl Fn(&[Identity]) -> Option<ServiceName> + Send + Sync + 'static,
    ) -> Result<Self, DoorError> {
        let doorkeeper = Arc::new(Doorkeeper::new(keeper, service_of));
        Ok(Self { bound: Bound::listen(runtime)?, folder: runtime.to_owned(), doorkeeper })
    }

    /// Lets operators in until it is closed, or until nobody takes `calls`. Then the socket goes, and replies that were
    /// handed over get out, for at most 1 s.
    pub(crate) async fn serve(mut self, calls: mpsc::Sender<ControlCall>, mut until: watch::Receiver<Hours>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                hours = changed(&mut until) => match hours {
                    Hours::Open => {}
                    Hours::Closing => self.bound.folder.forget(),
                    Hours::Closed => break,
                },
                () = calls.closed() => break,
                accepted = self.bound.listener.accept() => match accepted {
                    Ok(stream) if connections.len() < CONNECTIONS => {
                        let (doorkeeper, calls) = (Arc::clone(&self.doorkeeper), calls.clone());
                        connections.spawn(async move { serve_one(&stream, &doorkeeper, &calls).await });
                    }
                    Ok(stream) => turn_away(&stream).await,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an operator");
                        // Out of descriptors: the connection stays in the queue and accept would spin.
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
                () = self.bound.folder.changed() => self.listen_again_if_gone(),
            }
        }
        self.bound.remove();
        let last_replies = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        let _ = timeout(CLOSING, last_replies).await;
        connections.shutdown().await;
    }

    fn listen_again_if_gone(&mut self) {
        if self.bound.is_there() {
            return;
        }
        match Bound::listen(&self.folder) {
            Ok(bound) => {
                tracing::warn!(path = %bound.path.display(), "the control socket was deleted; it is back");
                self.bound = bound;
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "no control socket"),
        }
    }
}

async fn changed(until: &mut watch::Receiver<Hours>) -> Hours {
    // Nobody left to close the door closes it.
    until.changed().await.map_or(Hours::Closed, |()| *until.borrow_and_update())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a control connection failed");
    }
}

/// The socket, and which file it is.
#[derive(Debug)]
struct Bound {
    listener: Listener,
    path: PathBuf,
    file: (u64, u64),
    folder: WatchedFolder,
}

impl Bound {
    fn listen(folder: &Path) -> Result<Self, DoorError> {
        prepare(folder)?;
        let watched = WatchedFolder::watch(folder);
        let path = folder.join(SOCKET);
        let staged = folder.join("watchdog.sock.new");
        let listen = || {
            remove_file(&staged)?;
            let short = ShortPath::of(&staged)?;
            let listener = ListenerOptions::new()
                .name(short.as_path().to_fs_name::<GenericFilePath>()?)
                .mode(0o600)
                .reclaim_name(false)
                .create_tokio()?;
            let metadata = fs::symlink_metadata(&staged)?;
            // In one step: a client finds the old socket or a new one that listens, never none.
            fs::rename(&staged, &path)?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        };
        match listen() {
            Ok((listener, file)) => Ok(Self { listener, path, file, folder: watched }),
            Err(source) => Err(DoorError::Listen { path, source }),
        }
    }

    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file)
    }

    /// A clean end leaves no file, which tells a client at once that no watchdog runs.
    fn remove(&self) {
        if self.is_there()
            && let Err(error) = remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn prepare(folder: &Path) -> Result<(), DoorError> {
    let failed = |source| DoorError::Folder { path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let metadata = fs::metadata(folder).map_err(failed)?;
    let (owner, ours) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != ours {
        return Err(DoorError::Owner { path: folder.to_owned(), owner, ours });
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// One more than there is room for. Its socket buffer is empty, so this does not wait.
async fn turn_away(stream: &Stream) {
    let text = format!("{CONNECTIONS} control connections are open, which is the most the watchdog keeps");
    let failure = Failure::new(FailureKind::TryAgain, text).hint("end an `events -f`, or try again in 5 s");
    let greeting = Greeting { refused: Some(failure), ..Greeting::ours() };
    let _ = timeout(Duration::from_millis(10), { stream }.write_all(&frame(&greeting))).await;
}

async fn serve_one(stream: &Stream, doorkeeper: &Doorkeeper, calls: &mpsc::Sender<ControlCall>) {
    let mut frames = Frames::new(stream);
    let Ok(Some(caller)) = timeout(FRAME, greet(&mut frames, doorkeeper)).await else { return };
    let call = match timeout(FRAME, frames.next()).await {
        // It went, or said nothing more: nobody reads an answer.
        Err(_) | Ok(Ok(None) | Err(FramesError::Io(_) | FramesError::Cut)) => return,
        Ok(Err(error @ FramesError::Long { .. })) => Err(Failure::new(FailureKind::Usage, error.to_string())),
        Ok(Ok(Some(body))) => decode::<Call>(&body)
            .map_err(|error| Failure::new(FailureKind::Usage, format!("the call can't be read: {error}"))),
    };
    let call = match call {
        Ok(call) => call,
        Err(failure) => {
            tracing::warn!(%caller, %failure, "a control connection was closed");
            let _ = send(stream, &Reply::End(Err(failure))).await;
            return;
        }
    };
    let (replies, mut outgoing) = mpsc::channel(REPLIES);
    if calls.send(ControlCall { call, caller, replies }).await.is_err() {
        return;
    }
    loop {
        let reply = tokio::select! {
            // Answers first: an end that is there goes out though the client has closed its side.
            biased;
            reply = outgoing.recv() => reply,
            // The client went away, or sends a second call on one connection.
            _ = frames.next() => return,
        };
        let Some(reply) = reply else { return };
        if send(stream, &reply).await.is_err() || matches!(reply, Reply::End(_)) {
            return;
        }
    }
}

/// Greets back; `None` when nothing comes of it.
async fn greet(frames: &mut Frames<&Stream>, doorkeeper: &Doorkeeper) -> Option<Caller> {
    let greeting: Greeting = decode(&frames.next().await.ok()??).ok()?;
    if greeting.magic != Greeting::ours().magic {
        return None;
    }
    let stream: &Stream = frames.stream();
    let admitted = if greeting.version == CONTROL_VERSION {
        doorkeeper.admit(stream)
    } else {
        let text = format!(
            "the watchdog speaks version {CONTROL_VERSION} of the control protocol, the caller version {}",
            greeting.version
        );
        Err(Failure::new(FailureKind::Failed, text).hint("use the `watchdog` command of the same release"))
    };
    let refused = admitted.as_ref().err().cloned();
    if let Some(failure) = &refused {
        tracing::warn!(%failure, "a control connection was refused");
    }
    { stream }.write_all(&frame(&Greeting { refused, ..Greeting::ours() })).await.ok()?;
    admitted.ok()
}

async fn send(mut stream: &Stream, reply: &Reply) -> io::Result<()> {
    timeout(SLOW, stream.write_all(&frame(reply))).await?
}
