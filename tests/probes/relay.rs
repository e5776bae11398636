//! Passes on what it is asked to the service that `NEXT` names, if it is set, and says through `tracing` what it does.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use tracing::Level;
use watchdog_service::{Context, Event, ServiceError};
use watchdog_tests::contract::RelayMsg;

fn main() -> ExitCode {
    watchdog_service::run(relay)
}

/// Says something while it is shown.
struct Talker;

impl fmt::Display for Talker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::info!("from within");
        out.write_str("talker")
    }
}

async fn relay(mut ctx: Context<(), (), RelayMsg>) -> Result<(), ServiceError> {
    let next = match std::env::var("NEXT") {
        Ok(name) => Some(ctx.intercom::<RelayMsg>(name).await?),
        Err(_) => None,
    };
    tracing::info!(incarnation = ctx.incarnation().get(), "begins");
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        let Event::Message(message) = event else { continue };
        match message {
            RelayMsg::Pass { reply } => {
                tracing::info!("passes");
                let behind = match &next {
                    Some(next) => next.ask(|reply| RelayMsg::Pass { reply }).await?,
                    None => 0,
                };
                reply.send(behind + 1);
            }
            RelayMsg::Tell {} => {
                tracing::info!("tells");
                if let Some(next) = &next {
                    next.tell(RelayMsg::Tell {}).await?;
                }
            }
            RelayMsg::Say { first, count, reply } => {
                for number in first..first + count {
                    tracing::info!(number, "line");
                }
                reply.send(());
            }
            RelayMsg::Levels { reply } => {
                tracing::error!(who = %Talker, "level");
                tracing::warn!("level");
                tracing::info!("level");
                tracing::debug!("level");
                tracing::trace!("level");
                reply.send(());
            }
            RelayMsg::Panic {} => panic!("as it was told"),
            RelayMsg::Until { debug, reply } => {
                while tracing::enabled!(Level::DEBUG) != debug {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                reply.send(());
            }
        }
    }
    Ok(())
}
