use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::parcel::sample;
use crate::settings::{FileSettings, JournaldSettings};

const PATIENCE: Duration = Duration::from_secs(60);

fn file(path: &str) -> OutputSettings {
    OutputSettings::File(FileSettings::at(path))
}

fn outputs<const N: usize>(folder: &TempDir, wanted: [(&str, OutputSettings); N]) -> Outputs {
    let mut outputs = Outputs::new(folder.path().to_owned(), Source::dry());
    outputs.configure(&map(wanted));
    outputs
}

fn queue_of(outputs: &Outputs, name: &str) -> Arc<Queue> {
    match &outputs.running[name].drive {
        Drive::Sink { queue, .. } => Arc::clone(queue),
        Drive::Otlp(_) | Drive::Prometheus(_) => panic!("it has no such queue"),
    }
}

fn map<const N: usize>(wanted: [(&str, OutputSettings); N]) -> BTreeMap<String, OutputSettings> {
    wanted.map(|(name, settings)| (name.to_owned(), settings)).into()
}

async fn until(outputs: &Outputs, what: &str, is_so: impl Fn(Option<&str>) -> bool) {
    let so = async {
        while !is_so(outputs.trouble().as_deref()) {
            outputs.changed().await;
        }
    };
    assert!(timeout(PATIENCE, so).await.is_ok(), "{what}: {:?}", outputs.trouble());
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(path: &Path) -> Vec<u64> {
    lines(path).iter().filter_map(|line| line["number"].as_u64()).collect()
}

#[tokio::test]
async fn what_is_settled_is_in_the_file() {
    let folder = TempDir::new().unwrap();
    let mut outputs = outputs(&folder, [("file", file("{service}.jsonl"))]);
    for first in 1..50 {
        outputs.hand(sample::parcel("a", sample::batch(1, first, 1)));
        outputs.settle().await;
        assert_eq!(numbers(&folder.path().join("a.jsonl")), (1..=first).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_output_that_fails_delays_none_and_writes_all_when_it_works_again() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("gone"), "a file where a folder should be").unwrap();
    let mut outputs =
        outputs(&folder, [("bad", file("gone/{service}.jsonl")), ("good", file("{service}.jsonl"))]);
    for first in [1, 3, 5] {
        outputs.hand(sample::parcel("a", sample::batch(1, first, 2)));
        outputs.settle().await;
    }
    assert_eq!(numbers(&folder.path().join("a.jsonl")), [1, 2, 3, 4, 5, 6]);
    until(&outputs, "trouble is seen", |trouble| {
        trouble.is_some_and(|trouble| trouble.starts_with("output `bad`: cannot make the folder"))
    })
    .await;
    fs::remove_file(folder.path().join("gone")).unwrap();
    until(&outputs, "it works again", |trouble| trouble.is_none()).await;
    outputs.settle().await;
    assert_eq!(numbers(&folder.path().join("gone/a.jsonl")), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_came_is_what_was_written_and_what_was_dropped() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("gone"), "").unwrap();
    let mut outputs = outputs(&folder, [("bad", file("gone/{service}.jsonl"))]);
    let mut sent = [0, 0];
    // More than may wait.
    while !outputs.trouble().is_some_and(|trouble| trouble.contains("dropped")) || sent[1] < 5_000 {
        for (at, service) in ["a", "b"].into_iter().enumerate() {
            outputs.hand(sample::parcel(service, sample::batch(1, sent[at] + 1, 1_000)));
            sent[at] += 1_000;
        }
        let OutputCounts { written, dropped, waiting } = &outputs.counts()["bad"];
        assert_eq!(
            written.values().sum::<u64>() + dropped.values().sum::<u64>() + waiting,
            sent[0] + sent[1]
        );
    }
    assert!(outputs.counts()["bad"].waiting > 0);
    fs::remove_file(folder.path().join("gone")).unwrap();
    until(&outputs, "it works again", |trouble| trouble.is_none()).await;
    outputs.settle().await;
    for (at, service) in ["a", "b"].into_iter().enumerate() {
        outputs.hand(sample::parcel(service, sample::batch(1, sent[at] + 1, 1)));
        sent[at] += 1;
    }
    outputs.settle().await;
    let counts = outputs.counts()["bad"].clone();
    outputs.stop(Instant::now() + PATIENCE).await;
    for (service, sent) in ["a", "b"].into_iter().zip(sent) {
        let (mut written, mut dropped) = (Vec::new(), 0);
        for line in lines(&folder.path().join(format!("gone/{service}.jsonl"))) {
            match line["number"].as_u64() {
                Some(number) => {
                    // What was dropped is said where it is missing.
                    let expected =
                        written.last().copied().unwrap_or(0) + dropped_before(&written, dropped) + 1;
                    assert_eq!(number, expected);
                    written.push(number);
                }
                None => {
                    assert_eq!(
                        (line["output"].as_str(), line["reason"].as_str()),
                        (Some("bad"), Some("queue-full"))
                    );
                    dropped += line["count"].as_u64().unwrap();
                }
            }
        }
        assert!(dropped > 0);
        assert_eq!(written.len() as u64 + dropped, sent);
        let service = Some(service.parse().unwrap());
        assert_eq!(counts.written[&service], written.len() as u64);
        assert_eq!(counts.dropped[&(service, "queue-full")], dropped);
    }
}

/// How many are missing behind the last that was written.
fn dropped_before(written: &[u64], dropped: u64) -> u64 {
    let missing = written.last().copied().unwrap_or(0) - written.len() as u64;
    dropped - missing
}

#[tokio::test]
async fn an_output_that_hangs_is_not_waited_for_again_and_again() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut outputs = outputs(&folder, [("pipe", file("pipe")), ("good", file("{service}.jsonl"))]);
    // A pipe takes 64 KiB, then it blocks.
    let all = async {
        for first in (1..).step_by(100).take(100) {
            outputs.hand(sample::parcel("a", sample::batch(1, first, 100)));
            outputs.settle().await;
        }
    };
    timeout(PATIENCE, all).await.expect("the intake goes on");
    let good = queue_of(&outputs, "good");
    assert!(
        timeout(PATIENCE, async {
            while !good.is_settled() {
                outputs.board.settled.notified().await;
            }
        })
        .await
        .is_ok()
    );
    assert_eq!(numbers(&folder.path().join("a.jsonl")).len(), 10_000);
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_it_may() {
    let folder = TempDir::new().unwrap();
    let outputs = outputs(&folder, [("full", file("/dev/full"))]);
    outputs.hand(sample::parcel("a", sample::batch(1, 1, 10)));
    let queue = queue_of(&outputs, "full");
    timeout(PATIENCE, outputs.stop(Instant::now())).await.unwrap();
    assert_eq!(queue.dropped(), 10);
}

#[tokio::test]
async fn other_settings_hold_for_what_is_handed_over_after_them() {
    let folder = TempDir::new().unwrap();
    let mut outputs =
        outputs(&folder, [("a", file("old-{service}.jsonl")), ("b", file("b-{service}.jsonl"))]);
    outputs.hand(sample::parcel("s", sample::batch(1, 1, 1)));
    outputs.settle().await;
    outputs.configure(&map([("a", file("new-{service}.jsonl")), ("c", file("c-{service}.jsonl"))]));
    outputs.hand(sample::parcel("s", sample::batch(1, 2, 1)));
    outputs.settle().await;
    for (name, expected) in [("old", [1]), ("b", [1]), ("new", [2]), ("c", [2])] {
        assert_eq!(numbers(&folder.path().join(format!("{name}-s.jsonl"))), expected, "{name}");
    }
    outputs.stop(Instant::now() + PATIENCE).await;
}

#[tokio::test]
async fn an_output_that_is_taken_away_writes_what_it_holds() {
    let folder = TempDir::new().unwrap();
    let mut outputs = outputs(&folder, [("a", file("{service}.jsonl"))]);
    outputs.hand(sample::parcel("s", sample::batch(1, 1, 100)));
    outputs.configure(&map([("b", file("b-{service}.jsonl"))]));
    outputs.stop(Instant::now() + PATIENCE).await;
    assert_eq!(numbers(&folder.path().join("s.jsonl")), (1..=100).collect::<Vec<_>>());
}

/// A journal in a folder, as far as its socket goes.
fn journal(folder: &TempDir) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The message of the next entry.
fn message(journal: &UnixDatagram) -> String {
    let mut bytes = vec![0; 1 << 20];
    let length = journal.recv(&mut bytes).unwrap();
    let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
    text.lines().find_map(|line| line.strip_prefix("MESSAGE=")).unwrap().to_owned()
}

#[tokio::test]
async fn a_journal_has_an_entry_a_record_and_is_waited_for_while_it_is_away() {
    let folder = TempDir::new().unwrap();
    let settings = OutputSettings::Journald(JournaldSettings::at(folder.path().join("socket")));
    let outputs = outputs(&folder, [("journal", settings)]);
    outputs.hand(sample::parcel("a", sample::batch(1, 1, 3)));
    until(&outputs, "it is away", |trouble| {
        trouble.is_some_and(|it| it.contains("cannot write to the journal"))
    })
    .await;
    let first = journal(&folder);
    assert_eq!([(); 3].map(|()| message(&first)), ["record 1", "record 2", "record 3"]);
    until(&outputs, "it is there", |trouble| trouble.is_none()).await;
    // Another one takes its place, as when it is restarted.
    drop(first);
    fs::remove_file(folder.path().join("socket")).unwrap();
    let second = journal(&folder);
    outputs.hand(sample::parcel("a", sample::batch(1, 4, 1)));
    assert_eq!(message(&second), "record 4");
    outputs.stop(Instant::now() + PATIENCE).await;
}

#[tokio::test]
async fn an_entry_that_no_datagram_holds_is_cut_and_the_next_one_goes_too() {
    let folder = TempDir::new().unwrap();
    let journal = journal(&folder);
    let settings = OutputSettings::Journald(JournaldSettings::at(folder.path().join("socket")));
    let outputs = outputs(&folder, [("journal", settings)]);
    let mut batch = sample::batch(1, 1, 2);
    batch.records[0] = sample::event(&"x".repeat(4 << 20));
    outputs.hand(sample::parcel("a", batch));
    let cut = message(&journal);
    assert!(cut.len() < 8 << 10 && cut.starts_with("xxx"), "{}", cut.len());
    assert_eq!(message(&journal), "record 2");
    outputs.stop(Instant::now() + PATIENCE).await;
}

#[tokio::test]
async fn a_journal_that_reads_nothing_holds_up_no_end() {
    let folder = TempDir::new().unwrap();
    let _silent = journal(&folder);
    let settings = OutputSettings::Journald(JournaldSettings::at(folder.path().join("socket")));
    let outputs = outputs(&folder, [("journal", settings)]);
    let queue = queue_of(&outputs, "journal");
    outputs.hand(sample::parcel("a", sample::batch(1, 1, 5_000)));
    until(&outputs, "it is silent", |trouble| trouble.is_some()).await;
    outputs.stop(Instant::now()).await;
    let counts = queue.counts();
    assert!(counts.waiting == 0, "{counts:?}");
}
