//! The task that gathers: when somebody wants metrics, and at no other time.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use watchdog_service::WatchdogQuery;
use watchdog_service::query::{FailureKind, QueryError};

use super::lives::Lives;
use super::{Counts, Gathering};
use crate::now;

/// Two that ask within this time get the same answer.
const FRESH: Duration = Duration::from_secs(1);

/// How long the watchdog has for its answers: longer than its core takes to be replaced.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those who wait while one gathering is made: each output asks one at a time, and beyond that they wait in line.
const ASKING: usize = 8;

/// Where metrics are asked for, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Source(mpsc::Sender<oneshot::Sender<Answer>>);

pub(crate) type Answer = Result<Arc<Gathering>, Unanswered>;

/// Why there are no metrics now; there may be later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the watchdog did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the watchdog did not answer: {0}")]
    Failed(String),
    #[error("the service ends")]
    Ended,
}

/// Who gathers.
#[derive(Debug)]
pub(crate) struct Gatherer {
    query: Option<Arc<WatchdogQuery>>,
    asked: mpsc::Receiver<oneshot::Sender<Answer>>,
    /// Whoever counts here.
    desk: mpsc::Sender<oneshot::Sender<Counts>>,
    host: Arc<str>,
    lives: Lives,
    latest: Option<(Instant, Arc<Gathering>)>,
}

/// Who is asked for the counts of this service, by the gatherer.
pub(crate) type Desk = mpsc::Receiver<oneshot::Sender<Counts>>;

impl Source {
    /// What is gathered now, or was within the last second. Cancel safe.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn gather(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| Unanswered::Ended)?;
        answer.await.map_err(|_| Unanswered::Ended)?
    }

    /// Has nothing, ever.
    #[cfg(test)]
    pub(crate) fn dry() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Answered by a test.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (Self, mpsc::Receiver<oneshot::Sender<Answer>>) {
        let (source, asked) = mpsc::channel(ASKING);
        (Self(source), asked)
    }
}

impl Gatherer {
    /// Who gathers, where it is asked, and where it asks for counts.
    pub(crate) fn new(query: Option<Arc<WatchdogQuery>>) -> (Self, Source, Desk) {
        let (source, asked) = mpsc::channel(ASKING);
        let (desk, counts) = mpsc::channel(1);
        let gatherer =
            Self { query, asked, desk, host: host().into(), lives: Lives::default(), latest: None };
        (gatherer, Source(source), counts)
    }

    /// As long as somebody can ask.
    pub(crate) async fn run(mut self) {
        while let Some(reply) = self.asked.recv().await {
            if reply.is_closed() {
                continue;
            }
            // Who asked may be gone when it is answered.
            let _ = reply.send(self.fresh().await);
        }
    }

    async fn fresh(&mut self) -> Answer {
        if let Some((at, latest)) = &self.latest
            && at.elapsed() < FRESH
        {
            return Ok(latest.clone());
        }
        let found = Arc::new(timeout(PATIENCE, self.gather()).await.unwrap_or(Err(Unanswered::Silent))?);
        self.latest = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    async fn gather(&mut self) -> Result<Gathering, Unanswered> {
        let mut missing = Vec::new();
        let (mut status, mut usage, mut inboxes) = (None, None, Vec::new());
        match &self.query {
            None => missing.extend(["status", "intercoms"]),
            Some(query) => {
                status = granted(query.status(&[]).await, "status", &mut missing)?;
                // By the same grant.
                if status.is_some() {
                    usage = granted(query.usage(&[], false).await, "status", &mut missing)?;
                }
                inboxes = granted(query.intercoms(&[]).await, "intercoms", &mut missing)?.unwrap_or_default();
            }
        }
        let (reply, counts) = oneshot::channel();
        self.desk.send(reply).await.map_err(|_| Unanswered::Ended)?;
        let counts = counts.await.map_err(|_| Unanswered::Ended)?;
        if !counts.follows_events {
            missing.push("events");
        }
        let at = now::nanos();
        let begun = self.lives.look(at, status.as_mut(), usage.as_ref(), &inboxes);
        Ok(Gathering { at, host: self.host.clone(), status, usage, inboxes, begun, counts, missing })
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What was answered; `None`: this service may not ask.
fn granted<T>(
    answer: Result<T, QueryError>,
    verb: &'static str,
    missing: &mut Vec<&'static str>,
) -> Result<Option<T>, Unanswered> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(QueryError::Refused(failure)) if failure.kind == FailureKind::NotPermitted => {
            missing.push(verb);
            Ok(None)
        }
        Err(error) => Err(Unanswered::Failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinSet;
    use watchdog_protocol::control::{Call, Failure, Outcome, Reply, Request, decode};
    use watchdog_protocol::session::encode;
    use watchdog_query::{BoxFuture, Replies, Transport};

    use super::*;
    use crate::metrics::sample;

    /// A watchdog that grants these verbs, and counts calls; one that grants nothing at all is silent.
    #[derive(Debug, Clone)]
    struct Core(&'static [&'static str], Arc<Mutex<usize>>);

    #[derive(Debug)]
    struct Said(Option<Vec<u8>>);

    impl Transport for Core {
        fn call(&self, call: Vec<u8>) -> BoxFuture<'_, Result<Box<dyn Replies>, QueryError>> {
            *self.1.lock().unwrap() += 1;
            let call: Call = decode(&call).unwrap();
            let (verb, outcome) = match call.request {
                Request::Status { .. } => ("status", Outcome::Status(Box::new(sample::status(&["a"])))),
                Request::Usage { .. } => ("status", Outcome::Usage(Box::new(sample::usage(&["a"])))),
                Request::Intercoms { .. } => {
                    ("intercoms", Outcome::Intercoms(vec![sample::inbox("a", &["b"])]))
                }
                other => panic!("{other:?}"),
            };
            let reply = if self.0.contains(&verb) {
                Reply::End(Ok(outcome))
            } else {
                Reply::End(Err(Failure::new(FailureKind::NotPermitted, "no")))
            };
            let said = (!self.0.is_empty()).then(|| encode(&reply));
            Box::pin(async { Ok(Box::new(Said(said)) as Box<dyn Replies>) })
        }
    }

    impl Replies for Said {
        fn next(&mut self) -> BoxFuture<'_, Result<Vec<u8>, QueryError>> {
            Box::pin(async {
                match self.0.take() {
                    Some(reply) => Ok(reply),
                    None => std::future::pending().await,
                }
            })
        }
    }

