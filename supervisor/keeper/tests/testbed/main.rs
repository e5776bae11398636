//! The keeper as a real process, and a core that only hands on its channel.
//!
//! `keeper-testbed keeper` is a keeper whose core is `keeper-testbed core`. That core sends its channel to the
//! test, over the socket that is the standard input of both, then waits to be killed: the test is the core.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use watchdog_keeper::{CHANNEL, KeeperConfig};
use watchdog_seqpacket::{Seqpacket, inherited};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|role| role.to_str()) {
        Some("keeper") => keeper(args.next()),
        Some("core") => core(),
        _ => ExitCode::from(2),
    }
}

/// With a program of that path as core, or this one.
fn keeper(program: Option<std::ffi::OsString>) -> ExitCode {
    let own = std::env::current_exe().expect("a running program has a path");
    let program: PathBuf = program.map_or(own, Into::into);
    let config = KeeperConfig {
        executable: File::open(&program).expect("the core's program is there").into(),
        program,
        argv: vec!["keeper-testbed".into(), "core".into()],
        env: vec![("TESTBED".into(), "1".into())],
        keep: Vec::new(),
    };
    match watchdog_keeper::run(config) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            eprintln!("{err}");
            ExitCode::from(70)
        }
    }
}

fn core() -> ExitCode {
    let channel = inherited(CHANNEL).expect("the keeper gives a channel");
    let stdin = io::stdin().as_fd().try_clone_to_owned().expect("a number is free");
    let test = Seqpacket::from_fd(stdin).expect("the test gives a socket");
    let pid = std::process::id().to_le_bytes();
    test.send(&[IoSlice::new(&pid)], &[channel.as_fd()]).expect("the test reads");
    drop(channel); // from here on the test alone holds it
    loop {
        std::thread::park();
    }
}
