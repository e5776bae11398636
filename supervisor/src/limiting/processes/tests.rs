use std::process::{Child, Command, Stdio};

use super::*;
use crate::processes::ProcessTable;
use crate::processes::cgroup::CgroupTree;

const ROOT: Privileges = Privileges { nice: true, resource: true, is_root: true };
const NOBODY: Privileges = Privileges { nice: false, resource: false, is_root: false };

fn means(privileges: Privileges) -> Processes {
    Processes { privileges, lowest_nice: 20, is_autogrouped: false, ..Processes::probe() }
}

fn limits(of: &[(LimitKey, u64)]) -> Limits {
    Limits(of.iter().copied().collect())
}

/// A shell with a child, which has a session of its own; both end with it.
struct Family(Child);

impl Family {
    fn start() -> Self {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", "sleep 1000 & echo; wait"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    fn pids(&self) -> Vec<i32> {
        let table = ProcessTable::read().unwrap();
        let below = table.descendants(self.pid());
        std::iter::once(self.pid()).chain(below.iter().map(|process| process.identity.pid)).collect()
    }

    fn apply(&self, means: &Processes, before: &Limits, to: &Limits, given: &[Limit]) -> NotInForce {
        let (before, limits) = (before.clone(), to.clone());
        let service = "counter".parse().unwrap();
        means.apply(&Change { service: &service, before, limits, given, pids: &|| self.pids() })
    }

