//! [`Sweeper`]: a thread that removes and compresses older files, so that no record waits for it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::naming::{Naming, PACKED, UNFINISHED};
use super::old::{self, OldFile};
use crate::settings::FileSettings;

/// Between two looks whether to stop.
const BLOCK: usize = 256 << 10;

/// Joined when it is dropped, which ends it at the next block.
#[derive(Debug)]
pub(super) struct Sweeper {
    wake: Option<SyncSender<()>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What it goes by.
#[derive(Debug)]
struct Rules {
    folder: PathBuf,
    naming: Naming,
    keep: usize,
    total: u64,
    packs: bool,
    is_over: Arc<AtomicBool>,
}

impl Sweeper {
    pub(super) fn start(folder: PathBuf, naming: Naming, settings: &FileSettings) -> Self {
        // One that waits stands for all: it looks at what is there when it begins.
        let (wake, woken) = sync_channel(1);
        let is_over = Arc::new(AtomicBool::new(false));
        let rules = Rules {
            folder,
            naming,
            keep: usize::try_from(settings.keep).unwrap_or(usize::MAX),
            total: settings.total_size.bytes(),
            packs: settings.compress,
            is_over: Arc::clone(&is_over),
        };
        let thread = thread::Builder::new().name("old-files".into()).spawn(move || rules.run(&woken));
        let thread =
            thread.inspect_err(|error| tracing::error!(%error, "no thread for older files: they stay")).ok();
        Self { wake: Some(wake), is_over, thread }
    }

    /// There is a file more, or limits are others.
    pub(super) fn sweep(&self) {
        match self.wake.as_ref().expect("until it is dropped").try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) | Err(TrySendError::Disconnected(())) => {}
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for older files has panicked");
        }
    }
}

impl Rules {
    fn run(&self, woken: &Receiver<()>) {
        while woken.recv().is_ok() && !self.is_over.load(Ordering::Relaxed) {
            if let Err(error) = self.sweep() {
                tracing::warn!(folder = ?self.folder, %error, "cannot look after older files");
            }
        }
    }

    fn sweep(&self) -> io::Result<()> {
        let listing = old::list(&self.folder, &self.naming)?;
        let doomed = old::doomed(&listing, self.keep, self.total);
        for name in listing.unfinished.iter().chain(doomed.iter().map(|file| &file.name)) {
            fs::remove_file(self.folder.join(name))?;
        }
        for file in old::to_pack(&listing).filter(|file| self.packs && !doomed.contains(file)) {
            if !pack(&self.folder, file, &self.is_over)? {
                return Ok(());
            }
        }
        // What was packed takes less: files that are gone stay gone.
        Ok(())
    }
}

/// Compresses a file in three steps, of which a kill between any two loses nothing. `false`: it was to stop.
fn pack(folder: &Path, file: &OldFile, is_over: &AtomicBool) -> io::Result<bool> {
    let (plain, part) = (folder.join(&file.name), folder.join(format!("{}{UNFINISHED}", file.name)));
    let mut from = File::open(&plain)?;
    let mut to = GzEncoder::new(File::create(&part)?, Compression::default());
    let mut block = vec![0; BLOCK];
    loop {
        if is_over.load(Ordering::Relaxed) {
            fs::remove_file(&part)?;
            return Ok(false);
        }
        match from.read(&mut block)? {
            0 => break,
            length => to.write_all(&block[..length])?,
        }
    }
    // On disk before the other one goes.
    to.finish()?.sync_all()?;
    fs::rename(&part, folder.join(format!("{}{PACKED}", file.name)))?;
    fs::remove_file(&plain)?;
    Ok(true)
}
