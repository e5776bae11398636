//! [`replace`]: a file's content changes whole or not at all.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
use rustix::fs::RenameFlags;
use watchdog_keeper::is_open_here_alone;

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
    /// Giving the one before its name.
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
/// Before [`Step::Rename`] the old content stands. A failed [`Step::SyncFolder`] leaves the new content in place, but it may
/// be gone after a power cut.
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
    new.rename(path)?;
    sync_folder(path)
}

/// As [`replace`], for whom what is at `path` is for.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub(super) fn replace_like(path: &Path, present: &fs::Metadata, bytes: &[u8]) -> Result<(), ReplaceError> {
    let new = Temporary::write_like(path, Some(present), &[bytes], Durability::Disk)?;
    new.rename(path)?;
    sync_folder(path)
}

/// As [`replace`] with these bytes one behind the other, and what was at `path` is then at `previous`. At every instant
/// `path`, or where the file system knows neither exchanges nor hard links `path` or `previous`, is one whole file.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub fn replace_keeping(path: &Path, previous: &Path, parts: &[&[u8]]) -> Result<(), ReplaceError> {
    replace_reusing(path, previous, parts, None).map(drop)
}

/// As [`replace_keeping`]; what was at `previous` is left over, and the next content is written into it. A long one takes
/// half the time so: the disk has its place already, and there is nothing to free.
///
/// # Errors
/// [`ReplaceError`], as [`replace`].
pub(super) fn replace_reusing(
    path: &Path,
    previous: &Path,
    parts: &[&[u8]],
    spare: Option<Spare>,
) -> Result<Option<Spare>, ReplaceError> {
    let new = match spare.and_then(Spare::open) {
        Some((spare, file)) => spare.rewrite(&file, parts)?,
        None => Temporary::write(path, parts, Durability::Disk)?,
    };
    let left = new.take_the_place_of(path, previous)?;
    sync_folder(path)?;
    Ok(left)
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
    before.rename(previous)?;
    new.rename(path)?;
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
    Temporary::write(path, &[bytes], Durability::Memory)?.exchange(path)
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

/// For its owner only.
const MODE: u32 = 0o600;

#[derive(Clone, Copy)]
enum Durability {
    Disk,
    Memory,
}

/// A written temporary file; removed unless renamed.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    fn write(target: &Path, parts: &[&[u8]], durability: Durability) -> Result<Self, ReplaceError> {
        Self::write_like(target, None, parts, durability)
    }

    fn write_like(
        target: &Path,
        present: Option<&fs::Metadata>,
        parts: &[&[u8]],
        durability: Durability,
    ) -> Result<Self, ReplaceError> {
        let path = beside(target);
        let mut file = step(Step::Create, &path, || {
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path)
        })?;
        let new = Self(path);
        if let Some(present) = present {
            // Who may not give a file away keeps it.
            let _ = fchown(&file, Some(present.uid()), Some(present.gid()));
            step(Step::Create, &new.0, || file.set_permissions(present.permissions()))?;
        }
        step(Step::Write, &new.0, || parts.iter().try_for_each(|part| file.write_all(part)))?;
        match durability {
            Durability::Disk => step(Step::Sync, &new.0, || file.sync_all())?,
            Durability::Memory => {}
        }
        Ok(new)
    }

    fn rename(self, target: &Path) -> Result<(), ReplaceError> {
        step(Step::Rename, target, || fs::rename(&self.0, target))?;
        std::mem::forget(self);
        Ok(())
    }

    /// As [`rename`](Self::rename), for what need not be on disk: ext4 begins to write a file that takes the place of
    /// another by `rename`, so that a power cut leaves either, and whoever renames waits a millisecond for it. Two files that
    /// change their names are left alone.
    fn exchange(self, target: &Path) -> Result<(), ReplaceError> {
        match step(Step::Rename, target, || exchange(&self.0, target)) {
            // The one of before, under the name of this one, is removed.
            Ok(()) => Ok(()),
            // There is none to change with, or the file system can't; what else is wrong is wrong again.
            Err(_) => self.rename(target),
        }
    }

    /// Takes the name `path`, and gives the file that had it the name `previous`. What had that is left over.
    ///
    /// In between, the one in force is at `path`, and this one at `previous`: done again, it ends as if done once.
    fn take_the_place_of(self, path: &Path, previous: &Path) -> Result<Option<Spare>, ReplaceError> {
        if !path.exists() {
            self.rename(path)?;
            return Ok(None);
        }
        match step(Step::KeepPrevious, path, || exchange(&self.0, previous)) {
            Ok(()) => {}
            Err(error) if knows_no_exchange(&error.source) => {
                link(path, previous)?;
                self.rename(path)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let left = Spare(self);
        let exchanged = step(Step::Rename, path, || exchange(previous, path));
        if exchanged.is_err() {
            // What can't be undone leaves a file that is newer than was promised, and whole.
            let _ = exchange(&left.0.0, previous);
        }
        exchanged.map(|()| Some(left))
    }
}

/// A file that a replacement left over, for the next one. It has the name of a temporary file, and dropped it is removed.
#[derive(Debug)]
pub(super) struct Spare(Temporary);

impl Spare {
    /// None that is not as it would be made, or that somebody reads or has another name for: it was the file at `path` once,
    /// and is still whole for them.
    fn open(self) -> Option<(Self, File)> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = File::options().write(true).custom_flags(flags.bits()).open(&self.0.0).ok()?;
        let is_as_made = file.metadata().is_ok_and(|found| {
            let is_ours = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o7777 == MODE;
            found.is_file() && found.nlink() == 1 && is_ours
        });
        (is_as_made && is_open_here_alone(&file)).then_some((self, file))
    }

    fn rewrite(self, mut file: &File, parts: &[&[u8]]) -> Result<Temporary, ReplaceError> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        step(Step::Write, &self.0.0, || {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.set_len(length)
        })?;
        step(Step::Sync, &self.0.0, || file.sync_data())?;
        Ok(self.0)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The error on its way tells what went wrong; a file that can't be removed either is for `sweep`.
        let _ = fs::remove_file(&self.0);
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

/// Two files change their names.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, RenameFlags::EXCHANGE)?)
}

/// There is none to change with, the file system can't, or the kernel may not.
fn knows_no_exchange(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(errno, Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM)
    })
}

/// Gives the file at `path` the name `previous` too.
fn link(path: &Path, previous: &Path) -> Result<(), ReplaceError> {
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
mod tests;
