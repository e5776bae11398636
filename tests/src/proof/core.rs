//! The proof that nobody but an operator's clock notices what becomes of the core: it is killed, or replaced by another
//! build, at any moment, while messages, settings and states are on their way.
//!
//! ```text
//! numberer ×3 ──► recorder     messages, past the core
//! operator ── set ──► counter  one change after the other; what was acknowledged is in force and in the history
//! saver: update, save          one state after the other; what `save` returned for is there after a kill -9
//!            core ◄── kill -9, or `watchdog upgrade` to the other of two files
//! ```
//! No service is started twice, no message is lost or out of order, revisions only grow.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use watchdog_protocol::control::{RevisionRecord, SetOutcome};

use super::{Broken, Traffic};
use crate::entry::sample;
use crate::proc::{self, Process};
use crate::puppet::{Manner, Order, Puppet, Shown as Answer, puppet};
use crate::until::until;
use crate::{Operator, Seen, TestWatchdog, binary};

/// What becomes of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Killed, at a moment drawn by the seed; each fourth one as soon as it is there.
    Killed,
    /// Replaced by another build.
    Upgraded,
}

/// How often, and beside how many messages.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What becomes of the core.
    pub fate: Fate,
    /// How often.
    pub times: usize,
    /// Messages between one time and the next.
    pub messages: u64,
    /// Draws the moments.
    pub seed: u64,
}

/// What a round showed.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Messages that arrived: all that were told.
    pub messages: u64,
    /// Settings changes that were acknowledged.
    pub revisions: u64,
    /// States whose save returned.
    pub saves: u64,
    /// The longest that a settings change took, which is what an operator notices.
    pub longest_set: Duration,
    /// What the upgrades said of their pauses.
    pub longest_pause: Duration,
    /// How long it took.
    pub took: Duration,
}

const SAVER: &str = "saver";
const COUNTER: &str = "counter";

/// Runs one round.
///
/// # Errors
/// What was not as promised.
pub fn core(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    let mut wd = TestWatchdog::idle();
    let traffic = Traffic::prepare(&wd, plan.messages * plan.times as u64);
    let mut entries = traffic.entries();
    entries.extend([puppet(SAVER, Manner::ByItself), sample(COUNTER).settings("step = 1")]);
    wd.configure("", &entries);
    wd.run_again();
    let before = wd.until("all are ready", Seen::all_ready);

    let over = AtomicBool::new(false);
    let (mut shown, sets, saves) = thread::scope(|threads| {
        let sets = threads.spawn(|| set(&wd.operator(), &over));
        let saves = threads.spawn(|| save(&wd.puppet(SAVER), &over));
        let shown = match plan.fate {
            Fate::Killed => kill(&wd, &traffic, plan),
            Fate::Upgraded => upgrade(&wd, &traffic, plan),
        };
        over.store(true, Ordering::Relaxed);
        (shown, sets.join(), saves.join())
    });
    let sets = sets.map_err(|_| Broken("the operator who sets gave up".to_owned()))??;
    let saves = saves.map_err(|_| Broken("the service that saves gave up".to_owned()))?;
    traffic.finish(&wd);

    let seen = wd.status();
    for service in &before.services {
        let now = seen.of(service.name.as_str());
        if (now.starts, now.pid) != (1, service.pid) {
            let events = wd.cli(&["events", "-n", "200"]).ok().stdout;
            return Err(Broken(format!("{} was started {} times\n{events}", service.name, now.starts)));
        }
    }
    check_settings(&wd, &sets)?;
    check_state(&wd, saves)?;
    shown.messages = traffic.check(&wd)?.arrived;
    shown.revisions = sets.len() as u64;
    shown.longest_set = sets.iter().map(|set| set.took).max().unwrap_or_default();
    shown.saves = saves;
    shown.took = begin.elapsed();
    Ok(shown)
}

/// One change that was acknowledged.
struct Set {
    revision: u64,
    step: u64,
    took: Duration,
}

/// One change after the other. Nobody else changes anything, so each is one revision later.
fn set(operator: &Operator, over: &AtomicBool) -> Result<Vec<Set>, Broken> {
    let mut done: Vec<Set> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        // From 2: the first change is one.
        let step = (done.len() as u64 + 1) % 1000 + 1;
        let begin = Instant::now();
        let said = operator.run(&["set", COUNTER, &format!("step={step}"), "--json"]);
        if said.code != 0 {
            return Err(Broken(format!("a change was not acknowledged: {said}")));
        }
        let revision = said.json::<SetOutcome>().revision.get();
        if let Some(last) = done.last().filter(|last| revision != last.revision + 1) {
            return Err(Broken(format!("revision {revision} came after {}", last.revision)));
        }
        done.push(Set { revision, step, took: begin.elapsed() });
    }
    Ok(done)
}

