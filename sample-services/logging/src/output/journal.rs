//! [`JournalSink`]: the journal of systemd, a datagram an entry.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::{Load, Sink, SinkError};
use crate::format::{Entry, Format};
use crate::settings::{JournaldSettings, OutputSettings};

/// What is left of an entry that is longer than a datagram may be.
const CUT: usize = 8 << 10;

/// A journal that does not read for so long is one that fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// `EMSGSIZE`, which the standard library has no name for.
const TOO_LONG: i32 = 90;

/// Where the journal listens.
#[derive(Debug)]
pub(super) struct JournalSink {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl JournalSink {
    pub(super) fn new(settings: &JournaldSettings) -> Self {
        Self { path: settings.socket().to_owned(), socket: None }
    }

    /// An entry, or as much of its head as goes.
    fn send(&mut self, entry: Entry<'_>) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket
            }
        };
        let socket = self.socket.insert(socket);
        // By its path each time: one that was started anew has another socket there.
        match socket.send_to(entry.whole, &self.path) {
            Err(error) if error.raw_os_error() == Some(TOO_LONG) => {
                socket.send_to(&entry.cut(CUT), &self.path).map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

impl Sink for JournalSink {
    fn write(&mut self, load: &mut Load) -> Result<(), SinkError> {
        for item in load {
            let parcel = item.parcel.clone();
            while let Some((entry, length)) = Entry::first(&parcel.lines(Format::Journal)[item.from..]) {
                match self.send(entry) {
                    Ok(()) => item.from += length,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        return Err(SinkError(format!(
                            "cannot write to the journal at {:?}: {error}",
                            self.path
                        )));
                    }
                }
            }
            item.is_done = true;
        }
        Ok(())
    }

    fn configure(&mut self, settings: &OutputSettings) {
        if let OutputSettings::Journald(settings) = settings {
            *self = Self::new(settings);
        }
    }
}
