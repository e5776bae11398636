//! One resource, and who shares it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Allowance;

/// A resource that several want.
#[derive(Debug, Clone)]
pub struct Pool<Name> {
    /// How much there is.
    pub total: u64,
    /// The smallest amount that is worth a move.
    pub step: u64,
    /// What a party is left in any case: enough to go on at all.
    pub floor: u64,
    /// Who shares it.
    pub parties: BTreeMap<Name, Party>,
}

/// One who shares it, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// The higher, the more it matters.
    pub priority: u8,
    /// It is never pushed below this.
    pub guaranteed: u64,
    /// It can be weighed below all others: a step before it is capped.
    pub may_be_last: bool,
    /// It may be frozen when it has nothing left to lose. Not where something is guaranteed.
    pub may_freeze: bool,
    /// It may be stopped when even that was not enough. Not where something is guaranteed.
    pub may_stop: bool,
}

/// What was seen of one in the period that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// What it used.
    pub used: u64,
    /// It got less than it wanted.
    pub is_short: bool,
}

/// How patient the policy is; in periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Somebody is short when it was so for this many periods running, the first of them after the last step down.
    pub short: u32,
    /// What was taken from a party is given back when nobody above it was short for this many periods.
    pub calm: u32,
    /// Hundredths of the whole that stay unused when something is given back.
    pub reserve: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { short: 2, calm: 3, reserve: 10 }
    }
}

/// A party that was frozen or stopped is let go on after so many times [`Rules::calm`] at the most.
const LONGEST: u32 = 1 << 10;

/// One change of what a party is let have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move<Name> {
    /// Whose.
    pub of: Name,
    /// What it was let have.
    pub from: Allowance,
    /// What it is let have from now on.
    pub to: Allowance,
    /// Why.
    pub why: Why<Name>,
}

/// Why something was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why<Name> {
    /// This one is short; `None`: the machine is.
    ShortIs(Option<Name>),
    /// So much is unused.
    Unused(u64),
    /// It is configured otherwise than when it was taken from.
    Configured,
}

/// What is remembered from one period to the next.
#[derive(Debug, Clone)]
pub struct Remembered<Name> {
    parties: BTreeMap<Name, Standing>,
    /// Periods for which the machine was short.
    machine: u32,
}

#[derive(Debug, Clone)]
struct Standing {
    allowance: Allowance,
    /// Periods for which it was short.
    short: u32,
    /// Periods for which nobody above it was.
    quiet: u32,
    /// What it used when somebody was short.
    too_much: Option<TooMuch>,
}

/// What one used when somebody was short.
#[derive(Debug, Clone, Copy)]
struct TooMuch {
    amount: u64,
    /// Whose use is the reason for it.
    of: Others,
    /// The most that those have used since.
    demand: u64,
    /// How often it was frozen or stopped for it.
    times: u32,
}

/// For whom something was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Those of higher priority: they were short.
    Above,
    /// Those of any other priority: the machine was short.
    Beside,
}

impl Standing {
    const FREE: Self = Self { allowance: Allowance::Free, short: 0, quiet: 0, too_much: None };
}

impl<Name> Default for Remembered<Name> {
    fn default() -> Self {
        Self { parties: BTreeMap::new(), machine: 0 }
    }
}

impl<Name: Ord + Clone> Remembered<Name> {
    /// What it is let have.
    pub fn allowance(&self, name: &Name) -> Allowance {
        self.parties.get(name).map_or(Allowance::Free, |standing| standing.allowance)
    }

    /// Takes note of what is in force, as found by one who remembers nothing.
    pub fn found(&mut self, name: Name, allowance: Allowance) {
        self.parties.insert(name, Standing { allowance, ..Standing::FREE });
    }

    /// Those that were taken from, and what they are let have.
    pub fn taken(&self) -> impl Iterator<Item = (&Name, Allowance)> {
        let taken = self.parties.iter().filter(|(_, standing)| standing.allowance != Allowance::Free);
        taken.map(|(name, standing)| (name, standing.allowance))
    }
}

