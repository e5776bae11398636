use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use watchdog_protocol::Incarnation;
use watchdog_protocol::usage::{ServiceUsage, Stall, Throttled};

use super::v1::Groups;
use super::*;
use crate::processes::cgroup::{Cgroup, CgroupTree};
use crate::processes::{Identity, Process};

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// The leader of a session, as that of a service is.
struct Leader(Child);

impl Leader {
    fn start(script: &str, folder: &Path) -> Self {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    fn signal(&self, signal: Signal) {
        Identity::of(self.pid()).unwrap().signal(signal).unwrap();
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Tells what one service uses.
struct Bench {
    reader: Reader,
    cgroup: Option<Cgroup>,
    sessions: Sessions,
    now: Instant,
}

impl Bench {
    fn of(leader: &Leader) -> Self {
        let sessions = Sessions::from([(leader.pid(), name("a"))]);
        Self { reader: Reader::new(Trees::default()), cgroup: None, sessions, now: Instant::now() }
    }

    fn question(&self, incarnation: u64) -> Question {
        let incarnation = Incarnation::from_stored(incarnation);
        Question {
            subjects: vec![Subject { name: name("a"), incarnation, cgroup: self.cgroup.clone() }],
            of_all: true,
            below: self.cgroup.is_none().then(|| Below {
                keeper: std::process::id().cast_signed(),
                core: i32::MAX,
                sessions: self.sessions.clone(),
            }),
            is_dear: false,
            answer: Box::new(|_| {}),
        }
    }

    /// Of a time at which no reading is fresh.
    fn read(&mut self, incarnation: u64) -> ServiceUsage {
        self.now += FRESH;
        self.reader.reading(&self.question(incarnation), self.now).services.remove(0)
    }

    fn until(&mut self, is_so: impl Fn(&ServiceUsage) -> bool) -> ServiceUsage {
        let begun = Instant::now();
        loop {
            let usage = self.read(1);
            if is_so(&usage) {
                return usage;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not so for a minute: {usage:?}");
        }
    }
}

#[test]
fn what_a_child_used_stays_counted_when_it_ends_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let script = "(while [ ! -e stop ]; do :; done); : > waited; read line";
    let leader = Leader::start(script, folder.path());
    let mut bench = Bench::of(&leader);
    let burnt = bench.until(|usage| usage.processes == 2 && usage.cpu_us.unwrap() >= 50_000);
    fs::write(folder.path().join("stop"), "").unwrap();
    let mut last = burnt.cpu_us.unwrap();
    // Asleep behind its mark it waits for a line, and uses nothing more.
    let rests = || fs::exists(folder.path().join("waited")).unwrap() && state(&leader) == 'S';
    loop {
        let rested = rests();
        let used = bench.read(1).cpu_us.unwrap();
        assert!(used >= last, "{used} after {last}");
        last = used;
        if rested {
            break;
        }
    }
    // The kernel's word: what its child used is its own by now.
    let truth = Process::read(leader.pid()).unwrap().cpu;
    assert_eq!(u128::from(last), truth.as_micros());
}

fn state(leader: &Leader) -> char {
    Process::read(leader.pid()).unwrap().state
}

#[test]
fn a_service_whose_processes_are_halted_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let leader = Leader::start("read line", folder.path());
    let mut bench = Bench::of(&leader);
    assert!(!bench.until(|usage| usage.processes == 1).is_frozen);
    leader.signal(Signal::SIGSTOP);
    let halted = bench.until(|usage| usage.is_frozen);
    assert_eq!((halted.threads, halted.processes), (Some(1), 1));
    leader.signal(Signal::SIGCONT);
    bench.until(|usage| !usage.is_frozen);
}

#[test]
fn another_incarnation_begins_anew_and_one_that_nobody_saw_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let leader = Leader::start("while :; do :; done", folder.path());
    let mut bench = Bench::of(&leader);
    bench.until(|usage| usage.cpu_us.is_some_and(|used| used >= 20_000));
    drop(leader);
    let ended = bench.until(|usage| usage.processes == 0);
    assert!(ended.cpu_us.unwrap() >= 20_000, "it is of the same incarnation: {ended:?}");
    assert_eq!((ended.rss, ended.threads), (Some(0), Some(0)));
    let next = bench.read(2);
    assert_eq!((next.cpu_us, next.read_bytes, next.waited_us), (None, None, None));
}

#[test]
fn a_reading_is_given_again_while_it_is_fresh_and_has_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let leader = Leader::start("read line", folder.path());
    let mut bench = Bench::of(&leader);
    let begun = bench.now;
    let mut at = |question: &Question, after: Duration| {
        let usage = bench.reader.reading(question, begun + after);
        (usage.at_us, usage.services.len())
    };
    let plain = Bench::of(&leader).question(1);
    let first = at(&plain, Duration::ZERO);
    assert_eq!(at(&plain, FRESH / 2), first);
    let machine_only = Question { subjects: Vec::new(), of_all: false, ..Bench::of(&leader).question(1) };
    assert_eq!(at(&machine_only, FRESH / 2), (first.0, 0));
    let dear = Question { is_dear: true, ..Bench::of(&leader).question(1) };
    let second = at(&dear, FRESH / 2);
    assert!(second.0 > first.0, "it has what is dear");
    assert_eq!(at(&plain, FRESH), second, "who asks for less is given it");
    assert!(at(&plain, FRESH * 2).0 > second.0, "it is old by now");
    let restarted = Bench::of(&leader).question(2);
    assert!(at(&restarted, FRESH * 2).0 > second.0, "it is of another incarnation");
}

