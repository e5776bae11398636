//! Has secrets in its settings, in all kinds of places, and shows what only who knows them can tell: a sum of each.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use watchdog_service::{Context, Event, Secret, ServiceError, State};

/// All but the first of them may be left out.
#[derive(Debug, Deserialize, JsonSchema)]
struct Discreet {
    token: Secret<String>,
    /// How much longer.
    #[serde(default)]
    number: u32,
    #[serde(default)]
    maybe: Option<Secret<String>>,
    #[serde(default)]
    list: Vec<Secret<String>>,
    #[serde(default)]
    by_host: BTreeMap<String, Secret<String>>,
    #[serde(default)]
    by_port: BTreeMap<u16, Secret<String>>,
    #[serde(default)]
    database: Option<Database>,
}

/// By this name, a schema refers to it percent-encoded.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Base de données")]
struct Database {
    user: String,
    password: Secret<String>,
}

/// By the path of each secret.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sums(BTreeMap<String, u64>);

impl State for Sums {
    const VERSION: u32 = 1;
}

fn main() -> std::process::ExitCode {
    watchdog_service::run(discreet)
}

async fn discreet(mut ctx: Context<Discreet, Sums, ()>) -> Result<(), ServiceError> {
    note(&mut ctx).await?;
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        if let Event::SettingsUpdated = event {
            if ctx.settings().current().number == 13 {
                ctx.settings().refuse("not thirteen");
            }
            note(&mut ctx).await?;
        }
    }
    Ok(())
}

/// And prints its settings, as services do.
async fn note(ctx: &mut Context<Discreet, Sums, ()>) -> Result<(), ServiceError> {
    let settings = ctx.settings().current();
    eprintln!("set to {settings:?}");
    let mut sums = BTreeMap::from([("token".to_owned(), sum(&settings.token))]);
    sums.extend(settings.maybe.iter().map(|secret| ("maybe".to_owned(), sum(secret))));
    sums.extend(settings.list.iter().zip(0..).map(|(secret, at)| (format!("list.{at}"), sum(secret))));
    sums.extend(settings.by_host.iter().map(|(host, secret)| (format!("by_host.{host}"), sum(secret))));
    sums.extend(settings.by_port.iter().map(|(port, secret)| (format!("by_port.{port}"), sum(secret))));
    if let Some(Database { user, password }) = &settings.database {
        sums.insert(format!("{user}'s password"), sum(password));
    }
    ctx.state().update(|state| state.0 = sums);
    ctx.state().save().await?;
    Ok(())
}

fn sum(secret: &Secret<String>) -> u64 {
    watchdog_tests::discreet::sum(secret.expose())
}
