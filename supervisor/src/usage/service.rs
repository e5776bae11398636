//! What one service uses: its cgroup where it has one, and the sum over its processes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use watchdog_protocol::usage::{Pressure, ServiceUsage, Throttled};
use watchdog_protocol::{Incarnation, ServiceName};

use super::kept::{Kept, Room};
use super::process::Watched;
use super::told;
use super::v1::{Groups, Trees};
use crate::processes::cgroup::Cgroup;

/// A service to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its name.
    pub(crate) name: ServiceName,
    /// Its newest process.
    pub(crate) incarnation: Incarnation,
    /// All its processes are in it; `None`: they are found one by one.
    pub(crate) cgroup: Option<Cgroup>,
}

/// What every look at a file needs, and what of the machine matters for a service.
pub(super) struct Around<'a> {
    pub(super) room: &'a mut Room,
    pub(super) buffer: &'a mut Vec<u8>,
    pub(super) trees: &'a Trees,
    /// Some memory of this machine may lie on its disk.
    pub(super) swaps: bool,
    /// Also what is dear to read.
    pub(super) is_dear: bool,
}

impl Around<'_> {
    /// What a file says; `None`: it can't be read.
    fn read(&mut self, kept: &mut Kept, path: impl FnOnce() -> PathBuf) -> Option<&[u8]> {
        kept.read(self.room, self.buffer, path).ok()
    }
}

/// What is remembered of one incarnation between two readings.
#[derive(Debug)]
pub(super) struct Gauge {
    incarnation: Incarnation,
    folder: Option<PathBuf>,
    files: Files,
    processes: HashMap<i32, Watched>,
    /// The disks are told by the cgroup, for as long as this incarnation: two ways to count do not mix.
    disks_by_cgroup: Option<bool>,
    /// As told last: a cgroup that was made anew takes nothing back.
    cpu_us: u64,
    /// By its processes, one by one.
    spent_us: u64,
    waited_ns: u64,
    read: u64,
    written: u64,
}

#[derive(Debug, Default)]
struct Files {
    list: Kept,
    below: Kept,
    controllers: Kept,
    events: Kept,
    cpu: Kept,
    pressure: [Kept; 3],
    memory: Kept,
    swap: Kept,
    memory_events: Kept,
    disks: Kept,
    v1_cpu: Kept,
    v1_memory: Kept,
    v1_oom: Kept,
    v1_freezer: Kept,
}

/// A sum, unknown as soon as one of its parts is. What is gone has no part in it.
#[derive(Debug, Clone, Copy)]
struct Sum(Option<u64>);

impl Sum {
    const NOTHING: Self = Self(Some(0));

    fn add(&mut self, part: &io::Result<u64>) {
        match part {
            Ok(part) => self.0 = self.0.map(|sum| sum + part),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => self.0 = None,
        }
    }
}

impl Gauge {
    pub(super) fn of(subject: &Subject) -> Self {
        Self {
            incarnation: subject.incarnation,
            folder: subject.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            files: Files::default(),
            processes: HashMap::new(),
            disks_by_cgroup: None,
            cpu_us: 0,
            spent_us: 0,
            waited_ns: 0,
            read: 0,
            written: 0,
        }
    }

    /// Whether it is the gauge for this.
    pub(super) fn fits(&self, subject: &Subject) -> bool {
        self.incarnation == subject.incarnation
            && self.folder.as_deref() == subject.cgroup.as_ref().map(Cgroup::path)
    }

    /// A reading. `pids` are its processes, where no cgroup says it.
    pub(super) fn read(&mut self, subject: &Subject, pids: &[i32], around: &mut Around<'_>) -> ServiceUsage {
        let mut usage = ServiceUsage {
            name: subject.name.clone(),
            incarnation: subject.incarnation,
            processes: 0,
            threads: None,
            cpu_us: None,
            waited_us: None,
            rss: None,
            pss: None,
            swap: None,
            memory: None,
            read_bytes: None,
            written_bytes: None,
            descriptors: None,
            throttled: None,
            oom_kills: None,
            pressure: Pressure::default(),
            is_frozen: false,
        };
        let in_cgroup = subject.cgroup.as_ref().map(|cgroup| self.members(cgroup, around));
        self.watch(in_cgroup.as_deref().unwrap_or(pids), around);
        self.read_processes(&mut usage, around);
        if let Some(folder) = self.folder.take() {
            self.read_cgroup(&folder, &mut usage, around);
            self.folder = Some(folder);
        }
        self.read_v1(&mut usage, around);
        let cpu_us = usage.cpu_us.unwrap_or(self.spent_us);
        self.cpu_us = self.cpu_us.max(cpu_us);
        // Of processes that nobody looked at nothing is known.
        usage.cpu_us = (self.cpu_us > 0 || usage.processes > 0).then_some(self.cpu_us);
        usage
    }

