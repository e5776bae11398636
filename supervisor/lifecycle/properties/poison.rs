//! Dead letters, against a lane that is read by one process after the other.

use std::collections::BTreeSet;

use proptest::prelude::*;
use watchdog_lifecycle::event::Verb;
use watchdog_lifecycle::poison::{DEATHS, Reached, Suspects};
use watchdog_lifecycle::{Actor, Cause};
use watchdog_protocol::{Incarnation, MessageNumber};

use crate::config;

/// Messages of the lane.
const MESSAGES: u64 = 12;

/// One process of the receiver, and its end.
#[derive(Debug, Clone)]
struct Life {
    /// What it does with one message after the other, from the first that is not done: `true` keeps it open.
    defers: Vec<bool>,
    /// It dies with the next one in hand; else between two, or of another lane.
    in_hand: bool,
    blames: Blames,
    /// A core that was killed leaves the next one to take note of the end again.
    told_again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blames {
    TheMessage,
    AnOperator,
    Settings,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let blames = prop_oneof![
        6 => Just(Blames::TheMessage),
        1 => Just(Blames::AnOperator),
        1 => Just(Blames::Settings),
    ];
    let defers = prop::collection::vec(prop::bool::weighted(0.7), 0..4);
    let life = (defers, prop::bool::weighted(0.8), blames, any::<bool>());
    let life =
        life.prop_map(|(defers, in_hand, blames, told_again)| Life { defers, in_hand, blames, told_again });
    prop::collection::vec(life, 1..60)
}

fn cause(blames: Blames) -> Cause {
    match blames {
        Blames::TheMessage => Cause::Signal { signal: 11, dumped: false },
        Blames::AnOperator => Cause::Operator { by: Actor::Operator { uid: 0 }, verb: Verb::Kill },
        Blames::Settings => Cause::Settings { revision: None, reason: "no".into() },
    }
}

fn number(number: u64) -> MessageNumber {
    MessageNumber::from_stored(number)
}

/// The deaths of a message that count: with it in hand, since a process died with a later one in hand. `deaths`: what was
/// in hand at each death that blames a message.
fn deaths_of(message: u64, deaths: &[u64]) -> usize {
    let since = deaths.iter().rposition(|in_hand| *in_hand > message).map_or(0, |at| at + 1);
    deaths[since..].iter().filter(|in_hand| **in_hand == message).count()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_message_is_moved_at_its_third_death_wherever_it_is_in_the_lane_and_no_other_ever(lives in lives()) {
        let mut suspects = Suspects::default();
        let mut done = 0;
        let mut buried = BTreeSet::new();
        let mut deaths: Vec<u64> = Vec::new();
        for (life, incarnation) in lives.iter().zip(1..) {
            let mut queue = (done + 1..=MESSAGES).filter(|at| !buried.contains(at)).collect::<Vec<_>>().into_iter();
            let mut first_open = None;
            for defers in &life.defers {
                let Some(message) = queue.next() else { break };
                if *defers && first_open.is_none() {
                    first_open = Some(message);
                }
                if first_open.is_none() {
                    done = message;
                }
            }
            let in_hand = queue.next().filter(|_| life.in_hand);
            if let (Some(in_hand), Blames::TheMessage) = (in_hand, life.blames) {
                deaths.push(in_hand);
            }
            let reached = Reached { done: number(done), in_hand: number(in_hand.unwrap_or(0)) };
            for _ in 0..=usize::from(life.told_again) {
                suspects.ended(Incarnation::from_stored(incarnation), &cause(life.blames), &reached);
            }
            for message in done + 1..=MESSAGES {
                let known = suspects.iter().find(|suspect| suspect.number() == number(message));
                let known = known.map_or(0, |suspect| suspect.deaths().len());
                prop_assert_eq!(known, if buried.contains(&message) { 0 } else { deaths_of(message, &deaths) });
            }
            if let Some(poison) = suspects.poison() {
                prop_assert_eq!((poison.number().get(), poison.deaths().len()), (in_hand.unwrap(), DEATHS));
                let poison = poison.number();
                buried.insert(poison.get());
                suspects.forget(poison);
                prop_assert!(suspects.poison().is_none());
            }
        }
    }

    #[test]
    fn whatever_a_page_says_no_process_is_blamed_twice_and_suspects_are_few(
        pages in prop::collection::vec((0..40_u64, 0..40_u64), 1..80)
    ) {
        let mut suspects = Suspects::default();
        for ((in_hand, done), incarnation) in pages.into_iter().zip(1..) {
            let ended = Reached { done: number(done), in_hand: number(in_hand) };
            suspects.ended(Incarnation::from_stored(incarnation), &cause(Blames::TheMessage), &ended);
            prop_assert!(suspects.iter().count() <= 16);
            let numbers: Vec<_> = suspects.iter().map(|suspect| suspect.number()).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
            for found in suspects.iter() {
                prop_assert!(found.number() > ended.done);
                prop_assert!(found.deaths().windows(2).all(|two| two[0].incarnation < two[1].incarnation));
            }
        }
    }
}
