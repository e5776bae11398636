//! `watchdog demo`: the sample services for real, killed under load, and their totals compared.
//!
//! ```text
//! samples ─► Stage: folder, `watchdog run` ─► play: one act after the other ─► Ledger ─► Figures
//!                 └─ ends all and removes the folder, however the play ends
//! ```
//! It does what an operator does, by the same calls, and waits for what it sees.

mod ledger;
mod narrator;
mod play;
mod stage;
mod story;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tokio::signal::unix::{SignalKind, signal};
use watchdog_protocol::ServiceName;
use watchdog_protocol::status::VerdictStatus;
use watchdog_query::QueryError;

use self::narrator::Narrator;
use self::play::{SERVICE_DEATHS, play};
use self::stage::Stage;
use self::story::Figures;
use super::console::{Console, Format};
use super::report::CliError;

static COUNTER: LazyLock<ServiceName> = LazyLock::new(|| "counter".parse().expect("a service's name"));
static BUMPER: LazyLock<ServiceName> = LazyLock::new(|| "bumper".parse().expect("a service's name"));

/// Show what Watchdog does: two services, killed under load, and no message lost.
///
/// In a fresh folder, in under a minute. Exit code 1 when a message was lost or counted twice, or when a service
/// restarted that was not killed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog demo --keep\n\nWith --json the last line is one JSON object, on standard output alone."
)]
pub(super) struct Arguments {
    /// Leave the folder, to look at it and to run it again.
    #[arg(long)]
    keep: bool,
}

/// Why the demo shows nothing, or not what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("the sample service `{name}` is not beside this program: there is no {}", path.display())]
    NoSample { name: &'static str, path: PathBuf },
    #[error("cannot {what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the path {} can't be written in a configuration: it is no text", path.display())]
    Path { path: PathBuf },
    #[error("the demo's own configuration is wrong")]
    Place(#[source] Box<CliError>),
    #[error("the watchdog ended while the demo waited until {what}; it said:\n{said}")]
    Ended { what: &'static str, said: String },
    #[error("waited {seconds} s in vain until {what}")]
    Late { what: &'static str, seconds: u64, source: Option<QueryError> },
    #[error("cannot {what}")]
    Call { what: &'static str, source: QueryError },
    #[error("`counter` has not taken the new step: it is {verdict:?}")]
    Step { verdict: VerdictStatus },
    #[error("cannot become the parent of what loses its own")]
    Subreaper(#[source] io::Error),
    #[error("interrupted; all processes of the demo have ended")]
    Interrupted,
    #[error("processes of the demo still run: {pids:?}")]
    Left { pids: Vec<i32> },
    #[error(
        "not as promised: {lost} lost, {duplicated} counted twice, {unasked} restarts of services not killed"
    )]
    Broken { lost: u64, duplicated: u64, unasked: u64 },
}

impl DemoError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.to_owned(), source }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoSample { path, .. } => Some(build_command(path)),
            Self::Ended { .. }
            | Self::Late { .. }
            | Self::Call { .. }
            | Self::Step { .. }
            | Self::Broken { .. } => Some("watchdog demo --keep leaves its folder, with all logs".into()),
            _ => None,
        }
    }
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let program = std::env::current_exe()
            .map_err(|source| CliError::Io { what: "find the watchdog's own executable", source })?;
        let config = config(&sample(&program, "counter")?, &sample(&program, "bumper")?)?;
        let stop = Interrupts::new().map_err(|source| CliError::Io { what: "wait for signals", source })?;
        let narrator = Narrator::new(console);
        let mut stage = Stage::set(&program, &config, self.keep)?;
        let played = tokio::select! {
            played = play(&mut stage, &narrator) => played,
            () = stop.come() => Err(DemoError::Interrupted.into()),
        };
        let kept = self.keep.then(|| stage.folder().to_owned());
        let figures = match (played, stage.end()) {
            (Err(CliError::Demo(DemoError::Interrupted)), Err(left)) => return Err(left.into()),
            // What the play failed of says more than what its end did.
            (played, ended) => {
                let figures = played?;
                ended?;
                figures
            }
        };
        let typed = std::env::args_os().next().map_or_else(|| program.clone(), PathBuf::from);
        let again = if kept.is_some() { &program } else { &typed };
        narrator.say(&story::result(&figures, &narrator.look))?;
        narrator.say(&story::next(again, kept.as_deref(), &narrator.look))?;
        if console.format == Format::Json {
            let line = serde_json::to_string(&figures).expect("its keys are text");
            console.json_text(&line)?;
        }
        let Figures { lost, duplicated, service_restarts, .. } = figures;
        let unasked = service_restarts.saturating_sub(SERVICE_DEATHS);
        match lost + duplicated + unasked {
            0 => Ok(()),
            _ => Err(DemoError::Broken { lost, duplicated, unasked }.into()),
        }
    }
}

fn sample(program: &Path, name: &'static str) -> Result<PathBuf, DemoError> {
    let path = program.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(DemoError::NoSample { name, path }) }
}

/// In the checkout; a release build unless the program is another.
fn build_command(sample: &Path) -> String {
    let folder = sample.parent().and_then(Path::file_name);
    let profile = if folder.is_some_and(|folder| folder == "debug") { "" } else { "--release " };
    format!("in the checkout: cargo build {profile}-p counter -p bumper")
}

fn config(counter: &Path, bumper: &Path) -> Result<String, DemoError> {
    let quoted = |path: &Path| {
        // A JSON string is a TOML string.
        path.to_str().map(|text| serde_json::Value::from(text).to_string())
    };
    let text = |path: &Path| quoted(path).ok_or_else(|| DemoError::Path { path: path.to_owned() });
    Ok(format!(
        r#"# Made by `watchdog demo`.

[service.counter]
exec = [{counter}]
env = {{ WATCHDOG_LOG = "info,counter=debug" }}   # a line for each message counted

[service.counter.settings]
step = 1

[service.bumper]
exec = [{bumper}]
env = {{ WATCHDOG_LOG = "info,bumper=debug" }}    # a line for each message told
requires = ["counter"]

[service.bumper.settings]
rate = 100
"#,
        counter = text(counter)?,
        bumper = text(bumper)?,
    ))
}

/// What ends a command from its terminal. From here on they end the demo, not the process.
struct Interrupts([tokio::signal::unix::Signal; 3]);

impl Interrupts {
    fn new() -> io::Result<Self> {
        let [int, term, hup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([int?, term?, hup?]))
    }

    async fn come(mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_one_whatever_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("watchdog.toml");
        let odd = Path::new("/tmp/a \"quoted\" \\ folder/ü");
        std::fs::write(&file, config(&odd.join("counter"), &odd.join("bumper")).unwrap()).unwrap();
        let config = crate::config::load(&file).unwrap();
        let programs: Vec<_> = config.services.values().map(|spec| spec.launch.program.clone()).collect();
        assert_eq!(programs, [odd.join("bumper"), odd.join("counter")]);
    }

    #[test]
    fn a_missing_sample_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        for (profile, command) in [
            ("debug", "in the checkout: cargo build -p counter -p bumper"),
            ("release", "in the checkout: cargo build --release -p counter -p bumper"),
        ] {
            let error = sample(&folder.path().join(profile).join("watchdog"), "counter").unwrap_err();
            assert!(matches!(error, DemoError::NoSample { name: "counter", .. }));
            assert_eq!(error.hint().as_deref(), Some(command));
        }
    }
}
