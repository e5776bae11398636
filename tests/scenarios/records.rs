//! What services have to say: from their records to files, traces and what an operator is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use watchdog_tests::{Entry, Seen, TestWatchdog, logging_service, probe};

fn relay(name: &str) -> Entry {
    probe(name, "relay", &[]).with_session()
}

/// A watchdog with a logging service and these relays.
fn logged(relays: &[Entry]) -> TestWatchdog {
    let wd = TestWatchdog::run(&[&[logging_service()], relays].concat());
    wd.until("all are ready", Seen::all_ready);
    wd
}

fn send(wd: &TestWatchdog, service: &str, message: &str) -> String {
    wd.cli(&["send", service, message]).ok().stdout
}

/// The records of a service, as they are in its files.
fn records(wd: &TestWatchdog, service: &str) -> Vec<Value> {
    let said = wd.cli(&["logs", service, "-n", "1000000", "--spans", "--json"]).ok();
    let lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["kind"].is_string()).collect()
}

/// Waits until the records of a service are as they should be.
fn until(wd: &TestWatchdog, service: &str, what: &str, are: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    wd.until_some(what, || Some(records(wd, service)).filter(|records| are(records)))
}

fn events<'r>(records: &'r [Value], message: &str) -> Vec<&'r Value> {
    records.iter().filter(|record| record["message"] == message).collect()
}

fn spans(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["kind"] == "span").collect()
}

/// What was printed on standard error.
fn printed(wd: &TestWatchdog, service: &str) -> String {
    let log = wd.path(&format!(".watchdog/logs/{service}.log"));
    fs::read_to_string(log).unwrap_or_default()
}

