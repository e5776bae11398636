//! Limits: asked for, in force, kept; and services that stand still.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use watchdog_protocol::audit::{AuditRecord, AuditResult};
use watchdog_protocol::resources::{LimitKey, LimitsView, Support};
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::proc::Process;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Entry, Seen, TestWatchdog, program};

/// Takes all the processor time that it is let.
fn spinner(name: &str) -> Entry {
    program(name, &["sh", "-c", "while :; do :; done"])
}

/// Takes more and more memory.
fn eater(name: &str) -> Entry {
    program(name, &["tail", "/dev/zero"])
}

fn limits(wd: &TestWatchdog) -> LimitsView {
    wd.cli(&["limits", "--json"]).ok().json()
}

fn of(view: &LimitsView, service: &str) -> String {
    let found = view.services.iter().find(|limits| limits.service.as_str() == service);
    found.expect("it is registered").limits.to_string()
}

/// Where this machine limits by cgroups: everywhere but for somebody who may not make any.
fn has_cgroups(wd: &TestWatchdog) -> bool {
    let back_end = limits(wd).back_end;
    assert!(back_end.starts_with("cgroup-") || !Uid::effective().is_root(), "{back_end}");
    back_end.starts_with("cgroup-")
}

/// The folder of the group that `controller` counts a process in.
fn group_of(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let fields =
        text.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    let fields: Vec<[&str; 2]> = fields.collect();
    let own = |wanted: &str| {
        let has = |names: &str| names.split(',').any(|name| name == wanted);
        fields.iter().find(|[names, _]| has(names)).map(|[_, path]| *path)
    };
    match own(controller) {
        Some(path) => Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')),
        None => {
            Path::new("/sys/fs/cgroup").join(own("").expect("there is a v2 tree").trim_start_matches('/'))
        }
    }
}

