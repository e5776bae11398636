use std::process::{Child, Command, Stdio};

use super::*;
use crate::limiting::fake::Fake;

fn limits(of: &[(LimitKey, u64)]) -> Limits {
    Limits(of.iter().copied().collect())
}

fn nobody() -> Vec<i32> {
    Vec::new()
}

/// A tree that was handed all controllers, with the cgroup of one service.
fn tree(controllers: &str) -> (tempfile::TempDir, Fake, Unified, ServiceName) {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::with(folder.path(), controllers);
    let tree = folder.path().join("watchdog-1");
    fake.make(&tree).unwrap();
    let unified = Unified::within(Box::new(fake.clone()), Some(&tree), enable);
    fake.make(&tree.join("counter")).unwrap();
    fake.told();
    (folder, fake, unified, "counter".parse().unwrap())
}

fn told(fake: &Fake) -> Vec<String> {
    let short =
        |(file, text): (String, String)| format!("{} = {text}", file.replace("watchdog-1/counter/", ""));
    fake.told().into_iter().map(short).collect()
}

#[test]
fn a_service_that_starts_has_all_its_limits_and_no_other() {
    let (_folder, fake, unified, service) = tree("cpu io memory pids");
    let mut prepared = Prepared::default();
    let wanted = limits(&[
        (LimitKey::Cpu, 1500),
        (LimitKey::MemoryMax, 1 << 30),
        (LimitKey::IoWeight, 50),
        (LimitKey::TasksMax, 64),
    ]);
    unified.prepare(&service, &wanted, &[], &mut prepared);
    assert!(prepared.join.is_empty() && prepared.not_in_force.is_empty(), "{prepared:?}");
    let all = [
        "cpu.max = 150000 100000",
        "cpu.weight = 100",
        "memory.high = max",
        "memory.max = 1073741824",
        "io.weight = default 50",
        "pids.max = 64",
    ];
    assert_eq!(told(&fake), all);
}

#[test]
fn what_is_lifted_is_written_as_none() {
    let (_folder, fake, unified, service) = tree("cpu io memory pids");
    let change = Change {
        service: &service,
        before: limits(&[(LimitKey::Cpu, 500), (LimitKey::CpuWeight, 10), (LimitKey::MemoryHigh, 1 << 20)]),
        limits: limits(&[(LimitKey::CpuWeight, 200)]),
        given: &[],
        pids: &nobody,
    };
    assert_eq!(unified.apply(&change), NotInForce::new());
    assert_eq!(told(&fake), ["cpu.max = max 100000", "cpu.weight = 200", "memory.high = max"]);
}

#[test]
fn each_limit_is_carried_by_its_own_controller_or_refused_with_the_reason() {
    let (_folder, _fake, unified, _) = tree("cpu memory");
    for key in [LimitKey::Cpu, LimitKey::CpuWeight, LimitKey::MemoryHigh, LimitKey::MemoryMax] {
        assert_eq!(unified.support(key), Support::Full, "{key}");
    }
    for key in [LimitKey::TasksMax, LimitKey::IoWeight] {
        let Support::Refused(why) = unified.support(key) else { panic!("{key} has no controller") };
        assert!(why.ends_with(" has none"), "{why}");
    }
    let [lacking] = &unified.shortcomings()[..] else { panic!("{:?}", unified.shortcomings()) };
    assert!(lacking.starts_with("cgroup v2 gives us no io, pids: "), "{lacking}");
    assert!(matches!(tree("io").2.support(LimitKey::IoWeight), Support::Weaker(_)));
}

#[test]
fn a_value_the_kernel_refuses_is_told_and_stops_no_other() {
    let (_folder, fake, unified, service) = tree("cpu io memory pids");
    let mut prepared = Prepared::default();
    // No parser lets this through; the kernel does not either.
    let wanted = limits(&[(LimitKey::CpuWeight, 20_000), (LimitKey::TasksMax, 5)]);
    unified.prepare(&service, &wanted, &[], &mut prepared);
    assert_eq!(prepared.not_in_force.keys().collect::<Vec<_>>(), [&LimitKey::CpuWeight]);
    assert!(told(&fake).contains(&"pids.max = 5".to_owned()));
}

#[test]
fn a_frozen_service_is_thawed_before_its_next_process_is_born() {
    let (_folder, _fake, unified, service) = tree("");
    unified.freeze(&service, &nobody).unwrap();
    assert!(unified.is_frozen(&service, &nobody));
    unified.prepare(&service, &Limits::default(), &[], &mut Prepared::default());
    assert!(!unified.is_frozen(&service, &nobody));
}

/// The real tree, where there is one we may write to.
struct Real(CgroupTree, Unified);

impl Real {
    fn make() -> Option<Self> {
        let state = tempfile::tempdir().unwrap();
        let tree = CgroupTree::make(state.path())
            .inspect_err(|none| eprintln!("nothing to test without a cgroup: {none}"))
            .ok()?;
        let unified = Unified::probe(Some(&tree));
        Some(Self(tree, unified))
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for (_, cgroup) in self.0.services().unwrap() {
            cgroup.kill().unwrap();
            while cgroup.populated().unwrap() {
                std::thread::yield_now();
            }
        }
        self.0.remove().unwrap();
    }
}

fn spin_in(cgroup: &Path) -> Child {
    Command::new("sh")
        .args(["-c", r#"echo 0 > "$0/cgroup.procs"; echo in; while :; do :; done"#])
        .arg(cgroup)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn until_it_says_a_line(child: &mut Child) {
    let mut line = [0; 3];
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
}

#[test]
fn a_frozen_process_stands_still_goes_on_when_thawed_and_dies_of_kill_while_frozen() {
    let Some(real) = Real::make() else { return };
    let unified = &real.1;
    if unified.freeze_support() != Support::Full {
        return eprintln!("this kernel's cgroups can't freeze");
    }
    let service: ServiceName = "counter".parse().unwrap();
    let cgroup = real.0.service(&service).unwrap();
    let mut child = spin_in(cgroup.path());
    until_it_says_a_line(&mut child);
    let used = || crate::processes::Process::read(child.id().cast_signed()).unwrap().cpu;
    unified.freeze(&service, &nobody).unwrap();
    assert!(unified.is_frozen(&service, &nobody));
    let frozen_at = used();
    assert_eq!(used(), frozen_at);
    unified.thaw(&service, &nobody).unwrap();
    assert!(!unified.is_frozen(&service, &nobody));
    while used() == frozen_at {
        std::thread::yield_now();
    }
    unified.freeze(&service, &nobody).unwrap();
    cgroup.kill().unwrap();
    child.wait().unwrap();
    assert!(unified.is_frozen(&service, &nobody), "a cgroup stays frozen when nobody is in it");
    unified.prepare(&service, &Limits::default(), &[], &mut Prepared::default());
    assert!(!unified.is_frozen(&service, &nobody));
}
