//! What a configuration says, as types.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Map, Value};
use watchdog_lifecycle::GroupPolicy;
use watchdog_lifecycle::access::Pattern;
use watchdog_lifecycle::policy::{Kind, Liveness, Policy, Readiness};
use watchdog_protocol::{NameError, ServiceName};

use super::grant::Grant;
use super::launch::Launch;
use super::probe::{LogSigns, Probe};
use super::problem::{ConfigError, Problem};
use super::setting::SettingPath;
use super::source::{Place, Source};

/// A whole `watchdog.toml`. The order and the names of `requires` and `after` are checked: no cycle, nothing
/// missing.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// `[watchdog]`.
    pub watchdog: WatchdogSection,
    /// `[service.…]`, `[program.…]` and `[task.…]`.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// `[group.…]`. Their members are among the services, each in one group at most.
    pub groups: BTreeMap<ServiceName, GroupPolicy>,
}

/// `[watchdog]`: where files lie and how large they become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogSection {
    /// The folder of what outlives a reboot. Absolute. Default `.watchdog/state` beside the file.
    pub state: PathBuf,
    /// The folder of sockets and marks. Absolute. Default `.watchdog/run`.
    pub runtime: PathBuf,
    /// The folder of captured output. Absolute. Default `.watchdog/logs`.
    pub logs: PathBuf,
    /// A log file of this many bytes is followed by the next. Default 10 MiB, at least 4 KiB.
    pub log_size: u64,
    /// Log files kept of a service, the one written to included. Default 5, 1 to 1000.
    pub log_files: u32,
    /// The largest message, reply or state in bytes. Default 16 MiB, 64 KiB to 64 MiB.
    pub max_message: usize,
}

/// One service, program or task as configured.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// Of how many instances it is one, by the file; `None`: it has none.
    pub instances: Option<u32>,
    /// What is executed.
    pub launch: Launch,
    /// How it is kept: its kind, restarts, time-outs, order, and who may talk to whom (a program: nobody).
    pub policy: Arc<Policy>,
    /// What asks a program to stop, and a service that has no session yet. Default `TERM`.
    pub stop_signal: Signal,
    /// There exactly when `policy.ready` is a probe.
    pub ready_probe: Option<Box<Probe>>,
    /// There exactly when `policy.liveness` is a probe, of the same interval.
    pub liveness_probe: Option<Box<Probe>>,
    /// Lines of its output that are its word for ready or alive, where those are told by it.
    pub log_signs: LogSigns,
    /// What it may ask of the watchdog. Nothing when absent.
    pub control: Vec<Grant>,
    /// What each lane to it holds, in bytes as the kernel charges them. Default 1 MiB, 8 KiB to 64 MiB.
    pub lane_size: usize,
    /// At most this long after an update its state is on disk. Default 1 s.
    pub save_interval: Duration,
    /// Its `settings` table; empty when absent.
    pub settings: SettingsTable,
    /// What it declares that can be lent, by name: how many tokens there are, of all its instances together.
    pub resources: BTreeMap<String, u32>,
    /// The name it had before; of all instances, where it has some.
    pub renamed_from: Option<ServiceName>,
    pub(super) places: Places,
}

/// A service's `settings` table as JSON; where each value is in the file is kept beside it.
#[derive(Debug, Clone, Default)]
pub struct SettingsTable {
    /// The values.
    pub values: Map<String, Value>,
    /// The key of a value, or the value itself in an array.
    pub(super) places: BTreeMap<SettingPath, Range<usize>>,
}

/// Where a service's table has what later checks may have to point at.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) source: Arc<Source>,
    /// The service's name.
    pub(super) name: Range<usize>,
    pub(super) exec: Range<usize>,
    pub(super) user: Range<usize>,
    pub(super) restart_limit: Option<Range<usize>>,
    /// The key `settings`, else the name.
    pub(super) settings: Range<usize>,
    /// The value of `offer`.
    pub(super) offer: Option<Range<usize>>,
    /// The keys of `resources`.
    pub(super) resources: BTreeMap<String, Range<usize>>,
    /// Others in `requires`, `after`, `offer`, `use` and `control`, in file order; `*` names nobody.
    pub(super) mentions: Vec<Mention>,
}