    /// A gatherer at work, and a desk that counts.
    struct Gathered {
        source: Source,
        calls: Arc<Mutex<usize>>,
        _tasks: JoinSet<()>,
    }

    impl Gathered {
        fn by(grant: Option<&'static [&'static str]>) -> Self {
            let calls = Arc::default();
            let query = grant.map(|verbs| Arc::new(WatchdogQuery::over(Core(verbs, Arc::clone(&calls)))));
            let (gatherer, source, mut desk) = Gatherer::new(query);
            let mut tasks = JoinSet::new();
            tasks.spawn(gatherer.run());
            tasks.spawn(async move {
                while let Some(reply) = desk.recv().await {
                    let counts = Counts { since: 7, follows_events: true, ..Counts::default() };
                    reply.send(counts).unwrap();
                }
            });
            Self { source, calls, _tasks: tasks }
        }

        fn calls(&self) -> usize {
            *self.calls.lock().unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_within_a_second_is_gathered_once() {
        let gathered = Gathered::by(Some(&["status", "intercoms"]));
        let (one, other) = tokio::join!(gathered.source.gather(), gathered.source.gather());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one, &other) && gathered.calls() == 3);
        assert_eq!((one.lack(), one.counts.since), (None, 7));
        assert!(one.status.is_some() && one.inboxes.len() == 1);
        tokio::time::advance(FRESH).await;
        assert!(!Arc::ptr_eq(&gathered.source.gather().await.unwrap(), &one));
        assert_eq!(gathered.calls(), 6);
    }

    #[tokio::test]
    async fn what_may_not_be_asked_for_is_named_and_the_rest_is_there() {
        let found = Gathered::by(Some(&["status"])).source.gather().await.unwrap();
        assert!(found.status.is_some() && found.inboxes.is_empty());
        assert_eq!(found.missing, ["intercoms"]);
        let found = Gathered::by(None).source.gather().await.unwrap();
        assert_eq!((found.missing.clone(), found.counts.since), (vec!["status", "intercoms"], 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watchdog_that_is_silent_is_given_up_and_asked_again() {
        let gathered = Gathered::by(Some(&[]));
        for calls in [1, 2] {
            assert_eq!(gathered.source.gather().await, Err(Unanswered::Silent));
            assert_eq!(gathered.calls(), calls);
        }
    }

    #[tokio::test]
    async fn who_gave_up_is_not_gathered_for() {
        let calls = Arc::default();
        let query = WatchdogQuery::over(Core(&["status", "intercoms"], Arc::clone(&calls)));
        let (gatherer, source, _desk) = Gatherer::new(Some(Arc::new(query)));
        let (reply, answer) = oneshot::channel();
        source.0.send(reply).await.unwrap();
        drop((answer, source));
        // It ends, for nobody is left to ask.
        gatherer.run().await;
        assert_eq!(*calls.lock().unwrap(), 0);
    }
}
