//! Whether something happened to the files in the runtime folder.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often to look where the kernel can't be asked to tell.
const LOOK: Duration = Duration::from_secs(2);

/// Room for some events: 16 bytes and a name each.
const EVENTS: usize = 4096;

/// A folder that is watched.
#[derive(Debug)]
pub(super) struct WatchedFolder(How);

#[derive(Debug)]
enum How {
    /// Costs nothing while nothing happens.
    Told { inotify: Inotify, folder: WatchDescriptor, events: Receiver },
    /// The user's instances are used up.
    Looked(Interval),
}

impl WatchedFolder {
    /// From now on. A folder that is made anew must be watched anew.
    pub(super) fn watch(folder: &Path) -> Self {
        let told = || -> io::Result<_> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
            let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            let folder = inotify.add_watch(folder, gone | itself)?;
            // What is read of it as of a pipe are events; nobody looks at them.
            let events = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
            Ok(How::Told { inotify, folder, events })
        };
        Self(told().unwrap_or_else(|error| {
            tracing::warn!(%error, "the runtime folder is looked at every {LOOK:?}");
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            How::Looked(look)
        }))
    }

    /// Watches no longer. Some time before the drop: the kernel takes a watch apart in the background, 10 ms and
    /// more, and whoever closes the last descriptor before that waits for it.
    pub(super) fn forget(&mut self) {
        if let How::Told { inotify, folder, .. } = &self.0 {
            // The folder may be gone, and the watch with it.
            let _ = inotify.rm_watch(*folder);
        }
    }

    /// A name in the folder may be gone, or another file's. Cancel safe.
    pub(super) async fn changed(&mut self) {
        match &mut self.0 {
            How::Told { events, .. } => loop {
                if events.readable().await.is_err() {
                    return std::future::pending().await;
                }
                // What happened is looked up; a full queue says as much.
                if events.try_read(&mut [0; EVENTS]).is_ok() {
                    return;
                }
            },
            How::Looked(look) => drop(look.tick().await),
        }
    }
}
