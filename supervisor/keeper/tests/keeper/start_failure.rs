//! Each way in which a start fails, by name.

use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use watchdog_keeper::failure::explain;
use watchdog_keeper::protocol::{Attach, ChildStep, FailedStep, FromKeeper, Limit, SpawnRequest};

use crate::stage::{Core, Stage, program, sh};

fn file(stage: &Stage, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = stage.path(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn failure(core: &mut Core, request: &SpawnRequest) -> (FailedStep, i32) {
    core.spawn(request, &[]);
    failed(core)
}

fn failed(core: &mut Core) -> (FailedStep, i32) {
    core.until("SpawnFailed", |message, _| match message {
        FromKeeper::SpawnFailed { step, errno, .. } => Some((step, errno)),
        FromKeeper::Spawned(child) => panic!("{} runs", child.service),
        _ => None,
    })
}

fn said(core: &mut Core, service: &str, path: &Path) -> String {
    let (step, errno) = failure(core, &program(service, path));
    let failure = explain(path, &step, errno);
    format!("{}: {failure}", failure.step())
}

#[test]
fn each_reason_why_a_program_does_not_run_is_another_message() {
    let (stage, mut core) = Stage::with_core();

    let missing = stage.path("missing");
    assert_eq!(said(&mut core, "a", &missing), format!("exec: there is no file {missing:?}"));

    let script = file(&stage, "script", "#!/no/such/shell\n", 0o755);
    assert_eq!(
        said(&mut core, "b", &script),
        format!("exec: {script:?} needs the interpreter \"/no/such/shell\", which is not there"),
    );

    let plain = file(&stage, "plain", "#!/bin/sh\n", 0o644);
    assert_eq!(said(&mut core, "c", &plain), format!("exec: {plain:?} is not executable (mode 644)"));

    let text = file(&stage, "text", "hello\n", 0o755);
    assert_eq!(
        said(&mut core, "d", &text),
        format!("exec: {text:?} has a wrong format: no binary of this machine, no script with a `#!` line"),
    );

    let busy = stage.path("busy");
    std::fs::copy("/bin/true", &busy).unwrap();
    let writer = OpenOptions::new().append(true).open(&busy).unwrap();
    assert_eq!(
        said(&mut core, "e", &busy),
        format!("exec: {busy:?} is busy: somebody has it open for writing"),
    );
    drop(writer);

    let folder = stage.folder.path();
    assert_eq!(said(&mut core, "f", folder), format!("exec: {folder:?} is no regular file"));
    stage.finish(core);
}

#[test]
fn a_step_that_fails_is_named_with_what_it_concerns() {
    let (stage, mut core) = Stage::with_core();

    let missing = ChildStep::change_dir(Path::new("/no/such/folder"));
    let request = program("a", "/bin/true").step(missing.clone());
    assert_eq!(failure(&mut core, &request), (FailedStep::Child(missing), libc::ENOENT));

    let above = ChildStep::Rlimit(Limit { resource: libc::RLIMIT_NOFILE, soft: 10, hard: 5 });
    let request = program("b", "/bin/true").step(above.clone());
    assert_eq!(failure(&mut core, &request), (FailedStep::Child(above), libc::EINVAL));

    let nobody = ChildStep::Ids { uid: 65534, gid: 65534, groups: Vec::new() };
    let root = ChildStep::Ids { uid: 0, gid: 0, groups: Vec::new() };
    // A descriptor that is joined before shifts no step's name.
    let file = File::create(stage.path("procs")).unwrap();
    let request = program("c", "/bin/true").step(nobody).step(root.clone()).attach(Attach::Join);
    core.spawn(&request, &[file.as_fd()]);
    assert_eq!(failed(&mut core), (FailedStep::Child(root), libc::EPERM));

    let twice = program("d", "/bin/true").step(ChildStep::SetSid);
    assert_eq!(failure(&mut core, &twice), (FailedStep::Child(ChildStep::SetSid), libc::EPERM));

    let read_only = File::open("/dev/null").unwrap();
    core.spawn(&program("e", "/bin/true").attach(Attach::PidRecord), &[read_only.as_fd()]);
    assert_eq!(failed(&mut core), (FailedStep::PidRecord, libc::EBADF));

    core.spawn(&program("f", "/bin/true").attach(Attach::Cgroup), &[read_only.as_fd()]);
    assert_eq!(failed(&mut core), (FailedStep::CloneIntoCgroup, libc::EBADF));

    core.spawn(&program("g", "/bin/true").attach(Attach::Join), &[read_only.as_fd()]);
    assert_eq!(failed(&mut core), (FailedStep::Join, libc::EBADF));
    stage.finish(core);
}

#[test]
fn an_impossible_request_is_refused_before_anything_is_made() {
    let (stage, mut core) = Stage::with_core();
    let unchanged = ChildStep::Ids { uid: u32::MAX, gid: 0, groups: Vec::new() };
    let relative =
        SpawnRequest::new("a".parse().unwrap(), watchdog_protocol::Incarnation::FIRST, Path::new("true"));
    let requests = [
        relative,
        program("b", "/bin/true").arg("a\0b"),
        program("c", "/bin/true").attach(Attach::Child(1)),
        program("d", "/bin/true").step(unchanged),
    ];
    for request in requests {
        assert_eq!(failure(&mut core, &request), (FailedStep::Request, libc::EINVAL), "{request:?}");
    }
    let null = File::open("/dev/null").unwrap();
    for (service, attach) in [("e", [Attach::Child(64), Attach::Child(1)]), ("f", [Attach::Child(4); 2])] {
        let request = attach.into_iter().fold(program(service, "/bin/true"), SpawnRequest::attach);
        core.spawn(&request, &[null.as_fd(), null.as_fd()]);
        assert_eq!(failed(&mut core), (FailedStep::Request, libc::EINVAL), "{request:?}");
    }
    stage.finish(core);
}

#[test]
fn more_descriptors_than_the_window_holds_are_refused_and_the_next_start_works() {
    let (stage, mut core) = Stage::with_core();
    let null = File::open("/dev/null").unwrap();
    let numbers = (0..64).map(Attach::Child);
    let request = numbers.fold(program("a", "/bin/true"), SpawnRequest::attach);
    core.spawn(&request, &vec![null.as_fd(); 64]);
    assert_eq!(failed(&mut core), (FailedStep::Stage, libc::EMFILE));
    core.spawned(&program("b", "/bin/true"), &[]);
    core.exited("b");
    stage.finish(core);
}

/// Opening a file waits while another process has a lease on it: so exec hangs, for as long as the kernel lets it.
#[expect(unsafe_code, reason = "leases have no safe wrapper")]
fn hold_up_exec(program: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).open(program).unwrap();
    const F_SETSIG: libc::c_int = 10; // the kernel's, unknown to libc
    // SAFETY: numbers only. The signal is one whose default is to be ignored.
    unsafe {
        assert_eq!(libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG), 0);
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK), 0);
    }
    file
}

