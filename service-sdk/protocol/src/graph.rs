//! How services hang together: what `watchdog graph` draws.

use serde::{Deserialize, Serialize};

use crate::ServiceName;
use crate::status::{PhaseStatus, ServiceKind};

/// All services, of a running watchdog or of a configuration alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Services, programs and tasks, by name.
    pub services: Vec<GraphService>,
    /// By name.
    pub groups: Vec<GraphGroup>,
    /// Those that there are, by receiver and sender; none without a running watchdog.
    pub lanes: Vec<GraphLane>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphService {
    /// Its name.
    pub name: ServiceName,
    /// What it is.
    pub kind: ServiceKind,
    /// It runs once, to its end.
    pub task: bool,
    /// Where it is; `None` without a running watchdog.
    pub phase: Option<PhaseStatus>,
    /// Must be ready before it starts; names of all instances included.
    pub requires: Vec<ServiceName>,
    /// Starts before it; the order of a group included.
    pub after: Vec<ServiceName>,
    /// Whom it may talk to, as configured: `name`, `prefix-*` or `*`.
    #[serde(rename = "use")]
    pub uses: Vec<String>,
    /// Who may talk to it, in the same way.
    #[serde(rename = "offer")]
    pub offers: Vec<String>,
    /// What it may ask of the watchdog, as verb and target: `stop:batch-*`.
    pub control: Vec<String>,
}

/// Services that restart together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphGroup {
    /// Its name.
    pub name: ServiceName,
    /// Whom a failure takes along.
    pub strategy: String,
    /// In the order of their starts.
    pub members: Vec<ServiceName>,
}

/// A lane between two services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphLane {
    /// Who sends.
    pub sender: ServiceName,
    /// Who receives.
    pub receiver: ServiceName,
    /// Messages sent, over all processes of both sides.
    pub sent: u64,
    /// Messages that wait.
    pub queued: u64,
    /// Its sender may send no more.
    pub is_retired: bool,
}
