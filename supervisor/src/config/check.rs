//! Everything that can be known before a process starts.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use watchdog_protocol::{Manifest, ServiceName};

use super::Kind;
use super::manifest_of::manifest_of;
use super::problem::{ConfigError, ConfigErrors, Problem};
use super::schema::Schema;
use super::secret_file;
use super::spec::{Config, ServiceSpec};
use crate::account::{Account, NoAccount};

/// Programs that describe themselves side by side: few, since the machine has other work.
const SIDE_BY_SIDE: usize = 2;

/// How long a program may take before whoever waits is told which one it is.
const SLOW: Duration = Duration::from_secs(2);

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
    /// What is odd about it, and no error.
    pub warnings: Vec<ConfigError>,
}

impl Checked {
    /// What is odd about them, and no error.
    pub fn warnings(&self) -> impl Iterator<Item = &ConfigError> {
        self.services.values().flat_map(|service| &service.warnings)
    }
}

/// Where the manifests of a configuration are kept.
pub fn manifest_cache(config: &Config) -> PathBuf {
    config.watchdog.runtime.join("manifests")
}

/// Checks all services of a configuration. Runs each SDK service's program, unless its manifest is in `cache`; of one that
/// has said nothing for two seconds, `waiting` tells.
///
/// # Errors
/// All that is wrong, in file order.
pub fn check(
    config: &Config,
    cache: Option<&Path>,
    mut waiting: impl FnMut(&ServiceSpec),
) -> Result<Checked, ConfigErrors> {
    let open = Mutex::new(config.services.values());
    let take = || open.lock().expect("nobody panics with it").next();
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        let (told, heard) = channel();
        for _ in 0..SIDE_BY_SIDE {
            let told = told.clone();
            scope.spawn(move || {
                while let Some(spec) = take() {
                    // Who is told waits for the last of them.
                    let _ = told.send((spec, None));
                    let _ = told.send((spec, Some(check_service(spec, cache))));
                }
            });
        }
        drop(told);
        let mut begun: VecDeque<(Instant, &ServiceSpec)> = VecDeque::new();
        loop {
            let slow_at = begun.front().map(|(at, _)| *at + SLOW);
            let left = slow_at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            match heard.recv_timeout(left) {
                Ok((spec, None)) => begun.push_back((Instant::now(), spec)),
                Ok((spec, Some(outcome))) => {
                    begun.retain(|(_, other)| other.name != spec.name);
                    done.push((spec.name.clone(), outcome));
                }
                Err(RecvTimeoutError::Timeout) => {
                    begun.pop_front().into_iter().for_each(|(_, spec)| waiting(spec));
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    let mut services = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, outcome) in done {
        match outcome {
            Ok(Some(service)) => {
                services.insert(name, service);
            }
            Ok(None) => {}
            // One table, told once.
            Err(_) if name.instance().is_some_and(|number| number > 1) => {}
            Err(more) => errors.extend(more),
        }
    }
    ConfigErrors::none_of(errors)?;
    Ok(Checked { services })
}

/// That a program has not described itself yet, for whoever waits.
pub fn is_awaited(spec: &ServiceSpec) -> String {
    format!(
        "{}: {} was asked to describe itself, and is waited for",
        spec.name,
        spec.launch.program.display()
    )
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
        && matches!(Account::find(user), Err(NoAccount::Unknown { .. }))
    {
        errors.push(spec.error(&spec.places.user, Problem::NoUser { user: user.clone() }));
    }
    match spec.kind() {
        Kind::Program => ConfigErrors::none_of(errors).map(|()| None),
        Kind::Service => {
            ConfigErrors::none_of(errors)?;
            check_settings(spec, described(spec, cache)?).map(Some)
        }
    }
}

/// What a service says of itself, without a look at its settings; `None` for a plain program. Blocks for up to 10 s.
///
/// # Errors
/// It does not say it, or not in a way that can be understood.
pub fn describe_service(
    spec: &ServiceSpec,
    cache: Option<&Path>,
) -> Result<Option<CheckedService>, ConfigErrors> {
    match spec.kind() {
        Kind::Program => Ok(None),
        Kind::Service => as_described(spec, described(spec, cache)?).map(Some),
    }
}

fn described(spec: &ServiceSpec, cache: Option<&Path>) -> Result<Manifest, ConfigErrors> {
    manifest_of(spec, cache).map_err(|error| {
        let problem = Problem::Describe { service: spec.name.clone(), error };
        ConfigErrors::from(spec.error(&spec.places.exec, problem))
    })
}

/// A service whose table was checked before: it is not again, for what it names may be gone meanwhile.
///
/// # Errors
/// When the schema in its manifest is none.
pub fn as_described(spec: &ServiceSpec, manifest: Manifest) -> Result<CheckedService, ConfigErrors> {
    let schema = Schema::of(&manifest).map_err(|error| {
        let problem = Problem::Schema { service: spec.name.clone(), error };
        ConfigErrors::from(spec.error(&spec.places.exec, problem))
    })?;
    Ok(CheckedService { manifest, schema, warnings: Vec::new() })
}

/// Measures a service's settings table against its manifest.
fn check_settings(spec: &ServiceSpec, manifest: Manifest) -> Result<CheckedService, ConfigErrors> {
    let mut checked = as_described(spec, manifest)?;
    let (schema, values) = (&checked.schema, &spec.settings.values);
    secret_file::delivered(schema, values.clone()).map_err(|invalid| {
        let at_its_place = |error: super::schema::Invalid| {
            let at = spec.settings_place(error.path()).clone();
            let problem = Problem::Settings { service: spec.name.clone(), error };
            if schema.has_secrets() {
                return spec.error(&at, problem);
            }
            ConfigError { place: Some(spec.source().place_in_full(at)), problem }
        };
        ConfigErrors::some_of(invalid.into_iter().map(at_its_place).collect())
    })?;
    let readable = secret_file::readable_by_all(schema, values).into_iter().map(|(path, file, mode)| {
        let at = spec.settings_place(&path);
        spec.error(at, Problem::Readable { service: spec.name.clone(), path, file, mode })
    });
    checked.warnings = readable.collect();
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::fixture::{Folder, manifest, prints};

    const STEP: &str = r#"{"type":"object","properties":{"step":{"type":"integer","minimum":1,"maximum":1000},
        "name":{"type":"string","default":"x"}},"required":["step"]}"#;

    fn folder() -> Folder {
        let folder = Folder::new();
        folder.script("counter.sh", &prints(&manifest(Some(STEP))));
        folder.script("plain.sh", &prints(&manifest(None)));
        folder
    }

    fn wrong(text: &str) -> String {
        let folder = folder();
        folder.hide(&check(&folder.config(text), None, |_| {}).unwrap_err())
    }

    #[test]
    fn checked_services_have_their_settings_with_the_defaults_filled_in() {
        let text = r#"
            [service.counter]
            exec = ["/bin/sh", "counter.sh"]
            settings = { step = 2 }
            [service.plain]
            exec = ["/bin/sh", "plain.sh"]
            [program.other]
            exec = ["/never/run"]
        "#;
        let folder = folder();
        let config = folder.config(text);
        let checked = check(&config, None, |_| {}).unwrap().services;
        assert_eq!(checked.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["counter", "plain"]);
        let filled = |name: &str| {
            let name: ServiceName = name.parse().unwrap();
            checked[&name].schema.filled(config.services[&name].settings.values.clone())
        };
        assert_eq!(filled("counter"), json!({ "step": 2, "name": "x" }));
        assert_eq!(filled("plain"), json!(null));
        assert!(checked["plain"].schema.has_no_settings());
    }

    #[test]
    fn all_services_errors_are_told_in_file_order() {
        insta::assert_snapshot!(wrong(r#"
[service.plain]
exec = ["/bin/sh", "plain.sh"]
settings.step = 1

[service.one]
exec = ["/bin/sh", "counter.sh"]
[service.one.settings]
stp = 1
name = 7

[service.two]
exec = ["/bin/sh", "counter.sh"]
settings = { step = 0 }

[service.three]
exec = ["/bin/sh", "counter.sh"]

[service.four]
exec = ["/bin/sh", "-c", "echo broken >&2; exit 2"]

[program.five]
exec = ["five"]
user = "no-such-user"
"#), @r#"
        watchdog.toml:4:1: plain: it has no settings, so none can be given
          4 | settings.step = 1
            | ^^^^^^^^
        watchdog.toml:8:14: one: step is missing, expected an integer 1 to 1000
          8 | [service.one.settings]
            |              ^^^^^^^^
        watchdog.toml:9:1: one: unknown setting `stp`
          9 | stp = 1
            | ^^^
          hint: did you mean `step`?
        watchdog.toml:10:1: one: name = 7, expected a string
          10 | name = 7
             | ^^^^
        watchdog.toml:14:14: two: step = 0, expected 1 to 1000
          14 | settings = { step = 0 }
             |              ^^^^
        watchdog.toml:16:10: three: step is missing, expected an integer 1 to 1000
          16 | [service.three]
             |          ^^^^^
        watchdog.toml:20:8: four: /bin/sh ended with code 2 when asked to describe itself
          20 | exec = ["/bin/sh", "-c", "echo broken >&2; exit 2"]
             |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          stderr: broken
        watchdog.toml:24:8: there is no user `no-such-user` on this machine
          24 | user = "no-such-user"
             |        ^^^^^^^^^^^^^^
        "#);
    }

    #[test]
    fn who_waits_is_told_for_which_program() {
        let folder = Folder::new();
        folder.script("quick.sh", &prints(&manifest(None)));
        let text = r#"
            [service.slow]
            exec = ["/bin/sh", "-c", "sleep 8"]
            [service.quick]
            exec = ["/bin/sh", "quick.sh"]
        "#;
        let mut told = Vec::new();
        check(&folder.config(text), None, |spec| told.push(is_awaited(spec))).unwrap_err();
        let words = "slow: /bin/sh was asked to describe itself, and is waited for";
        assert!(told.iter().any(|told| told == words), "{told:?}");
    }

    #[test]
    fn a_schema_that_is_none_is_told() {
        let folder = Folder::new();
        folder.script("a.sh", &prints(&manifest(Some("[]"))));
        let text = "[service.a]\nexec = [\"/bin/sh\", \"a.sh\"]\n";
        let errors = check(&folder.config(text), None, |_| {}).unwrap_err();
        insta::assert_snapshot!(folder.hide(&errors), @r#"
        watchdog.toml:2:8: a: its settings schema can't be used: [] is not of types "boolean", "object"
          2 | exec = ["/bin/sh", "a.sh"]
            |        ^^^^^^^^^^^^^^^^^^^
        "#);
    }

    #[test]
    fn a_check_before_the_first_run_leaves_nothing_behind() {
        let folder = folder();
        let config = folder.config("[service.plain]\nexec = [\"/bin/sh\", \"plain.sh\"]\n");
        let cache = manifest_cache(&config);
        check(&config, Some(&cache), |_| {}).unwrap();
        assert!(!config.watchdog.runtime.exists());
        std::fs::create_dir_all(&config.watchdog.runtime).unwrap();
        check(&config, Some(&cache), |_| {}).unwrap();
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    }
}
