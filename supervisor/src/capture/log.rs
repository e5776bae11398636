//! The log files of one service: appended, rotated, and what to do when the disk is full.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use watchdog_protocol::ServiceName;

use super::{Logs, Stream};
use crate::store::before;

/// The file of a service that is being written, or its `number`-th older one.
pub(super) fn path(folder: &Path, service: &ServiceName, number: u32) -> PathBuf {
    match number {
        0 => folder.join(format!("{service}.log")),
        _ => folder.join(format!("{service}.log.{number}")),
    }
}

/// What could not be written since the last record that could.
#[derive(Debug)]
struct Lost {
    lines: u64,
    bytes: usize,
    reason: String,
}

/// The log of one service.
#[derive(Debug)]
pub(super) struct Log {
    service: ServiceName,
    file: Option<File>,
    /// Boxed: most never have any, and a map has room for more logs than it holds.
    lost: Option<Box<Lost>>,
}

impl Log {
    pub(super) fn new(service: ServiceName) -> Self {
        Self { service, file: None, lost: None }
    }

    /// How long the file is that the next batch goes to; opened or rotated first if need be. 0 when there is none to
    /// be had: the append will say why.
    pub(super) fn length(&mut self, logs: &Logs) -> u64 {
        let present = self.file.as_ref().and_then(|file| file.metadata().ok());
        match present {
            // Removed by somebody: a file without a name is read by nobody.
            Some(now) if now.nlink() == 0 => self.file = None,
            Some(now) if now.size() >= logs.size => {
                self.file = None;
                if let Err(error) = self.rotate(logs) {
                    tracing::warn!("cannot rotate the log of `{}`: {error}; it grows on", self.service);
                }
            }
            Some(now) => return now.size(),
            None => {}
        }
        self.open(logs).and_then(|file| file.metadata()).map_or(0, |now| now.size())
    }

    /// Appends whole records behind the first `length` bytes of the file. When that can't be, they are counted and
    /// nothing of them is in the file; the count is written with the next records that can be.
    pub(super) fn append(&mut self, logs: &Logs, length: u64, stamp: &str, records: &str, lines: u64) {
        let told = self.lost.as_ref().map(|lost| {
            let Lost { lines, bytes, reason } = &**lost;
            format!(
                "{stamp} {} {lines} lines ({bytes} bytes) were lost: {reason}\n{records}",
                Stream::Watchdog
            )
        });
        let written = self.open(logs).and_then(|mut file| {
            before("append")?;
            file.write_all(told.as_deref().unwrap_or(records).as_bytes()).inspect_err(|_| {
                // A part may be in the file.
                let _ = file.set_len(length);
            })
        });
        match written {
            Ok(()) => self.lost = None,
            Err(error) => {
                let lost = self.lost.get_or_insert_with(|| {
                    tracing::warn!("cannot write the log of `{}`: {error}; its output is lost", self.service);
                    Box::new(Lost { lines: 0, bytes: 0, reason: error.to_string() })
                });
                lost.lines += lines;
                lost.bytes += records.len();
            }
        }
    }

    /// Cuts the file to `length`: behind it is a batch that was not finished. A file that somebody made shorter
    /// meanwhile stays as it is.
    pub(super) fn cut(&self, logs: &Logs, length: u64) -> io::Result<()> {
        let file = open(logs, &self.service)?;
        if file.metadata()?.size() > length {
            file.set_len(length)?;
        }
        Ok(())
    }

    /// Ends the last record if a power cut or a death of the keeper left a part of one.
    fn open(&mut self, logs: &Logs) -> io::Result<&File> {
        if self.file.is_none() {
            let mut file = open(logs, &self.service)?;
            if file.metadata()?.size() > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                }
            }
            self.file = Some(file);
        }
        Ok(self.file.as_ref().expect("just opened"))
    }

    /// Each file takes the place of the next older one, up to the first place that is free; the oldest goes.
    fn rotate(&self, logs: &Logs) -> io::Result<()> {
        let name = |number| path(&logs.folder, &self.service, number);
        let oldest = logs.files.saturating_sub(1);
        if oldest == 0 {
            return fs::remove_file(name(0));
        }
        // After a kill in the middle there is a free place between: shifting only up to it loses nothing.
        let last = (1..oldest).find(|number| !name(*number).exists()).unwrap_or(oldest);
        for number in (0..last).rev() {
            before("rotate")?;
            fs::rename(name(number), name(number + 1))?;
        }
        // Left from when more were kept.
        for number in logs.files.. {
            match fs::remove_file(name(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                done => done?,
            }
        }
        Ok(())
    }
}

fn open(logs: &Logs, service: &ServiceName) -> io::Result<File> {
    let open = || {
        let path = path(&logs.folder, service, 0);
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(&logs.folder)?;
            open()
        }
        opened => opened,
    }
}
