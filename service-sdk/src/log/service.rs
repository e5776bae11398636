//! The part that a running service has: the way to the logging service, opened, watched and closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};
use watchdog_protocol::record::{FilterUpdate, LOGGING, Sampling};
use watchdog_protocol::session::LaneOut;

use super::LogMsg;
use super::layer::RecordLayer;
use super::outlet::{Maker, Outlet, Sender, Sent, Way};
use crate::lanes::{AskEnd, Fit, Lanes, OutLane, Outgoing, Undelivered};
use crate::message::Message;
use crate::reply::{self, Reply};
use crate::session::{Link, may_pass};

/// How long one ask for a filter waits: then it is asked anew, so that nothing waits for ever by mistake.
const FILTER_WAIT: Duration = Duration::from_secs(3600);

/// Before a filter is asked for again that could not be had.
const FILTER_RETRY: Duration = Duration::from_secs(1);

/// How long a service that begins waits for its lane: what its start has to say goes there from the beginning.
const LANE_WAIT: Duration = Duration::from_secs(1);

/// How long a panic waits until what led to it is told.
const PANIC_WAIT: Duration = Duration::from_millis(500);

/// What `run` installed. A clone is the same.
#[derive(Clone)]
pub(crate) struct Log {
    outlet: Arc<Outlet>,
    filter: reload::Handle<EnvFilter, Registry>,
    /// Directives without a logging service.
    initial: Arc<str>,
    is_expected: bool,
    sender: Arc<Mutex<Option<Sender>>>,
    is_decided: watch::Sender<bool>,
}

/// A lane to the logging service.
struct LogLane {
    lane: Arc<OutLane>,
    fit: Arc<Fit>,
}

impl Way for LogLane {
    fn try_send(&self, payload: Vec<u8>) -> Sent {
        let sent = self.lane.encoded(payload).and_then(|outgoing| self.lane.try_send(&self.fit, &outgoing));
        match sent {
            Ok(()) => Sent::Gone,
            // Another build of it may come, and take what waits till then.
            Err(Undelivered::Full | Undelivered::FullBeside | Undelivered::Mismatch(_)) => Sent::Full,
            Err(Undelivered::System(error)) if may_pass(&error) => Sent::Full,
            Err(Undelivered::NoSuchService | Undelivered::Denied) => Sent::Closed,
            Err(Undelivered::TooLarge { .. } | Undelivered::Unwritable(_) | Undelivered::System(_)) => {
                Sent::Refused
            }
        }
    }
}

/// Why there is no filter.
enum NoFilter {
    /// The way is closed.
    Closed,
    /// Its process died with the ask.
    Died,
    /// Not now.
    Later,
    /// What came is none.
    Unusable(String),
}

