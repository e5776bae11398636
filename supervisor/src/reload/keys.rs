//! The keys of a service's table, as text that can be compared and shown, each with its way.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use watchdog_lifecycle::restart::{Delay, Limit, When};
use watchdog_lifecycle::{Kind, Liveness, Readiness, Values, Work};
use watchdog_protocol::plan::Way;

use crate::config::schema::Schema;
use crate::config::{Launch, LogSigns, Probe, ProbeKind, ServiceSpec, WatchdogSection};

/// In place of a value that may be secret.
const HIDDEN: &str = "(a value that is not shown)";

/// What a table says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Where it stands among the others.
    place: usize,
    pub(super) way: Way,
    value: String,
    /// In place of the value.
    shown: Option<String>,
}

impl Said {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.value == other.value
    }

    pub(super) fn shown(&self) -> String {
        self.shown.as_ref().unwrap_or(&self.value).clone()
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }
}

/// All keys of a table.
pub(super) type Keys = BTreeMap<String, Said>;

/// Of one service, whose settings are shown by their schema. What is written in two ways and means the same is the same
/// here.
pub(super) fn of_service(spec: &ServiceSpec, schema: Option<&Schema>) -> Keys {
    let mut keys = Keys::new();
    let mut say = |field: String, way: Way, value: String, shown: Option<String>| {
        let place = keys.len();
        keys.insert(field, Said { place, way, value, shown });
    };
    let policy = &spec.policy;
    let Launch { program, args, dir, env, user, umask, rlimits } = &spec.launch;
    let kind = match (policy.work, policy.kind) {
        (Work::Lasting, Kind::Service) => "service",
        (Work::Lasting, Kind::Program) => "program",
        (Work::Once, Kind::Service) => "task with sdk = true",
        (Work::Once, Kind::Program) => "task",
    };
    let mut key = |field: &str, way: Way, value: String| say(field.to_owned(), way, value, None);
    key("kind", Way::Recreate, kind.to_owned());
    key("exec", Way::Restart, command(program, args));
    key("dir", Way::Restart, dir.display().to_string());
    key("user", Way::Restart, user.clone().unwrap_or_else(|| "ours".to_owned()));
    key("umask", Way::Restart, format!("{umask:03o}"));
    let limits = rlimits.iter().map(|(resource, limit)| {
        format!("{resource} = {}/{}", limit_text(limit.soft), limit_text(limit.hard))
    });
    key("rlimits", Way::Restart, braced(limits));
    key("ready", Way::Restart, ready(policy.ready, spec.ready_probe.as_deref(), &spec.log_signs));
    let (liveness, way) = liveness(policy.liveness, spec.liveness_probe.as_deref(), &spec.log_signs);
    key("liveness", way, liveness);
    let when = match policy.restart.when {
        When::Always => "always",
        When::OnFailure => "on-failure",
        When::Never => "never",
    };
    key("restart", Way::Live, when.to_owned());
    key("restart_limit", Way::Live, limit(policy.restart.limit));
    let delay = match policy.restart.delay {
        Delay::AtOnce => "0s".to_owned(),
        Delay::Growing { min, max, reset } => format!("min {min:?}, max {max:?}, reset {reset:?}"),
    };
    key("restart_delay", Way::Live, delay);
    key("start_timeout", Way::Live, span(policy.start_timeout));
    key("stop_signal", Way::Live, spec.stop_signal.as_str().trim_start_matches("SIG").to_owned());
    key("stop_timeout", Way::Live, span(policy.stop_timeout));
    key("failing_timeout", Way::Live, policy.failing_timeout.map_or_else(|| "off".to_owned(), span));
    key("requires", Way::Live, list(&policy.requires));
    key("after", Way::Live, list(&policy.after));
    key("offer", Way::Live, list(&policy.access.offers));
    key("use", Way::Live, list(&policy.access.uses));
    key("control", Way::Live, list(&spec.control));
    key("save_interval", Way::Live, span(spec.save_interval));
    key("lane_size", Way::Live, bytes(spec.lane_size as u64));
    for (name, tokens) in &spec.resources {
        say(format!("resources.{name}"), Way::Live, tokens.to_string(), None);
    }
    for (name, value) in env {
        say(format!("env.{name}"), Way::Restart, value.clone(), Some(HIDDEN.to_owned()));
    }
    let settings = Values::new(spec.settings.values.clone());
    for (path, value) in settings.leaves() {
        let shown = schema.map(|schema| schema.shown_at(path.keys(), value.clone()).to_string());
        let shown = shown.unwrap_or_else(|| HIDDEN.to_owned());
        say(format!("settings.{path}"), Way::Live, value.to_string(), Some(shown));
    }
    keys
}

