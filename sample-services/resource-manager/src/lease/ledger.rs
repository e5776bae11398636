//! The lender's side: who has how many tokens of what, and who gets how many. Pure: time is an argument.
//!
//! ```text
//!  asks, totals, priorities, who is gone        a period ended
//!                 └────────────┐                 ┌─────┘ the policy: how far one may be pushed down
//!                             plan: what each is to have, all together not more than there is
//!                 ┌────────────┘
//!         settle: what each is told, once what others had of it is back
//! ```
//! It counts as lent to a borrower the most that one may be using, whatever of the answers to it arrived. So what may be
//! used never is more than there is; the model in `tests` says so of histories with every loss and every death in them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::{Move, Party, Pool, Remembered, Rules, Seen};

use super::steps::Steps;
use super::{HOLD, LEASE, MARGIN, Request};

/// What of it must outlive the lender, by resource and borrower.
pub type Lent<Name> = BTreeMap<String, BTreeMap<Name, Entry>>;

/// The most that one borrower may be using.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// Which process of it.
    pub process: u64,
    /// The last of its requests that is in this.
    pub number: u64,
    /// How many.
    pub tokens: u32,
}

/// What one borrower is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The higher, the more it matters.
    pub priority: u8,
    /// It is not asked to give back below this.
    pub guaranteed: u32,
}

/// An answer that is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<Name> {
    /// Of which resource.
    pub resource: String,
    /// To whom.
    pub to: Name,
    /// How many tokens it is let have from now on.
    pub tokens: u32,
    /// So many can be told before [`Ledger::to_save`] is on disk; `tokens` only after.
    pub before_saved: u32,
    /// What it was let have, by its own word.
    pub known: u32,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    /// A newer one of the same borrower was.
    #[error("a newer request of it was taken")]
    Stale,
    /// Nobody declares it.
    #[error("no service declares `{name}`{}", .nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    NoSuchResource {
        /// As asked for.
        name: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
}

/// Who has what. One is made anew by each process of the lender, from what the one before it has on disk.
#[derive(Debug, Clone)]
pub struct Ledger<Name> {
    shared: BTreeMap<String, Shared<Name>>,
    /// Before this nothing is lent: what is lent may not be known.
    closed_until: Duration,
}

/// One resource.
#[derive(Debug, Clone)]
struct Shared<Name> {
    total: u32,
    loans: BTreeMap<Name, Loan>,
    remembered: Remembered<Name>,
}

/// One borrower of it.
#[derive(Debug, Clone)]
struct Loan {
    process: u64,
    number: u64,
    wanted: u32,
    /// What it was told last, by its own word.
    known: u32,
    /// What it is to have.
    target: u32,
    /// What it may be using.
    steps: Steps,
    /// So many of those are on disk as lent, and it did not say since that it uses fewer.
    saved: u32,
    terms: Terms,
    heard: Duration,
    /// Since when its newest request has no answer.
    asked: Option<Duration>,
    /// Since when it is to have less than it wants.
    waits: Option<Duration>,
}

/// What one borrower has of one resource, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaned<Name> {
    /// Who.
    pub borrower: Name,
    /// What it is worth.
    pub terms: Terms,
    /// What it would like to have.
    pub wanted: u32,
    /// What it may be using.
    pub lent: u32,
    /// What of that it was asked to give back.
    pub asked_back: u32,
}

impl<Name: Ord + Clone> Ledger<Name> {
    /// All that is found counts as lent for one lease more. `closed_until`: nothing is lent before.
    pub fn new(found: &Lent<Name>, now: Duration, closed_until: Duration) -> Self {
        let loan = |entry: &Entry| Loan {
            process: entry.process,
            number: entry.number,
            wanted: entry.tokens,
            known: entry.tokens,
            target: entry.tokens,
            steps: Steps::of(entry.tokens, now + LEASE + MARGIN),
            saved: entry.tokens,
            terms: Terms { priority: 0, guaranteed: 0 },
            heard: now,
            asked: None,
            waits: None,
        };
        let shared = found.iter().map(|(name, loans)| {
            let loans = loans.iter().map(|(who, entry)| (who.clone(), loan(entry))).collect();
            (name.clone(), Shared { total: 0, loans, remembered: Remembered::default() })
        });
        Self { shared: shared.collect(), closed_until }
    }

