use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use watchdog_protocol::Incarnation;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    runtime: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn make() -> Self {
        let place = Self { runtime: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() };
        begin(place.runtime.path(), None).unwrap();
        place
    }

    fn record(&self, name: &str, process: Identity) {
        let Identity { pid, start_time } = process;
        let record = PidRecord { incarnation: Incarnation::FIRST, pid: pid.cast_unsigned(), start_time };
        fs::write(self.runtime.path().join("pids").join(name), record.to_bytes()).unwrap();
    }

    fn end(&self, patience: Duration) -> Result<Vec<Leftover>, LeftoverError> {
        end(self.runtime.path(), self.state.path(), None, patience).map(|ended| ended.leftovers)
    }
}

/// A sleeper that is killed and reaped at the end.
struct Sleeper(Child);

impl Sleeper {
    fn start(change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        change(&mut command);
        Self(command.spawn().unwrap())
    }

    fn identity(&self) -> Identity {
        Identity::of(self.0.id().cast_signed()).unwrap()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn recorded_processes_are_ended_the_core_first_and_others_are_not() {
    let place = Place::make();
    let (mut core, mut service) = (Sleeper::start(|command| command), Sleeper::start(|command| command));
    let mut stranger = Sleeper::start(|command| command);
    place.record(CORE, core.identity());
    place.record("counter", service.identity());
    let names: Vec<_> = place.end(PATIENCE).unwrap().into_iter().map(|leftover| leftover.of).collect();
    assert_eq!(names, ["core", "counter"]);
    assert!(!core.runs());
    assert!(!service.runs());
    assert!(stranger.runs());
}

#[test]
fn a_leader_is_ended_with_its_session() {
    let place = Place::make();
    let mut leader = Command::new("setsid")
        .args(["sh", "-c", "sleep 1000 & exec sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = leader.id().cast_signed();
    while ProcessTable::read().unwrap().all().filter(|process| process.session == pid).count() < 2 {
        thread::yield_now();
    }
    place.record("counter", Identity::of(pid).unwrap());
    let ended = place.end(PATIENCE).unwrap();
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|leftover| leftover.of == "counter"));
    leader.wait().unwrap();
}

#[test]
fn a_number_that_is_somebody_elses_now_is_left_alone() {
    let place = Place::make();
    let mut stranger = Sleeper::start(|command| command);
    let now = stranger.identity();
    place.record("counter", Identity { start_time: now.start_time - 1, ..now });
    place.record(CORE, Identity { start_time: now.start_time - 1, ..now });
    assert!(place.end(PATIENCE).unwrap().is_empty());
    assert!(stranger.runs());
}

#[test]
fn records_of_another_boot_are_void() {
    let place = Place::make();
    let mut stranger = Sleeper::start(|command| command);
    place.record(CORE, stranger.identity());
    let life = Life { boot: "another".into(), cgroups: None };
    runtime::leave(&place.runtime.path().join("life"), &life).unwrap();
    assert!(place.end(PATIENCE).unwrap().is_empty());
    assert!(stranger.runs());
}

#[test]
fn what_carries_the_mark_of_the_state_folder_is_ended_wherever_it_went() {
    let place = Place::make();
    let state = fs::canonicalize(place.state.path()).unwrap();
    let mut marked = Sleeper::start(|command| command.env(STATE, &state).env(SERVICE, "counter"));
    let mut other = Sleeper::start(|command| command.env(STATE, "/elsewhere").env(SERVICE, "counter"));
    let identity = marked.identity();
    // The spawn returns when exec has begun, a moment before the new environment is there.
    while proc::Process::read(identity.pid).unwrap().variable(STATE).is_none() {
        thread::yield_now();
    }
    assert_eq!(place.end(PATIENCE).unwrap(), [Leftover { of: "counter".into(), process: identity }]);
    assert!(!marked.runs());
    assert!(other.runs());
}

#[test]
fn a_cgroup_of_a_former_life_is_emptied_and_removed() {
    let place = Place::make();
    let Ok(tree) = CgroupTree::make(place.state.path()) else { return };
    begin(place.runtime.path(), Some(&tree)).unwrap();
    let cgroup = tree.service(&"counter".parse().unwrap()).unwrap();
    let mut sleeper = Sleeper::start(|command| command);
    fs::write(cgroup.path().join("cgroup.procs"), sleeper.0.id().to_string()).unwrap();
    // The tree is found by its note too: the next watchdog may not be able to make one.
    let ended = place.end(PATIENCE).unwrap();
    assert_eq!(ended, [Leftover { of: "counter".into(), process: ended[0].process }]);
    assert!(!sleeper.runs());
    assert!(!cgroup.path().exists());
    tree.remove().unwrap();
}

#[test]
fn a_survivor_is_named() {
    let place = Place::make();
    let sleeper = Sleeper::start(|command| command);
    place.record(CORE, sleeper.identity());
    let error = place.end(Duration::ZERO).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("processes of a former life can't be ended: pid {} of `core`", sleeper.identity().pid)
    );
}

#[test]
fn no_former_life_is_no_leftover() {
    let (runtime, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(end(runtime.path(), state.path(), None, PATIENCE).unwrap().leftovers.is_empty());
    assert!(end(&runtime.path().join("absent"), state.path(), None, PATIENCE).unwrap().leftovers.is_empty());
}

#[test]
fn records_of_this_boot_stay_to_be_written_over_and_those_of_another_go() {
    let place = Place::make();
    let ended = Identity { pid: i32::MAX, start_time: 1 };
    place.record("counter", ended);
    let record = pid_file(place.runtime.path(), &"counter".parse().unwrap());
    begin(place.runtime.path(), None).unwrap();
    assert!(record.exists());
    assert_eq!(place.end(PATIENCE).unwrap(), []);
    let another = Life { boot: "another".into(), cgroups: None };
    runtime::leave(&place.runtime.path().join("life"), &another).unwrap();
    begin(place.runtime.path(), None).unwrap();
    assert!(!record.exists() && record.parent().unwrap().exists());
}

#[test]
fn a_service_is_named_by_a_process_that_leads_it_and_not_by_one_that_has_its_number_now() {
    let place = Place::make();
    let leader = Identity { pid: 4711, start_time: 5 };
    place.record("counter", leader);
    let named = led_by(place.runtime.path());
    let child = Identity { pid: 4712, start_time: 6 };
    assert_eq!(named(&[child, leader]), Some("counter".parse().unwrap()));
    assert_eq!(named(&[child, Identity { start_time: 7, ..leader }]), None);
}
