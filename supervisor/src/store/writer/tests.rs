use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use watchdog_protocol::{Incarnation, Sequence};

use super::*;
use crate::store::envelope::Kind;
use crate::store::kept::Loaded;

fn writer(folder: &Path) -> Writer {
    Writer::open(folder).unwrap().writer
}

fn put(content: &[u8]) -> Envelope {
    let content = Arc::new(content.to_vec());
    Envelope {
        kind: Kind::State,
        version: 1,
        incarnation: Incarnation::FIRST,
        sequence: Sequence::NONE,
        content,
    }
}

/// The bytes of a file that was put.
fn state(content: &[u8]) -> Vec<u8> {
    put(content).encode()
}

async fn change(writer: &mut Writer) -> Done {
    loop {
        if let Ended::Change(done) = writer.ended().await {
            return done;
        }
    }
}

async fn idle(writer: &mut Writer) {
    while !writer.is_idle() {
        match writer.ended().await {
            Ended::Change(Done { outcome, .. }) | Ended::Journal { outcome } => outcome.unwrap(),
            Ended::Settled { outcome, .. } => outcome.unwrap(),
        }
    }
}

fn found(writer: &mut Writer, path: &Path) -> Option<Vec<u8>> {
    writer.load(Kind::State, path, u32::MAX).unwrap().loaded.content().map(|(_, content)| content)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_content_is_on_disk_when_its_end_is_told_and_in_its_file_when_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut first = writer(folder.path());
    let number = first.put(&path, put(b"1"));
    let done = change(&mut first).await;
    assert_eq!((done.path.as_path(), done.up_to), (path.as_path(), number));
    done.outcome.unwrap();
    assert_eq!(names(folder.path()), ["journal-1"]);
    assert!(first.is_unsettled(&path));
    assert_eq!(found(&mut writer(folder.path()), &path).unwrap(), b"1");

    let mut second = writer(folder.path());
    second.settle(&path);
    idle(&mut second).await;
    assert!(!second.is_unsettled(&path));
    assert_eq!(fs::read(&path).unwrap(), state(b"1"));
    assert_eq!(found(&mut writer(folder.path()), &path).unwrap(), b"1");
}

#[tokio::test]
async fn of_contents_that_wait_only_the_newest_is_written_and_answers_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut writer = writer(folder.path());
    let other = writer.put(&folder.path().join("b"), put(b"0"));
    for waits in 2..=9u8 {
        writer.put(&path, put(&[waits]));
    }
    let last = writer.put(&path, put(b"10"));
    let ends = [change(&mut writer).await.up_to, change(&mut writer).await.up_to];
    assert_eq!(ends, [other, last]);
    writer.close();
    idle(&mut writer).await;
    assert_eq!(fs::read(&path).unwrap(), state(b"10"));
    assert!(!folder.path().join("a.previous").exists(), "what was replaced was never written");
}

/// A file that is moved after it stays moved for the next core, whichever marks were lost with this one.
#[tokio::test]
async fn a_renewed_journal_knows_nothing_of_what_was_in_it_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let mut first = writer(folder.path());
    for content in [b"1", b"2"] {
        first.put(&old, put(content));
        change(&mut first).await.outcome.unwrap();
    }
    assert!(first.is_unsettled(&old));
    first.renew();
    while first.is_renewing() {
        first.ended().await;
    }
    fs::rename(&old, &new).unwrap();
    fs::rename(folder.path().join("old.previous"), folder.path().join("new.previous")).unwrap();
    let mut next = writer(folder.path());
    assert_eq!(found(&mut next, &old), None);
    assert_eq!(found(&mut next, &new), Some(b"2".to_vec()));
    next.put(&old, put(b"3"));
    change(&mut next).await.outcome.unwrap();
    assert_eq!(found(&mut next, &old), Some(b"3".to_vec()));
}

