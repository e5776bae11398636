//! Says that it is a watchdog when it is asked, and is none. What it is stands in the file `impostor` of its folder:
//! `crash`, `hang` or `older`.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio, exit};

fn main() {
    let folder = env::var("TEST_FOLDER").expect("the test's folder");
    let kind = fs::read_to_string(Path::new(&folder).join("impostor")).expect("what to be");
    let args: Vec<String> = env::args().skip(1).collect();
    match (args.first().map_or("", String::as_str), &*kind) {
        ("core-check", "older") => {
            let said = real().args(&args).stdin(Stdio::inherit()).output().expect("the watchdog runs");
            let mut build: serde_json::Value = serde_json::from_slice(&said.stdout).expect("what it is");
            build["keeper"] = serde_json::json!({ "start": 0, "end": 0 });
            println!("{build}");
        }
        ("core-check", _) => panic!("{}", real().args(&args).exec()),
        ("core", "crash") => {
            eprintln!("this is no core");
            exit(3);
        }
        ("core", "hang") => loop {
            std::thread::park();
        },
        other => panic!("neither a core nor asked: {other:?}"),
    }
}

fn real() -> Command {
    let own = env::current_exe().expect("the path of this program");
    Command::new(own.with_file_name("watchdog"))
}
