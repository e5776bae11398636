//! The parts of a bundle: what the watchdog tells, and what lies in its files. A part that can't be had says why.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;
use serde_json::{Map, Value, json};
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::{CONTROL_VERSION, SECRET, SettingsView, StateView};
use watchdog_protocol::status::{EventRecord, InboxStatus, STATUS_VERSION, Status};
use watchdog_protocol::why::Why;

use watchdog_query::{QueryError, WatchdogQuery};

use super::secrets::leave_out;
use crate::capture::reader::{Back, Follow};
use crate::cli::look::Look;
use crate::cli::place::Place;
use crate::cli::{logs, status, why};
use crate::config::as_configured;
use crate::config::schema::Schema;
use crate::core::{chain, events, registration};
use crate::run::kept_config;

/// Lines of the log that go along.
const LINES: usize = 1000;

const PLAIN: Look = Look { color: false, width: None };

/// One file of a bundle.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// Its bytes, or why there are none.
    pub(super) content: Result<Vec<u8>, String>,
}

/// What the watchdog says of one service.
#[derive(Debug)]
pub(super) struct Answers {
    status: Status,
    why: Result<Why, QueryError>,
    manifest: Result<Option<String>, QueryError>,
    settings: Result<SettingsView, QueryError>,
    state: Result<StateView, QueryError>,
    snapshot: Result<Vec<u8>, QueryError>,
    intercoms: Result<Vec<InboxStatus>, QueryError>,
}

impl Answers {
    /// The status is asked for first: a watchdog that does not give it gives nothing else.
    pub(super) async fn ask(query: &WatchdogQuery, service: &ServiceName) -> Result<Self, QueryError> {
        Ok(Self {
            status: query.status(std::slice::from_ref(service)).await?,
            why: query.why(service).await,
            manifest: query.manifest(service).await,
            settings: query.get(service).await,
            state: query.state_show(service).await,
            snapshot: query.state_export(service).await,
            intercoms: query.intercoms(&[]).await.map(|inboxes| lanes_of(service, inboxes)),
        })
    }
}

/// Its inbox, and of the others the lanes it sends on.
fn lanes_of(service: &ServiceName, mut inboxes: Vec<InboxStatus>) -> Vec<InboxStatus> {
    for inbox in &mut inboxes {
        if inbox.service != *service {
            inbox.lanes.retain(|lane| lane.sender == *service);
        }
    }
    inboxes.retain(|inbox| inbox.service == *service || !inbox.lanes.is_empty());
    inboxes
}

/// All parts, and the paths of what was left out of them. `answers` has the reason when there are none.
pub(super) fn gather(
    service: &ServiceName,
    place: &Place,
    answers: &Result<Answers, String>,
) -> (Vec<Part>, Vec<String>) {
    let mut left_out = Vec::new();
    let mut parts = vec![
        part("versions.json", "watchdog, protocol, kernel, system", Ok(pretty(&versions()))),
        part(
            "configuration.json",
            "its table of the configuration, and the file it is from",
            configuration(service, place, &known_schema(answers), &mut left_out),
        ),
        part(
            "events.jsonl",
            "the event log: its entries, those of services on the way to the first cause, the watchdog's",
            entries(service, place, answers),
        ),
        part("log.txt", "the last 1000 lines it printed", log(service, place)),
    ];
    parts.extend(told(answers, &mut left_out));
    (parts, left_out)
}

/// What only a watchdog can tell.
fn told(answers: &Result<Answers, String>, left_out: &mut Vec<String>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut tell = |name, what, content: &mut dyn FnMut(&Answers) -> Result<Vec<u8>, String>| {
        parts.push(part(name, what, answers.as_ref().map_err(String::clone).and_then(&mut *content)));
    };
    let said = |error: &QueryError| chain(error);
    tell("status.txt", "its status, as shown", &mut |answers| {
        let shown = answers.status.services.first().map(|service| status::detail(service, &PLAIN));
        shown.map(String::into_bytes).ok_or_else(|| "the watchdog told nothing of it".to_owned())
    });
    tell("status.json", "its status", &mut |answers| Ok(pretty(&answers.status)));
    tell("why.txt", "the way to the first cause, as shown", &mut |answers| {
        answers.why.as_ref().map(|found| why::text(found, &PLAIN).into_bytes()).map_err(said)
    });
    tell("why.json", "the way to the first cause", &mut |answers| {
        answers.why.as_ref().map(pretty).map_err(said)
    });
    tell("manifest.json", "what it says of itself: settings, state, messages", &mut |answers| match &answers
        .manifest
    {
        Ok(Some(text)) => Ok(pretty(&parsed(text))),
        Ok(None) => Err("a program says nothing of itself".to_owned()),
        Err(error) => Err(said(error)),
    });
    tell("settings.json", "its settings: values, revision, what was set over the file", &mut |answers| {
        answers.settings.as_ref().map(|view| settings(view, left_out)).map_err(said)
    });
    tell("state.json", "its state on disk: version, sequence, size, age", &mut |answers| {
        answers.state.as_ref().map(pretty).map_err(said)
    });
    tell("state.snapshot", "its state, bytes: `watchdog state import` takes it", &mut |answers| {
        answers.snapshot.as_ref().cloned().map_err(said)
    });
    tell("intercoms.json", "its lanes, those it sends on included", &mut |answers| {
        answers.intercoms.as_ref().map(pretty).map_err(said)
    });
    parts
}

