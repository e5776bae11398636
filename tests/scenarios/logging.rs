//! The logging service: what services say goes where its settings say, whoever is killed meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;
use watchdog_protocol::session::Health;
use watchdog_protocol::status::EventRecord;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Entry, Seen, TestWatchdog, logging_service};

/// A logging service with these settings, and a puppet that has something to say.
fn start(settings: &str) -> TestWatchdog {
    let logging: Entry = logging_service().settings(settings);
    let wd = TestWatchdog::run(&[logging, puppet("a", ByItself).key("requires = [\"logging\"]")]);
    wd.until("both are ready", Seen::all_ready);
    wd
}

/// Below the folder of logs.
fn path(wd: &TestWatchdog, name: &str) -> PathBuf {
    wd.path(".watchdog/logs").join(name)
}

/// All whole lines of a file of records.
fn records(wd: &TestWatchdog, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(wd, file)).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn is_there(wd: &TestWatchdog, file: &str, message: &str) -> bool {
    records(wd, file).iter().any(|record| record["message"] == message)
}

fn inform(wd: &TestWatchdog, text: &str) {
    wd.puppet("a").does(Order::Inform { text: text.into(), count: 1 });
}

/// Says something until it is in the file: all that was said before is there then, or counted as dropped.
fn said(wd: &TestWatchdog, file: &str, text: &str) {
    wd.until_some(&format!("`{text}` is in {file}"), || {
        inform(wd, text);
        is_there(wd, file, text).then_some(())
    });
}

/// Whether what the puppet says at level debug is recorded now.
fn hears_debug(wd: &TestWatchdog, file: &str, at: u32) -> bool {
    let text = format!("debug {at}");
    wd.puppet("a").does(Order::Debug { text: text.clone() });
    said(wd, file, &format!("info {at}"));
    is_there(wd, file, &text)
}

#[test]
fn what_a_service_says_is_in_its_file() {
    let wd = start("");
    wd.puppet("a").does(Order::Inform { text: "hello".into(), count: 3 });
    said(&wd, "records/a.jsonl", "the end");
    let all = records(&wd, "records/a.jsonl");
    let hello: Vec<_> = all.iter().filter(|record| record["message"] == "hello").collect();
    assert_eq!(
        hello.iter().map(|record| record["fields"]["n"].as_u64()).collect::<Vec<_>>(),
        [1, 2, 3].map(Some)
    );
    let process = wd.status().of("a").process();
    for record in hello {
        assert_eq!(
            (&record["service"], &record["kind"], &record["level"]),
            (&"a".into(), &"event".into(), &"INFO".into())
        );
        assert_eq!((&record["incarnation"], &record["pid"]), (&1.into(), &process.pid.into()));
    }
}