/// One state after the other; the number of the last one.
fn save(saver: &Puppet, over: &AtomicBool) -> u64 {
    let mut n = 0;
    while !over.load(Ordering::Relaxed) {
        n += 1;
        saver.does(Order::Update { text: n.to_string() });
        saver.does(Order::Save);
    }
    n
}

fn kill(wd: &TestWatchdog, traffic: &Traffic, plan: Plan) -> Shown {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut last = None;
    for time in 0..plan.times as u64 {
        // One that is killed before it serves is not to be the rule: five in a row lead to a core that does less.
        let core = if time % 4 == 3 { core_after(wd, last) } else { wd.core() };
        traffic.flows_to(time * plan.messages + random.u64(0..plan.messages));
        thread::sleep(Duration::from_micros(random.u64(0..2000)));
        core.signal(Signal::SIGKILL);
        last = Some(core);
    }
    wd.until("a core serves", |seen| last.is_none_or(|last| seen.watchdog.core_pid != last.pid));
    Shown::default()
}

/// The next core, as soon as it is there.
fn core_after(wd: &TestWatchdog, last: Option<Process>) -> Process {
    let is_it = |process: &Process| {
        Some(*process) != last
            && process.is_alive()
            && !proc::environment(process.pid).contains_key("WATCHDOG_SERVICE")
    };
    let keeper = wd.keeper_pid();
    until("the next core", String::new, || proc::children(keeper).into_iter().find(is_it))
}

fn upgrade(wd: &TestWatchdog, traffic: &Traffic, plan: Plan) -> Shown {
    let builds = ["build-1", "build-2"].map(|name| wd.path(name));
    for build in &builds {
        fs::copy(binary("watchdog"), build).expect("a copy");
    }
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut shown = Shown::default();
    for time in 0..plan.times {
        traffic.flows_to(time as u64 * plan.messages + random.u64(0..plan.messages));
        let build = builds[time % 2].to_str().expect("a path of ours");
        let said = wd.cli(&["upgrade", "--binary", build]).ok();
        let words = said.stdout.split_once("control paused for ").map_or("", |(_, words)| words);
        let pause = words.split(' ').next().and_then(|ms| ms.parse().ok());
        let pause = Duration::from_millis(pause.unwrap_or_else(|| panic!("no pause is told: {said}")));
        shown.longest_pause = shown.longest_pause.max(pause);
    }
    shown
}

/// What was acknowledged last is in force, and all that the history still holds is in it.
fn check_settings(wd: &TestWatchdog, sets: &[Set]) -> Result<(), Broken> {
    let Some(last) = sets.last() else { return Err(Broken("nothing was set".to_owned())) };
    let inside = wd.cli(&["get", COUNTER, "step"]).ok().stdout;
    if inside.trim() != last.step.to_string() {
        return Err(Broken(format!("step is {} and was set to {}", inside.trim(), last.step)));
    }
    let history: Vec<RevisionRecord> = wd.cli(&["history", COUNTER, "--json"]).ok().json();
    let newest = history.last().map_or(0, |record| record.revision.get());
    if newest != last.revision {
        return Err(Broken(format!(
            "revision {newest} is the newest, {} was acknowledged last",
            last.revision
        )));
    }
    for record in &history {
        let Some(set) = sets.iter().find(|set| set.revision == record.revision.get()) else { continue };
        let after =
            record.changes.iter().find(|change| change.path == "step").and_then(|it| it.after.clone());
        if after.as_deref() != Some(&*set.step.to_string()) {
            return Err(Broken(format!("revision {} holds {after:?} and not {}", set.revision, set.step)));
        }
    }
    Ok(())
}

/// The newest state is there after a death without warning.
fn check_state(wd: &TestWatchdog, saves: u64) -> Result<(), Broken> {
    let killed = wd.kill(SAVER, Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of(SAVER).is_ready_after(killed));
    match wd.puppet(SAVER).order(Order::State) {
        Answer::Text(text) if text == saves.to_string() => Ok(()),
        other => Err(Broken(format!("the state is {other:?}, and {saves} was saved"))),
    }
}
