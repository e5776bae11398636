//! The capture as a whole: real pipes, real kills.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::store::{Fault, child_killed_at, killed_at, plan};

fn counter() -> ServiceName {
    "counter".parse().unwrap()
}

fn logs(folder: &Path) -> Logs {
    Logs { folder: folder.to_owned(), size: 10 << 20, files: 5 }
}

/// A collector that is driven by the test, with the pipes of one service.
struct Desk {
    collector: Collector,
    output: std::fs::File,
    errors: std::fs::File,
    folder: tempfile::TempDir,
}

impl Desk {
    fn make() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Logs)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(folder.path());
        change(&mut logs);
        let mut collector = collector(logs, Hand::new().unwrap());
        let ((read_output, output), (read_errors, errors)) = (pipe().unwrap(), pipe().unwrap());
        collector.add(counter(), Stream::Output, read_output.into());
        collector.add(counter(), Stream::Errors, read_errors.into());
        Self { collector, output: output.into(), errors: errors.into(), folder }
    }

    fn texts(&self) -> Vec<String> {
        texts(self.folder.path())
    }
}

fn signs() -> (tokio::sync::mpsc::Sender<Sign>, tokio::sync::mpsc::Receiver<Sign>) {
    tokio::sync::mpsc::channel(8)
}

fn collector(logs: Logs, hand: Hand) -> Collector {
    let wake = Arc::new(EventFd::new().unwrap());
    Collector::new(logs, hand, Tails::default(), signs().0, mpsc::channel().1, wake).unwrap()
}

/// Stream and text of every record.
fn texts(folder: &Path) -> Vec<String> {
    let records =
        reader::Follow::from_end(folder, &[counter()], reader::Back::records(usize::MAX)).unwrap().1;
    let going_on = |record: &reader::Record| if record.goes_on { "+" } else { "" };
    records.iter().map(|r| format!("{}{} {}", r.stream.unwrap(), going_on(r), r.text)).collect()
}

#[test]
fn lines_of_both_streams_are_stamped_records() {
    let mut desk = Desk::make();
    desk.output.write_all(b"one\ntwo\n").unwrap();
    desk.errors.write_all(b"oops\n").unwrap();
    desk.collector.turn();
    let mut texts = desk.texts();
    texts.sort();
    assert_eq!(texts, ["err oops", "out one", "out two"]);
    let raw = fs::read_to_string(desk.folder.path().join("counter.log")).unwrap();
    for line in raw.lines() {
        assert!(line[..27].parse::<jiff::Timestamp>().is_ok(), "{line}");
    }
}

#[test]
fn an_incomplete_line_waits_in_the_pipe_until_it_is_ended() {
    let mut desk = Desk::make();
    desk.output.write_all(b"one\ntw").unwrap();
    desk.collector.turn();
    assert_eq!(desk.texts(), ["out one"]);
    desk.output.write_all(b"o\n").unwrap();
    desk.collector.drain_all();
    assert_eq!(desk.texts(), ["out one", "out two"]);
}

#[test]
fn a_line_longer_than_the_longest_comes_in_pieces() {
    let mut desk = Desk::make();
    let mut line = vec![b'x'; 100_000];
    line.push(b'\n');
    desk.output.write_all(&line).unwrap();
    desk.collector.drain_all();
    let texts = desk.texts();
    assert_eq!(texts.iter().map(String::len).collect::<Vec<_>>(), [65536 + 5, 100_000 - 65536 + 4]);
    assert!(texts[0].starts_with("out+ ") && texts[1].starts_with("out x"));
}

#[test]
fn the_last_words_are_in_though_they_have_no_line_end_and_belong_to_one_incarnation() {
    let mut desk = Desk::make();
    for number in 0..30 {
        writeln!(desk.errors, "error {number}").unwrap();
    }
    desk.errors.write_all(b"dying").unwrap();
    let last = desk.collector.last_lines(&counter());
    assert_eq!(last.len(), 20);
    assert_eq!((last[0].as_str(), last[19].as_str()), ("error 11", "dying"));
    assert!(desk.collector.last_lines(&counter()).is_empty());
    assert_eq!(desk.texts().last().unwrap(), "err dying");
}

