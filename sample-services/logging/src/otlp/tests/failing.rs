use std::net::TcpListener;

use proptest::prelude::*;

use super::*;
use crate::otlp::tally::Dropped;
use crate::otlp::tests::collector::{Collector, Mode, config};

fn dropped(report: &Report, service: &str, why: Dropped) -> u64 {
    report.tally.dropped.get(&(service.parse().unwrap(), why)).copied().unwrap_or_default()
}

#[tokio::test]
async fn what_is_told_while_the_collector_is_down_arrives_when_it_is_up() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol, Mode::Take);
        collector.kill();
        let exporter = Told::start(collector.config());
        exporter.push(&events("a", 0, 3));
        let report = exporter.until("it is seen to be down", |report| report.trouble.is_some()).await;
        let expected =
            format!("otlp http://{}: logs: connection refused, 3 records wait, 0 dropped", collector.address);
        assert_eq!(report.trouble, Some(expected));
        collector.rise(None);
        let report = exporter.until("all is taken", |report| report.waiting == 0).await;
        assert_eq!((report.tally.accepted, report.trouble), (3, None));
        assert_eq!(collector.received().bodies(), words("a", 0, 3));
    }
}

#[tokio::test]
async fn a_collector_that_dies_in_the_middle_is_told_again_when_it_is_back() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol, Mode::Die);
        let exporter = Told::start(collector.config());
        exporter.push(&events("a", 0, 600));
        collector.until("it has read a request", |received| received.requests > 0).await;
        collector.await_end();
        collector.mode(Mode::Take);
        collector.rise(None);
        let report = exporter.until("all is taken", |report| report.waiting == 0).await;
        assert_eq!((report.tally.accepted, report.tally.lost()), (600, 0));
        assert_eq!(collector.received().bodies(), words("a", 0, 600));
    }
}

#[tokio::test]
async fn a_connection_on_which_nobody_answers_is_left() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Stall);
        let short = Config { timeout: Duration::from_millis(100), ..collector.config() };
        let exporter = Told::start(short);
        exporter.push(&spans("a", 2));
        let report = exporter.until("it is seen to be silent", |report| report.trouble.is_some()).await;
        let trouble = report.trouble.unwrap();
        assert!(trouble.contains("traces: no answer in 100ms, 2 records wait, 0 dropped"), "{trouble}");
        collector.mode(Mode::Take);
        exporter.until("all is taken", |report| report.tally.accepted == 2 && report.trouble.is_none()).await;
    }
}

#[tokio::test]
async fn other_settings_take_over_what_waits() {
    for protocol in BOTH {
        // It takes connections, as its kernel does, and nothing more.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let to_silent = Config {
            timeout: Duration::from_millis(50),
            retry_min: Duration::from_secs(3600),
            ..config(protocol, &endpoint)
        };
        let to_silent = Config { retry_max: to_silent.retry_min, ..to_silent };
        let exporter = Told::start(to_silent);
        exporter.push(&events("a", 0, 700));
        exporter.until("it is seen to be silent", |report| report.trouble.is_some()).await;
        let collector = Collector::start(protocol, Mode::Take);
        // It does not wait for the hour to pass.
        exporter.configure(collector.config());
        let report = exporter.until("all is taken", |report| report.waiting == 0).await;
        assert_eq!((report.tally.accepted, report.tally.lost(), report.trouble), (700, 0, None));
        assert_eq!(collector.received().bodies(), words("a", 0, 700));
    }
}

#[tokio::test]
async fn what_is_refused_is_dropped_and_what_is_behind_it_is_not() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Refuse);
        let exporter = Told::start(collector.config());
        exporter.push(&records("a", vec![event("1"), event("2")]));
        let report = exporter.until("it is refused", |report| report.waiting == 0).await;
        assert_eq!((dropped(&report, "a", Dropped::Refused), report.tally.accepted), (2, 0));
        assert!(report.trouble.unwrap().contains("not like this, 0 records wait, 2 dropped"));
        collector.mode(Mode::Take);
        exporter.push(&events("b", 0, 1));
        let report = exporter.until("the next is taken", |report| report.tally.accepted == 1).await;
        assert_eq!((report.tally.lost(), report.trouble), (2, None));
        assert_eq!(collector.received().requests, 2);
    }
}

#[tokio::test]
async fn what_a_busy_collector_will_not_have_now_is_sent_again() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Busy);
        let exporter = Told::start(collector.config());
        exporter.push(&events("a", 0, 2));
        collector.until("it was tried three times", |received| received.requests == 3).await;
        collector.mode(Mode::Take);
        let report = exporter.until("it is taken", |report| report.waiting == 0).await;
        assert_eq!((report.tally.accepted, report.tally.lost()), (2, 0));
    }
}

