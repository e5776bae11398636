//! Why a service is in the state it is in: the way back to the first cause, on real processes. And the bundle, which
//! has it with all else one asks for after that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use watchdog_protocol::status::{EventRecord, PhaseStatus, STATUS_VERSION, Status};
use watchdog_protocol::why::{Origin, Why};
use watchdog_tests::puppet::Manner::{ByHand, ByItself};
use watchdog_tests::puppet::{Order, Shown, puppet};
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

#[test]
fn a_crash_loop_is_told_by_its_first_and_last_failure_with_what_they_said() {
    let script = "echo starting >&2; echo \"no database\" >&2; exit 3";
    let wd = TestWatchdog::run(&[looping(program("c", &["sh", "-c", script]))]);
    given_up(&wd, "c");
    let why = why(&wd, "c");
    assert_eq!(why.version, STATUS_VERSION);
    let [failed, last, first] = &why.chain[..] else { panic!("{why:#?}") };
    assert!(failed.what.contains("crash loop: 6 failures within 60s"), "{failed:?}");
    assert_eq!(failed.cause.as_deref(), Some("limit"));
    assert_eq!([&last.last_lines, &first.last_lines], [&["starting", "no database"]; 2]);
    assert_eq!([last, first].map(|end| end.incarnation.map(|it| it.get())), [Some(6), Some(1)]);
    assert!(first.what.starts_with("the first of 6 failures"), "{first:?}");
    assert_eq!(first.exit.as_deref(), Some("exit code 3"));
    assert_eq!(first_cause(&why), "c: ended by itself with exit code 3");

    let said = wd.cli(&["why", "c"]).ok().stdout;
    let event = format!("event {}, process 1", first.event.expect("it is in the log"));
    for words in [&*event, "| no database", "first cause: c: ended by itself", "watchdog reset c"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

#[test]
fn a_chain_of_three_ends_in_the_one_that_crashes_and_its_last_line() {
    let crashes = looping(program("c", &["sh", "-c", "echo \"c can't open its index\" >&2; exit 1"]));
    let wd = TestWatchdog::run(&chain(crashes));
    given_up(&wd, "c");
    let why = why(&wd, "a");
    assert_eq!(whom(&why), ["a", "b", "c", "c", "c"]);
    assert!(why.chain[0].what.contains("requires `b`"), "{why:#?}");
    assert!(why.chain[1].what.contains("requires `c`, which has failed"), "{why:#?}");
    assert_eq!(why.chain.last().expect("it has links").last_lines, ["c can't open its index"]);
    assert_eq!(first_cause(&why), "c: ended by itself with exit code 1");
    let said = wd.cli(&["why", "a"]).ok().stdout;
    assert!(said.contains("| c can't open its index"), "{said}");
    assert!(said.contains("watchdog reset c"), "what is to be done is to be done to c\n{said}");
}

#[test]
fn a_chain_of_three_ends_in_the_one_whose_program_is_missing_with_step_and_path() {
    let wd = TestWatchdog::run(&chain(looping(program("c", &["/no/such/program"]))));
    given_up(&wd, "c");
    let why = why(&wd, "a");
    assert_eq!(why.chain.last().and_then(|link| link.cause.as_deref()), Some("spawn"));
    let words = first_cause(&why);
    assert!(
        words.starts_with("c: ") && words.contains("exec") && words.contains("/no/such/program"),
        "{words}"
    );
}

#[test]
fn what_was_stopped_with_what_it_requires_tells_who_stopped_that() {
    let wd = TestWatchdog::run(&chain(probe("c", "mirror", &[])));
    wd.until("all are ready", Seen::all_ready);
    wd.cli(&["stop", "c"]).ok();
    wd.until("a is stopped", |seen| seen.of("a").is(PhaseStatus::Stopped));
    let stopped = first_cause(&why(&wd, "a"));
    assert!(stopped.starts_with("c: stop by operator (uid "), "{stopped}");
    let own = why(&wd, "c");
    assert_eq!(whom(&own), ["c", "c"], "its end, and who asked for it");
    assert_eq!(first_cause(&own), stopped);
    assert_eq!(own.advice, ["watchdog start c"]);
    assert_eq!(own.chain[1].event, Some(wd.last_event("asked", "c")));

    wd.cli(&["start", "c"]).ok();
    wd.until("all are ready again", Seen::all_ready);
    let again = why(&wd, "a");
    assert!(again.chain[0].what.starts_with("runs well"), "{again:#?}");
    assert_eq!(first_cause(&again), stopped, "it is why it was started again");
}

#[test]
fn refused_settings_are_told_with_revision_reason_and_who_set_them() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand)]);
    let a = wd.puppet("a");
    a.does(Order::Ready);
    wd.until("it is ready", Seen::all_ready);
    let next = a.begin(Order::Next);
    wd.cli(&["set", "a", "number=5", "--no-wait"]).ok();
    assert_eq!(next.shown(), Shown::SettingsUpdated);
    a.does(Order::Refuse { reason: "five is taken".into() });
    wd.until("it is refused", |seen| seen.of("a").settings.as_ref().is_some_and(|it| it.refused.is_some()));
    let why = why(&wd, "a");
    let [runs, refused, set] = &why.chain[..] else { panic!("{why:#?}") };
    assert!(runs.what.starts_with("runs well"), "{runs:?}");
    assert_eq!(refused.revision.map(|it| it.get()), Some(2));
    assert!(refused.what.contains("five is taken"), "{refused:?}");
    assert_eq!(set.revision, refused.revision);
    assert!(set.what.contains("operator (uid ") && set.what.contains("number"), "{set:?}");
}

