//! [`replace`]: a file's content changes whole or not at all.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::RenameFlags;

use super::before;

/// One step of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading what is there.
    Read,
    /// Making the temporary file.
    Create,
    /// Writing the content to it.
    Write,
    /// Its fsync.
    Sync,
    /// Linking the present file to the name of the one before.
    KeepPrevious,
    /// Giving the temporary file its name.
    Rename,
    /// The fsync of the folder.
    SyncFolder,
    /// Taking a name away.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::KeepPrevious => "keep the one before of",
            Self::Rename => "rename into place",
            Self::SyncFolder => "sync the folder",
            Self::Remove => "remove",
        })
    }
}

/// A replacement that did not come to its end.
///
/// Before [`Step::Rename`] the old content stands. A failed [`Step::SyncFolder`] leaves the new content in place,
/// but it may be gone after a power cut.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path:?}")]
pub struct ReplaceError {
    /// What failed.
    pub step: Step,
    /// On which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Puts `bytes` at `path`, durably: a temporary file in the same folder, write, fsync, rename, fsync of the
/// folder. When it returns, the content is on disk; a reader sees the old content or the new, whole.
///
/// Blocks for as long as the disk takes. The file is for its owner only (0600). Each call writes a file of its
/// own, so a call after a failed one never repeats an fsync that failed.
///
/// # Errors
/// [`ReplaceError`]; the temporary file is removed.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReplaceError> {
    let new = Temporary::write(path, &[bytes], Durability::Disk)?;
    new.rename()?;
    sync_folder(path)
}

/// As [`replace`], for whom what is at `path` is for.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub(super) fn replace_like(path: &Path, present: &fs::Metadata, bytes: &[u8]) -> Result<(), ReplaceError> {
    let new = Temporary::write_like(path, Some(present), &[bytes], Durability::Disk)?;
    new.rename()?;
    sync_folder(path)
}

/// As [`replace`] with these bytes one behind the other, and what was at `path` is then at `previous`. At every instant `path`, or where the file
/// system knows no hard links `path` or `previous`, is one whole file.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub fn replace_keeping(path: &Path, previous: &Path, parts: &[&[u8]]) -> Result<(), ReplaceError> {
    let new = Temporary::write(path, parts, Durability::Disk)?;
    keep(path, previous)?;
    new.rename()?;
    sync_folder(path)
}

/// As [`replace`], and `previous` gets a content of its own. At every instant both are whole, and `path` is never older
/// than it was.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub fn replace_both(
    path: &Path,
    bytes: &[u8],
    previous: &Path,
    previous_bytes: &[u8],
) -> Result<(), ReplaceError> {
    let before = Temporary::write(previous, &[previous_bytes], Durability::Disk)?;
    let new = Temporary::write(path, &[bytes], Durability::Disk)?;
    before.rename()?;
    new.rename()?;
    sync_folder(path)
}

/// As [`replace`] without either fsync: whole at every instant and there for the next process, not for the
/// next boot. What is there already is not written again.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> Result<(), ReplaceError> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    Temporary::write(path, &[bytes], Durability::Memory)?.exchange()
}

