//! One `[service.NAME]`, `[program.NAME]` or `[task.NAME]`: every key it may have.

use std::collections::BTreeMap;
use std::time::Duration;

use watchdog_lifecycle::access::{Access, Pattern};
use watchdog_lifecycle::policy::{Kind, Policy};
use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::{DEFAULT_LANE_BYTES, MAX_INSTANCES, MAX_LANE_BYTES, MIN_LANE_BYTES};
use watchdog_protocol::resources::RESERVED_RESOURCES;

use super::document::{size, text_path};
use super::grant::Grant;
use super::keeping::{Keeping, keeping, time};
use super::launch::Launch;
use super::problem::Problem;
use super::section::{Entry, Report, Section};
use super::settings_table;
use super::spec::{Mention, Places, ServiceSpec, SettingsTable};
use super::surroundings::{COMMAND, account, command, environment, mask, rlimits};

const SAVE_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_UMASK: u32 = 0o077;
const RESOURCES: &str = "a table of names and how many there are, like { db-connections = 100 }";

/// The tables that hold services of all kinds, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Title {
    Service,
    Program,
    Task,
}

impl Title {
    pub(super) const ALL: [Self; 3] = [Self::Service, Self::Program, Self::Task];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Program => "program",
            Self::Task => "task",
        }
    }

    /// What is kept of it, before its keys are read.
    fn policy(self, table: &mut Section<'_>, report: &mut Report) -> Policy {
        match self {
            Self::Service => Policy::service(),
            Self::Program => Policy::program(),
            Self::Task => {
                let links = table.get("sdk").and_then(|sdk| sdk.boolean(report)).unwrap_or(false);
                Policy::task(if links { Kind::Service } else { Kind::Program })
            }
        }
    }
}

/// Reads all keys of a table; `None` when something is wrong, which `report` then knows.
pub(super) fn read(
    title: Title,
    name: ServiceName,
    entry: &Entry<'_>,
    mut table: Section<'_>,
    report: &mut Report,
) -> Option<ServiceSpec> {
    let before = report.errors.len();
    let folder = report.source.folder().to_owned();
    let policy = title.policy(&mut table, report);
    let kind = policy.kind;
    let title = format!("[{}.{}]", title.as_str(), entry.name);
    table = table.called(&title);

    let most = u64::from(MAX_INSTANCES);
    let instances = table.get("instances").and_then(|entry| entry.number(report, 1, most));
    let renamed_from = table.get("renamed_from").and_then(|entry| former_name(&name, &entry, report));
    let exec = table.get("exec");
    let exec_place = exec.as_ref().map_or_else(|| entry.key.clone(), |exec| exec.value.span());
    if exec.is_none() {
        report
            .at(entry.key.clone(), Problem::Missing { table: title.clone(), key: "exec", expected: COMMAND });
    }
    let command = exec.and_then(|exec| command(&exec, &folder, report));
    let dir = table.get("dir").and_then(|dir| dir.parsed(report, "a path", |text| text_path(&folder, text)));
    let env = table.get("env").and_then(|env| environment(&env, report)).unwrap_or_default();
    let user = table.get("user");
    let user_place = user.as_ref().map_or_else(|| entry.key.clone(), Entry::span);
    let user = user.and_then(|user| account(&user, report));
    let umask = table.get("umask").and_then(|umask| mask(&umask, report)).unwrap_or(DEFAULT_UMASK);
    let rlimits = table.get("rlimits").and_then(|limits| rlimits(&limits, report)).unwrap_or_default();

    let mut resources = BTreeMap::new();
    let mut resource_places = BTreeMap::new();
    if let Some(table) = table.get("resources").and_then(|table| table.section(report, RESOURCES)) {
        for entry in table.entries() {
            resource_places.insert(entry.name.clone(), entry.key.clone());
            if let Some(tokens) = resource(&entry, report) {
                resources.insert(entry.name, tokens);
            }
        }
    }
    let Keeping { mut policy, restart_limit, stop_signal, ready_probe, liveness_probe, log_signs } =
        keeping(policy, &folder, &mut table, report);
    let mut mentions = Vec::new();
    policy.requires = names("requires", &mut table, report, &mut mentions);
    policy.after = names("after", &mut table, report, &mut mentions);
    let mut control = Vec::new();
    let mut save_interval = SAVE_INTERVAL;
    let mut lane_size = DEFAULT_LANE_BYTES;
    let mut settings = SettingsTable::default();
    let mut settings_place = entry.key.clone();
    let mut offer = None;
    match kind {
        Kind::Service => {
            let all = || vec![Pattern::All];
            let offered = table.get("offer");
            offer = offered.as_ref().map(Entry::span);
            let mut peers = |key, entry: Option<Entry<'_>>| {
                entry.and_then(|entry| peers(key, &entry, report, &mut mentions)).unwrap_or_else(all)
            };
            policy.access = Access { offers: peers("offer", offered), uses: peers("use", table.get("use")) };
            control = grants(&mut table, report, &mut mentions);
            save_interval = time(&mut table, "save_interval", report).unwrap_or(SAVE_INTERVAL);
            let range = MIN_LANE_BYTES as u64..=MAX_LANE_BYTES as u64;
            if let Some(size) = size(table.get("lane_size"), report, range, "from 8KiB to 64MiB") {
                lane_size = usize::try_from(size).expect("bounded above");
            }
            if let Some(entry) = table.get("settings") {
                settings_place = entry.key.clone();
                settings = settings_table::read(&entry, report).unwrap_or_default();
            }
        }
        Kind::Program => {
            policy.access = Access { offers: Vec::new(), uses: Vec::new() };
            // They stand for a session, which a program has not.
            for key in ["offer", "use", "control", "save_interval", "lane_size", "settings"] {
                if let Some(entry) = table.get(key) {
                    report.at(entry.key, Problem::OfServicesOnly { table: title.clone(), key });
                }
            }
        }
    }
    table.end(report);

    let (program, args) = command?;
    if report.errors.len() != before {
        return None;
    }
    mentions.sort_by_key(|mention| mention.at.start);
    Some(ServiceSpec {
        name,
        instances: instances.map(|instances| u32::try_from(instances).expect("bounded above")),
        launch: Launch {
            program,
            args,
            dir: dir.unwrap_or(folder),
            env: env.into_iter().collect(),
            user,
            umask,
            rlimits,
        },
        policy: policy.into(),
        stop_signal,
        ready_probe: ready_probe.map(Box::new),
        liveness_probe: liveness_probe.map(Box::new),
        log_signs,
        control,
        lane_size,
        save_interval,
        settings,
        resources,
        renamed_from,
        places: Places {
            source: report.source.clone(),
            name: entry.key.clone(),
            exec: exec_place,
            user: user_place,
            restart_limit,
            settings: settings_place,
            offer,
            resources: resource_places,
            mentions,
        },
    })
}

