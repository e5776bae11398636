//! What the operator sets, all of it live: `watchdog set logging filter.counter="info,counter::add=debug"`.

mod directives;
mod journald;
mod otlp;
mod outputs;
mod prometheus;
mod quantity;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use watchdog_service::ServiceName;

pub(crate) use self::directives::Directives;
pub(crate) use self::journald::JournaldSettings;
pub(crate) use self::outputs::{ConsoleFormat, ConsoleSettings, FileSettings, OutputSettings, SERVICE};
pub(crate) use self::quantity::Period;
#[cfg(test)]
pub(crate) use self::{outputs::FileFormat, quantity::Size};
use crate::redaction::{Redaction, RedactionError};
use watchdog_service::log::Sampling;

/// The key of the filter that holds for every service without one of its own.
pub(crate) const DEFAULT: &str = "default";

/// The key of the filter of what the watchdog itself records.
pub(crate) const WATCHDOG: &str = "watchdog";

/// The output there is when none is configured.
const ONLY: &str = "file";

/// The settings of the logging service.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// What each service records: directives as `tracing-subscriber` reads them, `info,counter::add=debug`, under the
    /// service's name; under `default` those of all others, `info` unless set. With an end:
    /// `{ directives = "debug", for = "5m" }`. Under `watchdog` those of the watchdog's own events, by targets like
    /// `watchdog::ended`.
    #[serde(default)]
    pub(crate) filter: BTreeMap<String, FilterSetting>,
    /// Which traces are recorded, of those that begin in a service.
    #[serde(default)]
    pub(crate) traces: TraceSettings,
    /// Regular expressions: what one of them matches in a message, or in the text of a field, becomes `[redacted]`,
    /// in every output. None unless set.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(crate) redact: Vec<String>,
    /// Where records go, by a name of your choice; any number at once. When there is none: one of kind `file`.
    #[serde(default)]
    outputs: BTreeMap<String, OutputSettings>,
}

/// The filter of one service, or the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum FilterSetting {
    /// For as long as it is set.
    Lasting(Directives),
    /// For a while.
    Timed(TimedFilter),
}

/// A filter with an end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimedFilter {
    /// What is recorded meanwhile.
    pub(crate) directives: Directives,
    /// How long, from when it was set, restarts of the logging service included: `30s`, `5m`, `1h`.
    #[serde(rename = "for")]
    pub(crate) period: Period,
    /// What is recorded afterwards; the default unless set.
    #[serde(default)]
    pub(crate) then: Option<Directives>,
}

/// Which traces are recorded: a trace is recorded in all its services, or in none.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TraceSettings {
    /// The part of all traces, from 0 (none) to 1 (all). Default 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) ratio: f64,
    /// At most so many traces a second that begin in the same process. Default 100.
    pub(crate) per_second: u32,
}

/// Why settings that are of the right type are refused all the same.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(
        "filter.{key}: no service can have this name: {reason}; expected `{DEFAULT}` or the name of a service"
    )]
    Service { key: String, reason: String },
    #[error(
        "filter.{WATCHDOG}: `{directive}` at character {at} of {whole:?} is about spans, and the watchdog's own events \
         are in none; expected a level or TARGET=LEVEL like `watchdog::ended=warn`"
    )]
    Spans { directive: String, at: usize, whole: String },
    #[error("traces.ratio = {found}, expected 0 to 1")]
    Ratio { found: String },
    #[error("redact.{at}: {reason}")]
    Redact { at: usize, reason: RedactionError },
    #[error(
        "outputs.{first} and outputs.{second} write to the same files, {path:?}; expected a `path` for each"
    )]
    SamePath { first: String, second: String, path: String },
    #[error(
        "outputs.{first} and outputs.{second} listen at the same address, {listen}; expected a port for each"
    )]
    SameAddress { first: String, second: String, listen: SocketAddr },
}