impl Log {
    /// Installs it, unless there is a subscriber already. `is_expected`: there is a logging service.
    pub(crate) fn install(initial: &str, is_expected: bool) -> Option<Self> {
        let outlet = Outlet::new(is_expected);
        let (filter, handle) = reload::Layer::new(EnvFilter::new(initial));
        let subscriber = Registry::default().with(filter).with(RecordLayer(Arc::clone(&outlet)));
        subscriber.try_init().ok()?;
        let flushed = Arc::clone(&outlet);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            if !flushed.is_on_lane() {
                flushed.to_standard_error();
            } else {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                tracing::error!(target: "panic", place, "{}", panic.payload_as_str().unwrap_or("a panic"));
                flushed.flush(PANIC_WAIT);
            }
        }));
        Some(Self {
            outlet,
            filter: handle,
            initial: initial.into(),
            is_expected,
            sender: Arc::default(),
            is_decided: watch::Sender::new(!is_expected),
        })
    }

    /// This is the logging service, which can't be its own reader.
    pub(crate) fn keep_to_standard_error(&self) {
        self.outlet.to_standard_error();
    }

    /// Waits until it is known where records go, but not for ever.
    pub(crate) async fn decided(&self) {
        let mut decided = self.is_decided.subscribe();
        // The sender is held here.
        let _ = tokio::time::timeout(LANE_WAIT, decided.wait_for(|is_decided| *is_decided)).await;
    }

    /// Keeps the way to the logging service, for ever.
    pub(crate) async fn tend(self, link: Link, lanes: Lanes, incarnation: u64) {
        let maker = Maker { incarnation, pid: std::process::id() };
        let mut is_there = self.is_expected;
        loop {
            if is_there && let Some((lane, fit)) = self.introduced(&link, &lanes).await {
                let sender =
                    self.outlet.open(maker, LogLane { lane: Arc::clone(&lane), fit: Arc::clone(&fit) });
                *self.sender() = sender;
                self.is_decided.send_replace(true);
                self.follow(&lane, &fit).await;
            }
            self.outlet.to_standard_error();
            if let Some(sender) = self.sender().take() {
                // The next one begins with what this one has not in its hands.
                sender.join();
            }
            self.use_initial();
            self.is_decided.send_replace(true);
            link.until(|ledger| ledger.take_logging().then_some(())).await;
            is_there = true;
        }
    }

    async fn introduced(&self, link: &Link, lanes: &Lanes) -> Option<(Arc<OutLane>, Arc<Fit>)> {
        let contract = LogMsg::contract();
        let answer = link.write(|ledger| ledger.introduce(LOGGING.to_owned(), contract.clone()));
        let lane: LaneOut = match answer.await {
            Ok(Ok(lane)) => lane,
            Ok(Err(refusal)) => {
                self.outlet.to_standard_error();
                tracing::warn!(%refusal, "no lane to the logging service: records go to standard error");
                return None;
            }
            // The session is over.
            Err(_) => return None,
        };
        lanes.introduced(&lane, contract)
    }

    /// Asks for one filter after the other, until the way is closed.
    async fn follow(&self, lane: &OutLane, fit: &Fit) {
        let mut known = 0;
        loop {
            match ask(lane, fit, known).await {
                Ok(update) => {
                    known = update.number;
                    self.apply(&update);
                }
                Err(NoFilter::Closed) => return,
                // The lane holds the next ask until there is another process of it.
                Err(NoFilter::Died) => {}
                Err(NoFilter::Later) => tokio::time::sleep(FILTER_RETRY).await,
                Err(NoFilter::Unusable(why)) => {
                    tracing::error!(why, "the logging service sent no filter");
                    tokio::time::sleep(FILTER_RETRY).await;
                }
            }
        }
    }

    fn apply(&self, update: &FilterUpdate) {
        self.outlet.sample(update.sampling);
        match EnvFilter::try_new(&update.directives) {
            Ok(filter) => self.reload(filter),
            Err(error) => {
                let directives = &update.directives;
                tracing::error!(%error, directives, "the logging service sent no filter, the old one stays");
            }
        }
    }

    fn use_initial(&self) {
        self.outlet.sample(Sampling::default());
        self.reload(EnvFilter::new(&*self.initial));
    }

    fn reload(&self, filter: EnvFilter) {
        // It fails only when the subscriber is gone, which is for ever.
        let _ = self.filter.reload(filter);
    }

    /// The service ended: what it had to say goes before its process does.
    pub(crate) fn close(&self, within: Duration) {
        let sender = self.sender().take();
        self.outlet.close(sender, within);
    }

    fn sender(&self) -> std::sync::MutexGuard<'_, Option<Sender>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(lane: &OutLane, fit: &Fit, known: u64) -> Result<FilterUpdate, NoFilter> {
    let outgoing: Outgoing =
        lane.encode(&LogMsg::Filter { known, reply: Reply::inert() }, None).map_err(|_| NoFilter::Later)?;
    let end = match lane.ask(fit, LogMsg::ASKS, &outgoing, FILTER_WAIT).await {
        Ok(end) => end,
        Err(Undelivered::NoSuchService | Undelivered::Denied) => return Err(NoFilter::Closed),
        Err(_) => return Err(NoFilter::Later),
    };
    match end {
        AskEnd::Answer(bytes) => reply::decode(bytes).map_err(|error| NoFilter::Unusable(error.to_string())),
        AskEnd::Closed => Err(NoFilter::Closed),
        AskEnd::Died(_) => Err(NoFilter::Died),
        AskEnd::Dropped | AskEnd::Late => Err(NoFilter::Later),
        AskEnd::Unreadable(error) => Err(NoFilter::Unusable(error.to_string())),
    }
}
