//! One `[service.NAME]` or `[program.NAME]`: every key it may have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::DeValue;
use watchdog_lifecycle::access::{Access, Pattern};
use watchdog_lifecycle::policy::{Kind, Liveness, Policy, Readiness};
use watchdog_lifecycle::restart::{Delay, Limit, When};
use watchdog_protocol::ServiceName;

use super::document::text_path;
use super::grant::Grant;
use super::launch::{Launch, Resource, Rlimit};
use super::probe::{Probe, ProbeKind};
use super::problem::Problem;
use super::quantity;
use super::section::{Entry, Report, Section, integer};
use super::setting::SettingPath;
use super::spec::{Mention, Places, ServiceSpec, SettingsTable};

const COMMAND: &str = "a program and its arguments, like [\"bin/worker\", \"--fast\"]";
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_UNTIL_READY: Duration = Duration::from_millis(250);
const PROBE_ALIVE: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_UMASK: u32 = 0o077;

/// The table that holds those of a kind, by name.
pub(super) fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "service",
        Kind::Program => "program",
    }
}

/// Reads all keys of a table; `None` when something is wrong, which `report` then knows.
pub(super) fn read(
    kind: Kind,
    name: ServiceName,
    entry: &Entry<'_>,
    mut table: Section<'_>,
    report: &mut Report,
) -> Option<ServiceSpec> {
    let before = report.errors.len();
    let folder = report.source.folder().to_owned();
    let title = format!("[{}.{}]", title(kind), entry.name);
    table = table.called(&title);

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

    let Keeping { mut policy, stop_signal, ready_probe, liveness_probe } =
        keeping(kind, &folder, &mut table, report);
    let mut mentions = Vec::new();
    policy.requires = names("requires", &mut table, report, &mut mentions);
    policy.after = names("after", &mut table, report, &mut mentions);
    let mut control = Vec::new();
    let mut save_interval = SAVE_INTERVAL;
    let mut settings = SettingsTable::default();
    let mut settings_place = entry.key.clone();
    match kind {
        Kind::Service => {
            let all = || vec![Pattern::All];
            policy.access = Access {
                offers: peers("offer", &mut table, report, &mut mentions).unwrap_or_else(all),
                uses: peers("use", &mut table, report, &mut mentions).unwrap_or_else(all),
            };
            control = grants(&mut table, report, &mut mentions);
            save_interval = time(&mut table, "save_interval", report).unwrap_or(SAVE_INTERVAL);
            if let Some(entry) = table.get("settings") {
                settings_place = entry.key.clone();
                settings = self::settings(&entry, report).unwrap_or_default();
            }
        }
        Kind::Program => {
            policy.access = Access { offers: Vec::new(), uses: Vec::new() };
            // They stand for a session, which a program has not.
            for key in ["offer", "use", "control", "save_interval", "settings"] {
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
        launch: Launch { program, args, dir: dir.unwrap_or(folder), env, user, umask, rlimits },
        policy,
        stop_signal,
        ready_probe,
        liveness_probe,
        control,
        save_interval,
        settings,
        places: Places {
            source: report.source.clone(),
            name: entry.key.clone(),
            exec: exec_place,
            user: user_place,
            settings: settings_place,
            mentions,
        },
    })
}

fn command(entry: &Entry<'_>, folder: &Path, report: &mut Report) -> Option<(PathBuf, Vec<String>)> {
    let texts = entry.texts(report, COMMAND)?;
    let Some((program, args)) = texts.split_first().filter(|(program, _)| !program.is_empty()) else {
        return entry.expected(report, COMMAND);
    };
    let program = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    // `./bin/worker` is read again in errors and in the process list.
    let program = program.components().collect();
    Some((program, args.iter().map(|arg| (*arg).to_owned()).collect()))
}

fn environment(entry: &Entry<'_>, report: &mut Report) -> Option<BTreeMap<String, String>> {
    let section = entry.section(report, "a table of strings, like { MODE = \"fast\" }")?;
    let mut environment = BTreeMap::new();
    for variable in section.entries() {
        let named = !variable.name.is_empty() && !variable.name.contains(['=', '\0']);
        if !named || variable.name.starts_with("WATCHDOG_") {
            report.at(variable.key.clone(), Problem::Variable { name: variable.name.clone() });
        }
        if let Some(value) = variable.text(report, "a string, in quotes") {
            environment.insert(variable.name, value.to_owned());
        }
    }
    Some(environment)
}

fn account(entry: &Entry<'_>, report: &mut Report) -> Option<String> {
    if let Some(uid) = integer(entry.value.get_ref()) {
        // The highest one means "leave it as it is" to the kernel.
        if uid < u64::from(u32::MAX) {
            return Some(uid.to_string());
        }
    }
    let named = |text: &str| (!text.is_empty() && !text.contains(['\0', ':'])).then(|| text.to_owned());
    entry.parsed(report, "the name or number of a user", named)
}

fn mask(entry: &Entry<'_>, report: &mut Report) -> Option<u32> {
    const EXPECTED: &str = "an octal mask in quotes, like \"077\"";
    entry.parsed(report, EXPECTED, |text| {
        let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        u32::from_str_radix(text, 8).ok().filter(|mask| octal && *mask <= 0o777)
    })
}

fn rlimits(entry: &Entry<'_>, report: &mut Report) -> Option<BTreeMap<Resource, Rlimit>> {
    const EXPECTED: &str =
        "a number, a size like \"1GiB\", \"unlimited\", or two of them as { soft = …, hard = … }";
    fn value(entry: &Entry<'_>, report: &mut Report) -> Option<u64> {
        if let Some(number) = integer(entry.value.get_ref()) {
            return Some(number);
        }
        entry.parsed(report, EXPECTED, |text| match text {
            "unlimited" => Some(u64::MAX),
            size => quantity::size(size),
        })
    }
    let mut section = entry.section(report, "a table, like { nofile = 1024, core = 0 }")?;
    let mut limits = BTreeMap::new();
    for (name, resource) in Resource::ALL {
        let Some(limit) = section.get(name) else { continue };
        let Some(table) = limit.value.get_ref().as_table() else {
            if let Some(both) = value(&limit, report) {
                limits.insert(*resource, Rlimit { soft: both, hard: both });
            }
            continue;
        };
        let mut two = Section::new(format!("`rlimits.{name}`"), table);
        let soft = two.get("soft").map(|soft| value(&soft, report));
        let hard = two.get("hard").map(|hard| value(&hard, report));
        two.end(report);
        match (soft, hard) {
            (Some(Some(soft)), Some(Some(hard))) if soft <= hard => {
                limits.insert(*resource, Rlimit { soft, hard });
            }
            (Some(None), _) | (_, Some(None)) => {}
            _ => {
                let _: Option<()> = limit.expected(report, "both soft and hard, soft not above hard");
            }
        }
    }
    section.end(report);
    Some(limits)
}

/// What the keys about starting, restarting and stopping say.
struct Keeping {
    policy: Policy,
    stop_signal: Signal,
    ready_probe: Option<Probe>,
    liveness_probe: Option<Probe>,
}

fn keeping(kind: Kind, folder: &Path, table: &mut Section<'_>, report: &mut Report) -> Keeping {
    let mut policy = match kind {
        Kind::Service => Policy::service(),
        Kind::Program => Policy::program(),
    };
    let when = table.get("restart").and_then(|entry| {
        entry.parsed(report, "\"always\", \"on-failure\" or \"never\"", |text| match text {
            "always" => Some(When::Always),
            "on-failure" => Some(When::OnFailure),
            "never" => Some(When::Never),
            _ => None,
        })
    });
    policy.restart.when = when.unwrap_or(policy.restart.when);
    let limit = table.get("restart_limit").and_then(|entry| limit(&entry, report));
    policy.restart.limit = limit.unwrap_or(policy.restart.limit);
    let delay = table.get("restart_delay").and_then(|entry| delay(&entry, report));
    policy.restart.delay = delay.unwrap_or(policy.restart.delay);
    policy.start_timeout = time(table, "start_timeout", report).unwrap_or(policy.start_timeout);
    let stop_signal = table.get("stop_signal").and_then(|entry| {
        entry.parsed(report, "the name of a signal, like \"TERM\" or \"INT\"", |text| {
            Signal::from_str(text).or_else(|_| Signal::from_str(&format!("SIG{text}"))).ok()
        })
    });
    let stop_timeout = table.get("stop_timeout").and_then(|entry| entry.duration(report));
    policy.stop_timeout = stop_timeout.unwrap_or(policy.stop_timeout);
    let (mut ready_probe, mut liveness_probe) = (None, None);
    if let Some((readiness, probe)) = table.get("ready").and_then(|entry| ready(kind, &entry, folder, report))
    {
        policy.ready = readiness;
        ready_probe = probe;
    }
    if let Some((alive, probe)) =
        table.get("liveness").and_then(|entry| liveness(kind, &entry, folder, report))
    {
        policy.liveness = alive;
        liveness_probe = probe;
    }
    let failing = table.get("failing_timeout").and_then(|entry| {
        entry.parsed(report, "\"off\" or a duration above zero, like \"1m\"", |text| match text {
            "off" => Some(None),
            text => quantity::duration(text).filter(|time| !time.is_zero()).map(Some),
        })
    });
    policy.failing_timeout = failing.unwrap_or(policy.failing_timeout);
    Keeping { policy, stop_signal: stop_signal.unwrap_or(Signal::SIGTERM), ready_probe, liveness_probe }
}

fn time(table: &mut Section<'_>, key: &'static str, report: &mut Report) -> Option<Duration> {
    table.get(key)?.some_time(report)
}

fn limit(entry: &Entry<'_>, report: &mut Report) -> Option<Limit> {
    const EXPECTED: &str = "\"off\", \"5/60s\" or { count = 5, within = \"60s\" }";
    if let Some(table) = entry.value.get_ref().as_table() {
        let mut table = Section::new("`restart_limit`".to_owned(), table);
        let count = table.get("count").map(|count| count.number(report, 1, 1000));
        let within = table.get("within").map(|within| within.some_time(report));
        table.end(report);
        return match (count, within) {
            (Some(count), Some(within)) => {
                Some(Limit::Within { failures: u32::try_from(count?).ok()?, window: within? })
            }
            (None, _) | (_, None) => entry.expected(report, EXPECTED),
        };
    }
    entry.parsed(report, EXPECTED, |text| {
        if text == "off" {
            return Some(Limit::Off);
        }
        let (count, within) = text.split_once('/')?;
        let failures = count.parse().ok().filter(|count| (1..=1000).contains(count))?;
        let window = quantity::duration(within).filter(|within| !within.is_zero())?;
        Some(Limit::Within { failures, window })
    })
}

fn delay(entry: &Entry<'_>, report: &mut Report) -> Option<Delay> {
    const EXPECTED: &str = "\"0s\" (always at once) or { min = \"100ms\", max = \"30s\", reset = \"60s\" }";
    let Some(table) = entry.value.get_ref().as_table() else {
        let none = |text: &str| quantity::duration(text)?.is_zero().then_some(Delay::AtOnce);
        return entry.parsed(report, EXPECTED, none);
    };
    let mut table = Section::new("`restart_delay`".to_owned(), table);
    let min = table.get("min").map(|min| min.some_time(report));
    let max = table.get("max").map(|max| max.some_time(report));
    let reset = table.get("reset").map(|reset| reset.some_time(report));
    table.end(report);
    let min = min.unwrap_or(Some(Duration::from_millis(100)))?;
    let max = max.unwrap_or(Some(min.max(Duration::from_secs(30))))?;
    let reset = reset.unwrap_or(Some(Duration::from_secs(60)))?;
    if min > max {
        return entry.expected(report, "min not above max");
    }
    Some(Delay::Growing { min, max, reset })
}

fn ready(
    kind: Kind,
    entry: &Entry<'_>,
    folder: &Path,
    report: &mut Report,
) -> Option<(Readiness, Option<Probe>)> {
    let expected = match kind {
        Kind::Service => "\"sdk\", \"exec\", { tcp = \"host:port\" } or { exec = [\"command\"] }",
        Kind::Program => "\"exec\", { tcp = \"host:port\" } or { exec = [\"command\"] }",
    };
    if entry.value.get_ref().is_table() {
        let probe = probe(entry, expected, PROBE_UNTIL_READY, folder, report)?;
        return Some((Readiness::Probe, Some(probe)));
    }
    entry.parsed(report, expected, |text| match (text, kind) {
        ("exec", _) => Some((Readiness::Exec, None)),
        ("sdk", Kind::Service) => Some((Readiness::Told, None)),
        _ => None,
    })
}

fn liveness(
    kind: Kind,
    entry: &Entry<'_>,
    folder: &Path,
    report: &mut Report,
) -> Option<(Liveness, Option<Probe>)> {
    match kind {
        Kind::Service => {
            const EXPECTED: &str = "the time between two heartbeats, like \"5s\"";
            let read = |text: &str| quantity::duration(text).filter(|time| !time.is_zero());
            let interval = entry.parsed(report, EXPECTED, read)?;
            Some((Liveness::Heartbeat { interval }, None))
        }
        Kind::Program => {
            const EXPECTED: &str = "{ tcp = \"host:port\" } or { exec = [\"command\"] }";
            let probe = probe(entry, EXPECTED, PROBE_ALIVE, folder, report)?;
            Some((Liveness::Probe { interval: probe.interval }, Some(probe)))
        }
    }
}

fn probe(
    entry: &Entry<'_>,
    expected: &str,
    interval: Duration,
    folder: &Path,
    report: &mut Report,
) -> Option<Probe> {
    let mut table = entry.section(report, expected)?;
    let tcp = table.get("tcp");
    let exec = table.get("exec");
    let kind = match (&tcp, &exec) {
        (Some(tcp), None) => tcp.parsed(report, "\"host:port\"", endpoint),
        (None, Some(exec)) => {
            command(exec, folder, report).map(|(program, args)| ProbeKind::Exec { program, args })
        }
        (None, None) | (Some(_), Some(_)) => entry.expected(report, expected),
    };
    let interval = time(&mut table, "interval", report).unwrap_or(interval);
    let timeout = time(&mut table, "timeout", report).unwrap_or(PROBE_TIMEOUT);
    table.end(report);
    Some(Probe { kind: kind?, interval, timeout })
}

/// `localhost:80`, `127.0.0.1:80`, `[::1]:80`.
fn endpoint(text: &str) -> Option<ProbeKind> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_string())?,
        None => host.to_owned(),
    };
    let plain = bracketed.is_some() || !host.contains([':', '[', ']', ' ', '/', '\0']);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (plain && !host.is_empty()).then_some(ProbeKind::Tcp { host, port })
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
                mentions.push(Mention { key, name: name.clone(), at: element.span() });
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
    table: &mut Section<'_>,
    report: &mut Report,
    mentions: &mut Vec<Mention>,
) -> Option<Vec<Pattern>> {
    let expected = "an array of names, or [\"*\"]";
    let elements = table.get(key)?.elements(report, expected)?;
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
    if let Pattern::Exact(name) = pattern {
        mentions.push(Mention { key, name: name.clone(), at: element.span() });
    }
}

