//! What services use, as an operator and a service with a grant are told.

use std::fs;

use nix::sys::signal::Signal;
use serde::Deserialize;
use watchdog_protocol::usage::{Rates, ServiceRates, ServiceUsage, Usage};
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::puppet;
use watchdog_tests::{Entry, Seen, TestWatchdog, proc, program};

/// The `--json` of a reading.
#[derive(Debug, Deserialize)]
struct Shown {
    before: Usage,
    usage: Usage,
    rates: Rates,
}

impl Shown {
    fn of(&self, name: &str) -> &ServiceUsage {
        find(&self.usage, name)
    }

    fn rates(&self, name: &str) -> &ServiceRates {
        self.rates.services.iter().find(|of| of.name.as_str() == name).expect("it is in both readings")
    }
}

fn find<'u>(usage: &'u Usage, name: &str) -> &'u ServiceUsage {
    usage.services.iter().find(|of| of.name.as_str() == name).expect("it is registered")
}

fn shown(wd: &TestWatchdog) -> Shown {
    wd.cli(&["usage", "--interval=100ms", "--json"]).ok().json()
}

fn shell(name: &str, script: &str) -> Entry {
    program(name, &["sh", "-c", script])
}

#[test]
fn who_works_comes_first_and_the_machine_last() {
    let wd = TestWatchdog::run(&[
        shell("busy", "while :; do :; done"),
        program("calm", &["sleep", "1000"]),
        puppet("puppet", ByItself),
    ]);
    wd.until("all run", Seen::all_ready);
    let said = wd.cli(&["usage", "--interval=300ms"]).ok().stdout;
    let heads: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(heads[..2], ["NAME", "busy"], "{said}");
    assert_eq!(heads[4..6], ["machine:", "memory:"], "{said}");
    let shown = shown(&wd);
    let cpu = |name: &str| shown.rates(name).cpu_percent.expect("it is counted");
    assert!(cpu("busy") > cpu("calm") && cpu("busy") > 1.0, "{shown:?}");
    let puppet = shown.of("puppet");
    assert_eq!((puppet.processes, puppet.is_frozen), (1, false));
    assert!(puppet.threads.is_some_and(|threads| threads >= 1), "{puppet:?}");
    assert!(
        puppet.rss.is_some_and(|bytes| bytes > 1 << 20) && puppet.descriptors.is_some_and(|count| count > 3)
    );
    assert!(shown.usage.machine.processors > 0 && shown.rates.machine.cpu_percent.is_some());
    let one = wd.cli(&["usage", "calm", "--interval=100ms"]).ok().stdout;
    assert_eq!(one.lines().nth(1).and_then(|line| line.split(' ').next()), Some("calm"), "{one}");
    let wrong = wd.cli(&["usage", "calmer", "--interval=100ms"]).with_code(2);
    assert!(wrong.stderr.contains("did you mean `calm`?"), "{wrong}");
}

#[test]
fn what_children_use_that_end_at_once_stays_counted() {
    let child = "(n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done)";
    let wd = TestWatchdog::run(&[shell("forker", &format!("while :; do {child}; done"))]);
    wd.until("it runs", Seen::all_ready);
    let mut last = 0;
    wd.until_some("it used a second, and at no reading less than before", || {
        let shown = shown(&wd);
        for usage in [&shown.before, &shown.usage] {
            let used = find(usage, "forker").cpu_us.expect("it is counted");
            assert!(used >= last, "{used} after {last}");
            last = used;
        }
        (last > 1_000_000).then_some(())
    });
}

#[test]
fn a_service_that_eats_memory_is_seen_to() {
    // What waits for the end of its input to know what the last of it is.
    let script = "(head -c 60000000 /dev/zero; : > eaten; sleep 1000) | tail -c 60000000";
    let wd = TestWatchdog::run(&[shell("eater", script)]);
    wd.until_some("it was fed", || wd.path("eaten").exists().then_some(()));
    wd.until_some("it has eaten", || shown(&wd).of("eater").rss.filter(|bytes| *bytes > 60_000_000));
    let shown: Shown = wd.cli(&["usage", "--pss", "--interval=100ms", "--json"]).ok().json();
    let eater = shown.of("eater");
    assert!(eater.rss.is_some_and(|bytes| bytes > 60_000_000), "{eater:?}");
    assert!(eater.pss.is_some_and(|bytes| bytes > 60_000_000), "{eater:?}");
    assert!(find(&shown.before, "eater").pss.is_none(), "it is dear, and nobody needs it twice");
    let said = wd.cli(&["usage", "--sort=memory", "--interval=100ms"]).ok().stdout;
    assert!(said.lines().nth(1).is_some_and(|line| line.contains("MiB")), "{said}");
}

#[test]
fn a_frozen_service_is_shown_as_one() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    let process = wd.until("it is ready", Seen::all_ready).of("a").process();
    let freeze = proc::cgroup(process.pid).map(|cgroup| cgroup.join("cgroup.freeze"));
    let freeze = freeze.filter(|file| file.exists());
    match &freeze {
        Some(freeze) => fs::write(freeze, "1").expect("ours to freeze"),
        None => process.signal(Signal::SIGSTOP),
    }
    wd.until_some("it is frozen", || shown(&wd).of("a").is_frozen.then_some(()));
    let said = wd.cli(&["usage", "--interval=100ms"]).ok().stdout;
    assert!(said.contains("frozen"), "{said}");
    match &freeze {
        Some(freeze) => fs::write(freeze, "0").expect("ours to thaw"),
        None => process.signal(Signal::SIGCONT),
    }
    wd.until_some("it goes on", || (!shown(&wd).of("a").is_frozen).then_some(()));
}

#[test]
fn no_rate_is_negative_when_a_service_is_restarted_between_two_readings() {
    let busy =
        shell("busy", "while :; do :; done").key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[busy]);
    wd.until("it runs", Seen::all_ready);
    wd.until_some("it was restarted between two readings", || {
        let operator = wd.operator();
        let reading = std::thread::spawn(move || operator.run(&["usage", "--interval=300ms", "--json"]));
        let killed = wd.kill("busy", Signal::SIGKILL);
        let shown: Shown = reading.join().expect("it does not panic").ok().json();
        let cpu = shown.rates("busy").cpu_percent;
        assert!(cpu.is_none_or(|percent| percent >= 0.0), "{shown:?}");
        wd.until("it runs again", |seen| seen.of("busy").is_ready_after(killed));
        shown.rates("busy").restarted.then_some(())
    });
}

#[test]
fn another_core_goes_on_measuring() {
    let wd = TestWatchdog::run(&[shell("busy", "while :; do :; done")]);
    wd.until("it runs", Seen::all_ready);
    let before = shown(&wd);
    wd.kill_core();
    let after = shown(&wd);
    assert!(after.usage.at_us > before.usage.at_us);
    let rates = after.usage.since(&before.usage).expect("it is later");
    assert!(rates.services[0].cpu_percent.is_some_and(|percent| percent > 0.0), "{rates:?}");
    assert!(!rates.services[0].restarted);
}
