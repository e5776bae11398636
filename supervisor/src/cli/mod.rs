//! The command line: one file per verb, which parses, asks and prints.
//!
//! ```text
//! argv ─► Arguments ─► verb ─► WatchdogQuery ─► control socket
//!                       └─► text or JSON on standard output; errors, hints and progress on standard error
//! ```
//! Nothing is decided here: a verb is one call and its words. `run` and `check` work without a watchdog, `logs`
//! reads the files. No text of a service reaches a terminal with control characters in it.

mod audit;
mod bundle;
mod changed;
mod check;
mod completions;
mod console;
mod dead;
mod demo;
mod diff;
mod doctor;
mod events;
mod exit;
mod figures;
mod freeze;
mod get;
mod given;
mod graph;
mod history;
mod intercoms;
mod kill;
mod limit;
mod limits;
mod logs;
mod look;
mod place;
mod record;
mod register;
mod reload;
mod report;
mod resources;
mod rollback;
mod run;
mod scale;
mod send;
mod set;
mod shutdown;
mod state;
mod status;
mod table;
mod top;
mod trace;
mod unregister;
mod unset;
mod upgrade;
mod usage;
mod verdict;
mod wait;
mod why;
mod wish;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::console::{Console, Format};
pub use self::exit::Exit;
use self::freeze::Still;
use self::look::ColorChoice;
use self::report::CliError;
pub(crate) use self::run::keep;
use self::wish::Wish;
use crate::nearest::nearest;

/// Keeps services alive, each its own process, with their settings, state and messages.
#[derive(Debug, Parser)]
#[command(
    name = "watchdog",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Global {
    /// The configuration file; else watchdog.toml here or in a folder above.
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// When to use colour. `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Arguments),
    Check(check::Arguments),
    Diff(diff::Arguments),
    Reload(reload::Arguments),
    Register(register::Arguments),
    Unregister(unregister::Arguments),
    /// Want services up, and wait until they are ready.
    #[command(after_help = "Example:\n  watchdog start counter --wait=2m")]
    Start(wish::Arguments),
    /// Want services down, with time to save, and wait until they are.
    #[command(after_help = "Example:\n  watchdog stop bumper counter")]
    Stop(wish::Arguments),
    /// Stop services and start them again.
    #[command(after_help = "Example:\n  watchdog restart counter")]
    Restart(wish::Arguments),
    Kill(kill::Arguments),
    /// Clear a failure and start again what is wanted up; the state is kept.
    #[command(after_help = "Example:\n  watchdog reset counter")]
    Reset(wish::Arguments),
    Scale(scale::Arguments),
    Limit(limit::Arguments),
    Limits(limits::Arguments),
    /// Let all processes of services stand still where they are, until `thaw`.
    ///
    /// A stop, a kill and a restart thaw first. The next process of the service runs. While it is frozen a service is
    /// not called hung.
    #[command(after_help = "Example:\n  watchdog freeze counter --reason \"the node catches up\"")]
    Freeze(freeze::Arguments),
    /// Let frozen services go on.
    #[command(after_help = "Example:\n  watchdog thaw counter")]
    Thaw(freeze::Arguments),
    Set(set::Arguments),
    Get(get::Arguments),
    Unset(unset::Arguments),
    History(history::Arguments),
    Rollback(rollback::Arguments),
    State(state::Arguments),
    Logs(logs::Arguments),
    Trace(trace::Arguments),
    Status(status::Arguments),
    Usage(usage::Arguments),
    Resources(resources::Arguments),
    Top(top::Arguments),
    Why(why::Arguments),
    Bundle(bundle::Arguments),
    Events(events::Arguments),
    Audit(audit::Arguments),
    Intercoms(intercoms::Arguments),
    Graph(graph::Arguments),
    Send(send::Arguments),
    Dead(dead::Arguments),
    Upgrade(upgrade::Arguments),
    Shutdown(shutdown::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Demo(demo::Arguments),
}

/// Does what the command line says, and says on standard error what went wrong.
pub fn main() -> ExitCode {
    execute(std::env::args_os())
}

fn execute(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed =
        command().try_get_matches_from(arguments).and_then(|found| Arguments::from_arg_matches(&found));
    let Arguments { global, verb } = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            if let Some(error) = unknown_verb(&error) {
                return error.tell(ColorChoice::Auto);
            }
            // Help and version go to standard output; a reader that went away is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let format = if global.json { Format::Json } else { Format::Text };
    let console = Console::new(global.config, format, global.color);
    match verb.execute(&console) {
        Ok(code) => code,
        Err(CliError::ReaderGone) => Exit::Ok.into(),
        Err(CliError::Differs) => Exit::Failed.into(),
        Err(error) => error.tell(global.color),
    }
}

/// A verb that is none, with the one that was meant: of a typing error clap names all that look a bit like it.
fn unknown_verb(error: &clap::Error) -> Option<CliError> {
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    // `Usage: watchdog state [OPTIONS] <COMMAND>`: the only place where clap says whose verb it was to be.
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return None };
    let usage = usage.to_string();
    let words = usage.split_whitespace().skip_while(|word| *word != "watchdog").skip(1);
    let within: Vec<&str> = words.take_while(|word| !word.starts_with(['[', '<'])).collect();
    let root = command();
    let command = within.iter().try_fold(&root, |command, word| command.find_subcommand(word))?;
    let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let nearest = nearest(verb, known).map(str::to_owned);
    let command = std::iter::once("watchdog").chain(within).collect::<Vec<_>>().join(" ");
    Some(CliError::NoVerb { command, verb: verb.clone(), nearest })
}

