//! What the operator sets, all of it live: `watchdog set resource-manager services.batch.class=batch`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use resource_manager::lease::nearest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use watchdog_service::ServiceName;
use watchdog_service::query::resources::{LimitKey, Limits};

/// The weight of who has the priority in the middle, and of everybody else on the machine.
const MIDDLE_WEIGHT: u64 = 100;

/// So much more priority is twice the weight.
const DOUBLING: f64 = 10.0;

/// The settings of the resource manager.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// From one look at what services use to the next, `200ms` to `1m`. Default `1s`.
    pub(crate) period: Period,
    /// The same once all was calm for 30 looks: nobody was short, nothing is taken, nobody borrows. At the first sign of
    /// anything else it is `period` again. `200ms` to `1m`, no shorter than `period`. Default: as `period`.
    pub(crate) calm_period: Option<Period>,
    /// What each service is worth and what it may use, under its name, or under that of all its instances. Who is not here
    /// is of class `normal`, and keeps what limits it has.
    pub(crate) services: BTreeMap<String, ServiceSettings>,
}

/// What one service is worth, and what it may use.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServiceSettings {
    /// What holds where nothing else is said: `critical` has priority 90, `normal` 50, `batch` 10 and may be frozen.
    /// Default `normal`.
    class: Class,
    /// Who has a higher one takes from who has a lower one. 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    priority: Option<u8>,
    /// It is never pushed below this.
    guaranteed: Guaranteed,
    /// Processor time it may use, of one processor: `50%`, `150%`.
    cpu: Option<Cpu>,
    /// Its share of processors among services that want more than there is, 1 to 10000. By its priority unless set: 100 at
    /// priority 50, twice as much for each 10 more.
    #[schemars(range(min = 1, max = 10_000))]
    cpu_weight: Option<u64>,
    /// Above it memory is taken back: `512MiB`.
    memory_high: Option<Memory>,
    /// Memory that is never passed: `1GiB`.
    memory_max: Option<Memory>,
    /// Its share of disks among services that want more than there is, 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    io_weight: Option<u64>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4_194_304))]
    tasks_max: Option<u64>,
    /// Descriptors of each process.
    #[schemars(range(min = 16, max = 1_073_741_816))]
    nofile: Option<u64>,
    /// It may be frozen when it has nothing left to give. By its class unless set.
    may_freeze: Option<bool>,
    /// It may be stopped when even that was not enough; it is started again when it is calm. Default false.
    may_stop: bool,
}

/// A preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// What the machine is there for.
    Critical,
    /// As any other.
    #[default]
    Normal,
    /// When there is something left.
    Batch,
}

/// What one is never pushed below.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Guaranteed {
    /// Processor time, of one processor: `50%`.
    cpu: Option<Cpu>,
    /// Memory: `1GiB`.
    memory: Option<Memory>,
    /// Tokens of what a service declares, by its name: `db-connections = 10`.
    #[serde(flatten)]
    tokens: BTreeMap<String, u32>,
}

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// In thousandths of a processor.
    pub(crate) cpu: u64,
    /// In bytes.
    pub(crate) memory: u64,
}

/// What holds of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) priority: u8,
    pub(crate) guaranteed: Extent,
    /// Of what services declare, by name.
    pub(crate) tokens: BTreeMap<String, u32>,
    pub(crate) may_freeze: bool,
    pub(crate) may_stop: bool,
    /// `None`: those it has.
    pub(crate) limits: Option<Limits>,
    /// Its weight follows from its priority: where nothing can be weighed that is nobody's fault.
    pub(crate) is_weighed_by_priority: bool,
}

/// Why settings that are of the right type are refused all the same.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("calm_period = {calm} is shorter than period = {period}, expected at least that")]
    Hasty { calm: String, period: String },
    #[error("services.{key}: no service can have this name: {reason}")]
    Name { key: String, reason: String },
    #[error("services.*.guaranteed.{what}: {sum} in all, and the machine has {there}")]
    TooMuch { what: &'static str, sum: String, there: String },
    #[error("services.*.guaranteed.{resource}: {sum} in all, and {there} are declared")]
    TooManyTokens { resource: String, sum: u64, there: u32 },
    #[error(
        "services.{key}.guaranteed.{resource}: no service declares it{}",
        nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
    )]
    NotDeclared { key: String, resource: String, nearest: Option<String> },
    #[error(
        "services.{key}.guaranteed.{what} = {guaranteed} is above {limit} = {most}, which it may use at the most"
    )]
    AboveLimit { key: String, what: &'static str, guaranteed: String, limit: &'static str, most: String },
    #[error("services.{key}.memory_high = {high} is above memory_max = {max}, expected at most that")]
    HighAboveMax { key: String, high: String, max: String },
}

