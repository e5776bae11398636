//! The service: what it does of each event.

use std::collections::BTreeMap;
use std::env;
use std::future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use watchdog_service::{
    Context, Event, Health, MigrateError, ServiceError, ServiceName, State, decode_state,
};

use crate::filter::{Begun, Filters, Waiting};
use crate::ledger::{Ledger, Losses};
use crate::metrics::{Counts, Gatherer, Moves, Restarts};
use crate::now;
use crate::output::Outputs;
use crate::parcel::Parcel;
use crate::redaction::Redaction;
use crate::settings::{Settings, SettingsError};
use crate::timeline::{self, Place, Stretch, Timeline};
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
    /// How far the event log is in the outputs.
    place: Option<Place>,
    /// How often each was started anew, by that.
    restarts: Restarts,
    /// How often what each may use was changed, by that.
    moves: Moves,
}

impl State for Kept {
    const VERSION: u32 = 3;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        #[derive(Deserialize)]
        struct First {
            begun: BTreeMap<String, Begun>,
            losses: BTreeMap<ServiceName, Losses>,
        }
        #[derive(Deserialize)]
        struct Second {
            begun: BTreeMap<String, Begun>,
            losses: BTreeMap<ServiceName, Losses>,
            place: Option<Place>,
            restarts: Restarts,
        }
        match from {
            1 => {
                let First { begun, losses } = decode_state(old)?;
                Ok(Self { begun, losses, ..Self::default() })
            }
            2 => {
                let Second { begun, losses, place, restarts } = decode_state(old)?;
                Ok(Self { begun, losses, place, restarts, moves: Moves::default() })
            }
            _ => Err(MigrateError::new("no release has written it")),
        }
    }
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
    /// When this process began.
    began: u64,
}

/// Takes records until it is asked to stop.
pub(crate) async fn logging(mut ctx: Logging) -> Result<(), ServiceError> {
    let folder = env::var_os(LOGS)
        .filter(|folder| !folder.is_empty())
        .map_or_else(env::current_dir, |folder| Ok(PathBuf::from(folder)))?;
    let kept = |kept: &Kept| (kept.begun.clone(), kept.losses.clone());
    let (begun, losses) = ctx.state().read(kept);
    let query = ctx.query().map(Arc::new);
    let (gatherer, source, mut counted) = Gatherer::new(query.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(gatherer.run());
    let mut desk = Desk {
        settings: Settings::default(),
        filters: Filters::resumed(begun),
        waiting: Waiting::default(),
        ledger: Ledger::resumed(losses),
        redaction: Redaction::default(),
        outputs: Outputs::new(folder, source),
        trouble: None,
        began: now::nanos(),
    };
    let initial = ctx.settings().current();
    match desk.apply(&initial, Occasion::Start) {
        Ok(()) => desk.keep_filters(&ctx),
        Err(error) => ctx.settings().refuse(error.to_string()),
    }
    let place = ctx.state().read(|kept| kept.place);
    let mut timeline = Timeline::follow(query, ctx.service(), place);
    ctx.ready().await?;
    loop {
        let end = desk.next_end();
        tokio::select! {
            event = ctx.next() => match event? {
                Some(Event::Message(message)) => desk.message(&ctx, message).await,
                Some(Event::SettingsUpdated) => desk.settings(&ctx),
                None => break,
            },
            stretch = timeline.next() => desk.entries(&ctx, stretch).await,
            () = end => desk.waiting.tell(&desk.filters, now::millis()),
            () = desk.outputs.changed() => desk.health(&ctx),
            // Whoever asked may have given up.
            Some(reply) = counted.recv() => drop(reply.send(desk.counts(&ctx, timeline.goes_on()))),
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

    /// What happened, as records of the watchdog.
    async fn entries(&mut self, ctx: &Logging, stretch: Stretch) {
        let (watchdog, filter) = (ServiceName::watchdog(), self.filters.of_watchdog(now::millis()));
        for mut batch in timeline::batches(&stretch, &filter) {
            // The watchdog drops none.
            self.ledger.book(&watchdog, &batch, now::nanos());
            self.redaction.apply(&mut batch);
            self.outputs.hand(Parcel::new(watchdog.clone(), batch, Vec::new(), stretch.comes_again));
        }
        self.outputs.settle().await;
        // After they are written: a kill makes them come again, and leaves none out.
        ctx.state().update(|kept| {
            kept.place = Some(stretch.place);
            for entry in &stretch.entries {
                kept.restarts.take(stretch.place.log, entry);
                kept.moves.take(stretch.place.log, entry);
            }
        });
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

    /// Of one moment: nothing comes or goes meanwhile.
    fn counts(&self, ctx: &Logging, follows_events: bool) -> Counts {
        Counts {
            since: self.began,
            received: self.ledger.received().clone(),
            lost: self.ledger.lost().clone(),
            outputs: self.outputs.counts(),
            restarts: ctx.state().read(|kept| kept.restarts.clone()),
            moves: ctx.state().read(|kept| kept.moves.clone()),
            follows_events,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_before_the_timeline_is_read() {
        // Begun: none. Losses: of `a`, incarnation 2, pid 7, full 5, refused 0.
        let old = [0, 1, 1, b'a', 2, 7, 5, 0];
        let kept = Kept::migrate(1, &old).unwrap();
        assert_eq!(kept.place, None);
        assert!(format!("{:?}", kept.losses).contains("full: 5"), "{kept:?}");
        assert!(Kept::migrate(1, &old[..4]).is_err());
    }

    #[test]
    fn a_state_of_before_moves_were_counted_is_read() {
        // As above; no place; restarts since 9, up to entry 5 of log 1, of nobody.
        let old = [0, 1, 1, b'a', 2, 7, 5, 0, 0, 9, 1, 5, 0, 0];
        let kept = Kept::migrate(2, &old).unwrap();
        assert_eq!((kept.restarts.since(), kept.moves), (9, Moves::default()));
        assert!(Kept::migrate(2, &old[..12]).is_err());
    }
}
