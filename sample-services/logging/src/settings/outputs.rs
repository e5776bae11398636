//! The outputs: what each kind takes.

use std::path::Path;

use schemars::{JsonSchema, Schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::journald::JournaldSettings;
use super::otlp::OtlpSettings;
use super::prometheus::PrometheusSettings;
use super::quantity::{Period, Size};
use crate::format::Format;

/// Stands in a path for the name of the service.
pub(crate) const SERVICE: &str = "{service}";

/// A smaller file is rotated at every batch.
const LEAST_SIZE: u64 = 4 << 10;

/// One output. Without `kind` it is a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[schemars(transform = kind_may_be_left_out)]
pub(crate) enum OutputSettings {
    /// Files, rotated.
    File(FileSettings),
    /// The standard output of the logging service.
    Console(ConsoleSettings),
    /// The journal of systemd.
    Journald(JournaldSettings),
    /// A collector of OpenTelemetry.
    Otlp(OtlpSettings),
    /// Metrics alone, for Prometheus.
    Prometheus(PrometheusSettings),
}

/// Files, one a service or one for all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FileSettings {
    /// Which file: a path below the folder in `WATCHDOG_LOGS`, or else below the working directory, or an absolute
    /// one. `{service}` in the file's name is the service; without it all services share one file. Default
    /// `records/{service}.jsonl`. Folders are made.
    path: String,
    /// `json`: an object a line; or `logfmt`: `key=value` pairs. Default `json`.
    pub(crate) format: FileFormat,
    /// How long a file may be: the record that would make it longer goes to a new one. Default `10MiB`, at least
    /// `4KiB`.
    pub(crate) max_size: Size,
    /// A new file also whenever such a period begins, counted from midnight UTC: `1h`, `1d`. Never unless set.
    pub(crate) every: Option<Period>,
    /// Older files kept of each. Default 5.
    #[schemars(range(max = 10_000))]
    pub(crate) keep: u32,
    /// How much all files of this output may take together: at each rotation the oldest go until it is so. Default
    /// `1GiB`.
    pub(crate) total_size: Size,
    /// Whether older files are compressed by gzip, but for the last one of each. Default true.
    pub(crate) compress: bool,
}

/// The standard output of the logging service, which the watchdog keeps in its log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConsoleSettings {
    /// `pretty`: a line for people, with colours on a terminal; or `json` or `logfmt`. Default `pretty`.
    pub(crate) format: ConsoleFormat,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileFormat {
    /// An object a line.
    #[default]
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// How the console is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ConsoleFormat {
    /// For people.
    #[default]
    Pretty,
    /// An object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

impl OutputSettings {
    /// Of the same kind: one output can become the other.
    pub(crate) fn is_kind_of(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// What is written to it is there after a kill of this service: it is worth a wait before a message is done.
    pub(crate) fn keeps(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Console(_) | Self::Journald(_) | Self::Otlp(_) | Self::Prometheus(_) => false,
        }
    }
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self::File(FileSettings::default())
    }
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            path: format!("records/{SERVICE}.jsonl"),
            format: FileFormat::default(),
            max_size: Size::mib(10),
            every: None,
            keep: 5,
            total_size: Size::mib(1024),
            compress: true,
        }
    }
}

impl FileSettings {
    /// With [`SERVICE`] where the service's name goes.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    #[cfg(test)]
    pub(crate) fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    fn check(&self) -> Result<(), String> {
        let path = Path::new(&self.path);
        let Some(name) = path.file_name().filter(|_| !self.path.ends_with('/')) else {
            return Err(format!("path: {:?}, expected the path of a file", self.path));
        };
        let places = self.path.matches(SERVICE).count();
        if places > 1 || (places == 1 && !name.to_string_lossy().contains(SERVICE)) {
            return Err(format!(
                "path: {:?}, expected `{SERVICE}` at most once, in the file's name",
                self.path
            ));
        }
        if self.path.contains(['\0', '\n']) {
            return Err(format!("path: {:?}, expected a path without control characters", self.path));
        }
        if self.max_size.bytes() < LEAST_SIZE {
            return Err(format!("max_size: \"{}\", expected at least 4KiB", self.max_size));
        }
        Ok(())
    }
}

impl From<FileFormat> for Format {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Json => Self::Json,
            FileFormat::Logfmt => Self::Logfmt,
        }
    }
}

/// By hand, for `kind` has a default, and a mistake is named by its key.
impl<'de> Deserialize<'de> for OutputSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut table = serde_json::Map::deserialize(from)?;
        let kind = table.remove("kind");
        let table = serde_json::Value::Object(table);
        match kind.as_ref().map(|kind| kind.as_str().unwrap_or_default()) {
            None | Some("file") => {
                let file: FileSettings = serde_path_to_error::deserialize(table).map_err(Error::custom)?;
                file.check().map_err(Error::custom)?;
                Ok(Self::File(file))
            }
            Some("console") => {
                serde_path_to_error::deserialize(table).map(Self::Console).map_err(Error::custom)
            }
            Some("journald") => {
                serde_path_to_error::deserialize(table).map(Self::Journald).map_err(Error::custom)
            }
            Some("otlp") => {
                let otlp: OtlpSettings = serde_path_to_error::deserialize(table).map_err(Error::custom)?;
                otlp.config().map_err(Error::custom)?;
                Ok(Self::Otlp(otlp))
            }
            Some("prometheus") => {
                serde_path_to_error::deserialize(table).map(Self::Prometheus).map_err(Error::custom)
            }
            Some(other) => Err(Error::custom(format!(
                "kind: {other:?}, expected `file`, `console`, `journald`, `otlp` or `prometheus`"
            ))),
        }
    }
}

/// Without it an output is a file, so that `watchdog set logging outputs.file.max_size=1MiB` is enough.
fn kind_may_be_left_out(schema: &mut Schema) {
    let variants = schema.get_mut("oneOf").and_then(|variants| variants.as_array_mut());
    for variant in variants.into_iter().flatten() {
        if variant.pointer("/properties/kind/const") == Some(&"file".into())
            && let Some(required) = variant.get_mut("required").and_then(|required| required.as_array_mut())
        {
            required.retain(|key| key != "kind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_asks_for_a_kind_but_of_a_file() {
        let schema = schemars::schema_for!(OutputSettings);
        let asks: Vec<_> = schema.as_value()["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variant| {
                let required = variant.get("required").and_then(|keys| keys.as_array());
                (
                    variant["properties"]["kind"]["const"].clone(),
                    required.is_some_and(|keys| keys.contains(&"kind".into())),
                )
            })
            .collect();
        assert_eq!(
            asks,
            [
                ("file".into(), false),
                ("console".into(), true),
                ("journald".into(), true),
                ("otlp".into(), true),
                ("prometheus".into(), true)
            ]
        );
    }
}
