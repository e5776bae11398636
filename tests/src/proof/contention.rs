//! The proof that no service starves one that matters more: real hogs, on real processors and in memory that runs out,
//! with the resource manager and without it.
//!
//! ```text
//!  within a cgroup with 512 MiB, once as root and once as `nobody`, who has no cgroups to limit anybody with:
//!
//!  caller ─► answerer      critical: how long its calls take in quiet, beside hogs, and beside hogs that are managed
//!  hog-1 … hog-4           batch: stress-ng on a processor each
//!  worker                  critical: wants more processors than there are; hogs give, and get it back
//!
//!  cache                   critical: holds a part of the memory
//!  eater                   batch, may be stopped: takes 20 MiB a second, and never gives any back
//!  node                    critical: comes when the eater is frozen, and needs what is left, and more
//! ```
//! What is compared was measured in turns within one run. The hogs are let go within ten seconds of calm; the eater is
//! squeezed, frozen, stopped, and the kernel has ended nobody.

pub mod ground;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use watchdog_protocol::resources::{LimitKey, LimitsView, Support};
use watchdog_protocol::session::Health;
use watchdog_protocol::status::{EventRecord, PhaseStatus};
use watchdog_protocol::usage::Usage;

use super::Broken;
use super::restart::noted;
use crate::entry::{Entry, probe, program, sample};
use crate::{Seen, TestWatchdog};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often each side has its turn.
    pub turns: usize,
    /// How long a turn is.
    pub turn: Duration,
    /// Calls a second.
    pub rate: u32,
    /// Those that want a processor each.
    pub hogs: usize,
}

/// What a round showed.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What limits were made of.
    pub back_end: String,
    /// What one call in a hundred took, or longer: nobody else was there.
    pub quiet: Duration,
    /// The hogs were there, and the resource manager was not.
    pub unmanaged: Duration,
    /// The same of a second watchdog with a resource manager, in quiet.
    pub managed_quiet: Duration,
    /// Both were there.
    pub managed: Duration,
    /// From the end of what was short until all hogs had again what they had before.
    pub given_back: Duration,
    /// What became of the hogs meanwhile.
    pub taken: Taken,
    /// What became of the eater, in order.
    pub eater: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// How far hogs were pushed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Limits of processor time were changed so often.
    pub limited: usize,
    /// Hogs were frozen so often.
    pub frozen: usize,
}

/// How much longer a call in a hundred may take beside hogs than in quiet.
const SLOWER: f64 = 2.0;

/// How long after the end of a shortage everything is given back.
const CALM: Duration = Duration::from_secs(10);

/// A machine with more memory is not used up here.
const SMALL: u64 = 2 << 30;

/// What a critical service weighs.
const HEAVY: u64 = 1600;

const MANAGER: &str = "resource-manager";

impl Shown {
    /// How many times as long a call in a hundred takes beside hogs that are managed.
    pub fn ratio(&self) -> f64 {
        times_as_long(self.managed, self.managed_quiet)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            out,
            "back_end={} quiet_p99_ms={:.2} unmanaged_p99_ms={:.2} unmanaged_ratio={:.1} managed_quiet_p99_ms={:.2} \
             managed_p99_ms={:.2} managed_ratio={:.2} hogs_limited={} hogs_frozen={} given_back_s={:.1} eater={} \
             killed_by_kernel=0 seconds={:.0}",
            self.back_end,
            ms(self.quiet),
            ms(self.unmanaged),
            times_as_long(self.unmanaged, self.quiet),
            ms(self.managed_quiet),
            ms(self.managed),
            self.ratio(),
            self.taken.limited,
            self.taken.frozen,
            self.given_back.as_secs_f64(),
            self.eater.join("+"),
            self.took.as_secs_f64(),
        )
    }
}

fn times_as_long(time: Duration, than: Duration) -> f64 {
    time.as_secs_f64() / than.as_secs_f64()
}

/// Runs one round as whoever calls this, in the memory there is.
///
/// # Errors
/// What was not as promised.
pub fn here(plan: Plan) -> Result<Shown, Broken> {
    let begin = Instant::now();
    let (quiet, unmanaged) = unmanaged(plan)?;
    let managed = managed(plan)?;
    let eater = of_memory()?;
    let shown = Shown {
        back_end: managed.back_end,
        quiet,
        unmanaged,
        managed_quiet: managed.quiet,
        managed: managed.beside,
        given_back: managed.given_back,
        taken: managed.taken,
        eater,
        took: begin.elapsed(),
    };
    if shown.ratio() > SLOWER {
        return Err(Broken(format!("beside hogs calls take more than {SLOWER} times as long: {shown}")));
    }
    if shown.given_back > CALM {
        return Err(Broken(format!("what was taken is given back after more than {CALM:?}: {shown}")));
    }
    Ok(shown)
}

