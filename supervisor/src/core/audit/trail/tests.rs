use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What happens next. A number chooses how much of something under way still came about.
#[derive(Debug, Clone)]
enum Op {
    Record,
    /// A call whose caller went away.
    Unanswered,
    /// The journal's commit that is under way ends.
    Commit(Result<(), u8>),
    /// What the file was given ends.
    Copy(Result<(), u8>),
    Wait,
    /// The core is killed, and the next one is a whole one or a safe one.
    Kill {
        came_about: u8,
        is_safe: bool,
    },
    PowerCut {
        came_about: u8,
        kept: u8,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let ended = || prop_oneof![3 => Just(Ok(())), 1 => any::<u8>().prop_map(Err)];
    let op = prop_oneof![
        6 => Just(Op::Record),
        1 => Just(Op::Unanswered),
        4 => ended().prop_map(Op::Commit),
        4 => ended().prop_map(Op::Copy),
        1 => Just(Op::Wait),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(came_about, is_safe)| Op::Kill { came_about, is_safe }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(came_about, kept)| Op::PowerCut { came_about, kept }),
    ];
    proptest::collection::vec(op, 1..120)
}

/// How a line of the file is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// In the page cache, and the next sync brings it to the disk.
    Dirty,
    /// A sync failed, and the kernel says of the next one that it is good.
    Lost,
    Durable,
}

/// A core's trail, and the two disks.
struct World {
    trail: Trail<u64, u64>,
    is_safe: bool,
    now: Moment,
    /// Of records.
    next_id: u64,
    /// As it is on disk.
    journal: Vec<u8>,
    committing: Option<(Vec<u8>, u64)>,
    /// Something was recorded that no commit was asked for.
    unput: bool,
    file: Vec<(Vec<u8>, Kept)>,
    copying: Option<Copy>,
    /// Of records whose callers wait, in order.
    asked: Vec<u64>,
    /// What they were told.
    told: Vec<(u64, Result<(), Lost>)>,
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// A line's number, and its record's.
fn read(line: &[u8]) -> (u64, u64) {
    let text = std::str::from_utf8(line).unwrap();
    let (number, id) = text.trim().split_once(' ').unwrap();
    (number.parse().unwrap(), id.trim().parse().unwrap())
}

impl World {
    fn new() -> Self {
        Self {
            trail: Trail::found(VecDeque::new(), Vec::new(), 0),
            is_safe: false,
            now: Moment::from_nanos(0),
            next_id: 0,
            journal: Vec::new(),
            committing: None,
            unput: false,
            file: Vec::new(),
            copying: None,
            asked: Vec::new(),
            told: Vec::new(),
        }
    }

    fn record(&mut self, is_answered: bool) {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.extend(is_answered.then_some(id));
        self.take(id, is_answered);
    }

    fn take(&mut self, id: u64, is_answered: bool) {
        // Long, so that a few are enough for a sync.
        let line = |number| format!("{number} {id:>1500}\n").into_bytes();
        let until = Moment::from_nanos(self.now.as_nanos() + 30);
        self.trail.record(&id, line, is_answered.then_some(id), until).unwrap();
        self.unput = true;
    }

    /// As the event loop does after each step.
    fn go_on(&mut self) {
        if !self.is_safe && self.unput && self.committing.is_none() {
            self.unput = false;
            self.committing = Some((self.trail.content(), self.trail.newest()));
        }
        if self.copying.is_none() {
            self.copying = self.trail.next_copy();
        } else {
            assert_eq!(self.trail.next_copy(), None, "one at a time");
        }
        self.told.append(&mut self.trail.answers(self.now));
    }

    fn end_commit(&mut self, outcome: Result<(), u8>) {
        let Some((content, up_to)) = self.committing.take() else { return };
        if outcome.is_ok() {
            self.journal = content;
        }
        self.trail.journal_ended(up_to, outcome.map_err(|_| "the journal".to_owned()));
    }