impl<Name: Ord + Clone> Pool<Name> {
    /// One period ended: what was seen in it, and whether the machine itself is short, which comes before everybody.
    /// A party that was not seen does not run. The moves are remembered as done.
    pub fn decide(
        &self,
        rules: &Rules,
        seen: &BTreeMap<Name, Seen>,
        machine_is_short: bool,
        remembered: &mut Remembered<Name>,
    ) -> Vec<Move<Name>> {
        let mut moves = self.as_configured(remembered);
        self.note(seen, machine_is_short, remembered);
        let taken = self.take_for_the_first(rules, seen, remembered);
        if taken.is_empty() {
            moves.extend(self.give_back(rules, seen, remembered));
        } else {
            // What follows from it is seen from here on.
            remembered.parties.values_mut().for_each(|standing| standing.short = 0);
            remembered.machine = 0;
            moves.extend(taken);
        }
        moves
    }

    /// Who left is forgotten, and nobody stays below what it is guaranteed by now.
    fn as_configured(&self, remembered: &mut Remembered<Name>) -> Vec<Move<Name>> {
        remembered.parties.retain(|name, _| self.parties.contains_key(name));
        let mut moves = Vec::new();
        for (name, party) in &self.parties {
            let standing = remembered.parties.entry(name.clone()).or_insert(Standing::FREE);
            let least = self.least(party);
            let to = match standing.allowance {
                Allowance::Stopped if !party.may_be_stopped() => Allowance::Capped(least),
                Allowance::Frozen if !party.may_be_frozen() => Allowance::Capped(least),
                Allowance::Capped(amount) => Allowance::Capped(amount.max(least)),
                other => other,
            };
            if to != standing.allowance {
                let from = std::mem::replace(&mut standing.allowance, to);
                moves.push(Move { of: name.clone(), from, to, why: Why::Configured });
            }
        }
        moves
    }

    fn note(&self, seen: &BTreeMap<Name, Seen>, machine_is_short: bool, remembered: &mut Remembered<Name>) {
        let count = |before: u32, counts: bool| if counts { before.saturating_add(1) } else { 0 };
        remembered.machine = count(remembered.machine, machine_is_short);
        let is_short = |name: &Name| seen.get(name).is_some_and(|seen| seen.is_short);
        let short = self.parties.iter().filter(|(name, _)| is_short(name));
        let highest = short.map(|(_, party)| party.priority).max();
        for (name, party) in &self.parties {
            let standing = remembered.parties.get_mut(name).expect("all were entered");
            standing.short = count(standing.short, is_short(name));
            let is_quiet = !machine_is_short && highest.is_none_or(|highest| highest <= party.priority);
            standing.quiet = count(standing.quiet, is_quiet);
            let Some(then) = &mut standing.too_much else { continue };
            let demand = self.demand(then.of, party.priority, seen);
            then.demand = then.demand.max(demand);
            let is_gone = match then.of {
                Others::Above => standing.quiet > 0 && demand <= then.demand / 2,
                Others::Beside => demand < then.demand / 2,
            };
            if is_gone {
                standing.too_much = None;
            }
        }
    }

    /// One step down, for the one who matters most of those that are short and for whom somebody has something to lose.
    fn take_for_the_first(
        &self,
        rules: &Rules,
        seen: &BTreeMap<Name, Seen>,
        remembered: &mut Remembered<Name>,
    ) -> Vec<Move<Name>> {
        if remembered.machine >= rules.short {
            return self.take(seen, None, remembered);
        }
        let lasting = |name: &Name| remembered.parties[name].short >= rules.short;
        let mut short: Vec<_> = self.parties.iter().filter(|(name, _)| lasting(name)).collect();
        short.sort_by_key(|(_, party)| Reverse(party.priority));
        short
            .into_iter()
            .map(|one| self.take(seen, Some(one), remembered))
            .find(|moves| !moves.is_empty())
            .unwrap_or_default()
    }

