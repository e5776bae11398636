//! Metrics: at intervals, and the newest alone.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use tokio::task::JoinSet;

use super::*;
use crate::metrics::{Gathering, sample};
use crate::otlp::Tally;
use crate::otlp::config::Signal;
use crate::otlp::tests::collector::{Collector, Mode};

/// A watchdog that is asked for metrics, and says with each answer the how manieth it is.
struct Asked {
    source: Source,
    count: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Asked {
    fn start(found: Gathering) -> Self {
        let (source, mut asked) = Source::by_hand();
        let count = Arc::new(AtomicU64::new(0));
        let mut task = JoinSet::new();
        let counted = count.clone();
        task.spawn(async move {
            while let Some(reply) = asked.recv().await {
                let at = counted.fetch_add(1, Ordering::SeqCst) + 1;
                // An exporter that stops has given up.
                let _ = reply.send(Ok(Arc::new(found.clone().gathered_at(at))));
            }
        });
        Self { source, count, _task: task }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    async fn until(&self, count: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.count() < count {
            assert!(Instant::now() < until, "asked {} times of {count}", self.count());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn start(config: Config, asked: &Asked) -> Told {
    let board = Arc::new(Board::default());
    Told { exporter: Exporter::start(config, &board, &asked.source).unwrap(), board }
}

/// Every millisecond.
fn often(collector: &Collector) -> Config {
    Config { metrics_interval: Duration::from_millis(1), ..collector.config() }
}

/// The how manieth gathering it was.
fn number(request: &ExportMetricsServiceRequest) -> u64 {
    match &request.resource_metrics[0].scope_metrics[0].metrics[0].data {
        Some(Data::Gauge(gauge)) => gauge.data_points[0].time_unix_nano,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn metrics_arrive_at_intervals() {
    for protocol in BOTH {
        let (collector, asked) = (Collector::start(protocol, Mode::Take), Asked::start(sample::gathering()));
        let exporter = start(often(&collector), &asked);
        let received = collector.until("some are there", |received| received.metrics.len() >= 3).await;
        let numbers: Vec<_> = received.metrics.iter().map(number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        let names = received.metrics[0].resource_metrics[0].scope_metrics[0].metrics.iter();
        assert!(names.clone().any(|metric| metric.name == "watchdog.service.cpu.time"));
        let report = exporter.end().await;
        assert_eq!((report.trouble, report.waiting, report.tally), (None, 0, Tally::default()));
    }
}

#[tokio::test]
async fn of_what_could_not_go_the_newest_is_sent_and_nothing_is_lost() {
    const LAST: u64 = 20;
    for (protocol, mode) in
        BOTH.into_iter().flat_map(|protocol| [(protocol, Mode::Busy), (protocol, Mode::Stall)])
    {
        let collector = Collector::start(protocol, mode);
        let (source, mut asked) = Source::by_hand();
        let board = Arc::new(Board::default());
        let config = Config { timeout: Duration::from_millis(50), ..often(&collector) };
        let exporter = Told { exporter: Exporter::start(config, &board, &source).unwrap(), board };
        let mut answer = async |at| {
            let reply = timeout(Duration::from_secs(60), asked.recv()).await.expect("it asks").unwrap();
            reply.send(Ok(Arc::new(sample::gathering().gathered_at(at)))).unwrap();
        };
        for at in 1..LAST {
            answer(at).await;
        }
        let report = exporter.until("it is said", |report| report.trouble.is_some()).await;
        assert!(report.trouble.unwrap().contains("metrics: "));
        answer(LAST).await;
        // What is on its way is an older one, and what goes when that has failed is none.
        let before = collector.received().requests;
        collector.until("it has failed again", |received| received.requests >= before + 5).await;
        collector.mode(Mode::Take);
        let received = collector.until("it is there", |received| !received.metrics.is_empty()).await;
        assert_eq!(number(&received.metrics[0]), LAST, "{protocol:?} {mode:?}");
        let report = exporter.until("all is well", |report| report.trouble.is_none()).await;
        assert_eq!((report.waiting, report.tally), (0, Tally::default()));
        exporter.end().await;
    }
}

#[tokio::test]
async fn metrics_that_are_not_wanted_are_not_gathered() {
    let (collector, asked) =
        (Collector::start(Protocol::Http, Mode::Take), Asked::start(sample::gathering()));
    let config = Config { signals: vec![Signal::Logs], ..often(&collector) };
    let exporter = start(config.clone(), &asked);
    exporter.push(&events("a", 0, 1));
    collector.until("it is there", |received| received.taken() == 1).await;
    assert_eq!(asked.count(), 0);
    exporter.configure(Config { signals: Signal::ALL.to_vec(), ..config });
    asked.until(1).await;
    exporter.end().await;
}

#[tokio::test]
async fn what_the_grant_lacks_is_said_as_long_as_it_does() {
    let mut found = sample::gathering();
    found.set_missing(vec!["status", "intercoms"]);
    let (collector, asked) = (Collector::start(Protocol::Grpc, Mode::Take), Asked::start(found));
    let config = often(&collector);
    let exporter = start(config.clone(), &asked);
    let says = |report: &Report| {
        report.trouble.as_ref().is_some_and(|why| why.ends_with("control = [\"status\", \"intercoms\"]"))
    };
    exporter.until("it is said", says).await;
    exporter.configure(Config { signals: vec![Signal::Logs], ..config });
    exporter.until("nobody wants them", |report| report.trouble.is_none()).await;
    exporter.end().await;
}

#[tokio::test]
async fn points_that_a_collector_rejects_are_said_and_are_no_records() {
    for protocol in BOTH {
        let (collector, asked) =
            (Collector::start(protocol, Mode::Partial(3)), Asked::start(sample::gathering()));
        let exporter = start(often(&collector), &asked);
        let says = |report: &Report| {
            report
                .trouble
                .as_ref()
                .is_some_and(|why| why.contains("metrics: 3 data points rejected: too old"))
        };
        let report = exporter.until("it is said", says).await;
        assert_eq!(report.tally, Tally::default());
        exporter.end().await;
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_metrics_that_could_not_go() {
    let (collector, asked) =
        (Collector::start(Protocol::Http, Mode::Busy), Asked::start(sample::gathering()));
    let exporter = start(Config { retry_max: Duration::from_secs(3600), ..often(&collector) }, &asked);
    exporter.until("one has failed", |report| report.trouble.is_some()).await;
    exporter.stop(Instant::now() + Duration::from_secs(3600));
    let until = Instant::now() + Duration::from_secs(60);
    while !exporter.is_finished() {
        assert!(Instant::now() < until, "it waits");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
