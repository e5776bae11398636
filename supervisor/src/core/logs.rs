//! What services printed, for callers that do not read the files themselves.
//!
//! By a task for each call, and on a thread for the files: neither a slow disk nor a slow reader makes the event loop
//! wait.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{Failure, FailureKind, LogResume, MAX_LOGS, Outcome, Reply};
use watchdog_protocol::status::LogRecord;

use crate::capture::reader::{Back, Follow, Record, is_printed};

/// From one look at the files to the next, while somebody follows.
const LOOK: Duration = Duration::from_millis(100);

/// Of all services' files together, read back for one call: the lines wait in memory for their reader.
const READ_BACK: u64 = 8 * 1024 * 1024;

/// One call.
#[derive(Debug)]
pub(super) struct LogCall {
    pub(super) folder: PathBuf,
    pub(super) services: Vec<ServiceName>,
    pub(super) last: u64,
    pub(super) follow: bool,
    pub(super) resume: Option<LogResume>,
    pub(super) replies: mpsc::Sender<Reply>,
}

impl LogCall {
    /// Until all is said, or nobody listens.
    pub(super) async fn serve(self) {
        let replies = self.replies.clone();
        let end = match self.give().await {
            Ok(()) => Ok(Outcome::Done(String::new())),
            Err(Ended::NobodyListens) => return,
            Err(Ended::Unreadable(err)) => {
                let folder = self.folder.display();
                Err(Failure::new(FailureKind::Failed, format!("cannot read the logs in {folder}: {err}")))
            }
        };
        // Whoever is gone needs no end.
        let _ = replies.send(Reply::End(end)).await;
    }

    async fn give(&self) -> Result<(), Ended> {
        let back = Back {
            // A call that is repeated wants all that came since, and says itself what that is.
            records: usize::try_from(self.last.min(MAX_LOGS)).unwrap_or(usize::MAX),
            bytes: READ_BACK / (self.services.len() as u64).max(1),
        };
        let (folder, services) = (self.folder.clone(), self.services.clone());
        let (mut files, records) =
            on_thread(move || Follow::from_end_where(&folder, &services, back, |_| true)).await?;
        self.send(unseen(records.into_iter().map(record).collect(), self.resume.as_ref())).await?;
        if !self.follow {
            return Ok(());
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.replies.closed() => return Err(Ended::NobodyListens),
            }
            let records;
            (files, records) = on_thread(move || {
                let records = files.more()?;
                Ok((files, records))
            })
            .await?;
            self.send(records.into_iter().filter(is_printed).map(record).collect()).await?;
        }
    }

    async fn send(&self, records: Vec<LogRecord>) -> Result<(), Ended> {
        for record in records {
            self.replies.send(Reply::Log(record)).await.map_err(|_| Ended::NobodyListens)?;
        }
        Ok(())
    }
}

enum Ended {
    NobodyListens,
    Unreadable(io::Error),
}

async fn on_thread<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Ended> {
    match spawn_blocking(read).await {
        Ok(read) => read.map_err(Ended::Unreadable),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn record(record: Record) -> LogRecord {
    LogRecord {
        at_us: record.at_us(),
        service: record.service,
        stream: record.stream,
        goes_on: record.goes_on,
        text: record.text,
    }
}

/// Without what the first try of a repeated call was given.
fn unseen(records: Vec<LogRecord>, resume: Option<&LogResume>) -> Vec<LogRecord> {
    let Some(resume) = resume else { return records };
    let mut given: BTreeMap<&ServiceName, (u64, u64)> =
        resume.places.iter().map(|place| (&place.service, (place.at_us, place.given))).collect();
    let is_new = |record: &LogRecord| match given.get_mut(&record.service) {
        None => record.at_us >= resume.begun_us,
        Some((at_us, given)) if record.at_us == *at_us && *given > 0 => {
            *given -= 1;
            false
        }
        Some((at_us, _)) => record.at_us >= *at_us,
    };
    let mut is_new = is_new;
    records.into_iter().filter(|record| is_new(record)).collect()
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::control::LogPlace;
    use watchdog_protocol::status::LogStream;

    use super::*;

    fn record(service: &str, at_us: u64, text: &str) -> LogRecord {
        let service = service.parse().unwrap();
        LogRecord { service, at_us, stream: Some(LogStream::Output), goes_on: false, text: text.to_owned() }
    }

    #[test]
    fn a_repeated_call_gives_each_record_once() {
        let all = vec![
            record("a", 1, "old"),
            record("silent", 2, "older than the call"),
            record("a", 5, "one"),
            record("a", 5, "two"),
            record("a", 5, "three"),
            record("silent", 6, "its first"),
            record("a", 7, "four"),
        ];
        let place = LogPlace { service: "a".parse().unwrap(), at_us: 5, given: 2 };
        let resume = LogResume { begun_us: 4, places: vec![place] };
        let texts = |records: Vec<LogRecord>| records.into_iter().map(|r| r.text).collect::<Vec<_>>();
        assert_eq!(texts(unseen(all.clone(), Some(&resume))), ["three", "its first", "four"]);
        assert_eq!(texts(unseen(all, None)).len(), 7);
    }
}
