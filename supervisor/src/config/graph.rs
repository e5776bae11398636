//! Whether the names that services mention are there, can be talked to, and can ever start.

use std::collections::BTreeMap;

use watchdog_lifecycle::graph::GraphError;
use watchdog_protocol::ServiceName;

use super::permissions;
use super::problem::{ConfigError, Problem};
use super::spec::ServiceSpec;
use crate::nearest::nearest;

/// What is wrong between these services: names that are none of them; when all are, a `use` that can't come true,
/// or a circle of `requires` and `after`. Empty when there is nothing. Registering, and whatever else changes which
/// services there are, asks again, over all there would be.
pub fn check<'s>(services: impl IntoIterator<Item = &'s ServiceSpec>) -> Vec<ConfigError> {
    let services: BTreeMap<&ServiceName, &ServiceSpec> =
        services.into_iter().map(|spec| (&spec.name, spec)).collect();
    let errors: Vec<ConfigError> =
        services.values().filter(|spec| spec.is_first()).flat_map(|spec| missing(spec, &services)).collect();
    if !errors.is_empty() {
        return errors;
    }
    let mut errors = declared_twice(&services);
    errors.extend(permissions::refused(&services));
    match watchdog_lifecycle::graph::check(services.values().map(|spec| (&spec.name, &*spec.policy))) {
        Ok(()) => {}
        Err(GraphError::Cycle { path }) => errors.push(cycle(path, &services)),
        Err(GraphError::Taken { .. } | GraphError::Missing { .. }) => {
            unreachable!("a map holds a name once, and none is missing")
        }
    }
    errors
}

fn missing(spec: &ServiceSpec, services: &BTreeMap<&ServiceName, &ServiceSpec>) -> Vec<ConfigError> {
    let is_there = |name: &ServiceName| services.keys().any(|service| name.covers(service));
    let others = || services.keys().filter(|name| ***name != spec.name).map(|name| name.as_str());
    let named = spec.places.mentions.iter().filter_map(|mention| Some((mention, mention.name()?)));
    named
        .filter(|(_, name)| !is_there(name))
        .map(|(mention, name)| {
            let nearest = nearest(name.as_str(), others()).map(str::to_owned);
            let problem = Problem::UnknownService { key: mention.key, name: name.clone(), nearest };
            spec.error(&mention.at, problem)
        })
        .collect()
}

/// A resource is of one service: whoever borrows says its name alone. Instances are one service.
fn declared_twice(services: &BTreeMap<&ServiceName, &ServiceSpec>) -> Vec<ConfigError> {
    let mut first: BTreeMap<&str, &ServiceSpec> = BTreeMap::new();
    let mut errors = Vec::new();
    for spec in services.values().filter(|spec| spec.is_first()) {
        for name in spec.resources.keys() {
            let Some(owner) = first.get(name.as_str()) else {
                first.insert(name, spec);
                continue;
            };
            let place = |spec: &ServiceSpec| spec.places.source.place(spec.places.resources[name].clone());
            // The one further down is the one too many.
            let (before, after) = if place(owner) < place(spec) { (*owner, *spec) } else { (*spec, *owner) };
            let problem = Problem::Twice { key: name.clone(), first: Some(place(before)) };
            errors.push(after.error(&after.places.resources[name], problem));
        }
    }
    errors
}

/// At the entry that closes the circle; one that the order of a group closes, at another of its entries.
fn cycle(path: Vec<ServiceName>, services: &BTreeMap<&ServiceName, &ServiceSpec>) -> ConfigError {
    let place = path.windows(2).rev().find_map(|edge| {
        let [from, to] = edge else { return None };
        let spec = services.get(from)?;
        let waits = |key: &str| key == "requires" || key == "after";
        let mention = spec.places.mentions.iter().find(|m| waits(m.key) && m.whom.matches(to))?;
        Some(spec.source().place(mention.at.clone()))
    });
    ConfigError { place, problem: Problem::Cycle { path } }
}
