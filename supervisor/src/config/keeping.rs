//! The keys about starting, restarting and stopping.

use std::ops::Range;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use watchdog_lifecycle::policy::{Kind, Liveness, Policy, Readiness, Work};
use watchdog_lifecycle::restart::{Delay, Limit, When};

use super::probe::{LogSigns, Pattern, Probe, ProbeKind};
use super::problem::Problem;
use super::quantity;
use super::section::{Entry, Report, Section};
use super::surroundings::command;

const PROBE_UNTIL_READY: Duration = Duration::from_millis(250);
const PROBE_ALIVE: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the keys about starting, restarting and stopping say.
pub(super) struct Keeping {
    pub(super) policy: Policy,
    /// The place of `restart_limit`, where it is given.
    pub(super) restart_limit: Option<Range<usize>>,
    pub(super) stop_signal: Signal,
    pub(super) ready_probe: Option<Probe>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) log_signs: LogSigns,
}

pub(super) fn keeping(
    mut policy: Policy,
    folder: &Path,
    table: &mut Section<'_>,
    report: &mut Report,
) -> Keeping {
    let kind = policy.kind;
    let when = table.get("restart").and_then(|entry| when(policy.work, &entry, report));
    policy.restart.when = when.unwrap_or(policy.restart.when);
    let limit_entry = table.get("restart_limit");
    let limit = limit_entry.as_ref().and_then(|entry| limit(entry, report));
    policy.restart.limit = limit.unwrap_or(policy.restart.limit);
    let delay = table.get("restart_delay").and_then(|entry| delay(&entry, report));
    policy.restart.delay = delay.unwrap_or(policy.restart.delay);
    if policy.work == Work::Once {
        // They are about the way to ready, and whoever waits for a task waits for its end.
        for key in ["ready", "start_timeout"] {
            if let Some(entry) = table.get(key) {
                report.at(entry.key, Problem::NotOfTasks { table: table.name().to_owned(), key });
            }
        }
    }
    policy.start_timeout = time(table, "start_timeout", report).unwrap_or(policy.start_timeout);
    let stop_signal = table.get("stop_signal").and_then(|entry| {
        entry.parsed(report, "the name of a signal, like \"TERM\" or \"INT\"", |text| {
            Signal::from_str(text).or_else(|_| Signal::from_str(&format!("SIG{text}"))).ok()
        })
    });
    let stop_timeout = table.get("stop_timeout").and_then(|entry| entry.duration(report));
    policy.stop_timeout = stop_timeout.unwrap_or(policy.stop_timeout);
    let (mut ready_probe, mut liveness_probe, mut log_signs) = (None, None, LogSigns::default());
    if let Work::Lasting = policy.work
        && let Some((readiness, asked)) =
            table.get("ready").and_then(|entry| ready(kind, &entry, folder, report))
    {
        policy.ready = readiness;
        (ready_probe, log_signs.ready) = asked.apart();
    }
    if let Some((alive, asked)) =
        table.get("liveness").and_then(|entry| liveness(kind, &entry, folder, report))
    {
        policy.liveness = alive;
        (liveness_probe, log_signs.alive) = asked.apart();
    }
    let failing = table.get("failing_timeout").and_then(|entry| {
        entry.parsed(report, "\"off\" or a duration above zero, like \"1m\"", |text| match text {
            "off" => Some(None),
            text => quantity::duration(text).filter(|time| !time.is_zero()).map(Some),
        })
    });
    policy.failing_timeout = failing.unwrap_or(policy.failing_timeout);
    let stop_signal = stop_signal.unwrap_or(Signal::SIGTERM);
    let restart_limit = limit_entry.map(|entry| entry.key);
    Keeping { policy, restart_limit, stop_signal, ready_probe, liveness_probe, log_signs }
}

pub(super) fn time(table: &mut Section<'_>, key: &'static str, report: &mut Report) -> Option<Duration> {
    table.get(key)?.some_time(report)
}

fn when(work: Work, entry: &Entry<'_>, report: &mut Report) -> Option<When> {
    let expected = match work {
        Work::Lasting => "\"always\", \"on-failure\" or \"never\"",
        Work::Once => "\"on-failure\" or \"never\"",
    };
    entry.parsed(report, expected, |text| match (text, work) {
        ("always", Work::Lasting) => Some(When::Always),
        ("on-failure", _) => Some(When::OnFailure),
        ("never", _) => Some(When::Never),
        _ => None,
    })
}

