//! Histories of borrowers and a lender over a network that delays, loses, doubles and reorders, where everybody is killed at
//! any moment; and what really is used in them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::ledger::{Due, Ledger, Lent, Terms, Untaken};
use super::purse::Purse;
use super::{HOLD, LEASE, MARGIN, Request};
use crate::policy::Rules;

type Who = usize;

const R: &str = "db-connections";
const BORROWERS: Who = 4;
const MOST: u32 = 12;
const PERIOD: Duration = Duration::from_secs(1);

/// Where the lender dies while it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    BeforeSave,
    AfterSave,
    BetweenAnswers,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// Nobody does anything; longer than a lease when the machine is suspended.
    Pass(u64),
    /// A borrower that has something to say sends it.
    Speak(Who),
    /// It says the same anew, as after a deadline.
    Repeat(Who),
    Take(Who),
    GiveBack(Who, usize),
    Want(Who, u32),
    Kill(Who),
    /// One of the requests on their way comes to the lender; `true`: and stays on its way.
    Arrive(usize, bool),
    Lose(usize),
    AnswerArrives(usize),
    LoseAnswer(usize),
    Settle,
    SettleUnsaved,
    KillLender(Option<Death>),
    /// The lender learns which processes are gone.
    Look,
    Period,
    Priority(Who, u8),
    Total(u32),
}

struct World {
    now: Duration,
    total: u32,
    /// Totals of before, and until when something may be used by them.
    before: VecDeque<(u32, Duration)>,
    terms: Vec<Terms>,
    process: Vec<u64>,
    purses: Vec<Purse>,
    used: Vec<Vec<u64>>,
    numbers: u64,
    requests: Vec<(Who, Request)>,
    answers: Vec<(Who, u64, u64, u32)>,
    ledger: Ledger<Who>,
    disk: Lent<Who>,
    /// The request of each that has no answer yet, in the memory of the lender.
    open: BTreeMap<Who, (u64, u64)>,
}

impl World {
    fn new(total: u32, terms: Vec<Terms>) -> Self {
        let now = Duration::from_secs(1000);
        let purse = |_| Purse::new(R.to_owned(), 1, 0);
        let mut world = Self {
            now,
            total,
            before: VecDeque::new(),
            terms,
            process: vec![1; BORROWERS],
            purses: (0..BORROWERS).map(purse).collect(),
            used: vec![Vec::new(); BORROWERS],
            numbers: 0,
            requests: Vec::new(),
            answers: Vec::new(),
            ledger: Ledger::new(&Lent::new(), now, now),
            disk: Lent::new(),
            open: BTreeMap::new(),
        };
        world.look();
        world
    }

    fn look(&mut self) {
        self.ledger.declare(&BTreeMap::from([(R.to_owned(), self.total)]));
        self.ledger.set_terms(|_, who| self.terms[*who]);
    }

    fn start_lender(&mut self) {
        self.ledger = Ledger::new(&self.disk, self.now, self.now);
        self.open.clear();
        self.look();
    }

    fn speak(&mut self, who: Who) {
        self.numbers += 1;
        let request = self.purses[who].ask(self.numbers, self.now);
        self.requests.push((who, request));
    }

    fn arrive(&mut self, who: Who, request: &Request) {
        match self.ledger.ask(self.now, who, request, self.terms[who]) {
            Ok(()) => drop(self.open.insert(who, (request.process, request.number))),
            Err(Untaken::Stale) => {}
            Err(error @ Untaken::NoSuchResource { .. }) => panic!("{error}"),
        }
    }

    fn settle(&mut self, death: Option<Death>, is_saved: bool) {
        let before = self.lent();
        let due = self.ledger.settle(self.now);
        let lent = self.lent();
        assert!(
            lent <= before.max(self.total),
            "{lent} of {} are lent, and {before} were before",
            self.total
        );
        if due.iter().any(|due| due.tokens > due.before_saved) && is_saved {
            let lent = self.ledger.to_save(self.now);
            if death == Some(Death::BeforeSave) {
                return self.start_lender();
            }
            self.disk = lent;
            if death == Some(Death::AfterSave) {
                return self.start_lender();
            }
            self.ledger.saved(&self.disk);
        }
        let last = if death.is_some() { due.len() / 2 } else { due.len() };
        for Due { to, tokens, before_saved, .. } in due.into_iter().take(last) {
            let (process, number) = self.open.remove(&to).expect("it asked");
            self.answers.push((to, process, number, if is_saved { tokens } else { before_saved }));
        }
        if death.is_some() {
            self.start_lender();
        }
    }