fn unmanaged(plan: Plan) -> Result<(Duration, Duration), Broken> {
    let wd = on_processors(plan, None);
    Traffic { wd: &wd, plan }.in_turns()
}

struct Managed {
    back_end: String,
    quiet: Duration,
    beside: Duration,
    given_back: Duration,
    taken: Taken,
}

fn managed(plan: Plan) -> Result<Managed, Broken> {
    let batch: Vec<String> = hogs(plan).map(|hog| format!("{hog} = {{ class = \"batch\" }}")).collect();
    let critical =
        ["answerer", "caller", "worker"].map(|name| format!("{name} = {{ class = \"critical\" }}"));
    let wd = on_processors(plan, Some(manager(&[&critical[..], &batch[..]].concat())));
    let traffic = Traffic { wd: &wd, plan };
    let view: LimitsView = wd.cli(&["limits", "--json"]).ok().json();
    let weighs = !matches!(view.support.get(&LimitKey::CpuWeight), Some(Support::Refused(_)));
    let all_weigh = |weight: u64| {
        let view: LimitsView = wd.cli(&["limits", "--json"]).ok().json();
        let mut hogs = view.services.iter().filter(|limits| limits.service.as_str().starts_with("hog-"));
        let expected = if weighs { format!("cpu_weight={weight}") } else { String::new() };
        hogs.all(|hog| hog.limits.to_string() == expected && !hog.is_frozen).then_some(())
    };
    wd.until_some("hogs weigh what they are worth", || all_weigh(6));
    let (quiet, beside) = traffic.in_turns()?;

    // Now somebody who matters wants all there is, and more; and hogs weigh as much as it does, until something is moved.
    let heavy: Vec<String> = hogs(plan).map(|hog| format!("services.{hog}.cpu_weight={HEAVY}")).collect();
    wd.cli(&[&["set".to_owned(), MANAGER.to_owned()][..], &heavy].concat()).ok();
    wd.until_some("hogs weigh a lot", || all_weigh(HEAVY));
    let before = last(&wd);
    traffic.say("start", hogs(plan));
    wd.cli(&["start", "worker"]).ok();
    let of_hogs = |event: &EventRecord| {
        event.number > before && event.service.as_ref().is_some_and(|name| name.as_str().starts_with("hog-"))
    };
    wd.until_event("a hog gives", |event| of_hogs(event) && event.text.contains("worker is short"));
    // Let it take all it takes.
    thread::sleep(plan.turn);
    wd.cli(&["stop", "worker"]).ok();
    let calm = Instant::now();
    wd.until_some("hogs have again what they had", || all_weigh(HEAVY));
    let given_back = calm.elapsed();
    let events: Vec<_> = wd.events().into_iter().filter(of_hogs).collect();
    let count = |what: &str| {
        events.iter().filter(|event| event.what == what && event.text.contains("is short of")).count()
    };
    let taken = Taken { limited: count("limit"), frozen: count("frozen") };
    Ok(Managed { back_end: view.back_end, quiet, beside, given_back, taken })
}