#[test]
fn settings_of_the_configuration_that_are_refused_are_told_as_such_and_what_to_do() {
    let wd = TestWatchdog::run(&[puppet("a", ByHand).settings("number = 2")]);
    let a = wd.puppet("a");
    a.does(Order::Refuse { reason: "never that".into() });
    assert_eq!(a.fails(Order::Ready), "Refused");
    a.begin(Order::Exit { code: 78 });
    given_up(&wd, "a");
    let why = why(&wd, "a");
    let words = first_cause(&why);
    assert!(words.contains("revision 1") && words.contains("never that"), "{words}");
    assert!(words.ends_with("they are those of the configuration"), "{words}");
    assert_eq!(why.advice, ["watchdog get a", "watchdog set a KEY=VALUE", "watchdog reset a"]);
}

#[test]
fn a_kill_from_outside_is_told_from_one_through_the_watchdog() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let killed = wd.kill("a", Signal::SIGKILL);
    let seen = wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    let outside = why(&wd, "a");
    assert_eq!(outside.chain.last().and_then(|link| link.incarnation), Some(killed));
    let words = first_cause(&outside);
    assert!(words.contains("SIGKILL") && words.contains("from outside"), "{words}");
    let killed = seen.of("a").incarnation;
    wd.cli(&["kill", "a", "--signal", "KILL"]).ok();
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    let words = first_cause(&why(&wd, "a"));
    assert!(words.contains("SIGKILL sent by operator"), "{words}");
}

#[test]
fn the_answer_is_the_same_whichever_core_gives_it() {
    let crashes = looping(program("c", &["sh", "-c", "echo out of luck >&2; exit 1"]));
    let [a, b, c] = chain(crashes);
    let wd = TestWatchdog::run(&[a, b, c, probe("d", "mirror", &[]), probe("e", "mirror", &[])]);
    given_up(&wd, "c");
    wd.cli(&["stop", "d"]).ok();
    let killed = wd.kill("e", Signal::SIGKILL);
    wd.until("e is ready again", |seen| seen.of("e").is_ready_after(killed));
    let ask = || ["a", "b", "c", "d", "e"].map(|name| why(&wd, name));
    let before = ask();
    wd.kill_core();
    assert_eq!(ask(), before);
}