impl Default for Settings {
    fn default() -> Self {
        Self { period: Period(Duration::from_secs(1)), calm_period: None, services: BTreeMap::new() }
    }
}

impl Settings {
    /// Whether all of it can hold on this machine, for these services.
    ///
    /// # Errors
    /// [`SettingsError`] names the first place.
    pub(crate) fn check(&self, machine: Extent, there: &[ServiceName]) -> Result<(), SettingsError> {
        if let Some(calm) = self.calm_period.filter(|Period(calm)| *calm < self.period.0) {
            return Err(SettingsError::Hasty { calm: calm.into(), period: self.period.into() });
        }
        let mut sum = Extent { cpu: 0, memory: 0 };
        for (key, service) in &self.services {
            key.parse::<ServiceName>()
                .map_err(|error| SettingsError::Name { key: key.clone(), reason: error.to_string() })?;
            service.check(key)?;
            // Each instance is guaranteed as much; one that is not there yet counts once.
            let instances = there.iter().filter(|name| is_of(name, key)).count().max(1) as u64;
            let Guaranteed { cpu, memory, .. } = service.guaranteed;
            sum.cpu += cpu.map_or(0, |cpu| cpu.0) * instances;
            sum.memory += memory.map_or(0, |memory| memory.0) * instances;
        }
        let parts = [
            ("cpu", LimitKey::Cpu, sum.cpu, machine.cpu),
            ("memory", LimitKey::MemoryMax, sum.memory, machine.memory),
        ];
        match parts.into_iter().find(|(_, _, sum, there)| sum > there) {
            Some((what, key, sum, there)) => {
                Err(SettingsError::TooMuch { what, sum: key.show(sum), there: key.show(there) })
            }
            None => Ok(()),
        }
    }

    /// Whether all tokens that are guaranteed are there, with what is declared by now.
    ///
    /// # Errors
    /// [`SettingsError`] names the first place.
    pub(crate) fn check_tokens(
        &self,
        declared: &BTreeMap<String, u32>,
        there: &[ServiceName],
    ) -> Result<(), SettingsError> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, service) in &self.services {
            let instances = there.iter().filter(|name| is_of(name, key)).count().max(1) as u64;
            for (resource, tokens) in &service.guaranteed.tokens {
                if !declared.contains_key(resource) {
                    let nearest = nearest(resource, declared.keys().map(String::as_str));
                    return Err(SettingsError::NotDeclared {
                        key: key.clone(),
                        resource: resource.clone(),
                        nearest,
                    });
                }
                *sums.entry(resource).or_default() += u64::from(*tokens) * instances;
            }
        }
        match sums.into_iter().find(|(resource, sum)| *sum > u64::from(declared[*resource])) {
            Some((resource, sum)) => {
                let (resource, there) = (resource.to_owned(), declared[resource]);
                Err(SettingsError::TooManyTokens { resource, sum, there })
            }
            None => Ok(()),
        }
    }

    /// What holds of this service.
    pub(crate) fn terms(&self, name: &ServiceName) -> Terms {
        let own = self.services.get(name.as_str());
        match own.or_else(|| self.services.iter().find(|(key, _)| is_of(name, key)).map(|(_, found)| found)) {
            Some(service) => Terms { limits: Some(service.limits()), ..service.terms() },
            None => ServiceSettings::default().terms(),
        }
    }
}

/// It has this name, or is one of the instances of it.
fn is_of(name: &ServiceName, key: &str) -> bool {
    name.as_str() == key || name.instance().is_some() && name.base() == key
}

impl ServiceSettings {
    fn check(&self, key: &str) -> Result<(), SettingsError> {
        let above = |what, limit, unit: LimitKey, guaranteed: Option<u64>, most: Option<u64>| match (
            guaranteed, most,
        ) {
            (Some(guaranteed), Some(most)) if guaranteed > most => Err(SettingsError::AboveLimit {
                key: key.to_owned(),
                what,
                guaranteed: unit.show(guaranteed),
                limit,
                most: unit.show(most),
            }),
            _ => Ok(()),
        };
        let Guaranteed { cpu, memory, .. } = self.guaranteed;
        let (cpu, memory) = (cpu.map(|cpu| cpu.0), memory.map(|memory| memory.0));
        let (high, max) = (self.memory_high.map(|high| high.0), self.memory_max.map(|max| max.0));
        above("cpu", "cpu", LimitKey::Cpu, cpu, self.cpu.map(|cpu| cpu.0))?;
        above("memory", "memory_high", LimitKey::MemoryHigh, memory, high)?;
        above("memory", "memory_max", LimitKey::MemoryMax, memory, max)?;
        match (high, max) {
            (Some(high), Some(max)) if high > max => {
                let show = |bytes| LimitKey::MemoryMax.show(bytes);
                Err(SettingsError::HighAboveMax { key: key.to_owned(), high: show(high), max: show(max) })
            }
            _ => Ok(()),
        }
    }

