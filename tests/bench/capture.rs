//! What it costs to keep what a program prints: 200 MB of lines, stamped, in files that rotate; against loggers that do
//! the same, and against `cat` into one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use watchdog_tests::{Seen, TestWatchdog, program};

use crate::ratio::Rounds;
use crate::use_of::cpu_time;

/// Of 100 bytes each.
const LINES: usize = 2_000_000;
const LINE: usize = 100;

/// No round loses a line to the rotation: this is more than there is.
const FILES: usize = 60;
const FILE: usize = 10 * 1024 * 1024;

const ROUNDS: usize = 7;

/// Programs of others that keep what they read at their standard input.
const LOGGERS: [Logger; 3] = [
    Logger {
        key: ["capture_vs_s6log", "capture_cpu_vs_s6log"],
        program: "s6-log",
        // `@4000000000000000000000000 `.
        stamp: 26,
        ready: |logs| {
            let mut command = Command::new("s6-log");
            command.arg(format!("n{FILES}")).arg(format!("s{FILE}")).arg("t").arg(logs);
            command
        },
    },
    Logger {
        key: ["capture_vs_svlogd", "capture_cpu_vs_svlogd"],
        program: "svlogd",
        // As above.
        stamp: 26,
        ready: |logs| {
            fs::create_dir(logs).expect("a folder of ours");
            fs::write(logs.join("config"), format!("s{FILE}\nn{FILES}\n")).expect("a folder of ours");
            let mut command = Command::new("svlogd");
            // It reads 1 KiB at a time unless told otherwise.
            command.args(["-t", "-b", "65536"]).arg(logs).stderr(Stdio::null());
            command
        },
    },
    // Neither stamps nor rotates: the least that can be done.
    Logger {
        key: ["capture_vs_cat", "capture_cpu_vs_cat"],
        program: "cat",
        stamp: 0,
        ready: |logs| {
            fs::create_dir(logs).expect("a folder of ours");
            let mut command = Command::new("cat");
            command.stdout(File::create(logs.join("current")).expect("a folder of ours"));
            command
        },
    },
];

/// Until all lines are in the files, and the processor time of who put them there.
pub(crate) fn run() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for Logger { program, .. } in &LOGGERS {
        let there = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
        assert!(there, "no {program}: tests/install installs it");
    }
    let mut pairs = LOGGERS.map(|_| (Vec::new(), Vec::new()));
    for round in 0..=ROUNDS {
        // Who goes first alternates; the first round of all warms the caches and is not counted.
        let before = round.is_multiple_of(2).then(watchdog);
        let theirs = LOGGERS.map(|logger| logger.cost());
        let ours = before.unwrap_or_else(watchdog);
        for ((times, loads), theirs) in pairs.iter_mut().zip(theirs).filter(|_| round > 0) {
            times.push((ours.0, theirs.0));
            loads.push((ours.1, theirs.1));
        }
    }
    for (Logger { key: [time, load], .. }, (times, loads)) in LOGGERS.into_iter().zip(pairs) {
        Rounds::of(time, times).report();
        Rounds::of(load, loads).report();
    }
}

/// The whole time, and the processor time.
type Cost = (Duration, Duration);

fn watchdog() -> Cost {
    let mut watchdog = TestWatchdog::idle();
    let gate = gate(watchdog.folder());
    let this = std::env::current_exe().expect("the path of this program");
    let count = LINES.to_string();
    let writer = program("writer", &[this.to_str().expect("a path of ours"), "lines", &count]);
    let writer = writer.key("restart = \"never\"").env("GATE", gate.display().to_string());
    watchdog.configure(&format!("log_size = \"{FILE}B\"\nlog_files = {FILES}"), &[writer]);
    watchdog.run_again();
    watchdog.until("it waits at the gate", Seen::all_ready);
    let logs = watchdog.path(".watchdog/logs");
    let (keeper, core) = (watchdog.keeper_pid(), watchdog.core().pid);
    let used = || cpu_time(keeper) + cpu_time(core);
    let before = used();
    let is_log = |name: &str| name.starts_with("writer.log");
    // `2026-01-01T00:00:00.000000Z out ` before each.
    let took = pass(&gate, &logs, is_log, LINES * (LINE + 32));
    let load = used() - before;
    assert_eq!(lines_in(&logs, is_log, b" out "), LINES, "lines kept by the watchdog");
    (took, load)
}

