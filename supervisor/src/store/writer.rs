//! Durable writes apart from the event loop: a disk that takes five seconds delays an acknowledgement, never a
//! decision.
//!
//! One owner, the event loop, [`put`](Writer::put)s changes and awaits [`done`](Writer::done). Per file at most
//! one change is on its way, and at most one waits behind it: the newest, which stands for all it replaced.

use std::collections::{HashMap, VecDeque};
use std::future;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

use super::kept;
use super::replace::{self, ReplaceError};

/// Files written at the same time, each on a thread of its own. More would not make a disk faster: its flushes are
/// what takes time, and it gathers them. Fewer would let one slow file system hold up the files of another.
const AT_ONCE: usize = 16;

/// What becomes of a file.
#[derive(Debug)]
pub enum Change {
    /// New content.
    Replace(Vec<u8>),
    /// New content, and the one before stays beside it.
    ReplaceKeeping(Vec<u8>),
    /// It goes, and the one before with it.
    Remove,
}

/// Numbers the changes of one writer, across all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(u64);

/// A change came to its end.
#[derive(Debug)]
pub struct Done {
    /// Of which file.
    pub path: PathBuf,
    /// Every change of this file up to this number has this outcome: those that newer ones replaced included.
    pub up_to: ChangeNumber,
    /// Durable, or why not: then what was there before still is, and nothing repeats it by itself.
    pub outcome: Result<(), ReplaceError>,
}

#[derive(Debug)]
struct Pending {
    change: Change,
    number: ChangeNumber,
}

/// The durable writes of one event loop.
#[derive(Debug, Default)]
pub struct Writer {
    last: u64,
    running: JoinSet<Done>,
    /// Every file with a change on its way or waiting; the value waits.
    files: HashMap<PathBuf, Option<Pending>>,
    /// Files whose change waits for a thread.
    queue: VecDeque<PathBuf>,
}

impl Writer {
    /// Nothing to write yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the file at `path`, durably, as soon as its change before is done and a thread is free. A change
    /// that still waits is replaced by this one. Returns at once; must be called within a tokio runtime.
    pub fn put(&mut self, path: &Path, change: Change) -> ChangeNumber {
        self.last += 1;
        let number = ChangeNumber(self.last);
        let pending = Some(Pending { change, number });
        match self.files.get_mut(path) {
            Some(waiting) => *waiting = pending,
            None => {
                self.files.insert(path.to_owned(), pending);
                self.queue.push_back(path.to_owned());
                self.start();
            }
        }
        number
    }

    /// The next change that came to its end; waits for ever while there is none on its way. Cancel safe.
    pub async fn done(&mut self) -> Done {
        let done = match self.running.join_next().await {
            None => return future::pending().await,
            Some(Ok(done)) => done,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => unreachable!("no write is ever cancelled: {error}"),
            },
        };
        match self.files.get(&done.path) {
            Some(Some(_)) => self.queue.push_back(done.path.clone()),
            Some(None) => drop(self.files.remove(&done.path)),
            None => unreachable!("a file stays in the table while its change is on its way"),
        }
        self.start();
        done
    }

    /// Nothing is on its way and nothing waits. At the end of a shutdown: `while !writer.is_idle()` await
    /// [`done`](Self::done).
    pub fn is_idle(&self) -> bool {
        self.files.is_empty()
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(path) = self.queue.pop_front()
        {
            let Pending { change, number } = self
                .files
                .get_mut(&path)
                .and_then(Option::take)
                .expect("a queued file has a change that waits, and is queued once");
            self.running.spawn_blocking(move || {
                let outcome = apply(&path, &change);
                Done { path, up_to: number, outcome }
            });
        }
    }
}

fn apply(path: &Path, change: &Change) -> Result<(), ReplaceError> {
    match change {
        Change::Replace(bytes) => replace::replace(path, bytes),
        Change::ReplaceKeeping(bytes) => replace::replace_keeping(path, &kept::previous(path), bytes),
        Change::Remove => {
            // The one before first: killed in between, the newest is still in force.
            replace::remove(&kept::previous(path))?;
            replace::remove(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[tokio::test]
    async fn a_change_is_on_disk_when_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = Writer::new();
        let number = writer.put(&path, Change::Replace(b"1".to_vec()));
        let done = writer.done().await;
        assert_eq!((done.path.as_path(), done.up_to), (path.as_path(), number));
        done.outcome.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"1");
        assert!(writer.is_idle());
    }

    #[tokio::test]
    async fn of_changes_that_wait_only_the_newest_is_written_and_answers_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = Writer::new();
        let first = writer.put(&path, Change::ReplaceKeeping(b"1".to_vec()));
        for waits in 2..=9u8 {
            writer.put(&path, Change::ReplaceKeeping(vec![b'0' + waits]));
        }
        let last = writer.put(&path, Change::ReplaceKeeping(b"10".to_vec()));
        assert_eq!(writer.done().await.up_to, first);
        assert_eq!(writer.done().await.up_to, last);
        assert!(writer.is_idle());
        assert_eq!(fs::read(&path).unwrap(), b"10");
        assert_eq!(fs::read(folder.path().join("a.previous")).unwrap(), b"1");
    }

    #[tokio::test]
    async fn a_failure_is_told_and_the_next_change_of_the_file_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/a");
        let mut writer = Writer::new();
        writer.put(&path, Change::Replace(b"1".to_vec()));
        assert!(writer.done().await.outcome.is_err());
        fs::create_dir(folder.path().join("absent")).unwrap();
        writer.put(&path, Change::Replace(b"2".to_vec()));
        writer.done().await.outcome.unwrap();
    }

    #[tokio::test]
    async fn a_hundred_files_are_all_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new();
        for number in 0..100 {
            writer.put(&folder.path().join(number.to_string()), Change::Replace(vec![number]));
        }
        while !writer.is_idle() {
            writer.done().await.outcome.unwrap();
        }
        for number in 0..100 {
            assert_eq!(fs::read(folder.path().join(number.to_string())).unwrap(), [number]);
        }
    }

    #[tokio::test]
    async fn removal_takes_the_one_before_too_and_removing_nothing_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = Writer::new();
        for change in [
            Change::ReplaceKeeping(b"1".to_vec()),
            Change::ReplaceKeeping(b"2".to_vec()),
            Change::Remove,
            Change::Remove,
        ] {
            writer.put(&path, change);
            writer.done().await.outcome.unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// The slow disk: a fifo in the folder's place blocks the one file, and only that one.
    #[tokio::test]
    async fn a_file_that_blocks_delays_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        let mut writer = Writer::new();
        let blocked = fifo.clone();
        // Opening a fifo for writing waits for a reader.
        writer.running.spawn_blocking(move || {
            fs::OpenOptions::new().write(true).open(&blocked).unwrap();
            Done { path: blocked, up_to: ChangeNumber(0), outcome: Ok(()) }
        });
        writer.files.insert(fifo.clone(), None);
        let quick = folder.path().join("quick");
        writer.put(&quick, Change::Replace(b"1".to_vec()));
        assert_eq!(writer.done().await.path, quick);
        assert!(!writer.is_idle());
        drop(fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap());
        assert_eq!(writer.done().await.path, fifo);
        assert!(writer.is_idle());
    }
}
