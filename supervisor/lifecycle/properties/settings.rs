//! Settings, against a service that takes or refuses what it is given, a disk that fails, and cores that die.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use watchdog_lifecycle::event::Fallback;
use watchdog_lifecycle::settings::history::{Author, MAX_REVISIONS, Ruling};
use watchdog_lifecycle::settings::{Notice, Origin, Outcome, RollbackError, SetError, Version};
use watchdog_lifecycle::{
    Actor, Change, Fact, Present, Proposal, SettingPath, SettingsUpdater, Values, WallTime,
};
use watchdog_protocol::session::Verdict;
use watchdog_protocol::{Incarnation, RequestId, Revision};

use crate::config;

#[derive(Debug, Clone)]
enum Input {
    /// One or two keys; a value of 0 does not fit the schema, `None` goes back to the file.
    Set(Vec<(u8, Option<u8>)>),
    /// The same, on the newest revision or on one before it.
    SetOn(Vec<(u8, Option<u8>)>, bool),
    /// To the values of one of the revisions there are, or to those before the newest change.
    Rollback(Option<prop::sample::Index>),
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
    let changes = prop::collection::vec(change, 1..3);
    prop_oneof![
        6 => changes.clone().prop_map(Input::Set),
        2 => (changes, prop::bool::weighted(0.8)).prop_map(|(changes, newest)| Input::SetOn(changes, newest)),
        2 => prop::option::weighted(0.7, any::<prop::sample::Index>()).prop_map(Input::Rollback),
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

/// `k0` is required, the others are 1 unless given.
fn check(values: &Value) -> Result<Value, String> {
    let fits = |value: &Value| value.as_u64().is_some_and(|number| number > 0);
    let mut filled = values.as_object().unwrap().clone();
    if let Some((key, _)) = filled.iter().find(|(_, value)| !fits(value)) {
        return Err(format!("{key} must be at least 1"));
    }
    if !filled.contains_key("k0") {
        return Err("k0 is missing".into());
    }
    for key in ["k1", "k2"] {
        filled.entry(key).or_insert(json!(1));
    }
    Ok(Value::Object(filled))
}

fn present() -> Present<'static, String> {
    Present { check: &check, at: WallTime::from_micros(7) }
}

fn proposal(request: RequestId, on: Option<Revision>) -> Proposal {
    Proposal { request, by: Actor::Operator { uid: 1000 }, on }
}

fn changes(keys: &[(u8, Option<u8>)]) -> Vec<Change> {
    let path = |key: u8| format!("k{key}").parse::<SettingPath>().unwrap();
    keys.iter().map(|(key, value)| Change { path: path(*key), value: value.map(Value::from) }).collect()
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
    /// The values of each revision that was the newest, as `get` showed it.
    shown: BTreeMap<Revision, Values>,
}

impl Run {
    fn new() -> Self {
        let updater = SettingsUpdater::new(file(), WallTime::from_micros(7));
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
            shown: BTreeMap::new(),
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
                    let open = matches!(outcome, Outcome::Waiting | Outcome::Pending { .. });
                    assert!(!open, "{outcome:?}");
                }
                Notice::InForce { .. } | Notice::Refused { .. } => {}
            }
        }
        if let Some((_, values)) = self.updater.in_force() {
            assert!(self.taken.contains(&values.to_json()), "in force, and no service ever took it");
        }
        self.look_at_history();
    }

    fn look_at_history(&mut self) {
        let standing = self.updater.standing();
        self.shown.insert(standing.revision, self.updater.values());
        let entries: Vec<_> = self.updater.history().collect();
        assert!(entries.len() <= MAX_REVISIONS);
        assert!(entries.windows(2).all(|pair| pair[0].revision < pair[1].revision));
        assert_eq!(entries.last().unwrap().revision, standing.revision, "the newest is in it");
        let pending = entries.iter().filter(|entry| entry.ruling == Ruling::Pending).count();
        assert!(pending <= usize::from(standing.is_pending));
        assert!(standing.is_pending || entries.last().unwrap().ruling == Ruling::Applied);
        for entry in &entries {
            if let Ruling::Superseded { by } = entry.ruling {
                assert!(by > entry.revision && self.updater.find(by).is_some(), "superseded by nothing");
            }
        }
        for (revision, values) in self.updater.past() {
            if let Some(shown) = self.shown.get(&revision) {
                assert_eq!(&values, shown, "what revision {revision} was is not what it had");
            }
            if self.updater.find(revision).unwrap().ruling == Ruling::Applied {
                assert!(self.taken.contains(&values.to_json()), "applied, and no service ever took it");
            }
        }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::from_bits(self.requests)
    }

    fn roll_back(&mut self, to: Option<Revision>) -> Result<(), SetError<String>> {
        let proposal = proposal(self.request(), None);
        let request = proposal.request;
        let past: BTreeMap<_, _> = self.updater.past().collect();
        let (before, waiting) = (self.updater.values(), self.updater.standing().waiting);
        self.updater.roll_back(proposal, to, &present())?;
        // What waits for a verdict comes to it later.
        if let (0, Some(Outcome::Pending { revision })) = (waiting, self.updater.outcome(request)) {
            let Author::Rollback { to: found, .. } = self.updater.find(revision).unwrap().author else {
                panic!("made by somebody else");
            };
            assert!(to.is_none_or(|to| to == found));
            let filled = |values: &Values| check(&values.to_value()).unwrap();
            assert_eq!(filled(&self.updater.values()), filled(&past[&found]));
            assert!(to.is_some() || before != past[&found], "back to the same values");
        }
        Ok(())
    }

    fn input(&mut self, input: &Input) {
        match input {
            Input::Set(keys) => self.set(keys, None),
            Input::SetOn(keys, on_newest) => {
                let newest = self.updater.standing().revision;
                let older = Revision::from_stored(newest.get() - 1);
                self.set(keys, Some(if *on_newest { newest } else { older }));
            }
            Input::Rollback(to) => {
                let there: Vec<_> = self.updater.history().map(|entry| entry.revision).collect();
                let to = to.map(|to| *to.get(&there));
                let ruling = to.map(|to| self.updater.find(to).unwrap().ruling.clone());
                let before = self.updater.values();
                match self.roll_back(to) {
                    Ok(()) => assert!(ruling.is_none_or(|ruling| ruling == Ruling::Applied)),
                    Err(SetError::Rollback(RollbackError::Unknown { revision, .. })) => {
                        panic!("{revision} is in the history")
                    }
                    Err(SetError::Rollback(RollbackError::NeverInForce { .. })) => {
                        assert!(ruling.is_some_and(|ruling| ruling != Ruling::Applied));
                    }
                    Err(err) => {
                        let expected = matches!(
                            err,
                            SetError::Rollback(_) | SetError::Schema(_) | SetError::Busy { .. }
                        );
                        assert!(expected, "{err}");
                        assert_eq!(self.updater.values(), before);
                    }
                }
            }
            Input::Repeat(which) => {
                if let Some(request) = (!self.acknowledged.is_empty()).then(|| *which.get(&self.acknowledged))
                {
                    let before = (self.updater.outcome(request), self.updater.reader());
                    assert!(before.0.is_some(), "acknowledged, then forgotten");
                    let nonsense = vec![Change { path: "k0".parse().unwrap(), value: Some(json!("no")) }];
                    let elsewhere = Some(Revision::from_stored(u64::MAX));
                    self.updater.set(proposal(request, elsewhere), nonsense, &present()).unwrap();
                    assert_eq!(before, (self.updater.outcome(request), self.updater.reader()));
                }
            }
            Input::Write { fails } => {
                if let Some((version, bytes)) = self.writing.take() {
                    if *fails {
                        self.updater.write_failed("no space left", &present());
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
                    self.updater.ready(process.incarnation, &present());
                }
            }
            Input::Judge { accepts } => self.judge(*accepts),
            Input::JudgeOlder => {
                if let Some(process) = &self.process {
                    let before = self.updater.reader();
                    let (incarnation, verdict) = (process.incarnation, Verdict::Accepted);
                    let fact = self.updater.judged(Incarnation::NONE, process.holds.0, verdict, &present());
                    assert_eq!(fact, None);
                    let reason = || Verdict::Refused { reason: "late".into() };
                    let fact = self.updater.judged(
                        incarnation,
                        Revision::from_stored(u64::MAX),
                        reason(),
                        &present(),
                    );
                    assert_eq!((fact, self.updater.reader()), (None, before));
                }
            }
            Input::Die => {
                if let Some(process) = self.process.take() {
                    self.updater.ended(process.incarnation, &present());
                }
            }
            Input::FileChanged(value) => {
                let Value::Object(map) = json!({"k0": 1, "k1": value}) else { unreachable!() };
                let before = self.updater.standing();
                match self.updater.file_changed(Values::new(map), &present()) {
                    Ok(revision) => assert!(revision >= before.revision),
                    Err(_) => assert_eq!(self.updater.standing(), before),
                }
            }
            Input::TakeOver => {
                self.updater = serde_json::from_slice(&self.disk).unwrap();
                self.writing = None;
                // What the dead core had not written it may have shown, and its number is taken by something else.
                let newest = self.updater.standing().revision;
                self.shown.retain(|revision, _| *revision <= newest);
                if let Some(process) = &self.process {
                    let (incarnation, holds) = (process.incarnation, process.holds.0);
                    self.updater.resumed(incarnation, holds, process.is_ready, &present());
                    if let Some((revision, verdict)) = process.last_word.clone() {
                        self.updater.judged(incarnation, revision, verdict, &present());
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

    fn set(&mut self, keys: &[(u8, Option<u8>)], on: Option<Revision>) {
        let request = self.request();
        let (before, standing) = (self.updater.values(), self.updater.standing());
        let is_on = on.is_none_or(|on| on == standing.revision && standing.waiting == 0);
        match self.updater.set(proposal(request, on), changes(keys), &present()) {
            Ok(()) => assert!(is_on, "made on a revision that is not the newest"),
            Err(err) => {
                let expected = match err {
                    SetError::Path(_) | SetError::Schema(_) | SetError::Busy { .. } => is_on,
                    SetError::Moved { .. } => !is_on,
                    SetError::Empty | SetError::Long { .. } | SetError::Rollback(_) => false,
                };
                assert!(expected, "{err}");
                assert_eq!((self.updater.outcome(request), self.updater.values()), (None, before));
            }
        }
    }

    fn start(&mut self) {
        self.incarnation = self.incarnation.next();
        let reader = self.updater.started(self.incarnation, &present());
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
                let fact = self.updater.judged(incarnation, revision, verdict, &present());
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
                let fact = self.updater.judged(incarnation, revision, verdict, &present());
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
    let fact = run.updater.judged(incarnation, revision, verdict, &present());
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
    run.updater.set(proposal(request, None), again, &present()).unwrap();
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
    assert_eq!(run.updater.file_changed(file(), &present()).unwrap(), before, "nothing changed");
    assert!(run.updater.file_changed(Values::new(changed), &present()).unwrap() > before);
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

#[test]
fn the_history_says_who_made_each_revision_what_it_changed_and_what_became_of_it() {
    let mut run = running();
    set(&mut run, 0, 5);
    run.come_to_rest();
    set(&mut run, 0, 6);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Judge { accepts: false });
    run.come_to_rest();
    run.roll_back(Some(Revision::FIRST)).unwrap();
    run.come_to_rest();
    let operator = || Actor::Operator { uid: 1000 };
    let said: Vec<_> = run
        .updater
        .history()
        .map(|entry| {
            let changes = entry.changes.iter().map(|change| {
                let said = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
                format!("{}: {} {}", change.path, said(&change.before), said(&change.after))
            });
            assert_eq!(entry.at, Some(WallTime::from_micros(7)));
            (entry.author.clone(), changes.collect::<Vec<_>>().join(", "), entry.ruling.to_string())
        })
        .collect();
    let revision = Revision::from_stored;
    let expected = [
        (Author::File, "k0: - 1, k1: - 1", "applied"),
        (Author::Set(operator()), "k0: 1 5", "applied"),
        (Author::Set(operator()), "k0: 5 6", "refused: not with me"),
        (Author::Fallback { refused: revision(3) }, "k0: 6 5", "applied"),
        (Author::Rollback { by: operator(), to: revision(1) }, "k0: 5 1", "applied"),
    ];
    let expected = expected.map(|(author, changes, ruling)| (author, changes.to_owned(), ruling.to_owned()));
    assert_eq!(said, expected);
}

#[test]
fn sets_that_join_are_a_revision_each_and_only_the_last_is_applied() {
    let mut run = running();
    run.input(&Input::Die);
    set(&mut run, 0, 5);
    set(&mut run, 1, 6);
    run.come_to_rest();
    let rulings: Vec<_> = run.updater.history().map(|entry| entry.ruling.to_string()).collect();
    assert_eq!(rulings, ["applied", "superseded by 3", "applied"]);
}

#[test]
fn without_a_revision_a_rollback_undoes_the_newest_change_that_was_in_force_and_then_itself() {
    let mut run = running();
    set(&mut run, 0, 5);
    run.come_to_rest();
    set(&mut run, 0, 6);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Judge { accepts: false });
    run.come_to_rest();
    for (revision, expected) in [(5, 1), (6, 5)] {
        run.roll_back(None).unwrap();
        run.come_to_rest();
        assert_eq!((run.updater.standing().revision.get(), k0(&run)), (revision, json!(expected)));
    }
}

#[test]
fn what_one_can_not_go_back_to_is_told_with_what_one_can() {
    let mut run = running();
    let nothing = run.roll_back(None).unwrap_err();
    assert_eq!(nothing.to_string(), "there are no values before those of revision 1 in its history");
    set(&mut run, 0, 5);
    run.come_to_rest();
    set(&mut run, 0, 6);
    run.input(&Input::Write { fails: false });
    run.input(&Input::Judge { accepts: false });
    run.come_to_rest();
    let said = |run: &mut Run, to| run.roll_back(Some(Revision::from_stored(to))).unwrap_err().to_string();
    assert_eq!(said(&mut run, 9), "revision 9 is not in its history; one can go back to 1-2, 4");
    assert_eq!(
        said(&mut run, 3),
        "revision 3 was never in force (refused: not with me); one can go back to 1-2, 4"
    );
}

#[test]
fn a_rollback_gives_the_old_values_over_a_file_that_says_something_else_now() {
    let mut run = running();
    run.input(&Input::Die);
    let table = |value: Value| Values::new(value.as_object().unwrap().clone());
    run.updater.file_changed(table(json!({"k0": 3, "k2": 4})), &present()).unwrap();
    run.come_to_rest();
    run.roll_back(Some(Revision::FIRST)).unwrap();
    run.come_to_rest();
    // k2 is in the file now and was not then, so what the schema filled in is set; k1 is filled in with the same.
    assert_eq!(run.updater.values().to_value(), json!({"k0": 1, "k2": 1}));
    let overrides: Vec<_> = run.updater.overrides().paths().map(ToString::to_string).collect();
    assert_eq!(overrides, ["k0", "k2"]);
    // And what the file has in common with them is not.
    run.input(&Input::Die);
    run.updater.file_changed(file(), &present()).unwrap();
    run.come_to_rest();
    run.roll_back(Some(Revision::FIRST)).unwrap();
    run.come_to_rest();
    assert_eq!(run.updater.values(), file());
    assert_eq!(run.updater.overrides().paths().count(), 0);
}

#[test]
fn a_rollback_that_waited_gives_the_old_values_over_the_file_that_is_accepted_then() {
    let mut run = running();
    for value in [2, 9] {
        set(&mut run, 1, value);
        run.come_to_rest();
    }
    run.input(&Input::Die);
    // What revision 2 had stands in this file, so that nothing need be set over it.
    run.input(&Input::FileChanged(2));
    run.input(&Input::Write { fails: false });
    run.input(&Input::Start);
    run.roll_back(Some(Revision::from_stored(2))).unwrap();
    run.after();
    // The service refuses that file.
    run.input(&Input::Judge { accepts: false });
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 1, "k1": 2}));
    assert_eq!(run.updater.standing().revision.get(), 6);
}

#[test]
fn a_program_that_was_built_anew_without_settings_is_rolled_back_to_none() {
    let mut run = Run::new();
    run.updater = SettingsUpdater::new(Values::default(), WallTime::from_micros(7));
    let none = |values: &Value| match values.as_object().is_some_and(Map::is_empty) {
        true => Ok(Value::Null),
        false => Err("it has no settings, so none can be given".to_owned()),
    };
    let nothing = Present { check: &none, at: WallTime::from_micros(7) };
    run.updater.started(Incarnation::FIRST, &present());
    run.updater.ready(Incarnation::FIRST, &present());
    run.updater.set(proposal(RequestId::from_bits(1), None), changes(&[(0, Some(5))]), &present()).unwrap();
    run.updater.roll_back(proposal(RequestId::from_bits(2), None), None, &nothing).unwrap();
    run.updater.ended(Incarnation::FIRST, &nothing);
    assert_eq!(run.updater.values(), Values::default());
}

#[test]
fn a_rollback_that_does_not_fit_the_schema_any_more_changes_nothing() {
    let mut run = running();
    set(&mut run, 0, 5);
    run.come_to_rest();
    let at_least_2 = |values: &Value| match values["k0"].as_u64() {
        Some(2..) => check(values),
        _ => Err("k0 must be at least 2".to_owned()),
    };
    let newer = Present { check: &at_least_2, at: WallTime::from_micros(8) };
    let refused = run.updater.roll_back(proposal(RequestId::from_bits(99), None), None, &newer);
    assert_eq!(refused.unwrap_err().to_string(), "k0 must be at least 2");
    assert_eq!((run.updater.standing().revision.get(), k0(&run)), (2, json!(5)));
}

#[test]
fn of_several_on_the_same_revision_one_is_made_whether_a_process_runs_or_not() {
    for dies in [false, true] {
        let mut run = running();
        if dies {
            run.input(&Input::Die);
        }
        for value in 2..10 {
            let request = run.request();
            let on = Some(Revision::FIRST);
            let made = run.updater.set(proposal(request, on), changes(&[(0, Some(value))]), &present());
            assert_eq!(made.is_ok(), value == 2, "{made:?}");
        }
        run.after();
        run.come_to_rest();
        assert_eq!((run.updater.standing().revision.get(), k0(&run)), (2, json!(2)));
    }
}

#[test]
fn what_was_to_follow_a_pending_revision_is_not_made_when_that_one_is_refused() {
    let mut run = running();
    set(&mut run, 0, 5);
    let (second, third) = (run.request(), run.request());
    let on = Some(Revision::from_stored(2));
    run.updater.set(proposal(second, on), changes(&[(1, Some(7))]), &present()).unwrap();
    let late = run.updater.set(proposal(third, on), changes(&[(1, Some(8))]), &present()).unwrap_err();
    assert_eq!(
        late.to_string(),
        "the change was to follow revision 2, but 1 change waits for the verdict on revision 2"
    );
    run.after();
    for _ in 0..2 {
        run.input(&Input::Write { fails: false });
    }
    run.input(&Input::Judge { accepts: false });
    run.come_to_rest();
    let overtaken = Outcome::Overtaken { on: Revision::from_stored(2), newest: Revision::from_stored(3) };
    assert_eq!(run.updater.outcome(second), Some(overtaken));
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 1, "k1": 1}));
}

