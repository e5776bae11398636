//! The other end of a puppet's strings: the SDK service that does what it is ordered.

mod handles;
mod memory;

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::fmt::{Debug, Display};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchdog_protocol::control::Change;
use watchdog_protocol::layout::Encoded;
use watchdog_protocol::resources::{LimitChange, LimitKey};
use watchdog_protocol::why::Origin;
use watchdog_protocol::{Contract, Revision};
use watchdog_query::WatchdogQuery;
use watchdog_service::{Context, Deferred, Event, Health, Message, Reply, ServiceError, ServiceName};

use self::handles::Handles;
pub use self::memory::{CountingMemory, Memory, PuppetSettings, Remembered};
use crate::contract::{PatientMsg, PuppetMsg};
use crate::puppet::{Heard, Level, Order, Shown, Way, notes_name, socket_name};

/// Long enough never to be the reason.
const USUAL: Duration = Duration::from_secs(60);

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
    let mut open: VecDeque<(Deferred, Option<Reply<String>>)> = VecDeque::new();
    let query = ctx.query();
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
                Order::Defer => {
                    open.push_back((ctx.defer(), in_hand.take()));
                    say(from, Shown::Done).await;
                }
                Order::Finish { text } => {
                    let (deferred, reply) =
                        open.pop_front().ok_or_else(|| ServiceError::new("nothing is open"))?;
                    if let Some(reply) = reply {
                        reply.send(text);
                    }
                    deferred.done();
                    say(from, Shown::Done).await;
                }
                Order::CountServices => say(from, count(query.as_ref()).await).await,
                Order::Stop { service } => say(from, stop(query.as_ref(), &service).await).await,
                Order::Limit { service, change } => {
                    say(from, limit(query.as_ref(), &service, &change).await).await;
                }
                Order::Freeze { service } => say(from, freeze(query.as_ref(), &service).await).await,
                Order::SendByGrant { to, text } => {
                    say(from, send_by_grant(query.as_ref(), &to, &text).await).await;
                }
                Order::StateOf { service } => say(from, state_of(query.as_ref(), &service).await).await,
                Order::Why { service } => say(from, why(query.as_ref(), &service).await).await,
                Order::LastLine { service } => say(from, last_line(query.as_ref(), &service).await).await,
                order @ (Order::Set { .. } | Order::RollBack { .. } | Order::CountRevisions { .. }) => {
                    say(from, settle(query.as_ref(), order).await).await;
                }
                Order::Fail { text } => return Err(ServiceError::new(text)),
                Order::Save => {
                    let state = ctx.state().clone();
                    tasks.spawn(async move { say(from, outcome(state.save().await)).await });
                }
                order => match perform(&order, &ctx).await {
                    Some(shown) => say(from, shown).await,
                    None => match handles.prepare(order, &ctx).await {
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
                        // In one write: somebody reads along.
                        let mut note = serde_json::to_vec(&heard)?;
                        note.push(b'\n');
                        notes.write_all(&note)?;
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

async fn count(query: Option<&WatchdogQuery>) -> Shown {
    match query {
        None => no_grant(),
        Some(query) => answer(query.status(&[]).await.map(|status| status.services.len().to_string())),
    }
}

async fn stop(query: Option<&WatchdogQuery>, service: &str) -> Shown {
    let name: ServiceName = service.parse().expect("a scenario names services well");
    match query {
        None => no_grant(),
        Some(query) => outcome(query.stop(&[name], Some(USUAL)).await.map(drop)),
    }
}

async fn limit(query: Option<&WatchdogQuery>, service: &str, change: &str) -> Shown {
    let name: ServiceName = service.parse().expect("a scenario names services well");
    let Some(query) = query else { return no_grant() };
    let (key, value) = change.split_once('=').expect("a scenario writes changes well");
    let key = LimitKey::ALL.into_iter().find(|known| known.as_str() == key).expect("a key there is");
    let value = Some(key.parse(value).expect("a scenario writes changes well"));
    let changes = vec![LimitChange { key, value }];
    let limited = query.limit(&name, changes, Some("tried".to_owned()), USUAL).await;
    answer(limited.map(|view| view.services[0].limits.to_string()))
}

async fn freeze(query: Option<&WatchdogQuery>, service: &str) -> Shown {
    let name: ServiceName = service.parse().expect("a scenario names services well");
    match query {
        None => no_grant(),
        Some(query) => outcome(query.freeze(&[name], Some("tried".to_owned()), USUAL).await.map(drop)),
    }
}

async fn why(query: Option<&WatchdogQuery>, service: &str) -> Shown {
    let name: ServiceName = service.parse().expect("a scenario names services well");
    let Some(query) = query else { return no_grant() };
    answer(query.why(&name).await.map(|why| match why.origin {
        Origin::FirstCause(words) => words,
        Origin::NotInLog(words) => format!("not known: {words}"),
    }))
}

async fn state_of(query: Option<&WatchdogQuery>, service: &str) -> Shown {
    let name: ServiceName = service.parse().expect("a scenario names services well");
    let Some(query) = query else { return no_grant() };
    answer(query.state_value(&name).await.map(|value| value.json))
}

async fn send_by_grant(query: Option<&WatchdogQuery>, to: &str, text: &str) -> Shown {
    let name: ServiceName = to.parse().expect("a scenario names services well");
    let Some(query) = query else { return no_grant() };
    let mut payload = Vec::new();
    PuppetMsg::Say { text: text.to_owned() }.encode(&mut payload).expect("a text has a form");
    let contract = Contract(PuppetMsg::contract().0[..1].to_vec());
    let message = Encoded { name: "Say".to_owned(), payload, contract, asks: None };
    answer(query.send(&name, message, Some(USUAL)).await.map(|_| "sent".to_owned()))
}

async fn last_line(query: Option<&WatchdogQuery>, service: &str) -> Shown {
    let name: ServiceName = service.parse().expect("a scenario names services well");
    let Some(query) = query else { return no_grant() };
    let mut logs = query.logs(&[name], 1, false);
    answer(logs.next().await.map(|record| record.map_or_else(String::new, |record| record.text)))
}

async fn settle(query: Option<&WatchdogQuery>, order: Order) -> Shown {
    let Some(query) = query else { return no_grant() };
    let name = |service: String| service.parse::<ServiceName>().expect("a scenario names services well");
    answer(match order {
        Order::Set { service, path, value } => {
            let changes = vec![Change { path, value: Some(value) }];
            let outcome = query.set(&name(service), changes, None, Some(USUAL)).await;
            outcome.map(|outcome| outcome.revision.to_string())
        }
        Order::RollBack { service, to } => {
            let to = Some(Revision::from_stored(to));
            let outcome = query.rollback(&name(service), to, None, Some(USUAL)).await;
            outcome.map(|outcome| outcome.revision.to_string())
        }
        Order::CountRevisions { service } => {
            query.history(&name(service)).await.map(|revisions| revisions.len().to_string())
        }
        other => unreachable!("{other:?} is about no settings"),
    })
}

fn no_grant() -> Shown {
    Shown::Failed { kind: "NoGrant".into(), text: "it has no grant".into() }
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
        Order::Inform { text, count } => {
            for n in 1..=*count {
                tracing::info!(n, "{text}");
            }
            Shown::Done
        }
        Order::Debug { text } => {
            tracing::debug!("{text}");
            Shown::Done
        }
        Order::Progress { fraction, text } => {
            ctx.progress(*fraction, text);
            Shown::Done
        }
        Order::Exit { code } => std::process::exit(*code),
        Order::Panic { text } => panic!("{text}"),
        Order::ShutLanes { way } => {
            shut_lanes(match way {
                Way::Out => Shutdown::Write,
                Way::In => Shutdown::Read,
            });
            Shown::Done
        }
        Order::Hang => loop {
            std::thread::park();
        },
        _ => return None,
    })
}

/// All seqpacket sockets but the first, which is the session.
fn shut_lanes(how: Shutdown) {
    let table = fs::read_to_string("/proc/self/net/unix").expect("the kernel's table of sockets");
    let seqpacket = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(4);
        (columns.next()? == "0005").then_some(())?;
        Some(format!("socket:[{}]", columns.nth(1)?))
    });
    let seqpacket: BTreeSet<_> = seqpacket.collect();
    let open = fs::read_dir("/proc/self/fd").expect("our descriptors").flatten();
    let ends = open.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|what| seqpacket.contains(&*what.to_string_lossy()))
    });
    let ends: BTreeSet<RawFd> = ends.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for end in ends.into_iter().skip(1) {
        shutdown(end, how).expect("an end of a lane");
    }
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
    Shown::Failed { kind: text[..end].to_owned(), text: format!("{error}: {text}") }
}
