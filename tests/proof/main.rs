//! `prove intercom [--rounds N] [--seed N]`, started by `tests/prove`. Its last line says `ok` or `failed`.

use std::env;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use watchdog_tests::proof::{self, Plan};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let mut words = args.iter().map(String::as_str);
    let (mut rounds, mut seed) = (1, fresh_seed());
    let mut is_usage = words.next() == Some("intercom");
    while let Some(option) = words.next() {
        match (option, words.next().and_then(|value| value.parse::<u64>().ok())) {
            ("--rounds", Some(count)) if count > 0 => rounds = count,
            ("--seed", Some(given)) => seed = given,
            _ => is_usage = false,
        }
    }
    if !is_usage {
        eprintln!("usage: prove intercom [--rounds N] [--seed N]");
        return ExitCode::from(2);
    }
    for round in 1..=rounds {
        let plan = Plan {
            messages: 200_000,
            receiver_kills: 100,
            core_kills: 20,
            sender_kills: 10,
            seed: seed + round - 1,
        };
        match proof::intercom(plan) {
            Ok(shown) => println!(
                "proof intercom ok round={round}/{rounds} seed={} noted={} arrived={} lost=0 out_of_order=0 \
                 redelivered={} twice={} receiver_kills={} core_kills={} sender_kills={} seconds={:.1}",
                plan.seed,
                shown.noted,
                shown.arrived,
                shown.redelivered,
                shown.twice,
                plan.receiver_kills,
                plan.core_kills,
                plan.sender_kills,
                shown.took.as_secs_f64(),
            ),
            Err(broken) => {
                println!("proof intercom failed round={round}/{rounds} seed={} {broken}", plan.seed);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn fresh_seed() -> u64 {
    // Any will do; it is printed, so that a failure can be tried again.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()))
}
