//! Who requires whom: checked before anything starts, so that no wait can be for ever.

use std::collections::BTreeMap;

use watchdog_protocol::ServiceName;

use crate::policy::Policy;

/// What is wrong with an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The name is taken.
    #[error("`{name}` is already registered")]
    Taken {
        /// Whose.
        name: ServiceName,
    },
    /// Somebody names a service that is not there.
    #[error("`{service}` has {list} = [\"{missing}\"], but there is no `{missing}`")]
    Missing {
        /// Who.
        service: ServiceName,
        /// Where: `requires` or `after`.
        list: &'static str,
        /// Whom.
        missing: ServiceName,
    },
    /// Everyone in it waits for the next.
    #[error("these wait for each other: {}", arrows(.path))]
    Cycle {
        /// The first one again at its end.
        path: Vec<ServiceName>,
    },
}

fn arrows(path: &[ServiceName]) -> String {
    path.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" → ")
}

/// Whether these services can be started in some order.
///
/// # Errors
/// [`GraphError`] names the first missing service, or the path of a cycle over `requires` and `after`.
pub fn check<'a>(
    services: impl IntoIterator<Item = (&'a ServiceName, &'a Policy)>,
) -> Result<(), GraphError> {
    let services: BTreeMap<&ServiceName, &Policy> = services.into_iter().collect();
    for (service, policy) in &services {
        for (list, names) in [("requires", &policy.requires), ("after", &policy.after)] {
            let is_there = |name: &ServiceName| services.keys().any(|service| name.covers(service));
            if let Some(missing) = names.iter().find(|name| !is_there(name)) {
                let (service, missing) = ((*service).clone(), missing.clone());
                return Err(GraphError::Missing { service, list, missing });
            }
        }
    }
    // Depth first. A frame is a service and how many of its predecessors have been looked at; the frames are
    // the path, on the heap: a chain may be long.
    let mut done: BTreeMap<&ServiceName, Visit> = BTreeMap::new();
    for root in services.keys() {
        let mut path: Vec<(&ServiceName, usize)> = vec![(root, 0)];
        while let Some((name, looked_at)) = path.last_mut() {
            let name = *name;
            let Some(policy) = services.get(name) else { break };
            if *looked_at == 0 && done.get(name) == Some(&Visit::Done) {
                path.pop();
                continue;
            }
            done.insert(name, Visit::OnPath);
            let named = policy.requires.iter().chain(&policy.after);
            let mut before = named.flat_map(|name| services.keys().filter(|other| name.covers(other)));
            let Some(before) = before.nth(*looked_at).copied() else {
                done.insert(name, Visit::Done);
                path.pop();
                continue;
            };
            *looked_at += 1;
            match done.get(before) {
                Some(Visit::Done) => {}
                None => path.push((before, 0)),
                Some(Visit::OnPath) => {
                    let from = path.iter().position(|(name, _)| *name == before).unwrap_or_default();
                    let cycle = path[from..].iter().map(|(name, _)| *name);
                    let path = cycle.chain([before]).cloned().collect();
                    return Err(GraphError::Cycle { path });
                }
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    OnPath,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn checked(edges: &[(&str, &[&str], &[&str])]) -> Result<(), String> {
        let names = |list: &[&str]| list.iter().map(|text| name(text)).collect();
        let services: Vec<_> = edges
            .iter()
            .map(|(service, requires, after)| {
                let policy = Policy { requires: names(requires), after: names(after), ..Policy::service() };
                (name(service), policy)
            })
            .collect();
        check(services.iter().map(|(name, policy)| (name, policy))).map_err(|err| err.to_string())
    }

    #[test]
    fn a_cycle_shows_its_path() {
        let cycle = checked(&[("a", &["b"], &[]), ("b", &[], &["c"]), ("c", &["a"], &[])]);
        assert_eq!(cycle.unwrap_err(), "these wait for each other: a → b → c → a");
        assert_eq!(checked(&[("a", &["a"], &[])]).unwrap_err(), "these wait for each other: a → a");
        let tail = checked(&[("a", &["x"], &[]), ("x", &["y"], &[]), ("y", &["x"], &[])]);
        assert_eq!(tail.unwrap_err(), "these wait for each other: x → y → x");
    }

    #[test]
    fn a_diamond_is_no_cycle() {
        let diamond: [(&str, &[&str], &[&str]); 4] =
            [("a", &["b", "c"], &[]), ("b", &["d"], &[]), ("c", &["d"], &["b"]), ("d", &[], &[])];
        assert_eq!(checked(&diamond), Ok(()));
    }

    #[test]
    fn a_missing_service_is_named_with_who_needs_it() {
        let missing = checked(&[("a", &[], &["b"])]);
        assert_eq!(missing.unwrap_err(), "`a` has after = [\"b\"], but there is no `b`");
    }
}
