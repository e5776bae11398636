//! State, against a disk that is slow and fails.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use watchdog_lifecycle::state::{Received, SAVE_INTERVAL, Snapshot, UpdateError};
use watchdog_lifecycle::{Moment, StateSaver};
use watchdog_protocol::session::{StateOrigin, Urgency};
use watchdog_protocol::{Incarnation, Sequence};

use crate::config;

#[derive(Debug, Clone)]
enum Input {
    Update {
        urgent: bool,
    },
    /// The newest once more, as to a new core.
    Repeat,
    /// By the incarnation before.
    Stale,
    Write {
        fails: bool,
    },
    Wait(u64),
    /// The service ends and the next one starts.
    Restart,
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => prop::bool::weighted(0.3).prop_map(|urgent| Input::Update { urgent }),
        1 => Just(Input::Repeat),
        1 => Just(Input::Stale),
        4 => prop::bool::weighted(0.2).prop_map(|fails| Input::Write { fails }),
        4 => (0_u64..1500).prop_map(Input::Wait),
        1 => Just(Input::Restart),
    ]
}

struct Run {
    saver: StateSaver,
    incarnation: Incarnation,
    disk: Option<Snapshot>,
    writing: Option<Snapshot>,
    /// Since when the newest has been neither on disk nor on its way, and no write has failed.
    behind_since: Option<Moment>,
    now: Moment,
}

impl Run {
    fn new() -> Self {
        let mut saver = StateSaver::new(1, b"initial".to_vec(), SAVE_INTERVAL);
        saver.started(Incarnation::FIRST);
        let now = Moment::from_nanos(1_000_000_000);
        let incarnation = Incarnation::FIRST;
        Self { saver, incarnation, disk: None, writing: None, behind_since: None, now }
    }

    fn snapshot(&self, incarnation: Incarnation, sequence: Sequence) -> Snapshot {
        let content = Arc::new(sequence.get().to_le_bytes().to_vec());
        Snapshot { incarnation, sequence, version: 1, content }
    }

    fn input(&mut self, input: &Input) {
        let newest = self.saver.newest().sequence;
        match input {
            Input::Update { urgent } => {
                let urgency = if *urgent { Urgency::Now } else { Urgency::Soon };
                let next = self.snapshot(self.incarnation, newest.next());
                assert_eq!(self.saver.update(next.clone(), urgency, self.now), Ok(Received::Newest));
                assert_eq!(self.saver.handler().snapshot, next);
                self.behind_since = self.behind_since.or(Some(self.now));
            }
            Input::Repeat => {
                let again = self.snapshot(self.incarnation, newest);
                let on_disk = self.disk.as_ref().is_some_and(|disk| disk.sequence >= newest);
                let expected = if on_disk { Received::Synced } else { Received::Again };
                assert_eq!(self.saver.update(again, Urgency::Soon, self.now), Ok(expected));
            }
            Input::Stale => {
                let stale = self.snapshot(Incarnation::NONE, newest.next());
                let before = self.saver.newest().clone();
                let refused = self.saver.update(stale, Urgency::Now, self.now);
                assert!(matches!(refused, Err(UpdateError::Stale { .. })), "{refused:?}");
                assert_eq!(self.saver.newest(), &before);
            }
            Input::Write { fails } => {
                if let Some(written) = self.writing.take() {
                    if *fails {
                        self.saver.failed("no space left", self.now);
                        assert!(self.saver.failure().is_some());
                        self.behind_since = Some(self.now);
                    } else {
                        self.saver.synced(written.sequence, self.now);
                        let before = self.disk.replace(written.clone());
                        assert!(
                            before.is_none_or(|before| before.sequence <= written.sequence),
                            "older on disk"
                        );
                    }
                }
            }
            Input::Wait(millis) => self.now = self.now.after(Duration::from_millis(*millis)),
            Input::Restart => {
                self.saver.ended(self.incarnation);
                let is_under_way = self.writing.is_some();
                self.write();
                let disk = self.disk.as_ref().map(|disk| disk.sequence);
                let writing = self.writing.as_ref().map(|writing| writing.sequence);
                let is_safe = disk.max(writing) == Some(self.saver.newest().sequence);
                assert!(is_safe || is_under_way, "after the end nothing waits");
                self.incarnation = self.incarnation.next();
                self.saver.started(self.incarnation);
            }
        }
        self.write();
        // The core asks at each deadline, so a wait that passed one is late by the wait, not by the saver.
        if let Some(behind) = self.behind_since {
            assert!(self.now.since(behind) <= SAVE_INTERVAL, "too far behind");
        }
    }

