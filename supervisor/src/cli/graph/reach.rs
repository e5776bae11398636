//! Who may talk to whom, by the rules of both sides.

use watchdog_lifecycle::access::Pattern;
use watchdog_protocol::ServiceName;
use watchdog_protocol::graph::{Graph, GraphService};
use watchdog_protocol::status::ServiceKind;

/// Whom one service may talk to.
pub(super) struct Reach<'g> {
    pub(super) sender: &'g ServiceName,
    /// By name, itself left out.
    pub(super) receivers: Vec<&'g ServiceName>,
    /// Those are all that have an inbox, and more than one.
    pub(super) is_everybody: bool,
}

/// Of every service that has an inbox.
pub(super) fn of(graph: &Graph) -> Vec<Reach<'_>> {
    let services = graph.services.iter().filter(|service| service.kind == ServiceKind::Service);
    let ruled: Vec<_> = services.map(Ruled::of).collect();
    let reach = |from: &Ruled<'_>| {
        let others = ruled.iter().filter(|to| to.name != from.name);
        others
            .filter(|to| lets(&from.uses, to.name) && lets(&to.offers, from.name))
            .map(|to| to.name)
            .collect()
    };
    ruled
        .iter()
        .map(|from| {
            let receivers: Vec<_> = reach(from);
            let is_everybody = receivers.len() > 1 && receivers.len() + 1 == ruled.len();
            Reach { sender: from.name, receivers, is_everybody }
        })
        .collect()
}

struct Ruled<'g> {
    name: &'g ServiceName,
    uses: Vec<Pattern>,
    offers: Vec<Pattern>,
}

impl<'g> Ruled<'g> {
    fn of(service: &'g GraphService) -> Self {
        // What is no pattern lets nobody through.
        let read = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        Self { name: &service.name, uses: read(&service.uses), offers: read(&service.offers) }
    }
}

fn lets(rules: &[Pattern], name: &ServiceName) -> bool {
    rules.iter().any(|pattern| pattern.matches(name))
}
