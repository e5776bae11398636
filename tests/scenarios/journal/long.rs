//! A core that dies while it writes a state that is too long for the journal.

use std::fs;

use nix::sys::signal::Signal;
use watchdog_tests::inject::Doomed;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Seen, TestWatchdog};

/// Longer than what the journal takes.
const LONG: usize = 300 * 1024;

/// So many have a file each: the next is written over one of them.
const FILES: usize = 3;

fn save(wd: &TestWatchdog, number: usize) -> String {
    // Of any length: what is written over is now longer, now shorter.
    let text = format!("{number} {}", "x".repeat(LONG + number * 7919 % 100_000));
    wd.puppet("a").does(Order::Update { text: text.clone() });
    wd.puppet("a").does(Order::Save);
    text
}

fn names(wd: &TestWatchdog) -> Vec<String> {
    let files = fs::read_dir(wd.path(".watchdog/state")).expect("the folder").flatten();
    files.filter_map(|file| file.file_name().into_string().ok()).collect()
}

fn a_core_killed_while_it_writes_a_long_state_at_any(call: &str, least: usize) {
    let limits = "restart_limit = \"off\"\nrestart_delay = \"0s\"";
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself).key(limits)]);
    wd.until("it is ready", Seen::all_ready);
    let (mut killed, mut number) = (0, 0);
    for nth in 1.. {
        for _ in 0..FILES {
            number += 1;
            save(&wd, number);
        }
        let cores = wd.status().watchdog.cores;
        let doomed = Doomed::at(wd.core(), call, nth);
        number += 1;
        let saved = save(&wd, number);
        drop(doomed);
        let is_killed = wd.status().watchdog.cores != cores;
        wd.kill_core();
        let ended = wd.kill("a", Signal::SIGKILL);
        wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(ended));
        assert!(wd.puppet("a").text(Order::State) == saved, "{call} {nth}: another state than was saved");
        if !is_killed {
            break;
        }
        killed += 1;
    }
    assert!(killed >= least, "{call}: the core was killed at {killed}");
    let left = |names: Vec<String>| names.into_iter().filter(|name| name.ends_with(".temporary")).count();
    assert!(left(names(&wd)) <= 1, "{:?}", names(&wd));
    wd.stop();
    assert_eq!(left(names(&wd)), 0, "{:?}", names(&wd));
}

#[test]
fn a_core_killed_at_any_write_of_a_long_state_loses_nothing_acknowledged() {
    a_core_killed_while_it_writes_a_long_state_at_any("write", 1);
}

#[test]
fn a_core_killed_at_any_fdatasync_of_a_long_state_loses_nothing_acknowledged() {
    a_core_killed_while_it_writes_a_long_state_at_any("fdatasync", 1);
}

#[test]
fn a_core_killed_at_any_fsync_while_it_writes_a_long_state_loses_nothing_acknowledged() {
    a_core_killed_while_it_writes_a_long_state_at_any("fsync", 1);
}

#[test]
fn a_core_killed_at_any_exchange_of_names_of_a_long_state_loses_nothing_acknowledged() {
    a_core_killed_while_it_writes_a_long_state_at_any("renameat2", 2);
}
