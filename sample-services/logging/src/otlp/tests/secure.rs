use std::fs;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::otlp::tests::collector::{Collector, config};

/// A collector whose certificate only this test can know, and that certificate.
fn collector() -> (Collector, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (Collector::with_tls(TlsAcceptor::from(Arc::new(config))), cert.pem())
}

#[tokio::test]
async fn a_collector_with_a_certificate_of_its_own_is_trusted_when_it_is_named() {
    let (collector, certificate) = collector();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let config = Config { ca: Some(path.clone()), ..config(Protocol::Http, &endpoint) };
    let exporter = Told::start(config);
    exporter.push(&events("a", 0, 2));
    let report = exporter.until("the file is missed", |report| report.trouble.is_some()).await;
    let trouble = report.trouble.unwrap();
    assert!(trouble.contains(&format!("certificates in {}", path.display())), "{trouble}");
    fs::write(&path, certificate).unwrap();
    let report = exporter.until("it is taken", |report| report.waiting == 0).await;
    assert_eq!((report.tally.accepted, report.trouble), (2, None));
    assert_eq!(collector.received().bodies(), words("a", 0, 2));
}

#[tokio::test]
async fn a_collector_nobody_vouches_for_gets_nothing() {
    let (collector, _) = collector();
    let stranger = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    fs::write(&path, stranger.cert.pem()).unwrap();
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let config = Config { ca: Some(path), ..config(Protocol::Http, &endpoint) };
    let exporter = Told::start(config);
    exporter.push(&events("a", 0, 2));
    let report = exporter.until("it is refused", |report| report.trouble.is_some()).await;
    let trouble = report.trouble.unwrap();
    assert!(trouble.contains("certificate"), "{trouble}");
    assert_eq!((report.waiting, collector.received().requests), (2, 0));
}
