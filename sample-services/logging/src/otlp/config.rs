//! What an exporter is told: where to, how, and what it may keep.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderMap, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything an exporter is told. Two that are equal need no new connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Where the collector is.
    pub(crate) endpoint: Endpoint,
    /// How it is spoken to.
    pub(crate) protocol: Protocol,
    /// What goes along with each request. Their values are marked as sensitive: no `Debug` shows them.
    pub(crate) headers: HeaderMap,
    /// A file of certificates to trust instead of the host's own.
    pub(crate) ca: Option<PathBuf>,
    /// Whether requests are compressed.
    pub(crate) compression: Compression,
    /// How long one request may take, connecting included.
    pub(crate) timeout: Duration,
    /// A request goes when so many records wait.
    pub(crate) batch_records: usize,
    /// Or when the first of them has waited so long.
    pub(crate) batch_interval: Duration,
    /// So many bytes of records may wait for each signal, what is on its way included.
    pub(crate) queue: usize,
    /// The first pause after a request that failed; it doubles.
    pub(crate) retry_min: Duration,
    /// The longest pause.
    pub(crate) retry_max: Duration,
    /// After so long a request is given up, and the next one tried.
    pub(crate) retry_for: Duration,
    /// What is exported.
    pub(crate) signals: Vec<Signal>,
    /// From one gathering of metrics to the next.
    pub(crate) metrics_interval: Duration,
}

/// A kind of telemetry, with a queue and a connection of its own: what one collector refuses, another takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Signal {
    /// Events.
    Logs,
    /// Spans.
    Traces,
    /// What is counted of the watchdog, its services and what they say.
    Metrics,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// gRPC, most often at port 4317.
    Grpc,
    /// Protobuf in HTTP, most often at port 4318.
    Http,
}

/// Whether requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compression {
    /// They are not.
    None,
    /// By gzip.
    Gzip,
}

/// The address of a collector: `http` or `https`, a host, and nothing behind the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(Uri);

/// Why an address is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEndpoint {
    #[error("{0:?} is no address: expected one like http://127.0.0.1:4317")]
    Unreadable(String),
    #[error("{0:?} has neither http:// nor https:// before it")]
    Scheme(String),
    #[error("an address has no user or password in it: give a header")]
    User,
    #[error("{0:?} has a query, which no collector reads")]
    Query(String),
    #[error("{0:?} has a path: over gRPC the host and the port are all")]
    Path(String),
}

impl Config {
    /// All defaults, to this collector.
    pub(crate) fn to(endpoint: Endpoint, protocol: Protocol) -> Self {
        Self {
            endpoint,
            protocol,
            headers: HeaderMap::new(),
            ca: None,
            compression: Compression::None,
            timeout: Duration::from_secs(10),
            batch_records: 512,
            batch_interval: Duration::from_secs(1),
            queue: 16 << 20,
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            retry_for: Duration::from_secs(300),
            signals: Signal::ALL.to_vec(),
            metrics_interval: Duration::from_secs(15),
        }
    }
}

impl Signal {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    /// Of what it is, one is called this.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// What there are many of in a request.
    pub(super) fn things(self) -> &'static str {
        match self {
            Self::Logs | Self::Traces => "records",
            Self::Metrics => "data points",
        }
    }
}

impl Endpoint {
    /// Whether what goes there is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> Uri {
        self.0.clone()
    }

    /// The address of one thing below it.
    pub(super) fn join(&self, path: &str) -> Uri {
        let base = self.0.path().trim_end_matches('/');
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(format!("{base}{path}").parse().expect("two paths are one"));
        Uri::from_parts(parts).expect("only the path is another")
    }

    /// Over gRPC there is no path of one's own.
    pub(crate) fn fits(&self, protocol: Protocol) -> Result<(), BadEndpoint> {
        match protocol {
            Protocol::Grpc if !matches!(self.0.path(), "" | "/") => Err(BadEndpoint::Path(self.to_string())),
            Protocol::Grpc | Protocol::Http => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let uri: Uri = text.parse().map_err(|_| BadEndpoint::Unreadable(text.to_owned()))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(BadEndpoint::User);
        }
        if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) {
            return Err(BadEndpoint::Scheme(text.to_owned()));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(BadEndpoint::Unreadable(text.to_owned()));
        }
        if uri.query().is_some() {
            return Err(BadEndpoint::Query(text.to_owned()));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Endpoint, BadEndpoint> {
        text.parse()
    }

    #[test]
    fn an_address_is_a_scheme_and_a_host_and_perhaps_a_path() {
        let plain = read("http://127.0.0.1:4318").unwrap();
        assert_eq!(plain.to_string(), "http://127.0.0.1:4318");
        assert_eq!(plain.join("/v1/logs"), "http://127.0.0.1:4318/v1/logs");
        assert_eq!(plain.fits(Protocol::Grpc), Ok(()));
        let hosted = read("https://otlp.example.com/otlp/").unwrap();
        assert!(hosted.is_https() && !plain.is_https());
        assert_eq!(hosted.join("/v1/logs"), "https://otlp.example.com/otlp/v1/logs");
        assert_eq!(hosted.fits(Protocol::Http), Ok(()));
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        assert!(matches!(read("localhost:4317"), Err(BadEndpoint::Scheme(_))));
        assert!(matches!(read("ftp://host"), Err(BadEndpoint::Scheme(_))));
        assert!(matches!(read("/v1/logs"), Err(BadEndpoint::Scheme(_))));
        assert!(matches!(read(""), Err(BadEndpoint::Unreadable(_))));
        assert!(matches!(read("http://"), Err(BadEndpoint::Unreadable(_))));
        assert!(matches!(read("http://host/?key=1"), Err(BadEndpoint::Query(_))));
        let path = read("http://host/otlp").unwrap();
        assert!(matches!(path.fits(Protocol::Grpc), Err(BadEndpoint::Path(_))));
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = read("http://me:canary@host:4317").unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