    /// One step down for those of the lowest priority, below that of `who`, that have something to lose.
    fn take(
        &self,
        seen: &BTreeMap<Name, Seen>,
        who: Option<(&Name, &Party)>,
        remembered: &mut Remembered<Name>,
    ) -> Vec<Move<Name>> {
        let mut steps: Vec<(&Name, &Party, Allowance)> = Vec::new();
        for (name, party) in &self.parties {
            let is_below = who.is_none_or(|(_, who)| party.priority < who.priority);
            // One that does not run has nothing.
            let (true, Some(seen)) = (is_below, seen.get(name)) else { continue };
            if let Some(to) = self.less(party, remembered.parties[name].allowance, seen.used) {
                steps.push((name, party, to));
            }
        }
        let Some(lowest) = steps.iter().map(|(_, party, _)| party.priority).min() else { return Vec::new() };
        let of = if who.is_some() { Others::Above } else { Others::Beside };
        let demand = self.demand(of, lowest, seen);
        let why = || Why::ShortIs(who.map(|(name, _)| name.clone()));
        let mut moves = Vec::new();
        for (name, _, to) in steps.into_iter().filter(|(_, party, _)| party.priority == lowest) {
            let standing = remembered.parties.get_mut(name).expect("all were entered");
            let from = std::mem::replace(&mut standing.allowance, to);
            let before = standing.too_much;
            // One that stands still uses nothing, which says nothing.
            let used =
                if from > Allowance::Frozen { seen[name].used.min(from.most(self.total)) } else { u64::MAX };
            standing.too_much = Some(TooMuch {
                amount: before.map_or(used, |before| before.amount.min(used)),
                of,
                demand,
                times: before.map_or(0, |before| before.times) + u32::from(to <= Allowance::Frozen),
            });
            moves.push(Move { of: name.clone(), from, to, why: why() });
        }
        moves
    }

    /// The next step down; `None`: it has nothing to lose.
    fn less(&self, party: &Party, now: Allowance, used: u64) -> Option<Allowance> {
        let least = self.least(party);
        let surplus = used.saturating_sub(least);
        let half = |of: u64| (of / 2).max(self.step).min(of);
        match now {
            Allowance::Free if surplus > 0 && party.may_be_last => Some(Allowance::Last),
            Allowance::Free | Allowance::Last if surplus > 0 => Some(Allowance::Capped(used - half(surplus))),
            // A lower cap would not be obeyed either.
            Allowance::Capped(cap) if self.exceeds(used, cap) && party.may_be_frozen() => {
                Some(Allowance::Frozen)
            }
            Allowance::Capped(cap) if self.exceeds(used, cap) && party.may_be_stopped() => {
                Some(Allowance::Stopped)
            }
            Allowance::Capped(cap) if cap > least && surplus > 0 => {
                // It may use more than that: a cap on memory is not obeyed at once.
                let from = used.min(cap);
                Some(Allowance::Capped(from - half(from - least)))
            }
            Allowance::Capped(cap) if cap <= least && used > 0 && party.may_be_frozen() => {
                Some(Allowance::Frozen)
            }
            Allowance::Capped(cap) if cap <= least && used > 0 && party.may_be_stopped() => {
                Some(Allowance::Stopped)
            }
            Allowance::Frozen if party.may_be_stopped() => Some(Allowance::Stopped),
            Allowance::Free
            | Allowance::Last
            | Allowance::Capped(_)
            | Allowance::Frozen
            | Allowance::Stopped => None,
        }
    }

