//! One watchdog per state folder.
//!
//! The lock is `flock` on the file `lock` in the state folder, taken through fs2: the kernel gives it up when the
//! last descriptor of that opening is closed, so a killed watchdog leaves none behind. What the file says is only
//! for the one that comes too late.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fs2::FileExt;
use jiff::Timestamp;

use crate::processes::Identity;

/// The state folder is ours for as long as this lives.
///
/// The descriptor in it is the lock. The keeper holds it for life, close-on-exec, and gives it to nobody: a copy
/// that outlives the keeper would keep the next watchdog out.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// The locked file, for the keeper.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Why the state folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another watchdog has it. `run` exits with 73.
    #[error("already running as pid {pid} since {since} (lock {path:?})")]
    Held {
        /// Its process.
        pid: u32,
        /// Since when, in UTC.
        since: String,
        /// The lock file.
        path: PathBuf,
    },
    /// Another process has it and did not say who it is.
    #[error("another process holds the lock {path:?}")]
    HeldByUnknown {
        /// The lock file.
        path: PathBuf,
    },
    /// The file can't be used.
    #[error("cannot {step} the lock file {path:?}")]
    File {
        /// Doing what.
        step: &'static str,
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How long the one that comes too late waits for the holder's name: the holder writes it at once, unless it is
/// stopped in between.
const NAME_WAIT: Duration = Duration::from_secs(2);

/// Locks the state folder, which exists, for the calling process.
///
/// # Errors
/// [`LockError::Held`] when another watchdog has it; it is told who, and nothing is changed.
pub fn lock(state_folder: &Path) -> Result<Lock, LockError> {
    let path = state_folder.join("lock");
    let failed = |step| {
        let path = path.clone();
        move |source| LockError::File { step, path, source }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open"))?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(()) => {}
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
            return Err(holder(&mut file, &path));
        }
        Err(error) => return Err(failed("lock")(error)),
    }
    let me = Identity::of_self().map_err(failed("write to"))?;
    let text = format!("{} {} {}\n", me.pid, me.start_time, Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
    // No fsync: it is only read while this process lives. Cut to its length last: from a file that was emptied, ext4
    // writes to the disk at once what is put in next.
    file.write_all_at(text.as_bytes(), 0)
        .and_then(|()| file.set_len(text.len() as u64))
        .map_err(failed("write to"))?;
    Ok(Lock { file })
}

/// Who holds the lock. The text may still be that of a former holder, for the instant between lock and name; so a
/// name counts only while the process it names lives.
fn holder(file: &mut File, path: &Path) -> LockError {
    let deadline = Instant::now() + NAME_WAIT;
    loop {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| (&*file).take(256).read_to_string(&mut text));
        if let (Ok(_), Some((holder, since))) = (read, parse(&text))
            && holder.is_alive()
        {
            return LockError::Held { pid: holder.pid.unsigned_abs(), since, path: path.to_owned() };
        }
        if Instant::now() >= deadline {
            return LockError::HeldByUnknown { path: path.to_owned() };
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn parse(text: &str) -> Option<(Identity, String)> {
    let mut words = text.split_whitespace();
    let identity = Identity { pid: words.next()?.parse().ok()?, start_time: words.next()?.parse().ok()? };
    Some((identity, words.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::store::replace;

    #[test]
    fn the_second_is_told_who_is_first_and_since_when() {
        let folder = tempfile::tempdir().unwrap();
        let _first = lock(folder.path()).unwrap();
        let Err(LockError::Held { pid, since, .. }) = lock(folder.path()) else { panic!("locked twice") };
        assert_eq!(pid, std::process::id());
        since.parse::<Timestamp>().unwrap();
    }

    #[test]
    fn the_lock_goes_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = lock(folder.path()).unwrap().into_file();
        assert!(lock(folder.path()).is_err());
        drop(file);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn the_name_of_a_dead_holder_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            Command::new("sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let dead = Identity::of(child.id().cast_signed()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let path = folder.path().join("lock");
        replace::replace_unsynced(
            &path,
            format!("{} {} 2026-11-24T09:00:00Z\n", dead.pid, dead.start_time).as_bytes(),
        )
        .unwrap();
        let held = File::open(&path).unwrap();
        FileExt::try_lock_exclusive(&held).unwrap();
        assert!(matches!(lock(folder.path()), Err(LockError::HeldByUnknown { .. })));
    }
}
