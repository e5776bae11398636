//! One `[group.NAME]`: which services restart together.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchdog_lifecycle::restart::{Limit, Restart};
use watchdog_lifecycle::{GroupPolicy, Strategy};
use watchdog_protocol::ServiceName;

use super::keeping;
use super::problem::Problem;
use super::section::{Entry, Report, Section};
use super::spec::ServiceSpec;
use crate::nearest::nearest;

/// The groups of a file. Members are put in their order, and under their group's limit.
pub(super) fn groups(
    file: &mut Section<'_>,
    services: &mut BTreeMap<ServiceName, ServiceSpec>,
    report: &mut Report,
) -> BTreeMap<ServiceName, GroupPolicy> {
    let mut groups: BTreeMap<ServiceName, GroupPolicy> = BTreeMap::new();
    let named = file.get("group").and_then(|entry| entry.section(report, "tables, one for each name"));
    for entry in named.iter().flat_map(Section::entries) {
        let name = match entry.name.parse::<ServiceName>() {
            Ok(name) => name,
            Err(error) => {
                report.at(entry.key, error.into());
                continue;
            }
        };
        if let Some(other) = services.values().find(|other| other.name.base() == name.as_str()) {
            let first = Some(other.places.source.place(other.places.name.clone()));
            report.at(entry.key, Problem::Twice { key: entry.name, first });
            continue;
        }
        let Some(policy) = group(&entry, services, &groups, report) else { continue };
        groups.insert(name, policy);
    }
    for (group, policy) in &groups {
        for member in &policy.members {
            let Some(spec) = services.get_mut(member) else { continue };
            if let Some(at) = &spec.places.restart_limit {
                let problem = Problem::LimitOfMember { service: member.clone(), group: group.clone() };
                report.at(at.clone(), problem);
            }
            let theirs = Arc::make_mut(&mut spec.policy);
            theirs.restart.limit = Limit::Off;
            policy.arrange(member, &mut theirs.after);
        }
    }
    groups
}

fn group(
    entry: &Entry<'_>,
    services: &BTreeMap<ServiceName, ServiceSpec>,
    groups: &BTreeMap<ServiceName, GroupPolicy>,
    report: &mut Report,
) -> Option<GroupPolicy> {
    let title = format!("[group.{}]", entry.name);
    let mut table = entry.section(report, "a table")?.called(&title);
    let mut members = Vec::new();
    match table.get("members") {
        None => {
            let expected = "an array of names, like [\"store\", \"front\"]";
            report.at(entry.key.clone(), Problem::Missing { table: title, key: "members", expected });
        }
        Some(named) => {
            let elements = named.elements(report, "an array of service names").unwrap_or_default();
            for element in elements {
                members.extend(member(&element, services, groups, &members, report).into_iter().flatten());
            }
        }
    }
    let strategy = match table.get("strategy") {
        None => {
            let expected = "\"one-for-one\", \"rest-for-one\" or \"one-for-all\"";
            let table = format!("[group.{}]", entry.name);
            report.at(entry.key.clone(), Problem::Missing { table, key: "strategy", expected });
            None
        }
        Some(strategy) => {
            strategy.parsed(report, "\"one-for-one\", \"rest-for-one\" or \"one-for-all\"", |text| {
                let all = [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll];
                all.into_iter().find(|strategy| strategy.as_str() == text)
            })
        }
    };
    let limit = table.get("restart_limit").and_then(|entry| keeping::limit(&entry, report));
    table.end(report);
    Some(GroupPolicy { members, strategy: strategy?, limit: limit.unwrap_or(Restart::default().limit) })
}

fn member(
    element: &Entry<'_>,
    services: &BTreeMap<ServiceName, ServiceSpec>,
    groups: &BTreeMap<ServiceName, GroupPolicy>,
    before: &[ServiceName],
    report: &mut Report,
) -> Option<Vec<ServiceName>> {
    let name = match element.text(report, "a service name")?.parse::<ServiceName>() {
        Ok(name) => name,
        Err(error) => {
            report.at(element.span(), error.into());
            return None;
        }
    };
    // By their numbers, not by their letters.
    let mut found: Vec<_> = services.keys().filter(|service| name.covers(service)).cloned().collect();
    found.sort_by_key(ServiceName::instance);
    let is_any = |list: &[ServiceName]| found.iter().any(|service| list.contains(service));
    let other = groups.iter().find(|(_, policy)| is_any(&policy.members));
    let problem = if found.is_empty() {
        // A table that could not be read is no missing name.
        if !report.errors.is_empty() {
            return None;
        }
        let nearest = nearest(name.as_str(), services.keys()).map(ToString::to_string);
        Problem::UnknownService { key: "members", name, nearest }
    } else if is_any(before) {
        Problem::Twice { key: name.to_string(), first: None }
    } else if let Some((group, _)) = other {
        Problem::InTwoGroups { service: name, first: group.clone() }
    } else {
        return Some(found);
    };
    report.at(element.span(), problem);
    None
}
