//! Metrics: what Prometheus reads of a watchdog, and what an operator is told when there is not all of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use watchdog_protocol::session::Health;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Entry, GRANT, Seen, TestWatchdog, logging_service, program, sample};

/// Where nobody listens.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// A logging service whose metrics are there, and a file beside them.
fn logging(at: SocketAddr) -> Entry {
    let outputs =
        format!("outputs = {{ file = {{}}, scrape = {{ kind = \"prometheus\", listen = \"{at}\" }} }}");
    logging_service().settings(&outputs)
}

/// Status and body of what is answered there, if anybody does.
fn get(at: SocketAddr) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {at}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The metrics, as soon as they are there.
fn metrics(wd: &TestWatchdog, at: SocketAddr) -> String {
    wd.until_some("metrics are there", || get(at).filter(|(status, _)| *status == 200)).1
}

/// Name, labels and value of each series.
fn series(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
        (name.to_owned(), labels.collect(), value.parse().expect("a number"))
    });
    series.collect()
}

/// The sum of all series of this name with these labels; `None`: there are none.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let is_it = |found: &BTreeMap<String, String>| {
        labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value))
    };
    let values = series(text).into_iter().filter(|(found, its, _)| found == name && is_it(its));
    values.map(|(.., value)| value).reduce(|one, other| one + other)
}

/// What Prometheus's own judge says of it.
fn judged(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests/install brings promtool");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        + &output.status.to_string()
}

#[test]
fn prometheus_reads_a_running_watchdog_and_its_judge_finds_no_fault() {
    let (at, asked) = (free(), free());
    let wd = TestWatchdog::idle();
    let config = format!(
        "scrape_configs: [{{ job_name: watchdog, scrape_interval: 1s, static_configs: [{{ targets: ['{at}'] }}] }}]"
    );
    fs::write(wd.path("prometheus.yml"), config).expect("a file of ours");
    let path = |name: &str| wd.path(name).to_str().expect("a path of ours").to_owned();
    let arguments = [
        "prometheus".to_owned(),
        format!("--config.file={}", path("prometheus.yml")),
        format!("--storage.tsdb.path={}", path("prometheus")),
        format!("--web.listen-address={asked}"),
    ];
    let prometheus = program("prometheus", &arguments.each_ref().map(String::as_str))
        .key(&format!("ready = {{ http = \"http://{asked}/-/ready\" }}"));
    let mut wd = wd;
    wd.configure(
        "",
        &[
            logging(at),
            prometheus,
            sample("counter").settings("step = 1"),
            sample("bumper").settings("rate = 50"),
        ],
    );
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    // What was gathered a moment ago may be of before that.
    let text = wd.until_some("all are seen to be ready, and messages are measured", || {
        let text = metrics(&wd, at);
        let lane = [("sender", "bumper"), ("receiver", "counter")];
        let measured = sum(&text, "watchdog_lane_propagation_seconds_count", &lane);
        let ready = sum(&text, "watchdog_service_phase", &[("phase", "ready")]);
        (measured > Some(0.0) && ready == Some(4.0)).then_some(text)
    });
    assert_eq!(judged(&text), "exit status: 0");
    let seen = wd.status();
    let of = |name: &str, labels: &[(&str, &str)]| sum(&text, name, labels);
    for service in ["logging", "prometheus", "counter", "bumper"] {
        let its = [("service", service)];
        assert_eq!(of("watchdog_service_phase", &[its[0], ("phase", "ready")]), Some(1.0), "{service}");
        assert_eq!(of("watchdog_service_phase", &its), Some(1.0), "{service} is in one phase");
        assert_eq!(of("watchdog_service_starts_total", &its), Some(1.0), "{service}");
        for name in ["uptime_seconds", "memory_usage_bytes", "descriptors"] {
            assert!(of(&format!("watchdog_service_{name}"), &its) > Some(0.0), "{service}: {name}");
        }
        assert!(of("watchdog_service_cpu_time_seconds_total", &its).is_some(), "{service}");
    }
    let descriptors = of("watchdog_service_descriptors", &[("service", "counter")]).expect("it is there");
    let folder =
        fs::read_dir(format!("/proc/{}/fd", seen.of("counter").process().pid)).expect("its descriptors");
    assert!((descriptors - folder.count() as f64).abs() <= 3.0, "{descriptors}");
    assert_eq!(of("watchdog_service_settings_revision", &[("service", "counter")]), Some(1.0));
    assert!(of("watchdog_service_state_size_bytes", &[("service", "counter")]) > Some(0.0));
    // What Prometheus has of it, by its own words.
    let query = "watchdog_service_phase{service=\"counter\",phase=\"ready\"}";
    let value = wd.until_some("Prometheus answers with a value of the counter", || {
        let answer = Command::new("promtool")
            .args(["query", "instant", "-o", "json", &format!("http://{asked}"), query])
            .output()
            .expect("promtool runs");
        let found: Value = serde_json::from_slice(&answer.stdout).ok()?;
        Some(found.get(0)?.get("value")?.get(1)?.as_str()?.to_owned())
    });
    assert_eq!(value, "1");
}

