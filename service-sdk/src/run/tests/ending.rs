use tokio::sync::oneshot;
use watchdog_protocol::LaneEpoch;
use watchdog_protocol::session::{Health, LaneIn, Progress, ToService, Welcome};

use super::*;

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
        Err(ShopError { source: cause }.into())
    });
    let (said, exit) = core.end();
    assert_eq!(last_word_of(&said), "cannot open the shop: no space");
    assert_eq!(exit, Exit::Failed);
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the shop")]
struct ShopError {
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
    let lane = LaneIn { lane: LaneEpoch::from_stored(1), sender: "other".parse().unwrap() };
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
