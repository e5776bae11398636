//! The command line and the control socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use nix::sys::signal::Signal;
use watchdog_protocol::status::{EventRecord, PhaseStatus};
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Operator, Seen, TestWatchdog, probe, program};

#[test]
fn ctl_a_second_run_in_the_same_place_is_refused_and_says_who_is_there() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let said = wd.cli(&["run"]).with_code(73);
    assert!(said.stderr.contains(&seen.watchdog.keeper_pid.to_string()), "{said}");
    assert!(said.stderr.contains("since"), "{said}");
    assert_eq!(wd.status().of("a").starts, 1);
}

#[test]
fn ctl_without_a_watchdog_the_command_line_says_so() {
    let wd = TestWatchdog::idle();
    wd.configure("", &[probe("a", "mirror", &[])]);
    wd.cli(&["status"]).with_code(69);
}

#[test]
fn ctl_the_configuration_is_found_in_a_folder_above() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let below = wd.path("some/where/below");
    fs::create_dir_all(&below).expect("a folder");
    let said = Operator::new(below).run(&["status", "--json"]).ok();
    assert!(said.stdout.contains("keeper_pid"), "{said}");
}

#[test]
fn ctl_words_that_make_no_sense_are_a_usage_error() {
    let wd = TestWatchdog::run(&[probe("counter", "mirror", &[])]);
    wd.cli(&["stpo", "counter"]).with_code(2);
    wd.cli(&["stop"]).with_code(2);
    let said = wd.cli(&["stop", "Counter!"]).with_code(2);
    assert!(said.stderr.contains("Counter!"), "{said}");
    let said = wd.cli(&["stop", "countre"]).with_code(2);
    assert!(said.stderr.contains("countre") && said.stderr.contains("did you mean `counter`"), "{said}");
}

#[test]
fn ctl_all_of_several_services_are_stopped_or_none() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[]), probe("b", "mirror", &[])]);
    wd.until("both are ready", Seen::all_ready);
    wd.cli(&["stop", "a", "nobody"]).with_code(2);
    assert!(wd.status().all_ready());
    wd.cli(&["stop", "a", "b"]).ok();
    assert!(wd.status().services.iter().all(|service| service.phase == PhaseStatus::Stopped));
}

#[test]
fn ctl_exit_codes_are_in_the_help() {
    let wd = TestWatchdog::idle();
    let said = wd.cli(&["--help"]).ok();
    for code in ["0", "1", "2", "3", "69", "73", "75", "77", "78"] {
        let listed = said.stdout.lines().any(|line| line.split_whitespace().next() == Some(code));
        assert!(listed, "{code} is not listed\n{said}");
    }
    let verbs = "run check register unregister start stop restart kill reset set get unset state logs status why bundle events \
                 intercoms shutdown demo";
    for verb in verbs.split_whitespace() {
        assert!(said.stdout.contains(verb), "{verb} is not listed\n{said}");
        wd.cli(&[verb, "--help"]).ok();
    }
}

#[test]
fn ctl_a_restart_gives_a_new_process() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let (process, incarnation) = (seen.of("a").process(), seen.of("a").incarnation);
    wd.cli(&["restart", "a"]).ok();
    let seen = wd.status();
    assert!(seen.of("a").is_ready_after(incarnation));
    assert!(!process.exists());
    assert_eq!(seen.of("a").cause(), "operator");
}

#[test]
fn ctl_the_event_log_is_in_order_without_a_gap() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    wd.kill_core();
    wd.cli(&["restart", "a"]).ok();
    let said = wd.cli(&["events", "--json"]).ok();
    let events: Vec<EventRecord> =
        said.stdout.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    let expected: Vec<u64> = (numbers[0]..).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
    assert!(events.iter().any(|event| event.what == "ended" && event.cause.as_deref() == Some("operator")));
}

#[test]
fn ctl_a_service_registered_at_run_time_is_there_after_a_restart_until_it_is_unregistered() {
    let mut wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let file = wd.path("late.toml");
    fs::write(&file, probe("late", "mirror", &[]).render(wd.folder())).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    wd.until("it is ready", |seen| seen.find("late").is_some_and(|late| late.is_ready()));
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    fs::remove_file(file).expect("it is not needed any more");
    wd.run_again();
    wd.until("it is ready again", |seen| seen.find("late").is_some_and(|late| late.is_ready()));

    let said = wd.cli(&["unregister", "late"]);
    assert_ne!(said.code, 0, "it runs");
    wd.cli(&["stop", "late"]).ok();
    wd.cli(&["unregister", "late"]).ok();
    assert!(wd.status().find("late").is_none());
    wd.cli(&["start", "late"]).with_code(2);
}

