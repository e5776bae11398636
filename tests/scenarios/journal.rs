//! What was acknowledged is there: whatever the disk does, wherever the core dies.

mod emptying;
mod long;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use watchdog_protocol::audit::{AuditRecord, AuditResult};
use watchdog_protocol::control::SettingsView;
use watchdog_protocol::status::{PhaseStatus, VerdictStatus};
use watchdog_tests::inject::{Doomed, Hampered};
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Seen, TestWatchdog};

/// One round: a save, a set, a stop with all that goes to the files after it, a start.
fn round(wd: &TestWatchdog, number: u64) {
    let a = wd.puppet("a");
    a.does(Order::Update { text: number.to_string() });
    a.does(Order::Save);
    wd.cli(&["set", "a", &format!("number={number}")]).ok();
    wd.cli(&["stop", "a"]).ok();
    wd.cli(&["start", "a"]).ok();
}

fn holds(wd: &TestWatchdog, number: u64, at: &str) {
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(wd.puppet("a").text(Order::State), number.to_string(), "{at}");
    let settings: Value = serde_json::from_str(&wd.puppet("a").text(Order::Settings)).expect("JSON");
    assert_eq!(settings["number"], number, "{at}");
}

/// Each changing call of so many rounds was answered, so its record is there: once, though it was asked of two cores.
fn are_recorded(rounds: u64, records: &[AuditRecord], at: &str) {
    are_recorded_by(&["set", "stop", "start"], rounds, records, at);
}

fn are_recorded_by(verbs: &[&str], rounds: u64, records: &[AuditRecord], at: &str) {
    let mut numbers: Vec<_> = records.iter().map(|record| record.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>(), "{at}");
    for verb in verbs {
        let of_verb = || records.iter().filter(|record| record.verb == *verb);
        assert!(of_verb().all(|record| record.result == AuditResult::Done), "{at}: {records:?}");
        let calls: BTreeSet<_> = of_verb().map(|record| &record.request).collect();
        assert_eq!((of_verb().count(), calls.len() as u64), (calls.len(), rounds), "{at}: {verb}");
    }
}

/// As the file has them.
fn in_audit_file(wd: &TestWatchdog) -> Vec<AuditRecord> {
    let text = fs::read_to_string(wd.path(".watchdog/logs/audit.jsonl")).expect("the audit");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn shown(wd: &TestWatchdog) -> Vec<AuditRecord> {
    wd.cli(&["audit", "--json", "-n", "1000"]).ok().json()
}

fn a_core_killed_at_any(call: &str, least: u32) {
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    let (mut killed, mut number) = (0, 0);
    for nth in 1.. {
        number += 1;
        let cores = wd.status().watchdog.cores;
        let doomed = Doomed::at(wd.core(), call, nth);
        round(&wd, number);
        drop(doomed);
        let at = format!("{call} {nth}");
        are_recorded(number, &shown(&wd), &at);
        holds(&wd, number, &at);
        if wd.status().watchdog.cores == cores {
            break;
        }
        killed += 1;
    }
    // What a new core found must be found by every later one.
    wd.kill_core();
    wd.cli(&["restart", "a"]).ok();
    holds(&wd, number, call);
    assert!(killed >= least, "{call}: the core was killed at {killed}");
    // As the journal has it that nobody reads but this command, and then as the file has it, the journal emptied.
    wd.kill_keeper();
    are_recorded(number, &shown(&wd), call);
    wd.run_again();
    holds(&wd, number, call);
    are_recorded(number, &shown(&wd), call);
    wd.stop();
    are_recorded(number, &in_audit_file(&wd), call);
}

#[test]
fn a_core_killed_at_any_write_to_the_journal_loses_nothing_acknowledged() {
    a_core_killed_at_any("pwrite64", 2);
}

#[test]
fn a_core_killed_at_any_write_to_the_audit_loses_nothing_acknowledged() {
    a_core_killed_at_any("write", 2);
}

#[test]
fn a_core_killed_at_any_fdatasync_loses_nothing_acknowledged() {
    a_core_killed_at_any("fdatasync", 1);
}

#[test]
fn a_core_killed_at_any_fsync_loses_nothing_acknowledged() {
    a_core_killed_at_any("fsync", 2);
}

#[test]
fn a_core_killed_at_any_rename_loses_nothing_acknowledged() {
    a_core_killed_at_any("rename", 1);
}

/// Set and save while the disk fails, and after it. So many changes may still be kept then.
fn a_disk_that_fails<T>(wd: &TestWatchdog, kept: u64, fail: impl FnOnce() -> T) {
    wd.until("it is ready", Seen::all_ready);
    round(wd, 1);
    let a = wd.puppet("a");
    let failing = fail();
    let (said, before) = (2..=2 + kept)
        .map(|number| (view(wd), format!("number={number}")))
        .map(|(before, change)| (wd.cli(&["set", "a", &change]), before))
        .find(|(said, _)| said.code != 0)
        .expect("the disk fails");
    assert!(said.stderr.contains("nothing was changed"), "{said}");
    assert_eq!(view(wd).revision, before.revision);
    a.does(Order::Update { text: "2".into() });
    let Shown::Failed { .. } = a.order(Order::Save) else { panic!("saved, and nothing is on disk") };
    let seen = wd.status();
    assert!(seen.of("a").is(PhaseStatus::Ready));
    assert!(seen.of("a").state.as_ref().is_some_and(|state| state.failed.is_some()));
    drop(failing);
    // By itself: nobody saves again.
    wd.until("it is on disk", |seen| {
        let a = seen.of("a");
        a.state.as_ref().is_some_and(|state| state.failed.is_none() && state.synced == state.sequence)
    });
    wd.cli(&["set", "a", "number=2"]).ok();
    wd.kill_core();
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    holds(wd, 2, "after all");
}

#[test]
fn a_sync_that_fails_is_told_and_what_was_promised_before_it_stays() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    a_disk_that_fails(&wd, 0, || Hampered::failing(wd.core(), "fdatasync,fsync", "EIO"));
}

