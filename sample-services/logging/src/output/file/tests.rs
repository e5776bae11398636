use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::parcel::{Parcel, sample};
use crate::settings::{FileFormat, Period, Size};
use watchdog_service::log::Batch;

const START: u64 = 1_764_474_000_000;

/// A folder, a clock, and settings.
struct Files {
    folder: TempDir,
    clock: Arc<AtomicU64>,
    settings: FileSettings,
}

impl Files {
    fn new() -> Self {
        let settings = FileSettings::at("r/{service}.jsonl");
        Self { folder: TempDir::new().unwrap(), clock: Arc::new(AtomicU64::new(START)), settings }
    }

    fn sink(&self) -> FileSink {
        let clock = Arc::clone(&self.clock);
        let clock = Box::new(move || clock.load(Ordering::Relaxed));
        FileSink::with_clock(self.folder.path().to_owned(), &self.settings, clock)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("r").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// All of a service's older files and the current one, unpacked, the oldest first.
    fn all(&self, service: &str) -> Vec<(String, String)> {
        let naming = Naming::new("{service}.jsonl");
        let listing = old::list(&self.folder.path().join("r"), &naming).unwrap();
        let current = format!("{service}.jsonl");
        let names = listing.files.into_iter().filter(|old| old.current == current).map(|old| old.name);
        names
            .chain([current.clone()])
            .map(|name| {
                let bytes = fs::read(self.at(&name)).unwrap();
                let text = if name.ends_with(".gz") {
                    let mut text = String::new();
                    GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
                    text
                } else {
                    String::from_utf8(bytes).unwrap()
                };
                (name, text)
            })
            .collect()
    }
}

fn write(sink: &mut FileSink, parcels: impl IntoIterator<Item = Parcel>) -> Result<(), SinkError> {
    let mut load: Load = parcels.into_iter().map(|parcel| Item::new(Arc::new(parcel))).collect();
    let result = sink.write(&mut load);
    assert_eq!(result.is_ok(), load.iter().all(|item| item.is_done));
    result
}

fn redelivered(service: &str, batch: Batch) -> Parcel {
    Parcel::new(service.parse().unwrap(), batch, Vec::new(), true)
}

fn numbers(text: &str) -> Vec<u64> {
    let number =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].as_u64().unwrap();
    text.lines().map(number).collect()
}

/// What another thread is about to do.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn each_service_has_a_file_and_its_records_are_in_order() {
    let files = Files::new();
    let mut sink = files.sink();
    let parcels = [("a", 1), ("b", 1), ("a", 4), ("worker@2", 1)];
    write(&mut sink, parcels.map(|(service, first)| sample::parcel(service, sample::batch(1, first, 3))))
        .unwrap();
    assert_eq!(numbers(&files.read("a.jsonl")), [1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers(&files.read("b.jsonl")), [1, 2, 3]);
    assert_eq!(numbers(&files.read("worker@2.jsonl")), [1, 2, 3]);
}

#[test]
fn a_new_period_begins_a_new_file() {
    let mut files = Files::new();
    files.settings.every = Some(Period::millis(3_600_000));
    let mut sink = files.sink();
    for (first, at) in [(1, START), (2, START + 3_600_000), (3, START + 3_600_001)] {
        files.clock.store(at, Ordering::Relaxed);
        write(&mut sink, [sample::parcel("a", sample::batch(1, first, 1))]).unwrap();
    }
    let all = files.all("a");
    assert_eq!(all.iter().map(|(_, text)| numbers(text)).collect::<Vec<_>>(), [vec![1], vec![2, 3]]);
    assert_eq!(all[0].0, "a.jsonl.2025-11-30T044000.000Z");
}

#[test]
fn older_files_are_compressed_but_the_last() {
    let mut files = Files::new();
    files.settings.max_size = Size::try_from("4KiB".to_owned()).unwrap();
    let mut sink = files.sink();
    write(&mut sink, [sample::parcel("a", sample::batch(1, 1, 100))]).unwrap();
    let names = || files.all("a").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    until("compression", || {
        let listing = old::list(&sink.folder, &sink.naming).unwrap();
        old::to_pack(&listing).count() == 0 && listing.unfinished.is_empty()
    });
    drop(sink);
    let names = names();
    let (packed, plain) = names.split_at(names.len() - 2);
    assert!(packed.len() >= 2 && packed.iter().all(|name| name.ends_with(".gz")), "{names:?}");
    assert!(plain.iter().all(|name| !name.ends_with(".gz")), "{names:?}");
    let text: String = files.all("a").into_iter().map(|(_, text)| text).collect();
    assert_eq!(numbers(&text), (1..=100).collect::<Vec<_>>());
}

