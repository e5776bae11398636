//! Whether the names that services mention are there, and whether all of them can ever start.

use std::collections::{BTreeMap, BTreeSet};

use watchdog_protocol::ServiceName;

use super::problem::{ConfigError, Problem, nearest};
use super::spec::{Mention, ServiceSpec};

/// What is wrong between these services: names that are none of them, and circles of `requires` and `after`.
/// Empty when there is nothing. Registering and unregistering ask again, over all services there would be.
pub fn check(services: &BTreeMap<ServiceName, ServiceSpec>) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for spec in services.values() {
        for mention in spec.places.mentions.iter().filter(|mention| !services.contains_key(&mention.name)) {
            let others = services.keys().filter(|name| **name != spec.name).map(ServiceName::as_str);
            let near = nearest(mention.name.as_str(), others).and_then(|near| near.parse().ok());
            let problem =
                Problem::UnknownService { key: mention.key, name: mention.name.clone(), nearest: near };
            errors.push(spec.error(&mention.at, problem));
        }
    }
    let mut walk = Walk { services, done: BTreeSet::new(), way: Vec::new(), errors };
    for name in services.keys() {
        walk.from(name);
    }
    walk.errors
}

/// What must start before a service.
fn waits_for(spec: &ServiceSpec) -> impl Iterator<Item = &Mention> {
    spec.places.mentions.iter().filter(|mention| matches!(mention.key, "requires" | "after"))
}

/// Depth first, each service once.
struct Walk<'s> {
    services: &'s BTreeMap<ServiceName, ServiceSpec>,
    done: BTreeSet<&'s ServiceName>,
    way: Vec<(&'s ServiceSpec, usize)>,
    errors: Vec<ConfigError>,
}

impl<'s> Walk<'s> {
    /// With the way in a list, not on the stack: a chain may be as long as a file has room for.
    fn from(&mut self, start: &'s ServiceName) {
        self.enter(start);
        while let Some((spec, at)) = self.way.last_mut() {
            let (spec, next) = (*spec, *at);
            *at += 1;
            let Some(mention) = waits_for(spec).nth(next) else {
                self.way.pop();
                continue;
            };
            match self.way.iter().position(|(spec, _)| spec.name == mention.name) {
                Some(begin) => {
                    let mut path: Vec<_> =
                        self.way[begin..].iter().map(|(spec, _)| spec.name.clone()).collect();
                    path.push(mention.name.clone());
                    self.errors.push(spec.error(&mention.at, Problem::Cycle { path }));
                }
                None => self.enter(&mention.name),
            }
        }
    }

    fn enter(&mut self, name: &ServiceName) {
        if let Some((name, spec)) = self.services.get_key_value(name)
            && self.done.insert(name)
        {
            self.way.push((spec, 0));
        }
    }
}
