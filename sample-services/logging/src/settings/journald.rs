//! An output to the journal of systemd.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the journal listens on every host that has one.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal of systemd: `journalctl SYSLOG_IDENTIFIER=counter`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JournaldSettings {
    /// Where it listens. Default `/run/systemd/journal/socket`.
    socket: PathBuf,
}

impl JournaldSettings {
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    #[cfg(test)]
    pub(crate) fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }
}

impl Default for JournaldSettings {
    fn default() -> Self {
        Self { socket: SOCKET.into() }
    }
}
