//! Messages through a whole service.

use std::os::fd::{AsFd, OwnedFd};

use watchdog_protocol::session::{LaneIn, LaneOut, Refusal, ToService};
use watchdog_protocol::{LaneEpoch, Mismatch};
use watchdog_seqpacket::{ReceiverPage, ReceiverPageReader, SenderPage};

use super::*;
use crate::lanes::Lanes;
use crate::session::{LaneEnds, Lanes as _};
use crate::{AskError, Event, Intercom, IntroduceError, Message, Reply, TellError};

#[derive(Debug, Message)]
enum Msg {
    Say(u64),
    Ask { n: u64, reply: Reply<u64> },
}

/// A lane as the watchdog has it.
struct Lane {
    epoch: LaneEpoch,
    sender_end: Seqpacket,
    receiver_end: Seqpacket,
    sender_page: OwnedFd,
    receiver_page: OwnedFd,
}

impl Lane {
    fn new() -> Self {
        let (sender_end, receiver_end) = Seqpacket::pair().unwrap();
        Self {
            epoch: LaneEpoch::from_stored(5),
            sender_end,
            receiver_end,
            sender_page: SenderPage::create().unwrap(),
            receiver_page: ReceiverPage::create().unwrap(),
        }
    }

    fn out(&self) -> LaneOut {
        LaneOut { lane: self.epoch, receiver: "peer".parse().unwrap(), mismatch: None }
    }

    /// Answers the next introduction with it.
    fn introduce(&self, core: &FakeCore, mismatch: Option<Mismatch>) {
        let FromService::Introduce { request, .. } = core.hear() else {
            panic!("an introduction is expected")
        };
        let outcome = Ok(LaneOut { mismatch, ..self.out() });
        let ends = [self.sender_end.as_fd(), self.sender_page.as_fd(), self.receiver_page.as_fd()];
        core.say_beside(&ToService::Introduced { request, outcome }, &ends);
    }

    /// Hands it to the service as one of its inbox.
    fn arrive(&self, core: &FakeCore) {
        let lane = LaneIn { lane: self.epoch, sender: "peer".parse().unwrap() };
        let ends = [self.receiver_end.as_fd(), self.receiver_page.as_fd(), self.sender_page.as_fd()];
        core.say_beside(&ToService::LaneIn(lane), &ends);
    }

    /// Does something as its sender.
    fn as_peer<R>(&self, act: impl AsyncFnOnce(Intercom<Msg>) -> R) -> R {
        runtime().unwrap().block_on(async {
            let mut lanes = Lanes::new(1 << 20);
            let ends = LaneEnds {
                socket: self.sender_end.try_clone().unwrap().into(),
                own_page: self.sender_page.try_clone().unwrap(),
                peer_page: self.receiver_page.try_clone().unwrap(),
            };
            lanes.opened(&self.out(), ends);
            let (lane, fit) = lanes.introduced(&self.out(), Msg::contract()).unwrap();
            tokio::select! {
                result = act(Intercom::new(lane, fit)) => result,
                () = lanes.tend(drop) => unreachable!("it goes on for ever"),
            }
        })
    }

    fn done(&self) -> u64 {
        ReceiverPageReader::map_ro(self.receiver_page.as_fd()).unwrap().marks().done.get()
    }
}

/// Answers asks with twice their number; ends well at 100 and badly at 200, each without asking for more.
async fn doubler(mut ctx: Context<(), (), Msg>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        match event {
            Event::Message(Msg::Ask { n, reply }) => {
                assert_eq!(ctx.delivery().sender().as_str(), "peer");
                reply.send(2 * n);
            }
            Event::Message(Msg::Say(100)) => return Ok(()),
            Event::Message(Msg::Say(200)) => return Err(ServiceError::new("as it was told")),
            Event::Message(Msg::Say(_)) | Event::SettingsUpdated => {}
        }
    }
    Ok(())
}

#[test]
fn a_message_is_handled_and_answered() {
    let (core, lane) = (FakeCore::start(welcome(), doubler), Lane::new());
    lane.arrive(&core);
    core.expect(&FromService::Ready);
    let answer = lane.as_peer(async |handle| {
        handle.tell(Msg::Say(1)).await.unwrap();
        handle.ask(|reply| Msg::Ask { n: 21, reply }).await.unwrap()
    });
    assert_eq!(answer, 42);
    let (_, exit) = core.stop();
    assert_eq!((exit, lane.done()), (Exit::Done, 2));
}

