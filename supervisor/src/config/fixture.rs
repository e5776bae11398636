//! For tests: a folder with services that are shell scripts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use watchdog_protocol::{Contract, Manifest};

use super::{Config, parse};

/// Removed at its end.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // For scripts that run as somebody else.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// To be run as `sh NAME`: a file that this process wrote must not be executed by it, another thread's child
    /// may still hold it open for writing.
    pub(super) fn script(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    pub(super) fn config(&self, text: &str) -> Config {
        parse(&self.path().join("watchdog.toml"), text).unwrap()
    }

    /// A text without this folder's name.
    pub(super) fn hide(&self, text: &impl ToString) -> String {
        text.to_string()
            .replace(&format!("{}/", self.path().display()), "")
            .replace(self.path().to_str().unwrap(), "FOLDER")
    }
}

/// Of a service with this settings type.
pub(crate) fn manifest(settings: Option<&str>) -> Manifest {
    let settings = settings.map(str::to_owned);
    Manifest { format: 1, settings, state: None, contract: Contract::default(), layouts: Vec::new() }
}

/// A script that prints it.
pub(super) fn prints(manifest: &Manifest) -> String {
    format!("cat <<'END'\n{}\nEND\n", manifest.to_json())
}
