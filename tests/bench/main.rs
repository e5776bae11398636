//! The product against its floors, interleaved in one run: `bench NAME`, started by `bench/run NAME`.
//!
//! A figure is a ratio, product over floor, of two bursts that follow each other on the same machine; its line
//! is `ratio KEY VALUE (n=…, min..max)`, VALUE the median of n rounds. Absolute times go to standard error.
//!
//! ```text
//! ask       typed round trip of two services over a lane    / two bare processes on a stream socket pair
//! pairs     the slowest in a hundred of 50 pairs that rest  / 50 such pairs of bare processes
//! restart   kill -9 until the new process is in main        / a bare parent that polls a pidfd and respawns
//! tell      messages a second, fed, and counted at the handler / bare processes, a packet a message: here more is better
//! ```

mod ask;
mod asker;
mod cores;
mod pairs;
mod ping;
mod ratio;
mod respawn;
mod restart;
mod tell;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["ask"] => ask::run(),
        ["pairs"] => pairs::run(),
        ["restart"] => restart::run(),
        ["tell"] => tell::run(),
        // The other side of a floor, started by this program itself.
        ["pong", size] => ping::pong(size.parse().expect("a size")),
        ["drain"] => tell::drain(),
        ["rest"] => pairs::rest(),
        ["respawn", program] => respawn::parent(program),
        _ => {
            eprintln!("usage: bench ask | pairs | restart | tell");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
