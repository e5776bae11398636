//! A configuration as `watchdog graph` draws it.

use watchdog_lifecycle::access::Pattern;
use watchdog_lifecycle::policy::{Kind, Policy, Work};
use watchdog_lifecycle::{GroupPolicy, access};
use watchdog_protocol::ServiceName;
use watchdog_protocol::graph::{Graph, GraphGroup, GraphService};
use watchdog_protocol::status::ServiceKind;

use super::grant::Grant;
use super::spec::Config;

/// All of a configuration, of which nothing runs.
pub fn drawn(config: &Config) -> Graph {
    let services =
        config.services.values().map(|spec| drawn_service(&spec.name, &spec.policy, &spec.control));
    let groups = config.groups.iter().map(|(name, policy)| drawn_group(name, policy));
    Graph { services: services.collect(), groups: groups.collect(), lanes: Vec::new() }
}

/// One service, of which nothing is known but what is configured.
pub fn drawn_service(name: &ServiceName, policy: &Policy, control: &[Grant]) -> GraphService {
    let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect();
    let access::Access { uses, offers } = &policy.access;
    GraphService {
        name: name.clone(),
        kind: match policy.kind {
            Kind::Service => ServiceKind::Service,
            Kind::Program => ServiceKind::Program,
        },
        task: policy.work == Work::Once,
        phase: None,
        requires: policy.requires.clone(),
        after: policy.after.clone(),
        uses: texts(uses),
        offers: texts(offers),
        control: control.iter().map(ToString::to_string).collect(),
    }
}

/// One group.
pub fn drawn_group(name: &ServiceName, policy: &GroupPolicy) -> GraphGroup {
    let (strategy, members) = (policy.strategy.as_str().to_owned(), policy.members.clone());
    GraphGroup { name: name.clone(), strategy, members }
}
