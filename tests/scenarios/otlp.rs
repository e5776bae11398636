//! What services say arrives at a collector of OpenTelemetry that others have written.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::TcpListener;
use std::path::PathBuf;

use watchdog_protocol::session::Health;
use watchdog_tests::{Seen, TestWatchdog, logging_service, program, sample};

/// As `tests/install` has it, below the target folder.
const ROTEL: &str = "tools/rotel-0.0.1a15/rotel/rotel-agent";

fn rotel() -> PathBuf {
    let this = env::current_exe().expect("the path of the running test");
    let target = this.ancestors().nth(3).expect("target/PROFILE/deps");
    let program = target.join(ROTEL);
    assert!(program.is_file(), "there is no {}: tests/install brings it", program.display());
    program
}

/// The services of each trace, as the collector printed them.
fn traces(printed: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (mut traces, mut service) = (BTreeMap::<_, BTreeSet<_>>::new(), String::new());
    let mut is_span = false;
    for line in printed.lines() {
        if let Some((_, name)) = line.split_once("service.name: Str(") {
            service = name.trim_end_matches(')').to_owned();
        }
        is_span = (is_span || line.contains("Span #")) && !line.contains("LogRecord #");
        if let Some((_, id)) = line.split_once("Trace ID")
            && is_span
        {
            let id = id.trim_start_matches([' ', ':']).trim().to_owned();
            traces.entry(id).or_default().insert(service.clone());
        }
    }
    traces
}

fn trouble(seen: &Seen) -> Option<String> {
    match &seen.of("logging").health {
        Health::Degraded { reason } => Some(reason.clone()),
        Health::Ok | Health::Failing { .. } => None,
    }
}

#[test]
fn a_call_between_two_services_is_one_trace_at_the_collector_with_metrics_which_may_be_away_for_a_while() {
    let ports = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [grpc, http] = ports.map(|listener| listener.local_addr().expect("its address").to_string());
    let program_path = rotel();
    let arguments = [
        program_path.to_str().expect("a path of ours"),
        "start",
        "--exporter=blackhole",
        "--debug-log=logs",
        "--debug-log=traces",
        "--debug-log=metrics",
        "--debug-log-verbosity=detailed",
        &format!("--otlp-grpc-endpoint={grpc}"),
        &format!("--otlp-http-endpoint={http}"),
    ];
    let outputs = format!(
        "outputs = {{ far = {{ kind = \"otlp\", endpoint = \"http://{grpc}\", batch_interval = \"50ms\", \
         metrics_interval = \"1s\", headers = {{ authorization = \"Bearer canary\" }} }} }}"
    );
    let wd = TestWatchdog::run(&[
        program("rotel", &arguments).key(&format!("ready = {{ tcp = \"{grpc}\" }}")),
        logging_service().settings(&outputs),
        sample("counter").settings("step = 1"),
        sample("bumper").settings("rate = 5"),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let printed = || wd.cli(&["logs", "rotel", "-n", "1000000"]).ok().stdout;
    let both = BTreeSet::from(["bumper".to_owned(), "counter".to_owned()]);
    wd.until_some("a trace of both", || {
        traces(&printed()).values().any(|found| *found == both).then_some(())
    });
    for metric in ["watchdog.service.cpu.time", "watchdog.lane.propagation", "watchdog.log.output.written"] {
        wd.until_some(&format!("{metric} is there"), || printed().contains(metric).then_some(()));
    }
    // Nobody is shown the token.
    for args in [&["get", "logging"][..], &["status", "--json"], &["logs", "logging", "-n", "1000"]] {
        let said = wd.cli(args).ok();
        assert!(!said.stdout.contains("canary"), "{args:?}: {}", said.stdout);
    }
    wd.cli(&["stop", "rotel"]).ok();
    let seen = wd.until("the output says so", |seen| trouble(seen).is_some());
    let reason = trouble(&seen).expect("it does");
    let begin = format!("output `far`: otlp http://{grpc}: ");
    assert!(reason.starts_with(&begin) && reason.contains(" records wait, "), "{reason}");
    wd.cli(&["start", "rotel"]).ok();
    wd.until("the output works again", |seen| seen.of("logging").health == Health::Ok);
}
