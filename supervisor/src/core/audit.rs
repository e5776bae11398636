//! Who changed what, or tried to: every changing call, with what came of it, in `audit.jsonl` beside the log files.
//!
//! ```text
//! call ─► Draft (who, what) ─► … ─► end ─► Audit: the line is written, then the caller is answered
//! ```
//! A call is recorded once, with its end; one whose caller went away before that, when it is let go. What a core that was
//! killed had in hand is repeated by its caller under the same request id, and recorded by the next core.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc as queue;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use watchdog_protocol::audit::{AuditRecord, AuditResult, Auditee, MAX_AUDIT};
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply, Request};
use watchdog_protocol::{MessageId, RequestId, ServiceName};

use super::control::Caller;
use super::from_service::shortened;
use super::lines::{self, Lines};
use super::verbs::{names_in, verb_of};
use super::wall_time;

fn path(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}

/// The record, and where calls hand in theirs.
#[derive(Debug)]
pub(super) struct Audit {
    lines: Lines,
    next: u64,
    ended: queue::Receiver<Ended>,
    pen: queue::Sender<Ended>,
}

#[derive(Debug)]
struct Ended {
    record: AuditRecord,
    answer: Option<(mpsc::Sender<Reply>, Reply)>,
}

/// Where a call is answered.
#[derive(Debug)]
pub(super) struct Replies {
    to: mpsc::Sender<Reply>,
    draft: Option<Draft>,
}

/// A changing call that has no end yet.
#[derive(Debug)]
struct Draft {
    /// `None` once it was handed in.
    record: RefCell<Option<Box<AuditRecord>>>,
    pen: queue::Sender<Ended>,
}

/// The newest `last` calls that concern this service, or all; also while nobody writes.
pub(crate) fn read(
    folder: &Path,
    last: u64,
    concerns: impl Fn(&AuditRecord) -> bool,
) -> io::Result<Vec<AuditRecord>> {
    let last = usize::try_from(last.min(MAX_AUDIT)).unwrap_or(usize::MAX);
    let mut found: Vec<_> = lines::read(&path(folder), usize::MAX)?.into_iter().filter(concerns).collect();
    found.drain(..found.len().saturating_sub(last));
    Ok(found)
}

impl Audit {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let newest = lines::read::<AuditRecord>(&path(folder), 1)?;
        let (pen, ended) = queue::channel();
        let next = newest.back().map_or(1, |newest| newest.number + 1);
        Ok(Self { lines: Lines::open(path(folder))?, next, ended, pen })
    }

    /// Where this call is answered: recorded first, if it changes anything.
    pub(super) fn replies(
        &self,
        id: RequestId,
        by: Auditee,
        request: &Request,
        to: mpsc::Sender<Reply>,
    ) -> Replies {
        let draft = details_of(request).map(|details| {
            let record = AuditRecord {
                number: 0,
                at_us: wall_time().as_micros(),
                by,
                verb: verb_of(request).to_owned(),
                targets: names_in(request),
                details,
                request: id.to_string(),
                result: AuditResult::Unanswered,
            };
            Draft { record: RefCell::new(Some(Box::new(record))), pen: self.pen.clone() }
        });
        Replies { to, draft }
    }

    /// Records what ended, and answers it. A file that can't be written is told, and answers nobody later.
    pub(super) fn write_out(&mut self) {
        let mut ended: Vec<_> = self.ended.try_iter().collect();
        if ended.is_empty() {
            return;
        }
        for Ended { record, .. } in &mut ended {
            record.number = self.next;
            self.next += 1;
        }
        if let Err(err) = self.lines.append(ended.iter().map(|ended| &ended.record)) {
            tracing::warn!(target: "watchdog", "cannot write the audit {:?}: {err}", self.lines.path());
        }
        for (to, reply) in ended.into_iter().filter_map(|ended| ended.answer) {
            let _ = to.try_send(reply);
        }
    }
}

impl From<Caller> for Auditee {
    fn from(Caller { uid, pid, program }: Caller) -> Self {
        Self::Operator { uid, pid, program }
    }
}