    fn write(&mut self) {
        if let Some(snapshot) = self.saver.write(self.now) {
            assert!(self.writing.is_none(), "two writes at once");
            assert_eq!(&snapshot, self.saver.newest(), "only the newest is worth a write");
            self.writing = Some(snapshot);
        }
        let newest = self.saver.newest().sequence;
        let is_on_its_way = self.writing.as_ref().is_some_and(|writing| writing.sequence == newest);
        // A disk that is busy with the one before can't be hurried.
        if is_on_its_way || self.saver.is_settled() || self.writing.is_some() {
            self.behind_since = None;
        } else if self.saver.synced_sequence() < newest {
            self.behind_since = self.behind_since.or(Some(self.now));
        }
        if let Some(at) = self.saver.next_deadline() {
            assert!(at > self.now, "the core would spin");
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_sequence_on_disk_only_grows_and_is_never_far_behind(inputs in prop::collection::vec(inputs(), 1..120)) {
        let mut run = Run::new();
        for input in &inputs {
            match input {
                // As the core does: it wakes at the deadline.
                Input::Wait(millis) => {
                    let until = run.now.after(Duration::from_millis(*millis));
                    while let Some(at) = run.saver.next_deadline().filter(|at| *at <= until) {
                        let wait = at.since(run.now);
                        run.now = run.now.after(wait);
                        run.input(&Input::Wait(0));
                    }
                    run.now = until;
                    run.input(&Input::Wait(0));
                }
                other => run.input(other),
            }
        }
        // With a working disk everything arrives there.
        run.saver.ended(run.incarnation);
        for _ in 0..3 {
            run.write();
            run.input(&Input::Write { fails: false });
            run.now = run.now.after(SAVE_INTERVAL);
        }
        prop_assert!(run.saver.is_settled());
        prop_assert_eq!(run.disk.as_ref(), Some(run.saver.newest()));
    }
}

fn update(run: &mut Run) {
    run.input(&Input::Update { urgent: false });
}

#[test]
fn the_initial_value_is_written_once_after_a_stop_and_is_still_a_fresh_start() {
    let mut run = Run::new();
    assert_eq!(run.saver.write(run.now), None);
    assert_eq!(run.saver.handler().origin, StateOrigin::Fresh);
    run.input(&Input::Restart);
    run.input(&Input::Write { fails: false });
    let disk = run.disk.clone().unwrap();
    assert_eq!((disk.sequence, disk.content.as_slice()), (Sequence::NONE, b"initial".as_slice()));
    run.input(&Input::Restart);
    assert_eq!(run.writing, None);
    let found = StateSaver::new(2, b"better".to_vec(), SAVE_INTERVAL).found(disk, StateOrigin::Restored);
    assert_eq!((found.handler().origin, found.handler().snapshot.version), (StateOrigin::Fresh, 2));
}

#[test]
fn a_start_resumes_from_the_last_known_state_on_disk_or_not() {
    let mut run = Run::new();
    update(&mut run);
    run.input(&Input::Restart);
    let handler = run.saver.handler();
    assert_eq!((handler.origin, handler.snapshot.sequence), (StateOrigin::Restored, Sequence::FIRST));
    assert!(!run.saver.is_settled());
}

#[test]
fn updates_within_the_interval_are_one_write_and_a_save_does_not_wait_for_it() {
    let mut run = Run::new();
    for _ in 0..3 {
        update(&mut run);
    }
    assert_eq!(run.writing, None);
    assert_eq!(run.saver.next_deadline(), Some(run.now.after(SAVE_INTERVAL)));
    run.input(&Input::Update { urgent: true });
    assert_eq!(run.writing.as_ref().map(|writing| writing.sequence.get()), Some(4));
}

#[test]
fn a_failed_write_is_told_and_tried_again_after_the_interval() {
    let mut run = Run::new();
    run.input(&Input::Update { urgent: true });
    run.input(&Input::Write { fails: true });
    assert_eq!((run.saver.failure(), run.writing.is_none()), (Some("no space left"), true));
    run.now = run.now.after(SAVE_INTERVAL);
    run.input(&Input::Wait(0));
    run.input(&Input::Write { fails: false });
    assert_eq!((run.saver.failure(), run.saver.synced_sequence()), (None, Sequence::FIRST));
    assert_eq!(run.saver.synced_at(), Some(run.now));
}

#[test]
fn an_older_number_is_refused_and_an_import_takes_the_next() {
    let mut run = Run::new();
    update(&mut run);
    update(&mut run);
    let old = run.snapshot(run.incarnation, Sequence::FIRST);
    let refused = run.saver.update(old, Urgency::Soon, run.now).unwrap_err();
    assert_eq!(refused.to_string(), "state 1 is not newer than 2");
    run.saver.import(1, b"imported".to_vec());
    assert_eq!(run.saver.write(run.now).unwrap().sequence.get(), 3);
}