#[test]
fn records_that_came_are_written_dropped_or_wait_and_one_gathering_shows_it() {
    let at = free();
    let wd = TestWatchdog::run(&[logging(at), puppet("a", ByItself).key("requires = [\"logging\"]")]);
    wd.until("both are ready", Seen::all_ready);
    // In the middle of it, and when all is done.
    for (count, is_done) in [(50_000, false), (1, true)] {
        wd.puppet("a").does(Order::Inform { text: "one".into(), count });
        wd.until_some("what came is what was written, dropped and waits", || {
            let text = metrics(&wd, at);
            let of = |name: &str, labels: &[(&str, &str)]| sum(&text, name, labels).unwrap_or_default();
            let file = [("output", "file")];
            let became = of("watchdog_log_output_written_total", &file)
                + of("watchdog_log_output_dropped_total", &file)
                + of("watchdog_log_output_waiting", &file);
            assert_eq!(of("watchdog_log_received_total", &[]), became, "{text}");
            let [received, lost] = ["watchdog_log_received_total", "watchdog_log_lost_total"]
                .map(|name| of(name, &[("service", "a")]));
            let told = if is_done { 50_001.0 } else { 1.0 };
            (received + lost >= told).then_some(())
        });
    }
}

#[test]
fn without_a_grant_there_is_what_the_service_counts_and_status_says_what_is_missing() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("its address");
    let outputs = format!(
        "outputs.file.kind = \"file\"\noutputs.scrape = {{ kind = \"prometheus\", listen = \"{at}\" }}"
    );
    let wd =
        TestWatchdog::run(&[sample("logging").settings(&outputs), sample("counter").settings("step = 1")]);
    let says = |words: String| {
        wd.until(&format!("it says {words:?}"), |seen| match &seen.of("logging").health {
            Health::Degraded { reason } => *reason == words,
            Health::Ok | Health::Failing { .. } => false,
        })
    };
    says(format!("output `scrape`: cannot listen at {at}: address in use"));
    drop(taken);
    says(format!("output `scrape`: metrics are not all there: expected in this service's table: {GRANT}"));
    let text = metrics(&wd, at);
    assert!(series(&text).iter().all(|(name, ..)| name.starts_with("watchdog_log_")), "{text}");
    assert_eq!(judged(&text), "exit status: 0");
    let said = wd.cli(&["set", "logging", "outputs.scrape.listen=0.0.0.0:9464"]);
    assert!(said.code != 0 && said.stderr.contains("of the loopback"), "{said}");
}

#[test]
fn a_core_that_does_not_answer_costs_a_scrape_its_answer_and_no_record() {
    let at = free();
    let wd = TestWatchdog::run(&[logging(at), puppet("a", ByItself).key("requires = [\"logging\"]")]);
    wd.until("both are ready", Seen::all_ready);
    metrics(&wd, at);
    let core = wd.core();
    let puppet = wd.puppet("a");
    core.signal(Signal::SIGSTOP);
    let refused = std::thread::scope(|scope| {
        let scrape = scope.spawn(|| {
            // What was gathered a moment ago is still there.
            wd.until_some("it is told", || get(at).filter(|(status, _)| *status != 200))
        });
        puppet.does(Order::Inform { text: "meanwhile".into(), count: 1 });
        let file = wd.path(".watchdog/logs/records/a.jsonl");
        wd.until_some("it is written", || {
            fs::read_to_string(&file).ok()?.contains("meanwhile").then_some(())
        });
        scrape.join().expect("an answer")
    });
    core.signal(Signal::SIGCONT);
    assert_eq!(refused, (503, "the watchdog did not answer within 5 s\n".to_owned()));
    metrics(&wd, at);
}

#[test]
fn a_restart_is_counted_once_by_its_reason_whoever_is_killed_when() {
    let at = free();
    let always = |entry: Entry| entry.key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[always(logging(at)), always(puppet("a", ByItself))]);
    wd.until("both are ready", Seen::all_ready);
    let kill = |name: &str| {
        let killed = wd.kill(name, Signal::SIGKILL);
        wd.until("the next one is ready", |seen| seen.of(name).is_ready_after(killed));
    };
    let mut kills = 0;
    for _ in 0..3 {
        kill("a");
        kills += 1;
        kill("logging");
        kill("a");
        kills += 1;
        wd.kill_core();
    }
    wd.cli(&["restart", "a"]).ok();
    let restarts = |text: &str, service: &str, reason: &str| {
        sum(text, "watchdog_service_restarts_total", &[("service", service), ("reason", reason)])
    };
    let text = wd.until_some("the last one is counted", || {
        let text = metrics(&wd, at);
        restarts(&text, "a", "operator").map(|_| text)
    });
    assert_eq!(restarts(&text, "a", "operator"), Some(1.0), "{text}");
    assert_eq!(restarts(&text, "a", "signal"), Some(f64::from(kills)), "{text}");
    assert_eq!(restarts(&text, "logging", "signal"), Some(3.0), "{text}");
    assert_eq!(sum(&text, "watchdog_core_starts_total", &[]), Some(4.0));
}