/// What it did is done, and no disk takes its record.
#[test]
fn a_call_that_can_not_be_recorded_says_so_and_is_recorded_when_it_can() {
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    let signal = ["kill", "--signal", "CONT", "a"];
    wd.cli(&signal).ok();
    let failing = Hampered::failing(wd.core(), "fdatasync,fsync", "EIO");
    let said = wd.cli(&signal).with_code(1);
    assert!(said.stderr.contains("done, but its record in the audit is not on disk"), "{said}");
    let said = wd.cli(&["kill", "--signal", "CONT", "nobody"]).with_code(2);
    assert!(said.stderr.contains("no service `nobody`") && said.stderr.contains("not on disk"), "{said}");
    drop(failing);
    wd.cli(&signal).ok();
    let records = shown(&wd);
    assert_eq!(records.iter().map(|record| record.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    wd.kill_core();
    assert_eq!(shown(&wd), records);
    wd.until("it is ready", Seen::all_ready);
    wd.stop();
    assert_eq!(in_audit_file(&wd), records);
}

#[test]
fn what_the_journal_has_no_room_for_is_on_disk_in_the_audit_before_its_answer() {
    let disk = SmallDisk::mount();
    let mut wd = TestWatchdog::idle();
    wd.configure(&format!("state = {:?}", disk.0.path().join("state")), &[puppet("a", ByItself)]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let filler = disk.fill();
    // More than fit in the last block of the journal.
    for _ in 0..20 {
        wd.cli(&["kill", "--signal", "CONT", "a"]).ok();
    }
    wd.kill_core();
    let records = shown(&wd);
    assert_eq!(records.iter().map(|record| record.number).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    drop(filler);
    wd.cli(&["kill", "--signal", "CONT", "a"]).ok();
    assert_eq!(shown(&wd)[..20], records);
    wd.until("it is ready", Seen::all_ready);
    wd.stop();
    assert_eq!(in_audit_file(&wd).len(), 21);
}

#[test]
fn a_full_disk_is_told_and_what_was_promised_before_it_stays() {
    let disk = SmallDisk::mount();
    let mut wd = TestWatchdog::idle();
    wd.configure(&format!("state = {:?}", disk.0.path().join("state")), &[puppet("a", ByItself)]);
    wd.run_again();
    // What fits in the last block of the journal, which is of 4 KiB.
    a_disk_that_fails(&wd, 7, || disk.fill());
}

/// A file system of its own, of 256 KiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::Builder::new().prefix("wd-disk-").tempdir().expect("a fresh folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(folder.path());
        assert!(mount.status().expect("mount runs").success());
        Self(folder)
    }

    /// Until the file that is given is gone.
    fn fill(&self) -> NamedTempFile {
        let mut filler = NamedTempFile::new_in(self.0.path()).expect("a file");
        while filler.write_all(&[1; 512]).is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || thread::panicking());
    }
}

#[test]
fn a_slow_disk_delays_what_waits_for_it_and_nobody_else() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("liveness = \"200ms\"")]);
    wd.until("it is ready", Seen::all_ready);
    round(&wd, 1);
    let a = wd.puppet("a");
    let starts = wd.status().of("a").starts;
    let hampered = Hampered::slow(wd.core(), "fdatasync", Duration::from_secs(3));
    a.does(Order::Update { text: "2".into() });
    let save = a.begin(Order::Save);
    for _ in 0..5 {
        let state = wd.status().of("a").state.clone().expect("it has a state");
        assert!(state.synced < state.sequence, "the disk was quick, and nothing was tried");
    }
    assert_eq!(a.text(Order::State), "2");
    assert_eq!(save.shown(), Shown::Done);
    drop(hampered);
    assert_eq!(wd.status().of("a").starts, starts);
}

