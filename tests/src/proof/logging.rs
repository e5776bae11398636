//! The proof that records are counted: those that were made are in the files, once and in order, or counted as dropped,
//! whoever is killed; outputs that fail take nothing from them, and filters that change while all goes on change in every
//! process, and cost none a restart or memory.
//!
//! ```text
//! relay-1 ─┐            ┌─► files              read at the end
//! relay-2 ─┴─► logging ─┼─► a collector that takes connections and says nothing
//!               ▲    ▲  └─► a collector that is not there
//!          kill -9  set filter.…
//! ```

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::Broken;
use crate::entry::{Entry, logging_service, probe};
use crate::{Seen, TestWatchdog, proc};

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Records of each relay.
    pub records: u64,
    /// How often the logging service is killed meanwhile.
    pub kills: u64,
    /// How often a filter changes meanwhile.
    pub filters: u64,
}

/// What a round showed.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Records that were made.
    pub made: u64,
    /// Those that are in the files.
    pub written: u64,
    /// Those that are counted as dropped.
    pub dropped: u64,
    /// From the acknowledgement of a filter until both services were heard to say that it is in force: half of the changes
    /// took no longer, and the longest.
    pub filter: (Duration, Duration),
    /// By how many bytes the largest relay grew while filters changed.
    pub grown: u64,
    /// How long it took.
    pub took: Duration,
}

const RELAYS: [&str; 2] = ["relay-1", "relay-2"];

/// Records of one burst: they find room to wait in also while nobody reads.
const BURST: u64 = 500;

/// More than the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a relay may grow by over all changes: its allocator's doing, and not a leak of each.
const GROWTH: u64 = 4 << 20;

/// Runs one round.
///
/// # Errors
/// What was not as promised.
pub fn logging(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    // It takes connections as far as the kernel does, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let silent_at = silent.local_addr().expect("its address");
    let outputs = format!(
        "outputs.files = {{ kind = \"file\", keep = 1000 }}\n\
         outputs.silent = {{ kind = \"otlp\", endpoint = \"http://{silent_at}\", timeout = \"1s\", queue = \"1MiB\" }}\n\
         outputs.gone = {{ kind = \"otlp\", endpoint = \"http://{gone}\", queue = \"1MiB\" }}"
    );
    let logging =
        logging_service().settings(&outputs).key("restart_limit = \"off\"").key("restart_delay = \"0s\"");
    let relays = RELAYS.map(|name| probe(name, "relay", &[]).with_session());
    let entries: Vec<Entry> = std::iter::once(logging).chain(relays).collect();
    let mut wd = TestWatchdog::idle();
    wd.configure("", &entries);
    wd.run_again();
    let seen = wd.until("all are ready", Seen::all_ready);
    let processes = RELAYS.map(|name| seen.of(name).process());

    let say = |burst: u64| {
        for relay in RELAYS {
            let message = format!(r#"{{"Say": {{"first": {}, "count": {BURST}}}}}"#, burst * BURST);
            wd.cli(&["send", relay, &message]).ok();
        }
    };
    let mut bursts = plan.records / BURST;
    for burst in 0..bursts {
        say(burst);
        if plan.kills > 0 && burst % (bursts / plan.kills).max(1) == 1 {
            wd.kill("logging", Signal::SIGKILL);
        }
    }

    let memory = || processes.iter().map(|process| proc::memory(process.pid)).collect::<Vec<_>>();
    let mut before = Vec::new();
    // While the relays go on saying things.
    let mut times = Vec::new();
    let over = AtomicBool::new(false);
    bursts += thread::scope(|threads| {
        let load = threads.spawn(|| {
            let more = (bursts..).take_while(|_| !over.load(Ordering::Relaxed));
            more.inspect(|burst| say(*burst)).count() as u64
        });
        let load_ends = Over(&over);
        for change in 0..plan.filters {
            let debug = change % 2 == 0;
            let directives = if debug { "debug" } else { "info" };
            wd.cli(&["set", "logging", &format!("filter.default={directives}")]).ok();
            let acknowledged = Instant::now();
            let waits = format!(r#"{{"Until": {{"debug": {debug}}}}}"#);
            // The way of the question to them and back is part of what is measured.
            thread::scope(|both| {
                for relay in RELAYS {
                    both.spawn(|| wd.cli(&["send", relay, &waits]).ok());
                }
            });
            times.push(acknowledged.elapsed());
            if change == plan.filters / 10 {
                before = memory();
            }
        }
        drop(load_ends);
        load.join().expect("it goes on saying things")
    });
    times.sort_unstable();
    let made = bursts * BURST * RELAYS.len() as u64;
    let grown = memory().iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).max();
    let grown = grown.unwrap_or(0);
    if grown > GROWTH {
        return Err(Broken(format!("a relay grew by {grown} bytes over {} filters", plan.filters)));
    }

    let (mut written, mut dropped) = (0, 0);
    for relay in RELAYS {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = Found::of(&wd, relay)?;
            if found.lines.len() as u64 + found.dropped >= bursts * BURST {
                written += found.lines.len() as u64;
                dropped += found.dropped;
                break;
            }
            if Instant::now() > until {
                let (lines, dropped) = (found.lines.len(), found.dropped);
                return Err(Broken(format!(
                    "{relay}: of {} {lines} are written, {dropped} dropped",
                    bursts * BURST
                )));
            }
        }
    }
    if written + dropped != made {
        return Err(Broken(format!("{made} were made, {written} are written and {dropped} dropped")));
    }
    let after = wd.status();
    if RELAYS.map(|name| after.of(name).process()) != processes {
        return Err(Broken("a relay was restarted".to_owned()));
    }
    wd.stop();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let filter = (middle, times.last().copied().unwrap_or_default());
    Ok(Shown { made, written, dropped, filter, grown, took: begin.elapsed() })
}

/// Ends the load, however the changes end.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is in the files of a service.
struct Found {
    lines: BTreeSet<u64>,
    dropped: u64,
}

impl Found {
    fn of(wd: &TestWatchdog, service: &str) -> Result<Self, Broken> {
        let said = wd.cli(&["logs", service, "-n", "100000000", "--json"]).ok();
        let mut found = Self { lines: BTreeSet::new(), dropped: 0 };
        let mut last = 0;
        for line in said.stdout.lines() {
            let record: Value = serde_json::from_str(line).expect("JSON");
            if record["kind"] == "dropped" && record["output"].is_null() {
                found.dropped += record["count"].as_u64().unwrap_or_default();
            }
            let Some(number) = record["number"].as_u64().filter(|_| record["kind"] == "event") else {
                continue;
            };
            if number <= last {
                return Err(Broken(format!("{service}: record {number} comes after {last}")));
            }
            last = number;
            if record["message"] == "line" {
                let line = record["fields"]["number"].as_u64().unwrap_or(u64::MAX);
                if !found.lines.insert(line) {
                    return Err(Broken(format!("{service}: line {line} is there twice")));
                }
            }
        }
        Ok(found)
    }
}
