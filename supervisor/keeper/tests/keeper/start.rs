//! What a child is born with.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;

use watchdog_keeper::protocol::{Attach, ChildStep, FailedStep, FromKeeper, Limit, ToKeeper};
use watchdog_keeper::{PidRecord, start_time};
use watchdog_protocol::Incarnation;

use crate::stage::{Stage, program, sh};

#[test]
fn a_spawned_program_is_told_with_pid_start_time_and_pidfd() {
    let (stage, mut core) = Stage::with_core();
    let request = sh("a", "sleep 1000");
    core.spawn(&request, &[]);
    let (child, pidfds) = core.until("Spawned", |message, beside| match message {
        FromKeeper::Spawned(child) => Some((child, beside)),
        _ => None,
    });
    assert_eq!((child.service.as_str(), child.incarnation), ("a", Incarnation::FIRST));
    assert_eq!(child.start_time, start_time(child.pid).unwrap());
    assert_eq!(
        std::fs::read_link(format!("/proc/{}/exe", child.pid)).unwrap(),
        std::fs::canonicalize("/bin/sh").unwrap()
    );
    let own = pidfds[0].as_fd();
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&own)));
    assert!(info.unwrap().contains(&format!("Pid:\t{}\n", child.pid)));
    stage.finish(core);
}

#[test]
fn a_child_has_no_descriptor_but_those_attached() {
    let (stage, mut core) = Stage::with_core();
    let null = File::open("/dev/null").unwrap();
    // Plenty in the keeper, so that one that leaks would show.
    for number in 0..200_u8 {
        core.send(&ToKeeper::Store { name: vec![number] }, &[null.as_fd()]);
    }
    let (read, write) = std::io::pipe().unwrap();
    let request = program("a", "/bin/ls").arg("/proc/self/fd");
    let request = request.attach(Attach::Child(5)).attach(Attach::Child(63));
    let listing = {
        core.spawned(&request.clone().attach(Attach::Child(1)), &[null.as_fd(), null.as_fd(), write.as_fd()]);
        drop(write);
        std::io::read_to_string(read).unwrap()
    };
    let found: BTreeSet<u32> =
        listing.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect();
    // 3 is the folder that ls itself reads.
    assert_eq!(found, BTreeSet::from([0, 1, 2, 3, 5, 63]));
    core.exited("a");
    stage.finish(core);
}

#[test]
fn standard_descriptors_that_are_not_attached_are_null() {
    let (stage, mut core) = Stage::with_core();
    let links = core.output(sh("a", "readlink /proc/self/fd/0 /proc/self/fd/2"));
    assert_eq!(links, "/dev/null\n/dev/null\n");
    stage.finish(core);
}

#[test]
fn a_child_has_no_signal_blocked_ignored_or_pending() {
    let (stage, mut core) = Stage::with_core();
    let status = core.output(program("a", "/bin/cat").arg("/proc/self/status"));
    for field in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(field_of(&status, field), "0000000000000000", "{field}");
    }
    stage.finish(core);
}

fn field_of<'a>(status: &'a str, field: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {status}")).trim()
}

#[test]
fn a_child_leads_its_own_session_and_group() {
    let (stage, mut core) = Stage::with_core();
    let stat = core.output(program("a", "/bin/cat").arg("/proc/self/stat"));
    let fields: Vec<&str> = stat.split(' ').collect();
    let (pid, parent, group, session) = (fields[0], fields[3], fields[4], fields[5]);
    assert_eq!(parent, stage.pid().to_string());
    assert_eq!((group, session), (pid, pid));
    stage.finish(core);
}

