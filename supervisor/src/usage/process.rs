//! What one process uses.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::account::Account;
use super::kept::{Kept, Room};
use super::told;
use crate::processes::{Identity, Process};

/// With more threads, how long they waited is not asked: it is a file each.
const THREADS: u64 = 512;

/// With more entries, a table of descriptors is counted only by whoever wants what is dear.
const DESCRIPTORS: usize = 1000;

/// The kernel counts what processes read and write.
static COUNTS_IO: LazyLock<bool> = LazyLock::new(|| fs::exists("/proc/self/io").unwrap_or(false));

/// The kernel counts how long threads wait: one that runs has run.
static COUNTS_WAITING: LazyLock<bool> = LazyLock::new(|| {
    fs::read("/proc/self/schedstat").ok().and_then(|text| told::number(&text)).is_some_and(|ran| ran > 0)
});

/// A process that is looked at again and again.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) process: Process,
    pub(super) cpu: Account,
    pub(super) read: Account,
    pub(super) written: Account,
    stat: Kept,
    io: Kept,
    status: Kept,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    tid: i32,
    schedstat: Kept,
    /// In nanoseconds, as last read.
    waited: u64,
}

impl Watched {
    /// # Errors
    /// `NotFound`: nobody has this pid any more.
    pub(super) fn begin(pid: i32, room: &mut Room, buffer: &mut [u8]) -> io::Result<Self> {
        let mut stat = Kept::default();
        let process = process(&mut stat, pid, room, buffer)?;
        let [cpu, read, written] = [Account::default(); 3];
        let [io, status] = [Kept::default(), Kept::default()];
        Ok(Self { process, cpu, read, written, stat, io, status, threads: Vec::new() })
    }

    /// Looks again; whether it is still the same process.
    ///
    /// # Errors
    /// `NotFound`: it is gone.
    pub(super) fn look(&mut self, room: &mut Room, buffer: &mut [u8]) -> io::Result<bool> {
        let Identity { pid, start_time } = self.process.identity;
        self.process = process(&mut self.stat, pid, room, buffer)?;
        Ok(self.process.identity.start_time == start_time)
    }

