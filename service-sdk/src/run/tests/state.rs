use std::os::fd::AsFd;
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use watchdog_protocol::session::{Content, Stored, ToService, Urgency, Welcome};
use watchdog_seqpacket::payload;

use super::*;
use crate::{MigrateError, SaveError, decode_state};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count(u64);

impl State for Count {
    const VERSION: u32 = 2;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        match from {
            1 => Ok(Self(decode_state::<u8>(old)?.into())),
            _ => Err(MigrateError::new("never written")),
        }
    }
}

type Counting = Context<(), Count, ()>;

fn bytes_of(count: u64) -> Vec<u8> {
    postcard::to_stdvec(&Count(count)).unwrap()
}

#[test]
fn ss_2_a_handler_starts_from_the_last_known_state() {
    for origin in [StateOrigin::Restored, StateOrigin::Recovered] {
        let (seen, sees) = mpsc::channel();
        let core =
            FakeCore::start(welcome_with_state(origin, 41, 2, bytes_of(8)), async move |ctx: Counting| {
                seen.send((ctx.state().origin(), ctx.state().read(|count| count.0)))?;
                idle(ctx).await
            });
        assert_eq!(sees.recv().unwrap(), (origin, 8));
        assert_eq!(core.stop(), (vec![], Exit::Done), "ss_5: the initial value is no update");
    }
}

#[test]
fn ss_1_a_first_start_sees_the_default_and_ss_5_does_not_send_it() {
    let (seen, sees) = mpsc::channel();
    let core = FakeCore::start(welcome_with_fresh_state(), async move |ctx: Counting| {
        ctx.state().save().await?;
        seen.send((ctx.state().origin(), ctx.state().read(|count| count.0)))?;
        idle(ctx).await
    });
    assert_eq!(sees.recv().unwrap(), (StateOrigin::Fresh, 0));
    assert_eq!(core.stop(), (vec![], Exit::Done));
}

#[test]
fn ss_4_an_update_is_sent_and_the_newest_follows_when_it_was_received() {
    let (go, wait) = oneshot::channel();
    let restored = welcome_with_state(StateOrigin::Restored, 41, 2, bytes_of(8));
    let core = FakeCore::start(restored, async move |ctx: Counting| {
        ctx.state().update(|count| count.0 += 1);
        wait.await?;
        ctx.state().update(|count| count.0 += 1);
        assert_eq!(ctx.state().update(|count| std::mem::replace(&mut count.0, 100)), 10);
        ctx.ready().await?;
        idle(ctx).await
    });
    assert_eq!(core.hear_state(), (42, Urgency::Soon, bytes_of(9)));
    go.send(()).unwrap();
    core.expect(&FromService::Ready);
    core.say(&ToService::StateReceived { sequence: sequence(42) });
    assert_eq!(core.hear_state(), (44, Urgency::Soon, bytes_of(100)));
    core.stop();
}

#[test]
fn a_save_waits_until_its_state_is_synced_also_by_a_new_core() {
    let (saved, saves) = mpsc::channel();
    let core = FakeCore::start(welcome_with_fresh_state(), async move |ctx: Counting| {
        ctx.state().update(|count| count.0 = 5);
        ctx.state().save().await?;
        saved.send(())?;
        idle(ctx).await
    });
    assert_eq!(core.hear_state(), (1, Urgency::Now, bytes_of(5)));
    core.say(&ToService::StateReceived { sequence: sequence(1) });
    core.say(&ToService::TookOver);
    assert_eq!(core.hear_state(), (1, Urgency::Now, bytes_of(5)));
    assert!(matches!(core.hear(), FromService::Resumed(_)));
    assert!(saves.try_recv().is_err(), "it is not on disk");
    core.say(&ToService::StateSynced { sequence: sequence(1) });
    saves.recv().unwrap();
    assert_eq!(core.take_over().0, [], "what is on disk is not sent again");
    core.stop();
}

#[test]
fn a_state_that_could_not_be_written_fails_its_save_and_the_next_one_tries_anew() {
    let (saved, saves) = mpsc::channel();
    let core = FakeCore::start(welcome_with_fresh_state(), async move |ctx: Counting| {
        ctx.state().update(|count| count.0 = 5);
        saved.send(ctx.state().save().await)?;
        saved.send(ctx.state().save().await)?;
        idle(ctx).await
    });
    core.hear_state();
    core.say(&ToService::StateFailed { sequence: sequence(1), reason: "write: no space".into() });
    assert_eq!(saves.recv().unwrap(), Err(SaveError::NotWritten { reason: "write: no space".into() }));
    assert_eq!(core.hear_state(), (2, Urgency::Now, bytes_of(5)));
    core.say(&ToService::StateSynced { sequence: sequence(2) });
    assert_eq!(saves.recv().unwrap(), Ok(()));
    core.stop();
}