#[test]
fn half_a_record_is_cut_off_before_the_next_one() {
    let files = Files::new();
    write(&mut files.sink(), [sample::parcel("a", sample::batch(1, 1, 2))]).unwrap();
    let torn = files.read("a.jsonl") + r#"{"time":"2025-"#;
    fs::write(files.at("a.jsonl"), torn).unwrap();
    write(&mut files.sink(), [sample::parcel("a", sample::batch(1, 3, 1))]).unwrap();
    assert_eq!(numbers(&files.read("a.jsonl")), [1, 2, 3]);
}

#[test]
fn a_batch_that_comes_again_is_written_as_far_as_it_is_not_there() {
    for format in [FileFormat::Json, FileFormat::Logfmt] {
        let mut files = Files::new();
        files.settings.format = format;
        write(&mut files.sink(), [sample::parcel("a", sample::batch(1, 1, 5))]).unwrap();
        // Killed in the middle of the sixth.
        let torn = files.read("a.jsonl") + "{half";
        fs::write(files.at("a.jsonl"), torn).unwrap();
        let mut sink = files.sink();
        write(
            &mut sink,
            [sample::parcel("b", sample::batch(1, 1, 1)), redelivered("a", sample::batch(1, 3, 6))],
        )
        .unwrap();
        write(&mut sink, [sample::parcel("a", sample::batch(1, 9, 1))]).unwrap();
        let messages: Vec<_> = files.read("a.jsonl").lines().map(str::to_owned).collect();
        assert_eq!(messages.len(), 9);
        for (number, line) in (1..).zip(messages) {
            assert!(line.contains(&format!("record {number}\"")), "{line}");
        }
    }
}

#[test]
fn what_comes_again_is_looked_for_in_the_file_before_and_among_other_services() {
    let mut files = Files::new();
    files.settings = FileSettings::at("r/all.jsonl");
    let mut sink = files.sink();
    write(&mut sink, ["a", "b"].map(|service| sample::parcel(service, sample::batch(7, 1, 4)))).unwrap();
    sink.rotate("all.jsonl", START).unwrap();
    drop(sink);
    write(&mut files.sink(), ["b", "a"].map(|service| redelivered(service, sample::batch(7, 3, 3)))).unwrap();
    assert_eq!(numbers(&files.read("all.jsonl")), [5, 5]);
}

#[test]
fn numbers_alone_are_no_reason_to_leave_records_out() {
    let files = Files::new();
    let mut sink = files.sink();
    let again = || sample::parcel("a", sample::batch(1, 1, 3));
    // Not redelivered: a new watchdog counts from 1 too. And what is redelivered of another process is all new.
    write(&mut sink, [again(), again()]).unwrap();
    write(&mut sink, [redelivered("a", sample::batch(2, 1, 3))]).unwrap();
    assert_eq!(numbers(&files.read("a.jsonl")), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_full_disk_is_said_and_nothing_is_done() {
    let mut files = Files::new();
    files.settings = FileSettings::at("/dev/full");
    let error = write(&mut files.sink(), [sample::parcel("a", sample::batch(1, 1, 3))]).unwrap_err();
    assert_eq!(error.to_string(), "cannot write \"/dev/full\": No space left on device (os error 28)");
}

#[test]
fn a_write_that_failed_in_the_middle_is_taken_back() {
    let files = Files::new();
    let path = files.at("a.jsonl");
    let mut current = Current::open(&path).unwrap();
    assert_eq!(current.write(b"one\n", START).bytes, 4);
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, b"two\nthr"))
        .unwrap();
    assert_eq!(current.undo(b"two\nthree\n"), 0);
    assert_eq!(files.read("a.jsonl"), "one\n");
}

#[test]
fn one_file_that_can_not_be_written_holds_up_no_other() {
    let files = Files::new();
    fs::create_dir_all(files.at("a.jsonl")).unwrap();
    let mut sink = files.sink();
    let mut load: Load = ["a", "b", "a"]
        .map(|service| Item::new(Arc::new(sample::parcel(service, sample::batch(1, 1, 2)))))
        .into_iter()
        .collect();
    let error = sink.write(&mut load).unwrap_err();
    assert!(error.to_string().contains("a.jsonl"), "{error}");
    assert_eq!(load.iter().map(|item| item.is_done).collect::<Vec<_>>(), [false, true, false]);
    fs::remove_dir(files.at("a.jsonl")).unwrap();
    load.retain(|item| !item.is_done);
    sink.write(&mut load).unwrap();
    assert_eq!(numbers(&files.read("a.jsonl")), [1, 2, 1, 2]);
    assert_eq!(numbers(&files.read("b.jsonl")), [1, 2]);
}