#[test]
fn a_service_that_ends_well_has_done_what_it_had_in_hand() {
    let (core, lane) = (FakeCore::start(welcome(), doubler), Lane::new());
    lane.as_peer(async |handle| {
        for n in [1, 100, 3] {
            handle.tell(Msg::Say(n)).await.unwrap();
        }
    });
    lane.arrive(&core);
    assert_eq!(core.end().1, Exit::Done);
    assert_eq!(lane.done(), 2, "what is queued waits for the next process");
}

#[test]
fn a_service_that_fails_has_not() {
    let (core, lane) = (FakeCore::start(welcome(), doubler), Lane::new());
    lane.as_peer(async |handle| {
        for n in [1, 200, 3] {
            handle.tell(Msg::Say(n)).await.unwrap();
        }
    });
    lane.arrive(&core);
    assert_eq!(core.end().1, Exit::Failed);
    assert_eq!(lane.done(), 1);
}

#[test]
fn a_service_that_handles_without_a_wait_still_sees_its_stop() {
    let (core, lane) = (FakeCore::start(welcome(), doubler), Lane::new());
    lane.arrive(&core);
    core.expect(&FromService::Ready);
    // Another one keeps its inbox full until it has seen the stop.
    let stopped = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lane.as_peer(async |handle| {
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = handle.try_tell(Msg::Say(1));
                    tokio::task::yield_now().await;
                }
            });
        });
        let (_, exit) = core.stop();
        stopped.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(exit, Exit::Done);
    });
}

#[test]
fn a_handle_is_introduced_and_what_is_told_is_in_the_lane() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        let peer = ctx.intercom::<Msg>("peer").await?;
        peer.tell(Msg::Say(7)).await?;
        let again = ctx.intercom::<Msg>("peer").await?;
        again.tell(Msg::Say(8)).await?;
        ctx.ready().await?;
        idle(ctx).await
    });
    let lane = Lane::new();
    lane.introduce(&core, None);
    lane.introduce(&core, None);
    core.expect(&FromService::Ready);
    let page = watchdog_seqpacket::SenderPageReader::map_ro(lane.sender_page.as_fd()).unwrap();
    assert_eq!(page.stats().messages, 2);
    let (_, resumed) = core.take_over();
    assert_eq!(resumed.lanes_out, [lane.epoch]);
    core.stop();
}

#[test]
fn a_refusal_is_the_answer_and_a_contract_that_differs_is_a_handle_that_says_so() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        let refused = ctx.intercom::<Msg>("nobody").await;
        assert!(matches!(refused, Err(IntroduceError::Refused(Refusal::NoSuchService { .. }))));
        let peer = ctx.intercom::<Msg>("peer").await?;
        assert!(matches!(peer.tell(Msg::Say(7)).await, Err(TellError::ContractMismatch(Msg::Say(7)))));
        let asked = peer.ask(|reply| Msg::Ask { n: 1, reply }).await;
        assert!(matches!(asked, Err(AskError::ContractMismatch { .. })));
        ctx.ready().await?;
        idle(ctx).await
    });
    let FromService::Introduce { request, peer, contract } = core.hear() else { panic!() };
    assert_eq!((peer.as_str(), contract), ("nobody", Msg::contract()));
    let refusal = Refusal::NoSuchService { name: "nobody".into(), nearest: None };
    core.say(&ToService::Introduced { request, outcome: Err(refusal) });
    Lane::new().introduce(&core, Some(Mismatch::Unknown { at: 1, sender: "Ask".into() }));
    core.expect(&FromService::Ready);
    core.stop();
}

#[test]
fn a_lane_that_can_not_be_used_is_an_error_and_no_end() {
    let core = FakeCore::start(welcome(), async |ctx: Context<(), (), ()>| {
        assert_eq!(ctx.intercom::<Msg>("peer").await.unwrap_err(), IntroduceError::Unusable);
        ctx.ready().await?;
        idle(ctx).await
    });
    let FromService::Introduce { request, .. } = core.hear() else { panic!("an introduction is expected") };
    let lane = Lane::new();
    // Pages in the wrong order.
    let ends = [lane.sender_end.as_fd(), lane.receiver_page.as_fd(), lane.sender_page.as_fd()];
    core.say_beside(&ToService::Introduced { request, outcome: Ok(lane.out()) }, &ends);
    core.expect(&FromService::Ready);
    core.stop();
}