    fn terms(&self) -> Terms {
        let Guaranteed { cpu, memory, .. } = self.guaranteed;
        Terms {
            priority: self.priority(),
            guaranteed: Extent {
                cpu: cpu.map_or(0, |cpu| cpu.0),
                memory: memory.map_or(0, |memory| memory.0),
            },
            tokens: self.guaranteed.tokens.clone(),
            may_freeze: self.may_freeze.unwrap_or(self.class == Class::Batch),
            may_stop: self.may_stop,
            limits: None,
            is_weighed_by_priority: self.cpu_weight.is_none(),
        }
    }

    fn priority(&self) -> u8 {
        self.priority.unwrap_or(match self.class {
            Class::Critical => 90,
            Class::Normal => 50,
            Class::Batch => 10,
        })
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.set(LimitKey::Cpu, self.cpu.map(|cpu| cpu.0));
        // That of the middle is what everybody has.
        let by_priority = Some(weight(self.priority())).filter(|weight| *weight != MIDDLE_WEIGHT);
        limits.set(LimitKey::CpuWeight, self.cpu_weight.or(by_priority));
        limits.set(LimitKey::MemoryHigh, self.memory_high.map(|high| high.0));
        limits.set(LimitKey::MemoryMax, self.memory_max.map(|max| max.0));
        limits.set(LimitKey::IoWeight, self.io_weight);
        limits.set(LimitKey::TasksMax, self.tasks_max);
        limits.set(LimitKey::Nofile, self.nofile);
        limits
    }
}

fn weight(priority: u8) -> u64 {
    let doublings = (f64::from(priority) - 50.0) / DOUBLING;
    (MIDDLE_WEIGHT as f64 * doublings.exp2()).round() as u64
}

/// From one look to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Period(pub(crate) Duration);

/// Processor time, in thousandths of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cpu(u64);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Memory(u64);

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = units.into_iter().find(|(unit, _)| *unit == &text[end..]);
        let millis = unit.and_then(|(_, factor)| text[..end].parse::<u64>().ok()?.checked_mul(factor));
        match millis.filter(|millis| (200..=60_000).contains(millis)) {
            Some(millis) => Ok(Self(Duration::from_millis(millis))),
            None => Err(format!("{text:?}, expected a duration from \"200ms\" to \"1m\"")),
        }
    }
}

impl From<Period> for String {
    fn from(Period(period): Period) -> Self {
        format!("{}ms", period.as_millis())
    }
}

macro_rules! amount {
    ($amount:ident, $key:expr) => {
        impl TryFrom<String> for $amount {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                $key.parse(&text).map(Self).map_err(|_| format!("{text:?}, expected {}", $key.expected()))
            }
        }

        impl From<$amount> for String {
            fn from($amount(amount): $amount) -> Self {
                $key.show(amount)
            }
        }
    };
}

amount!(Cpu, LimitKey::Cpu);
amount!(Memory, LimitKey::MemoryMax);

