//! `watchdog resources history`.

use serde::Deserialize;
use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::LimitKey;
use watchdog_protocol::status::EventRecord;
use watchdog_query::QueryError;

use super::Manager;
use super::chart::{Point, chart};
use crate::cli::console::{Console, Format};
use crate::cli::events;
use crate::cli::figures::{count, size, span};
use crate::cli::look::{Look, Paint};
use crate::cli::report::CliError;

/// Entries of the event log in which moves are looked for.
const EVENTS: u64 = 2000;

/// Moves that are shown.
const MOVES: usize = 10;

/// A terminal without a width.
const WIDTH: usize = 80;

/// Show what a service used and was let have lately, and what was moved.
///
/// A column is a look of the resource manager at it, or several; its height is what was used, `╌` what it was let have at
/// the most. Below it, `F` is one that was frozen, `·` one that did not run. The last 120 looks, or with --long 120 pieces
/// of 30 looks each: two minutes and an hour with its default period of a second. The manager forgets them when it ends;
/// moves are in the event log.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog resources history counter --long\n\nWith --json the answer of the manager as it is."
)]
pub(super) struct Arguments {
    /// Whose.
    service: ServiceName,
    /// What is further back: averages of use, the least that was let have.
    #[arg(long)]
    long: bool,
    #[command(flatten)]
    manager: Manager,
}

/// What the manager answers.
#[derive(Debug, Deserialize)]
struct History {
    looks: Samples,
    pieces: Samples,
}

#[derive(Debug, Deserialize)]
struct Samples {
    every_ms: u64,
    samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    cpu: Option<u64>,
    cpu_most: Option<u64>,
    memory: Option<u64>,
    memory_most: Option<u64>,
    is_frozen: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        // Its name may be wrong, which the watchdog knows better than the manager.
        let there = [self.service.clone()];
        console.ask(async |query| query.limits(&there).await).await?;
        let message = serde_json::json!({ "History": { "service": self.service } }).to_string();
        let (json, history) = self.manager.ask::<Option<History>>(&message, console).await?;
        let Some(history) = history else {
            return Err(CliError::NotSeen { service: self.service, manager: self.manager.name });
        };
        if console.format == Format::Json {
            return console.json_text(&json);
        }
        let samples = if self.long { history.pieces } else { history.looks };
        let moves =
            console.ask(async |query| moves_of(query.events(0, EVENTS, false), &self.service).await).await?;
        console.print(&text(&self.service, &samples, &moves, &console.look))
    }
}

async fn moves_of(
    mut events: watchdog_query::Events<'_>,
    service: &ServiceName,
) -> Result<Vec<EventRecord>, QueryError> {
    let mut moves = Vec::new();
    while let Some(event) = events.next().await? {
        if event.service.as_ref() == Some(service) && matches!(&*event.what, "limit" | "frozen" | "thawed") {
            moves.push(event);
        }
    }
    Ok(moves)
}

fn text(service: &ServiceName, samples: &Samples, moves: &[EventRecord], look: &Look) -> String {
    let Samples { every_ms, samples } = samples;
    let each = format!("{}, {} each", count(samples.len() as u64, "look"), span(*every_ms));
    let mut text = format!("{}: {each}\n", look.paint(Paint::Strong, service.as_str()));
    let width = look.width.unwrap_or(WIDTH);
    let points = |used: fn(&Sample) -> Option<u64>, most: fn(&Sample) -> Option<u64>| -> Vec<Point> {
        let point =
            |sample: &Sample| Point { used: used(sample), most: most(sample), is_frozen: sample.is_frozen };
        samples.iter().map(point).collect()
    };
    let percent = |thousandths: u64| LimitKey::Cpu.show(thousandths);
    for (what, points, shown) in [
        (
            "cpu, of one processor",
            points(|one| one.cpu, |one| one.cpu_most),
            &percent as &dyn Fn(u64) -> String,
        ),
        ("memory", points(|one| one.memory, |one| one.memory_most), &size),
    ] {
        text += &format!("\n{what}: {}\n", now(&points, shown));
        if !points.is_empty() {
            text += &chart(&points, width, shown);
        }
    }
    if !moves.is_empty() {
        text += "\nmoves\n";
    }
    for event in &moves[moves.len().saturating_sub(MOVES)..] {
        text += &format!("{}\n", events::text(event, look));
    }
    text
}

fn now(points: &[Point], shown: &dyn Fn(u64) -> String) -> String {
    let Some(last) = points.last() else { return "not seen yet".to_owned() };
    let used = match last.used {
        _ if last.is_frozen => "frozen".to_owned(),
        Some(used) => format!("now {}", shown(used)),
        None => "does not run".to_owned(),
    };
    let most = last.most.map_or_else(|| "no limit".to_owned(), |most| format!("at the most {}", shown(most)));
    format!("{used}, {most}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let sample = |at: u64| Sample {
            cpu: (at < 70).then_some(if at < 30 { 2000 } else { 600 }),
            cpu_most: (at >= 30).then_some(625),
            memory: (at < 70).then_some((10 + at) << 20),
            memory_most: None,
            is_frozen: (50..60).contains(&at),
        };
        Samples { every_ms: 1000, samples: (0..72).map(sample).collect() }
    }

    #[test]
    fn what_was_used_is_drawn_below_what_was_let_have() {
        let moved = EventRecord {
            number: 7,
            at_us: 1_795_511_591_123_456,
            service: Some("hog".parse().unwrap()),
            incarnation: None,
            what: "limit".into(),
            cause: None,
            text: "limits changed: cpu none → 62.5%: node is short of processor time".into(),
            revision: None,
            sequence: None,
            evidence: None,
        };
        let service = "hog".parse().unwrap();
        let wide = Look { color: false, width: Some(100) };
        insta::assert_snapshot!(text(&service, &samples(), &[moved], &wide));
        let narrow = Look { color: false, width: Some(40) };
        insta::assert_snapshot!(text(&service, &samples(), &[], &narrow));
        let none = Samples { every_ms: 1000, samples: Vec::new() };
        insta::assert_snapshot!(text(&service, &none, &[], &narrow));
    }
}
