//! A core that dies while it empties the journal into the files, because that has become too long.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;
use watchdog_tests::inject::Doomed;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Seen, TestWatchdog};

use super::{are_recorded_by, shown};

/// As long as a state may be that goes to the journal, nearly.
const LONG: usize = 240 * 1024;

/// At this length beyond its first the journal is emptied; it grows by so much at once.
const FULL: u64 = 4 * 1024 * 1024;
const ROOM: u64 = 256 * 1024;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What was acknowledged last.
#[derive(Default)]
struct Acknowledged {
    states: [String; 3],
    saves: usize,
    sets: u64,
}

impl Acknowledged {
    /// One more state, of the next service, whole and synced.
    fn save(&mut self, wd: &TestWatchdog) {
        self.saves += 1;
        let at = self.saves % NAMES.len();
        let text = format!("{} {}", self.saves, "x".repeat(LONG));
        wd.puppet(NAMES[at]).does(Order::Update { text: text.clone() });
        wd.puppet(NAMES[at]).does(Order::Save);
        self.states[at] = text;
    }

    fn set(&mut self, wd: &TestWatchdog) {
        self.sets += 1;
        wd.cli(&["set", "a", &format!("number={}", self.sets)]).ok();
    }

    /// What the disk has of it, read by new processes of all.
    fn is_there(&self, wd: &TestWatchdog, at: &str) {
        wd.kill_core();
        for (name, text) in NAMES.iter().zip(&self.states) {
            let killed = wd.kill(name, Signal::SIGKILL);
            wd.until("the next one is ready", |seen| seen.of(name).is_ready_after(killed));
            let found = wd.puppet(name).text(Order::State);
            assert!(found == *text, "{at}: {name} has another state than was saved");
        }
        let settings: Value = serde_json::from_str(&wd.puppet("a").text(Order::Settings)).expect("JSON");
        assert_eq!(settings["number"], self.sets, "{at}");
        are_recorded_by(&["set"], self.sets, &shown(wd), at);
    }
}

/// The newest segment of the journal, and how long it is.
fn segment(wd: &TestWatchdog) -> (PathBuf, u64) {
    let files = fs::read_dir(wd.path(".watchdog/state")).expect("the folder").flatten();
    let number = |name: &str| name.strip_prefix("journal-")?.parse::<u64>().ok();
    let newest = files.filter_map(|file| Some((number(file.file_name().to_str()?)?, file.path()))).max();
    let path = newest.expect("a journal").1;
    let length = fs::metadata(&path).expect("it is there").len();
    (path, length)
}

fn a_core_killed_while_it_empties_the_journal_at_any(call: &str, least: u32) {
    let limits = "restart_limit = \"off\"\nrestart_delay = \"0s\"";
    let wd = TestWatchdog::run(&NAMES.map(|name| puppet(name, ByItself).key(limits)));
    wd.until("all are ready", Seen::all_ready);
    let mut acknowledged = Acknowledged::default();
    let mut killed = 0;
    for nth in 1.. {
        acknowledged.set(&wd);
        NAMES.iter().for_each(|_| acknowledged.save(&wd));
        wd.kill_core();
        let (first, length) = segment(&wd);
        while segment(&wd).1 < length + FULL - ROOM {
            acknowledged.save(&wd);
        }
        assert_eq!(segment(&wd).0, first, "it was emptied too early to be looked at");
        let cores = wd.status().watchdog.cores;
        let doomed = Doomed::at(wd.core(), call, nth);
        while segment(&wd).0 == first && wd.status().watchdog.cores == cores {
            acknowledged.save(&wd);
            acknowledged.set(&wd);
        }
        // Until it has been emptied, or another core is there that goes on.
        acknowledged.set(&wd);
        drop(doomed);
        let is_killed = wd.status().watchdog.cores != cores;
        acknowledged.is_there(&wd, &format!("{call} {nth}"));
        if !is_killed {
            break;
        }
        killed += 1;
    }
    assert!(killed >= least, "{call}: the core was killed at {killed}");
}

#[test]
fn a_core_killed_at_any_fsync_while_it_empties_the_journal_loses_nothing_acknowledged() {
    a_core_killed_while_it_empties_the_journal_at_any("fsync", 3);
}

#[test]
fn a_core_killed_at_any_rename_while_it_empties_the_journal_loses_nothing_acknowledged() {
    a_core_killed_while_it_empties_the_journal_at_any("rename", 2);
}

#[test]
fn a_core_killed_at_any_write_of_a_segment_while_it_empties_the_journal_loses_nothing_acknowledged() {
    a_core_killed_while_it_empties_the_journal_at_any("pwrite64", 3);
}

#[test]
fn a_core_killed_at_any_removal_while_it_empties_the_journal_loses_nothing_acknowledged() {
    a_core_killed_while_it_empties_the_journal_at_any("unlink", 1);
}