#[test]
fn a_service_asks_why_as_far_as_its_grant_goes_and_an_unknown_name_gets_the_nearest() {
    let wd = TestWatchdog::run(&[
        puppet("chief", ByItself).key("control = [\"why:w-*\"]"),
        probe("w-1", "mirror", &[]),
        probe("other", "mirror", &[]),
    ]);
    wd.until("all are ready", Seen::all_ready);
    let chief = wd.puppet("chief");
    let of_its = chief.text(Order::Why { service: "w-1".into() });
    assert_eq!(of_its, "w-1: started with the watchdog, and has not ended since");
    assert_eq!(chief.fails(Order::Why { service: "other".into() }), "Refused");
    let said = wd.cli(&["why", "othre"]).with_code(2);
    assert!(said.stderr.contains("othre") && said.stderr.contains("did you mean `other`"), "{said}");
}

#[test]
fn the_bundle_of_a_running_service_holds_all_its_parts_and_no_secret() {
    let service = puppet("a", ByItself)
        .env("API_TOKEN", "hush")
        .env("MODE", "fast")
        .settings("number = 7\nword = \"plain\"");
    let wd = TestWatchdog::run(&[service, puppet("peer", ByItself)]);
    wd.until("both are ready", Seen::all_ready);
    let a = wd.puppet("a");
    a.does(Order::Update { text: "remembered".into() });
    a.does(Order::Save);
    a.does(Order::Tell { to: "peer".into(), text: "hello".into(), deadline: None });
    wd.cli(&["set", "a", "number=8"]).ok();

    let said = wd.cli(&["bundle", "a", "a.tar"]).ok().stdout;
    assert!(said.contains("a.tar") && said.contains("API_TOKEN") && !said.contains("not in it"), "{said}");
    let parts = unpacked(&wd.path("a.tar"));
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README.txt",
            "configuration.json",
            "events.jsonl",
            "intercoms.json",
            "log.txt",
            "manifest.json",
            "settings.json",
            "state.json",
            "state.snapshot",
            "status.json",
            "status.txt",
            "versions.json",
            "why.json",
            "why.txt",
        ]
    );
    for (name, content) in &parts {
        assert!(!text(content).contains("hush"), "a secret is in {name}");
    }
    assert!(text(&parts["README.txt"]).contains("service.a.env.API_TOKEN"));
    let configured = json(&parts["configuration.json"]);
    assert_eq!(configured["configured"]["service"]["a"]["env"]["MODE"], "fast");
    assert_eq!(configured["configured"]["service"]["a"]["settings"]["number"], 7);
    assert_eq!(json(&parts["settings.json"])["values"]["number"], 8);
    assert_eq!(json(&parts["settings.json"])["overrides"], json!(["number"]));
    assert!(json(&parts["state.json"])["sequence"].as_u64() > Some(0));
    assert_eq!(json(&parts["intercoms.json"])[1]["lanes"][0]["sender"], "a");
    let status: Status = serde_json::from_slice(&parts["status.json"]).expect("a status");
    assert_eq!(status.services.len(), 1);
    let why: Why = serde_json::from_slice(&parts["why.json"]).expect("a way");
    assert!(why.chain[0].what.starts_with("runs well"), "{why:#?}");
    let manifest = json(&parts["manifest.json"]);
    assert!(manifest["settings"].is_string() && manifest["state"]["version"].is_number(), "{manifest}");
    let events = text(&parts["events.jsonl"]);
    let whose = |line: &str| serde_json::from_str::<EventRecord>(line).expect("an event").service;
    assert!(events.lines().any(|line| whose(line).is_some_and(|name| name.as_str() == "a")), "{events}");
    assert!(events.lines().all(|line| whose(line).is_none_or(|name| name.as_str() != "peer")), "{events}");

    // The export is one that can be put back.
    fs::write(wd.path("a.snapshot"), &parts["state.snapshot"]).expect("a file");
    wd.cli(&["stop", "a"]).ok();
    wd.cli(&["state", "import", "a", "a.snapshot"]).ok();
}