#[test]
fn a_service_that_is_registered_again_goes_on_with_the_numbers_of_its_processes_and_its_state() {
    let wd = TestWatchdog::run(&[]);
    fs::write(wd.path("late.toml"), puppet("late", ByItself).render(wd.folder())).expect("a file");
    let come = || {
        wd.cli(&["register", "late.toml"]).ok();
        wd.until("it is ready", |seen| seen.find("late").is_some_and(|late| late.is_ready()))
            .of("late")
            .incarnation
    };
    let first = come();
    let killed = wd.kill("late", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("late").is_ready_after(killed));
    wd.puppet("late").does(Order::Update { text: "of before".into() });
    wd.puppet("late").does(Order::Save);
    let last = wd.status().of("late").incarnation;
    assert!(first < last);
    for _ in 0..2 {
        wd.cli(&["stop", "late"]).ok();
        wd.cli(&["unregister", "late"]).ok();
        assert!(come() > last, "a number was used again");
        assert_eq!(wd.puppet("late").text(Order::State), "of before");
    }
    assert!(wd.cli(&["register", "late.toml"]).with_code(78).stderr.contains("`late` is already registered"));
}

#[test]
fn ctl_a_configuration_error_points_at_its_place_and_starts_nothing() {
    let wd = TestWatchdog::idle();
    let check = |text: &str| {
        fs::write(wd.path("watchdog.toml"), text).expect("a file");
        let said = wd.cli(&["check"]).with_code(78);
        wd.cli(&["run"]).with_code(78);
        said.stderr
    };
    let said = check("[program.a]\nexec = [\"true\"]\nrestrat = \"never\"\n");
    assert!(said.contains("watchdog.toml:3:1") && said.contains("`restart`"), "{said}");
    let said = check("[program.a]\nexec = \"true\n");
    assert!(said.contains("watchdog.toml:2:"), "{said}");
    let said = check(
        "[program.a]\nexec = [\"true\"]\nrequires = [\"b\"]\n[program.b]\nexec = [\"true\"]\nrequires = [\"a\"]\n",
    );
    assert!(said.contains("a → b → a") || said.contains("b → a → b"), "{said}");
    let said = check("[program.a]\nexec = [\"true\"]\nrequires = [\"nobody\"]\n");
    assert!(said.contains("nobody") && said.contains("watchdog.toml:3:"), "{said}");
    assert_eq!(wd.processes(), []);
}

#[test]
fn ctl_the_control_socket_is_its_owners_alone() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let socket = control_socket(&wd);
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().expect("a folder")), 0o700);
}

