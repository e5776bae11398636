//! The control socket. One connection is one call:
//!
//! ```text
//! client   greeting ─►            call ─►
//! watchdog           ◄─ greeting          ◄─ progress or event, any number   ◄─ end
//! ```
//! So a call that is given up is a connection that is closed, calls do not wait for each other, and a client
//! that does nothing holds nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName as _};
use tokio::io::AsyncWriteExt;
use watchdog_protocol::control::{CONTROL_VERSION, Greeting, decode, frame};

use crate::QueryError;
use crate::frames::{Frames, FramesError};
use crate::short_path::ShortPath;
use crate::transport::{BoxFuture, Replies, Transport};

/// How long a socket that nobody listens at is tried again: a core that died early and often is replaced after 5 s
/// at the latest, and needs a moment to take over.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The transport of operators. Needs no connection to exist; each call makes its own.
pub struct ControlSocket {
    path: PathBuf,
    watchdog_lives: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl fmt::Debug for ControlSocket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ControlSocket").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ControlSocket {
    /// The socket at `path`, of any length.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), watchdog_lives: None }
    }

    /// Another way to know whether the watchdog is there, asked when its socket does not answer. While it says so,
    /// a missing socket is waited for; when it does not, nothing is. Without it, a socket file is waited for and a
    /// missing one is not.
    #[must_use]
    pub fn while_alive(mut self, watchdog_lives: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.watchdog_lives = Some(Box::new(watchdog_lives));
        self
    }

    fn unreachable(&self, source: io::Error) -> QueryError {
        let source = match &self.watchdog_lives {
            Some(lives) if source.kind() == io::ErrorKind::NotFound && lives() => {
                // It makes a new one within seconds: like a socket that nobody listens at yet.
                io::Error::new(io::ErrorKind::ConnectionRefused, source)
            }
            _ => source,
        };
        QueryError::NotReachable { path: self.path.clone(), source }
    }

    async fn open(&self) -> Result<Frames<Stream>, QueryError> {
        let stream = connect(&self.path).await.map_err(|source| self.unreachable(source))?;
        let mut frames = Frames::new(stream);
        // A watchdog that refuses at once has closed by now: its greeting is there to read all the same.
        let sent = frames.stream().write_all(&frame(&Greeting::ours())).await;
        let body = match next(&mut frames).await {
            Err(QueryError::Closed { .. }) if sent.is_err() => {
                return Err(QueryError::Closed { source: sent.err() });
            }
            other => other?,
        };
        let theirs: Greeting = decode(&body).map_err(|_| self.stranger())?;
        match theirs {
            Greeting { magic, .. } if magic != Greeting::ours().magic => Err(self.stranger()),
            Greeting { refused: Some(failure), .. } => Err(QueryError::Refused(failure)),
            Greeting { version, .. } if version != CONTROL_VERSION => {
                Err(QueryError::Version { ours: CONTROL_VERSION, theirs: version })
            }
            _ => Ok(frames),
        }
    }

    fn stranger(&self) -> QueryError {
        QueryError::Stranger { path: self.path.clone() }
    }
}

async fn connect(path: &Path) -> io::Result<Stream> {
    let short = ShortPath::of(path)?;
    Stream::connect(short.as_path().to_fs_name::<GenericFilePath>()?).await
}

impl Transport for ControlSocket {
    fn call(&self, call: Vec<u8>) -> BoxFuture<'_, Result<Box<dyn Replies>, QueryError>> {
        Box::pin(async move {
            let mut frames = self.open().await?;
            let length = u32::try_from(call.len()).unwrap_or(u32::MAX).to_le_bytes();
            let stream = frames.stream();
            // A watchdog that stops reading has said why, or is gone: both are read, not written.
            if stream.write_all(&length).await.is_ok() {
                let _ = stream.write_all(&call).await;
            }
            Ok(Box::new(frames) as Box<dyn Replies>)
        })
    }

    fn patience(&self) -> Duration {
        match &self.watchdog_lives {
            Some(lives) if !lives() => Duration::ZERO,
            _ => TAKEOVER,
        }
    }
}

impl Replies for Frames<Stream> {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, QueryError>> {
        Box::pin(next(self))
    }
}

async fn next(frames: &mut Frames<Stream>) -> Result<Vec<u8>, QueryError> {
    match frames.next().await {
        Ok(Some(body)) => Ok(body),
        Ok(None) | Err(FramesError::Cut) => Err(QueryError::Closed { source: None }),
        Err(FramesError::Io(source)) => Err(QueryError::Closed { source: Some(source) }),
        Err(FramesError::Long { length }) => Err(QueryError::Long { length }),
    }
}
