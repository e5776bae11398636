//! Dead letters, against a lane that is read by one process after the other.

use proptest::prelude::*;
use watchdog_lifecycle::event::Verb;
use watchdog_lifecycle::poison::{DEATHS, Reached, Suspect};
use watchdog_lifecycle::{Actor, Cause};
use watchdog_protocol::{Incarnation, MessageNumber};

use crate::config;

/// One process of the receiver, and its end.
#[derive(Debug, Clone)]
struct Life {
    /// Messages of this lane it finishes.
    finishes: u64,
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
    let finishes = prop_oneof![4 => Just(0_u64), 1 => 1..4_u64];
    let life = (finishes, prop::bool::weighted(0.8), blames, any::<bool>());
    let life = life.prop_map(|(finishes, in_hand, blames, told_again)| Life {
        finishes,
        in_hand,
        blames,
        told_again,
    });
    prop::collection::vec(life, 1..60)
}

fn cause(blames: Blames) -> Cause {
    match blames {
        Blames::TheMessage => Cause::Signal { signal: 11, dumped: false },
        Blames::AnOperator => Cause::Operator { by: Actor::Operator { uid: 0 }, verb: Verb::Kill },
        Blames::Settings => Cause::Settings { revision: None, reason: "no".into() },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_message_is_moved_at_its_third_death_and_no_other_ever(lives in lives()) {
        let mut suspect: Option<Suspect> = None;
        let mut reached = Reached::default();
        let mut deaths_of_head = 0;
        for (life, number) in lives.iter().zip(1..) {
            let incarnation = Incarnation::from_stored(number);
            let given = reached;
            for _ in 0..life.finishes {
                reached.taken = reached.done.next();
                reached.handed += 1;
                reached.done = reached.taken;
                deaths_of_head = 0;
            }
            if life.in_hand {
                reached.taken = reached.done.next();
                reached.handed += 1;
                deaths_of_head += usize::from(life.blames == Blames::TheMessage);
            }
            for _ in 0..=usize::from(life.told_again) {
                suspect = Suspect::after(suspect, incarnation, &cause(life.blames), &given, &reached);
            }
            prop_assert_eq!(suspect.as_ref().map_or(0, |suspect| suspect.deaths().len()), deaths_of_head);
            if let Some(found) = &suspect {
                prop_assert_eq!(found.number(), reached.done.next());
                prop_assert_eq!(found.is_poison(), deaths_of_head == DEATHS);
            }
            if deaths_of_head == DEATHS {
                // Moved: the service goes on behind it.
                reached.done = suspect.as_ref().unwrap().number();
                deaths_of_head = 0;
            }
        }
    }

    #[test]
    fn whatever_a_page_says_no_process_is_blamed_twice(
        pages in prop::collection::vec((0..6_u64, 0..6_u64, 0..3_u64), 1..40)
    ) {
        let mut suspect: Option<Suspect> = None;
        let mut given = Reached::default();
        for ((taken, done, handed), number) in pages.into_iter().zip(1..) {
            let ended = Reached {
                taken: MessageNumber::from_stored(taken),
                done: MessageNumber::from_stored(done),
                handed,
            };
            suspect = Suspect::after(
                suspect,
                Incarnation::from_stored(number),
                &cause(Blames::TheMessage),
                &given,
                &ended,
            );
            given = ended;
            if let Some(found) = &suspect {
                prop_assert!(found.number() > ended.done);
                prop_assert!(found.deaths().windows(2).all(|two| two[0].incarnation < two[1].incarnation));
            }
        }
    }
}
