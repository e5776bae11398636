//! Which watchdog a command is for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use watchdog_protocol::ServiceName;
use watchdog_query::{ControlSocket, QueryError, WatchdogQuery};

use super::look::ProgressLine;
use super::report::CliError;
use crate::config::{self, Config, ConfigErrors, Problem, WatchdogSection};
use crate::core::control::SOCKET;
use crate::processes::proc::Identity;

/// A configuration file and the folders it names.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) config: PathBuf,
    pub(super) state: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) logs: PathBuf,
    /// Those of the file; empty when it is wrong.
    pub(super) services: Vec<ServiceName>,
    /// By `--config`, not found by folder.
    named: bool,
}

impl Place {
    /// The file that `--config` names, else `watchdog.toml` here or above. Absolute.
    pub(super) fn file(named: Option<&Path>) -> Result<PathBuf, CliError> {
        let here = || {
            std::env::current_dir().map_err(|source| CliError::Io { what: "find the current folder", source })
        };
        match named {
            Some(path) => std::path::absolute(path).map_err(|source| CliError::File {
                what: "find",
                path: path.to_owned(),
                source,
            }),
            None => Ok(config::find(&here()?).map_err(ConfigErrors::from)?),
        }
    }

    pub(super) fn find(named: Option<&Path>) -> Result<Self, CliError> {
        let config = Self::file(named)?;
        let named = named.is_some();
        match config::load(&config) {
            Ok(Config { watchdog, services, .. }) => {
                let services = services.into_keys().collect();
                let WatchdogSection { state, runtime, logs, .. } = watchdog;
                Ok(Self { config, state, runtime, logs, services, named })
            }
            // A running watchdog must be reached while its file is being edited: only the folders count here.
            Err(errors) => {
                let [state, runtime, logs] = folders(&config).ok_or(errors)?;
                Ok(Self { config, state, runtime, logs, services: Vec::new(), named })
            }
        }
    }

    pub(super) fn query(&self, progress: &Arc<ProgressLine>) -> WatchdogQuery {
        let progress = Arc::clone(progress);
        self.silent_query().on_progress(move |line| progress.show(line))
    }

    /// What it waits for is not shown.
    pub(super) fn silent_query(&self) -> WatchdogQuery {
        let state = self.state.clone();
        let socket =
            ControlSocket::at(self.runtime.join(SOCKET)).while_alive(move || keeper(&state).is_some());
        WatchdogQuery::over(socket)
    }

    /// What a failed call means for the operator.
    pub(super) fn explain(&self, error: QueryError) -> CliError {
        let config = || self.config.clone();
        match error {
            QueryError::NotReachable { ref source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match keeper(&self.state) {
                    Some(keeper) => CliError::NoAnswer { config: config(), pid: keeper.pid.cast_unsigned() },
                    None => CliError::NoWatchdog { config: config(), named: self.named },
                },
                _ => CliError::Unreachable { config: config(), source: error },
            },
            // It was killed with the call in hand.
            QueryError::Closed { .. } if keeper(&self.state).is_none() => {
                CliError::NoWatchdog { config: config(), named: self.named }
            }
            QueryError::Version { .. } | QueryError::Stranger { .. } => {
                CliError::Unreachable { config: config(), source: error }
            }
            other => CliError::Query(other),
        }
    }
}

/// The keeper that lives, by the lock of the state folder: it tells pid and start time of who locked it last.
pub(super) fn keeper(state: &Path) -> Option<Identity> {
    let text = std::fs::read_to_string(state.join("lock")).ok()?;
    let mut words = text.split_whitespace();
    let keeper = Identity { pid: words.next()?.parse().ok()?, start_time: words.next()?.parse().ok()? };
    keeper.is_alive().then_some(keeper)
}

/// The folders of a file that is TOML, whatever else is wrong with it.
fn folders(config: &Path) -> Option<[PathBuf; 3]> {
    let text = std::fs::read_to_string(config).ok()?;
    let root = DeTable::parse(&text).ok()?;
    let folder = config.parent()?;
    let named = |key: &str, default: &str| {
        let section = root.get_ref().get("watchdog").and_then(|value| value.get_ref().as_table());
        match section.and_then(|section| section.get(key)).map(|value| value.get_ref()) {
            Some(DeValue::String(path)) => folder.join(&**path),
            _ => folder.join(default),
        }
    };
    Some([
        named("state", ".watchdog/state"),
        named("runtime", ".watchdog/run"),
        named("logs", ".watchdog/logs"),
    ])
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Self::Config(problem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, CliError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("watchdog.toml");
        std::fs::write(&file, text).unwrap();
        let mut place = Place::find(Some(&file))?;
        for path in [&mut place.config, &mut place.runtime, &mut place.logs] {
            *path = path.strip_prefix(folder.path()).map_or(path.clone(), Path::to_owned);
        }
        Ok(place)
    }

    #[test]
    fn folders_are_found_also_when_a_service_is_wrong() {
        let whole = place("[watchdog]\nruntime = \"r\"\nlogs = \"/var/log/w\"\n").unwrap();
        let edited =
            place("[watchdog]\nruntime = \"r\"\nlogs = \"/var/log/w\"\n[service.x]\nexce = 1\n").unwrap();
        for found in [whole, edited] {
            assert_eq!((found.runtime, found.logs), ("r".into(), "/var/log/w".into()));
        }
        let default = place("[service.x]\nexce = 1\n").unwrap();
        assert_eq!(default.runtime, Path::new(".watchdog/run"));
    }

    #[test]
    fn what_is_no_toml_is_a_configuration_error() {
        assert!(matches!(place("[watchdog\n"), Err(CliError::Config(_))));
    }

    #[test]
    fn a_keeper_is_known_by_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("watchdog.toml");
        std::fs::write(&file, "").unwrap();
        let place = Place::find(Some(&file)).unwrap();
        assert!(keeper(&place.state).is_none());
        std::fs::create_dir_all(&place.state).unwrap();
        let lock = crate::store::lock::lock(&place.state).unwrap();
        assert!(keeper(&place.state).is_some());
        drop(lock);
        let Identity { pid, start_time } = Identity::of_self().unwrap();
        std::fs::write(place.state.join("lock"), format!("{pid} {} then\n", start_time + 1)).unwrap();
        assert!(keeper(&place.state).is_none());
    }
}
