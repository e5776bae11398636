//! How a cgroup tree is changed. Reading it is reading files.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::processes::cgroup::remove_all;

/// What is done to a tree: by the kernel, or in tests by what plays it.
pub(super) trait Files: fmt::Debug + Send + Sync {
    /// Writes a control file, in one call.
    fn write(&self, file: &Path, text: &str) -> io::Result<()>;

    /// Makes a cgroup with all above it, unless it is there.
    fn make(&self, folder: &Path) -> io::Result<()>;

    /// Removes one with all below it; it is empty, or not there.
    fn remove(&self, folder: &Path) -> io::Result<()>;
}

/// The kernel's own.
#[derive(Debug)]
pub(super) struct Kernel;

impl Files for Kernel {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        remove_all(folder)
    }
}

/// A control file's first line, or word.
pub(super) fn read_word(file: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

/// The number behind a word, in a file of such lines; 0 where there is none.
pub(super) fn counted(path: &Path, word: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
