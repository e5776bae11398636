//! Many pairs that talk now and then: the slowest round trip of a hundred.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::asker::{Askers, answered};
use crate::ping::Ping;
use crate::ratio::Rounds;

const PAIRS: usize = 50;
const ROUNDS: usize = 11;
/// Calls of each pair in a round.
const CALLS: u32 = 100;
const SIZE: usize = 64;
const REST: Duration = Duration::from_millis(5);

/// 50 pairs, each resting 5 ms between calls.
pub(crate) fn run() {
    let mut askers = Askers::start(PAIRS);
    let mut bare: Vec<Resting> = (0..PAIRS).map(|_| Resting::start()).collect();
    let mut product = || p99(askers.each("rest", SIZE, CALLS));
    let mut floor = || {
        bare.iter_mut().for_each(Resting::begin);
        p99(bare.iter_mut().flat_map(Resting::end).collect())
    };
    product();
    floor();
    Rounds::measure("pairs_50_p99", ROUNDS, product, floor).report();
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * 99 / 100]
}

/// A pair of the floor: a process of this program that asks another one, and rests.
struct Resting {
    process: Child,
    commands: ChildStdin,
    times: BufReader<ChildStdout>,
}

impl Resting {
    fn start() -> Self {
        let mut process = Command::new(env::current_exe().expect("the path of this program"))
            .arg("resting")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let commands = process.stdin.take().expect("it is piped");
        let times = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, commands, times }
    }

    fn begin(&mut self) {
        writeln!(self.commands, "{CALLS}").expect("it reads");
    }

    fn end(&mut self) -> Vec<Duration> {
        answered(&mut self.times)
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// One process of such a pair: asks as often as a line of standard input says, and prints what each call took.
pub(crate) fn resting() {
    let mut ping = Ping::start(SIZE);
    for line in io::stdin().lock().lines() {
        let count: u32 = line.expect("a line").parse().expect("a count");
        let times: Vec<String> = (0..count)
            .map(|_| {
                thread::sleep(REST);
                ping.burst(1).as_nanos().to_string()
            })
            .collect();
        println!("{}", times.join(" "));
    }
}
