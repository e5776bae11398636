//! The product against its floors, interleaved in one run: `bench NAME`, started by `bench/run NAME`.
//!
//! A figure is a ratio, product over floor, of two bursts that follow each other on the same machine; its line
//! is `ratio KEY VALUE (n=…, min..max)`, VALUE the median of n rounds. Absolute times go to standard error. What has no
//! floor is a line `figure KEY VALUE`.
//!
//! ```text
//! ask       typed round trip of two services over a lane    / two bare processes on a stream socket pair
//! pairs     the slowest in a hundred of 50 pairs that rest  / 50 such pairs of bare processes
//! save      a state on disk, of one service or of a hundred / append and fdatasync; write, fsync, rename, fsync of the folder
//! tell      messages a second, fed, and counted at the handler / bare processes, a packet a message: here more is better
//! restart   kill -9 until the new process is in main        / the floor supervisor: pidfds in an epoll, respawn
//! boot      start of all until the last one is in main      / the floor supervisor
//! storm     kill -9 of all until all are in main again      / the floor supervisor
//! stop      the wish to end until nothing is left           / the floor supervisor
//! log       an event, and its way to a file                  / the layer of tracing-subscriber to a file; asks beside it
//! capture   200 MB of lines until all are in files          / s6-log; also in processor time
//! rest      what keeper and core take while nothing happens
//! usage     what it costs to know what services use, every second
//! takeover  kill -9 of the core until the next one answers
//! ```

mod ask;
mod asker;
mod bare_saves;
mod capture;
mod cores;
mod fleet;
mod floor;
mod log;
mod pairs;
mod ping;
mod ratio;
mod rest;
mod restart;
mod save;
mod stamps;
mod takeover;
mod tell;
mod usage;
mod use_of;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["ask"] => ask::run(),
        ["pairs"] => pairs::run(),
        ["restart"] => restart::run(),
        ["save"] => save::run(),
        ["tell"] => tell::run(),
        ["boot"] => fleet::boot(),
        ["storm"] => fleet::storm(),
        ["stop"] => fleet::stop(),
        ["capture"] => capture::run(),
        ["log"] => log::run(),
        ["rest"] => rest::run(),
        ["takeover"] => takeover::run(),
        ["usage"] => usage::run(),
        // The other side of a floor, started by this program itself.
        ["pong", size] => ping::pong(size.parse().expect("a size")),
        ["lines", count] => capture::lines(count.parse().expect("a count")),
        ["drain"] => tell::drain(),
        ["scribe", path] => log::scribe(path),
        ["resting"] => pairs::resting(),
        ["saving"] => bare_saves::saving(),
        ["floor", program, count] => floor::supervise(program, count.parse().expect("a count")),
        _ => {
            eprintln!(
                "usage: bench ask | pairs | tell | restart | save | boot | storm | stop | capture | log | rest | takeover | usage"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
