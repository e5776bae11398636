//! An output to a collector of OpenTelemetry.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use watchdog_service::Secret;

use super::quantity::{Period, Size};
use crate::otlp::config::{Compression, Config, Endpoint, Protocol, Signal};

/// A collector of OpenTelemetry, or whatever speaks its protocol OTLP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtlpSettings {
    /// Where it is: `http://` or `https://`, host and port. Over HTTP a path may follow; `/v1/logs`, `/v1/traces` and
    /// `/v1/metrics` are put behind it.
    endpoint: String,
    /// `grpc`, most often at port 4317; or `http`, protobuf over HTTP, most often at port 4318. Default `grpc`.
    #[serde(default = "grpc")]
    protocol: Protocol,
    /// What goes along with each request, such as a token: `{ authorization = "Bearer …" }`. Nobody is shown the
    /// values.
    #[serde(default)]
    headers: Headers,
    /// A file of certificates (PEM) to trust with https. Default: the host's own, or what `SSL_CERT_FILE` names.
    #[serde(default)]
    ca: Option<String>,
    /// `none` or `gzip`. Default `none`.
    #[serde(default = "uncompressed")]
    compression: Compression,
    /// How long a request may take, connecting included. Default `10s`.
    #[serde(default = "ten_seconds")]
    timeout: Period,
    /// A request goes when so many records wait. Default 512.
    #[serde(default = "records")]
    #[schemars(range(min = 1, max = 8192))]
    batch_records: u32,
    /// Or when the first of them has waited so long. Default `1s`.
    #[serde(default = "one_second")]
    batch_interval: Period,
    /// How much may wait, of logs and of traces each; what does not fit is dropped and counted. Default `16MiB`, at
    /// least `1MiB`.
    #[serde(default = "room")]
    queue: Size,
    /// How long a request is tried again before it is dropped and the next one tried. Default `5m`.
    #[serde(default = "five_minutes")]
    retry_for: Period,
    /// What is sent, `logs`, `traces` and `metrics`. Default all of them.
    #[serde(default = "everything")]
    #[schemars(length(min = 1))]
    signals: Vec<Signal>,
    /// From one gathering of metrics to the next: while the collector is away older ones are replaced by newer ones.
    /// Default `15s`, at least `1s`.
    #[serde(default = "fifteen_seconds")]
    metrics_interval: Period,
}

/// Headers of a request, by name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Headers(BTreeMap<String, Secret<String>>);

/// What others gathered within this time is taken.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The least that may wait.
const LEAST_QUEUE: u64 = 1 << 20;

impl OtlpSettings {
    /// As the exporter wants it; or what is wrong, and where.
    ///
    /// # Errors
    /// Key, value and what was expected.
    pub(crate) fn config(&self) -> Result<Config, String> {
        let endpoint: Endpoint = self.endpoint.parse().map_err(|error| format!("endpoint: {error}"))?;
        endpoint.fits(self.protocol).map_err(|error| format!("endpoint: {error}"))?;
        if self.queue.bytes() < LEAST_QUEUE {
            return Err(format!("queue: \"{}\", expected at least 1MiB", self.queue));
        }
        if !(1..=8192).contains(&self.batch_records) {
            return Err(format!("batch_records: {}, expected 1 to 8192", self.batch_records));
        }
        let period = |period: Period| Duration::from_millis(period.as_millis());
        let metrics_interval = period(self.metrics_interval);
        if metrics_interval < LEAST_INTERVAL {
            return Err(format!("metrics_interval: \"{}\", expected at least 1s", self.metrics_interval));
        }
        Ok(Config {
            headers: self.headers.map()?,
            ca: self.ca.as_ref().map(Into::into),
            compression: self.compression,
            timeout: period(self.timeout),
            batch_records: self.batch_records as usize,
            batch_interval: period(self.batch_interval),
            queue: usize::try_from(self.queue.bytes()).unwrap_or(usize::MAX),
            retry_for: period(self.retry_for),
            signals: self.signals.clone(),
            metrics_interval,
            ..Config::to(endpoint, self.protocol)
        })
    }
}

