use std::io;
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::otlp::tests::collector::{Collector, Mode};

/// What was logged in this process.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// With everything at `trace`. The name has to be resolved, which is done on yet another thread.
#[tokio::test]
async fn the_export_tells_nothing_of_itself() {
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Log).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");
    tracing::info!("here");
    for protocol in BOTH {
        let mut collector = Collector::start(protocol, Mode::Take);
        let mut config = collector.config();
        config.endpoint = format!("http://localhost:{}", collector.address.port()).parse().unwrap();
        let exporter = Told::start(config);
        exporter.push(&records("a", vec![event("one"), span("two")]));
        exporter.until("both are taken", |report| report.tally.accepted == 2).await;
        collector.kill();
        exporter.push(&events("a", 0, 3));
        exporter.until("it is seen to be down", |report| report.trouble.is_some()).await;
        collector.rise(None);
        exporter.end().await;
    }
    let logged = String::from_utf8(LOGGED.lock().unwrap().clone()).unwrap();
    assert_eq!(logged.lines().count(), 1, "{logged}");
    assert!(logged.contains("here"));
}
