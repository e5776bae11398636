//! What the watchdog keeps of every changing call.

use serde::{Deserialize, Serialize};

use crate::control::FailureKind;
use crate::{Incarnation, ServiceName};

/// The most records [`Request::Audit`](crate::control::Request::Audit) gives.
pub const MAX_AUDIT: u64 = 10_000;

/// One changing call, granted or not, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Grows by one each.
    pub number: u64,
    /// When the call came, wall clock, microseconds since 1970, UTC.
    pub at_us: u64,
    /// Who made it.
    pub by: Auditee,
    /// As grants list it: `stop`.
    pub verb: String,
    /// The services it names.
    pub targets: Vec<ServiceName>,
    /// What it says beside these: the paths of a set, a signal, a file. Never a value.
    pub details: String,
    /// Its id: a call that was repeated after its connection broke has the same.
    pub request: String,
    /// What came of it.
    pub result: AuditResult,
}

impl AuditRecord {
    /// The service made the call, or is named in it.
    pub fn concerns(&self, service: &ServiceName) -> bool {
        let made = matches!(&self.by, Auditee::Service { name, .. } if name == service);
        made || self.targets.contains(service)
    }
}

/// Who made a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auditee {
    /// A person or script at the control socket; both numbers are the kernel's word.
    Operator {
        /// Whose process it was.
        uid: u32,
        /// Which.
        pid: u32,
        /// Its name, as the kernel keeps it.
        program: String,
    },
    /// A process of a service.
    Service {
        /// Its name.
        name: ServiceName,
        /// Which process.
        incarnation: Incarnation,
    },
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditResult {
    /// It was done.
    Done,
    /// It was not, or not in time.
    Failed {
        /// In which way: [`FailureKind::NotPermitted`] is a refusal.
        kind: FailureKind,
        /// As the caller was told.
        message: String,
    },
    /// It was taken, and its caller went away before it came to an end.
    Unanswered,
}
