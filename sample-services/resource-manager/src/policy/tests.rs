//! What the policy never does, whatever it is told; and what it comes to with a machine that answers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Allowance, Move, Party, Pool, Remembered, Rules, Seen, Why};

type Name = usize;

const TOTAL: u64 = 2000;
const STEP: u64 = 10;

fn party(priority: u8) -> Party {
    Party { priority, guaranteed: 0, may_be_last: true, may_freeze: false, may_stop: false }
}

fn parties(means: bool) -> impl Strategy<Value = BTreeMap<Name, Party>> {
    let one = (0_u8..5, prop_oneof![Just(0_u64), 0_u64..TOTAL / 6], any::<[bool; 3]>());
    let one = one.prop_map(move |(priority, guaranteed, [may_be_last, freeze, stop])| Party {
        priority: priority * 20,
        guaranteed,
        may_be_last,
        may_freeze: freeze && means,
        may_stop: stop && means,
    });
    prop::collection::vec(one, 1..6).prop_map(|parties| parties.into_iter().enumerate().collect())
}

fn pool(parties: BTreeMap<Name, Party>) -> Pool<Name> {
    Pool { total: TOTAL, step: STEP, floor: STEP, parties }
}

type Machine = crate::simulated::Machine<Name>;

fn machine(parties: BTreeMap<Name, Party>, wanted: impl IntoIterator<Item = u64>) -> Machine {
    let mut machine = Machine::new(pool(parties));
    let count = machine.pool.parties.len();
    machine.wanted = wanted.into_iter().take(count).enumerate().collect();
    machine
}

/// Nobody waits while somebody below has what it is not guaranteed.
fn check(machine: &Machine) {
    let (seen, parties) = (machine.seen(), &machine.pool.parties);
    for (name, high) in parties.iter().filter(|(name, _)| seen.get(name).is_some_and(|seen| seen.is_short)) {
        for (other, low) in parties.iter().filter(|(_, low)| low.priority < high.priority) {
            let has = seen.get(other).map_or(0, |seen| seen.used);
            assert!(
                has <= low.guaranteed.max(STEP),
                "{name} waits, {other} has {has}: {:?}",
                machine.remembered
            );
        }
    }
}

/// As many periods as any shortage takes: one after the other all give, each in as many halves as there are.
fn enough(parties: usize) -> usize {
    parties * (usize::try_from(TOTAL.ilog2()).unwrap() + 3) * 4
}

fn wanted() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![Just(0), 0..TOTAL, Just(TOTAL * 2)], 5)
}

