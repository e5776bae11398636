//! What can't be done, and why.

use watchdog_protocol::ServiceName;

use crate::access::Denied;

/// Why a service can't be unregistered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnregisterError {
    /// There is none of that name.
    #[error("no service `{name}` is registered")]
    Unknown {
        /// The name.
        name: ServiceName,
    },
    /// Something of it lives.
    #[error("`{name}` is {phase}; stop it first")]
    Live {
        /// Whose.
        name: ServiceName,
        /// Its phase.
        phase: &'static str,
    },
    /// Others need it.
    #[error("`{name}` is required by {}", list(.by))]
    Required {
        /// Whose.
        name: ServiceName,
        /// By whom.
        by: Vec<ServiceName>,
    },
}

/// Why there can be no lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TalkError {
    /// There is none of that name.
    #[error("no service `{name}` is registered")]
    Unknown {
        /// The name.
        name: ServiceName,
    },
    /// A plain program has no inbox.
    #[error("`{name}` is a plain program and has no inbox")]
    NoInbox {
        /// Whose.
        name: ServiceName,
    },
    /// The rules of one side forbid it.
    #[error(transparent)]
    Denied(#[from] Denied),
}

fn list(names: &[ServiceName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
