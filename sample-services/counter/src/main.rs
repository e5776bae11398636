//! Counts what it is told, once each, and still knows after a crash.

use std::collections::BTreeMap;

use counter::CounterMsg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use watchdog_service::{Context, Event, MessageId, ServiceError, ServiceName, State};

/// What the operator sets: `watchdog set counter step=10`.
#[derive(Deserialize, JsonSchema)]
struct CounterSettings {
    /// How much one `Add` is worth.
    #[schemars(range(min = 1, max = 1000))]
    step: u64,
}

/// What a restart must not lose; a first start sees `Default`.
#[derive(Default, Serialize, Deserialize)]
struct CounterState {
    total: u64,
    /// The last message applied, per sender: a lane is in order, so one is enough to know a redelivery.
    applied: BTreeMap<ServiceName, MessageId>,
}

impl State for CounterState {
    const VERSION: u32 = 1;
}

fn main() -> std::process::ExitCode {
    watchdog_service::run(counter)
}

async fn counter(mut ctx: Context<CounterSettings, CounterState, CounterMsg>) -> Result<(), ServiceError> {
    ctx.ready().await?; // whoever waits for us may start now
    while let Some(event) = ctx.next().await? {
        match event {
            Event::Message(CounterMsg::Add { n }) => {
                let step = ctx.settings().current().step;
                let (sender, id) = (ctx.delivery().sender().clone(), ctx.delivery().id());
                let again = ctx.state().update(|s| {
                    let again = s.applied.insert(sender, id) == Some(id);
                    if !again {
                        s.total += u64::from(n) * step;
                    }
                    again
                });
                ctx.state().save().await?; // on disk before next() lets go of the message: counted once
                tracing::debug!(%id, again, "counted"); // WATCHDOG_LOG=debug shows it
            }
            Event::Message(CounterMsg::Total { reply }) => reply.send(ctx.state().read(|s| s.total)),
            Event::SettingsUpdated => tracing::info!(step = ctx.settings().current().step),
        }
    }
    Ok(()) // asked to stop; what is still queued waits in the lane for the next incarnation
}
