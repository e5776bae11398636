//! Doubles numbers: the receiver whose restarts nobody is to notice.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use watchdog_service::{Context, Event, ServiceError};
use watchdog_tests::contract::SteadyMsg;

/// What an answer costs: a death in the middle of one is what the proof is about.
const WORK: Duration = Duration::from_micros(10);

fn main() -> ExitCode {
    watchdog_service::run(answerer)
}

async fn answerer(mut ctx: Context<(), (), SteadyMsg>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        if let Event::Message(SteadyMsg::Double { n, reply }) = event {
            let begin = Instant::now();
            while begin.elapsed() < WORK {
                std::hint::spin_loop();
            }
            reply.send(2 * n);
        }
    }
    Ok(())
}
