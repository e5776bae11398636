use std::sync::mpsc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use watchdog_protocol::session::{
    Content, Health, Initial, Progress, Refusal, Stored, ToService, Urgency, Verdict, Welcome,
};
use watchdog_seqpacket::payload;

use super::fake_core::*;
use super::*;
use crate::{Event, MigrateError, SaveError};

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Speed {
    limit: u32,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count(u64);

impl State for Count {
    const VERSION: u32 = 2;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        match from {
            1 => Ok(Self(postcard::from_bytes::<u8>(old)?.into())),
            _ => Err(MigrateError::new("never written")),
        }
    }
}

type Counting = Context<(), Count, ()>;
type Driving = Context<Speed, (), ()>;

fn bytes_of(count: u64) -> Vec<u8> {
    postcard::to_stdvec(&Count(count)).unwrap()
}

fn last_word_of(said: &[FromService]) -> &str {
    match said.last() {
        Some(FromService::LastWord { reason }) => reason,
        other => panic!("a last word is expected, not {other:?}"),
    }
}

/// Asks for events until there are none.
async fn idle<S: Settings, T: State>(mut ctx: Context<S, T, ()>) -> Result<(), ServiceError> {
    while ctx.next().await?.is_some() {}
    Ok(())
}

// ---- ready, health, progress, end ----

#[test]
fn a_service_says_ready_and_ends_when_it_is_asked_to() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        assert_eq!((ctx.service().as_str(), ctx.incarnation().get()), ("tested", 7));
        ctx.ready().await?;
        idle(ctx).await
    });
    core.expect(&FromService::Ready);
    assert_eq!(core.stop(), (vec![], Exit::Done));
}

#[test]
fn an_error_is_the_last_word_with_its_causes() {
    let core = FakeCore::start(welcome(), async |_: Context<(), (), ()>| {
        let cause = io::Error::other("no space");
        Err(SettingsLike { source: cause }.into())
    });
    let (said, exit) = core.end();
    assert_eq!(last_word_of(&said), "cannot open the shop: no space");
    assert_eq!(exit, Exit::Failed);
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the shop")]
struct SettingsLike {
    source: io::Error,
}

#[test]
fn health_is_said_when_it_changes_and_is_part_of_what_a_new_core_hears() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        ctx.health(Health::Ok);
        ctx.ready().await?;
        ctx.health(Health::Degraded { reason: "slow".into() });
        ctx.progress(0.5, "halfway");
        idle(ctx).await
    });
    let degraded = Health::Degraded { reason: "slow".into() };
    core.expect(&FromService::Ready);
    core.expect(&FromService::Health(degraded.clone()));
    core.expect(&FromService::Progress(Progress { fraction: Some(0.5), text: "halfway".into() }));
    let (repeated, resumed) = core.take_over();
    assert_eq!(repeated, []);
    assert!(resumed.ready);
    assert_eq!(resumed.health, degraded);
    core.stop();
}

#[test]
fn a_reason_is_cut_where_the_watchdog_stops_reading() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        ctx.health(Health::Failing { reason: "ä".repeat(1000) });
        idle(ctx).await
    });
    match core.hear() {
        FromService::Health(Health::Failing { reason }) => {
            assert!(reason.len() <= 1024 && reason.ends_with("ä…"));
        }
        other => panic!("{other:?}"),
    }
    core.stop();
}

#[test]
fn a_heartbeat_comes_when_one_is_wanted() {
    let welcome = Welcome { heartbeat_ms: Some(1), ..welcome() };
    let core = FakeCore::start(welcome, idle::<(), ()>);
    core.expect(&FromService::Heartbeat);
    core.expect(&FromService::Heartbeat);
    core.say(&ToService::Stop);
    assert_eq!(core.end().1, Exit::Done);
}

#[test]
fn next_ends_at_once_when_the_watchdog_is_gone() {
    let mut core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        ctx.ready().await?;
        idle(ctx).await
    });
    core.expect(&FromService::Ready);
    core.go();
    assert_eq!(core.end().1, Exit::Done);
}

#[test]
fn ready_of_a_service_whose_watchdog_is_gone_is_no_error() {
    let (gone, wait) = oneshot::channel::<()>();
    let mut core = FakeCore::start(welcome(), async |mut ctx: Context<(), (), ()>| {
        wait.await.ok();
        while ctx.next().await?.is_some() {}
        ctx.ready().await?;
        Ok(())
    });
    core.go();
    gone.send(()).unwrap();
    assert_eq!(core.end().1, Exit::Done);
}