fn throttled(process: Process) -> u64 {
    let stat = fs::read_to_string(group_of(process.pid, "cpu").join("cpu.stat")).unwrap_or_default();
    let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn until_throttled(wd: &TestWatchdog, service: &str) {
    let process = wd.status().of(service).process();
    wd.until_some("it is held back", || (throttled(process) > 0).then_some(()));
}

#[test]
fn a_limit_is_in_force_at_once_and_for_every_process_whoever_dies() {
    let mut wd = TestWatchdog::run(&[spinner("greedy"), puppet("a", ByItself)]);
    wd.until("all are ready", Seen::all_ready);
    if !has_cgroups(&wd) {
        return;
    }
    let said = wd.cli(&["limit", "greedy", "cpu=10%", "tasks_max=32", "--reason", "a waits"]).ok();
    assert!(said.stdout.contains("greedy: cpu=10% tasks_max=32"), "{said}");
    until_throttled(&wd, "greedy");
    let told = wd.until_event("it is told", |event| event.what == "limit");
    assert!(told.text.contains("cpu none → 10%") && told.text.ends_with(": a waits"), "{}", told.text);

    let killed = wd.kill("greedy", Signal::SIGKILL);
    wd.until("the next one runs", |seen| seen.of("greedy").is_ready_after(killed));
    until_throttled(&wd, "greedy");
    let group = group_of(wd.status().of("greedy").process().pid, "cpu");
    assert!(group.exists(), "{}", group.display());
    wd.kill_core();
    wd.until("all are ready", Seen::all_ready);
    assert_eq!(of(&limits(&wd), "greedy"), "cpu=10% tasks_max=32");
    let killed = wd.kill("greedy", Signal::SIGKILL);
    wd.until("the next one runs", |seen| seen.of("greedy").is_ready_after(killed));
    until_throttled(&wd, "greedy");
    wd.kill_keeper();
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    assert_eq!(of(&limits(&wd), "greedy"), "cpu=10% tasks_max=32");
    until_throttled(&wd, "greedy");

    let said = wd.cli(&["limit", "greedy", "cpu=none"]).ok();
    assert!(said.stdout.contains("greedy: tasks_max=32"), "{said}");
    let process = wd.status().of("greedy").process();
    // What was begun under the limit is counted to its end.
    wd.until_some("it is held back no more", || {
        let before = throttled(process);
        let runs = |from: u64| cpu_ms(&wd, "greedy") > from + 500;
        let from = cpu_ms(&wd, "greedy");
        wd.until_some("it runs", || runs(from).then_some(()));
        (throttled(process) == before).then_some(())
    });
    assert_eq!(of(&limits(&wd), "a"), "");
    wd.stop();
    assert!(!group.exists(), "{} is left behind", group.display());
}

fn cpu_ms(wd: &TestWatchdog, service: &str) -> u64 {
    wd.status().of(service).cpu_ms.unwrap_or(0)
}

#[test]
fn who_passes_its_memory_limit_ends_for_lack_of_memory_and_nobody_else_does() {
    let wd = TestWatchdog::run(&[
        eater("eater").key("restart = \"never\"").key("start_timeout = \"30s\""),
        puppet("a", ByItself),
    ]);
    let before = wd.until("the other is ready", |seen| seen.of("a").is_ready());
    if !has_cgroups(&wd) {
        wd.cli(&["stop", "eater"]).ok();
        return;
    }
    wd.cli(&["stop", "eater"]).ok();
    wd.cli(&["limit", "eater", "memory_max=32MiB"]).ok();
    wd.cli(&["start", "eater"]).ok();
    let seen = wd.until("it has ended", |seen| !seen.of("eater").is_ready());
    assert_eq!(seen.of("eater").cause(), "oom");
    assert!(seen.of("eater").why().contains("32MiB"), "{}", seen.of("eater").why());
    let why = wd.cli(&["why", "eater"]).ok();
    assert!(why.stdout.contains("memory"), "{why}");
    assert_eq!(seen.of("a").incarnation, before.of("a").incarnation);
}

#[test]
fn who_forks_without_end_is_stopped_by_its_limit_of_tasks() {
    let bomb = program("bomb", &["sh", "-c", "while :; do sleep 1000 & done"]);
    let wd = TestWatchdog::run(&[bomb.key("restart = \"never\""), puppet("a", ByItself)]);
    wd.until("the other is ready", |seen| seen.of("a").is_ready());
    if !has_cgroups(&wd) {
        wd.cli(&["stop", "bomb"]).ok();
        return;
    }
    wd.cli(&["stop", "bomb"]).ok();
    wd.cli(&["limit", "bomb", "tasks_max=40"]).ok();
    wd.cli(&["start", "bomb"]).ok();
    wd.until("it could not fork", |seen| !seen.of("bomb").is_ready());
    assert_eq!(wd.status().of("bomb").cause(), "exit-code");
    wd.until("nothing of it is left", |seen| seen.of("bomb").survivors.is_empty());
}

#[test]
fn what_can_not_be_a_limit_is_named_and_changes_nothing() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    for (change, part) in [
        ("cpu=50", "cpu = \"50\", expected a share of one processor like \"50%\""),
        ("memori_max=1GiB", "did you mean `memory_max`?"),
        ("nofile=many", "a number of descriptors"),
    ] {
        let said = wd.cli(&["limit", "a", "tasks_max=50", change]).with_code(2);
        assert!(said.stderr.contains(part), "{said}");
    }
    let said = wd.cli(&["limit", "b", "cpu=50%"]).with_code(2);
    assert!(said.stderr.contains("no service `b` is registered"), "{said}");
    for (key, support) in &limits(&wd).support {
        let Support::Refused(why) = support else { continue };
        let value = if *key == LimitKey::MemoryHigh { "1GiB" } else { "50" };
        let said = wd.cli(&["limit", "a", "nofile=64", &format!("{key}={value}")]).with_code(2);
        assert!(said.stderr.contains(why.as_str()), "{said}");
    }
    if has_cgroups(&wd) {
        let said = wd.cli(&["limit", "a", "memory_high=2GiB", "memory_max=1GiB"]).with_code(2);
        assert!(said.stderr.contains("memory_high=2GiB is above memory_max=1GiB"), "{said}");
    }
    assert_eq!(of(&limits(&wd), "a"), "");
}

#[test]
fn descriptors_are_limited_for_what_lives_and_what_is_started() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    wd.cli(&["limit", "a", "nofile=200"]).ok();
    let soft = |wd: &TestWatchdog| {
        let text = fs::read_to_string(format!("/proc/{}/limits", wd.status().of("a").process().pid));
        let text = text.expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
        line.and_then(|line| line.split_whitespace().next().map(str::to_owned)).expect("it is there")
    };
    assert_eq!(soft(&wd), "200");
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    assert_eq!(soft(&wd), "200");
}