#[test]
fn each_value_has_the_origin_it_came_from() {
    let mut run = running();
    set(&mut run, 0, 5);
    run.come_to_rest();
    let Value::Object(filled) = check(&run.updater.values().to_value()).unwrap() else { unreachable!() };
    let origins = run.updater.origins(&Values::new(filled));
    let said: Vec<_> = origins.iter().map(|(path, origin)| (path.to_string(), *origin)).collect();
    let set = Origin::Set { since: Some(Revision::from_stored(2)) };
    assert_eq!(said, [("k0".into(), set), ("k1".into(), Origin::File), ("k2".into(), Origin::Default)]);
}

#[test]
fn a_record_of_a_build_without_a_history_goes_on_from_what_it_knows() {
    // As 0.1.0-dev of November 2026 wrote it: revision 3 in force, 4 pending with one set, another one waiting.
    let stored = r#"{"newest":4,"file":"{\"k0\":1,\"k1\":1}",
        "accepted":{"revision":3,"base":"{\"k0\":1,\"k1\":1}","overrides":[["k0","5"]]},
        "pending":{"revision":4,"base":"{\"k0\":1,\"k1\":1}","before":[["k0","5"]],
            "sets":[{"request":17,"changes":[{"path":"k1","value":"6"}]}],"started":2},
        "waiting":[{"request":18,"changes":[{"path":"k0","value":null}]}],
        "outcomes":[[16,{"Applied":{"revision":3}}]],"refusal":null}"#;
    let mut run = running();
    run.updater = serde_json::from_str(stored).unwrap();
    run.disk = serde_json::to_vec(&run.updater).unwrap();
    run.taken = vec![json!({"k0": 5, "k1": 1}).to_string()];
    (run.process, run.writing) = (None, None);
    run.shown.clear();
    run.after();
    let known: Vec<_> = run
        .updater
        .history()
        .map(|entry| (entry.revision.get(), entry.ruling.to_string(), entry.at))
        .collect();
    assert_eq!(known, [(3, "applied".to_owned(), None), (4, "pending".to_owned(), None)]);
    run.come_to_rest();
    run.input(&Input::Die);
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 1, "k1": 6}));
    run.roll_back(Some(Revision::from_stored(3))).unwrap();
    run.come_to_rest();
    assert_eq!(run.updater.in_force().unwrap().1.to_value(), json!({"k0": 5, "k1": 1}));
}