    /// Of each process, by reading what the kernel says of it.
    fn each<T>(&self, of: impl Fn(i32) -> T) -> Vec<T> {
        let found: Vec<T> = self.pids().into_iter().map(of).collect();
        assert_eq!(found.len(), 2);
        found
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

/// Soft and hard, as text.
fn open_files(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn nofile(soft: u64, hard: u64) -> Limit {
    Limit { resource: Resource::Nofile as u32, soft, hard }
}

#[test]
fn an_unprivileged_watchdog_moves_the_soft_limit_alone_and_gives_it_back() {
    let family = Family::start();
    let own = getrlimit(Resource::Nofile);
    let (soft, hard) = (own.current.unwrap_or(UNLIMITED), own.maximum.unwrap_or(UNLIMITED));
    let limited = limits(&[(LimitKey::Nofile, 64)]);
    let none = Limits::default();
    let given = [nofile(soft, hard)];
    assert_eq!(family.apply(&means(NOBODY), &none, &limited, &given), NotInForce::new());
    assert_eq!(family.each(open_files), vec![format!("64 {hard}"); 2]);
    assert_eq!(family.apply(&means(NOBODY), &limited, &none, &given), NotInForce::new());
    assert_eq!(family.each(open_files), vec![format!("{soft} {hard}"); 2]);
    let above = limits(&[(LimitKey::Nofile, hard + 1)]);
    let told = family.apply(&means(NOBODY), &none, &above, &given);
    assert!(told[&LimitKey::Nofile].ends_with(&format!("its hard limit is {hard}")), "{told:?}");
}

#[test]
fn a_hard_limit_falls_only_where_it_can_rise_again() {
    let given = nofile(100, 200);
    assert_eq!(means(ROOT).rlimit(Some(64), given, 64), nofile(64, 64));
    assert_eq!(means(ROOT).rlimit(Some(300), given, 200), nofile(300, 300));
    assert_eq!(means(ROOT).rlimit(None, given, 64), given);
    assert_eq!(means(NOBODY).rlimit(Some(64), given, 200), nofile(64, 200));
    assert_eq!(means(NOBODY).rlimit(Some(300), given, 200), nofile(200, 200));
    assert_eq!(means(NOBODY).rlimit(None, given, 200), given);
    assert_eq!(means(NOBODY).rlimit(None, given, 80), nofile(80, 80), "somebody else lowered it");
}

#[test]
fn a_privileged_watchdog_moves_the_hard_limit_too() {
    if !Privileges::read().resource {
        return eprintln!("no CAP_SYS_RESOURCE: not tried");
    }
    let family = Family::start();
    let given = [nofile(100, 200)];
    let (none, limited) = (Limits::default(), limits(&[(LimitKey::Nofile, 64)]));
    assert_eq!(family.apply(&means(ROOT), &none, &limited, &given), NotInForce::new());
    assert_eq!(family.each(open_files), ["64 64"; 2]);
    assert_eq!(family.apply(&means(ROOT), &limited, &none, &given), NotInForce::new());
    assert_eq!(family.each(open_files), ["100 200"; 2]);
}

#[test]
fn what_a_process_is_to_start_with_is_told_as_resource_limits() {
    let wanted = limits(&[(LimitKey::MemoryMax, 1 << 30), (LimitKey::TasksMax, 9), (LimitKey::Nofile, 64)]);
    let service = "counter".parse().unwrap();
    let given = [nofile(100, 200)];
    let mut prepared = Prepared::default();
    means(ROOT).prepare(&service, &wanted, &given, &mut prepared);
    let limit = |resource: Resource, value| Limit { resource: resource as u32, soft: value, hard: value };
    let expected = [limit(Resource::As, 1 << 30), limit(Resource::Nproc, 9), limit(Resource::Nofile, 64)];
    assert_eq!((prepared.rlimits, prepared.to_apply), (expected.to_vec(), false));

    let wanted = limits(&[(LimitKey::Cpu, 500), (LimitKey::Nofile, 300)]);
    let mut prepared = Prepared::default();
    means(NOBODY).prepare(&service, &wanted, &given, &mut prepared);
    assert_eq!((prepared.rlimits, prepared.to_apply), (vec![nofile(200, 200)], true));
    assert_eq!(prepared.not_in_force[&LimitKey::Nofile], "its hard limit is 200");
}

#[test]
fn processor_time_is_whole_processors_of_those_we_have_and_all_again_when_lifted() {
    let family = Family::start();
    let means = means(NOBODY);
    let (none, limited) = (Limits::default(), limits(&[(LimitKey::Cpu, 1000)]));
    let count = |pid| sched_getaffinity(Pid::from_raw(pid)).unwrap().count();
    assert_eq!(family.apply(&means, &none, &limited, &[]), NotInForce::new());
    assert_eq!(family.each(count), [1, 1]);
    assert_eq!(family.apply(&means, &limited, &none, &[]), NotInForce::new());
    assert_eq!(family.each(count), vec![means.usable.count(); 2]);
}

#[test]
fn a_weight_is_the_nice_value_of_all_processes_and_comes_back() {
    let own = Processes::probe();
    if !own.privileges.nice {
        return eprintln!("no CAP_SYS_NICE: not tried");
    }
    let family = Family::start();
    let (none, limited) = (Limits::default(), limits(&[(LimitKey::CpuWeight, 10)]));
    let value = |pid| getpriority_process(Pid::from_raw(pid)).unwrap();
    let of_session = |pid: i32| fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap();
    assert_eq!(family.apply(&own, &none, &limited, &[]), NotInForce::new());
    assert_eq!(family.each(value), [nice(10, own.nice); 2]);
    if own.is_autogrouped {
        assert!(of_session(family.pid()).trim().ends_with(" nice 10"), "{}", of_session(family.pid()));
    }
    assert_eq!(family.apply(&own, &limited, &none, &[]), NotInForce::new());
    assert_eq!(family.each(value), [own.nice; 2]);
}

#[test]
fn who_cannot_take_a_nice_value_back_moves_that_of_sessions_or_none() {
    let alone = means(NOBODY);
    let Support::Refused(why) = alone.support(LimitKey::CpuWeight) else { panic!("it would not come back") };
    assert!(why.contains("CAP_SYS_NICE"), "{why}");
    let by_session = Processes { is_autogrouped: true, ..means(NOBODY) };
    assert!(matches!(by_session.support(LimitKey::CpuWeight), Support::Weaker(_)));
    if !Processes::probe().is_autogrouped {
        return eprintln!("sessions are no groups to this scheduler: not tried");
    }
    let family = Family::start();
    let limited = limits(&[(LimitKey::CpuWeight, 10)]);
    assert_eq!(family.apply(&by_session, &Limits::default(), &limited, &[]), NotInForce::new());
    assert_eq!(family.each(|pid| getpriority_process(Pid::from_raw(pid)).unwrap()), [by_session.nice; 2]);
    let of_session = || fs::read_to_string(format!("/proc/{}/autogroup", family.pid())).unwrap();
    assert!(of_session().trim().ends_with(" nice 10"), "{}", of_session());
    assert_eq!(family.apply(&by_session, &limited, &Limits::default(), &[]), NotInForce::new());
    assert!(of_session().trim().ends_with(&format!(" nice {}", by_session.nice)), "{}", of_session());
}

#[test]
fn what_no_process_can_be_asked_for_is_refused() {
    for key in [LimitKey::MemoryHigh, LimitKey::IoWeight] {
        assert!(matches!(means(ROOT).support(key), Support::Refused(_)), "{key}");
    }
    assert!(matches!(means(ROOT).support(LimitKey::TasksMax), Support::Refused(_)));
    assert!(matches!(means(NOBODY).support(LimitKey::TasksMax), Support::Weaker(_)));
    assert_eq!(means(ROOT).support(LimitKey::Nofile), Support::Full);
    assert!(matches!(means(NOBODY).support(LimitKey::Nofile), Support::Weaker(_)));
}

#[test]
fn a_family_that_is_stopped_stands_still_until_it_goes_on() {
    let family = Family::start();
    let (means, service) = (means(NOBODY), "counter".parse().unwrap());
    let pids = || family.pids();
    assert!(!means.is_frozen(&service, &pids));
    means.freeze(&service, &pids).unwrap();
    assert!(means.is_frozen(&service, &pids));
    assert_eq!(family.each(|pid| Process::read(pid).unwrap().state), ['T', 'T']);
    means.thaw(&service, &pids).unwrap();
    assert!(!means.is_frozen(&service, &pids));
    assert!(!means.is_frozen(&service, &Vec::new), "nobody is nobody frozen");
}

#[test]
fn a_family_that_forks_while_it_is_stopped_stands_still_as_a_whole() {
    let state = tempfile::tempdir().unwrap();
    let Ok(tree) = CgroupTree::make(state.path()) else {
        return eprintln!("no cgroup that lists all at one instant: not tried");
    };
    let (means, service) = (means(NOBODY), "counter".parse().unwrap());
    let cgroup = tree.service(&service).unwrap();
    let hopping = "hop() { sleep 0.05; hop & }; hop & hop & hop & hop & echo; exec sleep 1000";
    let mut command = Command::new("sh");
    command.args(["-c", &format!("echo 0 > \"$0/cgroup.procs\"; {hopping}")]).arg(cgroup.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
    let pids = || cgroup.pids().unwrap();
    let frozen = means.freeze(&service, &pids);
    let living = || pids().into_iter().filter_map(|pid| Process::read(pid).ok()).filter(|it| !it.is_dead());
    let states: Vec<char> = (0..50).flat_map(|_| living().map(|it| it.state).collect::<Vec<_>>()).collect();
    let is_frozen = means.is_frozen(&service, &pids);
    cgroup.kill().unwrap();
    child.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while cgroup.populated().unwrap() {
        assert!(Instant::now() < end, "they do not end");
        std::thread::yield_now();
    }
    tree.remove().unwrap();
    frozen.unwrap();
    // One that waits for a child of `vfork` that was stopped first is in the kernel, and stays there.
    assert!(is_frozen && states.iter().all(|state| ['T', 'D'].contains(state)), "{states:?}");
}

#[test]
fn what_comes_while_it_is_looked_is_done_too_and_what_is_gone_is_no_failure() {
    let mut come = vec![1, 2];
    let all = std::cell::RefCell::new(std::mem::take(&mut come));
    let mut done = Vec::new();
    let deed = |id: i32| {
        done.push(id);
        if id < 6 {
            all.borrow_mut().push(id + 2); // forked
        }
        match id {
            3 => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    };
    assert_eq!(each(&|| all.borrow().clone(), deed), Ok(()));
    assert_eq!(done, [1, 2, 3, 4, 5, 6, 7]);
    let refuse = |id: i32| if id == 2 { Err(io::Error::other("no")) } else { Ok(()) };
    assert_eq!(each(&|| vec![1, 2, 3], refuse), Err("pid 2: no".to_owned()));
    let last = std::cell::Cell::new(0);
    let bomb = || {
        last.set(last.get() + 1);
        vec![last.get()]
    };
    assert!(each(&bomb, |_| Ok(())).unwrap_err().contains("fork faster"));
}

#[test]
fn a_hard_limit_is_read_by_its_title() {
    let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                Max processes             7823                 unlimited            processes \n\
                Max open files            1024                 524288               files     \n";
    assert_eq!(parse_hard_limit(text, "Max open files"), Some(524_288));
    assert_eq!(parse_hard_limit(text, "Max processes"), Some(UNLIMITED));
    assert_eq!(parse_hard_limit(text, "Max address space"), None);
}