fn part(name: &'static str, what: &'static str, content: Result<Vec<u8>, String>) -> Part {
    Part { name, what, content }
}

fn versions() -> Value {
    let kernel = nix::sys::utsname::uname().ok();
    let word = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
    let kernel = kernel.map(|kernel| {
        [kernel.sysname(), kernel.release(), kernel.version(), kernel.machine()].map(word).join(" ")
    });
    let system = std::fs::read_to_string("/etc/os-release").ok().and_then(|text| {
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches('"').to_owned())
    });
    json!({
        "watchdog": env!("CARGO_PKG_VERSION"),
        "control_protocol": CONTROL_VERSION,
        "status": STATUS_VERSION,
        "kernel": kernel,
        "system": system,
    })
}

/// The settings type, by which secrets are told apart; none: nothing is known of it.
fn known_schema(answers: &Result<Answers, String>) -> Schema {
    let manifest = answers.as_ref().ok().and_then(|answers| answers.manifest.as_ref().ok()?.as_ref());
    manifest.map_or_else(Schema::default, |text| Schema::of_text(text))
}

/// Of the configuration in force, else of the file as it is now, else as it was registered.
fn configuration(
    service: &ServiceName,
    place: &Place,
    schema: &Schema,
    left_out: &mut Vec<String>,
) -> Result<Vec<u8>, String> {
    let registered = registration::registered_folder(&place.state).join(format!("{service}.toml"));
    let mut unread = None;
    for file in [kept_config(&place.runtime), place.config.clone(), registered] {
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                if let Some(mut table) = as_configured(&text, service) {
                    hide_secrets(&mut table, service, schema);
                    left_out.extend(leave_out(&mut table));
                    return Ok(pretty(&json!({ "file": file, "configured": table })));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unread = Some(format!("cannot read {}: {error}", file.display())),
        }
    }
    Err(unread.unwrap_or_else(|| "neither configured nor registered".to_owned()))
}

fn hide_secrets(configured: &mut Value, service: &ServiceName, schema: &Schema) {
    let tables = configured.as_object_mut().into_iter().flat_map(Map::values_mut);
    for settings in tables.filter_map(|named| named.get_mut(service.base())?.get_mut("settings")) {
        *settings = match settings.take() {
            Value::Object(values) => schema.shown(values).into(),
            // It is wrong, and may be anything.
            _ => SECRET.into(),
        };
    }
}

fn entries(
    service: &ServiceName,
    place: &Place,
    answers: &Result<Answers, String>,
) -> Result<Vec<u8>, String> {
    let mut whose = BTreeSet::from([service]);
    if let Ok(Answers { why: Ok(why), .. }) = answers {
        whose.extend(why.chain.iter().filter_map(|link| link.service.as_ref()));
    }
    let is_wanted =
        |record: &&EventRecord| record.service.as_ref().is_none_or(|service| whose.contains(service));
    let read = events::read(&place.logs)
        .map_err(|error| format!("cannot read the event log in {}: {error}", place.logs.display()))?;
    let line = |record: &EventRecord| serde_json::to_string(record).expect("an event has text keys") + "\n";
    Ok(read.iter().filter(is_wanted).map(line).collect::<String>().into_bytes())
}

fn log(service: &ServiceName, place: &Place) -> Result<Vec<u8>, String> {
    let services = std::slice::from_ref(service);
    let (_, records) = Follow::from_end_where(&place.logs, services, Back::records(LINES), |_| true)
        .map_err(|error| format!("cannot read the logs in {}: {error}", place.logs.display()))?;
    let lines = records.iter().map(|record| logs::text(record, false, &PLAIN) + "\n");
    Ok(lines.collect::<String>().into_bytes())
}

fn settings(view: &SettingsView, left_out: &mut Vec<String>) -> Vec<u8> {
    let mut values = parsed(&view.json);
    left_out.extend(leave_out(&mut values).into_iter().map(|path| format!("settings.{path}")));
    pretty(&json!({
        "revision": view.revision,
        "verdict": view.verdict,
        "values": values,
        "overrides": view.overrides,
    }))
}

/// JSON text of the watchdog's own.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).expect("what is shown has text keys");
    text.push('\n');
    text.into_bytes()
}
