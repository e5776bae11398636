//! A file of JSON lines that is only appended to, two files at most: at its limit it becomes `NAME.1` and begins anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of one file.
pub(super) const LIMIT: u64 = 10 * 1024 * 1024;

/// The last bytes of a file, in which its last line is.
const END: u64 = 16 * 1024;

/// One such file, written by one core.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    /// `None`: to be opened with the next lines.
    file: Option<File>,
    size: u64,
}

/// The newest `last` records of both files, oldest first; also while nobody writes them. A line that was cut short is left
/// out. A file that reaches its limit meanwhile is read twice, and none is missed.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, last: usize) -> io::Result<Vec<T>> {
    read_where(path, last, |_| true)
}

/// As [`read`], of those that are wanted. Lines before the first of them are not looked at.
pub(crate) fn read_where<T: DeserializeOwned>(
    path: &Path,
    last: usize,
    is_wanted: impl Fn(&T) -> bool,
) -> io::Result<Vec<T>> {
    let mut found: Vec<T> = newest(&bytes_of(path)?).filter(&is_wanted).take(last).collect();
    if found.len() < last {
        let left = last - found.len();
        found.extend(newest(&bytes_of(&before(path))?).filter(&is_wanted).take(left));
    }
    found.reverse();
    Ok(found)
}

/// The newest record of both files: without reading all of them, unless it is longer than any line should be.
pub(crate) fn last<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    for path in [path, &before(path)] {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(err) => return Err(err),
        };
        let size = file.metadata()?.len();
        for length in [size.min(END), size] {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(size - length))?;
            Read::by_ref(&mut file).take(length).read_to_end(&mut bytes)?;
            // What is before its first line end may be a piece of a line, which no record is.
            if let Some(found) = newest(&bytes).next() {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn newest<T: DeserializeOwned>(lines: &[u8]) -> impl Iterator<Item = T> {
    lines.rsplit(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// The records among these lines.
pub(crate) fn parsed<T: DeserializeOwned>(lines: &[u8]) -> impl Iterator<Item = T> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

pub(super) fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Where the lines before those at `path` are.
pub(super) fn before(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

impl Lines {
    /// Goes on where the file ended. A last line that was cut short is closed and left.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let (file, size) = continued(&path)?;
        Ok(Self { path, file: Some(file), size })
    }

    #[cfg(test)]
    pub(crate) fn closed(path: PathBuf) -> Self {
        Self { path, file: None, size: 0 }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends these. After an error the file is opened anew with the next ones.
    pub(crate) fn append<'a, T: Serialize + 'a>(
        &mut self,
        records: impl Iterator<Item = &'a T>,
    ) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) if self.size <= LIMIT => file,
            Some(_) => {
                std::fs::rename(&self.path, before(&self.path))?;
                self.size = 0;
                opened(&self.path)?
            }
            None => {
                let file = opened(&self.path)?;
                self.size = file.metadata()?.len();
                file
            }
        };
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(io::Error::other)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        self.size += lines.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

/// To append to, and how long it is. A last line that was cut short is closed.
pub(super) fn continued(path: &Path) -> io::Result<(File, u64)> {
    let mut file = opened(path)?;
    let mut size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_again_and_a_torn_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        Lines::open(path.clone()).unwrap().append([1, 2].iter()).unwrap();
        opened(&path).unwrap().write_all(b"[3").unwrap();
        Lines::open(path.clone()).unwrap().append([4].iter()).unwrap();
        assert_eq!(read::<u32>(&path, 10).unwrap(), [1, 2, 4]);
        assert_eq!(read::<u32>(&path, 2).unwrap(), [2, 4]);
        assert_eq!(read_where::<u32>(&path, 2, |number| *number < 4).unwrap(), [1, 2]);
        assert_eq!(last::<u32>(&path).unwrap(), Some(4));
    }

    #[test]
    fn two_files_at_most_are_kept_and_the_newest_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut lines = Lines::open(path.clone()).unwrap();
        let long = "x".repeat(1024 * 1024);
        for number in 0..40 {
            lines.append([format!("{number}{long}")].iter()).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let sizes = [before(&path), path.clone()].map(|path| path.metadata().unwrap().len());
        assert!(sizes.iter().all(|size| *size <= LIMIT + 2 * long.len() as u64), "{sizes:?}");
        assert!(read::<String>(&path, 1).unwrap()[0].starts_with("39x"));
        assert_eq!(read::<String>(&path, 12).unwrap().len(), 12, "the older file too");
    }

    #[test]
    fn the_newest_is_found_however_long_and_in_the_older_file_if_need_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        assert_eq!(last::<String>(&path).unwrap(), None);
        let mut lines = Lines::open(path.clone()).unwrap();
        let texts = ["short".to_owned(), "x".repeat(3 * END as usize)];
        for text in &texts {
            lines.append([text].into_iter()).unwrap();
            assert_eq!(last::<String>(&path).unwrap().as_ref(), Some(text));
        }
        std::fs::rename(&path, before(&path)).unwrap();
        assert_eq!(last::<String>(&path).unwrap().as_ref(), Some(&texts[1]));
        Lines::open(path.clone()).unwrap();
        assert_eq!(last::<String>(&path).unwrap().as_ref(), Some(&texts[1]), "the present one is empty");
    }
}
