//! `watchdog graph`.

mod mermaid;
mod reach;
mod text;

use serde::Serialize;
use watchdog_protocol::ServiceName;
use watchdog_protocol::graph::Graph;

use super::console::{Console, Format};
use super::report::CliError;
use crate::config;

/// Draw how services hang together: who waits for whom, or who may talk to whom.
///
/// Of the running watchdog, with phases and lanes; while none runs, of the configuration alone.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog graph\n  watchdog graph --permissions\n  watchdog graph --permissions --mermaid > permissions.mmd"
)]
pub(super) struct Arguments {
    /// Who may talk to whom and who does, and what services may ask of the watchdog.
    #[arg(long)]
    permissions: bool,
    /// Print a Mermaid flowchart, as many renderers of Markdown draw it.
    #[arg(long, conflicts_with = "json")]
    mermaid: bool,
}

/// What of a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Dependencies,
    Permissions,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let graph = match console.ask(async |query| query.graph().await).await {
            Ok(graph) => graph,
            Err(CliError::NoWatchdog { config, .. }) => config::drawn(&config::load(&config)?),
            Err(error) => return Err(error),
        };
        let view = if self.permissions { View::Permissions } else { View::Dependencies };
        match (console.format, self.mermaid) {
            (Format::Json, _) => console.json(&InJson::of(&graph, view)),
            (Format::Text, true) => console.print(&mermaid::chart(&graph, view)),
            (Format::Text, false) => console.print(&text::table(&graph, view, &console.look)),
        }
    }
}

/// A graph, and what follows from its rules.
#[derive(Serialize)]
struct InJson<'g> {
    #[serde(flatten)]
    graph: &'g Graph,
    /// Of each service with an inbox, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    may_talk: Option<Vec<MayTalk<'g>>>,
}

#[derive(Serialize)]
struct MayTalk<'g> {
    sender: &'g ServiceName,
    receivers: Vec<&'g ServiceName>,
}

impl<'g> InJson<'g> {
    fn of(graph: &'g Graph, view: View) -> Self {
        let may_talk = (view == View::Permissions).then(|| {
            let reaches = reach::of(graph).into_iter();
            reaches.map(|reach| MayTalk { sender: reach.sender, receivers: reach.receivers }).collect()
        });
        Self { graph, may_talk }
    }
}

#[cfg(test)]
mod tests;