#[test]
fn a_rejected_session_is_exit_code_76() {
    let core = FakeCore::start(welcome(), idle::<(), ()>);
    core.say(&ToService::Rejected { reason: "two hellos".into() });
    assert_eq!(core.end().1, Exit::Protocol);
}

#[test]
fn bytes_that_are_no_message_end_the_session() {
    let core = FakeCore::start(welcome(), idle::<(), ()>);
    core.say_bytes(&[255; 100]);
    assert_eq!(core.end().1, Exit::Protocol);
}

#[test]
fn a_lane_without_its_descriptors_ends_the_session() {
    let core = FakeCore::start(welcome(), idle::<(), ()>);
    let lane = watchdog_protocol::session::LaneIn {
        lane: watchdog_protocol::LaneEpoch::from_stored(1),
        sender: "other".parse().unwrap(),
    };
    core.say(&ToService::LaneIn(lane));
    assert_eq!(core.end().1, Exit::Protocol);
}

#[test]
fn another_session_version_is_exit_code_76() {
    let newer = Welcome { version: 9, ..welcome() };
    let core = FakeCore::start(newer, idle::<(), ()>);
    let (said, exit) = core.end();
    assert!(last_word_of(&said).contains("speaks session version 9, this program speaks 1"), "{said:?}");
    assert_eq!(exit, Exit::Protocol);
}

#[test]
fn a_welcome_of_unknown_form_still_tells_its_version() {
    let mut bytes = vec![0, 9];
    bytes.extend([255; 40]);
    let core = FakeCore::start_with(&bytes, &[], idle::<(), ()>);
    let (said, exit) = core.end();
    assert!(last_word_of(&said).contains("session version 9"), "{said:?}");
    assert_eq!(exit, Exit::Protocol);
}

// ---- settings ----

#[test]
fn cfg_1_the_initial_settings_are_current_and_cfg_5_no_update() {
    let (seen, sees) = mpsc::channel();
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":50}"#), async move |mut ctx: Driving| {
        seen.send(ctx.settings().current().limit)?;
        ctx.ready().await?;
        while let Some(Event::SettingsUpdated) = ctx.next().await? {
            seen.send(ctx.settings().current().limit)?;
        }
        Ok(())
    });
    core.expect(&FromService::Ready);
    core.say_settings(4, r#"{"limit":80}"#);
    core.expect_verdict(4, Verdict::Accepted);
    assert_eq!(core.stop(), (vec![], Exit::Done));
    assert_eq!(sees.iter().collect::<Vec<_>>(), [50, 80]);
}

#[test]
fn cfg_4_updated_returns_each_new_value() {
    let (seen, sees) = mpsc::channel();
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":50}"#), async move |mut ctx: Driving| {
        ctx.ready().await?;
        let settings = ctx.settings().clone();
        loop {
            tokio::select! {
                biased;
                value = settings.updated() => seen.send((value.limit, settings.current().limit))?,
                event = ctx.next() => match event? {
                    None => return Ok(()),
                    Some(other) => panic!("{other:?} is not what is left for next()"),
                },
            }
        }
    });
    core.expect(&FromService::Ready);
    core.say_settings(4, r#"{"limit":80}"#);
    core.expect_verdict(4, Verdict::Accepted);
    assert_eq!(sees.recv().unwrap(), (80, 80));
    core.say_settings(5, r#"{"limit":90}"#);
    core.expect_verdict(5, Verdict::Accepted);
    assert_eq!(sees.recv().unwrap(), (90, 90));
    core.stop();
    assert!(sees.recv().is_err(), "each once");
}

#[test]
fn settings_are_accepted_by_asking_for_the_next_event_and_not_before() {
    let (seen, sees) = mpsc::channel();
    let (go, wait) = oneshot::channel();
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":50}"#), async move |mut ctx: Driving| {
        ctx.ready().await?;
        ctx.next().await?;
        seen.send(())?;
        wait.await?;
        idle(ctx).await
    });
    core.expect(&FromService::Ready);
    core.say_settings(4, r#"{"limit":80}"#);
    sees.recv().unwrap();
    let (repeated, resumed) = core.take_over();
    assert_eq!((repeated, resumed.revision), (vec![], revision(3)));
    go.send(()).unwrap();
    core.expect_verdict(4, Verdict::Accepted);
    let (repeated, resumed) = core.take_over();
    let accepted = FromService::Verdict { revision: revision(4), verdict: Verdict::Accepted };
    assert_eq!((repeated, resumed.revision), (vec![accepted], revision(4)));
    core.stop();
}