#[tokio::test]
async fn the_one_before_is_kept_whichever_way_each_of_them_went() {
    let long = |byte| vec![byte; DIRECT + 1];
    for contents in [
        [vec![1], vec![2], vec![3]],
        [long(1), vec![2], vec![3]],
        [vec![1], long(2), vec![3]],
        [vec![1], vec![2], long(3)],
        [vec![1], long(2), long(3)],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = writer(folder.path());
        for content in &contents {
            writer.put(&path, put(content));
            change(&mut writer).await.outcome.unwrap();
        }
        writer.close();
        idle(&mut writer).await;
        let [_, before, newest] = contents;
        assert_eq!(fs::read(&path).unwrap(), state(&newest));
        assert_eq!(fs::read(folder.path().join("a.previous")).unwrap(), state(&before));
    }
}

/// A long content is written over the one before the one before, and what was left over for that is gone once none is
/// expected.
#[tokio::test]
async fn a_file_is_left_over_for_the_next_long_content_until_it_is_settled_or_all_is_closed() {
    let kept = ["a", "a.previous"];
    for how in ["settled", "closed", "closed while it is written"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = writer(folder.path());
        for byte in 0..4 {
            writer.put(&path, put(&vec![byte; DIRECT + 1]));
            change(&mut writer).await.outcome.unwrap();
        }
        assert_eq!(names(folder.path()).len(), kept.len() + 1);
        writer.put(&path, put(&[4; DIRECT + 1]));
        if how != "closed while it is written" {
            change(&mut writer).await.outcome.unwrap();
        }
        if how == "settled" {
            writer.settle(&path);
        } else {
            writer.close();
        }
        idle(&mut writer).await;
        assert_eq!(names(folder.path()), kept, "{how}");
        assert_eq!(fs::read(&path).unwrap(), state(&[4; DIRECT + 1]));
        assert_eq!(fs::read(folder.path().join("a.previous")).unwrap(), state(&[3; DIRECT + 1]));
    }
}

/// At each point a new core finds the newest of the contents whose end was told.
#[tokio::test]
async fn a_long_content_after_a_short_one_counts_for_the_next_core() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut first = writer(folder.path());
    for content in [vec![1], vec![2; DIRECT + 1], vec![3], vec![4; DIRECT + 1], vec![5; DIRECT + 1], vec![6]]
    {
        first.put(&path, put(&content));
        change(&mut first).await.outcome.unwrap();
        // Looked at in a copy: there is one writer per folder.
        let copy = tempfile::tempdir().unwrap();
        for name in names(folder.path()) {
            fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
        }
        assert_eq!(found(&mut writer(copy.path()), &copy.path().join("a")).unwrap(), content);
    }
}

#[tokio::test]
async fn a_hundred_files_are_written_by_a_few_commits() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    for number in 0..100u8 {
        writer.put(&folder.path().join(number.to_string()), put(&[number]));
    }
    while !writer.is_idle() {
        if let Ended::Change(done) = writer.ended().await {
            done.outcome.unwrap();
        }
    }
    assert_eq!(names(folder.path()).len(), 1, "all are in the journal");
    writer.close();
    idle(&mut writer).await;
    for number in 0..100u8 {
        assert_eq!(fs::read(folder.path().join(number.to_string())).unwrap(), state(&[number]));
    }
    let journal = names(folder.path()).into_iter().find(|name| name.starts_with("journal")).unwrap();
    let bytes = fs::read(folder.path().join(journal)).unwrap();
    let magic = &state(b"")[..8];
    assert!(bytes.windows(magic.len()).all(|found| found != magic), "a content is left in it");
}

#[tokio::test]
async fn a_journal_that_is_full_goes_to_the_files_and_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, quiet) = (folder.path().join("a"), folder.path().join("quiet"));
    let mut writer = writer(folder.path());
    writer.put(&quiet, put(b"quiet"));
    change(&mut writer).await.outcome.unwrap();
    let mut longest = 0;
    for round in 0..60u8 {
        writer.put(&path, put(&vec![round; DIRECT - 100]));
        change(&mut writer).await.outcome.unwrap();
        let journals = names(folder.path()).into_iter().filter(|name| name.starts_with("journal"));
        longest = longest.max(journals.map(|name| folder.path().join(name).metadata().unwrap().len()).sum());
    }
    idle(&mut writer).await;
    assert!(longest < 8 * 1024 * 1024, "{longest} bytes");
    assert_eq!(fs::read(&quiet).unwrap(), state(b"quiet"));
    assert_eq!(found(&mut writer, &path).unwrap(), vec![59; DIRECT - 100]);
}

