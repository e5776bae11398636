//! The proof that no message is lost, doubled in silence or out of order, whoever is killed.
//!
//! ```text
//! numberer-1 ─┐                                  each notes n in its own file after `tell` said Ok
//! numberer-2 ─┼─► recorder                       notes every number before it asks for the next event
//! numberer-3 ─┘        ▲
//!   ▲ kill -9          │ kill -9      core ◄── kill -9     at moments drawn by the seed
//! ```
//! For each process of a sender, what arrived is 1..k without a gap and in order, k at least the last it noted;
//! a number seen twice is marked redelivered; and nobody was started more often than it was killed.

pub mod restart;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::entry::{Entry, probe};
use crate::proc::{self, Process};
use crate::until::until;
use crate::{Seen, TestWatchdog};

/// How many messages, and who is killed how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Numbers told, all senders together.
    pub messages: u64,
    /// Deaths of the receiver.
    pub receiver_kills: usize,
    /// Deaths of the core.
    pub core_kills: usize,
    /// Deaths of a sender.
    pub sender_kills: usize,
    /// Draws the moments.
    pub seed: u64,
}

/// What a round showed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Numbers whose `tell` said Ok, as far as it could be noted.
    pub noted: u64,
    /// Distinct numbers that arrived.
    pub arrived: u64,
    /// Arrivals marked redelivered.
    pub redelivered: u64,
    /// Numbers that arrived twice, each marked.
    pub twice: u64,
    /// Processes of the senders that told anything.
    pub incarnations: u64,
    /// How long it took.
    pub took: Duration,
}

/// Bytes of one line of the recorder: sender, its incarnation, number, redelivered.
pub const LINE: usize = 22;

const SENDERS: [&str; 3] = ["numberer-1", "numberer-2", "numberer-3"];
/// How many messages beyond the moment of a kill may be on their way.
const LOAD: u64 = 3000;

const RECEIVER: &str = "recorder";

/// One line of the recorder. `sender` is the last character of its name.
pub fn line(sender: char, incarnation: u64, n: u64, redelivered: bool) -> String {
    let mark = if redelivered { 'r' } else { '-' };
    format!("{sender} {incarnation:6} {n:10} {mark}\n")
}

/// Where a process of the recorder or of a numberer notes, in the folder it is given.
pub fn notes(folder: &Path, service: &str, incarnation: u64) -> PathBuf {
    folder.join(format!("{service}.{incarnation}"))
}

/// Where the senders read how many numbers each may tell by now.
pub fn gate(folder: &Path) -> PathBuf {
    folder.join("gate")
}

/// The number that a file of eight bytes holds; 0 when there is none.
pub fn stored(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_default();
    <[u8; 8]>::try_from(&bytes[..]).map_or(0, u64::from_le_bytes)
}

/// Runs one round.
///
/// # Errors
/// What was not as promised.
pub fn intercom(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    let mut wd = TestWatchdog::idle();
    let folder = wd.path("notes");
    fs::create_dir(&folder).expect("a folder");
    let gate = File::create(gate(&folder)).expect("a file");
    let share = plan.messages.div_ceil(SENDERS.len() as u64);
    let at_once = |entry: Entry| entry.key("restart_limit = \"off\"").key("restart_delay = \"0s\"");
    let noting = |entry: Entry| entry.env("NOTES", folder.display().to_string());
    let sender = |name: &&str| {
        at_once(noting(probe(name, "numberer", &[]).with_session())).env("COUNT", share.to_string())
    };
    let mut entries: Vec<Entry> = SENDERS.iter().map(sender).collect();
    entries.push(at_once(noting(probe(RECEIVER, "recorder", &[]).with_session())));
    wd.configure("", &entries);
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);

    let random = fastrand::Rng::with_seed(plan.seed);
    Killer { wd: &wd, folder: &folder, gate: &gate, random, last: BTreeMap::new() }.run(plan);
    open_to(&gate, u64::MAX);

    wd.until("all is told and handled", |seen| {
        let told = SENDERS.iter().all(|sender| noted(&folder, sender).values().sum::<u64>() >= share);
        told && seen.all_ready() && seen.of(RECEIVER).queued == 0
    });
    let starts = |name: &str| wd.status().of(name).starts;
    let receivers = starts(RECEIVER);
    if receivers != 1 + plan.receiver_kills as u64 {
        let events = wd.cli(&["events", "-n", "200"]).ok().stdout;
        return Err(Broken(format!("{RECEIVER} was started {receivers} times\n{events}")));
    }
    let senders: u64 = SENDERS.iter().map(|sender| starts(sender)).sum();
    if senders != (SENDERS.len() + plan.sender_kills) as u64 {
        let events = wd.cli(&["events", "-n", "200"]).ok().stdout;
        return Err(Broken(format!("senders were started {senders} times\n{events}")));
    }
    // What was in hand is noted before the process ends.
    wd.cli(&["stop", RECEIVER, SENDERS[0], SENDERS[1], SENDERS[2]]).ok();
    let mut shown = check(&folder)?;
    shown.took = begin.elapsed();
    Ok(shown)
}

/// Something was not as promised.
#[derive(Debug)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Receiver,
    Core,
    Sender,
}

struct Killer<'a> {
    wd: &'a TestWatchdog,
    folder: &'a Path,
    gate: &'a File,
    random: fastrand::Rng,
    /// Nobody is killed twice.
    last: BTreeMap<&'static str, Process>,
}