proptest! {
    #[test]
    fn nobody_is_pushed_below_its_guarantee_and_only_for_one_that_matters_more(
        parties in parties(true),
        periods in prop::collection::vec(
            (prop::collection::vec(prop::option::weighted(0.9, (0..TOTAL * 2, any::<bool>())), 5), prop::bool::weighted(0.2)),
            1..120,
        ),
    ) {
        let pool = pool(parties);
        let (rules, mut remembered) = (Rules::default(), Remembered::default());
        let mut calm: BTreeMap<Name, u32> = BTreeMap::new();
        for (seen, machine) in periods {
            let seen: BTreeMap<Name, Seen> = seen
                .into_iter()
                .enumerate()
                .filter_map(|(name, seen)| seen.map(|(used, is_short)| (name, Seen { used, is_short })))
                .collect();
            let before = remembered.clone();
            let moves = pool.decide(&rules, &seen, machine, &mut remembered);
            for (name, party) in &pool.parties {
                let above = |other: &Name| pool.parties.get(other).is_some_and(|it| it.priority > party.priority);
                let waits = machine || seen.iter().any(|(other, seen)| seen.is_short && above(other));
                let calm = calm.entry(*name).or_default();
                *calm = if waits { 0 } else { *calm + 1 };
            }
            for one in &moves {
                prop_assert_eq!(one.from, before.allowance(&one.of));
                prop_assert_eq!(one.to, remembered.allowance(&one.of));
                let party = &pool.parties[&one.of];
                if one.to < one.from {
                    match &one.why {
                        Why::ShortIs(None) => prop_assert!(machine),
                        Why::ShortIs(Some(who)) => {
                            prop_assert!(seen[who].is_short);
                            prop_assert!(pool.parties[who].priority > party.priority);
                        }
                        other => prop_assert!(false, "{:?} for {:?}", one, other),
                    }
                } else {
                    prop_assert!(one.to > one.from);
                    prop_assert!(calm[&one.of] >= rules.calm, "{:?} after {} calm periods", one, calm[&one.of]);
                }
            }
            for (name, party) in &pool.parties {
                let allowed = remembered.allowance(name);
                let is_borne = match allowed {
                    Allowance::Stopped => party.may_stop && party.guaranteed == 0,
                    Allowance::Frozen => party.may_freeze && party.guaranteed == 0,
                    Allowance::Capped(cap) => cap >= party.guaranteed && cap >= STEP,
                    Allowance::Last => party.may_be_last,
                    Allowance::Free => true,
                };
                prop_assert!(is_borne, "{}: {:?} of {:?}", name, allowed, party);
            }
        }
    }

    #[test]
    fn under_a_load_that_stays_the_same_moves_come_to_an_end_and_nobody_waits_for_one_below(
        parties in parties(false),
        wanted in wanted(),
    ) {
        let count = parties.len();
        let mut machine = machine(parties, wanted);
        let moves: usize = (0..enough(count)).map(|_| machine.period().len()).sum();
        prop_assert!(moves <= enough(count), "{} moves", moves);
        for _ in 0..200 {
            prop_assert_eq!(machine.period(), []);
        }
        check(&machine);
    }

    #[test]
    fn when_nobody_wants_anything_any_more_all_is_given_back(parties in parties(false), wanted in wanted()) {
        let count = parties.len();
        let mut machine = machine(parties, wanted);
        (0..enough(count)).for_each(|_| drop(machine.period()));
        let lowest = *machine.pool.parties.iter().min_by_key(|(_, party)| party.priority).unwrap().0;
        let hungry = machine.wanted[&lowest];
        machine.wanted.values_mut().for_each(|wanted| *wanted = 0);
        // Who was taken from still wants all it can get.
        machine.wanted.insert(lowest, hungry);
        (0..10 * count).for_each(|_| drop(machine.period()));
        prop_assert_eq!(machine.remembered.taken().collect::<Vec<_>>(), []);
    }

    #[test]
    fn a_load_that_changes_is_followed(parties in parties(true), loads in prop::collection::vec(wanted(), 1..6)) {
        let count = parties.len();
        let mut machine = machine(parties, vec![0; count]);
        for wanted in loads {
            machine.wanted = wanted.into_iter().take(count).enumerate().collect();
            for _ in 0..enough(count) {
                machine.period();
            }
        }
        // One that was frozen or stopped shows no wish: it is tried now and then, so the last look may fall on a try.
        let tries = |machine: &Machine| machine.remembered.taken().any(|(name, _)| {
            let party = &machine.pool.parties[name];
            party.may_freeze || party.may_stop
        });
        if !tries(&machine) {
            check(&machine);
        }
    }

    #[test]
    fn one_who_remembers_nothing_goes_on_from_what_is_in_force(
        parties in parties(false),
        wanted in wanted(),
        at in 1_usize..40,
    ) {
        let count = parties.len();
        let mut machine = machine(parties, wanted);
        (0..at).for_each(|_| drop(machine.period()));
        let mut fresh = Remembered::default();
        machine.remembered.taken().for_each(|(name, allowance)| fresh.found(*name, allowance));
        machine.remembered = fresh;
        (0..2 * enough(count)).for_each(|_| drop(machine.period()));
        for _ in 0..100 {
            prop_assert_eq!(machine.period(), []);
        }
        check(&machine);
    }
}

fn told(moves: &[Move<Name>]) -> Vec<String> {
    moves.iter().map(|one| format!("{}: {:?} → {:?}", one.of, one.from, one.to)).collect()
}

#[test]
fn four_hogs_give_to_one_that_matters_until_it_waits_no_more() {
    let parties = (0..4).map(|name| (name, party(10))).chain([(4, party(90))]).collect();
    let mut machine = machine(parties, [2000, 2000, 2000, 2000, 900]);
    assert_eq!(told(&machine.period()), [""; 0], "one period is no shortage");
    assert_eq!(told(&machine.period())[0], "0: Free → Last");
    assert_eq!(machine.seen()[&4], Seen { used: 900, is_short: false });
    for _ in 0..50 {
        assert_eq!(machine.period(), [], "a share below all others is enough");
    }
    machine.wanted.insert(4, 0);
    let given: Vec<_> = (0..6).map(|_| told(&machine.period()).len()).collect();
    assert_eq!(given.iter().sum::<usize>(), 4);
    assert_eq!(machine.remembered.taken().count(), 0);
}