/// Takes the file away, durably. None there is fine.
///
/// # Errors
/// [`ReplaceError`].
pub fn remove(path: &Path) -> Result<(), ReplaceError> {
    match step(Step::Remove, path, || fs::remove_file(path)) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

/// Removes what killed processes left of their replacements. Only for the one process that writes in `folder`,
/// before it does.
///
/// # Errors
/// Reading the folder, or removing.
pub fn sweep(folder: &Path) -> io::Result<()> {
    sweep_of(folder, "")
}

/// As [`sweep`], of the replacements of this file alone.
///
/// # Errors
/// As [`sweep`].
pub(super) fn sweep_for(path: &Path) -> io::Result<()> {
    let name = path.file_name().expect("what is replaced is a file in a folder").to_string_lossy();
    sweep_of(folder_of(path), &format!(".{name}."))
}

fn sweep_of(folder: &Path, beginning: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(beginning) && name.ends_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the name of a temporary file ends with; no service name holds a dot.
const TEMPORARY: &str = ".temporary";

#[derive(Clone, Copy)]
enum Durability {
    Disk,
    Memory,
}

/// A written temporary file; removed unless renamed.
struct Temporary<'a> {
    path: PathBuf,
    target: &'a Path,
}

impl<'a> Temporary<'a> {
    fn write(target: &'a Path, parts: &[&[u8]], durability: Durability) -> Result<Self, ReplaceError> {
        Self::write_like(target, None, parts, durability)
    }

    fn write_like(
        target: &'a Path,
        present: Option<&fs::Metadata>,
        parts: &[&[u8]],
        durability: Durability,
    ) -> Result<Self, ReplaceError> {
        let path = beside(target);
        let mut file = step(Step::Create, &path, || {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
        })?;
        let new = Self { path, target };
        if let Some(present) = present {
            // Who may not give a file away keeps it.
            let _ = fchown(&file, Some(present.uid()), Some(present.gid()));
            step(Step::Create, &new.path, || file.set_permissions(present.permissions()))?;
        }
        step(Step::Write, &new.path, || parts.iter().try_for_each(|part| file.write_all(part)))?;
        match durability {
            Durability::Disk => step(Step::Sync, &new.path, || file.sync_all())?,
            Durability::Memory => {}
        }
        Ok(new)
    }

    fn rename(self) -> Result<(), ReplaceError> {
        step(Step::Rename, self.target, || fs::rename(&self.path, self.target))?;
        std::mem::forget(self);
        Ok(())
    }

    /// As [`rename`](Self::rename), for what need not be on disk: ext4 begins to write a file that takes the place of
    /// another by `rename`, so that a power cut leaves either, and whoever renames waits a millisecond for it. Two files that
    /// change their names are left alone.
    fn exchange(self) -> Result<(), ReplaceError> {
        let (here, new) = (rustix::fs::CWD, &self.path);
        let is_exchanged = step(Step::Rename, self.target, || {
            match rustix::fs::renameat_with(here, new, here, self.target, RenameFlags::EXCHANGE) {
                Ok(()) => Ok(true),
                // There is none to change with, or the file system can't; what else is wrong is wrong again.
                Err(_) => fs::rename(new, self.target).map(|()| false),
            }
        })?;
        // The one of before, under the name of this one, is removed.
        if !is_exchanged {
            std::mem::forget(self);
        }
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // The error on its way tells what went wrong; a file that can't be removed either is for `sweep`.
        let _ = fs::remove_file(&self.path);
    }
}

/// A name of its own each time, in the same folder and so on the same file system.
fn beside(target: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".");
    name.push(target.file_name().expect("what is replaced is a file in a folder"));
    name.push(format!(".{}-{}{TEMPORARY}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    target.with_file_name(name)
}

fn keep(path: &Path, previous: &Path) -> Result<(), ReplaceError> {
    // Linked under a temporary name first: `previous` too is whole at every instant.
    let link = beside(previous);
    let linked = step(Step::KeepPrevious, path, || fs::hard_link(path, &link));
    match linked {
        Ok(()) => {
            let renamed = step(Step::KeepPrevious, path, || fs::rename(&link, previous));
            // Still there after a success when both names were links to one file already: rename does nothing then.
            let _ = fs::remove_file(&link);
            renamed
        }
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if knows_no_links(&error.source) => {
            step(Step::KeepPrevious, path, || fs::rename(path, previous))
        }
        Err(error) => Err(error),
    }
}

fn knows_no_links(error: &io::Error) -> bool {
    use nix::errno::Errno;
    // EPERM: FAT and the like, and files of somebody else under fs.protected_hardlinks.
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(errno, Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK)
    })
}

pub(super) fn sync_folder(path: &Path) -> Result<(), ReplaceError> {
    let folder = folder_of(path);
    step(Step::SyncFolder, folder, || File::open(folder)?.sync_all())
}

/// The folder a path is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

