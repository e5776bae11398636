//! `watchdog intercoms`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::status::{InboxStatus, LaneStatus};

use super::console::{Console, Format};
use super::figures::{count, rate, short, size, span};
use super::look::{Look, Paint, harmless};
use super::report::CliError;
use super::table::{Align, Cell, Column, Rank, Table};

/// Show the inboxes of services: who sends, what waits, and how long messages take.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog intercoms counter\n\nTimes are from accepted by `tell` or `ask` until handed to the handler, waiting included."
)]
pub(super) struct Arguments {
    /// Names of services; all when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let inboxes = console.ask(async |query| query.intercoms(&self.services).await).await?;
        match console.format {
            Format::Json => console.json(&inboxes),
            Format::Text => console.print(&text(&inboxes, &console.look)),
        }
    }
}

pub(super) fn text(inboxes: &[InboxStatus], look: &Look) -> String {
    if inboxes.is_empty() {
        return "no service has an inbox\n".to_owned();
    }
    inboxes.iter().map(|inbox| of_inbox(inbox, look)).collect::<Vec<_>>().join("\n")
}

fn of_inbox(inbox: &InboxStatus, look: &Look) -> String {
    let name = look.paint(Paint::Strong, inbox.service.as_str());
    let mut text =
        format!("{name}  {}, {}\n", count(inbox.handles, "handle"), count(inbox.lanes.len() as u64, "lane"));
    if inbox.lanes.is_empty() {
        return text;
    }
    let wide = table(&inbox.lanes).render(&Look { color: false, width: None });
    let needed = wide.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    // A lane has more numbers than a narrow terminal has room; none of them is left out.
    if look.width.is_none_or(|width| needed <= width) {
        text += &table(&inbox.lanes).render(look);
    } else {
        text.extend(inbox.lanes.iter().map(|lane| paragraph(lane, look)));
    }
    for lane in &inbox.lanes {
        if let Some(mismatch) = &lane.mismatch {
            let words = harmless(&format!("contract mismatch with {}: {mismatch}", lane.sender));
            text += &format!("  {}\n", look.paint(Paint::Bad, &words));
        }
        if lane.is_retired {
            let words =
                format!("{} may send no more on lane {}: what is queued is served", lane.sender, lane.lane);
            text += &format!("  {}\n", look.paint(Paint::Doubtful, &words));
        }
    }
    text
}

fn table(lanes: &[LaneStatus]) -> Table {
    let column = |head, align| Column { head, align, rank: Rank::MAIN, cut: None };
    let mut columns = vec![column("  FROM", Align::Left)];
    let heads = [
        "QUEUED",
        "USED",
        "HELD FOR",
        "HANDED OVER",
        "SENT",
        "HANDLED",
        "REDELIVERED",
        "RATE",
        "MEAN",
        "σ",
        "P50",
        "P99",
        "MAX",
    ];
    columns.extend(heads.map(|head| column(head, Align::Right)));
    let mut table = Table::new(columns);
    for lane in lanes {
        let time = &lane.propagation;
        let timed = |ns: f64| Cell::maybe((time.count > 0).then(|| short(ns)));
        table.row(vec![
            Cell::new(format!("  {}", lane.sender)),
            Cell::new(lane.queued.to_string()),
            Cell::new(room(lane)),
            Cell::maybe(lane.held_ms.map(span)),
            Cell::new(count(lane.handed_over, "time")),
            Cell::new(lane.sent.to_string()),
            Cell::new(lane.handled.to_string()),
            Cell::new(lane.redelivered.to_string()),
            Cell::new(rate(lane.rate)),
            timed(time.mean),
            timed(time.deviation),
            timed(time.p50 as f64),
            timed(time.p99 as f64),
            timed(time.max as f64),
        ]);
    }
    table
}

/// How much of it is used.
fn room(lane: &LaneStatus) -> String {
    format!("{} of {}", size(lane.used), size(lane.size))
}

fn paragraph(lane: &LaneStatus, look: &Look) -> String {
    let held = lane.held_ms.map(|ms| format!(", held by the watchdog for {}", span(ms))).unwrap_or_default();
    let time = &lane.propagation;
    let mut text = format!(
        "  from {}\n    {} queued{held}, handed over {}\n    {} sent, {} handled, {} redelivered, {}, {}\n",
        look.paint(Paint::Strong, lane.sender.as_str()),
        lane.queued,
        count(lane.handed_over, "time"),
        lane.sent,
        lane.handled,
        lane.redelivered,
        rate(lane.rate),
        room(lane),
    );
    if time.count > 0 {
        text += &format!(
            "    mean {}, σ {}, p50 {}, p99 {}, max {}\n",
            short(time.mean),
            short(time.deviation),
            short(time.p50 as f64),
            short(time.p99 as f64),
            short(time.max as f64),
        );
    }
    text
}