pub(super) fn limit(entry: &Entry<'_>, report: &mut Report) -> Option<Limit> {
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

/// By what it is found out.
enum Asked {
    Nothing,
    Probe(Probe),
    Log(Pattern),
}

impl Asked {
    fn apart(self) -> (Option<Probe>, Option<Pattern>) {
        match self {
            Self::Nothing => (None, None),
            Self::Probe(probe) => (Some(probe), None),
            Self::Log(pattern) => (None, Some(pattern)),
        }
    }
}

fn ready(kind: Kind, entry: &Entry<'_>, folder: &Path, report: &mut Report) -> Option<(Readiness, Asked)> {
    let expected = match kind {
        Kind::Service => {
            "\"sdk\", \"exec\", { tcp = \"host:port\" }, { http = \"http://host/path\" }, { log = \"regex\" } or { exec = [\"command\"] }"
        }
        Kind::Program => {
            "\"exec\", \"notify\", { tcp = \"host:port\" }, { http = \"http://host/path\" }, { log = \"regex\" } or { exec = [\"command\"] }"
        }
    };
    if has_key(entry, "log") {
        let mut table = entry.section(report, expected)?;
        let pattern = pattern(&mut table, report);
        table.end(report);
        return Some((Readiness::Told, Asked::Log(pattern?)));
    }
    if entry.value.get_ref().is_table() {
        let probe = probe(entry, expected, PROBE_UNTIL_READY, folder, report)?;
        return Some((Readiness::Probe, Asked::Probe(probe)));
    }
    entry.parsed(report, expected, |text| match (text, kind) {
        ("exec", _) => Some((Readiness::Exec, Asked::Nothing)),
        ("sdk", Kind::Service) | ("notify", Kind::Program) => Some((Readiness::Told, Asked::Nothing)),
        _ => None,
    })
}

fn liveness(kind: Kind, entry: &Entry<'_>, folder: &Path, report: &mut Report) -> Option<(Liveness, Asked)> {
    match kind {
        Kind::Service => {
            const EXPECTED: &str = "the time between two heartbeats, like \"5s\"";
            let read = |text: &str| quantity::duration(text).filter(|time| !time.is_zero());
            let interval = entry.parsed(report, EXPECTED, read)?;
            Some((Liveness::Heartbeat { interval }, Asked::Nothing))
        }
        Kind::Program => {
            const EXPECTED: &str = "{ notify = \"10s\" }, { tcp = \"host:port\" }, { http = \"http://host/path\" }, { log = \"regex\" } or { exec = [\"command\"] }";
            if has_key(entry, "notify") {
                let mut table = entry.section(report, EXPECTED)?;
                let interval = time(&mut table, "notify", report);
                table.end(report);
                return Some((Liveness::Heartbeat { interval: interval? }, Asked::Nothing));
            }
            if has_key(entry, "log") {
                let mut table = entry.section(report, EXPECTED)?;
                let pattern = pattern(&mut table, report);
                let interval = time(&mut table, "interval", report).unwrap_or(PROBE_ALIVE);
                table.end(report);
                return Some((Liveness::Heartbeat { interval }, Asked::Log(pattern?)));
            }
            let probe = probe(entry, EXPECTED, PROBE_ALIVE, folder, report)?;
            Some((Liveness::Probe { interval: probe.interval }, Asked::Probe(probe)))
        }
    }
}

fn has_key(entry: &Entry<'_>, key: &str) -> bool {
    entry.value.get_ref().as_table().is_some_and(|table| table.contains_key(key))
}

fn pattern(table: &mut Section<'_>, report: &mut Report) -> Option<Pattern> {
    const EXPECTED: &str = "a regular expression for a line, like \"ready to accept connections$\"";
    table.get("log")?.parsed(report, EXPECTED, |text| text.parse().ok())
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
    let http = table.get("http");
    let exec = table.get("exec");
    let kind = match (&tcp, &http, &exec) {
        (Some(tcp), None, None) => {
            tcp.parsed(report, "\"host:port\"", endpoint).map(|(host, port)| ProbeKind::Tcp { host, port })
        }
        (None, Some(http), None) => {
            http.parsed(report, "an address like \"http://127.0.0.1:8080/health\"", page)
        }
        (None, None, Some(exec)) => {
            command(exec, folder, report).map(|(program, args)| ProbeKind::Exec { program, args })
        }
        _ => entry.expected(report, expected),
    };
    let interval = time(&mut table, "interval", report).unwrap_or(interval);
    let timeout = time(&mut table, "timeout", report).unwrap_or(PROBE_TIMEOUT);
    table.end(report);
    Some(Probe { kind: kind?, interval, timeout })
}

/// `http://localhost/`, `http://[::1]:8080/health?deep=1`. Without encryption: what is asked is on this machine or near.
fn page(text: &str) -> Option<ProbeKind> {
    let rest = text.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = endpoint(authority).or_else(|| endpoint(&format!("{authority}:80")))?;
    let path = if path.is_empty() { "/" } else { path };
    // What would end the line, or the whole head.
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    is_plain.then(|| ProbeKind::Http { host, port, path: path.to_owned() })
}

/// `localhost:80`, `127.0.0.1:80`, `[::1]:80`.
fn endpoint(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_string())?,
        None => host.to_owned(),
    };
    let plain = bracketed.is_some() || !host.contains([':', '[', ']', ' ', '/', '\0']);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (plain && !host.is_empty()).then_some((host, port))
}