    fn answer(&mut self, (who, process, number, tokens): (Who, u64, u64, u32)) {
        if self.process[who] == process {
            self.purses[who].answered(number, tokens, LEASE);
        }
    }

    fn die(&mut self, who: Who) {
        self.process[who] += 1;
        self.purses[who] = Purse::new(R.to_owned(), self.process[who], 0);
        self.used[who].clear();
    }

    fn take(&mut self, who: Who) {
        if let Some(token) = self.purses[who].take(self.now) {
            assert!(self.purses[who].is_valid(token, self.now), "it is no use");
            self.used[who].push(token);
        }
    }

    fn set_total(&mut self, total: u32) {
        self.before.push_back((self.total, self.now + LEASE + MARGIN));
        self.total = total;
        self.look();
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Pass(millis) => self.now += Duration::from_millis(millis),
            Act::Speak(who) => {
                if self.purses[who].is_due(self.now) {
                    self.speak(who);
                }
            }
            Act::Repeat(who) => self.speak(who),
            Act::Take(who) => self.take(who),
            Act::GiveBack(who, which) => {
                if !self.used[who].is_empty() {
                    let at = which % self.used[who].len();
                    let token = self.used[who].remove(at);
                    self.purses[who].give_back(token);
                }
            }
            Act::Want(who, tokens) => self.purses[who].want(tokens),
            Act::Kill(who) => self.die(who),
            Act::Arrive(which, stays) => {
                if !self.requests.is_empty() {
                    let at = which % self.requests.len();
                    let (who, request) = self.requests[at].clone();
                    if !stays {
                        self.requests.swap_remove(at);
                    }
                    self.arrive(who, &request);
                }
            }
            Act::Lose(which) => {
                if !self.requests.is_empty() {
                    self.requests.swap_remove(which % self.requests.len());
                }
            }
            Act::AnswerArrives(which) => {
                if !self.answers.is_empty() {
                    let answer = self.answers.swap_remove(which % self.answers.len());
                    self.answer(answer);
                }
            }
            Act::LoseAnswer(which) => {
                if !self.answers.is_empty() {
                    self.answers.swap_remove(which % self.answers.len());
                }
            }
            Act::Settle => self.settle(None, true),
            Act::SettleUnsaved => self.settle(None, false),
            Act::KillLender(None) => self.start_lender(),
            Act::KillLender(death) => self.settle(death, true),
            Act::Look => {
                self.look();
                for (who, process) in self.process.iter().enumerate() {
                    self.ledger.gone(&who, process - 1);
                }
            }
            Act::Period => drop(self.ledger.period(&Rules::default())),
            Act::Priority(who, priority) => {
                self.terms[who].priority = priority;
                self.look();
            }
            Act::Total(total) => self.set_total(total),
        }
    }

    /// What really is in use.
    fn in_use(&mut self) -> u32 {
        let now = self.now;
        let valid = |(purse, used): (&mut Purse, &Vec<u64>)| {
            used.iter().filter(|token| purse.is_valid(**token, now)).count()
        };
        let all: usize = self.purses.iter_mut().zip(&self.used).map(valid).sum();
        u32::try_from(all).unwrap()
    }

    /// Each may come to use what the lender counts as lent to it, and no more: what all else follows from.
    fn check(&mut self) {
        let lent: BTreeMap<Who, u32> = self
            .ledger
            .shown(self.now)
            .flat_map(|(_, _, loans)| loans)
            .map(|loan| (loan.borrower, loan.lent))
            .collect();
        for (who, purse) in self.purses.iter().enumerate() {
            let (held, lent) = (purse.held(self.now), lent.get(&who).copied().unwrap_or(0));
            assert!(held <= lent, "{who} may use {held}, and {lent} count as lent to it");
        }
        let (used, allowed) = (self.in_use(), self.allowed());
        assert!(used <= allowed, "{used} of {allowed} are used");
    }

    /// The most that may be used: what there is, or was less than a lease ago.
    fn allowed(&mut self) -> u32 {
        self.before.retain(|(_, until)| *until > self.now);
        self.before.iter().map(|(total, _)| *total).chain([self.total]).max().unwrap()
    }

    /// Nothing is lost or late, and nobody dies; who may take takes, and gives back nothing by itself.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut period = self.now + PERIOD;
        self.requests.clear();
        self.answers.clear();
        while self.now < end {
            self.now += Duration::from_millis(100);
            if self.now >= period {
                period += PERIOD;
                self.act(Act::Look);
                self.act(Act::Period);
            }
            for who in 0..BORROWERS {
                // What was lost before is asked for again.
                if self.purses[who].is_due(self.now) || self.now + PERIOD > end {
                    self.speak(who);
                }
            }
            for (who, request) in std::mem::take(&mut self.requests) {
                self.arrive(who, &request);
            }
            self.settle(None, true);
            for answer in std::mem::take(&mut self.answers) {
                self.answer(answer);
            }
            for who in 0..BORROWERS {
                (0..MOST).for_each(|_| self.take(who));
            }
            self.check();
        }
    }

    /// A deadline passed for all that was asked.
    fn give_up_waiting(&mut self) {
        for who in 0..BORROWERS {
            self.speak(who);
        }
        for (who, request) in std::mem::take(&mut self.requests) {
            self.arrive(who, &request);
        }
    }

    fn limits(&self) -> Vec<u32> {
        self.purses.iter().map(|purse| purse.limit(self.now)).collect()
    }

    fn lent(&self) -> u32 {
        self.ledger.shown(self.now).flat_map(|(_, _, loans)| loans).map(|loan| loan.lent).sum()
    }
}

