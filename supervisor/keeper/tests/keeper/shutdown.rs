//! The keeper's own end.

use std::process::Command;

use nix::sys::signal::Signal;
use watchdog_keeper::protocol::{FromKeeper, ToKeeper};

use crate::stage::{Core, Stage, sh};

fn signalled(core: &mut Core) -> i32 {
    core.until("Signalled", |message, _| match message {
        FromKeeper::Signalled { signal } => Some(signal),
        _ => None,
    })
}

#[test]
fn a_signal_to_the_keeper_is_a_request_to_the_core_and_to_its_successor() {
    let (stage, mut core) = Stage::with_core();
    stage.signal(Signal::SIGTERM);
    assert_eq!(signalled(&mut core), libc::SIGTERM);
    stage.signal(Signal::SIGINT);
    assert_eq!(signalled(&mut core), libc::SIGINT);
    core.die();
    let mut core = stage.next_core();
    core.hand_over();
    assert_eq!([signalled(&mut core), signalled(&mut core)], [libc::SIGTERM, libc::SIGINT]);
    stage.finish(core);
}

#[test]
fn at_the_end_nothing_is_left() {
    let (stage, mut core) = Stage::with_core();
    core.spawned(&sh("a", "trap '' TERM; sleep 1000"), &[]);
    let (_, orphan) = core.leaves_an_orphan("b");
    core.send(&ToKeeper::Finish { code: 3 }, &[]);
    core.die();
    assert_eq!(stage.exit_code(), 3);
    assert!(!std::path::Path::new(&format!("/proc/{orphan}")).exists());
}

#[test]
fn a_keeper_whose_core_can_not_start_says_why_and_ends_when_asked_twice() {
    let testbed = env!("CARGO_BIN_EXE_keeper-testbed");
    let mut command = Command::new(testbed);
    command.args(["keeper", "/etc/passwd"]);
    let stage = Stage::start_with(command);
    let said = stage.until_said(2);
    let expected = "watchdog keeper: cannot start a core: exec: \"/etc/passwd\" is not executable (mode 644)";
    assert_eq!(said.lines().next(), Some(expected));
    stage.signal(Signal::SIGTERM);
    // Signals of one kind that wait are one signal: two kinds.
    stage.signal(Signal::SIGINT);
    assert_eq!(stage.exit_code(), 1);
}
