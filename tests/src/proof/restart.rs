//! The proof that a restart of the receiver is no error of its callers: their contract is idempotent, and all they
//! see is that some calls take longer.
//!
//! ```text
//! caller-1 ─┐  each at its own beat, whether earlier calls are answered or not;
//! …         ├─► answerer                       notes of each call how long it took since its beat
//! caller-50 ┘     ▲
//!                 │ `watchdog restart` and kill -9, in turn, as soon as it answers again
//! ```
//! Every call is answered, and with what it asked for; nobody was started more often than the restarts explain. What
//! a call took counts from the beat it was due at, so that a caller that falls behind can't hide it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use watchdog_protocol::status::InboxStatus;

use super::Broken;
use crate::entry::{Entry, probe};
use crate::{Seen, TestWatchdog};

/// Who calls, how fast, and how often the receiver is restarted.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Services that call.
    pub callers: usize,
    /// Calls a second, of each.
    pub rate: u32,
    /// Restarts of the receiver, the first by `watchdog restart`, the next by kill -9, and so on.
    pub restarts: usize,
}

/// What a round showed.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Calls that were answered: all of them.
    pub calls: usize,
    /// Calls that were delivered again after a death.
    pub redelivered: u64,
    /// The median of what a call took.
    pub p50: Duration,
    /// What one call in a hundred took, or longer.
    pub p99: Duration,
    /// What the slowest call took: the longest pause anyone saw.
    pub longest: Duration,
    /// How long it took.
    pub took: Duration,
}

const RECEIVER: &str = "answerer";

/// Answers of each caller between two restarts: enough that the next one falls into traffic.
const BETWEEN: u64 = 20;

/// Where a caller notes what its calls took, eight bytes each, in nanoseconds.
pub fn times(folder: &Path, caller: &str) -> PathBuf {
    folder.join(format!("{caller}.times"))
}

/// Where a caller notes what went wrong, a line each.
pub fn errors(folder: &Path, caller: &str) -> PathBuf {
    folder.join(format!("{caller}.errors"))
}

/// Runs one round.
///
/// # Errors
/// What was not as promised.
pub fn restart(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    let mut wd = TestWatchdog::idle();
    let folder = wd.path("notes");
    fs::create_dir(&folder).expect("a folder");
    let callers: Vec<String> = (1..=plan.callers).map(|number| format!("caller-{number}")).collect();
    let caller = |name: &String| {
        probe(name, "caller", &[])
            .with_session()
            .env("NOTES", folder.display().to_string())
            .env("RATE", plan.rate.to_string())
    };
    let mut entries: Vec<Entry> = callers.iter().map(caller).collect();
    let answerer = probe(RECEIVER, "answerer", &[]).with_session();
    entries.push(answerer.key("restart_limit = \"off\"").key("restart_delay = \"0s\""));
    wd.configure("", &entries);
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);

    let between = BETWEEN * callers.len() as u64;
    for round in 0..plan.restarts {
        answered(&wd, between);
        if round % 2 == 0 {
            wd.cli(&["restart", RECEIVER]).ok();
        } else {
            let killed = wd.kill(RECEIVER, Signal::SIGKILL);
            wd.until("the next one is ready", |seen| seen.of(RECEIVER).is_ready_after(killed));
        }
    }
    answered(&wd, between);
    let stop: Vec<&str> = ["stop"].into_iter().chain(callers.iter().map(String::as_str)).collect();
    wd.cli(&stop).ok();

    let seen = wd.status();
    for name in callers.iter().map(String::as_str).chain([RECEIVER]) {
        let expected = if name == RECEIVER { 1 + plan.restarts as u64 } else { 1 };
        let starts = seen.of(name).starts;
        if starts != expected {
            return Err(Broken(format!("{name} was started {starts} times and not {expected}")));
        }
    }
    let inboxes: Vec<InboxStatus> = wd.cli(&["intercoms", RECEIVER, "--json"]).ok().json();
    let redelivered = inboxes.iter().flat_map(|inbox| &inbox.lanes).map(|lane| lane.redelivered).sum();
    let mut all = Vec::new();
    for caller in &callers {
        all.extend(noted(&folder, caller)?);
    }
    all.sort_unstable();
    let Some(longest) = all.last().copied() else {
        return Err(Broken("nobody has called".to_owned()));
    };
    let part = |hundredths: usize| all[(all.len() - 1) * hundredths / 100];
    Ok(Shown { calls: all.len(), redelivered, p50: part(50), p99: part(99), longest, took: begin.elapsed() })
}

/// Waits until the receiver has answered so many more.
fn answered(wd: &TestWatchdog, more: u64) {
    let before = wd.status().of(RECEIVER).messages_in;
    wd.until("more calls are handled", |seen| seen.of(RECEIVER).messages_in >= before + more);
}

/// What the calls of one caller took.
pub(super) fn noted(folder: &Path, caller: &str) -> Result<Vec<Duration>, Broken> {
    let errors = fs::read_to_string(errors(folder, caller)).unwrap_or_default();
    if let Some(first) = errors.lines().next() {
        return Err(Broken(format!("{caller}: {} calls failed, the first: {first}", errors.lines().count())));
    }
    let Ok(bytes) = fs::read(times(folder, caller)) else {
        return Err(Broken(format!("{caller} has left no times")));
    };
    let nanos = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
    Ok(bytes.chunks_exact(8).map(|bytes| Duration::from_nanos(nanos(bytes))).collect())
}
