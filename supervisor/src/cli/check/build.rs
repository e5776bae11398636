//! Another build of a service against the present one: whose place it takes, what it meets there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use watchdog_lifecycle::settings::SettingsUpdater;
use watchdog_lifecycle::values::Values;
use watchdog_protocol::fit::{About, Finding, Weight};
use watchdog_protocol::{Manifest, ServiceName};

use super::super::console::{Console, Format};
use super::super::look::{Look, Paint, harmless};
use super::super::report::CliError;
use crate::config::fit::{self, Senders};
use crate::config::manifest_of::manifest_of;
use crate::config::schema::Schema;
use crate::config::state_of::{StateOfError, TIMEOUT, state_of};
use crate::config::{Config, Kind, ServiceSpec};
use crate::core::chain;
use crate::core::registration::{registered, registered_folder};
use crate::store::envelope;
use crate::store::{journal, record, snapshot};

/// What was found of one service.
#[derive(Debug, Serialize)]
struct Report {
    service: ServiceName,
    program: PathBuf,
    /// `running`, or `files` when no watchdog runs it.
    against: Against,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Against {
    #[serde(rename = "running")]
    Running,
    #[serde(rename = "files")]
    NoWatchdog,
    /// It is in the file alone.
    #[serde(rename = "files")]
    NotKnown,
}

pub(super) async fn check(
    config: &Config,
    program: &Path,
    named: Option<&ServiceName>,
    console: &Console,
) -> Result<(), CliError> {
    let specs = services(config);
    let program = fs::canonicalize(program).map_err(|source| CliError::File {
        what: "find",
        path: program.to_owned(),
        source,
    })?;
    let known = known(console).await?;
    let mut reports = Vec::new();
    for spec in meant(&specs, &program, named)? {
        let new_spec = with_program(spec, &program);
        let describe = |error| CliError::NotDescribed { service: spec.name.clone(), error };
        let new = manifest_of(&new_spec, None).map_err(describe)?;
        let against = match &known {
            None => Against::NoWatchdog,
            Some(known) if known.contains(&spec.name) => Against::Running,
            Some(_) => Against::NotKnown,
        };
        let (mut findings, stored) = match against {
            Against::Running => running(console, &spec.name, &new).await?,
            Against::NoWatchdog | Against::NotKnown => from_files(config, spec, &new)?,
        };
        findings.extend(stored.and_then(|stored| tried(&new_spec, &new, &stored)));
        findings.sort_by_key(|finding| finding.about);
        reports.push(Report { service: spec.name.clone(), program: program.clone(), against, findings });
    }
    match console.format {
        Format::Json => console.json(&reports)?,
        Format::Text => {
            console.print(&reports.iter().map(|report| text(report, &console.look)).collect::<String>())?;
        }
    }
    let all = reports.iter().flat_map(|report| &report.findings);
    match all.filter(|finding| finding.weight == Weight::Breaks).count() {
        0 => Ok(()),
        things => Err(CliError::Breaks { things: things as u64 }),
    }
}

/// Those of the configuration, and registered since.
fn services(config: &Config) -> Vec<ServiceSpec> {
    let files = fs::read_dir(registered_folder(&config.watchdog.state)).into_iter().flatten().flatten();
    let registered =
        files.filter_map(|file| registered(&file.path(), &fs::read_to_string(file.path()).ok()?).ok());
    let all = config.services.values().cloned().chain(registered);
    all.filter(|spec| spec.kind() == Kind::Service).collect()
}

/// Whose place the program is to take: all instances of one service.
fn meant<'s>(
    specs: &'s [ServiceSpec],
    program: &Path,
    named: Option<&ServiceName>,
) -> Result<Vec<&'s ServiceSpec>, CliError> {
    let meant: Vec<_> = match named {
        Some(name) => specs.iter().filter(|spec| name.covers(&spec.name)).collect(),
        None => specs.iter().filter(|spec| place_of(spec, program).is_some()).collect(),
    };
    let mut bases: Vec<_> = meant.iter().map(|spec| spec.name.base().to_owned()).collect();
    bases.dedup();
    match (&bases[..], named) {
        ([_], _) => Ok(meant),
        (_, Some(name)) => Err(CliError::NoBuiltService {
            service: name.clone(),
            nearest: crate::nearest::nearest(name.as_str(), specs.iter().map(|spec| &spec.name)).cloned(),
        }),
        (_, None) => Err(CliError::WhoseBuild { program: program.to_owned(), services: bases }),
    }
}

/// What of a command a program of this name takes the place of.
enum PlaceOf {
    Program,
    /// An interpreter runs it.
    Argument(usize),
}

fn place_of(spec: &ServiceSpec, program: &Path) -> Option<PlaceOf> {
    let is_it = |path: &Path| path.file_name().is_some() && path.file_name() == program.file_name();
    if is_it(&spec.launch.program) {
        return Some(PlaceOf::Program);
    }
    spec.launch.args.iter().position(|arg| is_it(Path::new(arg))).map(PlaceOf::Argument)
}

/// The same service with another program.
fn with_program(spec: &ServiceSpec, program: &Path) -> ServiceSpec {
    let mut spec = spec.clone();
    match place_of(&spec, program) {
        Some(PlaceOf::Argument(at)) => spec.launch.args[at] = program.display().to_string(),
        Some(PlaceOf::Program) | None => spec.launch.program = program.to_owned(),
    }
    spec
}

/// A stored state.
struct Stored {
    version: u32,
    content: Vec<u8>,
}