#[test]
fn a_child_that_hangs_before_exec_holds_up_nobody_and_is_killed() {
    let (stage, mut core) = Stage::with_core();
    let path = stage.path("slow");
    std::fs::copy("/bin/true", &path).unwrap();
    let lease = hold_up_exec(&path);
    core.spawn(&program("slow", &path), &[]);
    // Another one starts and ends meanwhile: the answer to the first would have come before.
    core.spawned(&sh("quick", "exit 3"), &[]);
    core.exited("quick");
    assert_eq!(failed(&mut core), (FailedStep::Exec, libc::ETIMEDOUT));
    drop(lease);
    stage.finish(core);
}

#[test]
fn a_child_that_hangs_before_exec_holds_up_none_of_those_that_were_born_beside_it() {
    const PAIRS: usize = 20;
    let (stage, mut core) = Stage::with_core();
    let path = stage.path("slow");
    std::fs::copy("/bin/true", &path).unwrap();
    let lease = hold_up_exec(&path);
    // At once: each has the table of the one before it in its own, for a moment.
    for pair in 0..PAIRS {
        core.spawn(&sh(&format!("quick-{pair}"), "exec sleep 1000"), &[]);
        core.spawn(&program(&format!("slow-{pair}"), &path), &[]);
    }
    for _ in 0..PAIRS {
        core.until("Spawned", |message, _| match message {
            FromKeeper::Spawned(child) => child.service.as_str().starts_with("quick").then_some(()),
            FromKeeper::SpawnFailed { service, .. } => panic!("{service} was given up before all others ran"),
            _ => None,
        });
    }
    for _ in 0..PAIRS {
        assert_eq!(failed(&mut core), (FailedStep::Exec, libc::ETIMEDOUT));
    }
    drop(lease);
    stage.finish(core);
}