    /// What there is by now. What is not there any more is asked back.
    pub fn declare(&mut self, totals: &BTreeMap<String, u32>) {
        for (name, shared) in &mut self.shared {
            shared.total = totals.get(name).copied().unwrap_or(0);
        }
        for (name, total) in totals {
            let new = || Shared { total: *total, loans: BTreeMap::new(), remembered: Remembered::default() };
            self.shared.entry(name.clone()).or_insert_with(new);
        }
    }

    /// What each borrower is worth by now, by resource and name.
    pub fn set_terms(&mut self, terms: impl Fn(&str, &Name) -> Terms) {
        for (resource, shared) in &mut self.shared {
            shared.loans.iter_mut().for_each(|(name, loan)| loan.terms = terms(resource, name));
        }
    }

    /// This process of a borrower is gone, and all before it: what it had is free.
    pub fn gone(&mut self, who: &Name, process: u64) {
        for shared in self.shared.values_mut() {
            if shared.loans.get(who).is_some_and(|loan| loan.process <= process) {
                shared.loans.remove(who);
            }
        }
    }

    /// Takes a request; [`settle`](Self::settle) answers it. It stands for all of this borrower that have no answer yet.
    ///
    /// # Errors
    /// [`Untaken`]: nothing changed.
    pub fn ask(&mut self, now: Duration, who: Name, asked: &Request, terms: Terms) -> Result<(), Untaken> {
        let Request { ref resource, process, number, wanted, limit, held } = *asked;
        let is_there = |shared: &Shared<Name>| shared.total > 0 || held > 0;
        if !self.shared.get(resource).is_some_and(is_there) {
            let known = self.shared.iter().filter(|(_, shared)| shared.total > 0);
            let nearest = super::nearest(resource, known.map(|(name, _)| name.as_str()));
            return Err(Untaken::NoSuchResource { name: resource.clone(), nearest });
        }
        let shared = self.shared.get_mut(resource).expect("it is there");
        let before = shared.loans.get(&who);
        if before.is_some_and(|loan| (loan.process, loan.number) >= (process, number)) {
            return Err(Untaken::Stale);
        }
        // A new process starts when nothing of the one before it is left: what that had is free.
        let before = before.filter(|loan| loan.process == process);
        let (mut steps, saved, target, waits) = match before {
            Some(loan) => (loan.steps.clone(), loan.saved.min(held), loan.target, loan.waits),
            None => (Steps::default(), 0, held, None),
        };
        steps.give_back(held);
        if steps.at(now) < held {
            // Nobody here knows why it has them, but it says so.
            steps.grant(held, now + LEASE + MARGIN);
        }
        let (known, heard, asked) = (limit, now, Some(now));
        let loan = Loan { process, number, wanted, known, target, steps, saved, terms, heard, asked, waits };
        shared.loans.insert(who, loan);
        Ok(())
    }

    /// A period ended: the policy says how far each may be pushed down for others.
    pub fn period(&mut self, rules: &Rules) -> Vec<(String, Move<Name>)> {
        let mut moves = Vec::new();
        for (resource, shared) in self.shared.iter_mut().filter(|(_, shared)| shared.total > 0) {
            let (pool, seen) = (shared.pool(), shared.seen());
            let moved = pool.decide(rules, &seen, false, &mut shared.remembered);
            moves.extend(moved.into_iter().map(|one| (resource.clone(), one)));
        }
        moves
    }

    /// Lends what is free, asks back what others are to have, and answers who has to know. What is answered counts as lent
    /// from here on.
    pub fn settle(&mut self, now: Duration) -> Vec<Due<Name>> {
        let mut due = Vec::new();
        let is_closed = now < self.closed_until;
        for (resource, shared) in &mut self.shared {
            shared.forget(now);
            shared.plan(now);
            for (to, tokens, known) in shared.answers(now, is_closed) {
                let before_saved = tokens.min(shared.loans[&to].saved);
                due.push(Due { resource: resource.clone(), to, tokens, before_saved, known });
            }
        }
        self.shared.retain(|_, shared| shared.total > 0 || !shared.loans.is_empty());
        due
    }