#[test]
fn a_new_core_knows_the_last_words_from_the_file() {
    let mut desk = Desk::make();
    desk.collector.starting(&counter(), Incarnation::FIRST);
    desk.errors.write_all(b"of the first\n").unwrap();
    desk.collector.drain_all();
    desk.collector.starting(&counter(), Incarnation::FIRST.next());
    desk.errors.write_all(b"of the second\n").unwrap();
    desk.collector.drain_all();
    let mut next = collector(logs(desk.folder.path()), Hand::new().unwrap());
    next.add(counter(), Stream::Errors, pipe().unwrap().0.into());
    assert_eq!(next.last_lines(&counter()), ["of the second"]);
}

#[test]
fn files_are_rotated_by_size_and_only_so_many_are_kept() {
    let mut desk = Desk::with(|logs| (logs.size, logs.files) = (1000, 3));
    for number in 0..100 {
        writeln!(desk.output, "line {number}").unwrap();
        desk.collector.drain_all();
    }
    let names = ["counter.log", "counter.log.1", "counter.log.2"];
    let mut found: Vec<_> = fs::read_dir(desk.folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, names);
    assert!(fs::metadata(desk.folder.path().join(names[1])).unwrap().len() >= 1000);
    let texts = desk.texts();
    assert_eq!(texts.last().unwrap(), "out line 99");
    let kept: Vec<String> = (100 - texts.len()..100).map(|number| format!("out line {number}")).collect();
    assert_eq!(texts, kept);
}

#[test]
fn a_full_disk_loses_a_batch_says_how_much_and_goes_on() {
    let mut desk = Desk::make();
    desk.output.write_all(b"before\n").unwrap();
    desk.collector.drain_all();
    desk.output.write_all(b"lost\nlost too\n").unwrap();
    plan(1, Some("append"), Fault::Errno(nix::libc::ENOSPC));
    desk.collector.drain_all();
    desk.output.write_all(b"after\n").unwrap();
    desk.collector.drain_all();
    let texts = desk.texts();
    assert_eq!((texts[0].as_str(), texts[2].as_str()), ("out before", "out after"));
    assert!(
        texts[1].starts_with("dog 2 lines (") && texts[1].ends_with("No space left on device (os error 28)"),
        "{texts:?}"
    );
}

#[test]
fn a_log_that_somebody_removed_is_made_anew() {
    let mut desk = Desk::make();
    desk.output.write_all(b"one\n").unwrap();
    desk.collector.drain_all();
    fs::remove_dir_all(desk.folder.path()).unwrap();
    desk.output.write_all(b"two\n").unwrap();
    desk.collector.drain_all();
    assert_eq!(desk.texts(), ["out two"]);
}

#[test]
fn half_a_record_that_a_power_cut_left_is_ended_first() {
    let desk = Desk::make();
    fs::write(desk.folder.path().join("counter.log"), b"2026-11-24T09:00:00.123456Z out ha").unwrap();
    let Desk { mut collector, mut output, folder, .. } = desk;
    output.write_all(b"whole\n").unwrap();
    collector.drain_all();
    assert_eq!(texts(folder.path()), ["out ha", "out whole"]);
}

#[test]
fn a_batch_half_in_the_file_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (hand, whole) = (Hand::new().unwrap(), "2026-11-24T09:00:00.123456Z out same\n");
    // What a core leaves that is killed in the middle of its append.
    fs::write(folder.path().join("counter.log"), format!("{whole}{}", &whole[..30])).unwrap();
    let mark = hand::Mark {
        service: counter(),
        stream: Stream::Output,
        end: lines::End::Line,
        length: whole.len() as u64,
    };
    hand.mark(&mark).unwrap();
    let (read, write) = pipe().unwrap();
    nix::unistd::write(&write, b"same\nsame\n").unwrap();
    assert_eq!(hand.take(&read, 10).unwrap(), 10);
    collector(logs(folder.path()), hand);
    assert_eq!(texts(folder.path()), ["out same", "out same", "out same"]);
}

/// The descriptors of a capture, held by the test as the keeper does, and opened anew by its children.
struct Kept {
    hand: Hand,
    pipe: (OwnedFd, OwnedFd),
    folder: tempfile::TempDir,
}