#[test]
fn a_failed_start_is_told_again_until_it_is_acknowledged() {
    let (stage, mut core) = Stage::with_core();
    let request = program("a", "/no/such/program");
    let first = failure(&mut core, &request);
    assert_eq!(failure(&mut core, &request), first, "a repeat gets the first answer");
    core.die();
    let mut core = stage.next_core();
    let told = core.hand_over().ends;
    assert!(matches!(&told[..], [FromKeeper::SpawnFailed { step: FailedStep::Exec, .. }]), "{told:?}");
    core.send(&crate::end::acknowledge("a"), &[]);
    core.orphans(); // it is done when this is answered
    core.die();
    let mut core = stage.next_core();
    assert_eq!(core.hand_over().ends, []);
    stage.finish(core);
}

/// A cgroup of our own, where this machine has that tree and lets us.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Of version 2.
    fn make(name: &str) -> Option<Self> {
        Self::make_in(name, |line| line.contains(" - cgroup2 "))
    }

    /// Of version 1, in the hierarchy of `pids`.
    fn make_v1(name: &str) -> Option<Self> {
        let is_pids = |line: &str| line.rsplit([' ', ',']).any(|option| option == "pids");
        Self::make_in(name, |line| line.contains(" - cgroup ") && is_pids(line))
    }

    fn make_in(name: &str, is_wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| is_wanted(line))?.split(' ').nth(4)?;
        let path = Path::new(root).join(format!("keeper-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.freeze"), "0");
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_child_is_born_in_its_cgroup() {
    let Some(cgroup) = Cgroup::make("born") else {
        return eprintln!("no cgroup2 tree to write to: not tried");
    };
    let (stage, mut core) = Stage::with_core();
    let folder = File::open(&cgroup.0).unwrap();
    let child = core.spawned(&sh("a", "sleep 1000").attach(Attach::Cgroup), &[folder.as_fd()]);
    let procs = std::fs::read_to_string(cgroup.0.join("cgroup.procs")).unwrap();
    assert_eq!(procs.lines().next(), Some(child.pid.to_string().as_str()));
    stage.finish(core);
}

#[test]
fn a_child_joins_a_v1_cgroup_before_it_gives_up_the_right_to() {
    let Some(cgroup) = Cgroup::make_v1("joined") else {
        return eprintln!("no cgroup1 tree to write to: not tried");
    };
    let (stage, mut core) = Stage::with_core();
    let procs = OpenOptions::new().write(true).open(cgroup.0.join("cgroup.procs")).unwrap();
    let (mut said, write) = std::io::pipe().unwrap();
    let ids = ChildStep::Ids { uid: 65534, gid: 65534, groups: Vec::new() };
    // What it starts is in there too.
    let request = sh("a", "cat /proc/self/cgroup; echo end").step(ids).step(ChildStep::NoNewPrivs);
    let request = request.attach(Attach::Join).attach(Attach::Child(1));
    core.spawned(&request, &[procs.as_fd(), write.as_fd()]);
    let name = cgroup.0.file_name().unwrap().to_str().unwrap();
    let mut place = None;
    while place.is_none() {
        let line = crate::stage::line(&mut said);
        assert_ne!(line, "end", "it is not in {name}");
        place = line.contains(":pids:").then_some(line);
    }
    assert!(place.unwrap().ends_with(name));
    core.exited("a");
    stage.finish(core);
}

#[test]
fn a_child_that_is_frozen_at_birth_holds_up_nobody_and_is_given_up() {
    let Some(cgroup) = Cgroup::make("frozen") else {
        return eprintln!("no cgroup2 tree to write to: not tried");
    };
    std::fs::write(cgroup.0.join("cgroup.freeze"), "1").unwrap();
    let (stage, mut core) = Stage::with_core();
    let folder = File::open(&cgroup.0).unwrap();
    core.spawn(&program("a", "/bin/true").attach(Attach::Cgroup), &[folder.as_fd()]);
    // The answer to the first would have come before.
    core.spawned(&program("b", "/bin/true"), &[]);
    core.exited("b");
    assert_eq!(failed(&mut core), (FailedStep::Unshare, libc::ETIMEDOUT));
    core.spawned(&program("c", "/bin/true"), &[]);
    core.exited("c");
    stage.finish(core);
}