/// The name it had, which is another one and of no instance.
fn former_name(name: &ServiceName, entry: &Entry<'_>, report: &mut Report) -> Option<ServiceName> {
    match entry.text(report, "a service name")?.parse::<ServiceName>() {
        Ok(before) if before == *name => entry.expected(report, "another name than it has now"),
        Ok(before) if before.instance().is_some() => {
            report.at(entry.span(), Problem::NamedInstance { name: before });
            None
        }
        Ok(before) => Some(before),
        Err(error) => {
            report.at(entry.span(), error.into());
            None
        }
    }
}

/// How many tokens there are of one resource. Its name is as that of a service, and of nothing that is guaranteed anyhow.
fn resource(entry: &Entry<'_>, report: &mut Report) -> Option<u32> {
    let is_name =
        |name: &ServiceName| name.instance().is_none() && !RESERVED_RESOURCES.contains(&name.as_str());
    match entry.name.parse::<ServiceName>() {
        Ok(name) if is_name(&name) => {}
        Ok(_) => report.at(entry.key.clone(), Problem::NoResourceName { name: entry.name.clone() }),
        Err(error) => report.at(entry.key.clone(), error.into()),
    }
    let tokens = entry.number(report, 1, u64::from(u32::MAX))?;
    Some(u32::try_from(tokens).expect("bounded above"))
}

/// A list of names; each of them once.
fn names(
    key: &'static str,
    table: &mut Section<'_>,
    report: &mut Report,
    mentions: &mut Vec<Mention>,
) -> Vec<ServiceName> {
    let expected = "an array of service names";
    let Some(elements) = table.get(key).and_then(|entry| entry.elements(report, expected)) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for element in elements {
        let Some(text) = element.text(report, "a service name") else { continue };
        match text.parse::<ServiceName>() {
            Ok(name) => {
                mentions.push(Mention { key, whom: Pattern::Exact(name.clone()), at: element.span() });
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Err(error) => report.at(element.span(), error.into()),
        }
    }
    names
}

fn peers(
    key: &'static str,
    entry: &Entry<'_>,
    report: &mut Report,
    mentions: &mut Vec<Mention>,
) -> Option<Vec<Pattern>> {
    let elements = entry.elements(report, "an array of names, or [\"*\"]")?;
    let mut patterns = Vec::new();
    for element in elements {
        let Some(text) = element.text(report, "a service name, \"*\" or \"batch-*\"") else { continue };
        match text.parse::<Pattern>() {
            Ok(pattern) => {
                mention(key, &pattern, &element, mentions);
                patterns.push(pattern);
            }
            Err(error) => report.at(element.span(), error.into()),
        }
    }
    Some(patterns)
}

fn grants(table: &mut Section<'_>, report: &mut Report, mentions: &mut Vec<Mention>) -> Vec<Grant> {
    let key = "control";
    let expected = "an array of verbs, like [\"status\", \"stop:batch-*\"]";
    let Some(elements) = table.get(key).and_then(|entry| entry.elements(report, expected)) else {
        return Vec::new();
    };
    let mut grants = Vec::new();
    for element in elements {
        let Some(text) = element.text(report, "a verb, like \"status\" or \"stop:batch-*\"") else {
            continue;
        };
        match text.parse::<Grant>() {
            Ok(grant) => {
                mention(key, grant.target(), &element, mentions);
                grants.push(grant);
            }
            Err(error) => report.at(element.span(), Problem::Grant(error)),
        }
    }
    grants
}

fn mention(key: &'static str, pattern: &Pattern, element: &Entry<'_>, mentions: &mut Vec<Mention>) {
    match pattern {
        Pattern::All => {}
        Pattern::Exact(_) | Pattern::Prefix(_) => {
            mentions.push(Mention { key, whom: pattern.clone(), at: element.span() });
        }
    }
}
