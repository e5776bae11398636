//! Gives back what it is asked with, and counts what it is told: the other side of the benchmarks.

use std::process::ExitCode;

use watchdog_service::{Context, Event, ServiceError};
use watchdog_tests::contract::EchoMsg;

fn main() -> ExitCode {
    watchdog_service::run(echo)
}

async fn echo(mut ctx: Context<(), (), EchoMsg>) -> Result<(), ServiceError> {
    let mut taken = 0;
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        match event {
            Event::Message(EchoMsg::Echo { bytes, reply }) => reply.send(bytes),
            Event::Message(EchoMsg::Take { .. }) => taken += 1,
            Event::Message(EchoMsg::Taken { reply }) => reply.send(taken),
            Event::SettingsUpdated => {}
        }
    }
    Ok(())
}