fn act() -> impl Strategy<Value = Act> {
    let (who, which) = (0..BORROWERS, any::<usize>());
    let death = prop::option::of(prop::sample::select(vec![
        Death::BeforeSave,
        Death::AfterSave,
        Death::BetweenAnswers,
    ]));
    prop_oneof![
        6 => (0_u64..3000).prop_map(Act::Pass),
        1 => (10_000_u64..20_000).prop_map(Act::Pass),
        12 => who.clone().prop_map(Act::Speak),
        2 => who.clone().prop_map(Act::Repeat),
        16 => who.clone().prop_map(Act::Take),
        6 => (who.clone(), which).prop_map(|(who, which)| Act::GiveBack(who, which)),
        4 => (who.clone(), 0..=MOST).prop_map(|(who, tokens)| Act::Want(who, tokens)),
        2 => who.clone().prop_map(Act::Kill),
        12 => any::<usize>().prop_map(|which| Act::Arrive(which, false)),
        4 => any::<usize>().prop_map(|which| Act::Arrive(which, true)),
        2 => any::<usize>().prop_map(Act::Lose),
        12 => any::<usize>().prop_map(Act::AnswerArrives),
        2 => any::<usize>().prop_map(Act::LoseAnswer),
        12 => Just(Act::Settle),
        1 => Just(Act::SettleUnsaved),
        2 => death.prop_map(Act::KillLender),
        2 => Just(Act::Look),
        4 => Just(Act::Period),
        1 => (who, 0_u8..5).prop_map(|(who, priority)| Act::Priority(who, priority)),
        1 => (1..=MOST).prop_map(Act::Total),
    ]
}

fn terms() -> impl Strategy<Value = Vec<Terms>> {
    let one = (0_u8..5, prop_oneof![2 => Just(0_u32), 1 => 1..=MOST / 4]);
    let one = one.prop_map(|(priority, guaranteed)| Terms { priority, guaranteed });
    prop::collection::vec(one, BORROWERS)
}

fn history() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..250)
}

fn after(total: u32, terms: Vec<Terms>, acts: Vec<Act>) -> World {
    let mut world = World::new(total, terms);
    acts.into_iter().for_each(|act| world.act(act));
    world
}