#[test]
fn a_request_through_four_services_is_one_trace_with_the_right_parents() {
    let chain =
        [relay("a").env("NEXT", "b"), relay("b").env("NEXT", "c"), relay("c").env("NEXT", "d"), relay("d")];
    let wd = logged(&chain);
    assert_eq!(send(&wd, "a", r#"{"Pass": {}}"#).trim(), "4");
    let mut all = Vec::new();
    for (service, count) in [("a", 2), ("b", 2), ("c", 2), ("d", 1)] {
        all.extend(until(&wd, service, "its spans are written", |records| spans(records).len() == count));
    }
    let ids: BTreeSet<_> = spans(&all).iter().map(|span| span["trace_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{all:#?}");
    let id = ids.first().unwrap();

    // Up from the last to the first, whose parent nobody is.
    let of = |id: &Value| spans(&all).into_iter().find(|span| span["span_id"] == *id).cloned();
    let passes = all.iter().find(|record| record["service"] == "d" && record["message"] == "passes").unwrap();
    assert_eq!(passes["trace_id"], **id);
    let mut path = Vec::new();
    let mut span = of(&passes["span_id"]);
    while let Some(found) = span {
        path.push(format!("{} {}", found["service"].as_str().unwrap(), found["name"].as_str().unwrap()));
        span = found.get("parent_id").and_then(of);
    }
    let expected = [
        "d ask from c",
        "c ask d",
        "c ask from b",
        "b ask c",
        "b ask from a",
        "a ask b",
        "a ask from operator",
    ];
    assert_eq!(path, expected);

    // And so it is shown.
    let shown = wd.cli(&["trace", id]).ok().stdout;
    assert!(shown.starts_with(&format!("trace {id}: 7 spans of 4 services, from ")), "{shown}");
    let deepest = shown.lines().rfind(|line| line.contains("passes")).unwrap();
    assert!(deepest.contains("  d  INFO") && deepest.contains("passes"), "{shown}");
    let nearly = format!("{}0", &id[..31]);
    let unknown = if nearly == **id { format!("{}1", &id[..31]) } else { nearly };
    let said = wd.cli(&["trace", &unknown]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("no record of the trace"), "{said}");
}

#[test]
fn what_is_told_is_a_trace_of_its_own_that_links_to_its_teller() {
    let wd = logged(&[relay("a").env("NEXT", "b"), relay("b")]);
    send(&wd, "a", r#"{"Tell": {}}"#);
    let of_a = until(&wd, "a", "its span is written", |records| spans(records).len() == 1);
    let of_b = until(&wd, "b", "its span is written", |records| spans(records).len() == 1);
    let (teller, told) = (spans(&of_a)[0], spans(&of_b)[0]);
    assert_eq!((&teller["span_kind"], &told["span_kind"]), (&"consumer".into(), &"consumer".into()));
    assert_ne!(teller["trace_id"], told["trace_id"]);
    assert_eq!(told["links"][0]["span_id"], teller["span_id"]);
    assert_eq!(told["links"][0]["trace_id"], teller["trace_id"]);
    let shown = wd.cli(&["trace", teller["trace_id"].as_str().unwrap()]).ok().stdout;
    assert!(shown.contains("led to b span tell from a"), "{shown}");
}

#[test]
fn a_filter_changes_while_its_service_runs_and_back() {
    let wd = logged(&[relay("a"), relay("b")]);
    let before = wd.status().of("a").incarnation;
    let levels = |service: &str, filter: &str, expected: &[&str]| {
        // The filter may be applied a moment after the acknowledgement: it is a level that is waited for.
        wd.until_some(&format!("{service} records by `{filter}`"), || {
            let seen = records(&wd, service).len();
            send(&wd, service, r#"{"Levels": {}}"#);
            let all = until(&wd, service, "an error is written", |records| {
                records.iter().skip(seen).any(|record| record["level"] == "ERROR")
            });
            let new = events(&all[seen..], "level");
            let levels: Vec<_> = new.iter().map(|event| event["level"].as_str().unwrap()).collect();
            (levels == expected).then_some(())
        });
    };
    levels("a", "info", &["ERROR", "WARN", "INFO"]);
    wd.cli(&["set", "logging", "filter.a=debug"]).ok();
    levels("a", "debug", &["ERROR", "WARN", "INFO", "DEBUG"]);
    levels("b", "info", &["ERROR", "WARN", "INFO"]);
    wd.cli(&["set", "logging", "filter.a=error"]).ok();
    levels("a", "error", &["ERROR"]);
    wd.cli(&["unset", "logging", "filter.a"]).ok();
    levels("a", "info", &["ERROR", "WARN", "INFO"]);
    let said = wd.cli(&["set", "logging", "filter.a=debug,a=loud"]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("filter.a") && said.stderr.contains("loud"), "{said}");
    levels("a", "info", &["ERROR", "WARN", "INFO"]);
    assert_eq!(wd.status().of("a").incarnation, before, "nobody was restarted");
    // What a field says while it is shown is a record of its own, and harms none.
    let all = records(&wd, "a");
    assert!(!events(&all, "from within").is_empty());
    let errors = all.iter().filter(|record| record["level"] == "ERROR");
    assert!(errors.into_iter().all(|event| event["fields"]["who"] == "talker"), "{all:#?}");
}

#[test]
fn records_outlive_the_death_of_the_logging_service_once_each() {
    const LINES: u64 = 20_000;
    const PART: u64 = 500;
    let wd = logged(&[relay("a")]);
    let mut said = 0;
    for part in 0..LINES / PART {
        let message = format!(r#"{{"Say": {{"first": {}, "count": {PART}}}}}"#, part * PART);
        send(&wd, "a", &message);
        said += PART;
        if part % 10 == 5 {
            wd.kill("logging", Signal::SIGKILL);
        }
    }
    let dropped = |records: &[Value]| -> u64 {
        let of = |record: &Value| (record["kind"] == "dropped").then(|| record["count"].as_u64().unwrap());
        records.iter().filter_map(of).sum()
    };
    let all = until(&wd, "a", "all are written or counted", |records| {
        events(records, "line").len() as u64 + dropped(records) >= said
    });
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for event in events(&all, "line") {
        *times.entry(event["fields"]["number"].as_u64().unwrap()).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "some are there twice");
    assert_eq!(times.len() as u64 + dropped(&all), said);
    let numbers: Vec<_> = all.iter().filter_map(|record| record["number"].as_u64()).collect();
    assert!(numbers.is_sorted(), "in the order they were made");
}

#[test]
fn events_go_to_standard_error_while_there_is_no_logging_service() {
    let wd = TestWatchdog::run(&[relay("a")]);
    wd.until("it is ready", Seen::all_ready);
    send(&wd, "a", r#"{"Say": {"first": 1, "count": 1}}"#);
    wd.until_some("it is printed", || printed(&wd, "a").contains("line number=1").then_some(()));
    assert!(
        printed(&wd, "a").contains("err  INFO") && !printed(&wd, "a").contains("WARN"),
        "{}",
        printed(&wd, "a")
    );

    let table = wd.path("logging.toml");
    fs::write(&table, logging_service().render(wd.folder())).unwrap();
    wd.cli(&["register", table.to_str().unwrap()]).ok();
    wd.until("both are ready", Seen::all_ready);
    wd.until_some("what is said is a record", || {
        send(&wd, "a", r#"{"Say": {"first": 2, "count": 1}}"#);
        (!events(&records(&wd, "a"), "line").is_empty()).then_some(())
    });
    // A core that takes over changes nothing of it, also for a service that starts then.
    wd.kill_core();
    wd.kill("a", Signal::SIGKILL);
    until(&wd, "a", "its next process is on record from the beginning", |records| {
        events(records, "begins").iter().any(|event| event["fields"]["incarnation"] == 2)
    });

    wd.cli(&["stop", "logging"]).ok();
    wd.cli(&["unregister", "logging"]).ok();
    wd.until_some("what is said is printed again", || {
        send(&wd, "a", r#"{"Say": {"first": 3, "count": 1}}"#);
        printed(&wd, "a").contains("line number=3").then_some(())
    });
}

#[test]
fn a_panic_and_what_led_to_it_are_on_record() {
    let wd = logged(&[relay("a")]);
    send(&wd, "a", r#"{"Panic": {}}"#);
    let all =
        until(&wd, "a", "the panic is written", |records| !events(records, "as it was told").is_empty());
    let panic = events(&all, "as it was told")[0];
    assert_eq!((&panic["level"], &panic["target"]), (&"ERROR".into(), &"panic".into()));
    assert!(panic["trace_id"].is_string(), "{panic:#}");
}

#[test]
fn logs_are_read_by_level_expression_and_time_together_with_what_was_printed() {
    let wd = logged(&[relay("a"), probe("talker", "talker", &["lines", "1"])]);
    send(&wd, "a", r#"{"Levels": {}}"#);
    until(&wd, "a", "all are written", |records| events(records, "level").len() == 3);
    let text = |args: &[&str]| wd.cli(&[&["logs"], args].concat()).ok().stdout;
    let warnings = text(&["a", "--level", "warn"]);
    assert_eq!(warnings.lines().count(), 2, "{warnings}");
    assert!(warnings.contains("ERROR") && warnings.contains("who=talker"), "{warnings}");
    let found = text(&["--grep", "begins|line 1"]);
    assert!(found.contains("begins") && found.contains("out  line 1"), "{found}");
    assert_eq!(text(&["a", "--until", "1h"]), "", "nothing is so old");
    assert!(text(&["a", "--since", "1h"]).lines().count() >= 4);
    let said = wd.cli(&["logs", "--since", "yesterday"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("expected"), "{said}");
}