    /// The thread's deed, or a part of it.
    fn do_copy(&mut self, copy: &Copy, outcome: Result<(), u8>) {
        let lines = split(&copy.lines);
        match (copy.way, outcome) {
            (Way::Append, Ok(())) => self.append(lines),
            (Way::Sync, Ok(())) => {
                self.append(lines);
                for (_, kept) in &mut self.file {
                    if *kept == Kept::Dirty {
                        *kept = Kept::Durable;
                    }
                }
            }
            (Way::Append | Way::Sync, Err(part)) => {
                let whole = usize::from(part) % (lines.len() + 1);
                self.append(lines.into_iter().take(whole).collect());
                if copy.way == Way::Sync {
                    for (_, kept) in &mut self.file {
                        if *kept == Kept::Dirty {
                            *kept = Kept::Lost;
                        }
                    }
                }
            }
            (Way::Anew, Ok(())) => {
                let missing: Vec<_> = lines
                    .into_iter()
                    .filter(|line| self.file.iter().all(|(there, _)| there != line))
                    .collect();
                self.append(missing);
                self.file.iter_mut().for_each(|(_, kept)| *kept = Kept::Durable);
            }
            (Way::Anew, Err(_)) => {}
        }
    }

    fn append(&mut self, lines: Vec<Vec<u8>>) {
        self.file.extend(lines.into_iter().map(|line| (line, Kept::Dirty)));
    }

    fn end_copy(&mut self, outcome: Result<(), u8>) {
        let Some(copy) = self.copying.take() else { return };
        self.do_copy(&copy, outcome);
        self.trail.copied(copy.way, copy.up_to, outcome.map_err(|_| "the file".to_owned()));
    }

    /// The next core. What was under way came about, or a part of it, or not.
    fn next_core(&mut self, came_about: u8, is_safe: bool) {
        if let Some((content, _)) = self.committing.take().filter(|_| came_about.is_multiple_of(2)) {
            self.journal = content;
        }
        if let Some(copy) = self.copying.take() {
            let outcome = if came_about.is_multiple_of(3) { Ok(()) } else { Err(came_about) };
            self.do_copy(&copy, outcome);
        }
        let held: VecDeque<_> =
            split(&self.journal).into_iter().map(|line| Held { number: read(&line).0, line }).collect();
        let in_file = self.file.iter().map(|(line, _)| read(line).0);
        let newest = held.iter().map(|held| held.number).chain(in_file).max().unwrap_or(0);
        let unsure = held.iter().map(|held| (held.number, read(&held.line).1)).collect();
        let trail = Trail::found(held, unsure, newest);
        self.trail = if is_safe { trail.without_journal() } else { trail };
        (self.is_safe, self.unput) = (is_safe, false);
    }

    /// Whoever was not answered asks the next core.
    fn repeat(&mut self) {
        let is_told = |id: &u64| self.told.iter().any(|(told, _)| told == id);
        let open: Vec<_> = self.asked.iter().copied().filter(|id| !is_told(id)).collect();
        open.into_iter().for_each(|id| self.take(id, true));
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Record => self.record(true),
            Op::Unanswered => self.record(false),
            Op::Commit(outcome) => self.end_commit(*outcome),
            Op::Copy(outcome) => self.end_copy(*outcome),
            Op::Wait => self.now = Moment::from_nanos(self.now.as_nanos() + 20),
            Op::Kill { came_about, is_safe } => {
                self.next_core(*came_about, *is_safe);
                self.repeat();
            }
            Op::PowerCut { came_about, kept } => {
                let mut at = 0;
                self.next_core(*came_about, false);
                self.file.retain(|(_, how)| {
                    at += 1;
                    match how {
                        Kept::Durable => true,
                        Kept::Dirty => (kept >> (at % 8)) & 1 == 1,
                        Kept::Lost => false,
                    }
                });
                self.next_core(1, false);
                // Whoever asked went with the host.
                self.asked.retain(|id| self.told.iter().any(|(told, _)| told == id));
            }
        }
        self.go_on();
    }

