//! Gives back what it is asked with: the answering side of the benchmark.

use std::process::ExitCode;

use watchdog_service::{Context, Event, ServiceError};
use watchdog_tests::contract::EchoMsg;

fn main() -> ExitCode {
    watchdog_service::run(echo)
}

async fn echo(mut ctx: Context<(), (), EchoMsg>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        if let Event::Message(EchoMsg::Echo { bytes, reply }) = event {
            reply.send(bytes);
        }
    }
    Ok(())
}
