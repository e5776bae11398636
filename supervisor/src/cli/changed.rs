//! What a verb that changes phases says when it is done.

use serde::Serialize;
use watchdog_query::Changed;

use super::console::{Console, Format};
use super::report::CliError;
use super::status;

pub(super) fn show(changed: &Changed, console: &Console) -> Result<(), CliError> {
    match (changed, console.format) {
        (Changed::Accepted(words), _) => done(words, console),
        (Changed::Status(status), Format::Json) => console.json(status),
        (Changed::Status(status), Format::Text) => {
            let lines = status.services.iter().map(|service| status::headline(service, &console.look) + "\n");
            console.print(&lines.collect::<String>())
        }
    }
}

/// Words alone, in JSON as `{"done": "…"}`.
pub(super) fn done(words: &str, console: &Console) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Done<'w> {
        done: &'w str,
    }
    match console.format {
        Format::Json => console.json(&Done { done: words }),
        Format::Text => console.print(&format!("{}\n", super::look::harmless(words))),
    }
}