/// Squeezed, frozen, stopped: what became of the eater.
fn of_memory() -> Result<Vec<String>, Broken> {
    let services = [
        "cache = { class = \"critical\" }",
        "node = { class = \"critical\" }",
        "eater = { class = \"batch\", may_stop = true }",
    ];
    let grows = |pieces: &str, size: &str| {
        format!("(for n in {pieces}; do head -c {size} /dev/zero; sleep 0.05; done; sleep 1000000) | tail")
    };
    let entries = [
        manager(&services.map(str::to_owned)),
        stress("cache", &["--vm", "1", "--vm-bytes", "128M", "--vm-keep", "--vm-hang", "0"]),
        program("node", &["sh", "-c", &grows("$(seq 640)", "256K")]),
        program("eater", &["sh", "-c", &grows("$(seq 100000)", "1M")]),
    ];
    let wd = TestWatchdog::run(&entries);
    wd.cli(&["stop", "node"]).ok();
    let usage: serde_json::Value = wd.cli(&["usage", "--json", "--interval", "100ms"]).ok().json();
    let usage: Usage = serde_json::from_value(usage["usage"].clone()).expect("a reading");
    if usage.machine.memory.is_none_or(|memory| memory > SMALL) {
        let text =
            "there is too much memory to be used up here: run it within a cgroup that has less than 2 GiB";
        return Err(Broken(text.to_owned()));
    }
    wd.until("the eater is frozen", |seen| seen.of("eater").frozen);
    wd.cli(&["start", "node"]).ok();
    wd.until("the eater is stopped", |seen| seen.of("eater").is(PhaseStatus::Stopped));
    let seen = wd.status();
    let (cache, node, eater) = (seen.of("cache"), seen.of("node"), seen.of("eater"));
    // The node was stopped once by hand.
    if cache.starts != 1 || node.starts != 2 || eater.cause() == "oom" || seen.of(MANAGER).starts != 1 {
        return Err(Broken(format!(
            "the kernel was faster:\n{}",
            wd.cli(&["events", "-n", "60"]).ok().stdout
        )));
    }
    let of_eater = wd.events().into_iter().filter(|event| {
        let is_its = event.service.as_ref().is_some_and(|name| name.as_str() == "eater");
        is_its && (event.what == "stopping" || event.text.contains("short of memory"))
    });
    let mut told: Vec<String> = of_eater.map(|event| event.what).collect();
    told.dedup();
    // What others held is there again.
    wd.cli(&["stop", "cache", "node"]).ok();
    wd.until("it may try again", |seen| seen.of("eater").is_ready());
    Ok(told)
}

/// Calls, how long they take, and hogs beside them.
struct Traffic<'a> {
    wd: &'a TestWatchdog,
    plan: Plan,
}

impl Traffic<'_> {
    /// In quiet, and beside hogs: what one call in a hundred took, or longer.
    fn in_turns(&self) -> Result<(Duration, Duration), Broken> {
        let (mut quiet, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.turns {
            quiet.extend(self.calls()?);
            self.say("start", hogs(self.plan));
            beside.extend(self.calls()?);
            self.say("stop", hogs(self.plan));
        }
        Ok((p99(quiet), p99(beside)))
    }

    fn calls(&self) -> Result<Vec<Duration>, Broken> {
        let caller = "caller";
        self.say("start", [caller.to_owned()]);
        // Nobody looks meanwhile: that would be a load too.
        thread::sleep(self.plan.turn);
        self.say("stop", [caller.to_owned()]);
        noted(&self.wd.path("notes"), caller)
    }

    fn say(&self, verb: &str, names: impl IntoIterator<Item = String>) {
        let words: Vec<String> = [verb.to_owned()].into_iter().chain(names).collect();
        self.wd.cli(&words).ok();
    }
}

fn hogs(plan: Plan) -> impl Iterator<Item = String> + Clone {
    (1..=plan.hogs).map(|number| format!("hog-{number}"))
}

fn on_processors(plan: Plan, manager: Option<Entry>) -> TestWatchdog {
    let mut wd = TestWatchdog::idle();
    let folder = wd.path("notes");
    std::fs::create_dir(&folder).expect("a folder");
    let more_than_there_are = thread::available_parallelism().map_or(2, usize::from) + 1;
    let mut entries = vec![
        probe("answerer", "answerer", &[]).with_session(),
        probe("caller", "caller", &[])
            .with_session()
            .env("NOTES", folder.display().to_string())
            .env("RATE", plan.rate.to_string()),
        stress("worker", &["--cpu", &more_than_there_are.to_string()]),
    ];
    entries.extend(hogs(plan).map(|hog| stress(&hog, &["--cpu", "1"])));
    entries.extend(manager);
    wd.configure("", &entries);
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    let begins = hogs(plan).chain(["caller".to_owned(), "worker".to_owned()]);
    Traffic { wd: &wd, plan }.say("stop", begins);
    wd.until("the manager is well", |seen| {
        seen.find(MANAGER).is_none_or(|manager| !matches!(manager.health, Health::Failing { .. }))
    });
    wd
}

fn stress(name: &str, args: &[&str]) -> Entry {
    program(name, &[&["stress-ng", "--quiet", "--timeout", "0"], args].concat())
}

fn manager(services: &[String]) -> Entry {
    let grant = "control = [\"status\", \"limits\", \"limit\", \"freeze\", \"thaw\", \"stop\", \"start\"]";
    sample(MANAGER).key(grant).settings(&format!("services = {{ {} }}", services.join(", ")))
}

fn last(wd: &TestWatchdog) -> u64 {
    wd.events().last().map_or(0, |event| event.number)
}

fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}
