//! How a connection is made: TCP, and TLS where the address says so.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::otlp::config::{Config, Protocol};

pub(super) type Connector = HttpsConnector<HttpConnector>;

/// For this configuration; else what is wrong with its certificates.
pub(super) fn connector(config: &Config) -> Result<Connector, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let schemes = HttpsConnectorBuilder::new().with_tls_config(tls(config)?).https_or_http();
    Ok(match config.protocol {
        Protocol::Grpc => schemes.enable_http2().wrap_connector(tcp),
        Protocol::Http => schemes.enable_http1().wrap_connector(tcp),
    })
}

fn tls(config: &Config) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let trusting = match &config.ca {
        Some(path) => builder.with_root_certificates(of_file(path)?),
        // The host may have none, and needs none then.
        None if !config.endpoint.is_https() => builder.with_root_certificates(RootCertStore::empty()),
        None => builder.with_native_roots().map_err(|error| error.to_string())?,
    };
    Ok(trusting.with_no_client_auth())
}

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |what: String| format!("certificates in {}: {what}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("there are none".to_owned())) } else { Ok(roots) }
}
