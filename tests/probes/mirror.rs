//! Shows what it was started with: one line of JSON on standard output (descriptors, signal masks, session,
//! group, umask, folder, limits, environment, arguments), then waits.

use std::collections::BTreeMap;
use std::{env, fs, thread};

use nix::unistd::{getgid, getpgrp, getpid, getsid, getuid};
use serde_json::json;
use watchdog_tests::proc;

fn main() {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the status");
        line.trim_start_matches(':').trim().to_owned()
    };
    let limits = fs::read_to_string("/proc/self/limits").expect("/proc is there");
    let limits: BTreeMap<String, [String; 2]> = limits.lines().skip(1).filter_map(limit).collect();
    let mut descriptors = proc::descriptors(getpid().as_raw().unsigned_abs());
    // The folder it is just reading.
    descriptors.retain(|_, target| !target.ends_with("/fd"));
    let shown = json!({
        "descriptors": descriptors,
        "blocked": field("SigBlk"),
        "ignored": field("SigIgn"),
        "caught": field("SigCgt"),
        "umask": field("Umask"),
        "no_new_privs": field("NoNewPrivs"),
        "pid": getpid().as_raw(),
        "session": getsid(None).expect("a session").as_raw(),
        "group": getpgrp().as_raw(),
        "uid": getuid().as_raw(),
        "gid": getgid().as_raw(),
        "folder": env::current_dir().expect("a folder"),
        "limits": limits,
        "environment": env::vars().collect::<BTreeMap<_, _>>(),
        "arguments": env::args().skip(1).collect::<Vec<_>>(),
    });
    println!("{shown}");
    loop {
        thread::park();
    }
}

/// `Max open files  1024  4096  files`: name, soft, hard.
fn limit(line: &str) -> Option<(String, [String; 2])> {
    let name = line.get(..26)?.trim().to_owned();
    let mut values = line.get(26..)?.split_whitespace().map(str::to_owned);
    Some((name, [values.next()?, values.next()?]))
}