#[test]
fn a_missing_folder_is_made_again() {
    let files = Files::new();
    let mut sink = files.sink();
    write(&mut sink, [sample::parcel("a", sample::batch(1, 1, 1))]).unwrap();
    let current = &sink.open["a.jsonl"];
    assert!(current.is_named(&files.at("a.jsonl")));
    fs::remove_dir_all(files.folder.path().join("r")).unwrap();
    assert!(!current.is_named(&files.at("a.jsonl")));
    sink.open.clear();
    write(&mut sink, [sample::parcel("a", sample::batch(1, 2, 1))]).unwrap();
    assert_eq!(numbers(&files.read("a.jsonl")), [2]);
}

#[test]
fn two_outputs_never_write_to_one_file() {
    let files = Files::new();
    let (mut first, mut second) = (files.sink(), files.sink());
    let parcel = || [sample::parcel("a", sample::batch(1, 1, 1))];
    write(&mut first, parcel()).unwrap();
    let error = write(&mut second, parcel()).unwrap_err();
    assert!(error.to_string().contains("another process or output writes to it"), "{error}");
    drop(first);
    write(&mut second, parcel()).unwrap();
    assert_eq!(numbers(&files.read("a.jsonl")), [1, 1]);
}

#[test]
fn a_link_to_a_device_is_neither_rotated_nor_cut() {
    let mut files = Files::new();
    files.settings.max_size = Size::try_from("4KiB".to_owned()).unwrap();
    fs::create_dir_all(files.folder.path().join("r")).unwrap();
    symlink("/dev/null", files.at("a.jsonl")).unwrap();
    write(
        &mut files.sink(),
        [sample::parcel("a", sample::batch(1, 1, 100)), redelivered("a", sample::batch(1, 1, 1))],
    )
    .unwrap();
    assert_eq!(fs::read_dir(files.folder.path().join("r")).unwrap().count(), 1);
}

#[test]
fn a_clock_that_was_set_back_keeps_the_order_of_files() {
    let files = Files::new();
    let mut sink = files.sink();
    for (first, at) in [(1, START), (2, START - 5_000), (3, START)] {
        write(&mut sink, [sample::parcel("a", sample::batch(1, first, 1))]).unwrap();
        sink.rotate("a.jsonl", at).unwrap();
    }
    write(&mut sink, [sample::parcel("a", sample::batch(1, 4, 1))]).unwrap();
    drop(sink);
    let text: String = files.all("a").into_iter().map(|(_, text)| text).collect();
    assert_eq!(numbers(&text), [1, 2, 3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn files_keep_their_limits_and_lose_only_the_oldest(
        counts in prop::collection::vec((0usize..2, 1u64..60), 1..12), keep in 0u32..4, kib in 4u64..40
    ) {
        let mut files = Files::new();
        files.settings.keep = keep;
        files.settings.max_size = Size::try_from("4KiB".to_owned()).unwrap();
        files.settings.total_size = Size::try_from(format!("{kib}KiB")).unwrap();
        files.settings.compress = false;
        let mut first = [1, 1];
        let mut sink = files.sink();
        for (service, count) in counts {
            let batch = sample::batch(1, first[service], count);
            first[service] += count;
            write(&mut sink, [sample::parcel(["a", "b"][service], batch)]).unwrap();
        }
        let settled = || {
            let listing = old::list(&sink.folder, &sink.naming).unwrap();
            old::doomed(&listing, keep as usize, kib << 10).is_empty()
        };
        sink.sweeper.sweep();
        until("the removal of older files", settled);
        drop(sink);
        for (service, end) in ["a", "b"].into_iter().zip(first) {
            if end == 1 {
                continue;
            }
            let all = files.all(service);
            prop_assert!(all.len() <= keep as usize + 1);
            prop_assert!(all.iter().all(|(_, text)| text.len() <= 4096));
            let found: Vec<_> = all.iter().flat_map(|(_, text)| numbers(text)).collect();
            prop_assert_eq!(&found, &(end - found.len() as u64..end).collect::<Vec<_>>());
        }
    }
}
