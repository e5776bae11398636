//! What a core finds that its predecessor left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::stat::fstat;
use watchdog_keeper::protocol::{MAX_DESCRIPTORS, ToKeeper, VERSION};
use watchdog_keeper::start_time;

use crate::stage::{Stage, sh};

/// Descriptors that can be told apart: pipes have inodes of their own.
fn pipes(count: usize) -> Vec<OwnedFd> {
    let pipes = (0..count.div_ceil(2)).map(|_| std::io::pipe().unwrap());
    pipes.flat_map(|(read, write)| [OwnedFd::from(read), OwnedFd::from(write)]).take(count).collect()
}

/// What a descriptor is, whatever its number: inode, and which end.
fn identity(descriptor: &OwnedFd) -> (u64, i32) {
    let end = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFL).unwrap() & libc::O_ACCMODE;
    (fstat(descriptor).unwrap().st_ino, end)
}

fn identities(descriptors: &[OwnedFd]) -> Vec<(u64, i32)> {
    descriptors.iter().map(identity).collect()
}

fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

#[test]
fn the_first_core_is_told_who_its_keeper_is() {
    let stage = Stage::start();
    let mut core = stage.next_core();
    let told = core.hand_over();
    assert_eq!(told.hello.version, VERSION);
    assert_eq!(told.hello.pid, stage.pid());
    assert_eq!(told.hello.start_time, start_time(stage.pid()).unwrap());
    assert_eq!(told.hello.core_generation, 1);
    assert_eq!(told.hello.children, []);
    assert!(told.stored.is_empty() && told.ends.is_empty());
    let open_files = told.hello.original_limits.iter().find(|limit| limit.resource == libc::RLIMIT_NOFILE);
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(open_files.map(|limit| (limit.soft, limit.hard)), Some((soft, hard)));
    stage.finish(core);
}

#[test]
fn the_core_leads_its_own_session_and_finds_nothing_but_its_channel() {
    let (stage, core) = Stage::with_core();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", core.pid())).unwrap();
    let pid = core.pid().to_string();
    assert_eq!(stat.rsplit(')').next().unwrap().split(' ').skip(3).take(2).collect::<Vec<_>>(), [&pid, &pid]);
    let environ = std::fs::read_to_string(format!("/proc/{}/environ", core.pid())).unwrap();
    assert_eq!(environ, "TESTBED=1\0WATCHDOG_KEEPER=3\0");
    stage.finish(core);
}

#[test]
fn a_new_core_is_told_who_lives() {
    let (stage, mut core) = Stage::with_core();
    let mut living: Vec<_> =
        ["c", "a", "b"].iter().map(|service| core.spawned(&sh(service, "sleep 1000"), &[])).collect();
    let epoch = {
        core.die();
        core = stage.next_core();
        let hello = core.hand_over().hello;
        assert_eq!(hello.core_generation, 2);
        living.sort_by(|one, other| one.service.cmp(&other.service));
        assert_eq!(hello.children, living);
        hello.epoch
    };
    core.die();
    core = stage.next_core();
    let hello = core.hand_over().hello;
    assert_eq!((hello.core_generation, hello.epoch), (3, epoch));
    let said = stage.said();
    assert!(said.starts_with("watchdog keeper: core died (signal 9), starting another\n"), "{said}");
    stage.finish(core);
}

#[test]
fn stored_descriptors_come_back_in_their_order_a_hundred_a_packet() {
    let (stage, core) = Stage::with_core();
    let mut expected = Vec::new();
    for (name, count) in [("a", 1), ("b", 100), ("c", 99), ("d", 2), ("e", 57), ("f", 100)] {
        let descriptors = pipes(count);
        core.send(&ToKeeper::Store { name: name.into() }, &borrowed(&descriptors));
        expected.push((name.as_bytes().to_vec(), descriptors));
    }
    core.die();
    let mut core = stage.next_core();
    let told = core.hand_over();
    assert!(told.most_in_a_packet <= MAX_DESCRIPTORS);
    assert_eq!(told.stored.len(), expected.len());
    for ((name, found), (expected_name, sent)) in told.stored.iter().zip(&expected) {
        assert_eq!(name, expected_name);
        assert_eq!(identities(found), identities(sent), "{name:?}");
    }
    stage.finish(core);
}

#[test]
fn what_was_replaced_or_dropped_does_not_come_back_and_is_closed() {
    let (stage, mut core) = Stage::with_core();
    let (kept, replaced, dropped) = (pipes(3), pipes(2), pipes(4));
    core.orphans();
    let before = stage.open_descriptors();
    core.send(&ToKeeper::Store { name: b"a".to_vec() }, &borrowed(&replaced));
    core.send(&ToKeeper::Store { name: b"b".to_vec() }, &borrowed(&dropped));
    core.send(&ToKeeper::Store { name: b"a".to_vec() }, &borrowed(&kept));
    core.send(&ToKeeper::Drop { name: b"b".to_vec() }, &[]);
    core.send(&ToKeeper::Drop { name: b"never stored".to_vec() }, &[]);
    core.orphans(); // all is done when this is answered
    assert_eq!(stage.open_descriptors(), before + 3);
    core.die();
    let mut core = stage.next_core();
    let told = core.hand_over();
    assert_eq!(told.stored.len(), 1);
    assert_eq!(told.stored[0].0, b"a");
    assert_eq!(identities(&told.stored[0].1), identities(&kept));
    stage.finish(core);
}

#[test]
fn what_a_core_asked_for_right_before_its_death_is_done() {
    let (stage, core) = Stage::with_core();
    let descriptors = pipes(1);
    for number in 0..100_u8 {
        core.send(&ToKeeper::Store { name: vec![number] }, &borrowed(&descriptors));
    }
    core.die();
    let mut core = stage.next_core();
    assert_eq!(core.hand_over().stored.len(), 100);
    stage.finish(core);
}

#[test]
fn a_core_that_closes_its_channel_and_stays_is_killed() {
    let (stage, mut core) = Stage::with_core();
    core.close();
    let mut next = stage.next_core();
    assert_eq!(next.hand_over().hello.core_generation, 2);
    let said = stage.said();
    assert!(said.contains(&format!("the core does not leave, killing it (pid {})", core.pid())), "{said}");
    stage.finish(next);
}

#[test]
fn an_unread_hand_over_does_not_stop_the_keeper() {
    let (stage, core) = Stage::with_core();
    let descriptors = pipes(100);
    for number in 0..20_u8 {
        core.send(&ToKeeper::Store { name: vec![number] }, &borrowed(&descriptors));
    }
    core.die();
    let core = stage.next_core(); // reads nothing
    for _ in 0..2000 {
        core.send(&ToKeeper::Orphans, &[]);
    }
    core.die();
    let mut core = stage.next_core();
    assert_eq!(core.hand_over().stored.len(), 20);
    stage.finish(core);
}

#[test]
fn a_process_of_the_same_user_can_not_open_the_keeper() {
    let nobody = 65534;
    let folder = tempfile::tempdir().unwrap();
    let testbed = folder.path().join("testbed");
    std::fs::copy(env!("CARGO_BIN_EXE_keeper-testbed"), &testbed).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(testbed);
    command.arg("keeper").uid(nobody).gid(nobody);
    let stage = Stage::start_with(command);
    let mut core = stage.next_core();
    core.hand_over();
    // The kernel gives what is not dumpable to root. This core did not ask for it, a real one does.
    let owner = |pid| std::fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    assert_eq!((owner(stage.pid()), owner(core.pid())), (0, nobody));
    stage.finish(core);
}