impl Kept {
    fn make() -> Self {
        Self { hand: Hand::new().unwrap(), pipe: pipe().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// For [`Kept::core`] in a child.
    fn argument(&self) -> String {
        let [out, into, mark] = self.hand.descriptors().map(|fd| fd.as_raw_fd());
        let pid = std::process::id();
        format!("{pid} {out} {into} {mark} {} {}", self.pipe.0.as_raw_fd(), self.folder.path().display())
    }

    /// Everything a new core does until the pipe is empty, on the thread that runs it.
    fn core(argument: &str) {
        let words: Vec<&str> = argument.split(' ').collect();
        let open = |number: usize, write: bool| -> OwnedFd {
            let path = format!("/proc/{}/fd/{}", words[0], words[number]);
            fs::OpenOptions::new().read(!write || number == 3).write(write).open(path).unwrap().into()
        };
        let hand = Hand::from_stored([open(1, false), open(2, true), open(3, true)]);
        let mut logs = logs(Path::new(words[5]));
        (logs.size, logs.files) = (2000, 1000);
        let mut collector = collector(logs, hand);
        collector.add(counter(), Stream::Output, open(4, false).into());
        collector.drain_all();
    }
}

/// Runs itself as a core that is killed before each step in turn. All lines are the same, so nothing but the
/// order of the steps can tell what was written.
#[test]
fn cores_killed_before_any_step_lose_and_double_nothing() {
    if let Some(argument) = killed_at() {
        return Kept::core(&argument);
    }
    let name = "capture::tests::cores_killed_before_any_step_lose_and_double_nothing";
    let kept = Kept::make();
    const BEGUN: &str = "e\nsame\nsame\nsam";
    let (mut written, mut step) = (0, 1);
    loop {
        // More than a batch together with what the round before left, and the begin of a line the next one ends.
        nix::unistd::write(&kept.pipe.1, BEGUN.repeat(3000).as_bytes()).unwrap();
        written += 1;
        if !child_killed_at(name, step, &kept.argument()) {
            break;
        }
        step += 1;
    }
    assert!(step > 8, "at least mark, take, append, consume twice: {step}");
    let expected = BEGUN.repeat(3000 * written);
    let mut expected: Vec<String> = expected.lines().map(|line| format!("out {line}")).collect();
    expected.pop();
    assert_eq!(texts(kept.folder.path()), expected);
}

/// The same with kills at any time, beside a writer that never stops.
#[test]
fn cores_killed_at_any_time_lose_and_double_nothing() {
    const LINES: usize = 60_000;
    const CORE: &str = "WATCHDOG_TEST_CORE";
    if let Ok(argument) = std::env::var(CORE) {
        loop {
            Kept::core(&argument);
        }
    }
    let kept = Kept::make();
    let mut pipe: std::fs::File = kept.pipe.1.try_clone().unwrap().into();
    let writer = thread::spawn(move || {
        for number in 0..LINES {
            pipe.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
    });
    let mut cores = 0;
    while !writer.is_finished() {
        let mut core = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "capture::tests::cores_killed_at_any_time_lose_and_double_nothing",
                "--nocapture",
            ])
            .env(CORE, kept.argument())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Killed once it has written something, or a little later.
        let before = newest_length(kept.folder.path());
        let deadline = Instant::now() + Duration::from_secs(60);
        while newest_length(kept.folder.path()) == before && !writer.is_finished() {
            assert!(Instant::now() < deadline, "no core writes");
            thread::yield_now();
        }
        let spin = Instant::now() + Duration::from_micros(fastrand::u64(0..3000));
        while Instant::now() < spin {
            std::hint::spin_loop();
        }
        core.kill().unwrap();
        core.wait().unwrap();
        cores += 1;
    }
    writer.join().unwrap();
    Kept::core(&kept.argument());
    assert!(cores > 1, "{cores}");
    let expected: Vec<String> = (0..LINES).map(|number| format!("out {number}")).collect();
    let found = texts(kept.folder.path());
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
}

fn newest_length(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|found| found.len())
        .sum()
}

