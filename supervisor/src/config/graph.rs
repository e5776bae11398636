//! Whether the names that services mention are there, and whether all of them can ever start.

use std::collections::BTreeMap;

use watchdog_lifecycle::graph::GraphError;
use watchdog_protocol::ServiceName;

use super::problem::{ConfigError, Problem};
use super::spec::ServiceSpec;
use crate::nearest::nearest;

/// What is wrong between these services: names that are none of them, and, when all are, a circle of `requires`
/// and `after`. Empty when there is nothing. Registering and unregistering ask again, over all services there
/// would be.
pub fn check(services: &BTreeMap<ServiceName, ServiceSpec>) -> Vec<ConfigError> {
    let errors: Vec<ConfigError> =
        services.values().filter(|spec| spec.is_first()).flat_map(|spec| missing(spec, services)).collect();
    if !errors.is_empty() {
        return errors;
    }
    match watchdog_lifecycle::graph::check(services.values().map(|spec| (&spec.name, &spec.policy))) {
        Ok(()) => errors,
        Err(GraphError::Cycle { path }) => vec![cycle(path, services)],
        Err(GraphError::Taken { .. } | GraphError::Missing { .. }) => {
            unreachable!("a map holds a name once, and none is missing")
        }
    }
}

fn missing(spec: &ServiceSpec, services: &BTreeMap<ServiceName, ServiceSpec>) -> Vec<ConfigError> {
    let is_there = |name: &ServiceName| services.keys().any(|service| name.covers(service));
    let unknown = spec.places.mentions.iter().filter(|mention| !is_there(&mention.name));
    let others = || services.keys().filter(|name| **name != spec.name).map(ServiceName::as_str);
    unknown
        .map(|mention| {
            let nearest = nearest(mention.name.as_str(), others()).map(str::to_owned);
            let problem = Problem::UnknownService { key: mention.key, name: mention.name.clone(), nearest };
            spec.error(&mention.at, problem)
        })
        .collect()
}

/// At the entry that closes the circle; one that the order of a group closes, at another of its entries.
fn cycle(path: Vec<ServiceName>, services: &BTreeMap<ServiceName, ServiceSpec>) -> ConfigError {
    let place = path.windows(2).rev().find_map(|edge| {
        let [from, to] = edge else { return None };
        let spec = services.get(from)?;
        let waits = |key: &str| key == "requires" || key == "after";
        let mention = spec.places.mentions.iter().find(|m| waits(m.key) && m.name.covers(to))?;
        Some(spec.source().place(mention.at.clone()))
    });
    ConfigError { place, problem: Problem::Cycle { path } }
}
