//! A graph as a Mermaid flowchart. Nodes go by numbers and every text is quoted, so that no name can be a word of the
//! grammar; what else could end a quoted text has a code.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use watchdog_protocol::ServiceName;
use watchdog_protocol::graph::{Graph, GraphService};
use watchdog_protocol::status::{PhaseStatus, ServiceKind};

use super::{View, reach};

pub(super) fn chart(graph: &Graph, view: View) -> String {
    let mut chart = Chart::of(graph);
    match view {
        View::Dependencies => chart.dependencies(),
        View::Permissions => chart.permissions(),
    }
    chart.text
}

struct Chart<'g> {
    graph: &'g Graph,
    nodes: BTreeMap<&'g ServiceName, usize>,
    text: String,
}

impl<'g> Chart<'g> {
    fn of(graph: &'g Graph) -> Self {
        let nodes = graph.services.iter().enumerate().map(|(at, service)| (&service.name, at)).collect();
        Self { graph, nodes, text: "flowchart LR\n".to_owned() }
    }

    fn line(&mut self, line: impl Display) {
        let _ = writeln!(self.text, "    {line}");
    }

    fn dependencies(&mut self) {
        let graph = self.graph;
        for (at, group) in graph.groups.iter().enumerate() {
            self.line(format_args!(
                "subgraph g{at}[{}]",
                quoted(&format!("{} ({})", group.name, group.strategy))
            ));
            for member in graph.services.iter().filter(|service| group.members.contains(&service.name)) {
                self.node(member);
            }
            self.line("end");
        }
        let grouped =
            |service: &GraphService| graph.groups.iter().any(|group| group.members.contains(&service.name));
        for service in graph.services.iter().filter(|service| !grouped(service)) {
            self.node(service);
        }
        for service in &graph.services {
            for (names, arrow) in [(&service.requires, "-->|requires|"), (&service.after, "-.->|after|")] {
                for name in names {
                    for other in graph.services.iter().filter(|other| name.covers(&other.name)) {
                        self.edge(&service.name, arrow, &other.name);
                    }
                }
            }
        }
    }

    fn permissions(&mut self) {
        let graph = self.graph;
        let talkers: Vec<_> =
            graph.services.iter().filter(|service| service.kind == ServiceKind::Service).collect();
        for service in &talkers {
            self.node(service);
        }
        for lane in &graph.lanes {
            let retired = if lane.is_retired { ", may send no more" } else { "" };
            let label = format!("{} sent, {} queued{retired}", lane.sent, lane.queued);
            self.edge(&lane.sender, &format!("==>|{}|", quoted(&label)), &lane.receiver);
        }
        let reaches = reach::of(graph);
        if reaches.iter().any(|reach| reach.is_everybody) {
            self.line("everybody([\"everybody\"])");
        }
        for reach in &reaches {
            let has_lane = |to: &ServiceName| {
                graph
                    .lanes
                    .iter()
                    .any(|lane| lane.sender == *reach.sender && lane.receiver == *to && !lane.is_retired)
            };
            if reach.is_everybody {
                let from = self.nodes[reach.sender];
                self.line(format_args!("s{from} -.-> everybody"));
            } else {
                for to in reach.receivers.iter().filter(|to| !has_lane(to)) {
                    self.edge(reach.sender, "-.->", to);
                }
            }
        }
        if talkers.iter().any(|service| !service.control.is_empty()) {
            self.line("watchdog{{\"watchdog\"}}");
        }
        for service in talkers.iter().filter(|service| !service.control.is_empty()) {
            let from = self.nodes[&service.name];
            self.line(format_args!("s{from} -->|{}| watchdog", quoted(&service.control.join(", "))));
        }
    }

    fn node(&mut self, service: &GraphService) {
        let at = self.nodes[&service.name];
        let label = match service.phase {
            Some(phase) => quoted(&format!("{}\n{}", service.name, phase.as_str())),
            None => quoted(service.name.as_str()),
        };
        let (open, close) = match (service.kind, service.task) {
            (_, true) => ("{{", "}}"),
            (ServiceKind::Service, false) => ("[", "]"),
            (ServiceKind::Program, false) => ("(", ")"),
        };
        self.line(format_args!("s{at}{open}{label}{close}"));
        if service.phase == Some(PhaseStatus::Failed) {
            self.line(format_args!("style s{at} stroke:#c00,stroke-width:3px"));
        }
    }

    /// Between two services that are there.
    fn edge(&mut self, from: &ServiceName, arrow: &str, to: &ServiceName) {
        if let (Some(from), Some(to)) = (self.nodes.get(from).copied(), self.nodes.get(to).copied()) {
            self.line(format_args!("s{from} {arrow} s{to}"));
        }
    }
}

/// A text of the chart.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for char in text.chars() {
        match char {
            '\n' => quoted += "<br/>",
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' => quoted += &format!("#{};", u32::from(char)),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}
