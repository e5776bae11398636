//! What happens in the watchdog is on record beside what its services say.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use serde_json::Value;
use watchdog_protocol::control::{Greeting, frame};
use watchdog_protocol::session::Health;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::puppet;
use watchdog_tests::{Entry, GRANT, Seen, TestWatchdog, sample};

/// A logging service with this line in its table, and a puppet.
fn start(key: &str) -> TestWatchdog {
    let logging: Entry = sample("logging").key(key);
    let quick = puppet("a", ByItself).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    let wd = TestWatchdog::run(&[logging, quick]);
    wd.until("both are ready", Seen::all_ready);
    wd
}

/// The records of the watchdog, as they are in its file.
fn records(wd: &TestWatchdog) -> Vec<Value> {
    let text = fs::read_to_string(wd.path(".watchdog/logs/records/watchdog.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn numbers(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["number"].as_u64().expect("each has a number")).collect()
}

/// Waits until the file has what the event log has by now.
fn written(wd: &TestWatchdog) -> Vec<Value> {
    let newest = wd.events().last().expect("there are events").number;
    wd.until_some(&format!("entry {newest} is on record"), || {
        let records = records(wd);
        numbers(&records).last().is_some_and(|last| *last >= newest).then_some(records)
    })
}

fn of<'r>(records: &'r [Value], what: &str, service: &str) -> Vec<&'r Value> {
    let target = format!("watchdog::{what}");
    let like = |record: &&Value| record["target"] == *target && record["fields"]["service"] == service;
    records.iter().filter(like).collect()
}

fn kill(wd: &TestWatchdog, service: &str) {
    let killed = wd.kill(service, Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of(service).is_ready_after(killed));
}

#[test]
fn an_end_and_the_next_start_are_on_the_timeline_once_each() {
    let wd = start(GRANT);
    kill(&wd, "a");
    let records = written(&wd);
    let ended = of(&records, "ended", "a");
    let [ended] = ended[..] else { panic!("{ended:#?}") };
    assert_eq!(
        (&ended["service"], &ended["kind"], &ended["level"]),
        (&"watchdog".into(), &"event".into(), &"WARN".into())
    );
    let fields = &ended["fields"];
    assert_eq!(
        (&fields["incarnation"], &fields["cause"], &fields["signal"]),
        (&1.into(), &"signal".into(), &9.into())
    );
    let starts: Vec<_> =
        of(&records, "starting", "a").iter().map(|start| &start["fields"]["incarnation"]).collect();
    assert_eq!(starts, [&Value::from(1), &Value::from(2)]);
    // From before the logging service itself was there.
    assert_eq!(numbers(&records)[0], 1);

    for arguments in [&["logs", "watchdog"][..], &["logs", "-n", "1000"]] {
        let shown = wd.cli(arguments).ok().stdout;
        let line = shown.lines().find(|line| line.contains("watchdog::ended")).unwrap_or_default();
        assert!(line.contains("SIGKILL") && line.contains("service=a"), "{shown}");
        assert_eq!(shown.lines().filter(|line| line.contains("watchdog::ended")).count(), 1, "{shown}");
    }
}

#[test]
fn a_change_of_settings_is_on_the_timeline_with_its_revision() {
    let wd = start(GRANT);
    wd.cli(&["set", "logging", "filter.a=warn"]).ok();
    wd.until_event("it is in force", |event| event.text.ends_with("revision 2 is in force"));
    let records = written(&wd);
    let changes = of(&records, "settings", "logging");
    assert!(
        changes
            .iter()
            .any(|change| change["fields"]["by"].as_str().is_some_and(|by| by.contains("operator"))),
        "{changes:#?}"
    );
    assert!(
        changes.iter().any(|change| change["fields"]["revision"] == 2
            && change["message"] == "settings revision 2 is in force"),
        "{changes:#?}"
    );
}

#[test]
fn each_event_is_on_record_once_whoever_is_killed_meanwhile() {
    let wd = start(GRANT);
    for round in 0..4 {
        for _ in 0..10 {
            kill(&wd, "a");
        }
        wd.kill("logging", Signal::SIGKILL);
        kill(&wd, "a");
        if round % 2 == 0 {
            wd.kill_core();
        }
        kill(&wd, "a");
        wd.until("all are ready", Seen::all_ready);
    }
    let newest = wd.events().last().expect("there are events").number;
    let records = written(&wd);
    let found = numbers(&records);
    assert!(found.is_sorted(), "{found:?}");
    let expected: Vec<_> = (1..=newest).collect();
    assert_eq!(found[..expected.len()], expected);
    for (event, record) in wd.events().iter().zip(&records) {
        assert_eq!((&record["number"], &record["message"]), (&event.number.into(), &(*event.text).into()));
    }
}