#[tokio::test]
async fn a_failure_is_told_and_the_next_content_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut writer = writer(folder.path());
    let away = folder.path().with_extension("away");
    fs::rename(folder.path(), &away).unwrap();
    writer.put(&path, put(b"1"));
    assert!(change(&mut writer).await.outcome.is_err());
    fs::rename(&away, folder.path()).unwrap();
    writer.put(&path, put(b"2"));
    change(&mut writer).await.outcome.unwrap();
    assert_eq!(found(&mut writer, &path).unwrap(), b"2");
}

/// The slow disk: a fifo in a file's place blocks the one file, and only that one.
#[tokio::test]
async fn a_file_that_blocks_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let mut writer = writer(folder.path());
    writer.put(&fifo, put(b"1"));
    change(&mut writer).await.outcome.unwrap();
    // To settle it, what is there is read, which waits for somebody who writes.
    writer.settle(&fifo);
    let quick = folder.path().join("quick");
    writer.put(&quick, put(b"1"));
    assert_eq!(change(&mut writer).await.path, quick);
    assert!(writer.is_busy(&fifo) && !writer.is_idle());
    drop(fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap());
    idle(&mut writer).await;
    assert_eq!(found(&mut writer, &fifo).unwrap(), b"1");
}

/// A state folder of a watchdog that kept each state in a file of its own.
#[tokio::test]
async fn files_without_a_journal_are_found_and_the_next_content_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, state(b"old")).unwrap();
    fs::write(folder.path().join("a.previous"), state(b"older")).unwrap();
    let mut writer = writer(folder.path());
    let loaded = writer.load(Kind::State, &path, 1).unwrap();
    assert!(
        loaded.is_durable && matches!(loaded.loaded, Loaded::Restored((_, content)) if content == b"old")
    );
    writer.put(&path, put(b"new"));
    change(&mut writer).await.outcome.unwrap();
    writer.close();
    idle(&mut writer).await;
    assert_eq!(fs::read(&path).unwrap(), state(b"new"));
    assert_eq!(fs::read(folder.path().join("a.previous")).unwrap(), state(b"old"));
}

#[tokio::test]
async fn a_file_that_was_damaged_meanwhile_is_set_aside_before_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"damaged").unwrap();
    let mut writer = writer(folder.path());
    writer.put(&path, put(b"new"));
    writer.settle(&path);
    idle(&mut writer).await;
    assert_eq!(fs::read(&path).unwrap(), state(b"new"));
    assert_eq!(fs::read(folder.path().join("a.bad-1")).unwrap(), b"damaged");
}

#[tokio::test]
async fn a_close_in_which_a_file_can_not_be_written_leaves_it_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut first = writer(folder.path());
    first.put(&path, put(b"1"));
    change(&mut first).await.outcome.unwrap();
    // No file can take the place of a folder.
    fs::create_dir(&path).unwrap();
    first.close();
    let mut told = false;
    while !first.is_idle() {
        told |= matches!(first.ended().await, Ended::Settled { outcome: Err(_), .. });
    }
    assert!(told && first.is_unsettled(&path));
    fs::remove_dir(&path).unwrap();
    assert_eq!(found(&mut writer(folder.path()), &path).unwrap(), b"1");
}

#[tokio::test]
async fn where_many_are_loaded_only_what_was_in_the_folder_then_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut writer = writer(folder.path());
    fs::write(path("a"), state(b"first")).unwrap();
    fs::write(path("b.previous"), state(b"before")).unwrap();
    writer.begin_loading();
    assert_eq!(found(&mut writer, &path("a")), Some(b"first".to_vec()));
    assert_eq!(found(&mut writer, &path("b")), Some(b"before".to_vec()));
    assert_eq!(found(&mut writer, &path("c")), None);
    assert_eq!(found(&mut writer, &folder.path().join("absent").join("a")), None);
    // Nobody writes meanwhile: what comes now was not there.
    fs::write(path("c"), state(b"late")).unwrap();
    assert_eq!(found(&mut writer, &path("c")), None);
    writer.end_loading();
    assert_eq!(found(&mut writer, &path("c")), Some(b"late".to_vec()));
}
