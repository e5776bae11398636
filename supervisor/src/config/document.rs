//! From TOML text to tables, and from tables to a [`Config`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use watchdog_protocol::ServiceName;
use watchdog_protocol::limits::{DEFAULT_MAX_MESSAGE, MAX_FRAME, MAX_PACKET};

use super::problem::{ConfigError, ConfigErrors, Problem};
use super::quantity;
use super::section::{Entry, Report, Section};
use super::service_table::Title;
use super::source::Source;
use super::spec::{Config, ServiceSpec, WatchdogSection};
use super::{graph, group_table, service_table};

/// Reads the text of a `watchdog.toml`, which stays with what is found in it: given as an `Arc`, without a copy. `path` is
/// absolute; relative paths in the text start at its folder.
///
/// # Errors
/// All that is wrong, in file order.
pub fn parse(path: &Path, text: impl Into<Arc<str>>) -> Result<Config, ConfigErrors> {
    let text = text.into();
    let (root, mut report) = read(path, &text)?;
    let mut file = Section::new("the file".to_owned(), root.get_ref());
    let watchdog = file.get("watchdog").and_then(|entry| entry.section(&mut report, "a table"));
    let watchdog = watchdog_section(watchdog, &mut report);
    let (mut services, _) = tables(&mut file, &mut report);
    let groups = group_table::groups(&mut file, &mut services, &mut report);
    file.end(&mut report);
    // A table that could not be read is no missing name.
    if report.errors.is_empty() {
        report.errors = renamed(&services);
    }
    if report.errors.is_empty() {
        report.errors = graph::check(services.values());
    }
    ConfigErrors::none_of(report.errors)?;
    Ok(Config { path: path.to_owned(), watchdog, services, groups })
}

/// A name that a service had before is nobody's by now, and was one service's.
fn renamed(services: &BTreeMap<ServiceName, ServiceSpec>) -> Vec<ConfigError> {
    let firsts = || services.values().filter(|spec| spec.is_first());
    let wrong = |spec: &ServiceSpec| {
        let before = spec.renamed_from.as_ref()?;
        let is_there = |other: &&ServiceSpec| other.name.base() == before.as_str();
        let is_its = |other: &&ServiceSpec| other.renamed_from.as_ref() == Some(before);
        let other =
            firsts().find(is_there).or_else(|| firsts().find(|it| is_its(it) && it.name < spec.name))?;
        let first = other.places.source.place(other.places.name.clone());
        let problem = Problem::Renamed { name: spec.name.clone(), before: before.clone(), first };
        Some(spec.error(&spec.places.name, problem))
    };
    firsts().filter_map(wrong).collect()
}

/// Reads a file that registers one service, program or task: one such table and nothing else. The names it mentions
/// are not looked up; [`graph::check`] does that, over all services there are.
///
/// # Errors
/// All that is wrong, in file order.
pub fn parse_one(path: &Path, text: &str) -> Result<ServiceSpec, ConfigErrors> {
    let text = text.into();
    let (root, mut report) = read(path, &text)?;
    let mut file = Section::new("the file".to_owned(), root.get_ref());
    let (mut services, found) = tables(&mut file, &mut report);
    file.end(&mut report);
    if found != 1 && report.errors.is_empty() {
        report.at(0..0, Problem::NotOne { found });
    }
    if let Some(spec) = services.values().find(|spec| spec.instances.is_some()) {
        report.at(spec.places.name.clone(), Problem::RegisteredInstances);
    }
    ConfigErrors::none_of(report.errors)?;
    let (_, only) = services.pop_first().expect("one table without an error is one service");
    Ok(only)
}