    /// A child of it is gone.
    pub(super) fn inherit(&mut self, child: &Self) {
        self.cpu.inherit(child.cpu);
        self.read.inherit(child.read);
        self.written.inherit(child.written);
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.identity.pid))
    }

    /// Bytes read from disks and bytes that go to them, since its start and of children it has waited for.
    ///
    /// # Errors
    /// `NotFound`: it is gone; `PermissionDenied`; `Unsupported`.
    pub(super) fn disks(&mut self, room: &mut Room, buffer: &mut [u8]) -> io::Result<(u64, u64)> {
        if !*COUNTS_IO {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let path = self.file("io");
        let text = self.io.read(room, buffer, || path)?;
        let known = told::keyed(text, "read_bytes:").zip(told::keyed(text, "write_bytes:"));
        known.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// What its threads waited for a processor since they were last asked, in nanoseconds.
    ///
    /// # Errors
    /// `NotFound`: it is gone; `Unsupported`, also with very many threads.
    pub(super) fn waited(&mut self, room: &mut Room, buffer: &mut [u8]) -> io::Result<u64> {
        let count = self.process.threads;
        if !*COUNTS_WAITING || count > THREADS {
            self.threads.drain(..).for_each(|mut thread| thread.schedstat.close(room));
            return Err(io::ErrorKind::Unsupported.into());
        }
        let pid = self.process.identity.pid;
        let mut grown = 0;
        let mut known = self.threads.len();
        self.threads.retain_mut(|thread| {
            let waited = thread.waited(pid, room, buffer);
            grown += waited.as_ref().copied().unwrap_or(0);
            waited.is_ok()
        });
        known -= self.threads.len();
        // As many as there are, and all of them live: these are all.
        if known == 0 && self.threads.len() as u64 == count {
            return Ok(grown);
        }
        for entry in fs::read_dir(self.file("task"))? {
            let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.threads.iter().any(|thread| thread.tid == tid) {
                continue;
            }
            let mut thread = Thread { tid, schedstat: Kept::default(), waited: 0 };
            // One that ends meanwhile is none of them any more.
            if let Ok(waited) = thread.waited(pid, room, buffer) {
                grown += waited;
                self.threads.push(thread);
            }
        }
        Ok(grown)
    }

    /// Of its memory, what lies on the disk, in bytes.
    ///
    /// # Errors
    /// `NotFound`: it is gone.
    pub(super) fn swap(&mut self, room: &mut Room, buffer: &mut [u8]) -> io::Result<u64> {
        let path = self.file("status");
        let text = self.status.read(room, buffer, || path)?;
        // One that is ending has no memory, and no line.
        Ok(told::keyed(text, "VmSwap:").map_or(0, |kib| kib * 1024))
    }

    /// Its share of the memory it uses, in bytes. The kernel walks all of it: a tenth of a millisecond and more.
    ///
    /// # Errors
    /// `NotFound`: it is gone; `PermissionDenied`.
    pub(super) fn pss(&self) -> io::Result<u64> {
        let text = fs::read(self.file("smaps_rollup")).map_err(|error| match error.raw_os_error() {
            Some(gone) if gone == nix::libc::ESRCH => io::ErrorKind::NotFound.into(),
            _ => error,
        })?;
        Ok(told::keyed(&text, "Pss:").map_or(0, |kib| kib * 1024))
    }

    /// # Errors
    /// As [`Process::descriptors`]; `Unsupported`: they are many, and dear to count.
    pub(super) fn descriptors(&self, is_dear: bool) -> io::Result<u64> {
        let most = if is_dear { usize::MAX } else { DESCRIPTORS };
        self.process.descriptors_up_to(most)?.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(super) fn close(&mut self, room: &mut Room) {
        for kept in [&mut self.stat, &mut self.io, &mut self.status] {
            kept.close(room);
        }
        self.threads.iter_mut().for_each(|thread| thread.schedstat.close(room));
    }
}

impl Thread {
    fn waited(&mut self, pid: i32, room: &mut Room, buffer: &mut [u8]) -> io::Result<u64> {
        let path = || PathBuf::from(format!("/proc/{pid}/task/{}/schedstat", self.tid));
        let text = self.schedstat.read(room, buffer, path)?;
        let mut words = text.split(u8::is_ascii_whitespace).skip(1);
        let now = words.next().and_then(told::number).ok_or(io::ErrorKind::InvalidData)?;
        let grown = now.saturating_sub(self.waited);
        self.waited = now;
        Ok(grown)
    }
}

fn process(stat: &mut Kept, pid: i32, room: &mut Room, buffer: &mut [u8]) -> io::Result<Process> {
    let text = stat.read(room, buffer, || PathBuf::from(format!("/proc/{pid}/stat")))?;
    Process::parse(text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn ones_own_threads_are_found_as_they_come_and_go() {
        let (mut room, mut buffer) = (Room::of(64), vec![0; 8192]);
        let own = std::process::id().cast_signed();
        let mut watched = Watched::begin(own, &mut room, &mut buffer).unwrap();
        assert!(watched.look(&mut room, &mut buffer).unwrap());
        let (go, gone) = mpsc::sync_channel::<()>(0);
        let other = thread::spawn(move || gone.recv());
        while !watched.threads.iter().any(|it| other_tid(&watched).contains(&it.tid)) {
            watched.look(&mut room, &mut buffer).unwrap();
            watched.waited(&mut room, &mut buffer).unwrap();
        }
        let tids: Vec<i32> = watched.threads.iter().map(|thread| thread.tid).collect();
        assert!(tids.len() >= 2, "{tids:?}");
        drop(go);
        let _ = other.join();
        watched.close(&mut room);
    }

    fn other_tid(watched: &Watched) -> Vec<i32> {
        let own = watched.process.identity.pid;
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let tids = tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        tids.filter(|tid| *tid != own).collect()
    }

    #[test]
    fn what_a_process_may_tell_of_itself_is_told() {
        let (mut room, mut buffer) = (Room::of(8), vec![0; 8192]);
        let own = std::process::id().cast_signed();
        let mut watched = Watched::begin(own, &mut room, &mut buffer).unwrap();
        assert!(watched.pss().unwrap() > 0);
        assert!(watched.descriptors(false).unwrap() >= 3);
        watched.swap(&mut room, &mut buffer).unwrap();
        let first = watched.disks(&mut room, &mut buffer).unwrap();
        let second = watched.disks(&mut room, &mut buffer).unwrap();
        assert!(second.0 >= first.0 && second.1 >= first.1);
        watched.process.threads = THREADS + 1;
        assert_eq!(watched.waited(&mut room, &mut buffer).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