    /// As [`Cgroup::pids`], by files that are open already.
    fn members(&mut self, cgroup: &Cgroup, around: &mut Around<'_>) -> Vec<i32> {
        let file = |name: &str| cgroup.path().join(name);
        let below = around.read(&mut self.files.below, || file("cgroup.stat"));
        if below.and_then(|text| told::keyed(text, "nr_descendants")) != Some(0) {
            return cgroup.pids().unwrap_or_default();
        }
        let Around { room, buffer, .. } = around;
        let list = self.files.list.read_list(room, buffer, || file("cgroup.procs")).unwrap_or_default();
        let pids = list.split(|byte| *byte == b'\n').filter_map(told::number);
        // Those of another pid namespace are 0.
        pids.filter_map(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0).collect()
    }

    /// Looks at its processes: those that are known, those that came, and those that are gone.
    fn watch(&mut self, pids: &[i32], around: &mut Around<'_>) {
        let (room, buffer) = (&mut *around.room, &mut *around.buffer);
        let present: HashSet<i32> = pids.iter().copied().collect();
        let gone = self.processes.extract_if(|pid, watched| {
            !present.contains(pid) || !matches!(watched.look(room, buffer), Ok(true))
        });
        let mut gone: HashMap<i32, Watched> = gone.collect();
        for watched in gone.values_mut() {
            watched.close(room);
        }
        for pid in pids {
            // One that ends meanwhile is not there any more.
            if !self.processes.contains_key(pid)
                && let Ok(watched) = Watched::begin(*pid, room, buffer)
            {
                self.processes.insert(*pid, watched);
            }
        }
        // What they counted is their parents' by now, or that of whoever waited for these.
        for watched in gone.values() {
            let mut heir = watched.process.parent;
            for _ in 0..gone.len() {
                match gone.get(&heir) {
                    Some(next) => heir = next.process.parent,
                    None => break,
                }
            }
            if let Some(heir) = self.processes.get_mut(&heir) {
                heir.inherit(watched);
            }
        }
    }

    fn read_processes(&mut self, usage: &mut ServiceUsage, around: &mut Around<'_>) {
        let (room, buffer) = (&mut *around.room, &mut *around.buffer);
        let [mut threads, mut rss, mut swap, mut waited, mut disks, mut descriptors] = [Sum::NOTHING; 6];
        let mut pss = Sum(around.is_dear.then_some(0));
        let mut halted = 0;
        for watched in self.processes.values_mut() {
            let process = watched.process;
            threads.add(&Ok(process.threads));
            rss.add(&Ok(process.resident));
            halted += usize::from(process.state == 'T');
            self.spent_us += watched.cpu.read(micros(process.cpu));
            let of_disks = watched.disks(room, buffer).map(|(read, written)| {
                self.read += watched.read.read(read);
                self.written += watched.written.read(written);
                0
            });
            disks.add(&of_disks);
            let grown = watched.waited(room, buffer);
            waited.add(&grown);
            self.waited_ns += grown.unwrap_or(0);
            if around.swaps {
                swap.add(&watched.swap(room, buffer));
            }
            descriptors.add(&watched.descriptors(around.is_dear));
            if around.is_dear {
                pss.add(&watched.pss());
            }
        }
        let was_seen = self.spent_us > 0 || !self.processes.is_empty();
        usage.processes = self.processes.len() as u64;
        usage.threads = threads.0;
        usage.rss = rss.0;
        usage.pss = pss.0;
        usage.swap = swap.0;
        usage.descriptors = descriptors.0;
        usage.waited_us = waited.0.filter(|_| was_seen).map(|_| self.waited_ns / 1000);
        usage.read_bytes = disks.0.filter(|_| was_seen).map(|_| self.read);
        usage.written_bytes = disks.0.filter(|_| was_seen).map(|_| self.written);
        usage.is_frozen = halted > 0 && halted == self.processes.len();
    }

