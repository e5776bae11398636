//! `watchdog demo`: the sample services for real, killed under load, and their totals compared.
//!
//! ```text
//! samples ─► Stage: folder, `watchdog run` ─► play: one act after the other ─► Ledger ─► Figures
//!                 └─ ends all and removes the folder, however the play ends
//! ```
//! It does what an operator does, by the same calls, and waits for what it sees.

mod ledger;
mod stage;
mod story;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::Change;
use watchdog_protocol::status::{PhaseStatus, ServiceStatus, Status, VerdictStatus};
use watchdog_query::QueryError;

use self::ledger::Ledger;
use self::stage::{Seen, Stage};
use self::story::{Act, Figures};
use super::console::{Console, Format, written};
use super::look::{ColorChoice, Look};
use super::report::CliError;
use crate::processes::proc::Identity;

static COUNTER: LazyLock<ServiceName> = LazyLock::new(|| "counter".parse().expect("a service's name"));
static BUMPER: LazyLock<ServiceName> = LazyLock::new(|| "bumper".parse().expect("a service's name"));

/// The counter's step is changed to this.
const STEP: u32 = 10;

/// How many messages go through between two acts: each act meets a lane in use, and the whole stays under a minute.
const LOAD: u64 = 100;

/// For a service to give its verdict or to stop.
const WAIT: Duration = Duration::from_secs(10);

/// How long the last lines of the logs may take to be written once the lane is empty.
const LAST_LINES: Duration = Duration::from_secs(10);

/// Processes that the demo kills.
const BUMPER_DEATHS: u64 = 1;
const SERVICE_DEATHS: u64 = 2;

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
            console.print(&format!("{line}\n"))?;
        }
        let Figures { lost, duplicated, service_restarts, .. } = figures;
        let unasked = service_restarts.saturating_sub(SERVICE_DEATHS);
        match lost + duplicated + unasked {
            0 => Ok(()),
            _ => Err(DemoError::Broken { lost, duplicated, unasked }.into()),
        }
    }
}