#[test]
fn what_a_process_of_a_former_life_said_is_not_said_of_the_first_one_of_this() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("counter.log"), "2026-11-30T00:00:00.000000Z err long ago\n").unwrap();
    let last = |is_first: bool| {
        let mut collector = collector(logs(folder.path()), Hand::new().unwrap());
        if is_first {
            collector.first(&counter());
        }
        collector.add(counter(), Stream::Errors, pipe().unwrap().0.into());
        collector.last_lines(&counter())
    };
    assert_eq!(last(false), ["long ago"], "another core of this life captured it");
    assert!(last(true).is_empty());
}

#[tokio::test]
async fn the_thread_captures_by_itself_and_stops_with_nothing_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::start(logs(folder.path()), Hand::new().unwrap(), signs().0).unwrap();
    let (read, write) = pipe().unwrap();
    capture.starting(&counter(), Incarnation::FIRST);
    capture.add(&counter(), Stream::Errors, read);
    capture.begin();
    nix::unistd::write(&write, b"oops\n").unwrap();
    assert_eq!(capture.last_lines(&counter()).await, ["oops"]);
    nix::unistd::write(&write, b"by itself\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while texts(folder.path()).len() < 3 {
        assert!(Instant::now() < deadline, "{:?}", texts(folder.path()));
        tokio::task::yield_now().await;
    }
    nix::unistd::write(&write, b"a prompt: ").unwrap();
    while texts(folder.path()).len() < 4 {
        assert!(Instant::now() < deadline, "{:?}", texts(folder.path()));
        tokio::task::yield_now().await;
    }
    nix::unistd::write(&write, b"the end\n").unwrap();
    capture.stop().await;
    assert_eq!(
        texts(folder.path()),
        ["dog starting incarnation 1", "err oops", "err by itself", "err+ a prompt: ", "err the end"]
    );
}

#[tokio::test]
async fn a_removed_service_is_written_to_its_end_and_let_go_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::start(logs(folder.path()), Hand::new().unwrap(), signs().0).unwrap();
    let (read, write) = pipe().unwrap();
    capture.add(&counter(), Stream::Output, read);
    capture.begin();
    nix::unistd::write(&write, b"last\n").unwrap();
    capture.remove(&counter());
    capture.stop().await;
    assert_eq!(texts(folder.path()), ["out last"]);
    nix::unistd::write(&write, b"for nobody\n").unwrap_err();
}

#[test]
fn following_misses_nothing_through_rotations_and_merges_services_by_time() {
    let mut desk = Desk::with(|logs| (logs.size, logs.files) = (500, 100));
    let bumper: ServiceName = "bumper".parse().unwrap();
    let (read, write) = pipe().unwrap();
    desk.collector.add(bumper.clone(), Stream::Output, read.into());
    writeln!(desk.output, "before").unwrap();
    desk.collector.drain_all();
    let services = [counter(), bumper];
    let (mut follow, last) =
        reader::Follow::from_end(desk.folder.path(), &services, reader::Back::records(10)).unwrap();
    assert_eq!(last.len(), 1);
    let mut found = Vec::new();
    for number in 0..200 {
        writeln!(desk.output, "{number}").unwrap();
        desk.collector.drain_all();
        nix::unistd::write(&write, format!("{number} too\n").as_bytes()).unwrap();
        desk.collector.drain_all();
        if number % 37 == 0 {
            found.extend(follow.more().unwrap());
        }
    }
    found.extend(follow.more().unwrap());
    let texts: Vec<_> = found.iter().map(|record| record.text.as_str()).collect();
    let expected: Vec<_> = (0..200).flat_map(|n| [n.to_string(), format!("{n} too")]).collect();
    assert_eq!(texts, expected);
    assert!(follow.more().unwrap().is_empty());
    let tail = reader::Follow::from_end(desk.folder.path(), &services, reader::Back::records(3)).unwrap().1;
    assert_eq!(
        tail.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(),
        ["198 too", "199", "199 too"]
    );
}

#[test]
fn a_service_without_a_log_has_no_records_and_is_followed_from_its_first() {
    let mut desk = Desk::make();
    let (mut follow, last) =
        reader::Follow::from_end(desk.folder.path(), &[counter()], reader::Back::records(10)).unwrap();
    assert!(last.is_empty());
    assert!(follow.more().unwrap().is_empty());
    writeln!(desk.output, "first").unwrap();
    desk.collector.drain_all();
    assert_eq!(follow.more().unwrap()[0].text, "first");
}
