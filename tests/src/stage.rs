//! The other end of a puppet's strings: the SDK service that does what it is ordered.

use std::collections::HashMap;
use std::env;
use std::fmt::{Debug, Display};
use std::fs::OpenOptions;
use std::future::ready;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use counter::CounterMsg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchdog_service::{
    Context, Event, Health, Intercom, IntroduceError, Message, MigrateError, Reply, ServiceError, State,
    TellError, decode_state,
};

use crate::contract::{PatientMsg, PuppetMsg, WrongMsg};
use crate::puppet::{Heard, Level, Order, Shown, notes_name, socket_name};

/// Long enough never to be the reason.
const USUAL: Duration = Duration::from_secs(60);

/// How long one of many waits for room.
const MOMENT: Duration = Duration::from_millis(200);

/// What a puppet can be set to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PuppetSettings {
    /// Any word.
    #[serde(default)]
    word: String,
    /// A number within bounds.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    number: u64,
    /// A table in the table.
    #[serde(default)]
    inner: Inner,
}

/// A table in the table.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Inner {
    /// A switch.
    #[serde(default)]
    on: bool,
}

fn one() -> u64 {
    1
}

/// What a puppet remembers, in one of the versions there are.
pub trait Remembered: State {
    /// Shows it.
    fn text(&self) -> String;
    /// Changes it.
    fn set_text(&mut self, text: String);
}

/// The first version.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    text: String,
}

/// The second one: it counts the changes too.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CountingMemory {
    changes: u64,
    text: String,
}

impl State for Memory {
    const VERSION: u32 = 1;
}

impl State for CountingMemory {
    const VERSION: u32 = 2;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        match from {
            1 => decode_state::<Memory>(old).map(|Memory { text }| Self { changes: 0, text }),
            _ => Err(MigrateError::new("there is no such version")),
        }
    }
}

impl Remembered for Memory {
    fn text(&self) -> String {
        self.text.clone()
    }

    fn set_text(&mut self, text: String) {
        self.text = text;
    }
}

impl Remembered for CountingMemory {
    fn text(&self) -> String {
        format!("{} after {} changes", self.text, self.changes)
    }

    fn set_text(&mut self, text: String) {
        self.text = text;
        self.changes += 1;
    }
}

/// A message a puppet can take in hand.
pub trait Spoken: Message {
    /// Its text, and what to answer to.
    fn open(self) -> (String, Option<Reply<String>>);
}

impl Spoken for PuppetMsg {
    fn open(self) -> (String, Option<Reply<String>>) {
        match self {
            Self::Say { text } => (text, None),
            Self::Question { text, reply } => (text, Some(reply)),
            Self::Load { bytes } => {
                let sum = bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                (format!("{} bytes, sum {sum}", bytes.len()), None)
            }
        }
    }
}

impl Spoken for PatientMsg {
    fn open(self) -> (String, Option<Reply<String>>) {
        match self {
            Self::Question { text, reply } => (text, Some(reply)),
        }
    }
}

/// A puppet's whole `main`.
pub fn run<T: Remembered, M: Spoken>() -> ExitCode {
    watchdog_service::run(play::<T, M>)
}

type Strings<T, M> = Context<PuppetSettings, T, M>;

/// An order, and where to say what came of it.
struct Given {
    order: Order,
    from: UnixStream,
}

async fn play<T: Remembered, M: Spoken>(mut ctx: Strings<T, M>) -> Result<(), ServiceError> {
    let by_hand = env::var_os("PUPPET").is_some();
    let name = ctx.service().clone();
    let mut tasks = JoinSet::new();
    let mut orders = listen(&socket_name(name.as_str()), &mut tasks)?;
    let mut notes = OpenOptions::new().create(true).append(true).open(notes_name(name.as_str()))?;
    let mut handles = Handles::default();
    let mut in_hand: Option<Reply<String>> = None;
    // Who waits for the next event, when that is by hand.
    let mut waiting: Option<UnixStream> = None;
    if !by_hand {
        ctx.ready().await?;
    }
    loop {
        tokio::select! {
            biased;
            Some(Given { order, from }) = orders.recv() => match order {
                Order::Next => {
                    // What was in hand is done, answered or not.
                    in_hand = None;
                    waiting = Some(from);
                }
                Order::Answer { text } => {
                    in_hand.take().ok_or_else(|| ServiceError::new("no ask is in hand"))?.send(text);
                    say(from, Shown::Done).await;
                }
                Order::DropReply => {
                    in_hand = None;
                    say(from, Shown::Done).await;
                }
                Order::Fail { text } => return Err(ServiceError::new(text)),
                Order::Save => {
                    let state = ctx.state().clone();
                    tasks.spawn(async move { say(from, outcome(state.save().await)).await });
                }
                order => match perform(&order, &ctx).await {
                    Some(shown) => say(from, shown).await,
                    None => match handles.to_peer(order, &ctx).await {
                        // Beside what comes next: an ask may be open for long.
                        Ok(sending) => drop(tasks.spawn(async move { say(from, sending.await).await })),
                        Err(shown) => say(from, shown).await,
                    },
                },
            },
            event = ctx.next(), if !by_hand || waiting.is_some() => {
                let shown = match event? {
                    None => Shown::Stop,
                    Some(Event::SettingsUpdated) => Shown::SettingsUpdated,
                    Some(Event::Message(message)) => {
                        let (text, reply) = message.open();
                        let heard = heard(&ctx, text, reply.is_some());
                        serde_json::to_writer(&notes, &heard)?;
                        notes.write_all(b"\n")?;
                        in_hand = reply;
                        if !by_hand && let Some(reply) = in_hand.take() {
                            reply.send(heard.text.clone());
                        }
                        Shown::Message(heard)
                    }
                };
                let is_stop = shown == Shown::Stop;
                if let Some(from) = waiting.take() {
                    say(from, shown).await;
                }
                if is_stop {
                    return Ok(());
                }
            }
        }
    }
}