proptest! {
    #[test]
    fn never_are_more_used_than_there_are(total in 1..=MOST, terms in terms(), acts in history()) {
        let mut world = World::new(total, terms);
        for act in acts {
            world.act(act);
            world.in_use();
            world.check();
        }
    }

    #[test]
    fn none_is_lost(total in 1..=MOST, terms in terms(), acts in history(), who in 0..BORROWERS, how in 0..3) {
        let mut world = after(total, terms, acts);
        world.requests.clear();
        match how {
            // All die, and the lender is told.
            0 => {
                (0..BORROWERS).for_each(|who| world.die(who));
                world.act(Act::Look);
            }
            // All fall silent.
            1 => {
                world.now += HOLD;
                world.settle(None, true);
                world.now += LEASE + MARGIN;
                world.settle(None, true);
                (0..BORROWERS).for_each(|who| world.die(who));
            }
            // All give back.
            _ => {
                for who in 0..BORROWERS {
                    std::mem::take(&mut world.used[who]).into_iter().for_each(|token| world.purses[who].give_back(token));
                    world.purses[who].want(0);
                }
                world.give_up_waiting();
            }
        }
        prop_assert_eq!(world.lent(), 0);
        world.purses[who].want(MOST);
        // Nobody else says anything.
        world.speak(who);
        let (_, request) = world.requests.pop().unwrap();
        world.arrive(who, &request);
        world.settle(None, true);
        std::mem::take(&mut world.answers).into_iter().for_each(|answer| world.answer(answer));
        let total = world.total;
        prop_assert_eq!(world.limits()[who], total);
    }

    #[test]
    fn who_is_guaranteed_or_matters_more_has_its_tokens_within_a_lease_and_some_periods(
        total in MOST..=2 * MOST, terms in terms(), acts in history(),
        wanted in prop::collection::vec(0..=2 * MOST, BORROWERS), wants in prop::collection::vec(0..=2 * MOST, BORROWERS),
    ) {
        let mut world = after(total, terms, acts);
        world.set_total(total);
        // Some have what others come to want.
        (0..BORROWERS).for_each(|who| world.purses[who].want(wanted[who]));
        world.give_up_waiting();
        world.run(PERIOD / 2);
        (0..BORROWERS).for_each(|who| world.purses[who].want(wants[who]));
        world.give_up_waiting();
        // Holders give back nothing by themselves: what is asked back ends with its lease.
        world.run(LEASE + MARGIN + HOLD + PERIOD);
        let limits = world.limits();
        for (who, limit) in limits.iter().enumerate() {
            let least = wants[who].min(world.terms[who].guaranteed);
            prop_assert!(*limit >= least, "{} has {} of {} that are its", who, limit, least);
        }
        // Each time something moves it takes two periods, and halves what one has too much.
        world.run(LEASE + MARGIN + HOLD + 2 * 5 * u32::try_from(BORROWERS).unwrap() * PERIOD);
        let limits = world.limits();
        for (high, limit) in limits.iter().enumerate().filter(|(who, limit)| **limit < wants[*who]) {
            for (low, terms) in world.terms.iter().enumerate() {
                let is_below = terms.priority < world.terms[high].priority;
                prop_assert!(
                    !is_below || limits[low] <= terms.guaranteed,
                    "{high} waits with {limit}, {low} has {}: {:?}", limits[low], world.terms
                );
            }
        }
        let wanted: u32 = wants.iter().sum();
        prop_assert_eq!(limits.iter().sum::<u32>(), wanted.min(total), "none lies idle");
        for _ in 0..20 {
            world.run(PERIOD);
            prop_assert_eq!(world.limits(), limits.clone(), "it rests");
        }
    }
}

#[test]
fn the_lowest_priority_gives_first_and_for_a_guarantee_also_the_highest() {
    let terms = |priority, guaranteed| Terms { priority, guaranteed };
    let mut world = World::new(6, vec![terms(1, 0), terms(2, 0), terms(3, 0), terms(0, 2)]);
    (0..3).for_each(|who| world.purses[who].want(2));
    world.run(PERIOD);
    assert_eq!(world.limits(), [2, 2, 2, 0]);
    world.purses[3].want(3);
    world.run(2 * PERIOD);
    assert_eq!(world.limits()[..3], [0, 2, 2], "no period has to pass for what is guaranteed");
    world.purses[2].want(3);
    world.run(LEASE + MARGIN);
    assert_eq!(world.limits(), [0, 1, 3, 2]);
}