impl Killer<'_> {
    fn run(mut self, plan: Plan) {
        let victims = [
            (Victim::Receiver, plan.receiver_kills),
            (Victim::Core, plan.core_kills),
            (Victim::Sender, plan.sender_kills),
        ];
        // A moment is a number of arrived messages, and then up to 2 ms.
        let mut moments: Vec<(u64, Victim)> = Vec::new();
        for (victim, times) in victims {
            moments.extend((0..times).map(|_| (self.random.u64(0..plan.messages * 9 / 10), victim)));
        }
        moments.sort_by_key(|(moment, _)| *moment);
        for (moment, victim) in moments {
            let name = match victim {
                Victim::Receiver => Some(RECEIVER),
                Victim::Sender => Some(SENDERS[self.random.usize(0..SENDERS.len())]),
                Victim::Core => None,
            };
            // Looked for before the moment: a core that dies often is started with a pause, and every kill is to
            // fall into traffic.
            let process = name.map_or_else(|| self.wd.core(), |name| self.process_of(name));
            open_to(self.gate, (moment + LOAD) / SENDERS.len() as u64);
            let explain = || format!("{} of {} have arrived", arrived(self.folder), plan.messages);
            until("so many messages have arrived", explain, || {
                (arrived(self.folder) >= moment).then_some(())
            });
            thread::sleep(Duration::from_micros(self.random.u64(0..2000)));
            process.signal(Signal::SIGKILL);
            if let Some(name) = name {
                self.last.insert(name, process);
            }
        }
    }

    /// The process of a service there is now, or the next one. Looks at processes alone: a core that is just being
    /// replaced is no reason to wait.
    fn process_of(&self, name: &str) -> Process {
        let last = self.last.get(name).copied();
        let keeper = self.wd.keeper_pid();
        let is_it = |process: &Process| {
            Some(*process) != last
                && process.is_alive()
                && proc::environment(process.pid)
                    .get("WATCHDOG_SERVICE")
                    .is_some_and(|service| service == name)
        };
        until(&format!("a process of {name}"), String::new, || proc::children(keeper).into_iter().find(is_it))
    }
}

/// Lets each sender tell so many.
fn open_to(gate: &File, count: u64) {
    gate.write_all_at(&count.to_le_bytes(), 0).expect("the gate can be moved");
}

/// How many lines the recorder wrote, all its processes.
fn arrived(folder: &Path) -> u64 {
    files(folder, RECEIVER)
        .values()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|file| file.len())
        .sum::<u64>()
        / LINE as u64
}

/// The last number each process of a sender noted.
fn noted(folder: &Path, sender: &str) -> BTreeMap<u64, u64> {
    files(folder, sender).iter().map(|(incarnation, path)| (*incarnation, stored(path))).collect()
}

/// The notes of a service by incarnation.
fn files(folder: &Path, service: &str) -> BTreeMap<u64, PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of the notes").filter_map(Result::ok);
    let by_incarnation = |path: PathBuf| {
        let (name, incarnation) = path.file_name()?.to_str()?.rsplit_once('.')?;
        (name == service).then_some((incarnation.parse().ok()?, path.clone()))
    };
    entries.filter_map(|entry| by_incarnation(entry.path())).collect()
}

fn check(folder: &Path) -> Result<Shown, Broken> {
    let mut shown = Shown::default();
    // By sender, then by its incarnation: the largest number so far.
    let mut last: BTreeMap<char, BTreeMap<u64, u64>> = BTreeMap::new();
    for (receiver, path) in files(folder, RECEIVER) {
        let text = fs::read_to_string(path).expect("the recorder's notes");
        // A kill between two pages of the file leaves the beginning of a line: that message was not noted, and
        // must come again.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [sender, incarnation, n, mark] = words[..] else {
                return Err(Broken(format!("a torn line of recorder {receiver}: {line:?}")));
            };
            let number = |text: &str| text.parse::<u64>().map_err(|err| Broken(format!("{line:?}: {err}")));
            let (incarnation, n, is_again) = (number(incarnation)?, number(n)?, mark == "r");
            let processes = last.entry(sender.chars().next().unwrap_or('?')).or_default();
            if processes.keys().next_back().is_some_and(|newest| *newest > incarnation) {
                return Err(Broken(format!(
                    "recorder {receiver}: {line:?} came after a later process of it"
                )));
            }
            let before = processes.entry(incarnation).or_default();
            shown.redelivered += u64::from(is_again);
            if n == *before + 1 {
                *before = n;
                shown.arrived += 1;
            } else if n == *before && is_again {
                shown.twice += 1;
            } else {
                return Err(Broken(format!("recorder {receiver}: {line:?} came after number {before}")));
            }
        }
    }
    for sender in SENDERS {
        let arrived = last.remove(&sender.chars().next_back().unwrap_or('?')).unwrap_or_default();
        for (incarnation, noted) in noted(folder, sender) {
            let found = arrived.get(&incarnation).copied().unwrap_or(0);
            if found < noted {
                return Err(Broken(format!("{sender} {incarnation} had told {noted}, {found} arrived")));
            }
            shown.noted += noted;
        }
        shown.incarnations += arrived.len() as u64;
    }
    Ok(shown)
}