#[test]
fn ctl_a_deep_folder_is_no_hindrance() {
    let mut wd = TestWatchdog::idle();
    let deep = wd.path(&"deep-folder/".repeat(12));
    fs::create_dir_all(&deep).expect("a folder");
    let runtime = format!("runtime = {deep:?}");
    wd.configure(&runtime, &[probe("a", "mirror", &[])]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let socket = deep.join("watchdog.sock");
    assert!(socket.as_os_str().len() > 107 && socket.exists());
}

#[test]
fn ctl_a_service_that_opens_the_control_socket_is_refused() {
    let watchdog = watchdog_tests::binary("watchdog");
    let script = format!("{} stop b; echo it ended with $?; exec sleep 1000", watchdog.display());
    let wd = TestWatchdog::run(&[
        program("a", &["sh", "-c", &script]).key("after = [\"b\"]"),
        probe("b", "mirror", &[]),
    ]);
    let said = wd.until_some("how the attempt ended", || {
        let said = wd.cli(&["logs", "a", "-n", "20"]).stdout;
        said.contains("it ended with").then_some(said)
    });
    assert!(said.contains("it ended with 77"), "{said}");
    assert!(wd.status().of("b").is_ready());
}

#[test]
fn ctl_a_service_commands_as_far_as_its_grant_goes() {
    let wd = TestWatchdog::run(&[
        puppet("chief", ByItself).key("control = [\"status\", \"stop:batch-*\", \"logs:talker\"]"),
        probe("talker", "talker", &["lines", "3"]),
        puppet("nobody", ByItself),
        probe("batch-1", "mirror", &[]),
        probe("other", "mirror", &[]),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let (chief, nobody) = (wd.puppet("chief"), wd.puppet("nobody"));
    assert_eq!(nobody.fails(Order::CountServices), "NoGrant");
    assert_eq!(chief.text(Order::CountServices), "5");
    wd.until_some("its lines are read by grant", || {
        // Two streams are two pipes: either may be a little ahead.
        let last = chief.text(Order::LastLine { service: "talker".into() });
        ["line 3", "done"].contains(&last.as_str()).then_some(())
    });
    let refused = chief.fails(Order::LastLine { service: "other".into() });
    assert_eq!(refused, "Refused");
    chief.does(Order::Stop { service: "batch-1".into() });
    let seen = wd.status();
    assert!(seen.of("batch-1").is(PhaseStatus::Stopped));
    assert!(seen.of("batch-1").wanted_by.as_ref().is_some_and(|by| by.contains("chief")), "{seen:?}");
    match chief.order(Order::Stop { service: "other".into() }) {
        Shown::Failed { kind, text } => assert!(kind == "Refused" && text.contains("other"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(wd.status().of("other").is_ready());
    // A call that is under way when the core dies is done once, by the next one.
    wd.cli(&["start", "batch-1"]).ok();
    wd.kill_core();
    chief.does(Order::Stop { service: "batch-1".into() });
    assert!(wd.status().of("batch-1").is(PhaseStatus::Stopped));
}

#[test]
fn ctl_the_demo_shows_that_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().expect("a fresh folder");
    let said = Operator::new(folder.path()).run(&["demo", "--json"]).ok();
    let last = said.stdout.lines().last().expect("a line");
    let shown: serde_json::Value = serde_json::from_str(last).expect("the last line is JSON");
    assert_eq!((&shown["lost"], &shown["duplicated"]), (&0.into(), &0.into()), "{said}");
    assert!(shown["sent"].as_u64() > Some(0) && shown["sent"] == shown["handled"], "{said}");
    assert!(
        shown["service_restarts"].as_u64() > Some(0) && shown["core_restarts"].as_u64() > Some(0),
        "{said}"
    );
    assert!(shown["longest_pause_ms"].is_number(), "{said}");
    // It leaves nothing where it was started.
    let left = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left, 0, "{said}");
}

#[test]
fn ctl_garbage_half_frames_and_slow_readers_harm_nobody() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let connect = || UnixStream::connect(control_socket(&wd)).expect("the socket accepts");
    let core = wd.core();
    let mut kept = Vec::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        // A length of 4 GiB.
        &[0xff, 0xff, 0xff, 0xff, 1, 2, 3],
        // An empty frame, then half of one.
        &[0, 0, 0, 0, 9, 0, 0, 0, 1],
        &[],
    ] {
        let mut connection = connect();
        connection.write_all(bytes).expect("it is read or refused later");
        kept.push(connection);
        connect().write_all(bytes).expect("it is read or refused later");
    }
    // Nobody reads what these are sent.
    for _ in 0..50 {
        kept.push(connect());
    }
    assert!(wd.status().all_ready());
    // What is no frame is let go.
    let mut http = kept.swap_remove(0);
    let mut rest = Vec::new();
    // A reset says as much as an end of file.
    let _end = http.read_to_end(&mut rest);
    assert_eq!(wd.core(), core);
    assert!(wd.status().all_ready());
}

#[test]
fn ctl_many_operators_at_once_get_an_answer_each() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let operators: Vec<_> = (0..16)
        .map(|_| {
            let operator = wd.operator();
            thread::spawn(move || operator.run(&["status", "--json"]).ok())
        })
        .collect();
    for operator in operators {
        operator.join().expect("each has an answer");
    }
}

#[test]
fn ctl_a_state_folder_in_use_is_refused_from_another_configuration() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let other = TestWatchdog::idle();
    let state = wd.path(".watchdog/state");
    other.configure(&format!("state = {state:?}"), &[probe("a", "mirror", &[])]);
    let said = other.cli(&["run"]).with_code(73);
    assert!(said.stderr.contains(&wd.keeper().pid.to_string()), "{said}");
}

#[test]
fn ctl_a_stale_socket_file_is_no_hindrance() {
    let mut wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let socket = control_socket(&wd);
    wd.kill_keeper();
    if !socket.exists() {
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket file nobody listens at"));
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("a file of ours");
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
}

fn control_socket(wd: &TestWatchdog) -> PathBuf {
    wd.path(".watchdog/run/watchdog.sock")
}