/// Other services in a list of this one, by their name or its beginning.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub(super) key: &'static str,
    pub(super) whom: Pattern,
    pub(super) at: Range<usize>,
}

impl Mention {
    /// The one name that must be there.
    pub(super) fn name(&self) -> Option<&ServiceName> {
        match &self.whom {
            Pattern::Exact(name) => Some(name),
            Pattern::Prefix(_) | Pattern::All => None,
        }
    }
}

impl ServiceSpec {
    /// The name that this very service had before.
    pub fn former_name(&self) -> Option<ServiceName> {
        let before = self.renamed_from.as_ref()?;
        match self.name.instance() {
            Some(number) => before.nth(number).ok(),
            None => Some(before.clone()),
        }
    }

    /// The same for one instance.
    ///
    /// # Errors
    /// [`NameError`] when there can be no such instance.
    pub fn instance(&self, number: u32) -> Result<Self, NameError> {
        Ok(Self { name: self.name.nth(number)?, ..self.clone() })
    }

    /// It stands for all instances: what is wrong with the table is told once.
    pub(super) fn is_first(&self) -> bool {
        self.name.instance().is_none_or(|number| number == 1)
    }

    /// Whether it is built on the SDK.
    pub fn kind(&self) -> Kind {
        self.policy.kind
    }

    /// Whether it speaks by notifications (`sd_notify`): a program that says itself that it is ready, or alive.
    pub fn is_notifying(&self) -> bool {
        self.kind() == Kind::Program
            && (self.policy.ready == Readiness::Told && self.log_signs.ready.is_none()
                || matches!(self.policy.liveness, Liveness::Heartbeat { .. })
                    && self.log_signs.alive.is_none())
    }

    /// The file the table is in.
    pub fn source(&self) -> &Source {
        &self.places.source
    }

    /// The same configuration, wherever it is written.
    pub fn same_as(&self, other: &Self) -> bool {
        self.name == other.name
            && self.instances == other.instances
            && self.launch == other.launch
            && self.policy == other.policy
            && self.stop_signal == other.stop_signal
            && self.ready_probe == other.ready_probe
            && self.liveness_probe == other.liveness_probe
            && self.log_signs == other.log_signs
            && self.control == other.control
            && self.lane_size == other.lane_size
            && self.save_interval == other.save_interval
            && self.settings.values == other.settings.values
            && self.resources == other.resources
    }

    /// Where the settings table has this value, when it has exactly this one there.
    pub fn settings_value_place(&self, keys: &[String], value: &Value) -> Option<Place> {
        let path = SettingPath::WHOLE.joined(keys.iter().cloned());
        let (first, rest) = keys.split_first()?;
        let here = rest.iter().try_fold(self.settings.values.get(first)?, |table, key| table.get(key))?;
        let at = self.settings.places.get(&path).filter(|_| here == value)?;
        Some(self.places.source.place(at.clone()))
    }

    /// Something is wrong with the program.
    pub(crate) fn exec_error(&self, problem: Problem) -> ConfigError {
        self.error(&self.places.exec, problem)
    }

    pub(super) fn error(&self, at: &Range<usize>, problem: Problem) -> ConfigError {
        ConfigError { place: Some(self.places.source.place(at.clone())), problem }
    }

    /// The place of a value of the settings table: its own, or that of the nearest table around it that is in
    /// the file.
    pub(super) fn settings_place(&self, path: &SettingPath) -> &Range<usize> {
        path.outward().find_map(|path| self.settings.places.get(&path)).unwrap_or(&self.places.settings)
    }
}
