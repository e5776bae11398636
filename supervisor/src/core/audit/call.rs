//! One call: what is recorded of it, and its answer, which waits for that.

use std::cell::RefCell;
use std::sync::mpsc as queue;

use tokio::sync::mpsc;
use watchdog_protocol::audit::{AuditRecord, AuditResult, Auditee};
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply, Request};
use watchdog_protocol::{MessageId, RequestId};

use super::DISK;
use super::trail::Lost;
use crate::core::control::Caller;
use crate::core::from_service::shortened;
use crate::core::limits;
use crate::core::verbs::{names_in, verb_of};
use crate::core::wall_time;

/// A last reply, and where it goes.
#[derive(Debug)]
pub(super) struct Answer {
    to: mpsc::Sender<Reply>,
    result: Result<Outcome, Failure>,
}

/// A call that came to its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) record: AuditRecord,
    pub(super) answer: Option<Answer>,
}

/// Where a call is answered.
#[derive(Debug)]
pub(in crate::core) struct Replies {
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

impl Replies {
    /// Of a call that is recorded, if it changes anything: with this pen.
    pub(super) fn recorded(
        id: RequestId,
        by: Auditee,
        request: &Request,
        to: mpsc::Sender<Reply>,
        pen: &queue::Sender<Ended>,
    ) -> Self {
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
            Draft { record: RefCell::new(Some(Box::new(record))), pen: pen.clone() }
        });
        Self { to, draft }
    }

    /// Of a call that is not recorded.
    pub(in crate::core) fn unrecorded(to: mpsc::Sender<Reply>) -> Self {
        Self { to, draft: None }
    }

    /// Where replies before the last one go.
    pub(in crate::core) fn sender(&self) -> &mpsc::Sender<Reply> {
        &self.to
    }

    /// The last reply. Never waits: a caller that does not read is let go.
    pub(in crate::core) fn end(&self, result: Result<Outcome, Failure>) {
        let told = match &result {
            Ok(_) => AuditResult::Done,
            Err(failure) => AuditResult::Failed { kind: failure.kind, message: failure.message.clone() },
        };
        let answer = Answer { to: self.to.clone(), result };
        match &self.draft {
            Some(draft) => draft.hand_in(told, Some(answer)),
            None => answer.give(Ok(())),
        }
    }
}

impl Draft {
    fn hand_in(&self, result: AuditResult, answer: Option<Answer>) {
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

impl Answer {
    /// The last reply. Never waits: a caller that does not read is let go.
    pub(super) fn give(self, fate: Result<(), Lost>) {
        let result = match (self.result, fate) {
            (result, Ok(())) => result,
            (Ok(_), Err(lost)) => Err(Failure::new(FailureKind::Failed, format!("done, but {}", lost.why()))),
            (Err(failure), Err(lost)) => {
                let message = format!("{}; and {}", failure.message, lost.why());
                Err(Failure { message, ..failure })
            }
        };
        let _ = self.to.try_send(Reply::End(result));
    }
}

impl Lost {
    pub(super) fn why(&self) -> String {
        match self {
            Self::NoRoom(why) => format!("not recorded in the audit, which has no room for more: {why}"),
            Self::Refused(why) => format!("its record in the audit is not on disk: {why}"),
            Self::Late => format!("its record in the audit is not on disk after {} s", DISK.as_secs()),
        }
    }
}

impl From<Caller> for Auditee {
    fn from(Caller { uid, pid, program }: Caller) -> Self {
        Self::Operator { uid, pid, program }
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
        | Request::Usage { .. }
        | Request::DeadLetters { .. }
        | Request::DeadLetter { .. }
        | Request::Audit { .. }
        | Request::Diff { .. }
        | Request::Limits { .. } => return None,
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
        Request::Limit { changes, reason, .. } => {
            limits::in_words(changes) + &limits::because(reason.as_deref())
        }
        Request::Freeze { reason, .. } | Request::Thaw { reason, .. } => {
            reason.clone().map(shortened).unwrap_or_default()
        }
    })
}

fn listed(ids: &[MessageId]) -> String {
    match ids {
        [] => "all".to_owned(),
        ids => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
