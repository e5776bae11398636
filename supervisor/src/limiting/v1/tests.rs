use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::*;
use crate::processes::ProcessTable;
use crate::processes::cgroup::CgroupTree;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn limits(of: &[(LimitKey, u64)]) -> Limits {
    Limits(of.iter().copied().collect())
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "still waiting until {what}");
        std::thread::sleep(FREEZE_PAUSE); // nothing to wait for: the kernel's counters
    }
}

/// The real hierarchies with the groups of one service, for a test that can have them.
struct Stage {
    means: Hierarchies,
    service: ServiceName,
    children: Vec<Child>,
    state: tempfile::TempDir,
}

impl Stage {
    /// `None` where the kernel has no v1 `memory`, and for who is not root. Else they have to be there.
    fn make() -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/cgroups").unwrap();
        let is_v1 = |line: &str| line.starts_with("memory\t") && line.split('\t').nth(1) != Some("0");
        if !cgroups.lines().any(is_v1) || !nix::unistd::geteuid().is_root() {
            eprintln!("no cgroup v1, or not root: not tried");
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let means = Hierarchies::probe(state.path());
        assert_eq!(means.support(LimitKey::MemoryMax), Support::Full, "{:?}", means.shortcomings());
        Some(Self { means, service: "counter".parse().unwrap(), children: Vec::new(), state })
    }

    fn group(&self, controller: &str) -> PathBuf {
        self.means.group(controller, &self.service).unwrap()
    }

    fn read(&self, controller: &str, file: &str) -> String {
        read_word(&self.group(controller).join(file)).unwrap()
    }

    /// A number behind its name, as in `cpu.stat`.
    fn counted(&self, controller: &str, file: &str, name: &str) -> u64 {
        let text = self.read(controller, file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    }

    /// A shell, with what it has joined before this script.
    fn start(&mut self, limits: &Limits, script: &str) -> (i32, std::process::ChildStdout) {
        let mut prepared = Prepared::default();
        self.means.prepare(&self.service, limits, &[], &mut prepared);
        assert_eq!(prepared.not_in_force, NotInForce::new());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("test -c /dev/stdin || echo 0 >&0; {script}")]);
        // One joins by standard input; what joins more is the keeper's to test.
        assert!(prepared.join.len() <= 1);
        command.stdin(prepared.join.pop().map_or(Stdio::null(), Stdio::from));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (pid, said) = (child.id().cast_signed(), child.stdout.take().unwrap());
        self.children.push(child);
        (pid, said)
    }

    fn apply(&self, before: &Limits, to: &Limits, pids: Pids<'_>) -> NotInForce {
        let (before, limits) = (before.clone(), to.clone());
        self.means.apply(&Change { service: &self.service, before, limits, given: &[], pids })
    }
}

/// With all it has forked.
fn family(of: i32) -> Vec<i32> {
    let table = ProcessTable::read().unwrap();
    std::iter::once(of).chain(table.descendants(of).iter().map(|process| process.identity.pid)).collect()
}

fn kill_all(pids: &[i32]) {
    for pid in pids {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.means.thaw(&self.service, &Vec::new);
        for child in &mut self.children {
            // Until nobody is left who could fork.
            let pid = child.id().cast_signed();
            loop {
                let family = family(pid);
                kill_all(&family);
                if family.len() == 1 {
                    break;
                }
            }
            child.wait().unwrap();
        }
        let end = Instant::now() + PATIENCE;
        for tree in self.means.trees.values() {
            while let Err(err) = self.means.files.remove(tree) {
                let left: Vec<i32> = pids_in(tree).unwrap_or_default();
                assert!(
                    std::thread::panicking() || Instant::now() < end,
                    "{}: {err}, {left:?}",
                    tree.display()
                );
                kill_all(&left);
            }
        }
    }
}

#[test]
fn a_service_without_limits_is_in_no_group() {
    let Some(mut stage) = Stage::make() else { return };
    let (pid, _) = stage.start(&Limits::default(), "exec sleep 1000");
    assert_eq!(stage.apply(&Limits::default(), &Limits::default(), &|| vec![pid]), NotInForce::new());
    for controller in ["cpu", "memory", "pids", "freezer"] {
        assert!(!stage.group(controller).exists(), "{controller}");
    }
}

