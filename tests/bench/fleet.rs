//! Many programs under one supervisor: all started, all killed, all stopped.

use tempfile::TempDir;
use watchdog_tests::{Entry, Seen, TestWatchdog, binary, probe};

use crate::floor::Floor;
use crate::ratio::Rounds;
use crate::stamps::{Stamps, last, now};

/// From the start of the supervisor until the last program is in `main`.
pub(crate) fn boot() {
    for (key, count, rounds) in [("boot_100", 100, 15), ("boot_1000", 1000, 5)] {
        let (ours, bare) = (Stage::new(), Stage::new());
        let mut watchdog = ours.watchdog(count);
        // The first of each warms its caches and is not counted.
        let mut product = || {
            let begin = now();
            watchdog.spawn_run();
            let took = last(&ours.stamps.next_of(count)).saturating_sub(begin);
            watchdog.until("all are ready", Seen::all_ready);
            watchdog.stop();
            took
        };
        let floor = || {
            let begin = now();
            let floor = bare.floor(count);
            let took = last(&bare.stamps.next_of(count)).saturating_sub(begin);
            drop(floor);
            took
        };
        product();
        floor();
        Rounds::measure(key, rounds, product, floor).report();
    }
}

/// From the kill of all programs until as many others are in `main`.
pub(crate) fn storm() {
    const COUNT: usize = 100;
    let (ours, bare) = (Stage::new(), Stage::new());
    let mut watchdog = ours.watchdog(COUNT);
    watchdog.run_again();
    let _floor = bare.floor(COUNT);
    let (mut old, mut old_bare) = (ours.stamps.next_of(COUNT), bare.stamps.next_of(COUNT));
    let mut product = || {
        watchdog.until("all are ready", Seen::all_ready);
        let (took, next) = ours.stamps.kill_all(&old);
        old = next;
        took
    };
    let mut floor = || {
        watchdog.until("as much passes as above", Seen::all_ready);
        let (took, next) = bare.stamps.kill_all(&old_bare);
        old_bare = next;
        took
    };
    product();
    floor();
    Rounds::measure("storm_100", 15, product, floor).report();
}

/// From the wish to end until nothing is left.
pub(crate) fn stop() {
    const COUNT: usize = 100;
    let (ours, bare) = (Stage::new(), Stage::new());
    let mut watchdog = ours.watchdog(COUNT);
    let mut product = || {
        watchdog.run_again();
        ours.stamps.next_of(COUNT);
        watchdog.until("all are ready", Seen::all_ready);
        let took = watchdog.stop();
        let left = watchdog.processes();
        assert!(left.is_empty(), "left behind: {left:?}");
        took
    };
    let floor = || {
        let floor = bare.floor(COUNT);
        bare.stamps.next_of(COUNT);
        floor.stop()
    };
    product();
    floor();
    Rounds::measure("stop_100", 15, product, floor).report();
}

/// Where the programs of one supervisor say that they live.
struct Stage {
    folder: TempDir,
    stamps: Stamps,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a fresh folder");
        let stamps = Stamps::listen(&folder.path().join("stamps"));
        Self { folder, stamps }
    }

    /// A watchdog that will run so many.
    fn watchdog(&self, count: usize) -> TestWatchdog {
        let watchdog = TestWatchdog::idle();
        let to = self.folder.path().join("stamps").display().to_string();
        let entry = |number: usize| {
            let entry = probe(&format!("stamp-{number}"), "stamp", &[]).env("STAMP_TO", &to);
            entry.key("restart_limit = \"off\"").key("restart_delay = \"0s\"")
        };
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        watchdog.configure("", &entries);
        watchdog
    }

    fn floor(&self, count: usize) -> Floor {
        Floor::start(&binary("probe-stamp"), count, &self.folder.path().join("stamps"))
    }
}