#[test]
fn a_save_ends_with_the_session() {
    let (saved, saves) = mpsc::channel();
    let mut core = FakeCore::start(welcome_with_fresh_state(), async move |ctx: Counting| {
        ctx.state().update(|count| count.0 = 5);
        saved.send(ctx.state().save().await)?;
        Ok(())
    });
    core.hear_state();
    core.go();
    assert_eq!(saves.recv().unwrap(), Err(SaveError::SessionEnded));
    assert_eq!(core.end().1, Exit::Done);
}

#[test]
fn the_last_update_of_a_service_that_ends_is_sent() {
    let core = FakeCore::start(welcome_with_fresh_state(), async |mut ctx: Counting| {
        ctx.state().update(|count| count.0 = 1);
        ctx.ready().await?;
        while ctx.next().await?.is_some() {}
        ctx.state().update(|count| count.0 = 2);
        Ok(())
    });
    core.expect(&FromService::Ready);
    assert_eq!(core.hear_state(), (1, Urgency::Soon, bytes_of(1)));
    core.say(&ToService::Stop);
    assert_eq!(core.hear_state(), (2, Urgency::Soon, bytes_of(2)), "though the first was not received");
    assert_eq!(core.end(), (vec![], Exit::Done));
}

#[test]
fn a_large_state_goes_and_comes_beside_its_packet() {
    #[derive(Default, Serialize, Deserialize)]
    struct Large(Vec<u64>);
    impl State for Large {
        const VERSION: u32 = 1;
    }
    let numbers: Vec<u64> = (0..100_000).collect();
    let bytes = postcard::to_stdvec(&numbers).unwrap();
    let sealed = payload::seal(&bytes).unwrap();
    let stored = Stored {
        origin: StateOrigin::Restored,
        sequence: sequence(1),
        version: 1,
        content: Content::Beside { length: bytes.len() as u64 },
    };
    let welcome = ToService::Welcome(Welcome { state: Some(stored), ..welcome() });
    let core =
        FakeCore::start_with(&encode(&welcome), &[sealed.as_fd()], async |ctx: Context<(), Large, ()>| {
            ctx.state().update(|large| large.0.reverse());
            idle(ctx).await
        });
    let reversed: Vec<u64> = numbers.into_iter().rev().collect();
    assert_eq!(core.hear_state(), (2, Urgency::Soon, postcard::to_stdvec(&reversed).unwrap()));
    core.stop();
}

#[test]
fn a_state_too_large_fails_its_save_and_ends_the_service() {
    #[derive(Default, Serialize, Deserialize)]
    struct Growing(Vec<u8>);
    impl State for Growing {
        const VERSION: u32 = 1;
    }
    let (saved, saves) = mpsc::channel();
    let small = Welcome { max_message: 1000, ..welcome_with_fresh_state() };
    let core = FakeCore::start(small, async move |ctx: Context<(), Growing, ()>| {
        ctx.state().update(|growing| growing.0.resize(2000, 0));
        saved.send(ctx.state().save().await)?;
        idle(ctx).await
    });
    let reason = "it has 2002 bytes, at most 1000 are allowed".to_string();
    assert_eq!(saves.recv().unwrap(), Err(SaveError::Unwritable { reason }));
    let (said, exit) = core.end();
    assert_eq!(last_word_of(&said), "the state can't be saved: it has 2002 bytes, at most 1000 are allowed");
    assert_eq!((said.len(), exit), (1, Exit::Failed));
}

#[test]
fn a_service_without_state_sends_none() {
    let core = FakeCore::start(
        welcome_with_state(StateOrigin::Restored, 4, 1, vec![9]),
        async |ctx: Context<(), (), ()>| {
            ctx.state().update(|()| ());
            ctx.state().save().await?;
            ctx.ready().await?;
            idle(ctx).await
        },
    );
    core.expect(&FromService::Ready);
    assert_eq!(core.stop(), (vec![], Exit::Done));
}

#[test]
fn an_older_state_is_migrated() {
    let (seen, sees) = mpsc::channel();
    let old = welcome_with_state(StateOrigin::Restored, 4, 1, vec![9]);
    let core = FakeCore::start(old, async move |ctx: Counting| {
        seen.send(ctx.state().read(|count| count.0))?;
        idle(ctx).await
    });
    assert_eq!(sees.recv().unwrap(), 9);
    core.stop();
}

#[test]
fn a_state_this_program_can_not_read_is_left_as_it_is() {
    for (version, bytes, expected) in [
        (3, bytes_of(1), "the stored state has version 3, this program reads up to 2"),
        (
            0,
            bytes_of(1),
            "the stored state of version 0 can't become version 2; it is left as it is: never written",
        ),
        (
            1,
            vec![],
            "the stored state of version 1 can't become version 2; it is left as it is: the bytes are no",
        ),
        (2, vec![], "the stored state can't be read as version 2"),
        (2, vec![1, 1], "1 bytes are behind the stored state of version 2"),
    ] {
        let stored = welcome_with_state(StateOrigin::Restored, 4, version, bytes);
        let core = FakeCore::start(stored, idle::<(), Count>);
        let (said, exit) = core.end();
        assert!(last_word_of(&said).starts_with(expected), "{said:?}");
        assert_eq!((said.len(), exit), (1, Exit::State), "nothing but the last word");
    }
}
