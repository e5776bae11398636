//! What is shown, act by act: each does one thing, waits for what an operator would see, and tells it.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use watchdog_protocol::ServiceName;
use watchdog_protocol::control::Change;
use watchdog_protocol::status::{PhaseStatus, ServiceStatus, Status, VerdictStatus};

use super::ledger::Ledger;
use super::narrator::Narrator;
use super::stage::{Seen, Stage};
use super::story::{self, Figures};
use super::{BUMPER, COUNTER, DemoError};
use crate::cli::report::CliError;
use crate::processes::proc::Identity;

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
pub(super) const SERVICE_DEATHS: u64 = 2;

/// All that is shown.
pub(super) async fn play(stage: &mut Stage, narrator: &Narrator) -> Result<Figures, CliError> {
    narrator.say(&story::opening(stage.folder()))?;

    narrator.act(&story::start())?;
    let begin = Instant::now();
    let seen = stage.until("both services are ready", |seen| both_ready(&seen.status)).await?;
    narrator.sight(&story::started(begin.elapsed(), pid(seen.counter()), pid(seen.bumper())))?;
    let seen = under_load(stage, narrator, &seen).await?;

    narrator.act(&story::set(STEP))?;
    let begin = Instant::now();
    let change = Change { path: "step".into(), value: Some(STEP.to_string()) };
    let outcome = stage.query().set(&COUNTER, vec![change], None, Some(WAIT)).await;
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
