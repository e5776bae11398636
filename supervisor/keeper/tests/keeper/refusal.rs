//! What a keeper does not do, and says so.

use std::fs::File;
use std::os::fd::AsFd;

use watchdog_keeper::protocol::{FromKeeper, MAX_DESCRIPTORS, Refusal, ToKeeper};

use crate::stage::{Core, Stage};

fn refused(core: &mut Core) -> Refusal {
    core.until("Refused", |message, _| match message {
        FromKeeper::Refused(refusal) => Some(refusal),
        _ => None,
    })
}

#[test]
fn a_packet_of_a_newer_core_is_answered_and_the_next_is_served() {
    let (stage, mut core) = Stage::with_core();
    let null = File::open("/dev/null").unwrap();
    core.orphans(); // what the start of the core needed is closed when this is answered
    let before = stage.open_descriptors();
    for bytes in [&[0, 99][..], &[7], &[1, 0, 0], &[0xff; 65_536], &[0; 70_000]] {
        core.send_bytes(bytes, &[null.as_fd()]);
        assert_eq!(refused(&mut core), Refusal::NotUnderstood, "{} bytes", bytes.len());
    }
    assert_eq!(core.orphans(), [0_u32; 0]);
    assert_eq!(stage.open_descriptors(), before);
    stage.finish(core);
}

#[test]
fn a_name_without_descriptors_or_with_too_many_is_refused_by_name() {
    let (stage, mut core) = Stage::with_core();
    let null = File::open("/dev/null").unwrap();
    core.send(&ToKeeper::Store { name: b"none".to_vec() }, &[]);
    assert_eq!(refused(&mut core), Refusal::Descriptors { name: b"none".to_vec(), arrived: 0 });
    core.send(&ToKeeper::Store { name: b"many".to_vec() }, &vec![null.as_fd(); MAX_DESCRIPTORS + 1]);
    assert_eq!(refused(&mut core), Refusal::Descriptors { name: b"many".to_vec(), arrived: 101 });
    core.die();
    let mut core = stage.next_core();
    assert!(core.hand_over().stored.is_empty());
    stage.finish(core);
}

#[test]
fn a_full_table_refuses_what_does_not_fit_and_keeps_what_it_has() {
    let testbed = env!("CARGO_BIN_EXE_keeper-testbed");
    let mut command = std::process::Command::new("/bin/sh");
    command.arg("-c").arg(format!("ulimit -n 300; exec '{testbed}' keeper"));
    let stage = Stage::start_with(command);
    let mut core = stage.next_core();
    core.hand_over();
    let null = File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); MAX_DESCRIPTORS];
    core.send(&ToKeeper::Store { name: b"a".to_vec() }, &many);
    core.send(&ToKeeper::Store { name: b"b".to_vec() }, &many);
    let Refusal::Descriptors { name, .. } = refused(&mut core) else { panic!("refused by name") };
    assert_eq!(name, b"b");
    core.die();
    let mut core = stage.next_core();
    let stored = core.hand_over().stored;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].1.len(), MAX_DESCRIPTORS);
    stage.finish(core);
}
