//! The service: what it does of each event.

use std::collections::BTreeMap;
use std::env;
use std::future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use watchdog_service::{Context, Event, Health, ServiceError, ServiceName, State};

use crate::filter::{Begun, Filters, Waiting};
use crate::ledger::{Ledger, Losses};
use crate::now;
use crate::output::Outputs;
use crate::parcel::Parcel;
use crate::redaction::Redaction;
use crate::settings::{Settings, SettingsError};
use watchdog_service::log::{Batch, LogMsg};

/// The variable with the folder that files of records are below.
const LOGS: &str = "WATCHDOG_LOGS";

/// What outputs have at a stop for what they still hold: less than a stop timeout, which is 10 s unless set.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// What a restart must not lose.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// When filters with an end began.
    begun: BTreeMap<String, Begun>,
    /// What each service said it dropped.
    losses: BTreeMap<ServiceName, Losses>,
}

impl State for Kept {
    const VERSION: u32 = 1;
}

type Logging = Context<Settings, Kept, LogMsg>;

/// All that an event may change.
struct Desk {
    settings: Settings,
    filters: Filters,
    waiting: Waiting,
    ledger: Ledger,
    redaction: Redaction,
    outputs: Outputs,
    trouble: Option<String>,
}

/// Takes records until it is asked to stop.
pub(crate) async fn logging(mut ctx: Logging) -> Result<(), ServiceError> {
    let folder = env::var_os(LOGS)
        .filter(|folder| !folder.is_empty())
        .map_or_else(env::current_dir, |folder| Ok(PathBuf::from(folder)))?;
    let kept = |kept: &Kept| (kept.begun.clone(), kept.losses.clone());
    let (begun, losses) = ctx.state().read(kept);
    let mut desk = Desk {
        settings: Settings::default(),
        filters: Filters::resumed(begun),
        waiting: Waiting::default(),
        ledger: Ledger::resumed(losses),
        redaction: Redaction::default(),
        outputs: Outputs::new(folder),
        trouble: None,
    };
    let initial = ctx.settings().current();
    match desk.apply(&initial, Occasion::Start) {
        Ok(()) => desk.keep_filters(&ctx),
        Err(error) => ctx.settings().refuse(error.to_string()),
    }
    ctx.ready().await?;
    loop {
        let end = desk.next_end();
        tokio::select! {
            event = ctx.next() => match event? {
                Some(Event::Message(message)) => desk.message(&ctx, message).await,
                Some(Event::SettingsUpdated) => desk.settings(&ctx),
                None => break,
            },
            () = end => desk.waiting.tell(&desk.filters, now::millis()),
            () = desk.outputs.changed() => desk.health(&ctx),
        }
    }
    desk.stop().await;
    Ok(())
}

/// When settings are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// This process starts: nobody has set anything.
    Start,
    /// Somebody has set something.
    Set,
}

impl Desk {
    async fn message(&mut self, ctx: &Logging, message: LogMsg) {
        let sender = ctx.delivery().sender();
        match message {
            LogMsg::Records { batch } => {
                let has_gaps = self.records(ctx, sender.clone(), batch);
                self.outputs.settle().await;
                // After they are written: rather said twice, with the same total, than never.
                if has_gaps {
                    ctx.state().update(|kept| kept.losses.clone_from(self.ledger.losses()));
                }
            }
            LogMsg::Filter { known, reply } => {
                self.waiting.ask(sender.clone(), known, reply, &self.filters, now::millis());
            }
        }
    }

    /// Hands them to the outputs; whether it is news that some were dropped.
    fn records(&mut self, ctx: &Logging, sender: ServiceName, mut batch: Batch) -> bool {
        let gaps = self.ledger.book(&sender, &batch, now::nanos());
        let has_gaps = !gaps.is_empty();
        self.redaction.apply(&mut batch);
        let parcel = Parcel::new(sender, batch, gaps, ctx.delivery().redelivered());
        if !parcel.is_empty() {
            self.outputs.hand(parcel);
        }
        has_gaps
    }

    fn settings(&mut self, ctx: &Logging) {
        let settings = ctx.settings().current();
        match self.apply(&settings, Occasion::Set) {
            Ok(()) => self.keep_filters(ctx),
            Err(error) => ctx.settings().refuse(error.to_string()),
        }
        self.health(ctx);
    }

    /// All of the settings, or none.
    fn apply(&mut self, settings: &Settings, occasion: Occasion) -> Result<(), SettingsError> {
        self.redaction = settings.check()?;
        // Whoever sets what is set already wants a filter with an end to begin anew.
        let renewed = occasion == Occasion::Set && *settings == self.settings;
        let now = now::millis();
        self.filters.apply(settings, renewed, now);
        self.waiting.tell(&self.filters, now);
        self.outputs.configure(&settings.outputs());
        self.settings = settings.clone();
        Ok(())
    }

    fn keep_filters(&self, ctx: &Logging) {
        if ctx.state().read(|kept| kept.begun != *self.filters.begun()) {
            ctx.state().update(|kept| kept.begun.clone_from(self.filters.begun()));
        }
    }

    /// When a filter ends.
    fn next_end(&self) -> impl Future<Output = ()> + use<> {
        let left = self
            .waiting
            .due(&self.filters)
            .map(|end| Duration::from_millis(end.saturating_sub(now::millis())));
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => future::pending().await,
            }
        }
    }

    fn health(&mut self, ctx: &Logging) {
        let trouble = self.outputs.trouble();
        if trouble != self.trouble {
            ctx.health(match trouble.clone() {
                Some(reason) => Health::Degraded { reason },
                None => Health::Ok,
            });
            self.trouble = trouble;
        }
    }

    async fn stop(self) {
        for (service, received) in self.ledger.received() {
            tracing::debug!(%service, received, "records came");
        }
        self.outputs.stop(Instant::now() + LAST_WRITES).await;
    }
}
