//! The command line as a whole: what holds for every verb.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use nix::pty::openpty;
use watchdog_tests::{Seen, TestWatchdog, binary, probe, sample};

/// Every verb and verb of a verb, with its help.
fn verbs(wd: &TestWatchdog, above: &[&str]) -> Vec<(Vec<String>, String)> {
    let help = wd.cli(&[above, &["--help"]].concat()).ok().stdout;
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A name stands two blanks in; what goes on from the line above further.
    let names =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    if names.is_empty() {
        return vec![(above.iter().map(|word| (*word).to_owned()).collect(), help.clone())];
    }
    names.iter().flat_map(|name| verbs(wd, &[above, &[*name]].concat())).collect()
}

/// The services the examples speak of.
const NAMED: [&str; 2] = ["counter", "worker"];

/// An example of the verb's own help, about a counter whose name is mistyped.
fn with_a_slip(verb: &[String], help: &str) -> String {
    let examples = help.split_once("Example:\n").map_or("", |(_, examples)| examples).lines();
    let about_a_service = examples
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&"watchdog") && words.iter().any(|word| NAMED.contains(word)));
    match about_a_service {
        Some(words) => {
            // Only what is typed at the watchdog.
            let words = words.into_iter().take_while(|word| !matches!(*word, "&&" | "|" | ">"));
            words
                .map(|word| if NAMED.contains(&word) { "countre" } else { word })
                .collect::<Vec<_>>()
                .join(" ")
        }
        None => format!("watchdog {} countre", verb.join(" ")),
    }
}

/// What somebody types in the watchdog's folder.
fn shell(wd: &TestWatchdog, line: &str) -> Output {
    let path = std::env::var("PATH").expect("a path");
    let folder = binary("watchdog").parent().expect("a folder").display().to_string();
    let mut bash = Command::new("bash");
    bash.args(["-c", line]).current_dir(wd.folder()).env("PATH", format!("{folder}:{path}"));
    bash.output().expect("bash runs")
}

#[test]
fn every_verb_has_an_example_and_knows_the_nearest_service() {
    let wd =
        TestWatchdog::run(&[sample("counter").settings("step = 1"), sample("bumper").settings("rate = 1")]);
    std::fs::write(wd.path("counter.snapshot"), "a state").expect("it is written");
    let all = verbs(&wd, &[]);
    assert!(all.len() > 25, "{:?}", all.iter().map(|(verb, _)| verb.join(" ")).collect::<Vec<_>>());
    for (verb, help) in all {
        assert!(help.contains("Example:\n  "), "{verb:?} has no example:\n{help}");
        let usage = help.lines().find(|line| line.starts_with("Usage:")).expect("a usage");
        if !usage.contains("SERVICE") {
            continue;
        }
        let line = with_a_slip(&verb, &help);
        let said = shell(&wd, &line);
        assert_eq!(said.status.code(), Some(2), "{line}: {said:?}");
        let told = String::from_utf8_lossy(&said.stderr);
        assert!(told.contains("countre") && told.contains("did you mean `counter`?"), "{line}: {told}");
    }
    let said = wd.cli(&["staus"]).with_code(2);
    assert!(said.stderr.contains("did you mean `watchdog status`?"), "{said}");
}

#[test]
fn what_a_verb_waits_for_is_shown_on_a_terminal() {
    let wd = TestWatchdog::run(&[probe("deaf", "deaf", &[]).key("stop_timeout = \"300ms\"")]);
    wd.until("it is ready", Seen::all_ready);
    let pty = openpty(None, None).expect("a terminal");
    let mut stop = wd
        .operator()
        .command(&["stop", "deaf"])
        .stdout(Stdio::null())
        .stderr(File::from(pty.slave))
        .spawn()
        .expect("the watchdog's program runs");
    assert!(stop.wait().expect("a child of ours").success());
    let mut shown = Vec::new();
    // At its end a terminal whose other side is closed answers by an error.
    let _end = File::from(pty.master).read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("deaf: stopping"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[K"), "the line is not taken away: {shown:?}");
    // Nothing of it where nobody looks.
    assert_eq!(wd.cli(&["start", "deaf"]).ok().stderr, "");
}

#[test]
fn a_change_of_a_setting_is_waited_for_as_long_as_one_says() {
    let wd = TestWatchdog::run(&[sample("counter").settings("step = 1")]);
    wd.until("it is ready", Seen::all_ready);
    for verb in [&["set", "counter", "step=2", "--wait=1m"][..], &["rollback", "counter", "--wait"]] {
        wd.cli(verb).ok();
    }
    wd.cli(&["set", "counter", "step=2", "--wait=1m", "--no-wait"]).with_code(2);
    wd.cli(&["unset", "counter", "step", "--wait=soon"]).with_code(2);
}

#[test]
fn a_shell_completes_the_names_of_services() {
    let wd = TestWatchdog::run(&[sample("counter").settings("step = 1"), probe("other", "mirror", &[])]);
    for shell in ["zsh", "fish"] {
        assert!(wd.cli(&["completions", shell]).ok().stdout.contains("watchdog completions services"));
    }
    let complete = |words: &str, cursor: usize| {
        let script = format!(
            "source <(watchdog completions bash); COMP_WORDS=({words}); COMP_CWORD={cursor}; \
             _watchdog_with_services watchdog \"${{COMP_WORDS[{cursor}]}}\" \"${{COMP_WORDS[{cursor}-1]}}\"; \
             echo ${{COMPREPLY[*]}}"
        );
        let said = shell(&wd, &script);
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(complete("watchdog stop cou", 2), "counter");
    assert_eq!(complete("watchdog stop counter ''", 3), "counter other");
    assert_eq!(complete("watchdog shutd", 1), "shutdown");
    assert!(complete("watchdog stop --no", 2).contains("--no-wait"));
}

#[test]
fn the_doctor_says_what_must_be_mended() {
    let mut wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    let findings = || {
        let said = wd.cli(&["doctor", "--json"]);
        (said.code, said.json::<Vec<serde_json::Value>>())
    };
    let of = |findings: &[serde_json::Value], what: &str| {
        let found = findings.iter().find(|finding| finding["what"] == what);
        found.unwrap_or_else(|| panic!("nothing of {what}: {findings:#?}"))["level"].clone()
    };
    let (code, healthy) = findings();
    let mends = healthy.iter().filter(|finding| finding["level"] == "mend").count();
    assert_eq!(code, i32::from(mends > 0), "{healthy:#?}");
    assert_eq!(of(&healthy, "watchdog"), "ok");
    assert_eq!(of(&healthy, "state folder"), "ok");
    let state = wd.path(".watchdog/state");
    let mode = |mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    mode(0o777);
    let (code, open) = findings();
    assert_eq!((code, of(&open, "state folder")), (1, "mend".into()));
    mode(0o700);
    std::fs::write(wd.path("watchdog.toml"), "[watchdog\n").expect("it is written");
    let text = wd.cli(&["doctor"]).with_code(1);
    assert!(text.stdout.contains("mend configuration: ") && text.stderr.contains("to mend"), "{text}");
    wd.configure("", &[probe("a", "mirror", &[])]);
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    let said = wd.cli(&["doctor"]);
    assert!(said.stdout.contains("ok   watchdog: none runs here"), "{said}");
    assert!(said.stdout.contains("ok   leftovers: nothing"), "{said}");
}
