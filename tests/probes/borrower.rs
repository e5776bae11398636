//! Borrows tokens, and writes down when it really uses one: a line for each look at a token that is valid, with the number of
//! the use, and when it looked by the clock that counts on while the machine is suspended.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use resource_manager::lease::{Borrower, Token, since_boot};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};
use watchdog_service::{Context, Event, ServiceError};
use watchdog_tests::uses;

#[derive(Deserialize, JsonSchema)]
struct Settings {
    /// Of what.
    resource: String,
    /// How many at the most.
    want: u32,
    /// How long it uses one, in milliseconds.
    hold_ms: u64,
}

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);

/// The uses of this process.
struct Record {
    file: RefCell<File>,
    last: Cell<u64>,
}

fn main() -> ExitCode {
    watchdog_service::run(borrower)
}

async fn borrower(mut ctx: Context<Settings, (), ()>) -> Result<(), ServiceError> {
    let settings = ctx.settings().current();
    let path = uses::file(&std::env::current_dir()?, ctx.service().as_str(), ctx.incarnation().get());
    let file = OpenOptions::new().create_new(true).append(true).open(path)?;
    let record = Rc::new(Record { file: RefCell::new(file), last: Cell::new(0) });
    let pool = Rc::new(Borrower::new(&ctx, &settings.resource, settings.want).await?);
    ctx.ready().await?;
    let users = LocalSet::new();
    let mut uses = JoinSet::new();
    for _ in 0..settings.want {
        let (pool, record) = (Rc::clone(&pool), Rc::clone(&record));
        let hold = Duration::from_millis(settings.hold_ms);
        uses.spawn_local_on(
            async move {
                while let Ok(token) = pool.take().await {
                    record.note(token, hold).await;
                }
            },
            &users,
        );
    }
    users
        .run_until(async {
            while let Some(event) = ctx.next().await? {
                if let Event::SettingsUpdated = event {
                    pool.want(ctx.settings().current().want);
                }
            }
            Ok(())
        })
        .await
}

impl Record {
    /// Uses a token until its time is over.
    async fn note(&self, token: Token, hold: Duration) {
        let (number, end) = (self.last.get() + 1, Instant::now() + hold);
        self.last.set(number);
        loop {
            // It is valid at a later moment, so it was at this one.
            let now = since_boot();
            if !token.is_valid() {
                return;
            }
            let line = uses::line(number, now);
            // One write: a kill leaves the whole line or none.
            self.file.borrow_mut().write_all(line.as_bytes()).expect("the file can be written");
            if Instant::now() >= end {
                return;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = token.revoked() => return,
            }
        }
    }
}