impl Settings {
    /// Checks what a type can't, and compiles the patterns.
    ///
    /// # Errors
    /// [`SettingsError`]: which, and what was expected.
    pub(crate) fn check(&self) -> Result<Redaction, SettingsError> {
        for key in self.filter.keys().filter(|key| *key != DEFAULT) {
            key.parse::<ServiceName>()
                .map_err(|error| SettingsError::Service { key: key.clone(), reason: error.to_string() })?;
        }
        for directives in self.filter.get(WATCHDOG).into_iter().flat_map(FilterSetting::all) {
            if let Some((directive, at)) = directives.first_about_spans() {
                let (directive, whole) = (directive.to_owned(), directives.as_str().to_owned());
                return Err(SettingsError::Spans { directive, at, whole });
            }
        }
        if !(0.0..=1.0).contains(&self.traces.ratio) {
            return Err(SettingsError::Ratio { found: self.traces.ratio.to_string() });
        }
        let (mut paths, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for (name, output) in &self.outputs {
            let second = name.clone();
            match output {
                OutputSettings::File(file) => {
                    let path = file.path().to_owned();
                    if let Some(first) = paths.insert(path.clone(), name.clone()) {
                        return Err(SettingsError::SamePath { first, second, path });
                    }
                }
                OutputSettings::Prometheus(settings) => {
                    let listen = settings.listen();
                    if let Some(first) = addresses.insert(listen, name.clone()) {
                        return Err(SettingsError::SameAddress { first, second, listen });
                    }
                }
                OutputSettings::Console(_) | OutputSettings::Journald(_) | OutputSettings::Otlp(_) => {}
            }
        }
        Redaction::new(&self.redact).map_err(|(at, reason)| SettingsError::Redact { at, reason })
    }

    /// Where records go, by name.
    pub(crate) fn outputs(&self) -> BTreeMap<String, OutputSettings> {
        if self.outputs.is_empty() {
            return BTreeMap::from([(ONLY.to_owned(), OutputSettings::default())]);
        }
        self.outputs.clone()
    }

    /// Of the traces that begin in a service.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling { ratio: self.traces.ratio, per_second: self.traces.per_second }
    }
}

impl FilterSetting {
    /// What holds, now or then.
    fn all(&self) -> impl Iterator<Item = &Directives> {
        let (now, then) = match self {
            Self::Lasting(directives) => (directives, None),
            Self::Timed(timed) => (&timed.directives, timed.then.as_ref()),
        };
        std::iter::once(now).chain(then)
    }
}

impl Default for TraceSettings {
    fn default() -> Self {
        let Sampling { ratio, per_second } = Sampling::default();
        Self { ratio, per_second }
    }
}

