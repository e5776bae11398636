//! From a changed state until it is on disk, measured by the saving service itself.
//!
//! The floors write the same number of bytes to the same file system, from this process, with nothing in between.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::asker::Askers;
use crate::bare_saves::BareSaves;
use crate::ratio::Rounds;

const ROUNDS: usize = 21;
const AT_ONCE: usize = 100;

/// One service with 1 KiB and with 1 MiB, and a hundred at once with 1 KiB. What as many bare processes take for the last,
/// against the same floor, says how much of it is the machine's.
pub(crate) fn run() {
    let mut one = Askers::savers(1);
    let mut append = Append::new();
    let folder = Folder::new();
    // The first save of each makes the files.
    one.each("save", 1024, 1);
    Rounds::measure("save_1k", ROUNDS, || one.each("save", 1024, 20)[0], || append.burst(1024, 20)).report();
    one.each("save", 1 << 20, 1);
    folder.replace(0, 1 << 20, 1);
    let large = || folder.replace(0, 1 << 20, 4);
    Rounds::measure("save_1m", ROUNDS, || one.each("save", 1 << 20, 4)[0], large).report();
    drop(one);

    let mut many = Askers::savers(AT_ONCE);
    let mut all = || {
        let begin = Instant::now();
        many.each("save", 1024, 1);
        begin.elapsed()
    };
    all();
    folder.in_turn(1024);
    Rounds::measure("save_100", ROUNDS, &mut all, || folder.in_turn(1024)).report();
    Rounds::measure("save_100_threads", ROUNDS, all, || folder.at_once(1024)).report();
    drop(many);

    let mut bare = BareSaves::start(AT_ONCE);
    let mut all = || {
        let begin = Instant::now();
        bare.save();
        begin.elapsed()
    };
    all();
    Rounds::measure("save_100_bare", ROUNDS, all, || folder.in_turn(1024)).report();
}

/// The floor of a small save: bytes appended to one file, each time with fdatasync.
struct Append {
    file: File,
    _folder: TempDir,
}

impl Append {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a fresh folder");
        let file = OpenOptions::new().append(true).create_new(true).open(folder.path().join("appended"));
        Self { file: file.expect("a file"), _folder: folder }
    }

    fn burst(&mut self, size: usize, count: u32) -> Duration {
        let bytes = vec![7; size];
        let begin = Instant::now();
        for _ in 0..count {
            self.file.write_all(&bytes).expect("room on the disk");
            self.file.sync_data().expect("a disk that works");
        }
        begin.elapsed()
    }
}

/// The floor of a file each: write, fsync, rename, fsync of the folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a fresh folder"))
    }

    fn replace(&self, file: usize, size: usize, count: u32) -> Duration {
        let (path, fresh) = (self.path(&file.to_string()), self.path(&format!("{file}.fresh")));
        let bytes = vec![7; size];
        let begin = Instant::now();
        for _ in 0..count {
            let mut file = File::create_new(&fresh).expect("a file");
            file.write_all(&bytes).expect("room on the disk");
            file.sync_all().expect("a disk that works");
            fs::rename(&fresh, &path).expect("the same folder");
            File::open(self.0.path()).and_then(|folder| folder.sync_all()).expect("a disk that works");
        }
        begin.elapsed()
    }

    /// A hundred files, one after the other.
    fn in_turn(&self, size: usize) -> Duration {
        (0..AT_ONCE).map(|file| self.replace(file, size, 1)).sum()
    }

    /// A hundred files, each by a thread of its own.
    fn at_once(&self, size: usize) -> Duration {
        let begin = Instant::now();
        thread::scope(|threads| {
            for file in 0..AT_ONCE {
                threads.spawn(move || self.replace(file, size, 1));
            }
        });
        begin.elapsed()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }
}