    /// Each number in the file, and of which records.
    fn in_file(&self) -> BTreeMap<u64, Vec<u64>> {
        let mut numbers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (line, _) in &self.file {
            let (number, id) = read(line);
            numbers.entry(number).or_default().push(id);
        }
        numbers
    }
}

proptest! {
    #[test]
    fn a_record_whose_caller_was_told_that_all_is_well_is_in_the_file_once_after_any_deaths(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
            let in_file = world.in_file();
            prop_assert!(in_file.values().all(|ids| ids.len() == 1), "{op:?}: {in_file:?}");
        }
        for (id, count) in counted(&mut world) {
            prop_assert!(count >= 1, "record {id}");
        }
    }

    #[test]
    fn a_call_that_is_repeated_to_the_next_core_has_one_record_on_disks_that_work(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.step(&match op {
                Op::Commit(_) => Op::Commit(Ok(())),
                Op::Copy(_) => Op::Copy(Ok(())),
                Op::Kill { came_about, .. } => Op::Kill { came_about: *came_about, is_safe: false },
                Op::PowerCut { .. } => Op::Record,
                Op::Record | Op::Unanswered | Op::Wait => op.clone(),
            });
        }
        for (id, count) in counted(&mut world) {
            prop_assert_eq!(count, 1, "record {}", id);
        }
    }

    #[test]
    fn everybody_is_told_once_and_in_order_also_when_no_disk_works(ops in ops()) {
        let mut world = World::new();
        for op in ops.iter().filter(|op| !matches!(op, Op::Kill { .. } | Op::PowerCut { .. })) {
            world.step(op);
        }
        world.trail.close();
        let mut rounds = 0;
        while !world.trail.is_settled() {
            world.go_on();
            world.end_commit(Err(0));
            world.end_copy(Err(0));
            rounds += 1;
            prop_assert!(rounds < 100, "it never comes to an end: {:?}", world.trail);
        }
        let told: Vec<_> = world.told.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(told, world.asked);
    }
}

/// How often each record of whose caller it was said that all is well is in the file, when the next core met disks that
/// work.
fn counted(world: &mut World) -> Vec<(u64, usize)> {
    world.next_core(1, false);
    world.trail.close();
    while !world.trail.is_settled() {
        world.go_on();
        world.end_commit(Ok(()));
        world.end_copy(Ok(()));
    }
    let durable = world.file.iter().filter(|(_, kept)| *kept == Kept::Durable);
    let durable: Vec<_> = durable.map(|(line, _)| read(line).1).collect();
    let told = world.told.iter().filter(|(_, fate)| fate.is_ok());
    told.map(|(id, _)| (*id, durable.iter().filter(|other| *other == id).count())).collect()
}

const FAR: Moment = Moment::from_nanos(u64::MAX);

fn recorded(trail: &mut Trail<u64, u64>, bytes: usize) -> u64 {
    let number = trail.newest() + 1;
    let line = |number: u64| [number.to_string().into_bytes(), vec![b'x'; bytes], vec![b'\n']].concat();
    trail.record(&number, line, Some(number), FAR).unwrap();
    number
}

fn told(trail: &mut Trail<u64, u64>) -> Vec<(u64, Result<(), Lost>)> {
    trail.answers(Moment::from_nanos(0))
}

#[test]
fn a_record_is_answered_when_the_journal_has_it_and_held_until_the_file_is_synced() {
    let mut trail = Trail::found(VecDeque::new(), Vec::new(), 6);
    assert_eq!(recorded(&mut trail, 10), 7);
    assert_eq!(told(&mut trail), []);
    assert_eq!(trail.next_copy(), None, "nobody reads what a core after this one may not know of");
    trail.journal_ended(7, Ok(()));
    assert_eq!(told(&mut trail), [(7, Ok(()))]);
    let copy = trail.next_copy().unwrap();
    assert_eq!((copy.way, copy.up_to), (Way::Append, 7));
    trail.copied(copy.way, 7, Ok(()));
    assert!(!trail.content().is_empty() && trail.next_copy().is_none());
    recorded(&mut trail, SYNC);
    trail.journal_ended(8, Ok(()));
    recorded(&mut trail, 10);
    let copy = trail.next_copy().unwrap();
    assert_eq!((copy.way, copy.up_to, copy.lines.len() > SYNC), (Way::Sync, 8, true));
    assert!(!copy.lines.starts_with(b"7"), "the file has that one");
    trail.copied(copy.way, 8, Ok(()));
    assert!(trail.content().starts_with(b"9"));
}

