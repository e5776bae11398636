//! `prove NAME [--rounds N] [--seed N]`, started by `tests/prove`. Its last line says `ok` or `failed`.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use watchdog_tests::proof::contention::ground::{self, Who};
use watchdog_tests::proof::core::{self, Fate};
use watchdog_tests::proof::{self, Broken, contention, flood, logging, restart};

/// One round with a seed: what it showed, as `key=value…`.
type Prove = fn(u64) -> Result<String, Broken>;

const PROOFS: [(&str, Prove); 8] = [
    ("intercom", intercom),
    ("restart", restarts),
    ("core-death", core_deaths),
    ("upgrade", upgrades),
    ("flood", floods),
    ("logging", logs),
    ("contention", contention),
    ("contention-here", contention_here),
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let mut words = args.iter().map(String::as_str);
    let (mut rounds, mut seed) = (1, fresh_seed());
    let name = words.next().unwrap_or_default();
    let mut proof = PROOFS.iter().find(|(known, _)| *known == name);
    while let Some(option) = words.next() {
        match (option, words.next().and_then(|value| value.parse::<u64>().ok())) {
            ("--rounds", Some(count)) if count > 0 => rounds = count,
            ("--seed", Some(given)) => seed = given,
            _ => proof = None,
        }
    }
    let Some((name, prove)) = proof else {
        let names: Vec<&str> = PROOFS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: prove {} [--rounds N] [--seed N]", names.join("|"));
        return ExitCode::from(2);
    };
    for round in 1..=rounds {
        let seed = seed + round - 1;
        match prove(seed) {
            Ok(shown) => println!("proof {name} ok round={round}/{rounds} seed={seed} {shown}"),
            Err(broken) => {
                println!("proof {name} failed round={round}/{rounds} seed={seed} {broken}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn logs(_: u64) -> Result<String, Broken> {
    let plan = logging::Plan { records: 50_000, kills: 10, filters: 1_000 };
    let shown = logging::logging(plan)?;
    Ok(format!(
        "made={} written={} dropped={} kills={} filters={} filter_ms_p50={} filter_ms_max={} grown_kib={} seconds={:.1}",
        shown.made,
        shown.written,
        shown.dropped,
        plan.kills,
        plan.filters,
        shown.filter.0.as_millis(),
        shown.filter.1.as_millis(),
        shown.grown / 1024,
        shown.took.as_secs_f64(),
    ))
}

/// On a small machine, for root and for `nobody`.
fn contention(_: u64) -> Result<String, Broken> {
    let root = ground::prove("contention-here", Who::Root)?;
    let nobody = ground::prove("contention-here", Who::Nobody)?;
    let words = |said: &str| {
        let known = |word: &&str| !word.starts_with("round=") && !word.starts_with("seed=");
        said.split(' ').filter(known).map(str::to_owned).collect::<Vec<_>>()
    };
    let nobody = words(&nobody).into_iter().map(|word| format!("nobody_{word}"));
    Ok(words(&root).into_iter().chain(nobody).collect::<Vec<_>>().join(" "))
}

/// As who runs it, in the memory there is.
fn contention_here(_: u64) -> Result<String, Broken> {
    let plan = contention::Plan { turns: 3, turn: Duration::from_secs(10), rate: 200, hogs: 4 };
    Ok(contention::here(plan)?.to_string())
}

fn intercom(seed: u64) -> Result<String, Broken> {
    let plan = proof::Plan { messages: 200_000, receiver_kills: 100, core_kills: 20, sender_kills: 10, seed };
    let shown = proof::intercom(plan)?;
    Ok(format!(
        "noted={} arrived={} lost=0 out_of_order=0 redelivered={} twice={} receiver_kills={} core_kills={} \
         sender_kills={} seconds={:.1}",
        shown.noted,
        shown.arrived,
        shown.redelivered,
        shown.twice,
        plan.receiver_kills,
        plan.core_kills,
        plan.sender_kills,
        shown.took.as_secs_f64(),
    ))
}

/// Nothing in it is drawn: the seed says nothing.
fn restarts(_seed: u64) -> Result<String, Broken> {
    let plan = restart::Plan { callers: 50, rate: 200, restarts: 50 };
    let shown = restart::restart(plan)?;
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    Ok(format!(
        "callers={} restarts={} calls={} errors=0 redelivered={} p50_ms={:.3} p99_ms={:.2} longest_pause_ms={:.1} \
         seconds={:.1}",
        plan.callers,
        plan.restarts,
        shown.calls,
        shown.redelivered,
        ms(shown.p50),
        ms(shown.p99),
        ms(shown.longest),
        shown.took.as_secs_f64(),
    ))
}

fn core_deaths(seed: u64) -> Result<String, Broken> {
    let plan = core::Plan { fate: Fate::Killed, times: 100, messages: 10_000, seed };
    Ok(format!("kills={} {}", plan.times, of_core(&core::core(plan)?)))
}

fn upgrades(seed: u64) -> Result<String, Broken> {
    let plan = core::Plan { fate: Fate::Upgraded, times: 20, messages: 20_000, seed };
    let shown = core::core(plan)?;
    let pause = shown.longest_pause.as_millis();
    Ok(format!("upgrades={} longest_pause_ms={pause} {}", plan.times, of_core(&shown)))
}

fn of_core(shown: &core::Shown) -> String {
    format!(
        "messages={} lost=0 out_of_order=0 restarts=0 revisions={} saves={} longest_set_ms={} seconds={:.1}",
        shown.messages,
        shown.revisions,
        shown.saves,
        shown.longest_set.as_millis(),
        shown.took.as_secs_f64(),
    )
}

/// Nothing in it is drawn: the seed says nothing.
fn floods(_seed: u64) -> Result<String, Broken> {
    let plan = flood::Plan { bytes: 1 << 30 };
    let shown = flood::flood(plan)?;
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    Ok(format!(
        "kinds={} bytes_each={} grown_kib={} quiet_status_ms={:.1} flooded_status_ms={:.1} slow_status_ms={:.1} \
         seconds={:.1}",
        flood::Kind::ALL.len(),
        plan.bytes,
        shown.grown / 1024,
        ms(shown.quiet),
        ms(shown.flooded),
        ms(shown.slow),
        shown.took.as_secs_f64(),
    ))
}

fn fresh_seed() -> u64 {
    // Any will do; it is printed, so that a failure can be tried again.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()))
}
