//! `watchdog set`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::control::Change;

use super::console::Console;
use super::report::CliError;
use super::verdict::{self, Terms};

/// Change settings of a service, all or none, and wait for its verdict.
///
/// The values are checked before anything changes, and outlive every restart. A service that is down takes them
/// when it starts.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog set counter step=10 filter.level=debug\n  watchdog set counter step=10 --if-revision 4"
)]
pub(super) struct Arguments {
    /// Whose; the name of all instances changes them one after the other.
    service: ServiceName,
    /// A path of the settings and its new value: JSON, or plain text where the setting is a text.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_change)]
    changes: Vec<Change>,
    #[command(flatten)]
    terms: Terms,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, changes, terms } = self;
        for service in verdict::whose(&service, console).await? {
            let changes = changes.clone();
            let ask = console
                .ask(async |query| query.set(&service, changes, terms.if_revision(), terms.wait()).await);
            verdict::show(&service, ask.await?, console)?;
        }
        Ok(())
    }
}

fn parse_change(text: &str) -> Result<Change, String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => {
            Ok(Change { path: path.to_owned(), value: Some(value.to_owned()) })
        }
        _ => Err(format!("{text:?} is no change; expected KEY=VALUE: step=10")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_split_at_its_first_equals_sign() {
        let change = parse_change("filter.level=a=b").unwrap();
        assert_eq!((&*change.path, change.value.as_deref()), ("filter.level", Some("a=b")));
        assert_eq!(parse_change("word=").unwrap().value.as_deref(), Some(""));
        assert!(parse_change("word").is_err() && parse_change("=1").is_err());
    }
}
