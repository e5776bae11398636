//! Settings, against a service that takes or refuses what it is given, a disk that fails, and cores that die.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use watchdog_lifecycle::event::Fallback;
use watchdog_lifecycle::settings::{Notice, Outcome, SetError, Version};
use watchdog_lifecycle::{Change, Fact, SettingPath, SettingsUpdater, Values};
use watchdog_protocol::session::Verdict;
use watchdog_protocol::{Incarnation, RequestId, Revision};

use crate::config;

#[derive(Debug, Clone)]
enum Input {
    /// One or two keys; a value of 0 does not fit the schema, `None` goes back to the file.
    Set(Vec<(u8, Option<u8>)>),
    /// The same request once more.
    Repeat(prop::sample::Index),
    /// The write that is under way ends.
    Write {
        fails: bool,
    },
    Start,
    Ready,
    /// The service judges what was delivered to it last.
    Judge {
        accepts: bool,
    },
    /// A judgement of something it is not asked about.
    JudgeOlder,
    Die,
    /// The file says another `k1`.
    FileChanged(u8),
    /// The core dies with all that is not written.
    TakeOver,
}

fn inputs() -> impl Strategy<Value = Input> {
    let change = (0_u8..3, prop::option::weighted(0.8, 0_u8..10));
    prop_oneof![
        6 => prop::collection::vec(change, 1..3).prop_map(Input::Set),
        1 => any::<prop::sample::Index>().prop_map(Input::Repeat),
        10 => prop::bool::weighted(0.15).prop_map(|fails| Input::Write { fails }),
        3 => Just(Input::Start),
        4 => Just(Input::Ready),
        6 => prop::bool::weighted(0.7).prop_map(|accepts| Input::Judge { accepts }),
        1 => Just(Input::JudgeOlder),
        2 => Just(Input::Die),
        1 => (0_u8..4).prop_map(Input::FileChanged),
        1 => Just(Input::TakeOver),
    ]
}

fn check(values: &Value) -> Result<(), String> {
    let fits = |value: &Value| value.as_u64().is_some_and(|number| number > 0);
    let misfit = values.as_object().unwrap().iter().find(|(_, value)| !fits(value));
    misfit.map_or(Ok(()), |(key, _)| Err(format!("{key} must be at least 1")))
}

fn file() -> Values {
    let Value::Object(map) = json!({"k0": 1, "k1": 1}) else { unreachable!() };
    Values::new(map)
}

/// The service's side.
#[derive(Debug, Clone)]
struct Process {
    incarnation: Incarnation,
    is_ready: bool,
    initial: (Revision, String),
    /// `current()`.
    holds: (Revision, String),
    /// Delivered and not judged.
    offered: Option<(Revision, String)>,
    refused_at_start: bool,
    /// Said again to a new core: the one before may not have written it down.
    last_word: Option<(Revision, Verdict)>,
}

struct Run {
    updater: SettingsUpdater,
    /// What the disk has, and the write under way.
    disk: Vec<u8>,
    writing: Option<(Version, Vec<u8>)>,
    process: Option<Process>,
    incarnation: Incarnation,
    /// The largest number any incarnation was given.
    given: Revision,
    /// Whatever a service took.
    taken: Vec<String>,
    acknowledged: Vec<RequestId>,
    requests: u128,
}

impl Run {
    fn new() -> Self {
        let updater = SettingsUpdater::new(file());
        let disk = serde_json::to_vec(&updater).unwrap();
        let mut run = Self {
            updater,
            disk,
            writing: None,
            process: None,
            incarnation: Incarnation::NONE,
            given: Revision::NONE,
            taken: Vec::new(),
            acknowledged: Vec::new(),
            requests: 0,
        };
        run.after();
        run
    }

    /// What the core does after each call.
    fn after(&mut self) {
        if self.writing.is_none()
            && let Some(version) = self.updater.unwritten()
        {
            self.writing = Some((version, serde_json::to_vec(&self.updater).unwrap()));
        }
        for notice in self.updater.notices() {
            match notice {
                Notice::Deliver { incarnation, revision, json } => {
                    let on_disk: SettingsUpdater = serde_json::from_slice(&self.disk).unwrap();
                    assert_eq!(on_disk.reader().revision, revision, "delivered before it is on disk");
                    assert_eq!(on_disk.reader().json, json);
                    let process = self.process.as_mut().expect("only a running service is delivered to");
                    assert_eq!(process.incarnation, incarnation);
                    assert!(revision >= self.given, "{revision} after {}", self.given);
                    assert!(process.offered.as_ref().is_none_or(|(offered, _)| *offered <= revision));
                    self.given = revision;
                    if revision > process.holds.0 {
                        process.offered = Some((revision, json));
                    }
                }
                Notice::Saved { request, .. } => {
                    let on_disk: SettingsUpdater = serde_json::from_slice(&self.disk).unwrap();
                    assert!(on_disk.outcome(request).is_some(), "acknowledged before it is on disk");
                    self.acknowledged.push(request);
                }
                Notice::NotSaved { request, .. } => {
                    assert!(!self.acknowledged.contains(&request), "acknowledged, then withdrawn");
                    assert_eq!(self.updater.outcome(request), None);
                }
                Notice::Settled { outcome, .. } => {
                    let settled = matches!(outcome, Outcome::Applied { .. } | Outcome::Refused { .. });
                    assert!(settled, "{outcome:?}");
                }
                Notice::InForce { .. } | Notice::Refused { .. } => {}
            }
        }
        if let Some((_, values)) = self.updater.in_force() {
            assert!(self.taken.contains(&values.to_json()), "in force, and no service ever took it");
        }
    }

