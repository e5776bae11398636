//! Messages that flow while somebody is killed: three senders count, one receiver notes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Broken;
use crate::TestWatchdog;
use crate::entry::{Entry, probe};
use crate::until::until;

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

pub(super) const SENDERS: [&str; 3] = ["numberer-1", "numberer-2", "numberer-3"];
/// How many messages beyond the moment of a kill may be on their way.
const LOAD: u64 = 3000;

pub(super) const RECEIVER: &str = "recorder";

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

/// The flow of one round.
pub(super) struct Traffic {
    folder: PathBuf,
    gate: File,
    messages: u64,
}

impl Traffic {
    /// The folder it notes in; nobody runs yet.
    pub(super) fn prepare(wd: &TestWatchdog, messages: u64) -> Self {
        let folder = wd.path("notes");
        fs::create_dir(&folder).expect("a folder");
        let gate = File::create(gate(&folder)).expect("a file");
        Self { folder, gate, messages }
    }

    /// Those who take part.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let folder = self.folder.display().to_string();
        let entry = |name: &str, kind: &str| {
            let entry = probe(name, kind, &[]).with_session().env("NOTES", folder.clone());
            entry.key("restart_limit = \"off\"").key("restart_delay = \"0s\"")
        };
        let count = self.share().to_string();
        let senders = SENDERS.iter().map(|name| entry(name, "numberer").env("COUNT", count.clone()));
        senders.chain([entry(RECEIVER, "recorder")]).collect()
    }

    fn share(&self) -> u64 {
        self.messages.div_ceil(SENDERS.len() as u64)
    }

    /// Waits until so many have arrived; more are on their way then.
    pub(super) fn flows_to(&self, moment: u64) {
        self.open_to((moment + LOAD) / SENDERS.len() as u64);
        let explain = || format!("{} of {} have arrived", self.arrived(), self.messages);
        until("so many messages have arrived", explain, || (self.arrived() >= moment).then_some(()));
    }

    /// Waits until all is told and handled.
    pub(super) fn finish(&self, wd: &TestWatchdog) {
        self.open_to(u64::MAX);
        wd.until("all is told and handled", |seen| {
            let told = |sender: &&str| noted(&self.folder, sender).values().sum::<u64>() >= self.share();
            let at_work = |name: &&str| seen.of(name).is_ready();
            SENDERS.iter().all(told)
                && SENDERS.iter().chain([&RECEIVER]).all(at_work)
                && seen.of(RECEIVER).queued == 0
        });
    }

    /// Lets each sender tell so many.
    fn open_to(&self, count: u64) {
        self.gate.write_all_at(&count.to_le_bytes(), 0).expect("the gate can be moved");
    }

    /// How many lines the recorder wrote, all its processes.
    fn arrived(&self) -> u64 {
        let files = files(&self.folder, RECEIVER);
        let lengths = files.values().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len());
        lengths.sum::<u64>() / LINE as u64
    }

    /// Stops all who take part and compares what was told with what arrived.
    pub(super) fn check(&self, wd: &TestWatchdog) -> Result<Shown, Broken> {
        // What was in hand is noted before the process ends.
        wd.cli(&["stop", RECEIVER, SENDERS[0], SENDERS[1], SENDERS[2]]).ok();
        check(&self.folder)
    }
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
