//! `watchdog doctor`: what this machine and this place give, what they lack, what that means, and what to do.
//!
//! Looks, and changes nothing: what it makes to try something it takes away again. Works with and without a running
//! watchdog, and without a configuration.

mod finding;
mod limits;
mod machine;
mod place;

use watchdog_query::QueryError;

use self::finding::{Finding, Level};
use super::console::{Console, Format};
use super::look::{Look, Paint};
use super::report::CliError;

/// Find what this machine lacks, and what must be mended before the watchdog does what it promises.
///
/// One line for each thing: `ok`, `less` where something is done in a lesser way, `mend` where something is wrong.
/// Exit code 1 when something must be mended.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog doctor\n  watchdog doctor --json --config /etc/shop/watchdog.toml"
)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self {} = self;
        let mut findings = machine::examine();
        match console.place() {
            Ok(found) => {
                let answer = console.ask(async |query| query.status(&[]).await).await;
                findings.extend(place::examine(&found, answer));
            }
            Err(error) => findings.push(place::not_found(&error)),
        }
        match console.format {
            Format::Json => console.json(&findings)?,
            Format::Text => console.print(&text(&findings, &console.look))?,
        }
        match findings.iter().filter(|finding| finding.level == Level::Mend).count() {
            0 => Ok(()),
            things => Err(CliError::ToMend { things: things as u64 }),
        }
    }
}

/// Whether an answer says that no watchdog runs here.
fn is_absent(error: &CliError) -> bool {
    matches!(error, CliError::NoWatchdog { .. })
        || matches!(error, CliError::Unreachable { source: QueryError::NotReachable { .. }, .. })
}

fn text(findings: &[Finding], look: &Look) -> String {
    let line = |finding: &Finding| {
        let paint = match finding.level {
            Level::Ok => Paint::Good,
            Level::Less => Paint::Doubtful,
            Level::Mend => Paint::Bad,
        };
        let mut line =
            format!("{} {}: {}", look.paint(paint, finding.level.word()), finding.what, finding.found);
        if let Some(means) = &finding.means {
            line += &format!("; {means}");
        }
        if let Some(hint) = &finding.hint {
            line += &format!(" {} {hint}", look.paint(Paint::Strong, "→"));
        }
        line
    };
    findings.iter().map(|finding| line(finding) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_what_it_means_and_what_to_do() {
        let findings = [
            Finding::ok("kernel", "Linux 6.18"),
            Finding::less(
                "pressure",
                "no /proc/pressure",
                "a starved machine is not told from a hung service",
            )
            .hint("boot with psi=1"),
            Finding::mend("state folder", "mode 777", "anyone\ncan change it").hint("chmod 700 state"),
        ];
        let look = Look { color: false, width: None };
        insta::assert_snapshot!(text(&findings, &look));
        insta::assert_snapshot!(serde_json::to_string_pretty(&findings).unwrap());
    }
}
