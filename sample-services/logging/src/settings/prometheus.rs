//! An output that Prometheus reads metrics from.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Metrics for Prometheus, and whatever reads its text: served at `http://LISTEN/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrometheusSettings {
    /// Where it is served: an address of the loopback and a port, `127.0.0.1:9464` or `[::1]:9464`. Whoever can connect
    /// reads all of it, every user of this host.
    #[serde(deserialize_with = "loopback")]
    #[schemars(with = "String")]
    listen: SocketAddr,
}

impl PrometheusSettings {
    /// An address of the loopback.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }
}

fn loopback<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let address = text.parse().ok().filter(|found: &SocketAddr| found.ip().is_loopback() && found.port() > 0);
    address.ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?}, expected an address of the loopback and a port, like \"127.0.0.1:9464\""
        ))
    })
}