impl Headers {
    fn map(&self) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.0 {
            let key = HeaderName::try_from(name)
                .map_err(|_| format!("headers.{name}: this is not the name of a header"))?;
            // gRPC reads them as base64.
            if key.as_str().ends_with("-bin") {
                return Err(format!("headers.{name}: expected a header of text"));
            }
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| format!("headers.{name}: the value has characters that no header may have"))?;
            value.set_sensitive(true);
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        let pair = |(name, value): (&String, &Secret<String>)| (name.clone(), value.expose().clone());
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, another)| pair(one) == pair(another))
    }
}

impl Eq for Headers {}

/// For the schema's default alone, which has none.
impl Serialize for Headers {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.keys().map(|name| (name, "(secret)")))
    }
}

fn grpc() -> Protocol {
    Protocol::Grpc
}

fn uncompressed() -> Compression {
    Compression::None
}

fn ten_seconds() -> Period {
    Period::millis(10_000)
}

fn records() -> u32 {
    512
}

fn one_second() -> Period {
    Period::millis(1000)
}

fn room() -> Size {
    Size::mib(16)
}

fn five_minutes() -> Period {
    Period::millis(300_000)
}

fn fifteen_seconds() -> Period {
    Period::millis(15_000)
}

fn everything() -> Vec<Signal> {
    Signal::ALL.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<Config, String> {
        let settings: OtlpSettings = serde_json::from_str(json).map_err(|error| error.to_string())?;
        settings.config()
    }

    #[test]
    fn what_is_not_set_is_as_an_exporter_has_it() {
        let found = config(r#"{"endpoint": "http://127.0.0.1:4317"}"#).unwrap();
        assert_eq!(found, Config::to("http://127.0.0.1:4317".parse().unwrap(), Protocol::Grpc));
    }

    #[test]
    fn every_mistake_says_where_and_what_was_expected_but_no_value_of_a_header() {
        for (json, words) in [
            ("{}", ["missing field", "`endpoint`"]),
            (r#"{"endpoint": "localhost:4317"}"#, ["endpoint: \"localhost:4317\"", "http://"]),
            (r#"{"endpoint": "http://a/otlp"}"#, ["endpoint: \"http://a/otlp\"", "over gRPC"]),
            (r#"{"endpoint": "http://a", "protocol": "thrift"}"#, ["thrift", "`http`"]),
            (r#"{"endpoint": "http://a", "signals": ["logs", "dreams"]}"#, ["dreams", "`metrics`"]),
            (
                r#"{"endpoint": "http://a", "metrics_interval": "999ms"}"#,
                ["metrics_interval: \"999ms\"", "at least 1s"],
            ),
            (r#"{"endpoint": "http://a", "queue": "1KiB"}"#, ["queue: \"1KiB\"", "at least 1MiB"]),
            (r#"{"endpoint": "http://a", "batch_records": 0}"#, ["batch_records: 0", "1 to 8192"]),
            (
                r#"{"endpoint": "http://a", "headers": {"a b": "canary"}}"#,
                ["headers.a b", "name of a header"],
            ),
            (
                r#"{"endpoint": "http://a", "headers": {"token": "canary\n"}}"#,
                ["headers.token", "characters"],
            ),
            (
                r#"{"endpoint": "http://a", "headers": {"token-bin": "canary"}}"#,
                ["headers.token-bin", "text"],
            ),
            (r#"{"endpoint": "http://a", "headers": {"token": ["canary"]}}"#, ["", "a secret"]),
        ] {
            let error = config(json).unwrap_err();
            for word in words {
                assert!(error.contains(word) && !error.contains("canary"), "{json}: {error}");
            }
        }
    }

    #[test]
    fn headers_are_shown_by_nothing_and_told_apart_all_the_same() {
        let read = |value: &str| -> OtlpSettings {
            let json = format!(r#"{{"endpoint": "http://a", "headers": {{"token": "{value}"}}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        let one = read("canary");
        let shown = format!("{one:?} {:?} {}", one.config(), serde_json::to_string(&one).unwrap());
        assert!(shown.contains("(secret)") && !shown.contains("canary"), "{shown}");
        assert_eq!(one, read("canary"));
        assert_ne!(one, read("another"));
    }
}