/// Of `[watchdog]`.
pub(super) fn of_watchdog(section: &WatchdogSection) -> Keys {
    let WatchdogSection { state, runtime, logs, log_size, log_files, max_message } = section;
    let path = |path: &Path| path.display().to_string();
    [
        ("state", Way::Never, path(state)),
        ("runtime", Way::Never, path(runtime)),
        ("logs", Way::Never, path(logs)),
        ("log_size", Way::Live, bytes(*log_size)),
        ("log_files", Way::Live, log_files.to_string()),
        ("max_message", Way::Never, bytes(*max_message as u64)),
    ]
    .into_iter()
    .zip(0..)
    .map(|((key, way, value), place)| (key.to_owned(), Said { place, way, value, shown: None }))
    .collect()
}

/// As a limit is written.
pub(super) fn limit(limit: Limit) -> String {
    match limit {
        Limit::Off => "off".to_owned(),
        Limit::Within { failures, window } => format!("{failures}/{window:?}"),
    }
}

pub(super) fn list<T: Display>(items: &[T]) -> String {
    let items = items.iter().map(ToString::to_string).collect::<Vec<_>>();
    format!("[{}]", items.join(", "))
}

fn braced(items: impl Iterator<Item = String>) -> String {
    format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
}

fn bytes(bytes: u64) -> String {
    format!("{bytes} B")
}

fn span(span: Duration) -> String {
    format!("{span:?}")
}

fn limit_text(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

/// An argument with a space or a quote in it is told from two.
fn command(program: &Path, args: &[String]) -> String {
    let quoted = |word: &str| {
        let is_plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c));
        if is_plain { word.to_owned() } else { format!("{word:?}") }
    };
    let words = std::iter::once(quoted(&program.to_string_lossy())).chain(args.iter().map(|arg| quoted(arg)));
    words.collect::<Vec<_>>().join(" ")
}

fn probe(probe: &Probe) -> String {
    let Probe { kind, interval, timeout } = probe;
    let asked = match kind {
        ProbeKind::Tcp { host, port } => format!("tcp {host}:{port}"),
        ProbeKind::Http { host, port, path } => format!("http {host}:{port}{path}"),
        ProbeKind::Exec { program, args } => format!("exec {}", command(program, args)),
    };
    format!("{asked}, interval {interval:?}, timeout {timeout:?}")
}

fn ready(readiness: Readiness, asked: Option<&Probe>, signs: &LogSigns) -> String {
    match (readiness, asked, &signs.ready) {
        (Readiness::Exec, _, _) => "exec".to_owned(),
        (Readiness::Probe, asked, _) => asked.map(probe).unwrap_or_default(),
        (Readiness::Told, _, Some(pattern)) => format!("log {pattern}"),
        (Readiness::Told, _, None) => "told".to_owned(),
    }
}

/// A probe is the watchdog's own affair; what a process is told at its start, or how its output is read, is not.
fn liveness(liveness: Liveness, asked: Option<&Probe>, signs: &LogSigns) -> (String, Way) {
    match (liveness, asked, &signs.alive) {
        (Liveness::Unwatched, _, _) => ("unwatched".to_owned(), Way::Live),
        (Liveness::Probe { .. }, asked, _) => (asked.map(probe).unwrap_or_default(), Way::Live),
        (Liveness::Heartbeat { interval }, _, Some(pattern)) => {
            (format!("log {pattern}, interval {interval:?}"), Way::Restart)
        }
        (Liveness::Heartbeat { interval }, _, None) => (format!("heartbeat, {interval:?}"), Way::Restart),
    }
}