    /// One step up for those of the highest priority that lost something and can have it back.
    fn give_back(
        &self,
        rules: &Rules,
        seen: &BTreeMap<Name, Seen>,
        remembered: &mut Remembered<Name>,
    ) -> Vec<Move<Name>> {
        let used: u64 = seen.values().map(|seen| seen.used).sum();
        let unused = self.total.saturating_sub(used).saturating_sub(self.reserve(rules));
        let taken = self.parties.iter().filter(|(name, _)| remembered.allowance(name) != Allowance::Free);
        let mut taken: Vec<(&Name, &Party)> = taken.collect();
        taken.sort_by_key(|(_, party)| Reverse(party.priority));
        for tier in taken.chunk_by(|(_, one), (_, other)| one.priority == other.priority) {
            let share = unused / 2 / tier.len() as u64;
            let mut moves = Vec::new();
            for (name, party) in tier {
                let standing = remembered.parties.get_mut(*name).expect("it was taken from");
                let bound = standing.too_much.map(|then| {
                    // What those others do not use any more is there for it.
                    let demand = self.demand(then.of, party.priority, seen);
                    let bound = then.amount.saturating_add(then.demand.saturating_sub(demand));
                    bound.saturating_sub(self.reserve(rules))
                });
                let Some(to) = self.more(rules, party, standing, share, bound) else { continue };
                let from = std::mem::replace(&mut standing.allowance, to);
                moves.push(Move { of: (*name).clone(), from, to, why: Why::Unused(unused) });
            }
            if !moves.is_empty() {
                return moves;
            }
        }
        Vec::new()
    }

    /// The next step up; `None`: it is not the time, or there is none that did not lead to a shortage.
    fn more(
        &self,
        rules: &Rules,
        party: &Party,
        standing: &Standing,
        share: u64,
        bound: Option<u64>,
    ) -> Option<Allowance> {
        // How it would use what it gets can't be seen while it stands still: it is tried, ever less often.
        let times = standing.too_much.map_or(0, |then| then.times);
        let patience = match standing.allowance {
            Allowance::Stopped | Allowance::Frozen => {
                1_u32.checked_shl(times).unwrap_or(LONGEST).min(LONGEST)
            }
            Allowance::Capped(_) | Allowance::Last | Allowance::Free => 1,
        };
        if standing.quiet < rules.calm.saturating_mul(patience) {
            return None;
        }
        let all = if party.may_be_last { Allowance::Last } else { Allowance::Free };
        let Some(bound) = bound else {
            // The reason for which it was taken is gone.
            return Some(match standing.allowance {
                Allowance::Stopped | Allowance::Frozen => Allowance::Capped(self.least(party)),
                Allowance::Capped(_) => all,
                Allowance::Last | Allowance::Free => Allowance::Free,
            });
        };
        if share < self.step {
            return None;
        }
        match standing.allowance {
            Allowance::Stopped | Allowance::Frozen => Some(Allowance::Capped(self.least(party))),
            Allowance::Capped(_) if bound >= self.total => Some(all),
            Allowance::Last if bound >= self.total => Some(Allowance::Free),
            Allowance::Capped(cap) => {
                // Half way to what was too much, as long as that is worth a move.
                let more = share.min(bound.saturating_sub(cap) / 2);
                (more >= self.step).then(|| Allowance::Capped(cap + more))
            }
            Allowance::Last | Allowance::Free => None,
        }
    }

    /// By more than what is not worth a move.
    fn exceeds(&self, used: u64, cap: u64) -> bool {
        used > cap.saturating_add(cap / 4).saturating_add(self.step)
    }

    fn reserve(&self, rules: &Rules) -> u64 {
        self.total / 100 * rules.reserve
    }

    fn least(&self, party: &Party) -> u64 {
        party.guaranteed.max(self.floor)
    }

    /// What those others use, seen from this priority.
    fn demand(&self, of: Others, priority: u8, seen: &BTreeMap<Name, Seen>) -> u64 {
        let others = self.parties.iter().filter(|(_, party)| match of {
            Others::Above => party.priority > priority,
            Others::Beside => party.priority != priority,
        });
        others.filter_map(|(name, _)| seen.get(name)).map(|seen| seen.used).sum()
    }
}

impl Party {
    fn may_be_frozen(&self) -> bool {
        self.may_freeze && self.guaranteed == 0
    }

    fn may_be_stopped(&self) -> bool {
        self.may_stop && self.guaranteed == 0
    }
}
