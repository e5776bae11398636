use http::HeaderValue;

use super::*;
use crate::otlp::config::{Compression, Signal};
use crate::otlp::tests::collector::{Collector, Mode};
use crate::output::OutputCounts;

#[tokio::test]
async fn what_is_told_arrives_as_it_was_told() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Take);
        let exporter = Told::start(collector.config());
        exporter.push(&events("a", 0, 3));
        exporter.push(&spans("b", 2));
        let received = collector.until("all is there", |received| received.taken() == 5).await;
        assert_eq!(received.bodies(), words("a", 0, 3));
        let report = exporter.end().await;
        assert_eq!((report.tally.accepted, report.tally.lost(), report.waiting), (5, 0, 0));
        assert_eq!(report.trouble, None);
    }
}

#[tokio::test]
async fn headers_go_along_and_what_is_compressed_is_read() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Take);
        let mut config = collector.config();
        let mut token = HeaderValue::from_static("canary");
        token.set_sensitive(true);
        config.headers.insert("x-token", token);
        config.compression = Compression::Gzip;
        assert!(!format!("{config:?}").contains("canary"));
        let exporter = Told::start(config);
        exporter.push(&records("a", vec![event("one"), span("two")]));
        let received = collector.until("both are there", |received| received.taken() == 2).await;
        assert!(received.headers.iter().all(|headers| headers["x-token"] == "canary"));
        exporter.end().await;
    }
}

#[tokio::test]
async fn a_request_has_so_many_records_and_no_more() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Take);
        let mut config = collector.config();
        (config.batch_records, config.batch_interval) = (10, Duration::from_secs(3600));
        let exporter = Told::start(config);
        exporter.push(&events("a", 0, 25));
        exporter.until("two requests are taken", |report| report.tally.accepted == 20).await;
        assert_eq!((exporter.report().waiting, collector.received().requests), (5, 2));
        // The rest waits for more, or for the end.
        let report = exporter.end().await;
        assert_eq!((report.tally.accepted, report.waiting), (25, 0));
        assert_eq!(collector.received().bodies(), words("a", 0, 25));
    }
}

#[tokio::test]
async fn what_is_not_wanted_is_not_sent() {
    let collector = Collector::start(Protocol::Http, Mode::Take);
    let exporter = Told::start(Config { signals: vec![Signal::Traces], ..collector.config() });
    exporter.push(&records("a", vec![event("one"), span("two")]));
    let report = exporter.end().await;
    assert_eq!((report.tally.accepted, collector.received().spans()), (1, 1));
    assert!(collector.received().logs.is_empty());
}

#[tokio::test]
async fn what_came_of_records_is_known_of_each_service_but_where_a_collector_blurs_it() {
    let all = |counts: &OutputCounts| {
        let written: Vec<_> =
            counts.written.iter().map(|(service, count)| (service.clone(), *count)).collect();
        let dropped: Vec<_> =
            counts.dropped.iter().map(|((service, why), count)| (service.clone(), *why, *count)).collect();
        (written, dropped, counts.waiting)
    };
    let service = |name: &str| Some(name.parse().unwrap());
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Take);
        let exporter = Told::start(collector.config());
        exporter.push(&events("a", 0, 3));
        exporter.push(&spans("b", 2));
        exporter.until("all is taken", |report| report.tally.accepted == 5).await;
        collector.mode(Mode::Refuse);
        exporter.push(&events("b", 0, 4));
        exporter.until("it is refused", |report| report.tally.lost() == 4).await;
        collector.mode(Mode::Partial(1));
        exporter.push(&spans("a", 3));
        let counts = exporter.end().await.counts();
        let written = vec![(None, 2), (service("a"), 3), (service("b"), 2)];
        let dropped = vec![(None, "rejected", 1), (service("b"), "refused", 4)];
        assert_eq!(all(&counts), (written, dropped, 0));
    }
}
