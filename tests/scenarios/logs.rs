//! What processes print: captured, kept, shown.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use watchdog_protocol::status::PhaseStatus;
use watchdog_query::WatchdogQuery;
use watchdog_tests::proof::flood;
use watchdog_tests::until::DEADLINE;
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

#[test]
fn a_line_is_shown_with_its_time_and_stream() {
    let wd = TestWatchdog::run(&[probe("a", "talker", &["lines", "3"])]);
    let lines = wd.until_some("all lines", || {
        let said = wd.cli(&["logs", "a", "-n", "10"]).ok();
        let lines: Vec<String> = said.stdout.lines().map(str::to_owned).collect();
        (lines.len() == 4).then_some(lines)
    });
    // Two streams are two pipes: each is in order, and either may be a little ahead.
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for line in &lines {
        let (time, rest) = line.split_once(' ').expect("a time");
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        let (stream, text) = rest.trim_start().split_once(' ').expect("a stream");
        match stream {
            "out" => out.push(text.trim_start()),
            "err" => err.push(text.trim_start()),
            other => panic!("{other} is no stream: {line}"),
        }
    }
    assert_eq!((out, err), (vec!["line 1", "line 2", "line 3"], vec!["done"]));
    assert!(wd.cli(&["logs", "a", "-n", "2"]).ok().stdout.lines().count() == 2);
}

#[test]
fn logs_are_followed_through_a_restart_of_the_service_and_of_the_core() {
    let wd = TestWatchdog::run(&[probe("a", "mirror", &[])]);
    wd.until("it is ready", Seen::all_ready);
    let shown = wd.path("shown");
    let file = fs::File::create(&shown).expect("a file");
    let mut follow =
        wd.operator().command(&["logs", "-f", "a", "-n", "1"]).stdout(file).spawn().expect("it runs");
    let until_shown = |count: usize| {
        wd.until_some(&format!("{count} lines are shown"), || {
            let text = fs::read_to_string(&shown).expect("what was shown");
            assert!(text.lines().count() <= count, "{text}");
            (text.lines().count() == count).then_some(())
        });
    };
    // A mirror says one line when it starts.
    until_shown(1);
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    until_shown(2);
    wd.kill_core();
    let killed = wd.kill("a", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
    until_shown(3);
    follow.kill().expect("it runs");
    follow.wait().expect("a child of ours");
}

#[test]
fn a_flood_of_any_kind_neither_grows_the_watchdog_nor_delays_an_operator() {
    flood::flood(flood::Plan { bytes: 32 << 20 }).unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn no_line_is_lost_or_doubled_when_the_writer_is_killed() {
    let wd = numbering(20_000);
    for _ in 0..5 {
        let writer = wd.status().of("writer").process().pid.to_string();
        wd.until_some("it writes", || noted(&wd).get(&writer).filter(|n| **n > 0).copied());
        let killed = wd.kill("writer", Signal::SIGKILL);
        wd.until("the next one is ready", |seen| seen.of("writer").is_ready_after(killed));
    }
    wd.cli(&["kill", "writer"]).ok();
    check_numbers(&wd);
}

#[test]
fn no_line_is_lost_or_doubled_when_the_core_is_killed() {
    let wd = numbering(100_000);
    for _ in 0..5 {
        wd.kill_core();
    }
    wd.until_some("all is written", || noted(&wd).values().any(|n| *n == 100_000).then_some(()));
    wd.cli(&["kill", "writer"]).ok();
    assert_eq!(wd.status().of("writer").starts, 1);
    check_numbers(&wd);
}

#[test]
fn a_line_without_end_and_the_last_words_before_a_death_are_kept() {
    let wd = TestWatchdog::run(&[
        probe("half", "talker", &["half"]),
        probe("loser", "ender", &["exit", "4", "the disk is full"]).key("restart = \"never\""),
    ]);
    let seen = wd.until("both have ended", |seen| {
        seen.of("half").is(PhaseStatus::Completed) && seen.of("loser").is(PhaseStatus::Failed)
    });
    assert_eq!(seen.of("loser").last_end.as_ref().expect("it ended").last_lines, ["the disk is full"]);
    let said = wd.cli(&["logs", "half"]).ok();
    assert!(said.stdout.contains("a line without its end"), "{said}");
}

#[test]
fn what_would_upset_a_terminal_is_shown_harmless() {
    let wd = TestWatchdog::run(&[probe("a", "talker", &["raw"])]);
    let said = wd.until_some("the line", || {
        let said = wd.cli(&["logs", "a"]).ok();
        said.stdout.contains(" end").then_some(said.stdout)
    });
    assert!(!said.contains('\u{1b}') && !said.contains('\0'), "{said:?}");
}

#[test]
fn a_flood_is_bounded_on_disk_and_in_the_core_and_delays_nobody() {
    let mut wd = TestWatchdog::idle();
    let flood = probe("flood", "talker", &["lines", "2000000"]);
    let long = probe("long", "talker", &["long", "30000000"]);
    wd.configure(
        "log_size = \"1MiB\"\nlog_files = 3",
        &[flood, long, probe("quiet", "talker", &["lines", "1"])],
    );
    wd.run_again();
    wd.until("all are ready", Seen::all_ready);
    let before = watchdog_tests::proc::memory(wd.core().pid);
    for (name, last) in [("flood", "line 2000000"), ("long", "done")] {
        wd.until_some("all is written", || {
            // The two streams are two pipes: either may be a little ahead.
            let said = wd.cli(&["logs", name, "-n", "1000"]).ok();
            said.stdout.contains(last).then_some(())
        });
    }
    let after = watchdog_tests::proc::memory(wd.core().pid);
    assert!(after < before + 16 * 1024 * 1024, "from {before} to {after} bytes");
    assert!(wd.cli(&["logs", "quiet"]).ok().stdout.contains("line 1"));
    let mut kept = 0;
    let mut folders = vec![wd.path(".watchdog/logs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the logs") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a kind").is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains("flood")
                || entry.path().to_string_lossy().contains("/flood/")
            {
                kept += entry.metadata().expect("its size").len();
            }
        }
    }
    // Three files of one MiB, each with one line beyond it at most.
    assert!(kept > 1024 * 1024 && kept < 4 * 1024 * 1024, "{kept} bytes of the flood are kept");
}

/// A writer of numbered lines, its notes in `notes`.
fn numbering(count: u64) -> TestWatchdog {
    let mut wd = TestWatchdog::idle();
    let notes = wd.path("notes");
    fs::create_dir(&notes).expect("a folder");
    let args = ["numbers", notes.to_str().expect("a path of ours"), &count.to_string()];
    let writer: Entry =
        probe("writer", "talker", &args).key("restart_delay = \"0s\"").key("restart_limit = \"off\"");
    wd.configure("log_size = \"1GiB\"", &[writer]);
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    wd
}

#[test]
fn ctl_a_caller_that_follows_the_logs_gets_each_line_once_though_the_core_dies() {
    // Prints what is written into a pipe.
    let wd = TestWatchdog::idle();
    let say = wd.path("say");
    // Open for both: it never sees an end, and nothing is lost between two writers.
    let script = "mkfifo say; exec 3<>say; while read -r line <&3; do echo \"$line\"; done";
    wd.configure("", &[program("echo", &["/bin/sh", "-c", script])]);
    let mut wd = wd;
    wd.run_again();
    wd.until_some("it listens", || say.exists().then_some(()));
    let print = |lines: &str| fs::write(&say, lines).expect("it listens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let query = WatchdogQuery::at(&wd.path(".watchdog/run/watchdog.sock"));
        let echo = ["echo".parse().expect("a name")];
        // The first line is there when the call is begun: nothing else tells when the call has arrived.
        print("one\n");
        let mut logs = query.logs(&echo, 1, true);
        let mut next = async || {
            let record = tokio::time::timeout(DEADLINE, logs.next()).await.expect("a line comes");
            record.expect("the watchdog comes back").expect("following has no end").text
        };
        assert_eq!(next().await, "one");
        wd.kill_core();
        print("two\n");
        assert_eq!(next().await, "two");
        // Written together, they have one time.
        print("three\nfour\nfive\n");
        assert_eq!(next().await, "three");
        wd.kill_core();
        assert_eq!((next().await, next().await), ("four".to_owned(), "five".to_owned()));
        print("six\n");
        assert_eq!(next().await, "six");
    });
}