/// The tables of a text.
///
/// # Errors
/// When it is no TOML. A bracket that is not closed turns all that follows into errors, and tables into values:
/// what is told is the first error of each of the first lines that have one, and which bracket it is; nothing of
/// the tables.
fn read<'t>(path: &Path, text: &'t Arc<str>) -> Result<(Spanned<DeTable<'t>>, Report), ConfigErrors> {
    const LINES: usize = 3;
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut report = Report { source: Arc::new(Source::new(path, Arc::clone(text))), errors: Vec::new() };
    let mut no_toml = Vec::new();
    for error in errors {
        let at = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            let key = text.get(at.clone()).unwrap_or_default().to_owned();
            let first = first_of(root.get_ref(), text, &at).map(|first| report.source.place(first));
            report.at(at, Problem::Twice { key, first });
        } else {
            let place = report.source.place(at);
            no_toml.push((place, Problem::Syntax { message: error.message().to_owned() }));
        }
    }
    if no_toml.is_empty() {
        return Ok((root, report));
    }
    no_toml.sort_by_key(|(place, _)| (place.line(), place.column()));
    let (unclosed, mut no_toml): (Vec<_>, Vec<_>) = no_toml.into_iter().partition(
        |(_, problem)| matches!(problem, Problem::Syntax { message } if message.starts_with("unclosed")),
    );
    no_toml.dedup_by_key(|(place, _)| place.line());
    let no_toml = no_toml.into_iter().take(LINES).chain(unclosed);
    report.errors.extend(no_toml.map(|(place, problem)| ConfigError { place: Some(place), problem }));
    Err(ConfigErrors::some_of(report.errors))
}