#[test]
fn a_service_that_returns_ok_has_accepted_its_settings() {
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":50}"#), async |mut ctx: Driving| {
        ctx.ready().await?;
        ctx.next().await?;
        Ok(())
    });
    core.expect(&FromService::Ready);
    core.say_settings(4, r#"{"limit":80}"#);
    core.expect_verdict(4, Verdict::Accepted);
    assert_eq!(core.end(), (vec![], Exit::Done));
}

#[test]
fn refused_settings_leave_the_value_before() {
    let (seen, sees) = mpsc::channel();
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":50}"#), async move |mut ctx: Driving| {
        ctx.ready().await?;
        while let Some(Event::SettingsUpdated) = ctx.next().await? {
            if ctx.settings().current().limit > 100 {
                ctx.settings().refuse("too fast");
            }
            seen.send(ctx.settings().current().limit)?;
        }
        Ok(())
    });
    core.expect(&FromService::Ready);
    core.say_settings(4, r#"{"limit":200}"#);
    core.expect_verdict(4, Verdict::Refused { reason: "too fast".into() });
    core.say_settings(5, r#"{"limit":50}"#);
    core.expect_verdict(5, Verdict::Accepted);
    core.stop();
    assert_eq!(sees.iter().collect::<Vec<_>>(), [50, 50]);
}

#[test]
fn settings_of_another_type_are_refused_with_their_path_and_the_service_sleeps_on() {
    #[derive(Deserialize, JsonSchema)]
    struct Nested {
        outer: Speed,
    }
    let (seen, sees) = mpsc::channel();
    let initial = welcome_with_settings(r#"{"outer":{"limit":1}}"#);
    let core = FakeCore::start(initial, async move |mut ctx: Context<Nested, (), ()>| {
        ctx.ready().await?;
        while let Some(Event::SettingsUpdated) = ctx.next().await? {
            seen.send(ctx.settings().current().outer.limit)?;
        }
        Ok(())
    });
    core.expect(&FromService::Ready);
    core.say_settings(4, r#"{"outer":{"limit":"fast"}}"#);
    match core.hear() {
        FromService::Verdict { revision: of, verdict: Verdict::Refused { reason } } => {
            assert_eq!(of, revision(4));
            assert!(
                reason.starts_with("`outer.limit`: invalid type: string \"fast\", expected u32"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    core.say_settings(5, r#"{"outer":{"limit":2}}"#);
    core.expect_verdict(5, Verdict::Accepted);
    core.stop();
    assert_eq!(sees.iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn initial_settings_of_another_type_are_refused_and_end_the_process() {
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":-1}"#), idle::<Speed, ()>);
    let (said, exit) = core.end();
    let reason = last_word_of(&said);
    assert_eq!(reason, "settings of revision 3: `limit`: invalid value: integer `-1`, expected u32");
    let verdict = Verdict::Refused { reason: reason.into() };
    assert_eq!(said[0], FromService::Verdict { revision: revision(3), verdict });
    assert_eq!(exit, Exit::Configuration);
}

#[test]
fn initial_settings_refused_before_ready_end_the_process() {
    let core = FakeCore::start(welcome_with_settings(r#"{"limit":999}"#), async |ctx: Driving| {
        ctx.settings().refuse("too fast");
        ctx.ready().await?;
        idle(ctx).await
    });
    core.expect_verdict(3, Verdict::Refused { reason: "too fast".into() });
    let (said, exit) = core.end();
    assert_eq!(said.len(), 1, "no ready: {said:?}");
    assert_eq!(last_word_of(&said), "the service refused its settings of revision 3");
    assert_eq!(exit, Exit::Configuration);
}

#[test]
fn long_settings_come_beside_their_packet() {
    let json = format!(r#"{{"limit":{}80}}"#, " ".repeat(100_000));
    let (seen, sees) = mpsc::channel();
    let sealed = payload::seal(json.as_bytes()).unwrap();
    let initial = Initial { revision: revision(3), json: Content::Beside { length: json.len() as u64 } };
    let welcome = ToService::Welcome(Welcome { settings: Some(initial), ..welcome() });
    let core = FakeCore::start_with(
        &encode(&welcome),
        &[std::os::fd::AsFd::as_fd(&sealed)],
        async move |ctx: Driving| {
            seen.send(ctx.settings().current().limit)?;
            idle(ctx).await
        },
    );
    assert_eq!(sees.recv().unwrap(), 80);
    core.stop();
}

#[test]
fn a_watchdog_that_knows_no_settings_of_a_service_that_has_some_is_told() {
    let core = FakeCore::start(welcome(), idle::<Speed, ()>);
    let (said, exit) = core.end();
    assert!(last_word_of(&said).contains("this program has changed since it was described"), "{said:?}");
    assert_eq!(exit, Exit::Configuration);
}

// ---- state ----

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
    let core = FakeCore::start_with(
        &encode(&welcome),
        &[std::os::fd::AsFd::as_fd(&sealed)],
        async |ctx: Context<(), Large, ()>| {
            ctx.state().update(|large| large.0.reverse());
            idle(ctx).await
        },
    );
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

// ---- WatchdogQuery ----

#[test]
fn a_grant_gives_a_query_once_and_without_one_there_is_none() {
    let granted = Welcome { grant: vec!["status".into()], ..welcome() };
    let core = FakeCore::start(granted, async |mut ctx: Context<(), (), ()>| {
        assert!(ctx.query().is_some());
        assert!(ctx.query().is_none());
        Ok(())
    });
    assert_eq!(core.end().1, Exit::Done);
    let core = FakeCore::start(welcome(), async |mut ctx: Context<(), (), ()>| {
        assert!(ctx.query().is_none());
        Ok(())
    });
    assert_eq!(core.end().1, Exit::Done);
}

#[test]
fn a_call_is_repeated_to_a_new_core_under_its_id() {
    use watchdog_protocol::control::{Call, Outcome, Reply, Request};
    let hear_call = |core: &FakeCore| match core.hear() {
        FromService::Control { request, call: Content::Inline(call) } => {
            (request, watchdog_protocol::session::decode::<Call>(&call).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let granted = Welcome { grant: vec!["stop:batch".into()], ..welcome() };
    let core = FakeCore::start(granted, async |mut ctx: Context<(), (), ()>| {
        let query = ctx.query().expect("there is a grant");
        query.stop(&["batch".parse()?], None).await?;
        ctx.ready().await?;
        idle(ctx).await
    });
    let (first, call) = hear_call(&core);
    assert!(matches!(call.request, Request::Stop { .. }));
    core.say(&ToService::TookOver);
    let mut again = None;
    // The call and the end of what is repeated come in either order.
    for _ in 0..2 {
        match core.hear() {
            FromService::Resumed(_) => {}
            FromService::Control { request, call: Content::Inline(bytes) } => again = Some((request, bytes)),
            other => panic!("{other:?}"),
        }
    }
    let (second, bytes) = again.expect("the call came again");
    assert_eq!(watchdog_protocol::session::decode::<Call>(&bytes).unwrap(), call);
    assert_ne!(first, second);
    let done = Reply::End(Ok(Outcome::Done("stopped".into())));
    core.say(&ToService::Answer { request: second, reply: Content::Inline(encode(&done)) });
    core.expect(&FromService::Ready);
    core.stop();
}

// ---- introductions ----

#[test]
fn an_introduction_is_answered_and_repeated_to_a_new_core_until_then() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        let refusal = ctx.introduce("nobody".into(), Default::default()).await.expect("the session goes on");
        assert!(matches!(refusal, Err(Refusal::NoSuchService { .. })));
        ctx.ready().await?;
        idle(ctx).await
    });
    let introduce =
        FromService::Introduce { request: 1, peer: "nobody".into(), contract: Default::default() };
    core.expect(&introduce);
    assert_eq!(core.take_over().0, std::slice::from_ref(&introduce));
    let outcome = Err(Refusal::NoSuchService { name: "nobody".into(), nearest: None });
    core.say(&ToService::Introduced { request: 1, outcome: outcome.clone() });
    core.expect(&FromService::Ready);
    core.say(&ToService::Introduced { request: 1, outcome });
    assert_eq!(core.take_over().0, []);
    core.stop();
}
