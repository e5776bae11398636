//! The audit as it is shown: what the files have, and what is on its way there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use watchdog_protocol::ServiceName;
use watchdog_protocol::audit::{AuditRecord, MAX_AUDIT};
use watchdog_protocol::control::{Failure, FailureKind, Outcome, Reply};

use super::in_journal;
use crate::store::{audit as file, lines};

/// The lines of both files, and those that are on their way there.
#[derive(Debug, Clone)]
pub(in crate::core) struct View {
    pub(super) logs: PathBuf,
    /// Lines that may not be in the files.
    pub(super) held: Vec<u8>,
}

/// The newest `last` calls that concern this service, or all, as two folders have them that no watchdog writes to. Changes
/// nothing.
///
/// # Errors
/// A file that can't be read.
pub(crate) fn read(
    state: &Path,
    logs: &Path,
    last: u64,
    service: Option<&ServiceName>,
) -> io::Result<Vec<AuditRecord>> {
    View { logs: logs.to_owned(), held: in_journal(state).map_err(io::Error::other)? }.read(last, service)
}

impl View {
    fn read(&self, last: u64, service: Option<&ServiceName>) -> io::Result<Vec<AuditRecord>> {
        let in_files = lines::read::<AuditRecord>(&file::path(&self.logs), usize::MAX)?;
        let all = in_files.into_iter().chain(lines::parsed(&self.held));
        let found = all.filter(|record| service.is_none_or(|service| record.concerns(service)));
        // What was held is in the file by now, or a line was read twice.
        let found: BTreeMap<_, _> = found.map(|record| ((record.number, record.at_us), record)).collect();
        let last = usize::try_from(last.min(MAX_AUDIT)).unwrap_or(usize::MAX);
        let older = found.len().saturating_sub(last);
        Ok(found.into_values().skip(older).collect())
    }
}

/// Answers with the newest `last` calls, read on a thread: a slow disk makes nobody else wait.
pub(in crate::core) async fn serve(
    view: View,
    service: Option<ServiceName>,
    last: u64,
    replies: mpsc::Sender<Reply>,
) {
    let shown = view.logs.display().to_string();
    let read = spawn_blocking(move || view.read(last, service.as_ref()));
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
