//! How long a verb waits for its effect.

use std::time::Duration;

use super::figures::parse_span;

/// Longer than a start and a stop may take unless configured, so that it ends with what became of them.
const USUAL: &str = "60s";

#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Wait for the effect, at most so long (500ms, 10s, 2m). It may come later, too: exit code 75.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_value = USUAL,
        default_missing_value = USUAL,
        value_parser = parse_span,
        conflicts_with = "no_wait"
    )]
    wait: Duration,
    /// Come back as soon as the request is accepted.
    #[arg(long)]
    no_wait: bool,
}

impl Wait {
    pub(super) fn time(&self) -> Option<Duration> {
        (!self.no_wait).then_some(self.wait)
    }
}
