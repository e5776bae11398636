use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

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
        assert!(names(folder.path()).iter().all(|n| !n.ends_with(TEMPORARY)), "{:?}", names(folder.path()));
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
fn the_one_before_is_kept_also_where_names_can_not_be_exchanged_and_there_are_no_hard_links() {
    let folder = tempfile::tempdir().unwrap();
    let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
    let both = || (fs::read(&path).unwrap(), fs::read(&previous).unwrap());
    replace_keeping(&path, &previous, &[b"1"]).unwrap();
    assert!(!previous.exists());
    replace_keeping(&path, &previous, &[b"2"]).unwrap();
    assert_eq!(both(), (b"2".to_vec(), b"1".to_vec()));
    plan(1, Some("keep"), Fault::Errno(nix::libc::EINVAL));
    replace_keeping(&path, &previous, &[b"3"]).unwrap();
    assert_eq!(both(), (b"3".to_vec(), b"2".to_vec()));
    plan(1, Some("keep"), Fault::Errno(nix::libc::EPERM));
    link(&path, &previous).unwrap();
    assert_eq!((path.exists(), fs::read(&previous).unwrap()), (false, b"3".to_vec()));
    assert_eq!(names(folder.path()), ["a.previous"]);
}

/// Contents of several lengths, one after the other.
fn contents() -> impl Iterator<Item = Vec<u8>> {
    [9, 5, 7, 1, 8, 0, 9].into_iter().enumerate().map(|(at, length)| vec![at as u8; length])
}

#[test]
fn a_content_goes_into_the_file_that_was_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
    let (mut spare, mut files, mut before) = (None, Vec::new(), None);
    for content in contents() {
        spare = replace_reusing(&path, &previous, &[&content], spare).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::read(&previous).ok(), before);
        files.push(fs::metadata(&path).unwrap().ino());
        before = Some(content);
    }
    assert_ne!(files[0], files[1]);
    assert!(files.iter().skip(3).zip(&files).all(|(later, file)| later == file), "{files:?}");
    assert_eq!(names(folder.path()).len(), 3);
    drop(spare);
    assert_eq!(names(folder.path()), ["a", "a.previous"]);
}

#[test]
fn who_reads_a_file_or_has_another_name_for_it_keeps_its_content() {
    for is_linked in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
        let (other, mut reader) = (folder.path().join("other"), None);
        let mut spare = None;
        for (at, content) in contents().enumerate() {
            spare = replace_reusing(&path, &previous, &[&content], spare).unwrap();
            if at == 0 && is_linked {
                fs::hard_link(&path, &other).unwrap();
            } else if at == 0 {
                reader = Some(File::open(&path).unwrap());
            }
        }
        let mut kept = Vec::new();
        match &mut reader {
            Some(reader) => drop(reader.read_to_end(&mut kept).unwrap()),
            None => kept = fs::read(&other).unwrap(),
        }
        assert_eq!(Some(kept), contents().next());
    }
}

#[test]
fn a_failed_step_leaves_nothing_over() {
    for step in ["write", "sync", "rename", "keep", "sync folder"] {
        let folder = tempfile::tempdir().unwrap();
        let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
        let spare = contents()
            .fold(None, |spare, content| replace_reusing(&path, &previous, &[&content], spare).unwrap());
        plan(1, Some(step), Fault::Errno(nix::libc::EIO));
        replace_reusing(&path, &previous, &[b"new"], spare).unwrap_err();
        let is_in_place = step == "sync folder";
        let (present, before) = (fs::read(&path).unwrap(), fs::read(&previous).unwrap());
        let all: Vec<_> = contents().collect();
        let last = |back: usize| all[all.len() - 1 - back].clone();
        assert_eq!(present, if is_in_place { b"new".to_vec() } else { last(0) });
        assert_eq!(before, if is_in_place { last(0) } else { last(1) });
        assert_eq!(names(folder.path()), ["a", "a.previous"]);
    }
}

#[test]
fn a_kill_before_any_step_leaves_two_whole_files_also_when_one_is_written_over() {
    if let Some(folder) = killed_at() {
        let path = PathBuf::from(folder).join("a");
        let previous = path.with_extension("previous");
        contents()
            .fold(None, |spare, content| replace_reusing(&path, &previous, &[&content], spare).unwrap());
        return;
    }
    let mut seen = 0;
    for step in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let killed = child_killed_at(
            "store::replace::tests::a_kill_before_any_step_leaves_two_whole_files_also_when_one_is_written_over",
            step,
            folder.path().to_str().unwrap(),
        );
        let which = |path: &Path| {
            let found = fs::read(path).ok()?;
            Some(contents().position(|content| content == found).expect("a whole content"))
        };
        let (newest, before) = (which(&path), which(&path.with_extension("previous")));
        assert!(newest.map_or(0, |newest| newest + 1) >= seen, "{newest:?} after {seen}");
        // Between the exchanges the newer one has the name of the one before; without a one before, both names are of
        // one file for a moment.
        let between = newest.map(|newest| newest + 1);
        assert!(before <= newest || before == between, "{before:?} before {newest:?}");
        seen = newest.map_or(0, |newest| newest + 1);
        sweep(folder.path()).unwrap();
        assert!(names(folder.path()).len() <= 2, "{:?}", names(folder.path()));
        if !killed {
            assert_eq!((newest, before), (Some(6), Some(5)));
            break;
        }
    }
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
        // Between the exchanges the newer one has the name of the one before.
        let is_between = now == b"old" && kept == b"new";
        assert!(kept == b"older" || kept == b"old" || is_between, "{kept:?}");
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
        steps, 7,
        "create, write, sync, exchange with the one before, exchange, sync of the folder, the end"
    );
}

#[test]
fn done_again_after_a_kill_in_between_the_one_before_is_still_that() {
    let folder = tempfile::tempdir().unwrap();
    let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
    for content in [b"1", b"2"] {
        replace_keeping(&path, &previous, &[content]).unwrap();
    }
    // As the kill leaves it, and the sweep after it.
    fs::write(&previous, b"3").unwrap();
    replace_keeping(&path, &previous, &[b"3"]).unwrap();
    assert_eq!((fs::read(&path).unwrap(), fs::read(&previous).unwrap()), (b"3".to_vec(), b"2".to_vec()));
}

#[test]
fn what_is_not_as_it_would_be_made_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let (path, previous) = (folder.path().join("a"), folder.path().join("a.previous"));
    let other = folder.path().join("other");
    fs::write(&path, b"1").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&other, b"other").unwrap();
    std::os::unix::fs::symlink(&other, &previous).unwrap();
    contents().fold(None, |spare, content| replace_reusing(&path, &previous, &[&content], spare).unwrap());
    assert_eq!(fs::read(&other).unwrap(), b"other");
    for path in [&path, &previous] {
        let found = fs::symlink_metadata(path).unwrap();
        assert!(found.is_file() && found.mode() & 0o777 == 0o600, "{found:?}");
    }
}