#[test]
fn a_frozen_service_stands_still_is_not_called_hung_and_goes_on() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself).key("liveness = \"100ms\""), puppet("b", ByItself)]);
    let before = wd.until("all are ready", Seen::all_ready);
    let said = wd.cli(&["freeze", "a", "--reason", "b first"]).ok();
    assert!(said.stdout.contains("frozen"), "{said}");
    let told = wd.until_event("it is told", |event| event.what == "frozen");
    assert!(told.text.ends_with("frozen: b first"), "{}", told.text);
    wd.puppet("b").does(Order::Tell { to: "a".into(), text: "waits".into(), deadline: None });
    // Many misses of its heartbeat.
    let ran = cpu_ms(&wd, "a");
    wd.kill_core();
    let seen = wd.until("the core is back", |seen| seen.of("a").frozen);
    assert_eq!(seen.of("a").incarnation, before.of("a").incarnation);
    assert_eq!(cpu_ms(&wd, "a"), ran);
    wd.cli(&["thaw", "a"]).ok();
    wd.until("it runs", |seen| !seen.of("a").frozen);
    wd.until_some("it has what waited", || {
        wd.puppet("a").heard().into_iter().find(|heard| heard.text == "waits")
    });
    assert_eq!(wd.status().of("a").incarnation, before.of("a").incarnation);
}

#[test]
fn a_frozen_service_is_stopped_in_order_killed_and_restarted_as_any_other() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    wd.puppet("a").does(Order::Update { text: "kept".into() });
    wd.cli(&["freeze", "a"]).ok();
    let seen = wd.cli(&["freeze", "a"]).ok();
    assert!(seen.stdout.contains("frozen"), "{seen}");
    wd.cli(&["stop", "a"]).ok();
    let said = wd.cli(&["freeze", "a"]).with_code(3);
    assert!(said.stderr.contains("a is not running"), "{said}");
    wd.cli(&["start", "a"]).ok();
    assert!(!wd.status().of("a").frozen);
    assert_eq!(wd.puppet("a").text(Order::State), "kept");
    wd.cli(&["freeze", "a"]).ok();
    wd.cli(&["restart", "a"]).ok();
    assert!(wd.status().of("a").is_ready() && !wd.status().of("a").frozen);
    wd.cli(&["freeze", "a"]).ok();
    wd.cli(&["kill", "a"]).ok();
    assert_eq!(wd.status().of("a").phase, PhaseStatus::Stopped);
}

#[test]
fn a_service_limits_and_freezes_whom_its_grant_names_and_the_audit_has_it() {
    let grant = "control = [\"limits\", \"limit:batch-*\", \"freeze:batch-*\"]";
    let wd = TestWatchdog::run(&[
        puppet("manager", ByItself).key(grant),
        puppet("batch-1", ByItself),
        puppet("node", ByItself),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let limit = |service: &str| Order::Limit { service: service.into(), change: "nofile=100".into() };
    assert_eq!(wd.puppet("manager").text(limit("batch-1")), "nofile=100");
    let refused = wd.puppet("manager").order(limit("node"));
    assert!(
        matches!(&refused, Shown::Failed { text, .. } if text.contains("no grant to `limit node`")),
        "{refused:?}"
    );
    wd.puppet("manager").does(Order::Freeze { service: "batch-1".into() });
    assert!(wd.status().of("batch-1").frozen);
    wd.cli(&["thaw", "batch-1"]).ok();
    let records: Vec<AuditRecord> = wd.cli(&["audit", "--json"]).ok().json();
    let told = |record: &AuditRecord| {
        let is_done = record.result == AuditResult::Done;
        format!("{} {} {} {is_done}", record.verb, record.targets[0], record.details)
    };
    let told: Vec<_> = records.iter().map(told).collect();
    assert_eq!(
        told,
        [
            "limit batch-1 nofile=100: tried true",
            "limit node nofile=100: tried false",
            "freeze batch-1 tried true",
            "thaw batch-1  true"
        ]
    );
}
