//! The processes of a service, to be found again at any time, on any thread.

use std::io;

use watchdog_protocol::ServiceName;

use super::cgroup::Cgroup;
use super::ownership::{self, Sessions};
use super::proc::ProcessTable;

/// How the processes of one service are found.
#[derive(Debug, Clone)]
pub enum Members {
    /// Whatever is in it.
    InCgroup(Cgroup),
    /// Below the keeper, by session and environment: all of `/proc` is read.
    Below {
        /// The keeper's pid.
        keeper: i32,
        /// The core's, whose children are no service's.
        core: i32,
        /// Of all services.
        sessions: Sessions,
        /// Whose processes.
        service: ServiceName,
    },
}

impl Members {
    /// Those that live now.
    ///
    /// # Errors
    /// `/proc` or the cgroup can't be read.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        match self {
            Self::InCgroup(cgroup) => cgroup.pids(),
            Self::Below { keeper, core, sessions, service } => {
                let table = ProcessTable::read()?;
                let members = ownership::members(&table, *keeper, *core, sessions, service);
                Ok(members.iter().map(|process| process.identity.pid).collect())
            }
        }
    }
}