#[test]
fn who_spins_beyond_its_share_is_throttled_and_no_more_when_the_limit_is_lifted() {
    let Some(mut stage) = Stage::make() else { return };
    let (pid, _) = stage.start(&Limits::default(), "while :; do :; done");
    let limited = limits(&[(LimitKey::Cpu, 200)]);
    assert_eq!(stage.apply(&Limits::default(), &limited, &|| vec![pid]), NotInForce::new());
    assert_eq!(pids_in(&stage.group("cpu")).unwrap(), [pid]);
    assert!(!stage.group("memory").exists(), "only what is limited needs a group");
    until("it is throttled", || stage.counted("cpu", "cpu.stat", "nr_throttled") > 0);
    assert_eq!(stage.apply(&limited, &Limits::default(), &|| vec![pid]), NotInForce::new());
    assert_eq!(
        (stage.read("cpu", "cpu.cfs_quota_us").as_str(), &*stage.read("cpu", "cpu.shares")),
        ("-1", "1024")
    );
}

#[test]
fn who_takes_more_memory_than_it_may_is_ended_by_the_kernel() {
    let Some(mut stage) = Stage::make() else { return };
    stage.start(&limits(&[(LimitKey::MemoryMax, 16 << 20)]), "exec tail /dev/zero");
    let status = stage.children[0].wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    assert!(stage.counted("memory", "memory.oom_control", "oom_kill") >= 1);
}

#[test]
fn a_fork_bomb_is_stopped_by_the_number_of_tasks() {
    let Some(mut stage) = Stage::make() else { return };
    let bomb = "i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done";
    stage.start(&limits(&[(LimitKey::TasksMax, 5)]), bomb);
    until("a fork is refused", || stage.counted("pids", "pids.events", "max") > 0);
    assert!(stage.read("pids", "pids.current").parse::<u64>().unwrap() <= 5);
    kill_all(&pids_in(&stage.group("pids")).unwrap());
}

#[test]
fn processes_that_fork_while_they_are_moved_are_all_inside_at_the_end() {
    let Some(mut stage) = Stage::make() else { return };
    let Ok(tree) = CgroupTree::make(stage.state.path()) else {
        return eprintln!("no cgroup that lists all at one instant: not tried");
    };
    let tracking = tree.service(&stage.service).unwrap();
    // Each lives for an instant and leaves another one behind, whose parent is then no longer there to be known by.
    let forking =
        "hop() { sleep 0.02; hop & }; hop & hop & hop & hop & hop & hop & hop & hop & echo on; sleep 1000";
    let track = format!("echo 0 > {}/cgroup.procs", tracking.path().display());
    let (_, mut said) = stage.start(&Limits::default(), &format!("{track}; {forking}"));
    said.read_exact(&mut [0; 3]).unwrap();
    let all = || tracking.pids().unwrap();
    let limited = limits(&[(LimitKey::TasksMax, 10_000)]);
    let told = stage.apply(&Limits::default(), &limited, &all);
    let place = format!("/{}/counter", stage.means.trees["pids"].file_name().unwrap().to_str().unwrap());
    let is_inside = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.lines().any(|line| line.contains(":pids:") && line.ends_with(&place))
    };
    // One that is ending is said to be in the root: what sleeps before and after is not ending.
    let sleeps = |pid: i32| Process::read(pid).is_ok_and(|process| process.state == 'S');
    let is_outside = |pid: &i32| sleeps(*pid) && !is_inside(*pid) && sleeps(*pid);
    let outside: Vec<i32> = (0..50).flat_map(|_| all()).filter(is_outside).collect();
    tracking.kill().unwrap();
    until("all have ended", || !tracking.populated().unwrap());
    tree.remove().unwrap();
    assert_eq!((told, outside), (NotInForce::new(), Vec::new()));
}

