//! A machine that is made up: it shares what there is among those who want it, as a scheduler does, and obeys the policy.

use std::collections::BTreeMap;

use crate::policy::{Allowance, Move, Pool, Remembered, Rules, Seen};

/// One resource of it, and what is wanted of that.
///
/// What is wanted goes round equally, up to what each is let have; who is [the last](Allowance::Last) gets the rest. Who
/// gets less than it wants by a [step](Pool::step) is short.
#[derive(Debug, Clone)]
pub struct Machine<Name> {
    /// What there is, and for whom.
    pub pool: Pool<Name>,
    /// How patient the policy is.
    pub rules: Rules,
    /// What it remembers.
    pub remembered: Remembered<Name>,
    /// What each wants.
    pub wanted: BTreeMap<Name, u64>,
}

impl<Name: Ord + Clone> Machine<Name> {
    /// At rest.
    pub fn new(pool: Pool<Name>) -> Self {
        let wanted = pool.parties.keys().map(|name| (name.clone(), 0)).collect();
        Self { pool, rules: Rules::default(), remembered: Remembered::default(), wanted }
    }

    /// What each gets.
    pub fn used(&self) -> BTreeMap<Name, u64> {
        let mut used = BTreeMap::new();
        let mut left = self.pool.total;
        for is_last in [false, true] {
            let in_turn = |name: &Name| (self.remembered.allowance(name) == Allowance::Last) == is_last;
            let bounded = |(name, wanted): (&Name, &u64)| {
                (name.clone(), (*wanted).min(self.remembered.allowance(name).most(self.pool.total)))
            };
            let mut open: Vec<_> =
                self.wanted.iter().filter(|(name, _)| in_turn(name)).map(bounded).collect();
            // The most modest first: what they leave is shared among the others.
            open.sort_by_key(|(_, wanted)| std::cmp::Reverse(*wanted));
            while let Some((name, wanted)) = open.pop() {
                let got = wanted.min(left / (open.len() as u64 + 1));
                left -= got;
                used.insert(name, got);
            }
        }
        used
    }

    /// As the policy sees it: one that was stopped does not run.
    pub fn seen(&self) -> BTreeMap<Name, Seen> {
        let used = self.used();
        let runs = used.into_iter().filter(|(name, _)| self.remembered.allowance(name) != Allowance::Stopped);
        runs.map(|(name, used)| {
            let is_short = self.wanted[&name] >= used + self.pool.step;
            (name, Seen { used, is_short })
        })
        .collect()
    }

    /// A period ends: what the policy moves.
    pub fn period(&mut self) -> Vec<Move<Name>> {
        let seen = self.seen();
        self.pool.decide(&self.rules, &seen, false, &mut self.remembered)
    }
}
