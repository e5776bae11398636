//! What is found where one watchdog's files lie, and of that watchdog itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use nix::sys::statfs::{FsType, NFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::unistd::Uid;
use watchdog_protocol::status::Status;

use super::finding::Finding;
use super::is_absent;
use crate::cli::figures::{count, span};
use crate::cli::place::{Place, keeper};
use crate::cli::report::CliError;
use crate::config;
use crate::processes::leftovers;

/// A disk that takes longer for a few bytes slows every save and every change of a setting.
const SLOW_SYNC_MS: u64 = 250;

/// There is no configuration here.
pub(super) fn not_found(error: &CliError) -> Finding {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Finding::mend("configuration", first, "there is nothing to run")
        .hint("write a watchdog.toml, or name one with --config FILE")
}

pub(super) fn examine(place: &Place, answer: Result<Status, CliError>) -> Vec<Finding> {
    let mut findings = vec![configuration(place)];
    findings.extend(
        [("state folder", &place.state), ("runtime folder", &place.runtime), ("log folder", &place.logs)]
            .map(|(what, folder)| permissions(what, folder)),
    );
    findings.push(file_system(&place.state));
    findings.extend(sync(&place.state));
    findings.extend(leftover(place));
    findings.extend(users(place));
    findings.push(watchdog(answer));
    findings
}

fn configuration(place: &Place) -> Finding {
    let what = "configuration";
    match config::load(&place.config) {
        Ok(config) => {
            let services = count(config.services.len() as u64, "service");
            Finding::ok(what, format!("{}: {services}", place.config.display()))
        }
        Err(errors) => {
            let first = errors.iter().next().map(ToString::to_string).unwrap_or_default();
            let line = first.lines().next().unwrap_or_default();
            Finding::mend(what, line, "the next `run` or `reload` will refuse it").hint("watchdog check")
        }
    }
}

fn permissions(what: &'static str, folder: &Path) -> Finding {
    let found = match fs::metadata(folder) {
        Ok(found) => found,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok(what, format!("{} will be made", folder.display()));
        }
        Err(err) => {
            return Finding::mend(what, format!("{}: {err}", folder.display()), "it can't be used");
        }
    };
    let (owner, ours, mode) = (found.uid(), Uid::effective().as_raw(), found.mode() & 0o7777);
    if owner != ours {
        Finding::mend(
            what,
            format!("{} belongs to uid {owner}", folder.display()),
            format!("`run` as uid {ours} refuses it"),
        )
        .hint(format!("be uid {owner}, or chown {ours} {}", folder.display()))
    } else if mode & 0o022 != 0 {
        Finding::mend(
            what,
            format!("{} has mode {mode:04o}", folder.display()),
            "others can change what the watchdog trusts",
        )
        .hint(format!("chmod 700 {}", folder.display()))
    } else if mode & 0o055 != 0 {
        Finding::less(
            what,
            format!("{} has mode {mode:04o}", folder.display()),
            "others can read what is in it",
        )
        .hint(format!("chmod 700 {}", folder.display()))
    } else {
        Finding::ok(what, folder.display().to_string())
    }
}

fn file_system(state: &Path) -> Finding {
    let what = "state file system";
    // Made later, it lies where the next folder above is.
    let nearest = state.ancestors().find(|folder| folder.exists()).unwrap_or(state);
    match statfs(nearest).map(|found| found.filesystem_type()) {
        Ok(TMPFS_MAGIC | RAMFS) => {
            Finding::less(what, "memory", "settings and states do not outlive a restart of the machine")
                .hint("put [watchdog] state on a disk")
        }
        Ok(NFS_SUPER_MAGIC) => Finding::less(
            what,
            "a network file system",
            "the lock against a second watchdog is only as good as the server's",
        )
        .hint("put [watchdog] state on a local disk"),
        Ok(_) => Finding::ok(what, "a disk"),
        Err(errno) => Finding::less(what, errno.desc(), "it can't be told what it is"),
    }
}

const RAMFS: FsType = FsType(0x8584_58f6);

/// One small write to the disk and back; none where no folder is.
fn sync(state: &Path) -> Option<Finding> {
    let what = "fsync";
    if !state.is_dir() {
        return None;
    }
    let path = state.join(format!("doctor-{}.new", std::process::id()));
    let begin = Instant::now();
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&[0; 512])?;
        file.sync_all()
    });
    let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let _ = fs::remove_file(&path);
    Some(match written {
        Ok(()) if took > SLOW_SYNC_MS => {
            Finding::less(what, format!("a small file took {}", span(took)), "every save waits for that")
        }
        Ok(()) => Finding::ok(what, format!("a small file took {}", span(took))),
        Err(err) => {
            Finding::mend(what, format!("{}: {err}", state.display()), "no setting and no state can be kept")
        }
    })
}

/// Of a watchdog that was killed; none while one lives.
fn leftover(place: &Place) -> Option<Finding> {
    let what = "leftovers";
    if keeper(&place.state).is_some() || !place.runtime.is_dir() {
        return None;
    }
    Some(match leftovers::find(&place.runtime, &place.state) {
        Ok(found) if found.is_empty() => Finding::ok(what, "nothing of a former watchdog runs"),
        Ok(found) => {
            let named: Vec<String> =
                found.iter().map(|left| format!("pid {} of {}", left.process.pid, left.of)).collect();
            Finding::less(what, named.join(", "), "of a watchdog that was killed")
                .hint("the next `run` ends them")
        }
        Err(err) => Finding::less(what, err.to_string(), "it can't be told whether anything is left"),
    })
}

fn users(place: &Place) -> Option<Finding> {
    let what = "users";
    let config = config::load(&place.config).ok()?;
    let services = config.services.len();
    let users: BTreeSet<Option<String>> =
        config.services.values().map(|spec| spec.launch.user.clone()).collect();
    if services == 0 {
        return None;
    }
    let shares = users.contains(&None) || users.len() < services;
    Some(if shares {
        Finding::less(
            what,
            format!("{} of {services} services have a user of their own", users.iter().flatten().count()),
            "services of one user are kept apart against mistakes only, not against hostile code",
        )
        .hint("run as root and give each a `user`")
    } else {
        Finding::ok(what, "each service has a user of its own")
    })
}

fn watchdog(answer: Result<Status, CliError>) -> Finding {
    let what = "watchdog";
    match answer {
        Ok(status) => {
            let notes = status.watchdog.notes.join("; ");
            let found = format!("runs, keeper {}", status.watchdog.keeper_pid);
            match status.watchdog.notes.first() {
                Some(first) if first.starts_with("safe mode") => {
                    Finding::mend(what, found, notes).hint("watchdog upgrade")
                }
                Some(_) => Finding::less(what, found, notes),
                None => Finding::ok(what, found),
            }
        }
        Err(error) if is_absent(&error) => Finding::ok(what, "none runs here"),
        Err(error) => Finding::mend(what, error.to_string(), "nobody can see or change anything"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn a_folder_that_others_may_write_to_must_be_mended() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, level) in [(0o700, Level::Ok), (0o755, Level::Less), (0o777, Level::Mend)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(permissions("state folder", folder.path()).level, level, "{mode:o}");
        }
        assert_eq!(permissions("state folder", &folder.path().join("absent")).level, Level::Ok);
    }

    #[test]
    fn a_state_folder_in_memory_is_told() {
        assert_eq!(file_system(Path::new("/dev/shm/absent/state")).level, Level::Less);
    }

    #[test]
    fn a_sync_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(sync(folder.path()).is_some());
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
        assert!(sync(&folder.path().join("absent")).is_none());
    }
}