/// By hand, for an untagged enum would say of every mistake only that no variant fits.
impl<'de> Deserialize<'de> for FilterSetting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) => {
                Directives::try_from(text).map(Self::Lasting).map_err(Error::custom)
            }
            table => serde_path_to_error::deserialize(table).map(Self::Timed).map_err(Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        let settings: Settings = serde_json::from_str(json).map_err(|error| error.to_string())?;
        settings.check().map(|_| settings).map_err(|error| error.to_string())
    }

    #[test]
    fn no_settings_are_one_file_and_info() {
        let settings = read("{}").unwrap();
        assert_eq!(settings.outputs().keys().collect::<Vec<_>>(), ["file"]);
        assert_eq!(settings.sampling(), Sampling { ratio: 1.0, per_second: 100 });
    }

    #[test]
    fn a_filter_is_text_or_a_table_with_an_end() {
        let settings =
            read(r#"{"filter": {"default": "info", "counter": {"directives": "debug", "for": "5m"}}}"#);
        let FilterSetting::Timed(timed) = &settings.unwrap().filter["counter"] else {
            panic!("it has an end")
        };
        assert_eq!((timed.period, timed.then.as_ref()), (Period::millis(300_000), None));
    }

    #[test]
    fn an_output_is_a_file_unless_it_says_otherwise() {
        let settings =
            read(r#"{"outputs": {"file": {"max_size": "1MiB"}, "screen": {"kind": "console"}}}"#).unwrap();
        let OutputSettings::File(file) = &settings.outputs()["file"] else { panic!("it is a file") };
        assert_eq!(file.max_size, Size::mib(1));
        assert!(matches!(settings.outputs()["screen"], OutputSettings::Console(_)));
    }

    #[test]
    fn every_mistake_says_where_and_what_was_expected() {
        for (json, words) in [
            (r#"{"filter": {"counter": "info,x=dbug"}}"#, ["`x=dbug` at character 6", "TARGET=LEVEL"]),
            (r#"{"filter": {"counter": {"directives": "info"}}}"#, ["missing field", "`for`"]),
            (
                r#"{"filter": {"counter": {"directives": "info", "for": "5"}}}"#,
                ["for: \"5\"", "a duration like"],
            ),
            (r#"{"filter": {"Counter": "info"}}"#, ["filter.Counter", "`default` or the name of a service"]),
            (
                r#"{"filter": {"watchdog": "info,a[b]=warn"}}"#,
                ["filter.watchdog: `a[b]=warn` at character 6", "about spans"],
            ),
            (
                r#"{"filter": {"watchdog": {"directives": "info", "for": "5m", "then": "[b]"}}}"#,
                ["filter.watchdog: `[b]` at character 1", "about spans"],
            ),
            (r#"{"traces": {"ratio": 1.5}}"#, ["traces.ratio = 1.5", "expected 0 to 1"]),
            (r#"{"redact": ["a", "(b"]}"#, ["redact.1", "unclosed group"]),
            (r#"{"redact": ["x*"]}"#, ["redact.0", "matches an empty text"]),
            (r#"{"outputs": {"a": {}, "b": {}}}"#, ["outputs.a and outputs.b", "expected a `path`"]),
            (r#"{"outputs": {"a": {"kind": "printer"}}}"#, ["kind: \"printer\"", "`console`"]),
            (r#"{"outputs": {"a": {"kind": "prometheus"}}}"#, ["missing field", "`listen`"]),
            (
                r#"{"outputs": {"a": {"kind": "prometheus", "listen": "0.0.0.0:9464"}}}"#,
                ["listen: \"0.0.0.0:9464\"", "of the loopback"],
            ),
            (
                r#"{"outputs": {"a": {"kind": "prometheus", "listen": "localhost:9464"}}}"#,
                ["listen: \"localhost:9464\"", "127.0.0.1:9464"],
            ),
            (
                r#"{"outputs": {"a": {"kind": "prometheus", "listen": "127.0.0.1:0"}}}"#,
                ["listen: \"127.0.0.1:0\"", "and a port"],
            ),
            (
                r#"{"outputs": {"a": {"kind": "prometheus", "listen": "[::1]:94"}, "b": {"kind": "prometheus", "listen": "[::1]:94"}}}"#,
                ["outputs.a and outputs.b", "[::1]:94"],
            ),
            (r#"{"outputs": {"a": {"max_sise": "1MiB"}}}"#, ["max_sise", "`max_size`"]),
            (r#"{"outputs": {"a": {"max_size": "1"}}}"#, ["max_size: \"1\"", "a size like"]),
            (r#"{"outputs": {"a": {"max_size": "1B"}}}"#, ["max_size: \"1B\"", "at least 4KiB"]),
            (
                r#"{"outputs": {"a": {"path": "{service}/x.jsonl"}}}"#,
                ["{service}/x.jsonl", "in the file's name"],
            ),
            (r#"{"outputs": {"a": {"path": "x/"}}}"#, ["x/", "a file"]),
            (r#"{"filters": {}}"#, ["unknown field", "`filter`"]),
        ] {
            let error = read(json).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{json}: {error}");
            }
        }
    }
}
