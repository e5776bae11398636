use watchdog_protocol::control::{Call, Outcome, Reply, Request};
use watchdog_protocol::session::{Content, Refusal, ToService, Welcome, decode};

use super::*;
use crate::IntroduceError;

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
    let hear_call = |core: &FakeCore| match core.hear() {
        FromService::Control { request, call: Content::Inline(call) } => {
            (request, decode::<Call>(&call).unwrap())
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
    assert_eq!(decode::<Call>(&bytes).unwrap(), call);
    assert_ne!(first, second);
    let done = Reply::End(Ok(Outcome::Done("stopped".into())));
    core.say(&ToService::Answer { request: second, reply: Content::Inline(encode(&done)) });
    core.expect(&FromService::Ready);
    core.stop();
}

#[test]
fn an_introduction_is_answered_and_repeated_to_a_new_core_until_then() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        let refused = ctx.introduce("nobody".into(), Default::default()).await;
        assert!(matches!(refused, Err(IntroduceError::Refused(Refusal::NoSuchService { .. }))));
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

#[test]
fn an_introduction_ends_with_the_session() {
    let mut core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        let ended = ctx.introduce("other".into(), Default::default()).await;
        assert_eq!(ended, Err(IntroduceError::SessionEnded));
        let too_late = ctx.introduce("other".into(), Default::default()).await;
        assert_eq!(too_late, Err(IntroduceError::SessionEnded));
        Ok(())
    });
    assert!(matches!(core.hear(), FromService::Introduce { .. }));
    core.go();
    assert_eq!(core.end().1, Exit::Done);
}
