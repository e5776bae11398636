//! What is asked of the watchdog, when, and what is under way. Each question is there once at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use watchdog_protocol::control::{Change, SetOutcome};
use watchdog_protocol::layout::Inbox;
use watchdog_protocol::resources::LimitsView;
use watchdog_protocol::status::{EventRecord, Status};
use watchdog_protocol::usage::Usage;
use watchdog_protocol::why::Why;
use watchdog_protocol::{Manifest, ServiceName};
use watchdog_query::{Changed, QueryError, Sent, WatchdogQuery};

use super::model::Action;
use super::rows::Standing;

/// Without a word of the event log the status is asked for again: how long a thing lasts is counted here.
const STATUS: Duration = Duration::from_secs(5);

/// The same of limits.
const LIMITS: Duration = Duration::from_secs(30);

/// Standings are a message, which is recorded: they are asked for when something moved, and not more often than this.
const STANDINGS: Duration = Duration::from_secs(2);

/// After this a manager that did not answer is asked again.
const STANDINGS_AGAIN: Duration = Duration::from_secs(30);

/// How long the manager may take to answer, and to judge its settings.
const MANAGER: Duration = Duration::from_secs(5);

/// How long a service may take to stand still.
const STILL: Duration = Duration::from_secs(10);

/// Entries of the event log from before.
const PAST: u64 = 300;

/// Entries that came while a frame was drawn.
const EVENTS: usize = 256;

#[derive(Debug)]
pub(super) enum Answer {
    Usage(Result<Usage, QueryError>),
    Status(Result<Status, QueryError>),
    Limits(Result<LimitsView, QueryError>),
    Standings(Result<Vec<Standing>, String>),
    Why(ServiceName, Result<Why, QueryError>),
    Acted(Action, Result<Came, QueryError>),
}

/// What came of an action.
#[derive(Debug)]
pub(super) enum Came {
    Changed(Changed),
    Set(SetOutcome),
}

/// One thing that is asked for again and again.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    asked: Option<Instant>,
    is_under_way: bool,
    /// It is known to have changed.
    is_stale: bool,
}

impl Due {
    /// Begins it, if it is due: not asked for within `least`, and stale or older than `most`.
    fn begin(&mut self, least: Duration, most: Duration, now: Instant) -> bool {
        let age = self.asked.map(|asked| now.saturating_duration_since(asked));
        let is_due = age.is_none_or(|age| age >= most || self.is_stale && age >= least);
        let begins = is_due && !self.is_under_way;
        if begins {
            *self = Self { asked: Some(now), is_under_way: true, is_stale: false };
        }
        begins
    }
}

#[derive(Debug)]
pub(super) struct Asks {
    query: Arc<WatchdogQuery>,
    manager: ServiceName,
    answers: JoinSet<Answer>,
    followers: JoinSet<QueryError>,
    told: mpsc::Sender<EventRecord>,
    usage: Due,
    status: Due,
    limits: Due,
    standings: Due,
    standings_failed: bool,
    /// Priorities are set one after the other: the last one holds.
    priorities: Vec<(String, u8)>,
    is_setting: bool,
}

impl Asks {
    /// Entries of the event log come by the receiver.
    pub(super) fn new(query: WatchdogQuery, manager: ServiceName) -> (Self, mpsc::Receiver<EventRecord>) {
        let (told, events) = mpsc::channel(EVENTS);
        let this = Self {
            query: Arc::new(query),
            manager,
            answers: JoinSet::new(),
            followers: JoinSet::new(),
            told,
            usage: Due::default(),
            status: Due::default(),
            limits: Due::default(),
            standings: Due::default(),
            standings_failed: false,
            priorities: Vec::new(),
            is_setting: false,
        };
        (this, events)
    }

    /// Asks for all that is due.
    pub(super) fn ask(&mut self, period: Duration) {
        let now = Instant::now();
        if self.usage.begin(period, period, now) {
            let query = Arc::clone(&self.query);
            self.answers.spawn(async move { Answer::Usage(query.usage(&[], false).await) });
        }
        if self.status.begin(period, STATUS.max(period), now) {
            let query = Arc::clone(&self.query);
            self.answers.spawn(async move { Answer::Status(query.status(&[]).await) });
        }
        if self.limits.begin(period, LIMITS.max(period), now) {
            let query = Arc::clone(&self.query);
            self.answers.spawn(async move { Answer::Limits(query.limits(&[]).await) });
        }
        let again = if self.standings_failed { STANDINGS_AGAIN } else { Duration::MAX };
        if self.standings.begin(period.max(STANDINGS), again, now) {
            self.ask_standings();
        }
    }

    pub(super) fn ask_standings(&mut self) {
        let (query, manager) = (Arc::clone(&self.query), self.manager.clone());
        self.answers.spawn(async move { Answer::Standings(standings(&query, &manager).await) });
    }

    /// When a reading of use is due.
    pub(super) fn next(&self, period: Duration) -> Instant {
        let next = self.usage.asked.map_or_else(Instant::now, |asked| asked + period);
        // One that does not come is looked after.
        if self.usage.is_under_way { next.max(Instant::now() + Duration::from_millis(500)) } else { next }
    }

