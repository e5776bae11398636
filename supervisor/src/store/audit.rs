//! `audit.jsonl`, beside the log files: the audit as people read it, two files at most.
//!
//! ```text
//! append ─► there for whoever reads, perhaps in the page cache alone
//! sync   ─► on disk: nobody else need have it
//! anew   ─► all the file has, and what it lacks of what the journal has, in a new file, on disk
//! ```
//! After a failed write or sync only [`anew`](AuditFile::anew) leads on: the kernel may call the next sync of the same
//! file good. A new core begins with it if the journal has anything, for one before it may have met just that.
//!
//! All of this blocks, and is for a thread.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::lines::{LIMIT, before, bytes_of, continued};
use super::replace::{ReplaceError, Step, replace_like, step, sweep_for, sync_folder};

/// Where it lies.
pub(crate) fn path(logs: &Path) -> PathBuf {
    logs.join("audit.jsonl")
}

/// The file, written by one core.
#[derive(Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    /// Bytes; at it the file becomes the one before.
    limit: u64,
    /// `None`: to be opened with the next lines.
    present: Option<Present>,
}

#[derive(Debug)]
struct Present {
    file: File,
    size: u64,
    /// Its name is on disk.
    is_named: bool,
}

impl AuditFile {
    /// The one in this folder. Nothing is done yet.
    pub(crate) fn of(logs: &Path) -> Self {
        Self { path: path(logs), limit: LIMIT, present: None }
    }

    /// Appends these lines, each with its end.
    ///
    /// # Errors
    /// [`ReplaceError`]: some of them may be there.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), ReplaceError> {
        if self.present.as_ref().is_some_and(|present| present.size > self.limit) {
            // Of what is in the one before, nobody asks whether it is on disk.
            self.sync()?;
            step(Step::Rename, &self.path, || fs::rename(&self.path, before(&self.path)))?;
            self.present = None;
        }
        let mut present = self.present()?;
        step(Step::Write, &self.path, || present.file.write_all(lines))?;
        present.size += lines.len() as u64;
        self.present = Some(present);
        Ok(())
    }

    /// Everything that was appended is on disk when this returns.
    ///
    /// # Errors
    /// [`ReplaceError`]: it must not be asked again.
    pub(crate) fn sync(&mut self) -> Result<(), ReplaceError> {
        let mut present = self.present()?;
        step(Step::Sync, &self.path, || present.file.sync_data())?;
        if !present.is_named {
            sync_folder(&self.path)?;
            present.is_named = true;
        }
        self.present = Some(present);
        Ok(())
    }

    /// Puts a new file in its place, on disk when this returns: all lines that are there, and behind them those of
    /// `held` that neither file has.
    ///
    /// # Errors
    /// [`ReplaceError`]: the file is as it was.
    pub(crate) fn anew(&mut self, held: &[u8]) -> Result<(), ReplaceError> {
        self.present = None;
        step(Step::Remove, &self.path, || sweep_for(&self.path))?;
        let (present, metadata) = step(Step::Read, &self.path, || {
            let (file, _) = continued(&self.path)?;
            Ok((bytes_of(&self.path)?, file.metadata()?))
        })?;
        let older = step(Step::Read, &self.path, || bytes_of(&before(&self.path)))?;
        replace_like(&self.path, &metadata, &completed(&older, present, held))
    }

    /// Taken: whoever fails leaves none.
    fn present(&mut self) -> Result<Present, ReplaceError> {
        match self.present.take() {
            Some(present) => Ok(present),
            None => {
                let (file, size) = step(Step::Create, &self.path, || continued(&self.path))?;
                Ok(Present { file, size, is_named: false })
            }
        }
    }
}

/// The file's lines, and behind them those that neither file has.
fn completed(older: &[u8], mut present: Vec<u8>, held: &[u8]) -> Vec<u8> {
    let mut missing: HashSet<&[u8]> = lines(held).collect();
    for line in lines(older).chain(lines(&present)) {
        missing.remove(line);
    }
    if present.last().is_some_and(|last| *last != b'\n') {
        present.push(b'\n');
    }
    for line in lines(held).filter(|line| missing.contains(line)) {
        present.extend_from_slice(line);
        present.push(b'\n');
    }
    present
}