/// All that is shown.
async fn play(stage: &mut Stage, narrator: &Narrator) -> Result<Figures, CliError> {
    narrator.say(&story::opening(stage.folder()))?;

    narrator.act(&story::start())?;
    let begin = Instant::now();
    let seen = stage.until("both services are ready", |seen| both_ready(&seen.status)).await?;
    narrator.sight(&story::started(begin.elapsed(), pid(seen.counter()), pid(seen.bumper())))?;
    let seen = under_load(stage, narrator, &seen).await?;

    narrator.act(&story::set(STEP))?;
    let begin = Instant::now();
    let change = Change { path: "step".into(), value: Some(STEP.to_string()) };
    let outcome = stage.query().set(&COUNTER, vec![change], Some(WAIT)).await;
    let outcome = outcome.map_err(|source| DemoError::Call { what: "set the step of `counter`", source })?;
    if outcome.verdict != VerdictStatus::Accepted {
        return Err(DemoError::Step { verdict: outcome.verdict }.into());
    }
    narrator.sight(&story::in_force(begin.elapsed(), outcome.revision.get()))?;
    let seen = under_load(stage, narrator, &seen).await?;

    let (died, again) = (seen.counter().incarnation, seen.redelivered());
    narrator.act(&story::kill_counter(pid(seen.counter())))?;
    let begin = kill(pid(seen.counter()));
    let seen = stage
        .until("the counter is ready again", |seen| {
            is_ready(&seen.status, &COUNTER) && seen.counter().incarnation > died
        })
        .await?;
    narrator.sight(&story::ready_again(begin.elapsed(), pid(seen.counter())))?;
    let sequence = seen.counter().state.as_ref().map_or(0, |state| state.sequence.get());
    let flowing = through(stage, &seen).await?;
    narrator.sight(&story::resumed(sequence, flowing.redelivered().saturating_sub(again)))?;
    say_counted(stage, narrator)?;

    let seen = flowing;
    let (core, starts) = (seen.status.watchdog.core_pid, starts(&seen.status));
    narrator.act(&story::kill_core(core))?;
    let begin = kill(core);
    let seen = stage.until("a new core is there", |seen| seen.status.watchdog.core_pid != core).await?;
    let took = begin.elapsed();
    let flowing = through(stage, &seen).await?;
    let restarts = self::starts(&flowing.status).saturating_sub(starts);
    narrator.sight(&story::core_again(took, seen.status.watchdog.core_pid, restarts))?;
    say_counted(stage, narrator)?;

    let seen = flowing;
    let died = seen.bumper().incarnation;
    narrator.act(&story::kill_bumper(pid(seen.bumper())))?;
    let begin = kill(pid(seen.bumper()));
    let seen = stage
        .until("the bumper is ready again", |seen| {
            is_ready(&seen.status, &BUMPER) && seen.bumper().incarnation > died
        })
        .await?;
    narrator.sight(&story::ready_again(begin.elapsed(), pid(seen.bumper())))?;
    under_load(stage, narrator, &seen).await?;

    narrator.act(&story::stop_bumper())?;
    let begin = Instant::now();
    let stopped = stage.query().stop(std::slice::from_ref(&*BUMPER), Some(WAIT)).await;
    stopped.map_err(|source| DemoError::Call { what: "stop `bumper`", source })?;
    let seen = stage.until("the lane is empty", |seen| seen.queued() == 0).await?;
    narrator.sight(&story::drained(begin.elapsed()))?;
    let balance = settled(stage.logs()).await?.balance(BUMPER_DEATHS);
    Ok(Figures {
        sent: balance.sent,
        handled: balance.handled,
        lost: balance.lost,
        duplicated: balance.duplicated,
        service_restarts: self::starts(&seen.status).saturating_sub(seen.status.services.len() as u64),
        core_restarts: seen.status.watchdog.cores.saturating_sub(1),
        longest_pause_ms: u64::try_from(balance.longest_pause.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Waits until the next messages went through, and both services are at work.
async fn through(stage: &mut Stage, since: &Seen) -> Result<Seen, DemoError> {
    let enough = since.handled() + LOAD;
    stage
        .until("more messages are counted", |seen| seen.handled() >= enough && both_ready(&seen.status))
        .await
}

async fn under_load(stage: &mut Stage, narrator: &Narrator, since: &Seen) -> Result<Seen, CliError> {
    let seen = through(stage, since).await?;
    say_counted(stage, narrator)?;
    Ok(seen)
}

/// By the counter's own lines: the lane's figure has the bumper's asks in it.
fn say_counted(stage: &Stage, narrator: &Narrator) -> Result<(), CliError> {
    let ledger = read(stage.logs())?;
    narrator.sight(&story::flowing(ledger.balance(BUMPER_DEATHS).handled))
}

fn read(logs: &Path) -> Result<Ledger, DemoError> {
    Ledger::read(logs).map_err(DemoError::file("read the logs in", logs))
}

/// The logs as they are when what was told is counted; what is missing after a while is lost.
async fn settled(logs: &Path) -> Result<Ledger, DemoError> {
    let begin = Instant::now();
    loop {
        let ledger = read(logs)?;
        let is_settled = ledger.balance(BUMPER_DEATHS).lost == 0;
        if is_settled || begin.elapsed() > LAST_LINES {
            return Ok(ledger);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// It is, and its process is known: a quick one says ready before the keeper has said who it is.
fn is_ready(status: &Status, service: &ServiceName) -> bool {
    let ready = |one: &ServiceStatus| one.phase == PhaseStatus::Ready && one.pid.is_some();
    status.services.iter().any(|one| one.name == *service && ready(one))
}

fn both_ready(status: &Status) -> bool {
    is_ready(status, &COUNTER) && is_ready(status, &BUMPER)
}

fn starts(status: &Status) -> u64 {
    status.services.iter().map(|service| service.starts).sum()
}

/// Of a service that was waited for by [`is_ready`].
fn pid(service: &ServiceStatus) -> u32 {
    service.pid.expect("it was waited for")
}

/// As from a shell: the watchdog is not told. Returns when.
fn kill(pid: u32) -> Instant {
    // One that ended by itself just now is waited for in vain, which is told.
    let _ = Identity::of(pid.cast_signed()).and_then(|process| process.signal(Signal::SIGKILL));
    Instant::now()
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

/// Tells the story: on standard output, or on standard error where that is for JSON.
struct Narrator {
    format: Format,
    look: Look,
}

impl Narrator {
    fn new(console: &Console) -> Self {
        let look = match console.format {
            Format::Text => console.look,
            Format::Json => Look::of_stderr(ColorChoice::Auto),
        };
        Self { format: console.format, look }
    }

    fn say(&self, text: &str) -> Result<(), CliError> {
        match self.format {
            Format::Text => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(written)
            }
            Format::Json => {
                // Nobody reads: nobody misses it.
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(())
            }
        }
    }

    fn act(&self, act: &Act) -> Result<(), CliError> {
        self.say(&story::act(act, &self.look))
    }

    fn sight(&self, seen: &str) -> Result<(), CliError> {
        self.say(&story::sight(seen, &self.look))
    }
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