fn command() -> clap::Command {
    Arguments::command().after_help(Exit::help())
}

impl Verb {
    fn execute(self, console: &Console) -> Result<ExitCode, CliError> {
        if let Self::Run(arguments) = self {
            return arguments.execute(console).map(|never| match never {});
        }
        let done = async {
            match self {
                Self::Run(_) => unreachable!("it has no runtime: its process becomes the keeper"),
                Self::Check(arguments) => arguments.execute(console).await,
                Self::Diff(arguments) => arguments.execute(console).await,
                Self::Reload(arguments) => arguments.execute(console).await,
                Self::Register(arguments) => arguments.execute(console).await,
                Self::Unregister(arguments) => arguments.execute(console).await,
                Self::Start(arguments) => arguments.execute(Wish::Start, console).await,
                Self::Stop(arguments) => arguments.execute(Wish::Stop, console).await,
                Self::Restart(arguments) => arguments.execute(Wish::Restart, console).await,
                Self::Kill(arguments) => arguments.execute(console).await,
                Self::Reset(arguments) => arguments.execute(Wish::Reset, console).await,
                Self::Scale(arguments) => arguments.execute(console).await,
                Self::Limit(arguments) => arguments.execute(console).await,
                Self::Limits(arguments) => arguments.execute(console).await,
                Self::Freeze(arguments) => arguments.execute(Still::Freeze, console).await,
                Self::Thaw(arguments) => arguments.execute(Still::Thaw, console).await,
                Self::Set(arguments) => arguments.execute(console).await,
                Self::Get(arguments) => arguments.execute(console).await,
                Self::Unset(arguments) => arguments.execute(console).await,
                Self::History(arguments) => arguments.execute(console).await,
                Self::Rollback(arguments) => arguments.execute(console).await,
                Self::State(arguments) => arguments.execute(console).await,
                Self::Logs(arguments) => arguments.execute(console).await,
                Self::Trace(arguments) => arguments.execute(console),
                Self::Status(arguments) => arguments.execute(console).await,
                Self::Usage(arguments) => arguments.execute(console).await,
                Self::Resources(arguments) => arguments.execute(console).await,
                Self::Top(arguments) => arguments.execute(console).await,
                Self::Why(arguments) => arguments.execute(console).await,
                Self::Bundle(arguments) => arguments.execute(console).await,
                Self::Audit(arguments) => arguments.execute(console).await,
                Self::Events(arguments) => arguments.execute(console).await,
                Self::Intercoms(arguments) => arguments.execute(console).await,
                Self::Graph(arguments) => arguments.execute(console).await,
                Self::Send(arguments) => arguments.execute(console).await,
                Self::Dead(arguments) => arguments.execute(console).await,
                Self::Upgrade(arguments) => arguments.execute(console).await,
                Self::Shutdown(arguments) => arguments.execute(console).await,
                Self::Doctor(arguments) => arguments.execute(console).await,
                Self::Completions(arguments) => arguments.execute(console).await,
                Self::Demo(arguments) => arguments.execute(console).await,
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| CliError::Io { what: "start", source })?;
        runtime.block_on(done).map(|()| Exit::Ok.into())
    }
}
