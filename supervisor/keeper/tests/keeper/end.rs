//! How children end, and what they leave.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use watchdog_keeper::protocol::{Attach, ExitStatus, FromKeeper, ToKeeper, Whom};
use watchdog_protocol::Incarnation;

use crate::stage::{Core, Stage, line, name, sh};

pub(crate) fn kill_group(service: &str, incarnation: Incarnation) -> ToKeeper {
    ToKeeper::Signal { service: name(service), incarnation, signal: libc::SIGKILL, whom: Whom::Group }
}

pub(crate) fn acknowledge(service: &str) -> ToKeeper {
    ToKeeper::AckExit { service: name(service), incarnation: Incarnation::FIRST }
}

fn reaped(core: &mut Core, orphan: u32) {
    core.until("OrphanReaped", |message, _| match message {
        FromKeeper::OrphanReaped { pid } if pid == orphan => Some(()),
        _ => None,
    });
    assert!(!Path::new(&format!("/proc/{orphan}")).exists());
}

#[test]
fn an_exit_code_is_reported() {
    let (stage, mut core) = Stage::with_core();
    let child = core.spawned(&sh("a", "exit 42"), &[]);
    let report = core.exited("a");
    assert_eq!((report.pid, report.status), (child.pid, ExitStatus::Code(42)));
    assert_eq!(report.orphans, [0_u32; 0]);
    assert!(report.usage.max_rss_kib > 0);
    stage.finish(core);
}

#[test]
fn a_signal_reaches_the_incarnation_it_is_meant_for_and_is_reported_as_its_end() {
    let (stage, mut core) = Stage::with_core();
    core.spawned(&sh("a", "sleep 1000"), &[]);
    core.send(&kill_group("a", Incarnation::FIRST.next()), &[]); // nobody
    core.send(
        &ToKeeper::Signal {
            service: name("a"),
            incarnation: Incarnation::FIRST,
            signal: libc::SIGTERM,
            whom: Whom::Leader,
        },
        &[],
    );
    let status = core.exited("a").status;
    assert_eq!(status, ExitStatus::Signal { signal: libc::SIGTERM, core_dumped: false });
    stage.finish(core);
}

#[test]
fn a_signal_sent_right_behind_the_request_is_not_lost() {
    let (stage, mut core) = Stage::with_core();
    core.spawn(&sh("a", "sleep 1000"), &[]);
    core.send(&kill_group("a", Incarnation::FIRST), &[]);
    let status = core.exited("a").status;
    assert_eq!(status, ExitStatus::Signal { signal: libc::SIGKILL, core_dumped: false });
    stage.finish(core);
}

#[test]
fn an_end_is_told_to_every_core_until_one_acknowledges_it() {
    let (stage, mut core) = Stage::with_core();
    core.spawned(&sh("a", "exit 5"), &[]);
    let report = core.exited("a");
    for _ in 0..2 {
        core.die();
        core = stage.next_core();
        assert_eq!(core.hand_over().ends, [FromKeeper::Exited(report.clone())]);
    }
    core.spawn(&sh("a", "exit 5"), &[]);
    assert_eq!(core.exited("a"), report, "a repeated request gets the end, not another process");
    core.send(&acknowledge("a"), &[]);
    core.orphans(); // it is done when this is answered
    core.die();
    let mut core = stage.next_core();
    assert_eq!(core.hand_over().ends, []);
    stage.finish(core);
}

#[test]
fn an_end_while_there_is_no_core_is_told_to_the_next() {
    let (stage, mut core) = Stage::with_core();
    let (read, write) = std::io::pipe().unwrap();
    core.spawned(&sh("a", "read line; exit 9").attach(Attach::Child(0)), &[read.as_fd()]);
    drop(read);
    core.die();
    drop(write); // end of file for `read`
    let mut core = stage.next_core();
    let told = core.hand_over();
    let mut ends = told.ends;
    if ends.is_empty() {
        // The core was faster than the shell.
        ends.push(FromKeeper::Exited(core.exited("a")));
    }
    let [FromKeeper::Exited(report)] = &ends[..] else { panic!("{ends:?}") };
    assert!(matches!(report.status, ExitStatus::Code(9)), "{report:?}");
    stage.finish(core);
}

