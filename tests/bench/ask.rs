//! The round trip of an `ask`, measured by the asking service itself.

use std::time::Duration;

use crate::asker::Askers;
use crate::cores::{Cores, pin};
use crate::ping::Ping;
use crate::ratio::Rounds;

const ROUNDS: usize = 21;

/// Round trips of 64 B and 64 KiB on one core, and of 64 B on all.
pub(crate) fn run() {
    for (key, size, cores, burst) in [
        ("ask_64_one_core", 64, Cores::One, 4000),
        ("ask_64k_one_core", 64 * 1024, Cores::One, 1000),
        ("ask_64_two_cores", 64, Cores::All, 4000),
    ] {
        let _pinned = pin(cores);
        let mut askers = Askers::start(1);
        let mut ask = || askers.each("ask", size, burst)[0] / burst;
        let mut ping = Ping::start(size);
        // The first burst of each warms its caches and is not counted.
        let _warm: Duration = ask();
        ping.burst(burst);
        Rounds::measure(key, ROUNDS, ask, || ping.burst(burst)).report();
    }
}