impl Stored {
    fn of(bytes: &[u8]) -> Result<Self, Finding> {
        let breaks = |damage: envelope::Damage| {
            Finding::breaks(About::State, format!("the stored state can't be read: {}", chain(&damage)))
        };
        let snapshot = snapshot::decode(bytes).map_err(breaks)?;
        Ok(Self { version: snapshot.version, content: snapshot.content })
    }
}

/// All that the watchdog knows; `None` when none runs.
async fn known(console: &Console) -> Result<Option<Vec<ServiceName>>, CliError> {
    match console.ask(async |query| query.status(&[]).await).await {
        Ok(status) => Ok(Some(status.services.into_iter().map(|service| service.name).collect())),
        Err(CliError::NoWatchdog { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// By the watchdog.
async fn running(
    console: &Console,
    service: &ServiceName,
    new: &Manifest,
) -> Result<(Vec<Finding>, Option<Stored>), CliError> {
    let findings = console.ask(async |query| query.fit(service, new).await).await?;
    if findings.iter().all(|finding| finding.about != About::State) || new.state.is_none() {
        return Ok((findings, None));
    }
    // A service without a state has none to export, and the state of one that never saved is its initial one.
    let stored = match console.ask(async |query| query.state_export(service).await).await {
        Ok(bytes) => Stored::of(&bytes).ok(),
        Err(_) => None,
    };
    Ok((findings, stored))
}

/// By the configuration and the state folder.
fn from_files(
    config: &Config,
    spec: &ServiceSpec,
    new: &Manifest,
) -> Result<(Vec<Finding>, Option<Stored>), CliError> {
    let state = &config.watchdog.state;
    let newest = |path: PathBuf| {
        journal::newest(state, &path)
            .map_err(|source| CliError::Stored { service: spec.name.clone(), source })
    };
    let present = manifest_of(spec, None).ok();
    let mut findings = fit::contract(present.as_ref(), Senders::Unknown, new);
    let set = newest(record::path(&state.join("settings"), spec.name.as_str()))?;
    findings.extend(settings_of_files(spec, present.as_ref(), set.as_deref(), new));
    let stored = match newest(snapshot::path(state, &spec.name))?.map(|bytes| Stored::of(&bytes)) {
        None => None,
        Some(Ok(stored)) => Some(stored),
        Some(Err(damaged)) => {
            findings.push(damaged);
            return Ok((findings, None));
        }
    };
    findings.extend(fit::state(stored.as_ref().map(|stored| stored.version), new));
    Ok((findings, stored))
}

/// The file's values, with what was set over them.
fn settings_of_files(
    spec: &ServiceSpec,
    present: Option<&Manifest>,
    set: Option<&[u8]>,
    new: &Manifest,
) -> Vec<Finding> {
    let schema = present.and_then(|present| Schema::of(present).ok());
    let of = |values, set: &[String]| fit::settings(schema.as_ref(), values, set, new);
    let Some(updater) = set.and_then(updater) else { return of(spec.settings.values.clone(), &[]) };
    let set: Vec<_> = updater.overrides().paths().map(ToString::to_string).collect();
    let found = std::cell::RefCell::new(Vec::new());
    let check = |values: &Value| {
        let findings = of(values.as_object().cloned().unwrap_or_default(), &set);
        let fits = findings.iter().all(|finding| finding.weight == Weight::Note);
        *found.borrow_mut() = findings;
        if fits { Ok(values.clone()) } else { Err("it does not fit") }
    };
    match updater.fits(&Values::new(spec.settings.values.clone()), &check) {
        Err(error) if found.borrow().is_empty() => vec![Finding::breaks(About::Settings, error.to_string())],
        Ok(()) | Err(_) => found.into_inner(),
    }
}

fn updater(bytes: &[u8]) -> Option<SettingsUpdater> {
    let (_, content) = envelope::decode(envelope::Kind::Record, bytes).ok()?;
    serde_json::from_slice(content).ok()
}

/// What the program itself makes of the stored state. Nothing is changed: it is given a copy.
fn tried(spec: &ServiceSpec, new: &Manifest, stored: &Stored) -> Option<Finding> {
    let version = new.state.as_ref()?.version;
    if stored.version > version {
        return None;
    }
    Some(match state_of(spec, stored.version, &stored.content, TIMEOUT) {
        Ok(_) => Finding::note(About::State, "tried on what is stored: it reads it"),
        Err(error @ StateOfError::Unreadable { .. }) => Finding::breaks(
            About::State,
            format!("tried on what is stored, it would not start: {}", chain(&error)),
        ),
        Err(error) => Finding::note(About::State, format!("not tried on what is stored: {}", chain(&error))),
    })
}

fn text(Report { service, program, against, findings }: &Report, look: &Look) -> String {
    let by = match against {
        Against::Running => "against what runs",
        Against::NoWatchdog => "against its files, no watchdog runs",
        Against::NotKnown => "against its files, the watchdog that runs does not know it",
    };
    let mut text = format!("{service}: {} {by}\n", harmless(&program.display().to_string()));
    for Finding { about, weight, text: said } in findings {
        let about = match about {
            About::Contract => "messages",
            About::Settings => "settings",
            About::State => "state",
        };
        let mark = match weight {
            Weight::Note => String::new(),
            Weight::Breaks => format!("{} ", look.paint(Paint::Bad, "breaks:")),
        };
        // A program's own words may be several lines.
        for (at, line) in said.lines().enumerate() {
            let (about, mark) = if at == 0 { (about, &mark[..]) } else { ("", "") };
            text += &format!("  {about:<10}{mark}{}\n", harmless(line));
        }
    }
    text
}