    /// When to [`settle`](Self::settle) again, if nothing else happens.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let loans = self.shared.values().flat_map(|shared| shared.loans.values());
        let next = loans.flat_map(|loan| [loan.steps.next(now), loan.asked.map(|asked| asked + HOLD)]);
        next.flatten().min()
    }

    /// What must be on disk before an answer that lends more.
    pub fn to_save(&self, now: Duration) -> Lent<Name> {
        let entry = |loan: &Loan| {
            let Loan { process, number, .. } = *loan;
            Entry { process, number, tokens: loan.steps.at(now) }
        };
        let of = |shared: &Shared<Name>| -> BTreeMap<Name, Entry> {
            let lent = shared.loans.iter().map(|(who, loan)| (who.clone(), entry(loan)));
            lent.filter(|(_, entry)| entry.tokens > 0).collect()
        };
        let lent = self.shared.iter().map(|(name, shared)| (name.clone(), of(shared)));
        lent.filter(|(_, loans)| !loans.is_empty()).collect()
    }

    /// This is on disk.
    pub fn saved(&mut self, lent: &Lent<Name>) {
        for (resource, entries) in lent {
            let Some(shared) = self.shared.get_mut(resource) else { continue };
            for (who, entry) in entries {
                let is_it = |loan: &&mut Loan| (loan.process, loan.number) == (entry.process, entry.number);
                if let Some(loan) = shared.loans.get_mut(who).filter(is_it) {
                    loan.saved = entry.tokens;
                }
            }
        }
    }

    /// What there is, and who has it, by resource.
    pub fn shown(&self, now: Duration) -> impl Iterator<Item = (&str, u32, Vec<Loaned<Name>>)> {
        let one = move |(who, loan): (&Name, &Loan)| Loaned {
            borrower: who.clone(),
            terms: loan.terms,
            wanted: loan.wanted,
            lent: loan.steps.at(now),
            asked_back: loan.steps.at(now).saturating_sub(loan.target),
        };
        self.shared
            .iter()
            .map(move |(name, shared)| (name.as_str(), shared.total, shared.loans.iter().map(one).collect()))
    }
}

impl<Name: Ord + Clone> Shared<Name> {
    fn pool(&self) -> Pool<Name> {
        let party = |loan: &Loan| Party {
            priority: loan.terms.priority,
            guaranteed: loan.terms.guaranteed.into(),
            may_be_last: false,
            may_freeze: false,
            may_stop: false,
        };
        let parties = self.loans.iter().map(|(name, loan)| (name.clone(), party(loan))).collect();
        Pool { total: self.total.into(), step: 1, floor: 0, parties }
    }

    fn seen(&self) -> BTreeMap<Name, Seen> {
        let seen = |loan: &Loan| Seen { used: loan.target.into(), is_short: loan.wanted > loan.target };
        self.loans.iter().map(|(name, loan)| (name.clone(), seen(loan))).collect()
    }

    /// Who was not heard for a lease has nothing, and wants nothing.
    fn forget(&mut self, now: Duration) {
        self.loans.retain(|_, loan| {
            loan.asked.is_some() || loan.steps.at(now) > 0 || now < loan.heard + LEASE + MARGIN
        });
    }