#[test]
fn what_is_open_is_closed_again_and_what_was_counted_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let leader = Leader::start("(while [ ! -e stop ]; do :; done) & read line; wait", folder.path());
    let mut bench = Bench::of(&leader);
    let all = bench.reader.room.left();
    let used = bench.until(|usage| usage.processes == 2 && usage.cpu_us.unwrap() >= 20_000);
    assert!(bench.reader.room.left() < all);
    bench.reader.close();
    assert_eq!(bench.reader.room.left(), all);
    assert!(bench.read(1).cpu_us >= used.cpu_us);
    let nobody = Question { subjects: Vec::new(), ..bench.question(1) };
    bench.reader.reading(&nobody, bench.now + FRESH);
    bench.reader.machine.close(&mut bench.reader.room);
    assert_eq!(bench.reader.room.left(), all, "of a service that is gone nothing stays open");
    fs::write(folder.path().join("stop"), "").unwrap();
}

/// A folder that looks like a cgroup of version 2 with all controllers, or what is left out of it.
struct Folder {
    tree: tempfile::TempDir,
    cgroup: Cgroup,
}

impl Folder {
    fn with(processes: &[i32]) -> Self {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cgroup.procs"), "").unwrap();
        let cgroup = CgroupTree::at(tree.path()).unwrap().service(&name("a")).unwrap();
        let folder = Self { tree, cgroup };
        let list: String = processes.iter().map(|pid| format!("{pid}\n")).collect();
        for (file, text) in [
            ("cgroup.procs", &*format!("{list}0\n")),
            ("cgroup.stat", "nr_descendants 0\n"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cpu.stat", "usage_usec 900\nuser_usec 1\nnr_throttled 3\nthrottled_usec 12\n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"),
            ("memory.pressure", "some avg10=0.00 total=8\nfull avg10=0.00 total=2\n"),
            ("io.pressure", "odd\n"),
            ("memory.current", "4096\n"),
            ("memory.swap.current", "max\n"),
            ("memory.events", "low 0\noom 4\noom_kill 2\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n"),
        ] {
            folder.says(file, text);
        }
        folder
    }

    fn path(&self) -> PathBuf {
        self.tree.path().join("a")
    }

    fn says(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }
}

#[test]
fn a_cgroup_with_controllers_tells_what_they_count() {
    let nowhere = tempfile::tempdir().unwrap();
    let leader = Leader::start("read line", nowhere.path());
    let folder = Folder::with(&[leader.pid()]);
    let mut bench = Bench { cgroup: Some(folder.cgroup.clone()), ..Bench::of(&leader) };
    let usage = bench.read(1);
    assert_eq!((usage.processes, usage.cpu_us, usage.is_frozen), (1, Some(900), false));
    assert_eq!(usage.throttled, Some(Throttled { count: 3, us: 12 }));
    assert_eq!((usage.memory, usage.oom_kills), (Some(4096), Some(2)));
    assert_eq!((usage.read_bytes, usage.written_bytes), (Some(10), Some(20)));
    assert_eq!(usage.pressure.cpu, Some(Stall { some_us: 7, full_us: 0 }));
    assert_eq!(usage.pressure.memory, Some(Stall { some_us: 8, full_us: 2 }));
    assert_eq!(usage.pressure.io, None, "what is odd is unknown");
    folder.says("cgroup.events", "populated 1\nfrozen 1\n");
    folder.says("cgroup.controllers", "");
    let usage = bench.read(1);
    assert!(usage.is_frozen);
    assert_eq!((usage.memory, usage.oom_kills), (None, None));
    // It was made anew before its service was.
    folder.says("cpu.stat", "usage_usec 5\n");
    assert_eq!(bench.read(1).cpu_us, Some(900));
    assert_eq!(bench.read(2).cpu_us, Some(5));
    fs::remove_file(folder.path().join("cgroup.stat")).unwrap();
    assert_eq!(bench.read(2).processes, 1, "what is below it is looked for");
}

#[test]
fn groups_of_version_1_tell_once_they_are_there() {
    let nowhere = tempfile::tempdir().unwrap();
    let leader = Leader::start("read line", nowhere.path());
    let folder = Folder::with(&[leader.pid()]);
    folder.says("cgroup.controllers", "");
    folder.says("cpu.stat", "usage_usec 900\n");
    let v1 = tempfile::tempdir().unwrap();
    let tree = |controller: &str| Some(Groups::at(v1.path().join(controller)));
    let trees = Trees { cpu: tree("cpu"), memory: tree("memory"), freezer: tree("freezer") };
    let reader = Reader::new(trees);
    let mut bench = Bench { cgroup: Some(folder.cgroup.clone()), reader, ..Bench::of(&leader) };
    let usage = bench.read(1);
    assert_eq!((usage.throttled, usage.memory, usage.oom_kills), (None, None, None));
    for (file, text) in [
        ("cpu/a/cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 1234567\n"),
        ("memory/a/memory.usage_in_bytes", "8192\n"),
        ("memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ("freezer/a/freezer.state", "FREEZING\n"),
    ] {
        fs::create_dir_all(v1.path().join(file).parent().unwrap()).unwrap();
        fs::write(v1.path().join(file), text).unwrap();
    }
    let usage = bench.read(1);
    assert_eq!(usage.throttled, Some(Throttled { count: 4, us: 1234 }));
    assert_eq!((usage.memory, usage.oom_kills, usage.is_frozen), (Some(8192), Some(1), false));
    fs::write(v1.path().join("freezer/a/freezer.state"), "FROZEN\n").unwrap();
    assert!(bench.read(1).is_frozen);
}
