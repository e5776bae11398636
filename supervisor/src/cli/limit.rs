//! `watchdog limit`.

use std::time::Duration;

use watchdog_protocol::ServiceName;
use watchdog_protocol::resources::{LimitChange, LimitKey};

use super::console::{Console, Format};
use super::figures::parse_span;
use super::report::CliError;
use super::{limits, verdict};
use crate::nearest::nearest;

/// Longer than it takes to move a thousand processes.
const USUAL: &str = "60s";

/// What takes a limit away.
const NONE: &str = "none";

/// Limit what a service may use, from now on: all of its processes together, those to come too.
///
/// Limits hold across restarts of the service and of the watchdog, until they are taken away: KEY=none. What a limit
/// means on this machine, and which can't be had, is shown by `watchdog limits`.
///
/// Keys: cpu (of one processor: 50%, 150%), cpu_weight and io_weight (1 to 10000, 100 when nobody says), memory_high
/// and memory_max (64MiB, 2GiB), tasks_max (processes and threads), nofile (descriptors of each process).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog limit counter cpu=50% memory_max=1GiB --reason \"leaves room for the node\"\n  watchdog limit counter cpu=none"
)]
pub(super) struct Arguments {
    /// Whose; the name of all instances limits each of them.
    service: ServiceName,
    /// A limit and its new value, or `none`.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_change)]
    changes: Vec<LimitChange>,
    /// Why; it is in the event log and in the audit.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait until the limits are in force (500ms, 10s, 2m). They may be later, too: exit code 75.
    #[arg(long, value_name = "TIME", default_value = USUAL, value_parser = parse_span)]
    wait: Duration,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, changes, reason, wait } = self;
        for service in verdict::whose(&service, console).await? {
            let (changes, reason) = (changes.clone(), reason.clone());
            let ask =
                console.ask(async |query| query.limit(&service, changes.clone(), reason.clone(), wait).await);
            let view = ask.await?;
            match console.format {
                Format::Json => console.json(&view)?,
                Format::Text => console.print(&limits::of_each(&view, &console.look))?,
            }
        }
        Ok(())
    }
}

fn parse_change(text: &str) -> Result<LimitChange, String> {
    let keys = || LimitKey::ALL.map(LimitKey::as_str);
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("expected KEY=VALUE, KEY being one of {}", keys().join(", ")));
    };
    let Some(key) = LimitKey::ALL.into_iter().find(|key| key.as_str() == name) else {
        let text = format!("`{name}` can't be limited");
        return Err(match nearest(name, keys()) {
            Some(near) => format!("{text}; did you mean `{near}`?"),
            None => format!("{text}; what can: {}", keys().join(", ")),
        });
    };
    let value = match value {
        NONE => None,
        value => Some(key.parse(value).map_err(|bad| format!("{bad}, or `{NONE}`"))?),
    };
    Ok(LimitChange { key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_key_with_a_value_or_none() {
        let change = |key, value| Ok(LimitChange { key, value });
        assert_eq!(parse_change("cpu=50%"), change(LimitKey::Cpu, Some(500)));
        assert_eq!(parse_change("memory_max=none"), change(LimitKey::MemoryMax, None));
        for (text, part) in [
            ("cpu", "expected KEY=VALUE"),
            ("memory=1GiB", "`memory` can't be limited"),
            ("memory_mx=1GiB", "did you mean `memory_max`?"),
            ("cpu=50", "at least 1%, or `none`"),
            ("cpu=", "at least 1%, or `none`"),
        ] {
            let wrong = parse_change(text).unwrap_err();
            assert!(wrong.contains(part), "{wrong}");
        }
    }
}