    /// Follows the event log from behind this entry on, unless it is followed.
    pub(super) fn follow(&mut self, after: u64) {
        if !self.followers.is_empty() {
            return;
        }
        let (query, told) = (Arc::clone(&self.query), self.told.clone());
        self.followers.spawn(async move {
            let mut events = query.events(after, PAST, true);
            loop {
                match events.next().await {
                    Ok(Some(event)) => {
                        if told.send(event).await.is_err() {
                            return QueryError::Closed { source: None };
                        }
                    }
                    Ok(None) => return QueryError::Closed { source: None },
                    Err(error) => return error,
                }
            }
        });
    }

    /// The next answer; or, by `None`, that the event log is not followed any more. Cancel safe.
    pub(super) async fn next_answer(&mut self) -> Option<Answer> {
        let answer = tokio::select! {
            Some(answer) = self.answers.join_next() => answer,
            Some(_) = self.followers.join_next() => return None,
            else => std::future::pending().await,
        };
        let answer = answer.expect("nobody ends a question, and none panics");
        match &answer {
            Answer::Usage(_) => self.usage.is_under_way = false,
            Answer::Status(_) => self.status.is_under_way = false,
            Answer::Limits(_) => self.limits.is_under_way = false,
            Answer::Standings(answer) => {
                self.standings.is_under_way = false;
                self.standings_failed = answer.is_err();
            }
            Answer::Why(..) => {}
            Answer::Acted(action, _) => {
                self.limits.is_stale = true;
                // At once: the next key may be about what this one did.
                self.status.asked = None;
                if let Action::Priority { .. } = action {
                    self.standings.is_stale = true;
                    self.is_setting = false;
                    self.set();
                }
            }
        }
        Some(answer)
    }

    /// For how long the oldest question waits that is answered at once by a watchdog that is well.
    pub(super) fn silence(&self) -> Option<Duration> {
        let all = [self.usage, self.status, self.limits].into_iter().filter(|due| due.is_under_way);
        all.filter_map(|due| due.asked).map(|asked| asked.elapsed()).max()
    }

    /// What an entry of the event log tells to have changed.
    pub(super) fn heard(&mut self, event: &EventRecord) {
        self.status.is_stale = true;
        match &*event.what {
            "limit" | "frozen" | "thawed" => (self.limits.is_stale, self.standings.is_stale) = (true, true),
            "ready" | "ended" | "registered" | "unregistered" | "removed" | "renamed" => {
                self.limits.is_stale = true;
            }
            _ => {}
        }
        if event.service.as_ref() == Some(&self.manager) && matches!(&*event.what, "settings" | "ready") {
            self.standings.is_stale = true;
            self.standings_failed = false;
        }
    }

    /// All is asked for again: another core, or the same after a while.
    pub(super) fn forget(&mut self) {
        for due in [&mut self.usage, &mut self.status, &mut self.limits, &mut self.standings] {
            due.is_stale = true;
        }
    }

    pub(super) fn explain(&mut self, service: ServiceName) {
        let query = Arc::clone(&self.query);
        self.answers.spawn(async move {
            let why = query.why(&service).await;
            Answer::Why(service, why)
        });
    }

    pub(super) fn act(&mut self, action: Action) {
        if let Action::Priority { service, to } = action {
            self.priorities.retain(|(of, _)| *of != service);
            self.priorities.push((service, to));
            return self.set();
        }
        let query = Arc::clone(&self.query);
        self.answers.spawn(async move {
            let came = match &action {
                Action::Priority { .. } => unreachable!("it is set above"),
                Action::Freeze(service) => query.freeze(std::slice::from_ref(service), None, STILL).await,
                Action::Thaw(service) => query.thaw(std::slice::from_ref(service), None).await,
                // What comes of it is seen in the table.
                Action::Restart(service) => query.restart(std::slice::from_ref(service), None).await,
                Action::Stop(service) => query.stop(std::slice::from_ref(service), None).await,
                Action::Start(service) => query.start(std::slice::from_ref(service), None).await,
            };
            Answer::Acted(action, came.map(Came::Changed))
        });
    }

    fn set(&mut self) {
        if self.is_setting || self.priorities.is_empty() {
            return;
        }
        self.is_setting = true;
        let (service, to) = self.priorities.remove(0);
        let (query, manager) = (Arc::clone(&self.query), self.manager.clone());
        self.answers.spawn(async move {
            let change = Change { path: format!("services.{service}.priority"), value: Some(to.to_string()) };
            let came = query.set(&manager, vec![change], None, Some(MANAGER)).await;
            Answer::Acted(Action::Priority { service, to }, came.map(Came::Set))
        });
    }
}

/// By its own words, whatever build it is of.
async fn standings(query: &WatchdogQuery, manager: &ServiceName) -> Result<Vec<Standing>, String> {
    let told = |error: QueryError| error.to_string();
    let manifest = query.manifest(manager).await.map_err(told)?;
    let manifest = manifest.ok_or_else(|| format!("`{manager}` is a plain program"))?;
    let manifest = Manifest::parse(manifest.as_bytes()).map_err(|error| error.to_string())?;
    let inbox = Inbox::of(&manifest);
    let message =
        inbox.encode("\"Standings\"").map_err(|error| format!("`{manager}` tells no standings: {error}"))?;
    let Sent::Answered(answer) = query.send(manager, message, Some(MANAGER)).await.map_err(told)? else {
        return Err(format!("`{manager}` has not answered"));
    };
    let message = inbox.named("Standings").and_then(Result::ok);
    let message = message.ok_or_else(|| format!("`{manager}` tells no standings"))?;
    let json = message.decode_reply(&answer).map_err(|error| error.to_string())?;
    serde_json::from_str(&json).map_err(|error| format!("`{manager}` tells something else: {error}"))
}