#[test]
fn the_steps_are_in_force_in_their_order() {
    let (stage, mut core) = Stage::with_core();
    let limit = Limit { resource: libc::RLIMIT_NOFILE, soft: 100, hard: 200 };
    let ids = ChildStep::Ids { uid: 65534, gid: 65533, groups: vec![65531, 65532] };
    let request = program("a", "/bin/sh")
        .arg("-c")
        .arg("/bin/pwd; /bin/cat /proc/self/status /proc/self/limits; /usr/bin/nice")
        .step(ChildStep::change_dir(std::path::Path::new("/usr")))
        .step(ChildStep::Umask(0o027))
        .step(ChildStep::Nice(5))
        .step(ChildStep::Rlimit(limit))
        .step(ids)
        .step(ChildStep::NoNewPrivs);
    let output = core.output(request);
    assert_eq!(output.lines().next(), Some("/usr"));
    assert_eq!(field_of(&output, "Umask"), "0027");
    assert_eq!(field_of(&output, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(field_of(&output, "Gid"), "65533\t65533\t65533\t65533");
    assert_eq!(field_of(&output, "Groups"), "65531 65532");
    assert_eq!(field_of(&output, "NoNewPrivs"), "1");
    let files = output.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_ascii_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["100", "200"]);
    assert_eq!(output.lines().last(), Some("5"));
    stage.finish(core);
}

#[test]
fn arguments_and_environment_are_what_was_asked_also_when_they_fill_more_than_a_packet() {
    let (stage, mut core) = Stage::with_core();
    let long = "x".repeat(100_000);
    let request = program("a", "/bin/cat").arg("/proc/self/environ").env("A", "1").env("LONG", &long);
    assert_eq!(core.output(request), format!("A=1\0LONG={long}\0"));
    stage.finish(core);
}

#[test]
fn a_child_records_itself_before_exec() {
    let (stage, mut core) = Stage::with_core();
    let path = stage.path("pid");
    let file = File::create(&path).unwrap();
    let request = sh("a", "sleep 1000").attach(Attach::PidRecord);
    let child = core.spawned(&request, &[file.as_fd()]);
    let record = PidRecord::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    let expected = PidRecord { incarnation: child.incarnation, pid: child.pid, start_time: child.start_time };
    assert_eq!(record, expected);
    stage.finish(core);
}

#[test]
fn a_repeated_request_starts_nothing_and_gets_the_first_answer() {
    let (stage, mut core) = Stage::with_core();
    let request = sh("a", "sleep 1000");
    core.spawn(&request, &[]);
    core.spawn(&request, &[]);
    let first = core.spawned(&request, &[]);
    let again = core.spawned(&request, &[]);
    assert_eq!(first.pid, again.pid);
    assert_eq!(core.orphans(), [0_u32; 0]);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", stage.pid())).unwrap();
    let mut expected = [core.pid().to_string(), first.pid.to_string()];
    let mut children: Vec<&str> = children.split_ascii_whitespace().collect();
    expected.sort();
    children.sort_unstable();
    assert_eq!(children, expected);
    stage.finish(core);
}

#[test]
fn another_incarnation_is_refused_while_one_lives_and_started_afterwards() {
    let (stage, mut core) = Stage::with_core();
    let first = sh("a", "sleep 1000");
    let mut second = first.clone();
    second.incarnation = Incarnation::FIRST.next();
    core.spawned(&first, &[]);
    core.spawn(&second, &[]);
    let refused = core.until("a refusal", |message, _| match message {
        FromKeeper::SpawnFailed { incarnation, step, .. } => Some((incarnation, step)),
        _ => None,
    });
    assert_eq!(refused, (second.incarnation, FailedStep::AnotherLives(first.incarnation)));
    core.send(&crate::end::kill_group("a", first.incarnation), &[]);
    core.exited("a");
    assert_eq!(core.spawned(&second, &[]).incarnation, second.incarnation);
    stage.finish(core);
}

#[test]
fn starts_and_ends_leave_no_descriptor_in_the_keeper() {
    let (stage, mut core) = Stage::with_core();
    let mut round = |number: u64| {
        let mut request = program("a", "/bin/true");
        request.incarnation = Incarnation::from_stored(number);
        core.spawned(&request, &[]);
        core.exited("a");
        let mut missing = program("b", "/no/such/program");
        missing.incarnation = Incarnation::from_stored(number);
        core.spawn(&missing, &[]);
        core.until("SpawnFailed", |message, _| {
            matches!(message, FromKeeper::SpawnFailed { .. }).then_some(())
        });
        core.orphans(); // what the keeper closed after the message is closed now
        stage.open_descriptors()
    };
    let after_the_first = round(1);
    for number in 2..40 {
        assert_eq!(round(number), after_the_first, "round {number}");
    }
    stage.finish(core);
}