pub(super) fn step<T>(
    step: Step,
    path: &Path,
    act: impl FnOnce() -> io::Result<T>,
) -> Result<T, ReplaceError> {
    let name = match step {
        Step::Read => "read",
        Step::Create => "create",
        Step::Write => "write",
        Step::Sync => "sync",
        Step::KeepPrevious => "keep",
        Step::Rename => "rename",
        Step::SyncFolder => "sync folder",
        Step::Remove => "remove",
    };
    before(name).and_then(|()| act()).map_err(|source| ReplaceError { step, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Fault, child_killed_at, killed_at, plan};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_step_leaves_the_old_content_no_temporary_file_and_its_name_in_the_error() {
        for (name, step) in [
            ("create", Step::Create),
            ("write", Step::Write),
            ("sync", Step::Sync),
            ("keep", Step::KeepPrevious),
            ("rename", Step::Rename),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
            replace(&path, b"old").unwrap();
            plan(1, Some(name), Fault::Errno(nix::libc::EIO));
            let error = replace_keeping(&path, &previous, &[b"new"]).unwrap_err();
            assert_eq!(error.step, step);
            assert_eq!(error.source.raw_os_error(), Some(nix::libc::EIO));
            assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert!(
                names(folder.path()).iter().all(|n| !n.ends_with(TEMPORARY)),
                "{:?}",
                names(folder.path())
            );
        }
    }

    #[test]
    fn a_failed_sync_of_the_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        plan(1, Some("sync folder"), Fault::Errno(nix::libc::EIO));
        assert_eq!(replace(&folder.path().join("a"), b"new").unwrap_err().step, Step::SyncFolder);
    }

    #[test]
    fn after_a_failed_sync_the_next_try_writes_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        plan(1, Some("sync"), Fault::Errno(nix::libc::EIO));
        let failed = replace(&path, b"1").unwrap_err().path;
        plan(1, Some("sync"), Fault::Errno(nix::libc::EIO));
        assert_ne!(replace(&path, b"2").unwrap_err().path, failed);
        replace(&path, b"3").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"3");
    }

    #[test]
    fn the_one_before_is_kept_also_where_there_are_no_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
        replace_keeping(&path, &previous, &[b"1"]).unwrap();
        assert!(!previous.exists());
        replace_keeping(&path, &previous, &[b"2"]).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&previous).unwrap()), (b"2".to_vec(), b"1".to_vec()));
        plan(1, Some("keep"), Fault::Errno(nix::libc::EPERM));
        replace_keeping(&path, &previous, &[b"3"]).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&previous).unwrap()), (b"3".to_vec(), b"2".to_vec()));
    }

    /// Runs itself as a child that is killed before each step in turn.
    #[test]
    fn a_kill_before_any_step_leaves_the_old_file_or_the_new_one_whole() {
        if let Some(folder) = killed_at() {
            let folder = PathBuf::from(folder);
            replace_keeping(&folder.join("a"), &folder.join("a.previous"), &[b"new"]).unwrap();
            return;
        }
        let mut steps = 0;
        loop {
            steps += 1;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            fs::write(&path, b"old").unwrap();
            fs::write(folder.path().join("a.previous"), b"older").unwrap();
            let killed = child_killed_at(
                "store::replace::tests::a_kill_before_any_step_leaves_the_old_file_or_the_new_one_whole",
                steps,
                folder.path().to_str().unwrap(),
            );
            let now = fs::read(&path).unwrap();
            let kept = fs::read(folder.path().join("a.previous")).unwrap();
            assert!(now == b"old" || now == b"new", "{now:?}");
            assert!(kept == b"older" || kept == b"old", "{kept:?}");
            if !killed {
                assert_eq!((now, kept), (b"new".to_vec(), b"old".to_vec()));
                break;
            }
            sweep(folder.path()).unwrap();
            assert_eq!(names(folder.path()), ["a", "a.previous"]);
            replace_keeping(&path, &folder.path().join("a.previous"), &[b"next"]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"next");
        }
        assert_eq!(
            steps, 8,
            "create, write, sync, link, rename of the link, rename, sync of the folder, the end"
        );
    }
}
