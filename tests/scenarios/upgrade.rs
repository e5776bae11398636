//! The core is replaced by another build while services go on; one that is no good changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use watchdog_protocol::status::ServiceStatus;
use watchdog_tests::proc::Process;
use watchdog_tests::proof::core::{self, Fate};
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Said, Seen, TestWatchdog, binary, probe};

/// A puppet and a plain program, both ready.
fn running() -> TestWatchdog {
    let wd = TestWatchdog::run(&[puppet("b", ByItself), probe("a", "mirror", &[])]);
    wd.until("all are ready", Seen::all_ready);
    wd
}

/// The same program as another file.
fn copy(wd: &TestWatchdog, of: &str, name: &str) -> PathBuf {
    let path = wd.path(name);
    fs::copy(binary(of), &path).expect("a copy");
    path
}

fn upgrade(wd: &TestWatchdog, program: &Path, more: &[&str]) -> Said {
    let program = program.to_str().expect("a path of ours");
    wd.cli(&[&["upgrade", "--binary", program][..], more].concat())
}

fn executable(process: Process) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", process.pid)).expect("it runs")
}

/// What an upgrade must not touch.
fn processes(seen: &Seen) -> Vec<(String, Option<u32>, u64)> {
    let of = |service: &ServiceStatus| (service.name.to_string(), service.pid, service.starts);
    seen.services.iter().map(of).collect()
}

#[test]
fn another_build_takes_over_and_services_go_on() {
    let wd = running();
    let b = wd.puppet("b");
    b.does(Order::Update { text: "before".into() });
    b.does(Order::Save);
    let (before, core) = (wd.status(), wd.core());
    let newer = copy(&wd, "watchdog", "newer");
    let said = upgrade(&wd, &newer, &[]).ok();
    assert!(said.stdout.starts_with("core 2 (pid "), "{said}");
    let next = wd.core();
    assert_ne!(next, core);
    assert!(!core.exists(), "two cores");
    assert_eq!(executable(next), newer);
    assert_eq!(processes(&wd.status()), processes(&before));
    // Session, state and settings are the same ones.
    assert_eq!(b.order(Order::State), Shown::Text("before".into()));
    b.does(Order::Update { text: "after".into() });
    b.does(Order::Save);
    let events: Vec<String> = wd.events().into_iter().map(|event| event.what).collect();
    assert!(events.ends_with(&["upgrade", "took-over", "upgraded"].map(String::from)), "{events:?}");
    // It is the program from here on, also when its path leads elsewhere.
    fs::rename(copy(&wd, "probe-mirror", "other"), &newer).expect("it can be replaced");
    wd.kill_core();
    assert!(executable(wd.core()).to_string_lossy().ends_with("newer (deleted)"));
    assert_eq!(processes(&wd.status()), processes(&before));
}

#[test]
fn without_a_name_it_is_the_file_the_watchdog_was_started_from() {
    let wd = running();
    let core = wd.core();
    let program = executable(core);
    let said = wd.cli(&["upgrade", "--json"]).ok();
    assert!(said.json::<serde_json::Value>()["done"].as_str().is_some_and(|words| words.contains("core 2")));
    assert_ne!(wd.core(), core);
    assert_eq!(executable(wd.core()), program);
}

#[test]
fn a_build_that_ends_at_once_is_taken_back_with_what_it_said() {
    let wd = running();
    let (before, program) = (wd.status(), executable(wd.core()));
    fs::write(wd.path("impostor"), "crash").expect("it is written");
    let said = upgrade(&wd, &binary("probe-impostor"), &[]).with_code(1);
    let expected = "ended with exit code 3 before it was ready; the core of before runs again\n  stderr: this is no core";
    assert!(said.stderr.contains(expected), "{said}");
    assert_eq!(executable(wd.core()), program);
    assert_eq!(processes(&wd.status()), processes(&before));
    let told = wd.until_event("that it came to nothing", |event| event.what == "upgrade-undone");
    assert_eq!(told.evidence.expect("its last words").last_lines, ["this is no core"]);
    let b = wd.puppet("b");
    b.does(Order::Update { text: "after".into() });
    b.does(Order::Save);
}

#[test]
fn a_build_that_hangs_is_taken_back_when_its_time_is_up() {
    let wd = running();
    let (before, program) = (wd.status(), executable(wd.core()));
    fs::write(wd.path("impostor"), "hang").expect("it is written");
    let said = upgrade(&wd, &binary("probe-impostor"), &["--ready-within", "300ms"]).with_code(1);
    assert!(said.stderr.contains("was not ready within 300ms and was killed"), "{said}");
    assert_eq!(executable(wd.core()), program);
    assert_eq!(processes(&wd.status()), processes(&before));
}

#[test]
fn what_can_not_become_the_core_is_refused_before_anything_happens() {
    let wd = running();
    let core = wd.core();
    let plain = copy(&wd, "watchdog", "plain");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("its mode");
    let script = wd.path("script");
    fs::write(&script, "#!/bin/sh\nexec watchdog \"$@\"\n").expect("it is written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    fs::write(wd.path("impostor"), "older").expect("it is written");
    let impostor = binary("probe-impostor");
    let refused = |program: &Path, code: i32, why: &str| {
        let said = upgrade(&wd, program, &[]).with_code(code);
        assert!(said.stderr.contains(why), "{why:?} is not in {said}");
        assert_eq!(wd.core(), core, "{said}");
    };
    refused(&wd.path("absent"), 2, "No such file");
    refused(wd.folder(), 2, "is no regular file");
    refused(&plain, 1, "is not executable (mode 644)");
    refused(&script, 2, "is a script");
    refused(Path::new("/bin/true"), 1, "is no watchdog");
    refused(&impostor, 1, "speaks versions 0 of the keeper's protocol, the keeper that runs speaks");
    let said = wd.cli(&["upgrade", "--binary", "absent", "--no-wait"]).ok();
    assert!(said.stdout.contains("accepted"), "{said}");
    assert!(!wd.events().iter().any(|event| event.what.starts_with("upgrade")));
}

#[test]
fn messages_settings_and_states_go_on_while_build_follows_build() {
    let plan = core::Plan { fate: Fate::Upgraded, times: 4, messages: 1000, seed: 1 };
    let shown = core::core(plan).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(shown.messages >= 4000 && shown.revisions > 0 && shown.saves > 0, "{shown:?}");
}
