//! Another build of a service, compared before it is put in place.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Map, json};
use watchdog_protocol::Manifest;
use watchdog_protocol::manifest::{Contract, MANIFEST_FORMAT};
use watchdog_tests::proc::Process;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Said, Seen, TestWatchdog, binary, sample};

/// Builds that the core compares at the same time.
const COMPARED_AT_ONCE: usize = 4;

fn check(wd: &TestWatchdog, program: &str, service: &str) -> Said {
    let program = binary(program);
    wd.cli(&["check", program.to_str().expect("a path of ours"), "--service", service])
}

fn ready() -> TestWatchdog {
    let wd = TestWatchdog::run(&[
        puppet("a", ByItself),
        puppet("b", ByItself),
        sample("counter").settings("step = 2"),
    ]);
    wd.until("all are ready", Seen::all_ready);
    wd
}

#[test]
fn a_build_that_fits_is_told_apart_from_one_that_cuts_off_who_sends() {
    let wd = ready();
    let a = wd.puppet("a");
    let same = check(&wd, "probe-puppet", "b").ok().stdout;
    assert!(same.contains("against what runs") && same.contains("it takes the same messages"), "{same}");
    // Nobody sends yet.
    let other = check(&wd, "probe-puppet-patient", "b").ok().stdout;
    assert!(other.contains("`Say` is gone") && other.contains("nobody is cut off"), "{other}");
    a.does(Order::Tell { to: "b".into(), text: "hello".into(), deadline: None });
    let cut_off = check(&wd, "probe-puppet-patient", "b").with_code(1);
    assert!(cut_off.stdout.contains("breaks: a would get ContractMismatch"), "{cut_off}");
    assert!(
        cut_off.stdout.contains("was asked, at most once and is asked, until it is answered"),
        "{cut_off}"
    );
    assert!(cut_off.stderr.contains("1 thing would break"), "{cut_off}");
    // An operator is nobody's sender.
    wd.cli(&["send", "counter", "Total"]).ok();
    let other = check(&wd, "probe-puppet", "counter").with_code(1).stdout;
    assert!(other.contains("breaks: unknown setting `step`"), "{other}");
    assert!(!other.contains("operator"), "{other}");
    assert_eq!(
        a.text(Order::Ask { to: "b".into(), text: "still there?".into(), deadline: None }),
        "still there?"
    );
}

#[test]
fn the_state_is_tried_and_settings_are_measured_also_while_no_watchdog_runs() {
    let mut wd = ready();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    let fresh = check(&wd, "probe-puppet-newer", "b").ok().stdout;
    assert!(fresh.contains("nothing is stored"), "{fresh}");
    b.does(Order::Update { text: "remember".into() });
    b.does(Order::Save);
    let migrates = check(&wd, "probe-puppet-newer", "b").ok().stdout;
    assert!(migrates.contains("a migration runs, from version 1 to 2"), "{migrates}");
    assert!(migrates.contains("tried on what is stored: it reads it"), "{migrates}");
    wd.cli(&["set", "b", "number=3"]).ok();
    let misfit = check(&wd, "counter", "b").with_code(1).stdout;
    assert!(misfit.contains("breaks: unknown setting `number`, which was set over the file"), "{misfit}");
    // Its state is of another layout under the same version.
    assert!(misfit.contains("breaks: tried on what is stored, it would not start"), "{misfit}");
    a.does(Order::Update { text: "remember".into() });
    a.does(Order::Save);

    // What is on disk of it is in the journal alone.
    wd.kill_keeper();
    let migrates = check(&wd, "probe-puppet-newer", "b").ok().stdout;
    assert!(migrates.contains("no watchdog runs\n") && migrates.contains("it reads it"), "{migrates}");
    let misfit = check(&wd, "counter", "b").with_code(1).stdout;
    assert!(misfit.contains("breaks: unknown setting `number`, which was set over the file"), "{misfit}");
    assert!(misfit.contains("breaks: who is built against the present build"), "{misfit}");
    // The next life of the watchdog finds all of it untouched.
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    assert_eq!(wd.puppet("b").text(Order::State), "remember");
    assert!(wd.cli(&["get", "b", "number"]).ok().stdout.contains('3'));
}

