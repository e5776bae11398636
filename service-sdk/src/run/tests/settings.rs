use std::os::fd::AsFd;
use std::sync::mpsc;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::oneshot;
use watchdog_protocol::session::{Content, Initial, ToService, Welcome};
use watchdog_seqpacket::payload;

use super::*;
use crate::Event;

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Speed {
    limit: u32,
}

type Driving = Context<Speed, (), ()>;

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
    let core = FakeCore::start_with(&encode(&welcome), &[sealed.as_fd()], async move |ctx: Driving| {
        seen.send(ctx.settings().current().limit)?;
        idle(ctx).await
    });
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
