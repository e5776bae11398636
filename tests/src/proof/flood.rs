//! The proof that whatever a program prints, and however much, the watchdog does not grow by it and answers as before.
//!
//! One program after the other floods its output: a line without end, short lines, bytes that are no text, what would
//! command a terminal. Meanwhile an operator asks for the status all the time. What keeper and core ever held in memory
//! is the kernel's word (`VmHWM`), so no peak is missed.

use std::fs;
use std::time::{Duration, Instant};

use watchdog_protocol::status::PhaseStatus;

use super::Broken;
use crate::entry::probe;
use crate::proc;
use crate::{Seen, TestWatchdog};

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One line without end.
    Long,
    /// Lines of a few bytes.
    Short,
    /// Anything.
    Binary,
    /// What a terminal would obey.
    Escapes,
}

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Bytes of each kind.
    pub bytes: u64,
}

/// What a round showed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Bytes by which keeper and core together were larger at most than before the flood.
    pub grown: u64,
    /// The median time of a status before it.
    pub quiet: Duration,
    /// The median time of a status in it.
    pub flooded: Duration,
    /// What nine of ten took at most in it.
    pub slow: Duration,
    /// How long it took.
    pub took: Duration,
}

/// By so much the watchdog may grow.
const GROWTH: u64 = 16 * 1024 * 1024;

/// So many times as long as before may a status take. Flooder and capture keep two processors busy, and a machine may
/// have no more: that alone is a factor. A control that waits for the flood would wait for as long as that lasts.
const DELAY: u32 = 25;

/// Statuses before the flood.
const QUIET: usize = 20;

/// More than the slowest machine needs for a kind.
const PATIENCE: Duration = Duration::from_secs(1800);

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Long, Self::Short, Self::Binary, Self::Escapes];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Short => "short",
            Self::Binary => "binary",
            Self::Escapes => "escapes",
        }
    }

    /// By its name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Behind a flood.
pub fn last_line(kind: Kind) -> String {
    format!("the flood of {} is over", kind.word())
}

/// Runs one round.
///
/// # Errors
/// What was not as promised.
pub fn flood(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    let mut wd = TestWatchdog::idle();
    wd.configure("log_size = \"1MiB\"\nlog_files = 2", &[probe("quiet", "mirror", &[])]);
    wd.run_again();
    let seen = wd.until("it is ready", Seen::all_ready);
    let processes = [seen.watchdog.keeper_pid, seen.watchdog.core_pid];
    let quiet: Vec<Duration> = (0..QUIET).map(|_| status(&wd).0).collect();
    let before: u64 = processes.iter().map(|pid| proc::memory(*pid)).sum();

    let mut flooded = Vec::new();
    for kind in Kind::ALL {
        let name = kind.word();
        let table = wd.path(&format!("{name}.toml"));
        let entry = probe(name, "flooder", &[name, &plan.bytes.to_string()]).key("restart = \"never\"");
        fs::write(&table, entry.render(wd.folder())).expect("it is written");
        wd.cli(&["register", table.to_str().expect("a path of ours"), "--no-wait"]).ok();
        let until = Instant::now() + PATIENCE;
        loop {
            let (took, seen) = status(&wd);
            match seen.find(name).map(|service| (service.phase, service.why().to_owned())) {
                Some((PhaseStatus::Completed, _)) => break,
                Some((PhaseStatus::Failed | PhaseStatus::Stopped, why)) => {
                    return Err(Broken(format!("the flood of {name} ended: {why}")));
                }
                _ if Instant::now() > until => {
                    return Err(Broken(format!("the flood of {name} does not end")));
                }
                _ => flooded.push(took),
            }
        }
        check_log(&wd, kind)?;
    }
    let peak: u64 = processes.iter().map(|pid| proc::peak_memory(*pid)).sum();
    if wd.status().watchdog.core_pid != processes[1] {
        return Err(Broken("the core died of it".to_owned()));
    }
    let shown = Shown {
        grown: peak.saturating_sub(before),
        quiet: of_ten(quiet, 5),
        flooded: of_ten(flooded.clone(), 5),
        slow: of_ten(flooded, 9),
        took: begin.elapsed(),
    };
    if shown.grown > GROWTH {
        return Err(Broken(format!("the watchdog grew by {} bytes", shown.grown)));
    }
    if shown.slow > shown.quiet * DELAY {
        return Err(Broken(format!("a status took {:?} instead of {:?}", shown.slow, shown.quiet)));
    }
    Ok(shown)
}

/// What an operator waits for.
fn status(wd: &TestWatchdog) -> (Duration, Seen) {
    let begin = Instant::now();
    let seen = wd.status();
    (begin.elapsed(), seen)
}

/// So many of ten took that long or less.
fn of_ten(mut times: Vec<Duration>, share: usize) -> Duration {
    times.sort();
    times.get(times.len() * share / 10).copied().unwrap_or_default()
}

/// The last line is there, and nothing that a terminal obeys.
fn check_log(wd: &TestWatchdog, kind: Kind) -> Result<(), Broken> {
    let name = kind.word();
    let said = wd.cli(&["logs", name, "-n", "50"]).ok().stdout;
    if !said.contains(&last_line(kind)) {
        return Err(Broken(format!("the last line of {name} is missing: {said:?}")));
    }
    let json = wd.cli(&["logs", name, "-n", "50", "--json"]).ok().stdout;
    if let Some(wrong) = json.lines().find(|line| serde_json::from_str::<serde_json::Value>(line).is_err()) {
        return Err(Broken(format!("{name} is shown as JSON that is none: {wrong:?}")));
    }
    match said.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        Some(control) => Err(Broken(format!("{name} shows {control:?}"))),
        None => Ok(()),
    }
}
