//! From `kill -9` until the next process is in `main`.

use std::path::Path;

use watchdog_tests::{Entry, Seen, TestWatchdog, binary, probe};

use crate::floor::Floor;
use crate::ratio::Rounds;
use crate::stamps::Stamps;

const ROUNDS: usize = 51;

/// A program that was up and well, and one that dies for the first time as soon as it is in `main`.
pub(crate) fn run() {
    warm();
    early();
}

fn warm() {
    let folder = tempfile::tempdir().expect("a fresh folder");
    let (ours, bare) = (folder.path().join("ours"), folder.path().join("bare"));
    let (stamps, bare_stamps) = (Stamps::listen(&ours), Stamps::listen(&bare));
    let always = entry(&ours).key("restart_limit = \"off\"").key("restart_delay = \"0s\"");
    let watchdog = TestWatchdog::run(&[always]);
    let floor = Floor::start(&binary("probe-stamp"), 1, &bare);
    let (mut last, mut last_bare) = (stamps.next(), bare_stamps.next());
    let mut kill = || {
        watchdog.until("it is ready", Seen::all_ready);
        let (took, next) = stamps.kill(last);
        last = next;
        took
    };
    let mut kill_bare = || {
        watchdog.until("as much passes as above", Seen::all_ready);
        let (took, next) = bare_stamps.kill(last_bare);
        last_bare = next;
        took
    };
    kill();
    kill_bare();
    Rounds::measure("restart_warm", ROUNDS, kill, kill_bare).report();
    drop(floor);
}

fn early() {
    let folder = tempfile::tempdir().expect("a fresh folder");
    let (ours, bare) = (folder.path().join("ours"), folder.path().join("bare"));
    let (stamps, bare_stamps) = (Stamps::listen(&ours), Stamps::listen(&bare));
    let watchdog = TestWatchdog::run(&[entry(&ours)]);
    stamps.next();
    let kill = || {
        // A start of the operator's: what follows is a first death again.
        watchdog.cli(&["stop", "stamp"]).ok();
        watchdog.cli(&["start", "stamp"]).ok();
        let first = stamps.next();
        // What the start still has to write is not the restart's.
        watchdog.until("it is ready", Seen::all_ready);
        stamps.kill(first).0
    };
    let kill_bare = || {
        let floor = Floor::start(&binary("probe-stamp"), 1, &bare);
        let first = bare_stamps.next();
        watchdog.until("as much passes as above", Seen::all_ready);
        let (took, _next) = bare_stamps.kill(first);
        drop(floor);
        took
    };
    kill();
    kill_bare();
    Rounds::measure("restart_early", ROUNDS, kill, kill_bare).report();
}

fn entry(stamps: &Path) -> Entry {
    probe("stamp", "stamp", &[]).env("STAMP_TO", stamps.display().to_string())
}