#[test]
fn memory_that_cannot_be_taken_back_is_told_and_the_limit_stays_above_it() {
    let Some(mut stage) = Stage::make() else { return };
    let wide = limits(&[(LimitKey::MemoryMax, 256 << 20)]);
    let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' a); echo on; read y; sleep 1000";
    let (pid, mut said) = stage.start(&wide, script);
    let narrow = limits(&[(LimitKey::MemoryMax, 4 << 20), (LimitKey::TasksMax, 100)]);
    said.read_exact(&mut [0; 3]).unwrap();
    let told = stage.apply(&wide, &narrow, &|| vec![pid]);
    assert_eq!(told.keys().collect::<Vec<_>>(), [&LimitKey::MemoryMax], "{told:?}");
    assert!(told[&LimitKey::MemoryMax].ends_with("bytes already, which can't be taken back"), "{told:?}");
    assert_eq!(stage.read("pids", "pids.max"), "100");
    let wider = limits(&[(LimitKey::MemoryMax, 512 << 20)]);
    assert_eq!(stage.apply(&narrow, &wider, &|| vec![pid]), NotInForce::new());
    assert_eq!(stage.read("memory", "memory.limit_in_bytes"), (512 << 20).to_string());
}

#[test]
fn a_living_process_is_told_that_what_it_has_does_not_count() {
    let Some(mut stage) = Stage::make() else { return };
    let (pid, _) = stage.start(&Limits::default(), "exec sleep 1000");
    let limited = limits(&[(LimitKey::MemoryMax, 64 << 20)]);
    let told = stage.apply(&Limits::default(), &limited, &|| vec![pid]);
    // Older kernels move it along.
    if let Some(why) = told.get(&LimitKey::MemoryMax) {
        assert!(why.starts_with("what its processes have already does not count"), "{why}");
    }
    assert_eq!(stage.apply(&limited, &limited, &|| vec![pid]), NotInForce::new(), "it was inside before");
}

#[test]
fn limits_given_back_leave_each_file_as_the_kernel_made_it() {
    let Some(mut stage) = Stage::make() else { return };
    let files = [
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", "cpu.shares"),
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.soft_limit_in_bytes"),
        ("pids", "pids.max"),
    ];
    let all = |stage: &Stage| files.map(|(controller, file)| stage.read(controller, file));
    for (controller, _) in files {
        stage.means.files.make(&stage.group(controller)).unwrap();
    }
    let first = all(&stage);
    let (pid, _) = stage.start(&Limits::default(), "exec sleep 1000");
    let limited = limits(&[
        (LimitKey::Cpu, 500),
        (LimitKey::CpuWeight, 10),
        (LimitKey::MemoryHigh, 32 << 20),
        (LimitKey::MemoryMax, 64 << 20),
        (LimitKey::TasksMax, 7),
    ]);
    stage.apply(&Limits::default(), &limited, &|| vec![pid]);
    let set = ["50000", "102", "67108864", "33554432", "7"].map(str::to_owned);
    assert_eq!(all(&stage), set);
    assert_eq!(stage.apply(&limited, &Limits::default(), &|| vec![pid]), NotInForce::new());
    assert_eq!(all(&stage), first);
    stage.means.forget(&stage.service);
    assert!(stage.group("cpu").exists(), "a group with a process in it stays");
}

#[test]
fn the_freezer_of_v1_holds_processes_until_it_is_thawed() {
    let Some(mut stage) = Stage::make() else { return };
    if !stage.means.trees.contains_key("freezer") {
        return eprintln!("no freezer: not tried");
    }
    let (pid, _) = stage.start(&Limits::default(), "while :; do (:); done");
    let pids = || family(pid);
    assert!(!stage.means.is_frozen(&stage.service, &pids));
    stage.means.freeze(&stage.service, &pids).unwrap();
    assert!(stage.means.is_frozen(&stage.service, &pids));
    let used = || Process::read(pid).unwrap().cpu;
    let frozen_at = used();
    assert_eq!(used(), frozen_at);
    stage.means.thaw(&stage.service, &pids).unwrap();
    assert!(!stage.means.is_frozen(&stage.service, &pids));
    until("it goes on", || used() > frozen_at);
    stage.means.freeze(&stage.service, &pids).unwrap();
    let mut prepared = Prepared::default();
    stage.means.prepare(&stage.service, &Limits::default(), &[], &mut prepared);
    assert!(!stage.means.is_frozen(&stage.service, &pids), "a new process is not born frozen");
}