#[test]
fn a_hog_of_memory_is_squeezed_frozen_and_stopped_before_the_machine_has_none_left() {
    let hog = Party { may_be_last: false, may_freeze: true, may_stop: true, ..party(10) };
    let node = Party { may_be_last: false, guaranteed: 500, ..party(90) };
    let pool = pool(BTreeMap::from([(0, hog), (1, node)]));
    let (rules, mut remembered) = (Rules::default(), Remembered::default());
    let (mut held, mut steps) = (200_u64, Vec::new());
    for _ in 0..100 {
        let allowed = remembered.allowance(&0);
        // It heeds no cap, and grows as long as it runs.
        held = match allowed {
            Allowance::Stopped => 0,
            Allowance::Frozen => held,
            Allowance::Capped(_) | Allowance::Last | Allowance::Free => held + 20,
        };
        assert!(held + 600 < TOTAL, "the kernel would have to choose");
        let mut seen = BTreeMap::from([(1, Seen { used: 600, is_short: false })]);
        if allowed != Allowance::Stopped {
            seen.insert(0, Seen { used: held, is_short: false });
        }
        let is_short = held + 600 > TOTAL / 10 * 7;
        steps.extend(pool.decide(&rules, &seen, is_short, &mut remembered));
    }
    assert!(steps.iter().all(|step| step.of == 0));
    let down: Vec<_> = steps.iter().map(|step| step.to).collect();
    assert!(matches!(down[0], Allowance::Capped(_)), "{down:?}");
    // The first cap was not obeyed: there is no second one.
    assert_eq!(down[1..3], [Allowance::Frozen, Allowance::Stopped]);
}

#[test]
fn one_that_obeys_is_capped_lower_and_lower_and_one_that_does_not_is_frozen() {
    let low = Party { may_be_last: false, may_freeze: true, ..party(10) };
    let pool = pool(BTreeMap::from([(0, low), (1, party(90))]));
    let down = |obeys: bool| -> Vec<Allowance> {
        let (rules, mut remembered) = (Rules::default(), Remembered::default());
        let mut moves = Vec::new();
        for _ in 0..8 {
            let used = if obeys { remembered.allowance(&0).most(1000) } else { 1000 };
            let low = Seen { used, is_short: false };
            let seen = BTreeMap::from([(0, low), (1, Seen { used: 500, is_short: true })]);
            moves.extend(pool.decide(&rules, &seen, false, &mut remembered).into_iter().map(|one| one.to));
        }
        moves
    };
    let capped = Allowance::Capped;
    assert_eq!(down(true), [capped(505), capped(258), capped(134), capped(72)]);
    assert_eq!(down(false), [capped(505), Allowance::Frozen]);
}

/// A low and a high one, by hand: what the low one uses when it is let have so much, and whether the high one waits then.
fn by_hand(low: Party, periods: u32, high_uses: u64, waits: impl Fn(Allowance) -> bool) -> Vec<Move<Name>> {
    let pool = Pool { total: 2 * TOTAL, ..pool(BTreeMap::from([(0, low), (1, party(90))])) };
    let (rules, mut remembered) = (Rules::default(), Remembered::default());
    let mut moves = Vec::new();
    for _ in 0..periods {
        let allowed = remembered.allowance(&0);
        let high = Seen { used: high_uses, is_short: waits(allowed) };
        let seen = BTreeMap::from([(0, Seen { used: allowed.most(1000), is_short: false }), (1, high)]);
        moves.extend(pool.decide(&rules, &seen, false, &mut remembered));
    }
    moves
}

#[test]
fn what_was_too_much_is_not_tried_again_while_its_reason_is_there() {
    let low = Party { may_be_last: false, ..party(10) };
    // The high one waits as soon as the low one has more than 700, though much of the machine is unused.
    let moves = by_hand(low, 2000, 600, |allowed| allowed.most(1000) > 700);
    let most = moves[1..].iter().map(|one| one.to.most(1000)).max().unwrap();
    assert!((300..=700).contains(&most), "{:?}", told(&moves));
    assert!(moves.len() < 20, "{:?}", told(&moves));
}

#[test]
fn one_that_stands_still_is_tried_ever_less_often() {
    let low = Party { may_be_last: false, may_freeze: true, ..party(10) };
    let moves = by_hand(low, 4000, 600, |allowed| allowed > Allowance::Frozen);
    let tries = moves.iter().filter(|one| one.from == Allowance::Frozen).count();
    assert!((6..=12).contains(&tries), "{tries} tries");
}

#[test]
fn what_is_guaranteed_meanwhile_holds_at_once() {
    let low = Party { may_be_last: false, ..party(10) };
    let mut machine = machine([(0, low), (1, party(90))].into(), [2000, 2000]);
    (0..40).for_each(|_| drop(machine.period()));
    assert_eq!(machine.remembered.allowance(&0), Allowance::Capped(STEP));
    machine.pool.parties.get_mut(&0).unwrap().guaranteed = 300;
    let moves = machine.period();
    assert_eq!(told(&moves), ["0: Capped(10) → Capped(300)"]);
    assert_eq!(moves[0].why, Why::Configured);
    machine.pool.parties.remove(&0);
    machine.wanted.remove(&0);
    machine.period();
    assert_eq!(machine.remembered.taken().count(), 0);
}
