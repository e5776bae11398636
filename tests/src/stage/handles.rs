//! A puppet's handles to its peers, and what it says through them.

use std::collections::HashMap;
use std::future::ready;
use std::pin::Pin;
use std::time::Duration;

use counter::CounterMsg;
use watchdog_service::{Intercom, IntroduceError, Message, TellError};

use super::{Remembered, Spoken, Strings, USUAL, answer, failed, outcome};
use crate::contract::{PatientMsg, PuppetMsg, WrongMsg};
use crate::puppet::{Order, Shown};

/// How long one of many waits for room.
const MOMENT: Duration = Duration::from_millis(200);

/// Handles by peer and contract, each taken once and kept.
#[derive(Default)]
pub(super) struct Handles {
    puppets: HashMap<String, Intercom<PuppetMsg>>,
    patient: HashMap<String, Intercom<PatientMsg>>,
    wrong: HashMap<String, Intercom<WrongMsg>>,
    counters: HashMap<String, Intercom<CounterMsg>>,
}

/// Something on its way to a peer, and what comes of it.
pub(super) type Sending = Pin<Box<dyn Future<Output = Shown> + Send>>;

impl Handles {
    /// What an order has to say to a peer. `Err`: there is no handle to it.
    pub(super) async fn prepare<T: Remembered, M: Spoken>(
        &mut self,
        order: Order,
        ctx: &Strings<T, M>,
    ) -> Result<Sending, Shown> {
        let puppets = &mut self.puppets;
        Ok(match order {
            Order::Intercom { to } => {
                handle(puppets, &to, ctx).await?;
                Box::pin(ready(Shown::Done))
            }
            Order::Tell { to, text, deadline } => {
                let peer = handle(puppets, &to, ctx).await?;
                let deadline = deadline.unwrap_or(USUAL);
                Box::pin(async move { outcome(peer.tell_within(deadline, PuppetMsg::Say { text }).await) })
            }
            Order::TellMany { to, count } => {
                let peer = handle(puppets, &to, ctx).await?;
                Box::pin(async move {
                    for n in 1..=count {
                        let text = n.to_string();
                        match peer.tell_within(MOMENT, PuppetMsg::Say { text }).await {
                            Ok(()) => {}
                            Err(TellError::Full(_)) => {
                                return Shown::Failed { kind: "Full".into(), text: (n - 1).to_string() };
                            }
                            Err(error) => return failed(&error),
                        }
                    }
                    Shown::Done
                })
            }
            Order::TryTell { to, text } => {
                let told = handle(puppets, &to, ctx).await?.try_tell(PuppetMsg::Say { text });
                Box::pin(ready(outcome(told)))
            }
            Order::Feed { to, count } => {
                let peer = handle(puppets, &to, ctx).await?;
                Box::pin(async move {
                    for n in 1..=count {
                        if let Err(error) = peer.feed(PuppetMsg::Say { text: n.to_string() }).await {
                            return failed(&error);
                        }
                    }
                    Shown::Done
                })
            }
            Order::Flush { to } => {
                let peer = handle(puppets, &to, ctx).await?;
                Box::pin(async move { outcome(peer.flush().await) })
            }
            Order::TellBytes { to, count } => {
                let peer = handle(puppets, &to, ctx).await?;
                let bytes = (0..=250).cycle().take(count).collect();
                Box::pin(async move { outcome(peer.tell_within(USUAL, PuppetMsg::Load { bytes }).await) })
            }
            Order::TellWrong { to } => {
                let peer = handle(&mut self.wrong, &to, ctx).await?;
                Box::pin(async move { outcome(peer.tell(WrongMsg::Say { text: 7 }).await) })
            }
            Order::Ask { to, text, deadline } => {
                let peer = handle(puppets, &to, ctx).await?;
                let deadline = deadline.unwrap_or(USUAL);
                Box::pin(async move {
                    answer(peer.ask_within(deadline, |reply| PuppetMsg::Question { text, reply }).await)
                })
            }
            Order::AskPatiently { to, text, deadline } => {
                let peer = handle(&mut self.patient, &to, ctx).await?;
                let deadline = deadline.unwrap_or(USUAL);
                Box::pin(async move {
                    answer(peer.ask_within(deadline, |reply| PatientMsg::Question { text, reply }).await)
                })
            }
            Order::Add { to, n } => {
                let peer = handle(&mut self.counters, &to, ctx).await?;
                Box::pin(async move { outcome(peer.tell_within(USUAL, CounterMsg::Add { n }).await) })
            }
            Order::Total { to } => {
                let peer = handle(&mut self.counters, &to, ctx).await?;
                Box::pin(async move {
                    let total = peer.ask_within(USUAL, |reply| CounterMsg::Total { reply }).await;
                    answer(total.map(|total| total.to_string()))
                })
            }
            other => unreachable!("{other:?} is done before"),
        })
    }
}

/// The handle to a peer: the one taken before, or a first one.
async fn handle<N: Message, T: Remembered, M: Spoken>(
    taken: &mut HashMap<String, Intercom<N>>,
    to: &str,
    ctx: &Strings<T, M>,
) -> Result<Intercom<N>, Shown> {
    if let Some(handle) = taken.get(to) {
        return Ok(handle.clone());
    }
    let fresh = ctx.intercom::<N>(to).await.map_err(|error| match error {
        IntroduceError::Refused(refusal) => failed(&refusal),
        error => failed(&error),
    })?;
    taken.insert(to.to_owned(), fresh.clone());
    Ok(fresh)
}