    fn input(&mut self, input: &Input) {
        match input {
            Input::Set(keys) => {
                let path = |key: u8| format!("k{key}").parse::<SettingPath>().unwrap();
                let change = |(key, value): &(u8, Option<u8>)| Change {
                    path: path(*key),
                    value: value.map(Value::from),
                };
                self.requests += 1;
                let request = RequestId::from_bits(self.requests);
                let before = self.updater.values();
                let set = self.updater.set(request, keys.iter().map(change).collect(), &check);
                if let Err(err) = set {
                    let expected =
                        matches!(err, SetError::Path(_) | SetError::Schema(_) | SetError::Busy { .. });
                    assert!(expected, "{err}");
                    assert_eq!((self.updater.outcome(request), self.updater.values()), (None, before));
                }
            }
            Input::Repeat(which) => {
                if let Some(request) = (!self.acknowledged.is_empty()).then(|| *which.get(&self.acknowledged))
                {
                    let before = (self.updater.outcome(request), self.updater.reader());
                    assert!(before.0.is_some(), "acknowledged, then forgotten");
                    let nonsense = vec![Change { path: "k0".parse().unwrap(), value: Some(json!("no")) }];
                    self.updater.set(request, nonsense, &check).unwrap();
                    assert_eq!(before, (self.updater.outcome(request), self.updater.reader()));
                }
            }
            Input::Write { fails } => {
                if let Some((version, bytes)) = self.writing.take() {
                    if *fails {
                        self.updater.write_failed("no space left", &check);
                    } else {
                        self.disk = bytes;
                        self.updater.written(version);
                    }
                }
            }
            // A start waits for the write under way.
            Input::Start if self.process.is_none() && self.updater.unwritten().is_none() => self.start(),
            Input::Ready => {
                if let Some(process) = self.process.as_mut().filter(|process| !process.refused_at_start) {
                    process.is_ready = true;
                    self.taken.push(process.initial.1.clone());
                    self.updater.ready(process.incarnation, &check);
                }
            }
            Input::Judge { accepts } => self.judge(*accepts),
            Input::JudgeOlder => {
                if let Some(process) = &self.process {
                    let before = self.updater.reader();
                    let (incarnation, verdict) = (process.incarnation, Verdict::Accepted);
                    let fact = self.updater.judged(Incarnation::NONE, process.holds.0, verdict, &check);
                    assert_eq!(fact, None);
                    let reason = || Verdict::Refused { reason: "late".into() };
                    let fact =
                        self.updater.judged(incarnation, Revision::from_stored(u64::MAX), reason(), &check);
                    assert_eq!((fact, self.updater.reader()), (None, before));
                }
            }
            Input::Die => {
                if let Some(process) = self.process.take() {
                    self.updater.ended(process.incarnation, &check);
                }
            }
            Input::FileChanged(value) => {
                let Value::Object(map) = json!({"k0": 1, "k1": value}) else { unreachable!() };
                let before = self.updater.standing();
                match self.updater.file_changed(Values::new(map), &check) {
                    Ok(revision) => assert!(revision >= before.revision),
                    Err(_) => assert_eq!(self.updater.standing(), before),
                }
            }
            Input::TakeOver => {
                self.updater = serde_json::from_slice(&self.disk).unwrap();
                self.writing = None;
                if let Some(process) = &self.process {
                    let (incarnation, holds) = (process.incarnation, process.holds.0);
                    self.updater.resumed(incarnation, holds, process.is_ready, &check);
                    if let Some((revision, verdict)) = process.last_word.clone() {
                        self.updater.judged(incarnation, revision, verdict, &check);
                    }
                }
                for request in &self.acknowledged {
                    assert!(self.updater.outcome(*request).is_some(), "acknowledged, then lost");
                }
            }
            Input::Start => {}
        }
        self.after();
    }

