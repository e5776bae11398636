//! What a process is started with, and what is said when it can't be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::{Entry, Seen, TestWatchdog, binary, probe, program};

#[test]
fn a_child_is_born_clean() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &["x y", "$HOME"])]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let shown = mirrored(&wd, "a");
    let names: Vec<&String> = shown["descriptors"].as_object().expect("a table").keys().collect();
    assert_eq!(names, ["0", "1", "2"], "{}", shown["descriptors"]);
    assert_eq!(shown["descriptors"]["0"], "/dev/null");
    assert_eq!(shown["blocked"], "0000000000000000");
    // SIGPIPE alone: the runtime of a Rust program ignores it for itself.
    assert_eq!(shown["ignored"], "0000000000001000");
    let pid = seen.of("a").process().pid;
    assert_eq!(shown["pid"], pid);
    assert_eq!(shown["session"], pid);
    assert_eq!(shown["group"], pid);
    assert_eq!(shown["umask"], "0077");
    assert_eq!(shown["no_new_privs"], "1");
    assert_eq!(shown["folder"], wd.folder().to_str().expect("a path of ours"));
    // No shell looked at them.
    assert_eq!(shown["arguments"], serde_json::json!(["x y", "$HOME"]));
    let environment = shown["environment"].as_object().expect("a table");
    assert_eq!(environment["WATCHDOG_SERVICE"], "a");
    assert!(environment.contains_key("PATH"));
    assert!(!environment.contains_key("CARGO_MANIFEST_DIR"), "the watchdog's own environment leaks");
    assert!(!environment.contains_key("WATCHDOG_SESSION"), "a plain program has no session");
    assert_eq!(shown["limits"]["Max core file size"][0], "0");
}

#[test]
fn a_child_is_born_as_configured() {
    let wd = TestWatchdog::idle();
    fs::create_dir(wd.path("home")).expect("a folder");
    let mut wd = wd;
    let a = probe("a", "mirror", &[])
        .env("COLOUR", "green and \"quoted\"")
        .key("dir = \"home\"")
        .key("umask = \"027\"")
        .key("rlimits = { nofile = 77 }");
    wd.configure("", &[a]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let shown = mirrored(&wd, "a");
    assert_eq!(shown["environment"]["COLOUR"], "green and \"quoted\"");
    assert_eq!(shown["folder"], wd.path("home").to_str().expect("a path of ours"));
    assert_eq!(shown["umask"], "0027");
    assert_eq!(shown["limits"]["Max open files"], serde_json::json!(["77", "77"]));
}

#[test]
fn a_child_runs_as_the_user_it_is_given() {
    let wd = TestWatchdog::idle();
    // It has to reach its folder and its program as that user.
    fs::set_permissions(wd.folder(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
    let copy = wd.path("mirror");
    fs::copy(binary("probe-mirror"), &copy).expect("a copy");
    let mut wd = wd;
    let path = copy.to_str().expect("a path of ours").to_owned();
    wd.configure("", &[program("a", &[&path]).key("user = \"nobody\"")]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let shown = mirrored(&wd, "a");
    assert_eq!(shown["uid"], 65534);
    assert_ne!(shown["gid"], 0);
}

#[test]
fn every_way_a_program_can_not_be_started_has_its_own_words() {
    let wd = TestWatchdog::idle();
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = wd.path(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a file of ours");
        path
    };
    let missing = wd.path("missing");
    let no_interpreter = file("no-interpreter", b"#!/no/such/interpreter\n", 0o755);
    let not_executable = file("not-executable", b"#!/bin/sh\n", 0o644);
    let wrong_format = file("wrong-format", b"\x7fELF is not enough", 0o755);
    let busy = wd.path("busy");
    fs::copy(binary("probe-mirror"), &busy).expect("a copy");
    let held = fs::OpenOptions::new().append(true).open(&busy).expect("a file of ours");

    let broken = |name: &str, path: &Path| -> Entry {
        program(name, &[path.to_str().expect("a path of ours")]).key("restart = \"never\"")
    };
    let homeless = probe("homeless", "mirror", &[]).key("dir = \"nowhere\"").key("restart = \"never\"");
    let mut wd = wd;
    wd.configure(
        "",
        &[
            broken("missing", &missing),
            broken("no-interpreter", &no_interpreter),
            broken("not-executable", &not_executable),
            broken("wrong-format", &wrong_format),
            broken("busy", &busy),
            homeless,
        ],
    );
    wd.run_again();
    let all_failed = |seen: &Seen| seen.services.iter().all(|service| service.phase == PhaseStatus::Failed);
    let seen = wd.until("all are failed", all_failed);
    let mut words = Vec::new();
    for name in ["missing", "no-interpreter", "not-executable", "wrong-format", "busy"] {
        let service = seen.of(name);
        assert_eq!(service.cause(), "spawn", "{}", service.why());
        let path = wd.path(name).display().to_string();
        assert!(service.why().contains(&path), "{}", service.why());
        words.push(service.why().replace(&path, "PATH"));
    }
    assert!(words[1].contains("/no/such/interpreter"), "{}", words[1]);
    let homeless = seen.of("homeless");
    assert!(homeless.why().contains("chdir") && homeless.why().contains("nowhere"), "{}", homeless.why());
    words.sort();
    words.dedup();
    assert_eq!(words.len(), 5, "{words:#?}");

    // What stood in the way is gone: it starts.
    drop(held);
    wd.cli(&["start", "busy"]).ok();
    wd.until("it is ready", |seen| seen.of("busy").is_ready());
}

#[test]
fn a_restart_leaves_no_descriptor_behind() {
    let wd = TestWatchdog::run(&[
        probe("a", "ender", &["exit", "1"]).key("restart_delay = \"0s\"").key("restart_limit = \"off\""),
        probe("b", "mirror", &[]),
    ]);
    let counts = || {
        let count = |pid| watchdog_tests::proc::descriptors(pid).len();
        (count(wd.keeper().pid), count(wd.core().pid))
    };
    let stop = || {
        wd.cli(&["stop", "a"]).ok();
        counts()
    };
    let (keeper, core) = stop();
    let before = wd.status().of("a").starts;
    wd.cli(&["start", "a"]);
    wd.until("it was started a hundred times more", |seen| seen.of("a").starts > before + 100);
    stop();
    wd.until_some("as many descriptors as before", || {
        let (keeper_now, core_now) = counts();
        (keeper_now <= keeper && core_now <= core).then_some(())
    });
}

/// What `probe-mirror` showed of itself.
fn mirrored(wd: &TestWatchdog, name: &str) -> Value {
    wd.until_some("what the process shows of itself", || {
        let said = wd.cli(&["logs", name, "-n", "1"]);
        let start = said.stdout.find('{')?;
        serde_json::from_str(&said.stdout[start..]).ok()
    })
}