#[test]
fn the_group_of_a_leader_dies_with_it() {
    let (stage, mut core) = Stage::with_core();
    let (mut read, write) = std::io::pipe().unwrap();
    let script = "trap '' TERM HUP; sleep 1000 & echo $!; exit 0";
    core.spawned(&sh("a", script).attach(Attach::Child(1)), &[write.as_fd()]);
    let member: u32 = line(&mut read).parse().unwrap();
    core.exited("a");
    core.until_no_orphans(); // it became one when its parent died
    assert!(!Path::new(&format!("/proc/{member}")).exists());
    stage.finish(core);
}

#[test]
fn a_grandchild_that_left_its_session_is_adopted_listed_and_reaped() {
    let (stage, mut core) = Stage::with_core();
    let (report, orphan) = core.leaves_an_orphan("a");
    assert_eq!(report.orphans, [orphan]);
    assert_eq!(core.orphans(), [orphan]);

    core.die();
    let mut core = stage.next_core();
    core.hand_over();
    assert_eq!(core.orphans(), [orphan], "a new core is no orphan, and finds the old ones");

    let own = core.pid();
    for pid in [report.pid, stage.pid(), own, 1] {
        core.send(&ToKeeper::SignalOrphan { pid, signal: libc::SIGKILL }, &[]);
    }
    core.send(&ToKeeper::SignalOrphan { pid: orphan, signal: libc::SIGKILL }, &[]);
    reaped(&mut core, orphan);
    assert_eq!(core.orphans(), [0_u32; 0]);
    stage.finish(core);
}

#[test]
fn an_orphan_takes_the_place_of_a_process_that_has_ended_and_its_own_end_is_told() {
    let (stage, mut core) = Stage::with_core();
    let (report, orphan) = core.leaves_an_orphan("a");
    let incarnation = report.incarnation;
    let adopt = |pid| ToKeeper::Adopt { service: name("a"), incarnation, pid };
    // Nobody's child: the end is told again.
    core.send(&adopt(1), &[]);
    assert_eq!(core.exited("a"), report);
    core.send(&adopt(orphan), &[]);
    let child = core.until("Spawned", |message, descriptors| match message {
        FromKeeper::Spawned(child) => Some((child, descriptors.len())),
        _ => None,
    });
    assert_eq!((child.0.pid, child.0.incarnation, child.1), (orphan, incarnation, 1));
    assert_eq!(core.orphans(), [0_u32; 0]);
    // The next core finds it as the service's process, and no end.
    core.die();
    let mut core = stage.next_core();
    let told = core.hand_over();
    assert_eq!(told.hello.children.iter().map(|child| child.pid).collect::<Vec<_>>(), [orphan]);
    core.send(&kill_group("a", incarnation), &[]);
    let end = core.exited("a");
    assert_eq!(
        (end.pid, end.status),
        (orphan, ExitStatus::Signal { signal: libc::SIGKILL, core_dumped: false })
    );
    stage.finish(core);
}

#[test]
fn a_crowd_of_orphans_leaves_no_zombie() {
    let (stage, mut core) = Stage::with_core();
    // Nobody reads meanwhile what the keeper says of them.
    let script = "i=0; while [ $i -lt 400 ]; do (setsid true &); i=$((i+1)); done";
    core.spawned(&sh("a", script), &[]);
    core.exited("a");
    core.until_no_orphans();
    stage.finish(core);
}

#[test]
fn children_are_reaped_by_the_keeper_also_when_it_was_started_to_ignore_them() {
    let testbed = env!("CARGO_BIN_EXE_keeper-testbed");
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("trap '' CHLD; exec '{testbed}' keeper"));
    let stage = Stage::start_with(command);
    let mut core = stage.next_core();
    core.hand_over();
    core.spawned(&sh("a", "exit 6"), &[]);
    assert_eq!(core.exited("a").status, ExitStatus::Code(6));
    stage.finish(core);
}