fn heard<T: Remembered, M: Spoken>(ctx: &Strings<T, M>, text: String, is_ask: bool) -> Heard {
    let delivery = ctx.delivery();
    Heard {
        text,
        sender: delivery.sender().to_string(),
        id: delivery.id().to_string(),
        redelivered: delivery.redelivered(),
        is_ask,
        waited: delivery.waited(),
        incarnation: ctx.incarnation().get(),
    }
}

/// Takes one order a connection.
fn listen(name: &str, tasks: &mut JoinSet<()>) -> io::Result<mpsc::Receiver<Given>> {
    /// A scenario gives one at a time; a few may be under way.
    const ORDERS: usize = 16;
    // A killed process leaves its file behind.
    let _none = std::fs::remove_file(name);
    let listener = UnixListener::bind(name)?;
    let (give, orders) = mpsc::channel(ORDERS);
    tasks.spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut line = String::new();
            // An order is one line, and nothing comes after it.
            let read = BufReader::new(&mut from).read_line(&mut line).await;
            let Ok(order) = serde_json::from_str(&line) else { continue };
            if read.is_ok()
                && from.write_all(b"\n").await.is_ok()
                && give.send(Given { order, from }).await.is_err()
            {
                return;
            }
        }
    });
    Ok(orders)
}

/// What needs nobody else. `None`: it is about a peer.
async fn perform<T: Remembered, M: Spoken>(order: &Order, ctx: &Strings<T, M>) -> Option<Shown> {
    Some(match order {
        Order::Ready => outcome(ctx.ready().await),
        Order::Settings => {
            Shown::Text(serde_json::to_string(&*ctx.settings().current()).expect("settings are JSON"))
        }
        Order::Refuse { reason } => {
            ctx.settings().refuse(reason);
            Shown::Done
        }
        Order::Update { text } => {
            ctx.state().update(|memory| memory.set_text(text.clone()));
            Shown::Done
        }
        Order::State => Shown::Text(ctx.state().read(Remembered::text)),
        Order::Origin => Shown::Text(format!("{:?}", ctx.state().origin())),
        Order::Health { level } => {
            ctx.health(match level.clone() {
                Level::Ok => Health::Ok,
                Level::Degraded(reason) => Health::Degraded { reason },
                Level::Failing(reason) => Health::Failing { reason },
            });
            Shown::Done
        }
        Order::Progress { fraction, text } => {
            ctx.progress(*fraction, text);
            Shown::Done
        }
        Order::Exit { code } => std::process::exit(*code),
        Order::Panic { text } => panic!("{text}"),
        Order::Hang => loop {
            std::thread::park();
        },
        _ => return None,
    })
}

/// Handles by peer and contract, each taken once and kept.
#[derive(Default)]
struct Handles {
    puppets: HashMap<String, Intercom<PuppetMsg>>,
    patient: HashMap<String, Intercom<PatientMsg>>,
    wrong: HashMap<String, Intercom<WrongMsg>>,
    counters: HashMap<String, Intercom<CounterMsg>>,
}

/// Something on its way to a peer, and what comes of it.
type Sending = Pin<Box<dyn Future<Output = Shown> + Send>>;

impl Handles {
    /// What an order has to say to a peer. `Err`: there is no handle to it.
    async fn to_peer<T: Remembered, M: Spoken>(
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

fn answer<E: Debug + Display>(result: Result<String, E>) -> Shown {
    result.map_or_else(|error| failed(&error), Shown::Text)
}

/// Tells who gave the order. A scenario that did not wait for it has gone.
async fn say(mut from: UnixStream, shown: Shown) {
    let mut line = serde_json::to_vec(&shown).expect("what came of it is JSON");
    line.push(b'\n');
    let _gone = from.write_all(&line).await;
}

fn outcome<E: Debug + Display>(result: Result<(), E>) -> Shown {
    result.map_or_else(|error| failed(&error), |()| Shown::Done)
}

/// The variant is the first word of the error as it is written in code.
fn failed<E: Debug + Display>(error: &E) -> Shown {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    Shown::Failed { kind: text[..end].to_owned(), text: error.to_string() }
}
