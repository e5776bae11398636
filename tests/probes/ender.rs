//! Ends at once. `exit N [TEXT]`: with that code, after TEXT on standard error; `signal NAME`: by that signal;
//! `panic`: by a panic.

use std::env;
use std::process::ExitCode;
use std::str::FromStr;

use nix::sys::signal::{Signal, raise};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["exit", code] => ExitCode::from(number(code)),
        ["exit", code, text] => {
            eprintln!("{text}");
            ExitCode::from(number(code))
        }
        ["signal", name] => {
            raise(Signal::from_str(name).expect("a signal's name")).expect("a signal can be raised");
            unreachable!("{name} was to end this process")
        }
        ["panic"] => panic!("as asked"),
        _ => panic!("usage: ender exit N [TEXT] | signal NAME | panic"),
    }
}

fn number(text: &str) -> u8 {
    text.parse().expect("an exit code")
}
