//! Tells the counter to add, at a rate, and asks for the total now and then.

use std::time::Duration;

use counter::CounterMsg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use watchdog_service::{AskError, Context, Event, ServiceError, State, TellError};

/// Beyond it a bump that is late is left out.
const CATCH_UP: Duration = Duration::from_millis(100);

/// What the operator sets: `watchdog set bumper rate=1000`.
#[derive(Deserialize, JsonSchema)]
struct BumperSettings {
    /// Messages a second; 0: as fast as the lane takes them.
    #[serde(default = "a_hundred")]
    #[schemars(range(max = 1_000_000))]
    rate: u32,
    /// How many to tell, over all restarts; 0: no end.
    #[serde(default)]
    target: u64,
}

fn a_hundred() -> u32 {
    100
}

/// What a restart must not lose.
#[derive(Default, Serialize, Deserialize)]
struct BumperState {
    /// How many the lane took: told, and never to be told again.
    told: u64,
}

impl State for BumperState {
    const VERSION: u32 = 1;
}

fn main() -> std::process::ExitCode {
    watchdog_service::run(bumper)
}

async fn bumper(mut ctx: Context<BumperSettings, BumperState, ()>) -> Result<(), ServiceError> {
    let counter = ctx.intercom::<CounterMsg>("counter").await?; // a handle that outlives restarts of either side
    let mut report = interval(Duration::from_secs(1));
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_bump = Instant::now();
    ctx.ready().await?;
    loop {
        let settings = ctx.settings().current();
        let is_due = settings.target == 0 || ctx.state().read(|s| s.told) < settings.target;
        // Each of these may be dropped half way: next() keeps its event for the next call.
        tokio::select! {
            event = ctx.next() => match event? {
                None => return Ok(()), // asked to stop
                Some(Event::SettingsUpdated) => tracing::info!(rate = ctx.settings().current().rate),
                Some(Event::Message(())) => {}
            },
            () = reach(next_bump), if is_due => {
                match counter.tell(CounterMsg::Add { n: 1 }).await {
                    Ok(()) => {
                        tracing::debug!("told");
                        ctx.state().update(|s| s.told += 1);
                    }
                    // It was never in the lane: telling it again doubles nothing.
                    Err(TellError::Full(_)) => tracing::warn!("the counter does not keep up"),
                    Err(err) => return Err(err.into()),
                }
                next_bump = after(next_bump, settings.rate);
            }
            _ = report.tick() => match counter.ask(|reply| CounterMsg::Total { reply }).await {
                Ok(total) => tracing::info!(total, told = ctx.state().read(|s| s.told)),
                Err(err @ AskError::NoSuchService { .. }) => return Err(err.into()),
                Err(err) => tracing::warn!(%err, "asking again is safe: it only reads"),
            },
        }
    }
}

/// A timer's clock ticks once a millisecond: what is due needs none.
async fn reach(moment: Instant) {
    if moment > Instant::now() {
        sleep_until(moment).await;
    }
}

/// When the bump after this one is due. Being late is made up for, by a tenth of a second at most.
fn after(this: Instant, rate: u32) -> Instant {
    let now = Instant::now();
    match rate {
        0 => now,
        rate => (this + Duration::from_secs(1) / rate).max(now.checked_sub(CATCH_UP).unwrap_or(now)),
    }
}