#[test]
fn a_stop_and_a_shutdown_leave_the_state_in_a_file_of_its_own() {
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    let a = wd.puppet("a");
    for text in ["one", "two"] {
        a.does(Order::Update { text: text.into() });
        a.does(Order::Save);
    }
    assert!(!file(&wd, "a.snapshot").exists(), "a save goes to the journal");
    wd.cli(&["stop", "a"]).ok();
    assert!(fs::read(file(&wd, "a.snapshot")).expect("the file").ends_with_text("two"));
    assert!(fs::read(file(&wd, "a.snapshot.previous")).expect("the one before").ends_with_text("one"));
    wd.cli(&["start", "a"]).ok();
    a.does(Order::Update { text: "three".into() });
    wd.cli(&["set", "a", "number=3"]).ok();
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    // The folder as an older watchdog leaves it, that knows no journal.
    for file in fs::read_dir(file(&wd, "")).expect("the folder").flatten() {
        if file.file_name().to_string_lossy().starts_with("journal-") {
            fs::remove_file(file.path()).expect("it can be removed");
        }
    }
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(a.text(Order::State), "three");
    assert_eq!(view(&wd).verdict, VerdictStatus::Accepted);
    assert!(a.text(Order::Settings).contains("\"number\":3"));
}

#[test]
fn a_state_of_64_mib_is_saved_and_found_again() {
    let mut wd = TestWatchdog::idle();
    wd.configure("max_message = \"64MiB\"", &[puppet("a", ByItself)]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let a = wd.puppet("a");
    a.does(Order::Update { text: "small".into() });
    a.does(Order::Save);
    let large = "0123456789abcdef".repeat(4 * 1024 * 1024 - 1);
    a.does(Order::Update { text: large.clone() });
    a.does(Order::Save);
    wd.kill_core();
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    assert!(a.text(Order::State) == large, "another state than the one that was saved");
}

trait EndsWithText {
    fn ends_with_text(&self, text: &str) -> bool;
}

impl EndsWithText for Vec<u8> {
    /// Before the checksum of four bytes.
    fn ends_with_text(&self, text: &str) -> bool {
        self[..self.len() - 4].ends_with(text.as_bytes())
    }
}

fn file(wd: &TestWatchdog, name: &str) -> PathBuf {
    wd.path(".watchdog/state").join(name)
}

fn view(wd: &TestWatchdog) -> SettingsView {
    wd.cli(&["get", "a", "--json"]).ok().json()
}