fn settings(entry: &Entry<'_>, report: &mut Report) -> Option<SettingsTable> {
    let section = entry.section(report, "a table")?;
    let mut table = SettingsTable::default();
    let mut entries: Vec<_> = section.entries().collect();
    // As a person wrote them, since a person will read them again.
    entries.sort_by_key(|entry| entry.key.start);
    for entry in entries {
        let path = SettingPath::WHOLE.join(&entry.name);
        table.places.insert(path.clone(), entry.key.clone());
        if let Some(value) = json(&path, entry.value, &mut table, report) {
            table.values.insert(entry.name, value);
        }
    }
    Some(table)
}

fn json(
    path: &SettingPath,
    value: &Spanned<DeValue<'_>>,
    into: &mut SettingsTable,
    report: &mut Report,
) -> Option<Value> {
    let expected = |report: &mut Report, expected: &str| {
        Entry { name: path.to_string(), key: value.span(), value }.expected(report, expected)
    };
    Some(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(boolean) => Value::Bool(*boolean),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Integer(integer) => {
            let signed = i64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from);
            let number = signed
                .or_else(|_| u64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from))
                .ok();
            return number.map(Value::Number).or_else(|| expected(report, "an integer of at most 64 bits"));
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            return number.map(Value::Number).or_else(|| expected(report, "a finite number"));
        }
        DeValue::Array(array) => {
            let mut values = Vec::new();
            for (at, element) in array.iter().enumerate() {
                let path = path.join(&at.to_string());
                into.places.insert(path.clone(), element.span());
                values.push(json(&path, element, into, report)?);
            }
            Value::Array(values)
        }
        DeValue::Table(table) => {
            let mut values = Map::new();
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            for (key, element) in entries {
                let path = path.join(key.get_ref());
                into.places.insert(path.clone(), key.span());
                values.insert(key.get_ref().to_string(), json(&path, element, into, report)?);
            }
            Value::Object(values)
        }
    })
}