    fn start(&mut self) {
        self.incarnation = self.incarnation.next();
        let reader = self.updater.started(self.incarnation, &check);
        assert!(reader.revision >= self.given, "a reader goes back");
        self.given = reader.revision;
        self.process = Some(Process {
            incarnation: self.incarnation,
            is_ready: false,
            initial: (reader.revision, reader.json.clone()),
            holds: (reader.revision, reader.json),
            offered: None,
            refused_at_start: false,
            last_word: None,
        });
    }

    fn judge(&mut self, accepts: bool) {
        // Who refused what it started with has nothing more to say.
        let Some(process) = self.process.as_mut().filter(|process| !process.refused_at_start) else { return };
        let verdict =
            if accepts { Verdict::Accepted } else { Verdict::Refused { reason: "not with me".into() } };
        let incarnation = process.incarnation;
        match process.offered.take() {
            Some((revision, json)) => {
                process.last_word = Some((revision, verdict.clone()));
                if accepts {
                    self.taken.push(json.clone());
                    process.holds = (revision, json);
                }
                let before = self.updater.in_force();
                let newest = self.updater.standing().revision;
                let fact = self.updater.judged(incarnation, revision, verdict, &check);
                assert_eq!(fact, None);
                if !accepts && newest == revision {
                    let after = self.updater.in_force();
                    assert_eq!(
                        before.as_ref().map(|(_, values)| values),
                        after.as_ref().map(|(_, values)| values)
                    );
                    assert!(after.unwrap().0 > revision, "a refusal makes a new revision");
                }
            }
            None if !accepts && !process.is_ready => {
                process.refused_at_start = true;
                let (revision, json) = process.initial.clone();
                process.last_word = Some((revision, verdict.clone()));
                let waiting = self.updater.standing().waiting;
                let fact = self.updater.judged(incarnation, revision, verdict, &check);
                let Some(Fact::SettingsRefused { fallback, .. }) = fact else { panic!("{fact:?}") };
                // What waited has its turn next, even if it sets the same.
                if matches!(fallback, Fallback::Revision(_)) && waiting == 0 {
                    let next = self.updater.reader();
                    assert!(next.json != json, "the same values again: {next:?}");
                }
            }
            None => {}
        }
    }

    /// A working disk and a service that takes everything.
    fn come_to_rest(&mut self) {
        for _ in 0..1000 {
            let is_still = self.writing.is_none() && self.updater.unwritten().is_none();
            match &self.process {
                Some(process) if process.refused_at_start => self.input(&Input::Die),
                Some(process) if process.offered.is_some() => self.input(&Input::Judge { accepts: true }),
                Some(process) if !process.is_ready => self.input(&Input::Ready),
                _ if !is_still => self.input(&Input::Write { fails: false }),
                None => self.input(&Input::Start),
                Some(_) => return,
            }
        }
        panic!("the settings never come to rest: {:?}", self.updater);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn revisions_only_grow_and_no_reader_goes_back(inputs in prop::collection::vec(inputs(), 1..120)) {
        let mut run = Run::new();
        let mut newest = Revision::NONE;
        for input in &inputs {
            run.input(input); // Run::after and Run::input look at each number and each promise
            let now = run.updater.standing().revision;
            match input {
                // What was not written was promised to nobody.
                Input::TakeOver | Input::Write { fails: true } => {}
                _ => prop_assert!(now >= newest, "{newest}, then {now}"),
            }
            newest = now;
        }
    }

    #[test]
    fn the_last_set_always_arrives_at_a_service_that_takes_it(
        inputs in prop::collection::vec(inputs(), 0..80),
        last in 1_u8..10,
    ) {
        let mut run = Run::new();
        for input in &inputs {
            run.input(input);
        }
        run.come_to_rest();
        run.input(&Input::Set(vec![(0, Some(last))]));
        run.come_to_rest();
        let (revision, values) = run.updater.in_force().unwrap();
        prop_assert_eq!(values.get(&"k0".parse().unwrap()), Some(&json!(last)));
        let holds = &run.process.as_ref().unwrap().holds;
        prop_assert_eq!(&holds.1, &values.to_json());
        prop_assert!(holds.0 <= revision);
        prop_assert_eq!(run.updater.outcome(RequestId::from_bits(run.requests)), Some(Outcome::Applied { revision }));
        prop_assert_eq!(run.updater.standing().waiting, 0);
    }
}

fn set(run: &mut Run, key: u8, value: u8) -> RequestId {
    run.input(&Input::Set(vec![(key, Some(value))]));
    RequestId::from_bits(run.requests)
}

/// A running service with its first revision accepted.
fn running() -> Run {
    let mut run = Run::new();
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().0, Revision::FIRST);
    run
}

fn k0(run: &Run) -> Value {
    run.updater.in_force().unwrap().1.as_map()["k0"].clone()
}