    fn read_cgroup(&mut self, folder: &Path, usage: &mut ServiceUsage, around: &mut Around<'_>) {
        let files = &mut self.files;
        let file = |name: &str| folder.join(name);
        let events = around.read(&mut files.events, || file("cgroup.events"));
        usage.is_frozen |= events.and_then(|text| told::keyed(text, "frozen")) == Some(1);
        if let Some(text) = around.read(&mut files.cpu, || file("cpu.stat")) {
            usage.cpu_us = told::keyed(text, "usage_usec");
            // Only with the controller.
            let count = told::keyed(text, "nr_throttled");
            let us = told::keyed(text, "throttled_usec");
            usage.throttled = count.zip(us).map(|(count, us)| Throttled { count, us });
        }
        let Pressure { cpu, memory, io } = &mut usage.pressure;
        for ((kept, stall), what) in files.pressure.iter_mut().zip([cpu, memory, io]).zip(PRESSURE) {
            *stall = around.read(kept, || file(what)).and_then(told::stall);
        }
        let controllers = around.read(&mut files.controllers, || file("cgroup.controllers"));
        let [has_memory, has_io] =
            ["memory", "io"].map(|it| controllers.is_some_and(|controllers| told::lists(controllers, it)));
        if has_memory {
            usage.memory = around.read(&mut files.memory, || file("memory.current")).and_then(told::number);
            let swap = around.read(&mut files.swap, || file("memory.swap.current")).and_then(told::number);
            usage.swap = swap.or(usage.swap);
            let events = around.read(&mut files.memory_events, || file("memory.events"));
            usage.oom_kills = events.and_then(|text| told::keyed(text, "oom_kill"));
        }
        if *self.disks_by_cgroup.get_or_insert(has_io) {
            let disks = around.read(&mut files.disks, || file("io.stat")).map(told::of_disks);
            (usage.read_bytes, usage.written_bytes) = disks.unzip();
        }
    }

    fn read_v1(&mut self, usage: &mut ServiceUsage, around: &mut Around<'_>) {
        let files = &mut self.files;
        let trees = around.trees;
        let folder = |groups: &Option<Groups>| groups.as_ref()?.of(usage.name.as_str());
        if let Some(folder) = folder(&trees.cpu)
            && let Some(text) = around.read(&mut files.v1_cpu, || folder.join("cpu.stat"))
        {
            let [count, ns] = ["nr_throttled", "throttled_time"].map(|key| told::keyed(text, key));
            usage.throttled = count.zip(ns).map(|(count, ns)| Throttled { count, us: ns / 1000 });
        }
        if let Some(folder) = folder(&trees.memory) {
            let memory = around.read(&mut files.v1_memory, || folder.join("memory.usage_in_bytes"));
            usage.memory = memory.and_then(told::number).or(usage.memory);
            let kills = around.read(&mut files.v1_oom, || folder.join("memory.oom_control"));
            usage.oom_kills = kills.and_then(|text| told::keyed(text, "oom_kill")).or(usage.oom_kills);
        }
        if let Some(folder) = folder(&trees.freezer) {
            let state = around.read(&mut files.v1_freezer, || folder.join("freezer.state"));
            usage.is_frozen |= state.is_some_and(|state| state.starts_with(b"FROZEN"));
        }
    }

    pub(super) fn close(&mut self, room: &mut Room) {
        self.files.each(|kept| kept.close(room));
        self.processes.values_mut().for_each(|watched| watched.close(room));
    }
}

const PRESSURE: [&str; 3] = ["cpu.pressure", "memory.pressure", "io.pressure"];

impl Files {
    fn each(&mut self, mut with: impl FnMut(&mut Kept)) {
        let Self { list, below, controllers, events, cpu, pressure, .. } = self;
        [list, below, controllers, events, cpu].into_iter().chain(pressure).for_each(&mut with);
        let Self { memory, swap, memory_events, disks, v1_cpu, v1_memory, v1_oom, v1_freezer, .. } = self;
        [memory, swap, memory_events, disks, v1_cpu, v1_memory, v1_oom, v1_freezer]
            .into_iter()
            .for_each(with);
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