/// Answers with the newest `last` calls, read on a thread: a slow disk makes nobody else wait.
pub(super) async fn serve(
    folder: PathBuf,
    service: Option<ServiceName>,
    last: u64,
    replies: mpsc::Sender<Reply>,
) {
    let shown = folder.display().to_string();
    let read = spawn_blocking(move || {
        read(&folder, last, |record| service.as_ref().is_none_or(|service| record.concerns(service)))
    });
    let answer = match read.await {
        Ok(Ok(records)) => Ok(Outcome::Audit(records)),
        Ok(Err(err)) => {
            Err(Failure::new(FailureKind::Failed, format!("cannot read the audit in {shown}: {err}")))
        }
        Err(err) => match err.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(err) => unreachable!("no reading is ever cancelled: {err}"),
        },
    };
    // Whoever is gone needs no end.
    let _ = replies.send(Reply::End(answer)).await;
}

impl Replies {
    /// Of a call that is not recorded.
    pub(super) fn unrecorded(to: mpsc::Sender<Reply>) -> Self {
        Self { to, draft: None }
    }

    /// Where replies before the last one go.
    pub(super) fn sender(&self) -> &mpsc::Sender<Reply> {
        &self.to
    }

    /// The last reply. Never waits: a caller that does not read is let go.
    pub(super) fn end(&self, result: Result<Outcome, Failure>) {
        let told = match &result {
            Ok(_) => AuditResult::Done,
            Err(failure) => AuditResult::Failed { kind: failure.kind, message: failure.message.clone() },
        };
        let reply = Reply::End(result);
        match &self.draft {
            Some(draft) => draft.hand_in(told, Some((self.to.clone(), reply))),
            None => drop(self.to.try_send(reply)),
        }
    }
}

impl Draft {
    fn hand_in(&self, result: AuditResult, answer: Option<(mpsc::Sender<Reply>, Reply)>) {
        if let Some(record) = self.record.take() {
            // Nobody takes it in: the core ends.
            let _ = self.pen.send(Ended { record: AuditRecord { result, ..*record }, answer });
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.hand_in(AuditResult::Unanswered, None);
    }
}

/// What a changing request says beside verb and targets; `None`: it changes nothing. Never a value: some are secret.
fn details_of(request: &Request) -> Option<String> {
    Some(match request {
        Request::Status { .. }
        | Request::Get { .. }
        | Request::StateShow { .. }
        | Request::StateValue { .. }
        | Request::Graph
        | Request::StateExport { .. }
        | Request::Intercoms { .. }
        | Request::Events { .. }
        | Request::Logs { .. }
        | Request::History { .. }
        | Request::Why { .. }
        | Request::Manifest { .. }
        | Request::Fit { .. }
        | Request::DeadLetters { .. }
        | Request::DeadLetter { .. }
        | Request::Audit { .. }
        | Request::Diff { .. } => return None,
        Request::Start { .. }
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Reset { .. }
        | Request::Unregister { .. }
        | Request::Shutdown
        | Request::Reload { .. }
        | Request::Kill { signal: None, .. } => String::new(),
        Request::Scale { instances, .. } => format!("to {instances}"),
        Request::DeadRetry { ids, .. } => format!("retry {}", listed(ids)),
        Request::DeadDrop { ids, .. } => format!("drop {}", listed(ids)),
        Request::Kill { signal: Some(signal), .. } => format!("signal {signal}"),
        Request::Set { changes, .. } => {
            changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ")
        }
        Request::Rollback { to: Some(revision), .. } => format!("to revision {revision}"),
        Request::Rollback { to: None, .. } => "to the one before".to_owned(),
        Request::StateImport { snapshot, .. } => format!("import of {} bytes", snapshot.len()),
        Request::StateReset { .. } => "reset".to_owned(),
        Request::Send { contract, payload, .. } => {
            let name = contract.0.last().map_or("no message", |shape| shape.name.as_str());
            format!("{}, {} bytes", shortened(name.to_owned()), payload.len())
        }
        Request::Register { file, .. } => file.clone(),
        Request::Upgrade { program, .. } => program.clone().unwrap_or_default(),
    })
}

fn listed(ids: &[MessageId]) -> String {
    match ids {
        [] => "all".to_owned(),
        ids => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