    /// What each is to have, all together not more than there is.
    fn plan(&mut self, now: Duration) {
        for loan in self.loans.values_mut() {
            loan.target = loan.target.min(loan.wanted);
        }
        let planned: u64 = self.loans.values().map(|loan| u64::from(loan.target)).sum();
        let total = u64::from(self.total);
        let over = u32::try_from(planned.saturating_sub(total)).unwrap_or(u32::MAX);
        let over = over - self.push_down(over, |_, loan| Some(loan.terms.guaranteed));
        self.push_down(over, |_, _| Some(0));
        let waiting = self.waiting();
        let mut spare = u32::try_from(total.saturating_sub(planned)).expect("below the total");
        for name in &waiting {
            let loan = &self.loans[name];
            let short = loan.wanted.min(loan.terms.guaranteed).saturating_sub(loan.target);
            let from_spare = short.min(spare);
            spare -= from_spare;
            // What is guaranteed comes before every priority.
            let surplus = |other: &Name, loan: &Loan| (other != name).then_some(loan.terms.guaranteed);
            let got = from_spare + self.push_down(short - from_spare, surplus);
            self.loans.get_mut(name).expect("it waits").target += got;
        }
        let caps: BTreeMap<Name, u32> =
            self.loans.keys().map(|name| (name.clone(), self.cap(name))).collect();
        for name in &waiting {
            let Loan { wanted, target, terms, .. } = self.loans[name];
            let short = wanted - target;
            let from_spare = short.min(spare);
            spare -= from_spare;
            let below = |other: &Name, loan: &Loan| {
                (loan.terms.priority < terms.priority).then_some(loan.terms.guaranteed.max(caps[other]))
            };
            let got = from_spare + self.push_down(short - from_spare, below);
            self.loans.get_mut(name).expect("it waits").target += got;
        }
        for loan in self.loans.values_mut() {
            let since = loan.waits.unwrap_or(now);
            loan.waits = (loan.target < loan.wanted).then_some(since);
        }
    }

    /// How far the policy lets it be pushed down.
    fn cap(&self, name: &Name) -> u32 {
        let most = self.remembered.allowance(name).most(self.total.into());
        u32::try_from(most).expect("not more than there is")
    }

    /// Who is to have less than it wants: the highest priority first, then who waits longest.
    fn waiting(&self) -> Vec<Name> {
        let mut waiting: Vec<_> = self.loans.iter().filter(|(_, loan)| loan.target < loan.wanted).collect();
        waiting.sort_by_key(|(_, loan)| (Reverse(loan.terms.priority), loan.waits.unwrap_or(Duration::MAX)));
        waiting.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Takes so many from what others are to have, the lowest priority first, and says how many there were. `least` says
    /// what one is left; `None`: it is not taken from.
    fn push_down(&mut self, need: u32, least: impl Fn(&Name, &Loan) -> Option<u32>) -> u32 {
        let mut left = need;
        let mut loans: Vec<_> = if need > 0 { self.loans.iter_mut().collect() } else { Vec::new() };
        loans.sort_by_key(|(_, loan)| (loan.terms.priority, Reverse(loan.target)));
        for (name, loan) in loans {
            let Some(least) = least(name, loan) else { continue };
            let taken = loan.target.saturating_sub(least).min(left);
            loan.target -= taken;
            left -= taken;
        }
        need - left
    }

    /// Who is told how many, and how many it knew of.
    fn answers(&mut self, now: Duration, is_closed: bool) -> Vec<(Name, u32, u32)> {
        let lent: u64 = self.loans.values().map(|loan| u64::from(loan.steps.at(now))).sum();
        let free = u64::from(self.total).saturating_sub(lent);
        let mut free = if is_closed { 0 } else { u32::try_from(free).expect("not more than there is") };
        let mut order: Vec<(&Name, &mut Loan)> = self.loans.iter_mut().collect();
        let is_below = |loan: &Loan| loan.steps.at(now) < loan.wanted.min(loan.terms.guaranteed);
        order.sort_by_key(|(_, loan)| (!is_below(loan), Reverse(loan.terms.priority), loan.waits));
        let mut answers = Vec::new();
        for (name, loan) in order {
            let Some(asked) = loan.asked else { continue };
            let lent = loan.steps.at(now);
            let tokens = loan.target.min(lent.saturating_add(free));
            if tokens == loan.known && now < asked + HOLD {
                continue;
            }
            free -= tokens.saturating_sub(lent);
            loan.steps.grant(tokens, now + LEASE + MARGIN);
            loan.asked = None;
            answers.push((name.clone(), tokens, loan.known));
        }
        answers
    }
}
