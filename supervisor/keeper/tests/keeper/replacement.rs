//! The core's program, replaced by another; and cores that can't start.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use watchdog_keeper::protocol::{
    CoreEnd, CoreFailure, ExitStatus, FailedStep, FromKeeper, Refusal, ToKeeper,
};

use crate::stage::{Core, Stage, sh};

/// Another file of the same program.
fn copy(stage: &Stage, name: &str) -> PathBuf {
    let path = stage.path(name);
    fs::copy(env!("CARGO_BIN_EXE_keeper-testbed"), &path).unwrap();
    path
}

fn executable(core: &Core) -> String {
    fs::read_link(format!("/proc/{}/exe", core.pid())).unwrap().display().to_string()
}

/// Asks for another program, and leaves.
fn replace(core: Core, program: &Path, ready_within_ms: u64) {
    let program = File::open(program).unwrap();
    core.send(&ToKeeper::Replace { label: b"label".to_vec(), ready_within_ms }, &[program.as_fd()]);
    core.die();
}

/// A minute: longer than a busy machine takes.
const LONG: u64 = 60_000;

fn replaced(core: &mut Core) -> (u64, Option<CoreEnd>) {
    let told = core.hand_over().replaced;
    let [FromKeeper::Replaced { label, core_generation, undone }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(label, b"label");
    (*core_generation, undone.clone())
}

#[test]
fn another_program_runs_once_the_core_has_ended_and_stays_when_it_is_ready() {
    let (stage, mut core) = Stage::with_core();
    core.spawned(&sh("a", "sleep 1000"), &[]);
    let program = copy(&stage, "newer");
    replace(core, &program, LONG);
    let mut core = stage.next_core();
    assert_eq!(replaced(&mut core), (2, None));
    assert_eq!(executable(&core), program.display().to_string());
    core.send(&ToKeeper::Ready, &[]);
    core.orphans(); // done when this is answered
    // From here on it is the program, and also when its path leads elsewhere.
    fs::remove_file(&program).unwrap();
    core.die();
    let mut core = stage.next_core();
    assert_eq!(replaced(&mut core), (2, None));
    assert_eq!(executable(&core), format!("{} (deleted)", program.display()));
    stage.finish(core);
}

#[test]
fn what_is_not_ready_in_time_is_killed_and_the_program_of_before_runs_again() {
    let (stage, core) = Stage::with_core();
    let before = executable(&core);
    replace(core, &copy(&stage, "newer"), 200);
    let mut late = stage.next_core();
    late.hand_over();
    let mut core = stage.next_core();
    let (generation, undone) = replaced(&mut core);
    assert_eq!((generation, undone.map(|end| end.how)), (3, Some(CoreFailure::Late)));
    assert_eq!(executable(&core), before);
    assert!(!Path::new(&format!("/proc/{}", late.pid())).exists());
    stage.finish(core);
}

/// A folder of the version 1 freezer: what is in it survives even SIGKILL until it is thawed, as what waits for a disk
/// does.
struct Freezer(PathBuf);

impl Freezer {
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_it = |line: &&str| line.contains(" - cgroup ") && line.ends_with("freezer");
        let root = mounts.lines().find(is_it)?.split(' ').nth(4)?;
        let path = Path::new(root).join(format!("keeper-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn set(&self, state: &str) {
        fs::write(self.0.join("freezer.state"), state).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set("THAWED");
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn one_that_does_not_even_die_is_told_and_no_other_starts_before_it_has() {
    let Some(freezer) = Freezer::make() else {
        return eprintln!("no freezer of version 1 to write to: not tried");
    };
    let (stage, core) = Stage::with_core();
    replace(core, &copy(&stage, "newer"), 1000);
    let stuck = stage.next_core();
    fs::write(freezer.0.join("cgroup.procs"), stuck.pid().to_string()).unwrap();
    freezer.set("FROZEN");
    let said = stage.until_said(3);
    assert!(said.contains(&format!("the core does not die (pid {})", stuck.pid())), "{said}");
    assert!(Path::new(&format!("/proc/{}", stuck.pid())).exists());
    freezer.set("THAWED");
    let mut core = stage.next_core();
    let (generation, undone) = replaced(&mut core);
    assert_eq!((generation, undone.map(|end| end.how)), (3, Some(CoreFailure::Late)));
    assert!(!Path::new(&format!("/proc/{}", stuck.pid())).exists());
    stage.finish(core);
}

#[test]
fn what_ends_before_it_is_ready_is_told_with_its_last_words() {
    let (stage, core) = Stage::with_core();
    let before = executable(&core);
    // It takes the core's argument for a file, and there is none.
    replace(core, Path::new("/bin/ls"), LONG);
    let mut core = stage.next_core();
    let (generation, undone) = replaced(&mut core);
    let undone = undone.unwrap();
    assert_eq!((generation, &undone.how), (3, &CoreFailure::Ended(ExitStatus::Code(2))));
    let words = String::from_utf8(undone.last_words).unwrap();
    assert!(words.contains("core") && words.ends_with('\n'), "{words:?}");
    assert!(stage.said().contains(&words), "{}", stage.said());
    assert_eq!(executable(&core), before);
    // The same to the next one; but who was the first to be told is known.
    core.die();
    let mut core = stage.next_core();
    assert_eq!(replaced(&mut core).0, 3);
    stage.finish(core);
}

#[test]
fn what_can_not_run_is_told_as_a_step_that_failed() {
    let (stage, core) = Stage::with_core();
    replace(core, Path::new("/etc/passwd"), LONG);
    let mut core = stage.next_core();
    let (_, undone) = replaced(&mut core);
    let expected = CoreFailure::NotStarted { step: FailedStep::Exec, errno: libc::EACCES };
    assert_eq!(undone.unwrap().how, expected);
    stage.finish(core);
}

#[test]
fn a_replacement_without_a_program_is_refused() {
    let (stage, mut core) = Stage::with_core();
    core.send(&ToKeeper::Replace { label: b"label".to_vec(), ready_within_ms: 1 }, &[]);
    let refusal = core.until("Refused", |message, _| match message {
        FromKeeper::Refused(refusal) => Some(refusal),
        _ => None,
    });
    assert_eq!(refusal, Refusal::Descriptors { name: b"label".to_vec(), arrived: 0 });
    stage.finish(core);
}

#[test]
fn the_core_runs_the_same_file_whatever_its_path_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testbed");
    fs::copy(env!("CARGO_BIN_EXE_keeper-testbed"), &path).unwrap();
    let mut command = Command::new(&path);
    command.arg("keeper");
    let stage = Stage::start_with(command);
    let mut core = stage.next_core();
    core.hand_over();
    let other = folder.path().join("other");
    fs::copy("/bin/false", &other).unwrap();
    fs::rename(other, &path).unwrap();
    core.die();
    let mut core = stage.next_core();
    assert_eq!(core.hand_over().hello.core_generation, 2);
    stage.finish(core);
}

#[test]
fn after_five_that_could_not_start_the_next_is_told_to_be_content_with_little() {
    let (stage, mut core) = Stage::with_core();
    for _ in 0..5 {
        core.die();
        core = stage.next_core();
        let is_safe = arguments(&core).ends_with("--safe\0");
        let told = core.hand_over().safe;
        assert_eq!(told.is_some(), is_safe, "{told:?}");
        if let Some(FromKeeper::Safe { ends, last }) = told {
            assert_eq!(ends, 5);
            let killed = ExitStatus::Signal { signal: libc::SIGKILL, core_dumped: false };
            assert_eq!(last.how, CoreFailure::Ended(killed));
            // Another program is tried as a whole one, and when it is no better this one comes back.
            replace(core, Path::new("/bin/false"), LONG);
            core = stage.next_core();
            assert!(arguments(&core).ends_with("--safe\0"));
            core.hand_over();
            return stage.finish(core);
        }
    }
    panic!("the sixth core is a whole one: {}", arguments(&core));
}

fn arguments(core: &Core) -> String {
    fs::read_to_string(format!("/proc/{}/cmdline", core.pid())).unwrap()
}