/// What the product is compared with.
#[derive(Clone, Copy)]
struct Logger {
    key: [&'static str; 2],
    program: &'static str,
    /// Bytes before each line.
    stamp: usize,
    /// The command that keeps what it reads in this folder, which it makes.
    ready: fn(&Path) -> Command,
}

impl Logger {
    fn cost(self) -> Cost {
        let folder = tempfile::tempdir().expect("a fresh folder");
        let gate = gate(folder.path());
        let logs = folder.path().join("logs");
        let (reads, writes) = io::pipe().expect("a pipe");
        // Gone with the block: a command keeps what its process is given.
        let mut logger = { (self.ready)(&logs).stdin(reads).spawn().expect("it runs") };
        let mut writer = {
            let mut writer = Command::new(std::env::current_exe().expect("the path of this program"));
            writer.arg("lines").arg(LINES.to_string()).env("GATE", &gate).stdin(Stdio::null());
            writer.stdout(writes.try_clone().expect("a descriptor")).spawn().expect("it runs")
        };
        let before = cpu_time(logger.id());
        // Beside what it was told and what it remembers.
        let is_log = |name: &str| !["config", "lock", "state"].contains(&name);
        let took = pass(&gate, &logs, is_log, LINES * (LINE + self.stamp));
        let load = cpu_time(logger.id()) - before;
        drop(writes);
        writer.wait().expect("a child of ours");
        logger.wait().expect("a child of ours");
        assert_eq!(lines_in(&logs, is_log, b""), LINES, "lines kept by {}", self.program);
        (took, load)
    }
}

/// A pipe with a name, at which a writer waits.
fn gate(folder: &Path) -> PathBuf {
    let path = folder.join("gate");
    mkfifo(&path, Mode::S_IRWXU).expect("a folder of ours");
    path
}

/// Opens the gate; from then until so many bytes are in the files.
fn pass(gate: &Path, logs: &Path, is_log: fn(&str) -> bool, bytes: usize) -> Duration {
    let give_up = Instant::now() + Duration::from_secs(120);
    let mut gate = OpenOptions::new().write(true).open(gate).expect("the writer has it open");
    let begin = Instant::now();
    gate.write_all(b"go\n").expect("the writer reads");
    drop(gate);
    while files(logs, is_log).iter().map(|file| file.metadata().map_or(0, |of| of.len())).sum::<u64>()
        < bytes as u64
    {
        assert!(Instant::now() < give_up, "{bytes} bytes do not come to be in {}", logs.display());
        // As little as can be on the processors that are measured.
        thread::sleep(Duration::from_millis(2));
    }
    begin.elapsed()
}

/// The files of a folder that have lines in them.
fn files(folder: &Path, is_log: fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().filter(|entry| is_log(&entry.file_name().to_string_lossy()));
    paths.map(|entry| entry.path()).collect()
}

fn lines_in(folder: &Path, is_log: fn(&str) -> bool, with: &[u8]) -> usize {
    let has = |line: &[u8]| with.is_empty() || line.windows(with.len()).any(|part| part == with);
    let count = |path: &PathBuf| {
        let file = BufReader::new(File::open(path).expect("a file that was listed"));
        file.split(b'\n').filter(|line| has(line.as_ref().expect("it can be read"))).count()
    };
    files(folder, is_log).iter().map(count).sum()
}

/// The writer: waits at the gate, then writes numbered lines of 100 bytes.
pub(crate) fn lines(count: usize) {
    let gate = std::env::var_os("GATE").expect("GATE names a pipe");
    let mut gate = BufReader::new(File::open(gate).expect("it was made before"));
    gate.read_line(&mut String::new()).expect("somebody opens the gate");
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    for number in 0..count {
        writeln!(out, "{number:0width$}", width = LINE - 1).expect("somebody reads");
    }
    out.flush().expect("somebody reads");
}
