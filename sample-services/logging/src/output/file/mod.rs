//! [`FileSink`]: one file a service, or one for all; rotated, and never with half a record in it.
//!
//! What is written is in the page cache: it outlives this process, not a crash of the host.

mod current;
mod naming;
mod old;
mod rotation;
mod sweeper;
mod tail;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::current::{Current, Written};
use self::naming::Naming;
use self::rotation::Rotation;
use self::sweeper::Sweeper;
use super::{Item, Load, Sink, SinkError};
use crate::format::Format;
use crate::now;
use crate::settings::{FileSettings, OutputSettings};

/// Files that are open at once; the one written longest ago is closed for another one.
const MOST_OPEN: usize = 256;

/// Files of records.
pub(super) struct FileSink {
    /// What a relative path is below.
    base: PathBuf,
    /// Where the files are.
    folder: PathBuf,
    naming: Naming,
    format: Format,
    rotation: Rotation,
    /// By name.
    open: BTreeMap<String, Current>,
    sweeper: Sweeper,
    /// Milliseconds since 1970.
    clock: Clock,
    /// For what goes to the same file in one write.
    buffer: Vec<u8>,
}

type Clock = Box<dyn Fn() -> u64 + Send>;

impl FileSink {
    pub(super) fn new(base: PathBuf, settings: &FileSettings) -> Self {
        Self::with_clock(base, settings, Box::new(now::millis))
    }

    fn with_clock(base: PathBuf, settings: &FileSettings, clock: Clock) -> Self {
        let path = base.join(settings.path());
        let folder = path.parent().map_or_else(|| base.clone(), Path::to_owned);
        let naming = Naming::new(path.file_name().unwrap_or_default().to_string_lossy().as_ref());
        let sweeper = Sweeper::start(folder.clone(), naming.clone(), settings);
        // What limits that were changed meanwhile allow no more.
        sweeper.sweep();
        Self {
            base,
            folder,
            naming,
            format: settings.format.into(),
            rotation: Rotation {
                max_size: settings.max_size.bytes(),
                every: settings.every.map(|every| every.as_millis()),
            },
            open: BTreeMap::new(),
            sweeper,
            clock,
            buffer: Vec::new(),
        }
    }

    /// Appends all of these items, which go to the same file, rotating where it is due.
    fn append(&mut self, name: &str, items: &mut [&mut Item]) -> Result<(), SinkError> {
        self.open(name)?;
        for item in items.iter_mut().filter(|item| item.parcel.is_redelivered) {
            self.trim(name, item)?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = match items {
            [item] => self.append_lines(name, &item.parcel.lines(self.format)[item.from..]),
            _ => {
                buffer.clear();
                items
                    .iter()
                    .for_each(|item| buffer.extend_from_slice(&item.parcel.lines(self.format)[item.from..]));
                self.append_lines(name, &buffer)
            }
        };
        self.buffer = buffer;
        let Written { mut bytes, error } = result;
        for item in items {
            let left = item.parcel.lines(self.format).len() - item.from;
            let taken = left.min(bytes);
            bytes -= taken;
            item.from += taken;
            item.is_done = taken == left;
        }
        error.map_or(Ok(()), Err)
    }

    /// Whole lines; how many bytes of them are in files, whatever happens.
    fn append_lines(&mut self, name: &str, lines: &[u8]) -> Written {
        let mut bytes = 0;
        let mut step = || -> Result<(), SinkError> {
            while bytes < lines.len() {
                self.open(name)?;
                let current = self.open.get_mut(name).expect("it was opened just now");
                let now = (self.clock)();
                let Some(take) = current.room_for(&lines[bytes..], &self.rotation, now) else {
                    self.rotate(name, now)?;
                    continue;
                };
                let Written { bytes: written, error } = current.write(&lines[bytes..bytes + take], now);
                bytes += written;
                if let Some(error) = error {
                    // Opened anew before the next try: whatever is wrong with it may be the descriptor.
                    self.open.remove(name);
                    return Err(error);
                }
            }
            Ok(())
        };
        let error = step().err();
        Written { bytes, error }
    }

    fn open(&mut self, name: &str) -> Result<(), SinkError> {
        let path = self.folder.join(name);
        if self.open.get_mut(name).is_some_and(|current| current.is_still(&path)) {
            return Ok(());
        }
        self.open.remove(name);
        if self.open.len() >= MOST_OPEN {
            let oldest = self
                .open
                .iter()
                .min_by_key(|(_, current)| current.last_write())
                .map(|(name, _)| name.clone());
            self.open.remove(&oldest.expect("there are some"));
        }
        self.open.insert(name.to_owned(), Current::open(&path)?);
        Ok(())
    }

    fn rotate(&mut self, name: &str, now: u64) -> Result<(), SinkError> {
        self.open.remove(name);
        let newest = self.old(name)?.last().map(|old| old.stamp);
        // Later than the one before, also when the clock was set back.
        let stamp = newest.map_or(now, |newest| now.max(newest + 1));
        let (from, to) = (self.folder.join(name), self.folder.join(naming::old(name, stamp)));
        std::fs::rename(&from, &to).map_err(|error| fails("rename", &from, &error))?;
        self.sweeper.sweep();
        Ok(())
    }

    /// The older files of one, the oldest first.
    fn old(&self, name: &str) -> Result<Vec<old::OldFile>, SinkError> {
        let all =
            old::list(&self.folder, &self.naming).map_err(|error| fails("list", &self.folder, &error))?;
        Ok(all.files.into_iter().filter(|old| old.current == name).collect())
    }

    /// Leaves out of a parcel what an earlier process of this service has written of it.
    fn trim(&mut self, name: &str, item: &mut Item) -> Result<(), SinkError> {
        let parcel = &item.parcel;
        let (service, incarnation) = (parcel.service.as_str(), parcel.batch.incarnation);
        let mut last =
            self.open.get(name).map(|current| current.last_of(self.format, service)).transpose()?.flatten();
        if last.is_none()
            && let Some(old) = self.old(name)?.into_iter().rfind(|old| !old.is_packed)
        {
            last = tail::last_in(&self.folder.join(&old.name), self.format, service)?;
        }
        let written = last.filter(|last| last.incarnation == incarnation).map_or(0, |last| last.number);
        item.parcel = Arc::new(parcel.after(written));
        Ok(())
    }
}

impl Sink for FileSink {
    fn write(&mut self, load: &mut Load) -> Result<(), SinkError> {
        let mut files: BTreeMap<String, Vec<&mut Item>> = BTreeMap::new();
        for item in load {
            files.entry(self.naming.current(item.parcel.service.as_str())).or_default().push(item);
        }
        // A file that can't be written holds up no other one.
        let mut result = Ok(());
        for (name, mut items) in files {
            result = result.and(self.append(&name, &mut items));
        }
        result
    }

    fn configure(&mut self, settings: &OutputSettings) {
        if let OutputSettings::File(settings) = settings {
            let clock = std::mem::replace(&mut self.clock, Box::new(now::millis));
            *self = Self::with_clock(std::mem::take(&mut self.base), settings, clock);
        }
    }
}

fn fails(what: &str, path: &Path, error: &io::Error) -> SinkError {
    SinkError(format!("cannot {what} {path:?}: {error}"))
}

#[cfg(test)]
mod tests;