/// By process, the last number it had written for sure.
fn noted(wd: &TestWatchdog) -> BTreeMap<String, u64> {
    let files = fs::read_dir(wd.path("notes")).expect("the notes").filter_map(Result::ok);
    let note = |file: fs::DirEntry| {
        let bytes = fs::read(file.path()).unwrap_or_default();
        let number = <[u8; 8]>::try_from(&bytes[..]).map_or(0, u64::from_le_bytes);
        (file.file_name().to_string_lossy().into_owned(), number)
    };
    files.map(note).collect()
}

/// Of each writer, what is in the log is 1, 2, 3 and so on, up to what it noted at least.
fn check_numbers(wd: &TestWatchdog) {
    let said = wd.cli(&["logs", "writer", "-n", "100000000"]).ok();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for line in said.stdout.lines() {
        let mut words = line.rsplit(' ');
        let (number, writer) = (words.next().expect("a word"), words.next().expect("a word before it"));
        let Ok(number) = number.parse::<u64>() else { continue };
        let last = last.entry(writer.to_owned()).or_default();
        assert_eq!(number, *last + 1, "after {last} of {writer}: {line}");
        *last = number;
    }
    for (writer, least) in noted(wd) {
        let found = last.get(&writer).copied().unwrap_or(0);
        assert!(found >= least, "writer {writer} had written {least}, the log holds {found}");
    }
}
