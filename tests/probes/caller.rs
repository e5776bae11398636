//! Calls `answerer` RATE times a second until it is asked to stop, and notes in NOTES what each call took since it was
//! due, and which failed. It calls on time, whatever became of the calls before.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use watchdog_service::{AskError, Context, Intercom, ServiceError};
use watchdog_tests::contract::SteadyMsg;
use watchdog_tests::proof::restart::{errors, times};

fn main() -> ExitCode {
    watchdog_service::run(caller)
}

/// A call, and what became of it.
struct Call {
    n: u64,
    took: Duration,
    answer: Result<u64, AskError>,
}

async fn caller(mut ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    let folder = PathBuf::from(std::env::var("NOTES")?);
    let rate: u32 = std::env::var("RATE")?.parse()?;
    let answerer = ctx.intercom::<SteadyMsg>("answerer").await?;
    ctx.ready().await?;
    let mut beat = interval(Duration::from_secs(1) / rate);
    let mut calls = JoinSet::new();
    let mut ended = Vec::new();
    let mut n = 0;
    loop {
        tokio::select! {
            biased;
            event = ctx.next() => if event?.is_none() { break },
            Some(call) = calls.join_next() => ended.push(call?),
            due = beat.tick() => {
                n += 1;
                calls.spawn(call(answerer.clone(), n, due));
            }
        }
    }
    while let Some(call) = calls.join_next().await {
        ended.push(call?);
    }
    let times = times(&folder, ctx.service().as_str());
    let errors = errors(&folder, ctx.service().as_str());
    let mut errors = OpenOptions::new().create(true).append(true).open(errors)?;
    let mut nanos = Vec::with_capacity(8 * ended.len());
    for call in ended {
        match call.answer {
            Ok(answer) if answer == 2 * call.n => {
                nanos.extend(u64::try_from(call.took.as_nanos())?.to_le_bytes());
            }
            Ok(wrong) => writeln!(errors, "call {} was answered {wrong}", call.n)?,
            Err(error) => writeln!(errors, "call {} after {:?}: {error}", call.n, call.took)?,
        }
    }
    std::fs::write(times, nanos)?;
    Ok(())
}

async fn call(answerer: Intercom<SteadyMsg>, n: u64, due: Instant) -> Call {
    let answer = answerer.ask(|reply| SteadyMsg::Double { n, reply }).await;
    Call { n, took: due.elapsed(), answer }
}
