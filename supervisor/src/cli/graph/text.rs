//! A graph as tables.

use watchdog_protocol::graph::{Graph, GraphService};
use watchdog_protocol::status::PhaseStatus;

use super::super::look::{Look, Paint};
use super::super::table::{Align, Cell, Column, Rank, Table};
use super::{View, reach};

pub(super) fn table(graph: &Graph, view: View, look: &Look) -> String {
    if graph.services.is_empty() {
        return "no service is configured\n".to_owned();
    }
    match view {
        View::Dependencies => dependencies(graph).render(look),
        View::Permissions => {
            let mut text = permissions(graph).render(look);
            if !graph.lanes.is_empty() {
                text.push('\n');
                text += &lanes(graph).render(look);
            }
            text
        }
    }
}

fn column(head: &'static str, align: Align) -> Column {
    Column { head, align, rank: Rank::MAIN, cut: None }
}

fn optional(head: &'static str) -> Column {
    Column { rank: Rank(1), ..column(head, Align::Left) }
}

fn dependencies(graph: &Graph) -> Table {
    let mut table = Table::new(vec![
        column("SERVICE", Align::Left),
        optional("PHASE"),
        column("REQUIRES", Align::Left),
        optional("AFTER"),
        optional("GROUP"),
    ]);
    for service in &graph.services {
        let group = graph.groups.iter().find(|group| group.members.contains(&service.name));
        table.row(vec![
            Cell::new(&service.name),
            phase(service),
            Cell::maybe(list(&service.requires)),
            Cell::maybe(list(&service.after)),
            Cell::maybe(group.map(|group| format!("{} ({})", group.name, group.strategy))),
        ]);
    }
    table
}

fn permissions(graph: &Graph) -> Table {
    let mut table = Table::new(vec![
        column("SERVICE", Align::Left),
        optional("PHASE"),
        column("MAY TALK TO", Align::Left),
        optional("MAY ASK THE WATCHDOG"),
    ]);
    for reach in reach::of(graph) {
        let Some(service) = graph.services.iter().find(|service| service.name == *reach.sender) else {
            continue;
        };
        let whom = if reach.is_everybody { Some("everybody".to_owned()) } else { list(&reach.receivers) };
        table.row(vec![
            Cell::new(reach.sender),
            phase(service),
            Cell::new(whom.unwrap_or_else(|| "nobody".to_owned())),
            Cell::maybe(list(&service.control)),
        ]);
    }
    table
}

fn lanes(graph: &Graph) -> Table {
    let mut table = Table::new(vec![
        column("FROM", Align::Left),
        column("TO", Align::Left),
        column("SENT", Align::Right),
        column("QUEUED", Align::Right),
        optional("NOTE"),
    ]);
    for lane in &graph.lanes {
        table.row(vec![
            Cell::new(&lane.sender),
            Cell::new(&lane.receiver),
            Cell::new(lane.sent.to_string()),
            Cell::new(lane.queued.to_string()),
            Cell::maybe(lane.is_retired.then_some("may send no more")),
        ]);
    }
    table
}

fn phase(service: &GraphService) -> Cell {
    let Some(phase) = service.phase else { return Cell::maybe(None::<&str>) };
    let paint = match phase {
        PhaseStatus::Failed => Paint::Bad,
        PhaseStatus::Ready => Paint::Good,
        PhaseStatus::Starting | PhaseStatus::Stopping | PhaseStatus::Backoff => Paint::Doubtful,
        PhaseStatus::Stopped | PhaseStatus::Completed => Paint::Faint,
    };
    Cell::painted(phase.as_str(), paint)
}

/// `None` when there is none.
fn list<T: std::fmt::Display>(names: &[T]) -> Option<String> {
    let names: Vec<_> = names.iter().map(T::to_string).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
