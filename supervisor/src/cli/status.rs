//! `watchdog status`.

mod one;

use watchdog_protocol::ServiceName;
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{
    GroupStatus, PhaseStatus, ServiceKind, ServiceStatus, Status, VerdictStatus, WantedStatus, WatchdogStatus,
};

use super::console::{Console, Format};
use super::figures::{count, size, span};
use super::look::{Look, Paint, harmless};
use super::report::CliError;
use super::table::{Align, Cell, Column, Rank, Table};

pub(super) use self::one::{detail, headline};

/// Show how services are: all in a table, one that is named in detail.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog status\n  watchdog status counter\n  watchdog status --json")]
pub(super) struct Arguments {
    /// Names of services, programs, tasks or groups; all when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let status = console.ask(async |query| query.status(&self.services).await).await?;
        if console.format == Format::Json {
            return console.json(&status);
        }
        match (&self.services[..], &status.services[..]) {
            ([_], [service]) => console.print(&detail(service, &console.look)),
            _ => console.print(&text(&status, &console.look)),
        }
    }
}

/// The watchdog's line, its notes, and a line a service.
pub(super) fn text(status: &Status, look: &Look) -> String {
    let mut text = of_watchdog(&status.watchdog, look);
    if status.services.is_empty() {
        text += "no service is registered; `watchdog register FILE` adds one\n";
        return text;
    }
    text += &table(&status.services).render(look);
    for group in &status.groups {
        text += &of_group(group, look);
    }
    text
}

fn of_group(group: &GroupStatus, look: &Look) -> String {
    let name = look.paint(Paint::Strong, group.name.as_str());
    let mut text = format!("group {name}: {} of {}", group.strategy, names(&group.members));
    if let Some(limit) = group.limit.filter(|_| group.failures > 0 && group.failed.is_none()) {
        let (failures, within) = (count(group.failures, "failure"), span(limit.within_ms));
        text += &format!("; {failures} within {within}, {} are borne", limit.failures);
    }
    if let Some(why) = &group.failed {
        text += &format!("; {}", look.paint(Paint::Bad, &harmless(why)));
    }
    text.push('\n');
    text
}

fn of_watchdog(watchdog: &WatchdogStatus, look: &Look) -> String {
    let cores = match watchdog.cores {
        0 | 1 => String::new(),
        cores => format!(", the {} since then", ordinal(cores)),
    };
    let mut text = format!(
        "{} up {}, keeper {}, core {}{cores}",
        look.paint(Paint::Strong, "watchdog"),
        span(watchdog.up_ms),
        watchdog.keeper_pid,
        watchdog.core_pid
    );
    if watchdog.stopping {
        text += &format!(", {}", look.paint(Paint::Doubtful, "shutting down"));
    }
    text.push('\n');
    for note in &watchdog.notes {
        text += &format!("{} {}\n", look.paint(Paint::Doubtful, "note:"), harmless(note));
    }
    text
}

fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn table(services: &[ServiceStatus]) -> Table {
    let left = |head, rank, cut| Column { head, align: Align::Left, rank: Rank(rank), cut };
    let right = |head, rank| Column { head, align: Align::Right, rank: Rank(rank), cut: None };
    let mut table = Table::new(vec![
        left("NAME", 0, None),
        left("PHASE", 0, Some(16)),
        right("SINCE", 0),
        right("UPTIME", 8),
        right("PID", 0),
        right("STARTS", 0),
        right("MEMORY", 2),
        right("CPU", 3),
        right("SETTINGS", 4),
        right("STATE", 5),
        right("HANDLES", 9),
        right("IN", 6),
        right("OUT", 6),
        left("LAST END", 7, Some(24)),
    ]);
    for service in services {
        // A plain program has no inbox: zeros would say that it might have one.
        let talks =
            |number: u64| Cell::maybe((service.kind == ServiceKind::Service).then(|| number.to_string()));
        table.row(vec![
            Cell::new(service.name.as_str()),
            Cell::painted(phase(service), paint(service)),
            Cell::new(span(service.phase_ms)),
            Cell::maybe(service.uptime_ms.map(span)),
            Cell::maybe(service.pid.map(|pid| pid.to_string())),
            Cell::new(service.starts.to_string()),
            Cell::maybe(service.memory.map(size)),
            Cell::maybe(service.cpu_ms.map(span)),
            Cell::maybe(settings(service)),
            Cell::maybe(state(service)),
            talks(service.handles),
            talks(service.messages_in),
            talks(service.messages_out),
            Cell::maybe(
                service.last_end.as_ref().map(|end| format!("{}, {} ago", end.why, span(end.ago_ms))),
            ),
        ]);
    }
    table
}

/// The phase and what makes it more than a word: progress, what it waits for, health.
fn phase(service: &ServiceStatus) -> String {
    let mut text = match service.phase {
        PhaseStatus::Ready if service.task => "running".to_owned(),
        phase => phase.as_str().to_owned(),
    };
    if service.wanted == WantedStatus::Down {
        text += ", wanted down";
    }
    if let Some(progress) = &service.progress {
        if let Some(fraction) = progress.fraction {
            text += &format!(" {:.0}%", fraction * 100.0);
        }
        if !progress.text.is_empty() {
            text += &format!(": {}", progress.text);
        }
    }
    if let Some(says) = &service.says {
        text += &format!(": {says}");
    }
    if let Some(next) = service.next_try_ms {
        text += &format!(", next in {}", span(next));
    }
    match &service.health {
        Health::Ok => {}
        Health::Degraded { reason } => text += &format!(", degraded: {reason}"),
        Health::Failing { reason } => text += &format!(", failing: {reason}"),
    }
    if !service.blocked_by.is_empty() {
        text += &format!(", blocked by {}", names(&service.blocked_by));
    }
    if service.frozen {
        text += ", frozen";
    }
    if service.drift {
        text += ", differs";
    }
    if !service.survivors.is_empty() {
        text += &format!(", can't kill {}", pids(&service.survivors));
    }
    text
}

pub(super) fn paint(service: &ServiceStatus) -> Paint {
    match (service.phase, &service.health) {
        (_, _) if !service.survivors.is_empty() => Paint::Bad,
        (PhaseStatus::Failed, _) => Paint::Bad,
        (_, _) if service.frozen => Paint::Doubtful,
        (PhaseStatus::Ready, Health::Ok) => Paint::Good,
        (PhaseStatus::Ready, Health::Failing { .. }) => Paint::Bad,
        (PhaseStatus::Ready, Health::Degraded { .. })
        | (PhaseStatus::Starting | PhaseStatus::Stopping | PhaseStatus::Backoff, _) => Paint::Doubtful,
        (PhaseStatus::Stopped | PhaseStatus::Completed, _) => Paint::Faint,
    }
}

fn settings(service: &ServiceStatus) -> Option<String> {
    let settings = service.settings.as_ref()?;
    Some(match settings.verdict {
        VerdictStatus::Accepted => settings.revision.to_string(),
        VerdictStatus::Pending => format!("{} pending", settings.revision),
        VerdictStatus::Refused => format!("{} refused", settings.revision),
    })
}

/// The age of what is on disk.
fn state(service: &ServiceStatus) -> Option<String> {
    let state = service.state.as_ref()?;
    match (&state.failed, state.age_ms) {
        (Some(_), _) => Some("unsaved".to_owned()),
        (None, age) => age.map(span),
    }
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

fn pids(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