#[test]
fn a_state_that_is_too_new_for_a_build_is_told() {
    let newer = puppet("b", ByItself).exec(&binary("probe-puppet-newer"));
    let wd = TestWatchdog::run(&[newer]);
    wd.until("it is ready", Seen::all_ready);
    wd.puppet("b").does(Order::Update { text: "remember".into() });
    wd.puppet("b").does(Order::Save);
    let told = check(&wd, "probe-puppet", "b").with_code(1).stdout;
    assert!(told.contains("breaks: version 2 is stored, it reads up to 1: it would not start"), "{told}");
}

/// Its settings type is told in little text and checked in 2^40 steps.
#[test]
fn a_build_whose_settings_are_checked_without_end_makes_nobody_wait() {
    let level = |at: usize| {
        (format!("L{at}"), json!({"allOf": vec![json!({"$ref": format!("#/$defs/L{}", at + 1)}); 2]}))
    };
    let mut levels: Map<_, _> = (0..40).map(level).collect();
    levels.insert("L40".to_owned(), json!({"type": "object"}));
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        settings: Some(json!({"$ref": "#/$defs/L0", "$defs": levels}).to_string()),
        state: None,
        contract: Contract(Vec::new()),
        layouts: Vec::new(),
    };
    let mut wd = TestWatchdog::run(&[puppet("b", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    let build = wd.path("build");
    fs::write(&build, format!("#!/bin/sh\ncat <<'END'\n{}\nEND\n", manifest.to_json()))
        .expect("a build is written");
    fs::set_permissions(&build, Permissions::from_mode(0o755)).expect("it is made a program");
    let check = ["check", build.to_str().expect("a path of ours"), "--service", "b"];
    let mut asking: Vec<_> = (0..COMPARED_AT_ONCE)
        .map(|_| wd.operator().command(&check).stdout(Stdio::null()).spawn().expect("it is asked"))
        .collect();
    let comparing = |core: &Process| {
        let threads = fs::read_dir(format!("/proc/{}/task", core.pid)).expect("the core lives");
        let names =
            threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "check").count()
    };
    let core = wd.core();
    wd.until_some("all are compared", || (comparing(&core) == COMPARED_AT_ONCE).then_some(()));
    assert!(wd.status().all_ready());
    let said = wd.cli(&check).with_code(75);
    assert!(said.stderr.contains("4 other builds are being compared"), "{said}");
    // Nor does the end of the core wait for them.
    wd.stop();
    for check in &mut asking {
        check.kill().and_then(|()| check.wait()).expect("it is ended");
    }
}

#[test]
fn whose_build_it_is_is_known_by_its_file_or_must_be_said() {
    let wd = ready();
    let of = |program: &str| {
        let program = binary(program);
        wd.cli(&["check", program.to_str().expect("a path of ours")])
    };
    assert!(of("counter").ok().stdout.contains("counter: "));
    let unclear = of("probe-puppet").with_code(2);
    assert!(unclear.stderr.contains("may be for a, b") && unclear.stderr.contains("--service"), "{unclear}");
    assert!(of("bumper").with_code(2).stderr.contains("no service runs a file of the name"));
    assert!(check(&wd, "counter", "countre").with_code(2).stderr.contains("did you mean `counter`?"));
    let silent = check(&wd, "probe-mirror", "b").with_code(1);
    assert!(silent.stderr.contains("another build of `b`"), "{silent}");
    let program = binary("counter");
    let json: serde_json::Value =
        wd.cli(&["check", program.to_str().expect("a path of ours"), "--json"]).ok().json();
    assert_eq!(json[0]["against"], "running");
    assert_eq!(json[0]["findings"][0]["weight"], "note");
}

#[test]
fn a_service_that_is_in_the_file_alone_is_measured_by_its_files_and_the_text_says_why() {
    let wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    wd.configure("", &[puppet("a", ByItself), puppet("b", ByItself)]);
    let late = check(&wd, "probe-puppet", "b").ok().stdout;
    assert!(late.contains("against its files, the watchdog that runs does not know it"), "{late}");
    assert!(check(&wd, "probe-puppet", "a").ok().stdout.contains("against what runs"));
}