#[test]
fn a_kill_of_the_logging_service_neither_loses_nor_doubles_a_record() {
    const ROUNDS: u64 = 4;
    const COUNT: u32 = 5_000;
    let wd = start("");
    for round in 1..=ROUNDS {
        let text = format!("round {round}");
        wd.puppet("a").does(Order::Inform { text: text.clone(), count: COUNT });
        wd.until_some("some of it is written", || is_there(&wd, "records/a.jsonl", &text).then_some(()));
        let killed = wd.kill("logging", Signal::SIGKILL);
        wd.until("the next one is ready", |seen| seen.of("logging").is_ready_after(killed));
    }
    said(&wd, "records/a.jsonl", "the end");
    let all = records(&wd, "records/a.jsonl");
    let of = |round: u64| all.iter().filter(move |record| record["message"] == format!("round {round}"));
    let written: usize = (1..=ROUNDS).map(|round| of(round).count()).sum();
    let dropped: u64 = all.iter().filter_map(|record| record["count"].as_u64()).sum();
    let numbers: Vec<_> = all.iter().filter_map(|record| record["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| b - a == 1), "one after the other, each once");
    let different: BTreeSet<_> = (1..=ROUNDS)
        .flat_map(|round| of(round).map(move |record| (round, record["fields"]["n"].as_u64())))
        .collect();
    assert_eq!(different.len(), written);
    assert_eq!(written as u64 + dropped, ROUNDS * u64::from(COUNT));
}

#[test]
fn a_filter_changes_what_a_running_service_records_and_a_bad_one_changes_nothing() {
    let wd = start("");
    let file = "records/a.jsonl";
    assert!(!hears_debug(&wd, file, 1));
    wd.cli(&["set", "logging", "filter.a=info,watchdog_tests=debug"]).ok();
    wd.until_some("debug is heard", || hears_debug(&wd, file, 2).then_some(()));
    let said = wd.cli(&["set", "logging", "filter.a=info,watchdog_tests=dbug"]);
    assert_ne!(said.code, 0, "{said}");
    for word in ["filter.a", "watchdog_tests=dbug", "character 6", "TARGET=LEVEL"] {
        assert!(said.stderr.contains(word), "{word} is not in it: {said}");
    }
    assert!(hears_debug(&wd, file, 3));
    wd.cli(&["unset", "logging", "filter.a"]).ok();
    wd.until_some("debug is heard no more", || (!hears_debug(&wd, file, 4)).then_some(()));
    assert_eq!(wd.status().of("a").starts, 1);
}

#[test]
fn a_filter_with_an_end_goes_back_by_itself_also_when_the_logging_service_was_killed() {
    let wd = start("");
    let file = "records/a.jsonl";
    wd.cli(&["set", "logging", r#"filter.a={"directives": "debug", "for": "4s"}"#]).ok();
    let killed = wd.kill("logging", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("logging").is_ready_after(killed));
    wd.until_some("debug is heard", || hears_debug(&wd, file, 1).then_some(()));
    let mut at = 1;
    wd.until_some("debug is heard no more", || {
        at += 1;
        (!hears_debug(&wd, file, at)).then_some(())
    });
}

#[test]
fn an_output_that_fails_is_shown_and_works_again_by_itself() {
    let wd = start(
        "[service.logging.settings.outputs.bad]\npath = \"gone/{service}.jsonl\"\n[service.logging.settings.outputs.good]",
    );
    said(&wd, "records/a.jsonl", "first");
    said(&wd, "gone/a.jsonl", "first");
    // Somebody removes the folder, and puts a file in its place.
    fs::remove_dir_all(path(&wd, "gone")).expect("the folder goes");
    fs::write(path(&wd, "gone"), "").expect("a file in its place");
    let degraded = |seen: &Seen| match seen.of("logging").health.clone() {
        Health::Degraded { reason } => reason.contains("output `bad`: cannot make the folder"),
        Health::Ok | Health::Failing { .. } => false,
    };
    let seen = wd.until("it is shown", |seen| {
        inform(&wd, "second");
        degraded(seen)
    });
    assert!(seen.of("logging").is_ready());
    assert!(wd.cli(&["status", "logging"]).ok().stdout.contains("output `bad`"));
    said(&wd, "records/a.jsonl", "third");
    fs::remove_file(path(&wd, "gone")).expect("the file goes");
    wd.until("all is well again", |seen| seen.of("logging").health == Health::Ok);
    said(&wd, "gone/a.jsonl", "third");
}

#[test]
fn a_collector_that_says_nothing_holds_up_no_end_and_what_it_does_not_take_is_counted() {
    // It takes connections as far as the kernel does, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = silent.local_addr().expect("its address");
    let outputs =
        format!("outputs = {{ file = {{}}, silent = {{ kind = \"otlp\", endpoint = \"http://{at}\" }} }}");
    let mut wd = start(&outputs);
    wd.puppet("a").does(Order::Inform { text: "one of many".into(), count: 500 });
    said(&wd, "records/a.jsonl", "the last");
    wd.stop();
    let of_logging =
        |event: &EventRecord| event.service.as_ref().is_some_and(|name| name.as_str() == "logging");
    let ended = wd.events().into_iter().rfind(|event| of_logging(event) && event.what == "ended");
    assert!(ended.as_ref().is_some_and(|event| event.text.contains("ended in time")), "{ended:?}");
    let is_record = |record: &&Value| record["kind"] == "event" || record["kind"] == "span";
    let written = records(&wd, "records/a.jsonl").iter().filter(is_record).count();
    let printed = wd.cli(&["logs", "logging", "-n", "1000"]).ok().stdout;
    let counts =
        printed.lines().filter(|line| line.contains("dropped records") && line.contains("service=a "));
    let count = |line: &str| line.rsplit_once("count=")?.1.trim().parse::<usize>().ok();
    let dropped: usize = counts.map(|line| count(line).expect("a number")).sum();
    assert!(written > 500);
    assert_eq!(dropped, written, "{printed}");
}

#[test]
fn outputs_and_redaction_change_while_it_runs() {
    let wd = start("");
    said(&wd, "records/a.jsonl", "secret-12345 first");
    wd.cli(&["set", "logging", "outputs.file.max_size=64KiB", r#"redact=["secret-[0-9]+"]"#]).ok();
    wd.cli(&[
        "set",
        "logging",
        "outputs.screen.kind=console",
        "outputs.lines.path=all.log",
        "outputs.lines.format=logfmt",
    ])
    .ok();
    inform(&wd, "secret-12345 second");
    said(&wd, "records/a.jsonl", "later");
    assert!(is_there(&wd, "records/a.jsonl", "[redacted] second"));
    assert!(!is_there(&wd, "records/a.jsonl", "secret-12345 second"));
    wd.until_some("it is on the console", || {
        let said = wd.cli(&["logs", "logging", "-n", "100"]).ok();
        said.stdout.contains("[redacted] second").then_some(())
    });
    wd.until_some("it is in the other file", || {
        let text = fs::read_to_string(path(&wd, "all.log")).unwrap_or_default();
        text.contains("message=\"[redacted] second\"").then_some(())
    });
    for (wrong, words) in [
        ("outputs.file.max_size=big", ["outputs.file.max_size", "big"]),
        // Of an output of no known kind nobody knows what is secret: its value is not repeated.
        (
            "outputs.file.kind=printer",
            ["outputs.file.kind", "\"console\", \"journald\", \"otlp\" or \"prometheus\""],
        ),
        ("outputs.file.colour=red", ["outputs.file.colour", "unknown"]),
        (r#"redact=["("]"#, ["redact.0", "unclosed group"]),
    ] {
        let said = wd.cli(&["set", "logging", wrong]);
        assert!(said.code != 0 && words.iter().all(|word| said.stderr.contains(word)), "{said}");
    }
    said(&wd, "records/a.jsonl", "still here");
}
