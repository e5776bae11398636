//! What went wrong, as an operator reads it.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use watchdog_protocol::ServiceName;
use watchdog_protocol::layout::{NoLayout, Unfit, UnfitProblem, Unreadable, Unsent};
use watchdog_protocol::manifest::ManifestError;
use watchdog_query::QueryError;

use super::demo::DemoError;
use super::exit::Exit;
use super::figures::count;
use super::look::{ColorChoice, Look, Paint, harmless, harmless_lines};
use crate::config::ConfigErrors;
use crate::config::manifest_of::DescribeError;
use crate::nearest::nearest;
use crate::run::RunError;
use crate::store::journal::JournalError;

/// Why a command did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Nobody listens for this configuration.
    #[error("no watchdog runs for {}", config.display())]
    NoWatchdog { config: PathBuf, named: bool },
    /// Its keeper lives, and no core listens.
    #[error("the watchdog of {} (keeper pid {pid}) does not answer; its services run on", config.display())]
    NoAnswer { config: PathBuf, pid: u32 },
    #[error("cannot reach the watchdog of {}", config.display())]
    Unreachable { config: PathBuf, source: QueryError },
    #[error(transparent)]
    Query(QueryError),
    /// The service took none of a settings change.
    #[error(
        "`{service}` refused revision {refused}: {reason}; revision {now} holds the values of before and is in force"
    )]
    SettingsRefused { service: ServiceName, refused: u64, reason: String, now: u64 },
    #[error("`{service}` has no setting `{key}`")]
    NoSetting { service: ServiceName, key: String, nearest: Option<String> },
    #[error("`{service}` is not configured and has printed nothing")]
    NoLog { service: ServiceName, nearest: Option<String> },
    /// No record of it.
    #[error("no record of the trace {id} is there, among those of {services} services")]
    NoTrace { id: String, services: usize },
    /// No message of it, or one that can't be written.
    #[error("nothing was sent, this is no message of `{service}`")]
    NoMessage { service: ServiceName, source: Unsent },
    /// An answer that is not what the service said it is.
    #[error("`{service}` answered `{name}`, and its answer can't be read")]
    NoSuchAnswer { service: ServiceName, name: String, source: Unreadable },
    /// Another service, or one of another release.
    #[error("`{service}` does not answer as a resource manager does")]
    NoManager { service: ServiceName, source: serde_json::Error },
    #[error("`{manager}` has not seen yet what `{service}` uses: that takes two looks")]
    NotSeen { service: ServiceName, manager: ServiceName },
    /// Of `check`.
    #[error("{} would break", count(*things, "thing"))]
    Breaks { things: u64 },
    #[error("another build of `{service}`: {error}")]
    NotDescribed { service: ServiceName, error: DescribeError },
    #[error("cannot read what is stored of `{service}`")]
    Stored { service: ServiceName, source: JournalError },
    #[error("{}", whose(program, services))]
    WhoseBuild { program: PathBuf, services: Vec<String> },
    #[error("`{service}` is no service of the configuration that is built on the SDK")]
    NoBuiltService { service: ServiceName, nearest: Option<ServiceName> },
    /// Of another release.
    #[error("what the service told the watchdog of itself can't be read")]
    Manifest(#[source] ManifestError),
    #[error("`{service}` is a plain program and has no inbox")]
    NoInbox { service: ServiceName },
    #[error("cannot {what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// It would be overwritten.
    #[error("{} is already there, and nothing was written", path.display())]
    Exists { path: PathBuf },
    #[error("`{command}` has no verb `{verb}`")]
    NoVerb { command: String, verb: String, nearest: Option<String> },
    /// It has one end.
    #[error("`{first}` and `{second}` can't both be read from standard input")]
    InputTwice { first: String, second: String },
    /// Of `top`.
    #[error("a live view can't be shown: {why}")]
    NoScreen { why: &'static str },
    #[error("a snapshot is bytes, and standard output is a terminal")]
    BytesToTerminal,
    /// The keeper was told to end, and has not.
    #[error("every service has ended, but the watchdog's keeper (pid {pid}) still runs after {seconds} s")]
    KeeperStays { pid: u32, seconds: u64 },
    /// Of `doctor`.
    #[error("{} to mend", count(*things, "thing"))]
    ToMend { things: u64 },
    /// Of `diff`, which has said what: an exit code, and no word more.
    #[error("something differs")]
    Differs,
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
    /// Whoever read standard output went away, as `head` does: it has what it wanted.
    #[error("nobody reads standard output")]
    ReaderGone,
}

impl CliError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::SettingsRefused { .. } => Exit::Configuration,
            Self::Run(RunError::Config(_)) => Exit::Configuration,
            Self::Run(RunError::Locked(_)) => Exit::AlreadyRunning,
            Self::Demo(_)
            | Self::Run(_)
            | Self::File { .. }
            | Self::Exists { .. }
            | Self::Io { .. }
            | Self::ToMend { .. }
            | Self::Differs
            | Self::NoSuchAnswer { .. }
            | Self::NoManager { .. }
            | Self::Manifest(_)
            | Self::Breaks { .. }
            | Self::NotDescribed { .. }
            | Self::Stored { .. }
            | Self::KeeperStays { .. } => Exit::Failed,
            Self::Unreachable { source: QueryError::NotReachable { source, .. }, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NotPermitted
            }
            Self::NoWatchdog { .. } | Self::NoAnswer { .. } | Self::Unreachable { .. } => Exit::NotReachable,
            Self::NoVerb { .. }
            | Self::NoSetting { .. }
            | Self::NoLog { .. }
            | Self::NoTrace { .. }
            | Self::NoInbox { .. }
            | Self::WhoseBuild { .. }
            | Self::NoBuiltService { .. }
            | Self::InputTwice { .. }
            | Self::NoScreen { .. }
            | Self::BytesToTerminal => Exit::Usage,
            Self::NoMessage { .. } => Exit::Data,
            Self::Query(QueryError::Refused(failure)) => failure.kind.into(),
            Self::NotSeen { .. } | Self::Query(QueryError::Closed { .. } | QueryError::Silent { .. }) => {
                Exit::TryAgain
            }
            Self::Query(_) => Exit::Failed,
            Self::ReaderGone => Exit::Ok,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoWatchdog { config, named: true } => {
                Some(format!("watchdog run --config {}", config.display()))
            }
            Self::NoWatchdog { named: false, .. } => Some("watchdog run".into()),
            Self::NoAnswer { .. } => Some("its core is being replaced: try again".into()),
            Self::Unreachable { source: QueryError::Version { .. }, .. } => {
                Some("use the `watchdog` command of the release that runs".into())
            }
            Self::Unreachable { .. } if self.exit() == Exit::NotPermitted => {
                Some("be the user that the watchdog runs as".into())
            }
            Self::Query(QueryError::Refused(failure)) => failure.hint.clone(),
            Self::Query(QueryError::Closed { .. } | QueryError::Silent { .. }) => {
                Some("whether it was done is not known: watchdog status".into())
            }
            Self::NoSetting { nearest: Some(near), .. } | Self::NoLog { nearest: Some(near), .. } => {
                Some(format!("did you mean `{near}`?"))
            }
            Self::NoTrace { services: 0, .. } => Some(
                "records are written by a logging service: [service.logging] in watchdog.toml".to_owned(),
            ),
            Self::NoTrace { .. } => Some(
                "not every trace is recorded: watchdog logs --spans --json has the ids of those that are"
                    .to_owned(),
            ),
            Self::NoMessage { service, source } => Some(match source {
                Unsent::NoLayout { source: NoLayout::Untold, .. } => {
                    format!("build it with this watchdog's SDK, then watchdog restart {service}")
                }
                Unsent::Unfit(Unfit { problem: UnfitProblem::Unknown { found, known, .. }, .. })
                    if let Some(near) = nearest(found, known) =>
                {
                    format!("did you mean `{near}`?")
                }
                Unsent::NoLayout { .. } | Unsent::Unfit(_) => {
                    format!("watchdog send {service} --schema shows what it takes")
                }
            }),
            Self::NoBuiltService { nearest: Some(near), .. } => Some(format!("did you mean `{near}`?")),
            Self::WhoseBuild { .. } => Some("name it: --service NAME".into()),
            Self::NoVerb { command, nearest: Some(near), .. } => {
                Some(format!("did you mean `{command} {near}`?"))
            }
            Self::NoVerb { command, nearest: None, .. } => Some(format!("{command} --help lists them")),
            Self::NoSetting { service, .. } => Some(format!("watchdog get {service}")),
            Self::Exists { .. } => Some("name another file, or overwrite it with --force".into()),
            Self::NoScreen { .. } => Some("watchdog top --once; watchdog usage --json".into()),
            Self::BytesToTerminal => Some("name a file: watchdog state export SERVICE FILE".into()),
            Self::Run(RunError::Locked(_)) => Some("watchdog status; watchdog shutdown".into()),
            Self::Demo(error) => error.hint(),
            Self::KeeperStays { .. } => Some("watchdog status shows what it waits for".into()),
            _ => None,
        }
    }

    /// Says it on standard error; what the process is to end with.
    pub(super) fn tell(&self, color: ColorChoice) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "{}", self.text(&Look::of_stderr(color)));
        self.exit().into()
    }

    /// The whole of it, over several lines: what, the causes, what to do.
    pub(super) fn text(&self, look: &Look) -> String {
        let error = look.paint(Paint::Bad, "error:");
        if let Self::Config(errors) | Self::Run(RunError::Config(errors)) = self {
            let lines = errors.iter().map(|wrong| format!("{error} {}", harmless_lines(&wrong.to_string())));
            return lines.collect::<Vec<_>>().join("\n");
        }
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text = format!("{error} {}", harmless_lines(&text));
        if let Some(hint) = self.hint() {
            text += &format!("\n  {} {}", look.paint(Paint::Strong, "hint:"), harmless(&hint));
        }
        text
    }
}

fn whose(program: &Path, services: &[String]) -> String {
    match services {
        [] => format!("no service runs a file of the name of {}", program.display()),
        services => format!("{} may be for {}", program.display(), services.join(", ")),
    }
}
