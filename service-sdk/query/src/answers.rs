//! One call under way: asked, and asked again when the watchdog's core is replaced meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use watchdog_protocol::control::{Call, LogPlace, LogResume, Reply, Request, decode};
use watchdog_protocol::session::encode;
use watchdog_protocol::status::{EventRecord, LogRecord};

use crate::QueryError;
use crate::transport::{Replies, Transport};

/// From one try to reach the watchdog to the next.
const RETRY: Duration = Duration::from_millis(20);

/// A connection that held so long was a good one: its end is a new break, not the next failure of the last one.
const STEADY: Duration = Duration::from_secs(1);

/// Above the wait that was asked for, how long the watchdog may say nothing: more than the slowest disk.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Answers<'q> {
    transport: &'q dyn Transport,
    call: Call,
    replies: Option<Box<dyn Replies>>,
    /// When `replies` was there first.
    opened: Instant,
    broken: Option<Instant>,
    /// The watchdog has had the call at least once.
    delivered: bool,
    begun: SystemTime,
}

impl<'q> Answers<'q> {
    pub(crate) fn to(transport: &'q dyn Transport, call: Call) -> Self {
        Self {
            transport,
            call,
            replies: None,
            opened: Instant::now(),
            broken: None,
            delivered: false,
            begun: SystemTime::now(),
        }
    }

    /// Cancel safe: what was begun is gone on with, or begun again under the same id.
    pub(crate) async fn next(&mut self) -> Result<Reply, QueryError> {
        loop {
            match self.attempt().await {
                Ok(reply) => {
                    self.broken = None;
                    // What a repeated call asks for: all that came since.
                    match (&mut self.call.request, &reply) {
                        (Request::Events { after, last, .. }, Reply::Event(event)) => {
                            (*after, *last) = (event.number, u64::MAX);
                        }
                        (Request::Logs { resume, last, .. }, Reply::Log(record)) => {
                            given(resume.get_or_insert_with(|| begun(self.begun)), record);
                            *last = u64::MAX;
                        }
                        _ => {}
                    }
                    return Ok(reply);
                }
                Err(error) => {
                    if let Request::Logs { resume: resume @ None, last: last @ 0, .. } =
                        &mut self.call.request
                    {
                        // Nothing was given, and what came since is wanted.
                        (*resume, *last) = (Some(begun(self.begun)), u64::MAX);
                    }
                    if self.replies.take().is_some() && self.opened.elapsed() >= STEADY {
                        self.broken = None;
                    }
                    let since = *self.broken.get_or_insert_with(Instant::now);
                    if !error.may_pass() || since.elapsed() >= self.patience() {
                        return Err(error);
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    pub(crate) fn delivered(&self) -> bool {
        self.delivered
    }

    async fn attempt(&mut self) -> Result<Reply, QueryError> {
        let Some(wait) = self.longest() else { return self.reply().await };
        tokio::time::timeout(wait, self.reply()).await.unwrap_or(Err(QueryError::Silent { waited: wait }))
    }

    async fn reply(&mut self) -> Result<Reply, QueryError> {
        let replies = match &mut self.replies {
            Some(replies) => replies,
            none => {
                let replies = self.transport.call(encode(&self.call)).await?;
                (self.delivered, self.opened) = (true, Instant::now());
                none.insert(replies)
            }
        };
        decode(&replies.next().await?).map_err(QueryError::Garbled)
    }

    /// How long to try again. An upgrade that comes to nothing takes as long as the new core was given.
    fn patience(&self) -> Duration {
        match (self.transport.patience(), &self.call.request) {
            (Duration::ZERO, _) => Duration::ZERO,
            (usual, Request::Upgrade { ready_within_ms, .. }) => {
                usual.saturating_mul(2).saturating_add(Duration::from_millis(*ready_within_ms))
            }
            (usual, _) => usual,
        }
    }

    fn longest(&self) -> Option<Duration> {
        match self.call.request {
            Request::Events { follow: true, .. } | Request::Logs { follow: true, .. } => None,
            _ => Some(Duration::from_millis(self.call.wait_ms.unwrap_or(0)) + SILENCE),
        }
    }
}

fn begun(at: SystemTime) -> LogResume {
    let since = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    LogResume { begun_us: u64::try_from(since).unwrap_or(u64::MAX), places: Vec::new() }
}

/// Notes that this record was given.
fn given(resume: &mut LogResume, record: &LogRecord) {
    let place = resume.places.iter_mut().find(|place| place.service == record.service);
    match place {
        Some(place) if place.at_us == record.at_us => place.given += 1,
        Some(place) => (place.at_us, place.given) = (record.at_us, 1),
        None => {
            let (service, at_us) = (record.service.clone(), record.at_us);
            resume.places.push(LogPlace { service, at_us, given: 1 });
        }
    }
}

/// What services print, as it comes.
#[derive(Debug)]
pub struct Logs<'q> {
    answers: Answers<'q>,
}

impl<'q> Logs<'q> {
    pub(crate) fn of(answers: Answers<'q>) -> Self {
        Self { answers }
    }

    /// The next record; `None` after the last, which never comes when following. In the order of a service's own
    /// printing, and nearly in the order of time between services. Each comes once, also when the watchdog's core is
    /// replaced meanwhile; what was printed more than 8 MiB ago by then is left out. Cancel safe.
    ///
    /// # Errors
    /// [`QueryError`]; the stream is at its end then.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, QueryError> {
        loop {
            match self.answers.next().await? {
                Reply::Log(record) => return Ok(Some(record)),
                Reply::Progress(_) | Reply::Event(_) => {}
                Reply::End(Ok(_)) => return Ok(None),
                Reply::End(Err(failure)) => return Err(QueryError::Refused(failure)),
            }
        }
    }
}

/// Entries of the event log, as they come.
#[derive(Debug)]
pub struct Events<'q> {
    answers: Answers<'q>,
    /// The first entry is asked for and not shown.
    unseen: bool,
}

impl<'q> Events<'q> {
    pub(crate) fn of(answers: Answers<'q>, unseen: bool) -> Self {
        Self { answers, unseen }
    }

    /// The next entry; `None` after the last, which never comes when following. Each entry comes once and none
    /// is left out, also when the watchdog's core is replaced meanwhile. Cancel safe.
    ///
    /// # Errors
    /// [`QueryError`]; the stream is at its end then.
    pub async fn next(&mut self) -> Result<Option<EventRecord>, QueryError> {
        loop {
            match self.answers.next().await? {
                Reply::Event(_) if std::mem::take(&mut self.unseen) => {}
                Reply::Event(event) => return Ok(Some(event)),
                Reply::Progress(_) | Reply::Log(_) => {}
                Reply::End(Ok(_)) => return Ok(None),
                Reply::End(Err(failure)) => return Err(QueryError::Refused(failure)),
            }
        }
    }
}