#[test]
fn the_bundle_of_a_service_that_is_down_says_why_it_is_and_what_can_not_be_had() {
    let crashes = looping(program("c", &["sh", "-c", "echo out of luck >&2; exit 1"]));
    let wd = TestWatchdog::run(&[crashes]);
    given_up(&wd, "c");
    let said = wd.cli(&["bundle", "c", "--json"]).ok();
    let bundle: Value = said.json();
    let file = Path::new(bundle["file"].as_str().expect("a path"));
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("watchdog-c-") && name.ends_with(".tar"), "{name}");
    let parts = unpacked(file);
    assert!(text(&parts["why.txt"]).contains("| out of luck"), "{said}");
    assert!(text(&parts["log.txt"]).contains("out of luck"), "{said}");
    assert!(!parts.contains_key("settings.json"));
    let readme = text(&parts["README.txt"]);
    assert!(readme.contains("settings.json") && readme.contains("c has no settings"), "{readme}");
    let listed = bundle["parts"].as_array().expect("a list");
    let settings = listed.iter().find(|part| part["name"] == "settings.json").expect("it is listed");
    assert_eq!(settings["missing"], "c has no settings");
}

#[test]
fn a_bundle_is_written_without_a_watchdog_too_and_overwrites_nothing_unasked() {
    let mut wd = TestWatchdog::run(&[probe("a", "talker", &["lines", "3"])]);
    wd.until_some("its lines are in the log", || {
        wd.cli(&["logs", "a"]).stdout.contains("done").then_some(())
    });
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    wd.cli(&["bundle", "a", "a.tar"]).ok();
    let parts = unpacked(&wd.path("a.tar"));
    assert!(text(&parts["log.txt"]).contains("line 3"));
    assert!(text(&parts["events.jsonl"]).contains("\"ready\""));
    assert!(parts.contains_key("configuration.json") && !parts.contains_key("status.json"));
    assert!(text(&parts["README.txt"]).contains("no watchdog runs"), "{}", text(&parts["README.txt"]));

    let before = fs::read(wd.path("a.tar")).expect("it is there");
    let said = wd.cli(&["bundle", "a", "a.tar"]).with_code(1);
    assert!(said.stderr.contains("a.tar is already there") && said.stderr.contains("--force"), "{said}");
    assert_eq!(fs::read(wd.path("a.tar")).expect("it is there"), before);
    wd.cli(&["bundle", "a", "a.tar", "--force"]).ok();
    let said = wd.cli(&["bundle", "b"]).with_code(2);
    assert!(said.stderr.contains("`b`"), "{said}");
}

#[test]
fn a_bundle_of_an_unknown_service_is_none_and_names_the_nearest() {
    let wd = TestWatchdog::run(&[probe("counter", "mirror", &[])]);
    let said = wd.cli(&["bundle", "countre", "x.tar"]).with_code(2);
    assert!(said.stderr.contains("did you mean `counter`"), "{said}");
    assert!(!wd.path("x.tar").exists());
}

/// The files of an archive by name, all of which lie in one folder.
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive).expect("the bundle is there"));
    let entries = archive.entries().expect("it is an archive");
    let files = entries.map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        assert_eq!(path.components().count(), 2, "{}", path.display());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        (path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned(), content)
    });
    files.collect()
}

fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(content).into_owned()
}

fn json(content: &[u8]) -> Value {
    serde_json::from_slice(content).expect("it is JSON")
}

/// `a` requires `b`, which requires `c`.
fn chain(c: Entry) -> [Entry; 3] {
    let a = probe("a", "mirror", &[]).key("requires = [\"b\"]");
    [a, probe("b", "mirror", &[]).key("requires = [\"c\"]"), c]
}

/// Fails six times without a wait a test would feel.
fn looping(entry: Entry) -> Entry {
    entry
        .key("restart_delay = { min = \"1ms\", max = \"1ms\" }")
        .key("restart_limit = { count = 5, within = \"60s\" }")
}

fn given_up(wd: &TestWatchdog, name: &str) {
    wd.until("it is given up", |seen| seen.of(name).is(PhaseStatus::Failed));
}

fn why(wd: &TestWatchdog, name: &str) -> Why {
    wd.cli(&["why", name, "--json"]).ok().json()
}

fn first_cause(why: &Why) -> String {
    match &why.origin {
        Origin::FirstCause(words) => words.clone(),
        Origin::NotInLog(words) => panic!("not known: {words}\n{why:#?}"),
    }
}

fn whom(why: &Why) -> Vec<&str> {
    why.chain.iter().map(|link| link.service.as_ref().map_or("watchdog", |name| name.as_str())).collect()
}