#[test]
fn a_refusal_makes_a_new_revision_with_the_old_values() {
    let mut run = running();
    let request = set(&mut run, 0, 5);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Judge { accepts: false });
    let (revision, _) = run.updater.in_force().unwrap();
    assert_eq!((revision.get(), k0(&run)), (3, json!(1)));
    let refused = Outcome::Refused {
        revision: Some(Revision::from_stored(2)),
        reason: "not with me".into(),
        in_force: revision,
    };
    assert_eq!(run.updater.outcome(request), Some(refused));
    assert_eq!(run.updater.standing().refusal.unwrap().reason, "not with me");
}

#[test]
fn a_set_that_waits_is_merged_on_what_is_accepted_then() {
    let mut run = running();
    set(&mut run, 0, 5);
    let second = set(&mut run, 1, 7);
    assert_eq!(run.updater.outcome(second), Some(Outcome::Waiting));
    run.input(&Input::Write { fails: false });
    run.input(&Input::Write { fails: false });
    run.input(&Input::Judge { accepts: false });
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 1, "k1": 7}));
}

#[test]
fn a_service_that_dies_of_a_pending_revision_starts_with_the_last_accepted_one() {
    let mut run = running();
    let request = set(&mut run, 0, 5);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Die);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Start);
    let holds = &run.process.as_ref().unwrap().holds;
    assert_eq!((holds.0.get(), holds.1.as_str()), (3, r#"{"k0":1,"k1":1}"#));
    assert!(matches!(run.updater.outcome(request), Some(Outcome::Refused { .. })));
}

#[test]
fn a_set_of_a_service_that_is_down_is_what_it_starts_with() {
    let mut run = running();
    run.input(&Input::Die);
    let (first, second) = (set(&mut run, 0, 5), set(&mut run, 1, 6));
    for request in [first, second] {
        assert!(matches!(run.updater.outcome(request), Some(Outcome::Pending { .. })), "they join");
    }
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 5, "k1": 6}));
    assert_eq!(run.updater.outcome(first), run.updater.outcome(second));
}

#[test]
fn an_initial_value_that_is_refused_and_has_nothing_before_it_fails_the_service() {
    let mut run = Run::new();
    run.input(&Input::Write { fails: false });
    run.input(&Input::Start);
    let process = run.process.as_ref().unwrap();
    let (incarnation, revision) = (process.incarnation, process.holds.0);
    let verdict = Verdict::Refused { reason: "step".into() };
    let fact = run.updater.judged(incarnation, revision, verdict, &check);
    let expected = Fact::SettingsRefused { revision, reason: "step".into(), fallback: Fallback::None };
    assert_eq!(fact, Some(expected));
}

#[test]
fn a_first_start_that_dies_keeps_its_settings_and_a_set_can_mend_them() {
    let mut run = Run::new();
    run.input(&Input::Write { fails: false });
    run.input(&Input::Start);
    set(&mut run, 0, 9);
    run.input(&Input::Die);
    run.come_to_rest();
    assert_eq!(k0(&run), json!(9));
}

#[test]
fn a_set_that_can_not_be_written_changed_nothing_and_may_be_tried_again() {
    let mut run = running();
    let request = set(&mut run, 0, 5);
    run.input(&Input::Write { fails: true });
    assert_eq!((run.updater.outcome(request), k0(&run)), (None, json!(1)));
    let again = vec![Change { path: "k0".parse().unwrap(), value: Some(json!(5)) }];
    run.updater.set(request, again, &check).unwrap();
    run.come_to_rest();
    assert_eq!(k0(&run), json!(5));
}

#[test]
fn a_changed_file_is_a_new_revision_under_what_was_set() {
    let mut run = running();
    set(&mut run, 0, 5);
    run.come_to_rest();
    run.input(&Input::Die);
    let changed: Map<String, Value> = json!({"k0": 2, "k1": 3}).as_object().unwrap().clone();
    let before = run.updater.standing().revision;
    assert_eq!(run.updater.file_changed(file(), &check).unwrap(), before, "nothing changed");
    assert!(run.updater.file_changed(Values::new(changed), &check).unwrap() > before);
    run.input(&Input::JudgeOlder);
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 5, "k1": 3}));
    let overrides: Vec<_> = run.updater.overrides().paths().map(ToString::to_string).collect();
    assert_eq!(overrides, ["k0"]);
}

#[test]
fn a_number_that_a_service_holds_is_not_used_again_though_the_disk_never_saw_it() {
    let mut run = running();
    set(&mut run, 0, 5);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Judge { accepts: false });
    run.input(&Input::Die);
    // A disk that fails does not keep a service from its restart.
    run.start();
    assert_eq!(run.given.get(), 3);
    run.input(&Input::TakeOver);
    set(&mut run, 0, 6);
    for _ in 0..2 {
        run.input(&Input::Write { fails: false });
    }
    run.input(&Input::Die);
    run.start();
    assert!(run.given.get() > 3, "the same number with other values");
}