#[test]
fn what_comes_again_to_a_logging_service_without_its_state_is_known_by_the_file() {
    let wd = start(GRANT);
    kill(&wd, "a");
    let before = written(&wd);
    wd.cli(&["stop", "logging"]).ok();
    wd.cli(&["state", "reset", "logging"]).ok();
    wd.cli(&["start", "logging"]).ok();
    kill(&wd, "a");
    let found = numbers(&written(&wd));
    assert!(found.len() > before.len());
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn an_event_log_that_began_anew_is_recorded_from_its_beginning() {
    let mut wd = start(GRANT);
    kill(&wd, "a");
    written(&wd);
    wd.stop();
    fs::remove_file(wd.path(".watchdog/logs/events.jsonl")).expect("the log goes");
    wd.run_again();
    wd.until("both are ready", Seen::all_ready);
    let anew = wd.until_some("the other log is on record", || {
        let anew: Vec<_> = records(&wd).into_iter().filter(|record| record["incarnation"] == 2).collect();
        let newest = wd.events().last().expect("there are events").number;
        (numbers(&anew).last() == Some(&newest)).then_some(anew)
    });
    assert_eq!(numbers(&anew), (1..=anew.len() as u64).collect::<Vec<_>>());
}

#[test]
fn all_that_an_old_event_log_holds_is_recorded_when_the_logging_service_first_starts() {
    const OLD: u64 = 9_000;
    let mut wd = TestWatchdog::idle();
    let line = |number| {
        format!(
            "{{\"number\":{number},\"at_us\":{number},\"service\":null,\"incarnation\":null,\"what\":\"started\",\
             \"cause\":null,\"text\":\"entry {number}\",\"revision\":null,\"sequence\":null}}\n"
        )
    };
    fs::create_dir_all(wd.path(".watchdog/logs")).expect("the folder of logs");
    let old: String = (1..=OLD).map(line).collect();
    fs::write(wd.path(".watchdog/logs/events.jsonl"), old).expect("an event log");
    wd.configure("", &[sample("logging").key(GRANT)]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    let records = written(&wd);
    assert_eq!(numbers(&records)[..OLD as usize], (1..=OLD).collect::<Vec<_>>());
    assert!(numbers(&records).is_sorted_by(|a, b| b - a == 1));
    assert_eq!(records[8].get("message"), Some(&"entry 9".into()));
    assert_eq!(wd.status().of("logging").starts, 1);
}

#[test]
fn without_a_grant_for_events_there_is_no_timeline_which_is_said() {
    for key in ["", "control = [\"status\"]"] {
        let wd = start(key);
        kill(&wd, "a");
        wd.until_some("it is said", || {
            let said = wd.cli(&["logs", "logging"]).ok().stdout;
            said.contains("expected in its table: control = [\"events\"]").then_some(())
        });
        assert_eq!(records(&wd), [] as [Value; 0]);
        assert_eq!(wd.status().of("logging").health, Health::Ok);
        assert_ne!(wd.cli(&["logs", "watchdog"]).code, 0);
    }
}

#[test]
fn the_timeline_has_a_filter_like_any_service() {
    let wd = start(GRANT);
    written(&wd);
    wd.cli(&["set", "logging", "filter.watchdog=warn"]).ok();
    let before = wd.events().last().expect("there are events").number;
    kill(&wd, "a");
    let targets = |wd: &TestWatchdog| -> BTreeSet<String> {
        let after = records(wd).into_iter().filter(|record| record["number"].as_u64() > Some(before));
        after
            .map(|record| {
                format!("{} {}", record["level"].as_str().unwrap(), record["target"].as_str().unwrap())
            })
            .collect()
    };
    wd.until_some("the end is on record", || targets(&wd).contains("WARN watchdog::ended").then_some(()));
    wd.cli(&["set", "logging", "filter.watchdog=warn,watchdog::ready=info"]).ok();
    kill(&wd, "a");
    wd.until_some("a ready is on record", || targets(&wd).contains("INFO watchdog::ready").then_some(()));
    let seen = targets(&wd);
    assert!(!seen.contains("INFO watchdog::starting"), "{seen:?}");
    assert!(records(&wd).iter().all(|record| record["kind"] == "event"), "what is filtered is no drop");
    let said = wd.cli(&["set", "logging", "filter.watchdog=info,a[b]=warn"]);
    assert_ne!(said.code, 0, "{said}");
    for word in ["filter.watchdog", "a[b]=warn", "character 6", "about spans"] {
        assert!(said.stderr.contains(word), "{word} is not in it: {said}");
    }
}

#[test]
fn what_the_core_warns_of_is_an_event_and_on_record() {
    let wd = start(GRANT);
    fs::remove_file(wd.path(".watchdog/run/watchdog.sock")).expect("the socket goes");
    let warning = wd.until_event("it is told", |event| event.what == "warning");
    assert!(warning.text.starts_with("the control socket was deleted; it is back path="), "{warning:?}");
    let shown = wd.cli(&["events"]).ok().stdout;
    assert!(shown.contains(&warning.text), "{shown}");
    let records = written(&wd);
    let warned: Vec<_> = records.iter().filter(|record| record["target"] == "watchdog::warning").collect();
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert_eq!((&warned[0]["level"], &warned[0]["message"]), (&"WARN".into(), &(*warning.text).into()));
    // Once on the console too: it was said there before it was an event.
    assert_eq!(wd.output().matches("the control socket was deleted").count(), 1, "{}", wd.output());
}

#[test]
fn what_the_core_is_made_to_say_all_the_time_leaves_the_history_in_the_log() {
    let wd = start(GRANT);
    for _ in 0..500 {
        let mut connection =
            UnixStream::connect(wd.path(".watchdog/run/watchdog.sock")).expect("the socket accepts");
        connection.write_all(&frame(&Greeting::ours())).expect("it is read");
        connection.write_all(&[3, 0, 0, 0, 0xff, 0xff, 0xff]).expect("it is read");
        // Until it is closed, and that was said.
        let _end = connection.read_to_end(&mut Vec::new());
    }
    wd.cli(&["stop", "a"]).ok();
    let said = "a control connection was closed";
    assert_eq!(wd.output().matches(said).count(), 500);
    let events = wd.events();
    let noted = events.iter().filter(|event| event.text.starts_with(said)).count();
    assert!((1..=5).contains(&noted), "{noted}");
    assert!(events.iter().any(|event| event.what == "started"));
}
