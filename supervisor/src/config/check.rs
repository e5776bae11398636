//! Everything that can be known before a process starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;
use watchdog_protocol::{Manifest, ServiceName};

use super::Kind;
use super::launch::user_exists;
use super::manifest_of::manifest_of;
use super::problem::{ConfigError, ConfigErrors, Problem};
use super::schema::Schema;
use super::spec::{Config, ServiceSpec};

/// Programs that describe themselves side by side: few, since the machine has other work.
const SIDE_BY_SIDE: usize = 2;

/// A configuration whose services described themselves and whose settings fit.
#[derive(Debug)]
pub struct Checked {
    /// Those built on the SDK.
    pub services: BTreeMap<ServiceName, CheckedService>,
}

/// What an SDK service says of itself, and the settings it gets.
#[derive(Debug)]
pub struct CheckedService {
    /// As it printed it.
    pub manifest: Manifest,
    /// Its settings type.
    pub schema: Schema,
    /// The file's settings with the type's defaults filled in; `null` when it has none.
    pub settings: Value,
}

/// Where the manifests of a configuration are kept.
pub fn manifest_cache(config: &Config) -> PathBuf {
    config.watchdog.runtime.join("manifests")
}

/// Checks all services of a configuration. Runs each SDK service's program, unless its manifest is in `cache`.
///
/// # Errors
/// All that is wrong, in file order.
pub fn check(config: &Config, cache: Option<&Path>) -> Result<Checked, ConfigErrors> {
    let open = Mutex::new(config.services.values());
    let take = || open.lock().expect("nobody panics with it").next();
    let work = || {
        let mut done = Vec::new();
        while let Some(spec) = take() {
            done.push((spec.name.clone(), check_service(spec, cache)));
        }
        done
    };
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().expect("checking does not panic"));
        joined.flatten().collect::<Vec<_>>()
    });
    let mut services = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, outcome) in done {
        match outcome {
            Ok(Some(service)) => {
                services.insert(name, service);
            }
            Ok(None) => {}
            Err(more) => errors.extend(more),
        }
    }
    ConfigErrors::none_of(errors)?;
    Ok(Checked { services })
}

/// Checks one service; `None` for a plain program, which is not run. Blocks for up to 10 s.
///
/// # Errors
/// All that is wrong with it.
pub fn check_service(
    spec: &ServiceSpec,
    cache: Option<&Path>,
) -> Result<Option<CheckedService>, ConfigErrors> {
    let mut errors = Vec::new();
    if let Some(user) = &spec.launch.user
        && matches!(user_exists(user), Ok(false))
    {
        errors.push(spec.error(&spec.places.user, Problem::NoUser { user: user.clone() }));
    }
    match spec.kind() {
        Kind::Program => ConfigErrors::none_of(errors).map(|()| None),
        Kind::Service => {
            ConfigErrors::none_of(errors)?;
            let manifest = manifest_of(spec, cache).map_err(|error| {
                let problem = Problem::Describe { service: spec.name.clone(), error };
                ConfigErrors::from(spec.error(&spec.places.exec, problem))
            })?;
            check_settings(spec, manifest).map(Some)
        }
    }
}

/// Measures a service's settings table against its manifest.
///
/// # Errors
/// All that is wrong with the table.
pub fn check_settings(spec: &ServiceSpec, manifest: Manifest) -> Result<CheckedService, ConfigErrors> {
    let schema = Schema::of(&manifest).map_err(|error| {
        let problem = Problem::Schema { service: spec.name.clone(), error };
        ConfigErrors::from(spec.error(&spec.places.exec, problem))
    })?;
    let settings = match schema.complete(spec.settings.values.clone()) {
        Ok(settings) => settings,
        Err(invalid) => {
            let error = |error: super::schema::Invalid| -> ConfigError {
                let at = spec.settings_place(error.path()).clone();
                spec.error(&at, Problem::Settings { service: spec.name.clone(), error })
            };
            let errors = invalid.into_iter().map(error).collect();
            ConfigErrors::none_of(errors)?;
            Value::Null
        }
    };
    Ok(CheckedService { manifest, schema, settings })
}