#[tokio::test]
async fn what_a_collector_takes_in_part_is_counted_in_part() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Partial(2));
        let exporter = Told::start(collector.config());
        exporter.push(&events("a", 0, 5));
        let report = exporter.until("it is taken", |report| report.waiting == 0).await;
        assert_eq!((report.tally.accepted, report.tally.rejected, report.tally.lost()), (3, 2, 2));
        assert!(
            report.trouble.unwrap().contains("logs: 2 records rejected: too old, 0 records wait, 2 dropped")
        );
    }
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted_for_its_service() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let config = Config { queue: 100_000, ..config(Protocol::Http, &endpoint) };
    let exporter = Told::start(config);
    for _ in 0..100 {
        exporter.push(&events("a", 0, 10));
        exporter.push(&events("b", 0, 5));
    }
    let report = exporter.report();
    let (a, b) = (dropped(&report, "a", Dropped::Full), dropped(&report, "b", Dropped::Full));
    assert!(a > 0 && b > 0 && a % 10 == 0 && b % 5 == 0, "{report:?}");
    assert_eq!(report.waiting + a + b, 1500);
    // Nobody answers: the rest is dropped when it must end.
    let report = exporter.close(Instant::now() + Duration::from_millis(200)).await;
    let stopped = dropped(&report, "a", Dropped::Stopped) + dropped(&report, "b", Dropped::Stopped);
    assert_eq!((report.waiting, a + b + stopped), (0, 1500));
}

#[tokio::test]
async fn a_request_that_never_goes_is_given_up_for_the_next_one() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Busy);
        let config = Config { retry_for: Duration::ZERO, ..collector.config() };
        let exporter = Told::start(config);
        exporter.push(&events("a", 0, 2));
        let report = exporter.until("it is given up", |report| report.waiting == 0).await;
        assert_eq!(dropped(&report, "a", Dropped::Expired), 2);
        collector.mode(Mode::Take);
        exporter.push(&events("a", 2, 3));
        let report = exporter.end().await;
        assert_eq!((report.tally.accepted, report.tally.lost()), (1, 2));
    }
}

#[tokio::test]
async fn to_stop_is_to_send_what_waits_at_once() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, Mode::Take);
        let config = Config { batch_interval: Duration::from_secs(3600), ..collector.config() };
        let exporter = Told::start(config);
        exporter.push(&events("a", 0, 600));
        exporter.push(&spans("a", 600));
        let report = exporter.end().await;
        assert_eq!((report.tally.accepted, report.tally.lost(), report.waiting), (1200, 0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Told = accepted + lost, and the collector has what it said it has, whatever it does in between.
    #[test]
    fn the_counts_add_up_whatever_the_collector_does(
        is_grpc: bool,
        turns in prop::collection::vec((prop::sample::select(vec![
            Mode::Take, Mode::Partial(1), Mode::Refuse, Mode::Busy, Mode::Die, Mode::Stall,
        ]), 1usize..40, 0usize..40), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (report, received, told) = runtime.block_on(async {
            let protocol = if is_grpc { Protocol::Grpc } else { Protocol::Http };
            let mut collector = Collector::start(protocol, Mode::Take);
            let config =
                Config { timeout: Duration::from_millis(100), batch_records: 16, ..collector.config() };
            let exporter = Told::start(config);
            let mut told = 0;
            for (mode, logs, traces) in turns {
                collector.mode(mode);
                // Before there is something to try: all may be tried by the time this thread goes on.
                let requests = collector.received().requests;
                exporter.push(&events("a", 0, logs));
                exporter.push(&spans("b", traces));
                told += logs + traces;
                collector.until("something was tried", |received| received.requests > requests).await;
                if mode == Mode::Die {
                    collector.await_end();
                    collector.mode(Mode::Take);
                    collector.rise(None);
                }
            }
            collector.mode(Mode::Take);
            (exporter.end().await, collector.received(), told as u64)
        });
        prop_assert_eq!(report.tally.accepted + report.tally.lost() + report.waiting, told);
        prop_assert_eq!(report.waiting, 0);
        prop_assert!(report.tally.dropped.keys().all(|(_, why)| *why == Dropped::Refused), "{:?}", report);
        // What it took while its answer was cut off came twice.
        prop_assert!(received.taken() >= report.tally.accepted);
        prop_assert_eq!(received.rejected, report.tally.rejected);
    }
}