/// Where the key repeated at `again` is first. The parser keeps the first value of a repeated key; of a repeated
/// table it keeps the contents and forgets the header, which is therefore looked for as text.
fn first_of(root: &DeTable<'_>, text: &str, again: &Range<usize>) -> Option<Range<usize>> {
    let line_start = text[..again.start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next()?.trim();
    if line.starts_with('[') {
        let header = line.split(']').next()?;
        let first = text.match_indices('\n').map(|(at, _)| at + 1).chain([0]).filter(|at| *at < line_start);
        let first =
            first.filter(|at| text[*at..].trim_start_matches([' ', '\t']).starts_with(header)).min()?;
        return Some(first..first + header.len() + 1);
    }
    let name = text.get(again.clone())?;
    let mut open: Vec<(usize, &DeTable<'_>)> = vec![(0, root)];
    let mut nearest = None;
    while let Some((start, table)) = open.pop() {
        if nearest.is_none_or(|(other, _)| other <= start) {
            nearest = Some((start, table));
        }
        for value in table.values() {
            // A header's range is the header, an inline table's all of it.
            let (span, inline) = (value.span(), text[value.span()].starts_with('{'));
            if let (true, DeValue::Table(inner)) =
                (span.start <= again.start && (!inline || again.end <= span.end), value.get_ref())
            {
                open.push((span.start, inner));
            }
        }
    }
    let (_, table) = nearest?;
    table.get_key_value(name).map(|(key, _)| key.span()).filter(|first| first.start < again.start)
}

/// The services, programs and tasks of a file, and how many tables there are of them.
fn tables(file: &mut Section<'_>, report: &mut Report) -> (BTreeMap<ServiceName, ServiceSpec>, usize) {
    let mut services: BTreeMap<ServiceName, ServiceSpec> = BTreeMap::new();
    let mut found = 0;
    for title in Title::ALL {
        let expected = "tables, one for each name";
        let Some(named) = file.get(title.as_str()).and_then(|entry| entry.section(report, expected)) else {
            continue;
        };
        for entry in named.entries() {
            found += 1;
            let Some(spec) = one(title, &entry, report) else { continue };
            let base = spec.name.base();
            if let Some(other) = services.get(base).or_else(|| services.get(&*format!("{base}@1"))) {
                let first = Some(other.places.source.place(other.places.name.clone()));
                report.at(entry.key, Problem::Twice { key: entry.name, first });
                continue;
            }
            match spec.instances {
                None => drop(services.insert(spec.name.clone(), spec)),
                Some(instances) => {
                    let each = (1..=instances).filter_map(|number| match spec.instance(number) {
                        Ok(spec) => Some(spec),
                        Err(error) => {
                            report.at(spec.places.name.clone(), error.into());
                            None
                        }
                    });
                    services.extend(each.map(|spec| (spec.name.clone(), spec)));
                }
            }
        }
    }
    (services, found)
}

fn one(title: Title, entry: &Entry<'_>, report: &mut Report) -> Option<ServiceSpec> {
    let name = match entry.name.parse::<ServiceName>() {
        Ok(name) if name.instance().is_some() => {
            report.at(entry.key.clone(), Problem::NamedInstance { name });
            None
        }
        Ok(name) if name == ServiceName::operator() => {
            report.at(entry.key.clone(), Problem::NamedOperator);
            None
        }
        Ok(name) if name == ServiceName::watchdog() => {
            report.at(entry.key.clone(), Problem::NamedWatchdog);
            None
        }
        Ok(name) => Some(name),
        Err(error) => {
            report.at(entry.key.clone(), error.into());
            None
        }
    };
    let table = entry.section(report, "a table")?;
    // A table with a bad name is read as well, so that all its errors are told at once.
    let nameless = || "nameless".parse().expect("it is a name");
    let spec = service_table::read(title, name.clone().unwrap_or_else(nameless), entry, table, report)?;
    name.map(|_| spec)
}

fn watchdog_section(section: Option<Section<'_>>, report: &mut Report) -> WatchdogSection {
    let folder = report.source.folder().to_owned();
    let under = |name: &str| folder.join(".watchdog").join(name);
    let mut watchdog = WatchdogSection {
        state: under("state"),
        runtime: under("run"),
        logs: under("logs"),
        log_size: 10 << 20,
        log_files: 5,
        max_message: DEFAULT_MAX_MESSAGE,
    };
    let Some(section) = section else { return watchdog };
    let mut section = section.called("[watchdog]");
    let path = |entry: Option<Entry<'_>>, report: &mut Report, into: &mut PathBuf| {
        let path = entry.and_then(|entry| entry.parsed(report, "a path", |text| text_path(&folder, text)));
        if let Some(path) = path {
            *into = path;
        }
    };
    path(section.get("state"), report, &mut watchdog.state);
    path(section.get("runtime"), report, &mut watchdog.runtime);
    path(section.get("logs"), report, &mut watchdog.logs);
    // A file that one line fills would be rotated at each of them.
    const SMALLEST_LOG: u64 = 4 << 10;
    if let Some(size) = size(section.get("log_size"), report, SMALLEST_LOG..=u64::MAX, "at least 4KiB") {
        watchdog.log_size = size;
    }
    if let Some(files) = section.get("log_files").and_then(|entry| entry.number(report, 1, 1000)) {
        watchdog.log_files = u32::try_from(files).expect("at most 1000");
    }
    // What a packet holds goes always; a state must fit in a frame of the control socket, to be exported.
    let range = MAX_PACKET as u64..=(MAX_FRAME - (1 << 20)) as u64;
    if let Some(size) = size(section.get("max_message"), report, range, "from 64KiB to 64MiB") {
        watchdog.max_message = usize::try_from(size).expect("at most 64 MiB");
    }
    section.end(report);
    watchdog
}

/// A size within bounds, which are named in the error.
pub(super) fn size(
    entry: Option<Entry<'_>>,
    report: &mut Report,
    range: std::ops::RangeInclusive<u64>,
    bounds: &str,
) -> Option<u64> {
    let in_range = |text: &str| quantity::size(text).filter(|size| range.contains(size));
    entry?.parsed(report, &format!("{}, {bounds}", quantity::SIZE), in_range)
}

/// A path of the file, relative ones from its folder.
pub(super) fn text_path(folder: &Path, text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| folder.join(text))
}