#[test]
fn what_the_journal_refuses_is_synced_in_the_file_and_lost_only_when_that_fails_too() {
    let mut trail = Trail::found(VecDeque::new(), Vec::new(), 0);
    recorded(&mut trail, 10);
    trail.journal_ended(1, Err("no space".to_owned()));
    assert_eq!(told(&mut trail), []);
    let copy = trail.next_copy().unwrap();
    assert_eq!(copy.way, Way::Sync);
    trail.copied(copy.way, 1, Ok(()));
    assert_eq!(told(&mut trail), [(1, Ok(()))]);

    recorded(&mut trail, 10);
    trail.journal_ended(2, Ok(()));
    let copy = trail.next_copy().unwrap();
    trail.copied(copy.way, 2, Err("it is read only".to_owned()));
    assert!(trail.next_copy().is_none(), "the journal has it, and nothing is new");
    assert_eq!(told(&mut trail), [(2, Ok(()))]);
    recorded(&mut trail, 10);
    trail.journal_ended(3, Err("no space".to_owned()));
    let copy = trail.next_copy().unwrap();
    assert_eq!((copy.way, copy.up_to, copy.lines.starts_with(b"2")), (Way::Anew, 3, true));
    trail.copied(copy.way, 3, Err("it is read only".to_owned()));
    let lost = Err(Lost::Refused("no space; it is read only".to_owned()));
    assert_eq!(told(&mut trail), [(3, lost)]);
    assert!(trail.next_copy().is_none() && !trail.content().is_empty());
    // It is not forgotten for that.
    recorded(&mut trail, 10);
    trail.journal_ended(4, Ok(()));
    let copy = trail.next_copy().unwrap();
    assert_eq!((copy.way, copy.lines.starts_with(b"2")), (Way::Anew, true));
}

#[test]
fn more_than_may_be_held_is_refused_and_who_waits_too_long_is_told_so() {
    let mut trail = Trail::found(VecDeque::new(), Vec::new(), 0);
    while trail.size + 100_001 < HELD {
        recorded(&mut trail, 100_000);
    }
    let newest = trail.newest();
    let refused = trail.record(&99, |_| vec![b'x'; 100_000], Some(99), FAR);
    assert!(matches!(refused, Err((Some(99), Lost::NoRoom(_)))));
    assert_eq!(trail.newest(), newest);
    let late = trail.answers(FAR);
    assert!(late.len() as u64 == newest && late.iter().all(|(_, fate)| *fate == Err(Lost::Late)));
}

#[test]
fn what_an_older_core_left_goes_to_a_new_file_at_once() {
    let held = Held { number: 3, line: b"3\n".to_vec() };
    let mut trail: Trail<u64, u64> = Trail::found(VecDeque::from([held]), vec![(3, 30)], 4);
    assert_eq!(trail.newest(), 4);
    let copy = trail.next_copy().unwrap();
    assert_eq!(copy, Copy { way: Way::Anew, lines: b"3\n".to_vec(), up_to: 4 });
    trail.copied(Way::Anew, 4, Ok(()));
    assert!(trail.content().is_empty() && trail.is_settled());
    // The call that it is of is repeated, once; then it is another one.
    for newest in [4, 5] {
        trail.record(&30, |number| format!("{number}\n").into_bytes(), Some(30), FAR).unwrap();
        assert_eq!(trail.newest(), newest);
    }
    assert_eq!(told(&mut trail), [(30, Ok(()))]);
}