/// Notes what is written, and lets the files be.
#[derive(Debug, Default, Clone)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Files for Notes {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let name = file.file_name().unwrap().to_str().unwrap();
        self.0.lock().unwrap().push(format!("{name} = {text}"));
        fs::write(file, text)
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let files: &[&str] = match folder.parent().and_then(|tree| tree.file_name()?.to_str()) {
            Some("memory") => &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
            Some("blkio") => &["blkio.bfq.weight"],
            Some("readonly") => return Err(Errno::EROFS.into()),
            _ => &[],
        };
        let files = files.iter().chain(&["cgroup.procs"]);
        files.into_iter().try_for_each(|file| match folder.join(file).exists() {
            true => Ok(()),
            false => fs::write(folder.join(file), u64::MAX.to_string()),
        })
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder)
    }
}

fn played(disks: &[(&str, &str)]) -> (tempfile::TempDir, Notes, Hierarchies) {
    let (root, notes) = (tempfile::tempdir().unwrap(), Notes::default());
    let disks = disks.iter().map(|(disk, scheduler)| (disk.to_string(), scheduler.to_string())).collect();
    let place = |controller: &str| match controller {
        "memory" | "blkio" => Ok(root.path().join(controller)),
        "cpu" => Ok(root.path().join("readonly")),
        _ => Err("it is not here".to_owned()),
    };
    let means = Hierarchies::among(Box::new(notes.clone()), place, &disks);
    (root, notes, means)
}

#[test]
fn memory_with_swap_is_never_written_below_memory_alone() {
    let (_root, notes, means) = played(&[]);
    let service = "counter".parse().unwrap();
    let wrote = |value: Option<u64>| {
        let before = limits(&[(LimitKey::MemoryMax, 1)]);
        let limits = Limits(value.map(|value| (LimitKey::MemoryMax, value)).into_iter().collect());
        let told = means.apply(&Change { service: &service, before, limits, given: &[], pids: &Vec::new });
        assert_eq!(told, NotInForce::new());
        let all = std::mem::take(&mut *notes.0.lock().unwrap());
        all.into_iter().filter(|line| line.contains("limit")).collect::<Vec<_>>()
    };
    let alone = |text: &str| format!("memory.limit_in_bytes = {text}");
    let with_swap = |text: &str| format!("memory.memsw.limit_in_bytes = {text}");
    assert_eq!(wrote(Some(2000)), [alone("2000"), with_swap("2000")], "from no limit");
    assert_eq!(wrote(Some(1000)), [alone("1000"), with_swap("1000")], "shrinking");
    assert_eq!(wrote(Some(3000)), [with_swap("3000"), alone("3000")], "growing");
    assert_eq!(wrote(None), [with_swap("-1"), alone("-1")], "to no limit");
}

#[test]
fn each_limit_is_judged_by_itself() {
    let (_root, _notes, means) = played(&[("sda", "bfq"), ("vda", "none")]);
    assert_eq!(means.support(LimitKey::MemoryMax), Support::Full);
    let missing = Support::Refused("this kernel's cgroups have no memory.soft_limit_in_bytes".to_owned());
    assert_eq!(means.support(LimitKey::MemoryHigh), missing);
    let missing = "cgroup v1 gives us no pids: it is not here";
    assert_eq!(means.support(LimitKey::TasksMax), Support::Refused(missing.to_owned()));
    assert_eq!(
        means.support(LimitKey::IoWeight),
        Support::Weaker("only on sda, whose scheduler is `bfq`".to_owned())
    );
    let read_only =
        "cgroup v1 gives us no cpu: cannot make a cgroup in it: Read-only file system (os error 30)";
    assert_eq!(means.support(LimitKey::Cpu), Support::Refused(read_only.to_owned()));
    assert_eq!(means.shortcomings(), [read_only, "cgroup v1 gives us no pids, freezer: it is not here"]);
}