/// Each without its end.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{Fault, child_killed_at, killed_at, plan};

    fn line(number: u64) -> Vec<u8> {
        format!("{{\"number\":{number}}}\n").into_bytes()
    }

    fn text(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
        numbers.into_iter().flat_map(line).collect()
    }

    /// How often each number is in both files.
    fn count(path: &Path, number: u64) -> usize {
        let both = [bytes_of(&before(path)).unwrap(), bytes_of(path).unwrap()].concat();
        let line = line(number);
        lines(&both).filter(|found| *found == &line[..line.len() - 1]).count()
    }

    proptest! {
        #[test]
        fn of_what_is_held_each_line_is_there_once_however_the_file_was_left(
            first in 0..20u64,
            older in 0..10u64,
            present in 0..10u64,
            held in 0..20u64,
            cut in 0..200usize,
            lost in proptest::collection::vec(0..300usize, 0..3),
        ) {
            // What an older core was asked to write, of which the end was cut off and some became zeros.
            let in_older = text(0..older);
            let mut in_present = text(older..older + present);
            in_present.truncate(in_present.len().saturating_sub(cut % 60));
            for at in lost {
                if let Some(byte) = in_present.get_mut(at) {
                    *byte = 0;
                }
            }
            let completed = completed(&in_older, in_present.clone(), &text(first..first + held));
            prop_assert!(completed.starts_with(&in_present), "a line that was there is gone");
            let both = [in_older, completed].concat();
            for number in first..first + held {
                let line = line(number);
                let found = lines(&both).filter(|found| *found == &line[..line.len() - 1]).count();
                prop_assert_eq!(found, 1, "{}", number);
            }
        }
    }

    #[test]
    fn at_its_limit_the_file_becomes_the_one_before_when_it_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = AuditFile { limit: 20, ..AuditFile::of(folder.path()) };
        for number in 0..3 {
            file.append(&line(number)).unwrap();
        }
        assert_eq!(fs::read(before(&file.path)).unwrap(), text(0..2));
        assert_eq!(fs::read(&file.path).unwrap(), text(2..3));
        file.append(&line(3)).unwrap();
        plan(1, Some("sync"), Fault::Errno(nix::libc::EIO));
        assert_eq!(file.append(&line(4)).unwrap_err().step, Step::Sync);
        assert_eq!(fs::read(&file.path).unwrap(), text(2..4), "what is not on disk stays where it is");
        file.anew(&text(2..5)).unwrap();
        assert_eq!(fs::read(&file.path).unwrap(), text(2..5));
    }

    #[test]
    fn after_a_failure_another_file_is_in_its_place_with_every_line_once_and_for_the_same_readers() {
        for step in ["write", "sync"] {
            let folder = tempfile::tempdir().unwrap();
            let mut file = AuditFile::of(folder.path());
            file.append(&text(1..3)).unwrap();
            fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
            let failed = File::open(&file.path).unwrap();
            plan(1, Some(step), Fault::Errno(nix::libc::EIO));
            assert!(file.append(&line(3)).and_then(|()| file.sync()).is_err());
            file.anew(&text(2..4)).unwrap();
            file.append(&line(4)).unwrap();
            file.sync().unwrap();
            assert_eq!(fs::read(&file.path).unwrap(), text(1..5), "{step}");
            assert!(bytes_of(&file.path).unwrap().len() as u64 > failed.metadata().unwrap().len());
            assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o640);
        }
    }

    /// Runs itself as a child that is killed before each step in turn.
    #[test]
    fn a_kill_before_any_step_leaves_every_line_once() {
        let name = "store::audit::tests::a_kill_before_any_step_leaves_every_line_once";
        let held = text(1..4);
        if let Some(folder) = killed_at() {
            let mut file = AuditFile { limit: 20, ..AuditFile::of(Path::new(&folder)) };
            file.anew(&text(1..2)).unwrap();
            for number in 2..4 {
                file.append(&line(number)).unwrap();
                file.sync().unwrap();
            }
            return;
        }
        for step in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let killed = child_killed_at(name, step, folder.path().to_str().unwrap());
            let mut next = AuditFile { limit: 20, ..AuditFile::of(folder.path()) };
            next.anew(&held).unwrap();
            for number in 1..4 {
                assert_eq!(count(&next.path, number), 1, "step {step}: {number}");
            }
            let left: Vec<_> =
                fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.path()).collect();
            assert!(left.iter().all(|file| *file == next.path || *file == before(&next.path)), "{left:?}");
            if !killed {
                assert!(step > 12, "{step}: a new file of seven steps, two lines of two, the one before");
                break;
            }
        }
    }
}