macro_rules! written {
    ($type:ident, $pattern:literal, $description:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

written!(Period, "^[0-9]+(ms|s|m)$", "A duration like \"500ms\" or \"1s\".");
written!(Cpu, "^[0-9]+(\\.[0-9])?%$", "A share of one processor like \"50%\" or \"150%\".");
written!(Memory, "^[0-9]+(B|KiB|MiB|GiB|TiB)$", "A size like \"64MiB\" or \"2GiB\".");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MACHINE: Extent = Extent { cpu: 2000, memory: 8 << 30 };

    fn settings(value: serde_json::Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn a_class_is_what_holds_where_nothing_else_is_said() {
        let set = settings(json!({"services": {
            "node": {"class": "critical", "guaranteed": {"cpu": "50%", "memory": "1GiB"}},
            "batch": {"class": "batch", "cpu": "150%", "may_stop": true},
            "worker": {"priority": 70, "cpu_weight": 300, "may_freeze": true},
        }}));
        let node = set.terms(&name("node"));
        assert_eq!((node.priority, node.may_freeze, node.may_stop), (90, false, false));
        assert_eq!(node.guaranteed, Extent { cpu: 500, memory: 1 << 30 });
        assert_eq!(node.limits.unwrap().to_string(), "cpu_weight=1600");
        let batch = set.terms(&name("batch"));
        assert_eq!((batch.priority, batch.may_freeze, batch.may_stop), (10, true, true));
        assert_eq!(batch.limits.unwrap().to_string(), "cpu=150% cpu_weight=6");
        let worker = set.terms(&name("worker@3"));
        assert_eq!((worker.priority, worker.may_freeze), (70, true));
        assert_eq!(worker.limits.unwrap().to_string(), "cpu_weight=300");
        assert_eq!(set.terms(&name("other")), Terms { limits: None, ..ServiceSettings::default().terms() });
        assert_eq!(set.check(MACHINE, &[]), Ok(()));
    }

    #[test]
    fn tokens_that_are_guaranteed_must_be_declared_and_not_more_than_there_are() {
        let declared = BTreeMap::from([("db-connections".to_owned(), 100)]);
        let check = |value, there: &[&str]| {
            let there: Vec<_> = there.iter().map(|text| name(text)).collect();
            settings(json!({ "services": value }))
                .check_tokens(&declared, &there)
                .map_err(|error| error.to_string())
        };
        let web = json!({"web": {"guaranteed": {"cpu": "50%", "db-connections": 40}}, "b": {"guaranteed": {"db-connections": 20}}});
        assert_eq!(check(web.clone(), &["web@1", "web@2"]), Ok(()));
        assert_eq!(
            settings(json!({ "services": web.clone() })).terms(&name("web@1")).tokens["db-connections"],
            40
        );
        let told = "services.*.guaranteed.db-connections: 140 in all, and 100 are declared";
        assert_eq!(check(web, &["web@1", "web@2", "web@3"]), Err(told.to_owned()));
        let typo = json!({"web": {"guaranteed": {"db-conections": 1}}});
        let told =
            "services.web.guaranteed.db-conections: no service declares it; did you mean `db-connections`?";
        assert_eq!(check(typo, &[]), Err(told.to_owned()));
    }

    #[test]
    fn what_can_not_hold_is_refused_with_its_place() {
        let told = |value, there: &[&str]| {
            let there: Vec<_> = there.iter().map(|text| name(text)).collect();
            settings(json!({ "services": value })).check(MACHINE, &there).unwrap_err().to_string()
        };
        let cpu = json!({"a": {"guaranteed": {"cpu": "150%"}}, "b": {"guaranteed": {"cpu": "60%"}}});
        assert_eq!(told(cpu, &[]), "services.*.guaranteed.cpu: 210% in all, and the machine has 200%");
        let memory = json!({"w": {"guaranteed": {"memory": "3GiB"}}});
        assert_eq!(
            told(memory, &["w@1", "w@2", "w@3"]),
            "services.*.guaranteed.memory: 9GiB in all, and the machine has 8GiB"
        );
        let above = json!({"a": {"guaranteed": {"cpu": "50%"}, "cpu": "20%"}});
        assert_eq!(
            told(above, &[]),
            "services.a.guaranteed.cpu = 50% is above cpu = 20%, which it may use at the most"
        );
        let high = json!({"a": {"memory_high": "2GiB", "memory_max": "1GiB"}});
        assert_eq!(
            told(high, &[]),
            "services.a.memory_high = 2GiB is above memory_max = 1GiB, expected at most that"
        );
        assert!(told(json!({"A": {}}), &[]).starts_with("services.A: no service can have this name: "));
    }

    #[test]
    fn quantities_are_written_as_on_the_command_line() {
        let wrong = |value| serde_json::from_value::<Settings>(value).unwrap_err().to_string();
        let of = |value: serde_json::Value| json!({ "services": { "a": value } });
        assert!(wrong(of(json!({"cpu": "50"}))).contains("\"50\", expected a share of one processor"));
        assert!(wrong(of(json!({"memory_max": "1G"}))).contains("\"1G\", expected a size like"));
        assert!(wrong(json!({"period": "10ms"})).contains("from \"200ms\" to \"1m\""));
        assert_eq!(settings(json!({"period": "1m"})).period, Period(Duration::from_secs(60)));
        let hasty = settings(json!({"period": "2s", "calm_period": "1s"}));
        let machine = Extent { cpu: 1000, memory: 1 << 30 };
        let wrong = hasty.check(machine, &[]).unwrap_err().to_string();
        assert_eq!(wrong, "calm_period = 1000ms is shorter than period = 2000ms, expected at least that");
        assert_eq!(settings(json!({})), Settings::default());
    }
}
