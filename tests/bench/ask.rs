//! The round trip of an `ask`, measured by the asking service itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use watchdog_tests::{Seen, TestWatchdog, probe};

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
        let mut asker = Asker::start();
        let mut ping = Ping::start(size);
        // The first burst of each warms its caches and is not counted.
        asker.burst(size, burst);
        ping.burst(burst);
        Rounds::measure(key, ROUNDS, || asker.burst(size, burst), || ping.burst(burst)).report();
    }
}

/// Two services under a watchdog: one answers, the other asks when told to.
struct Asker {
    _watchdog: TestWatchdog,
    commands: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Asker {
    fn start() -> Self {
        let mut watchdog = TestWatchdog::idle();
        let socket = watchdog.path("asker.sock");
        watchdog.configure(
            "",
            &[
                probe("echo", "echo", &[]).with_session(),
                probe("asker", "asker", &[]).with_session().env("ASKER_AT", socket.display().to_string()),
            ],
        );
        watchdog.run_again();
        watchdog.until("both are ready", Seen::all_ready);
        let commands = UnixStream::connect(&socket).expect("the asker listens before it is ready");
        fs::remove_file(&socket).expect("one connection is enough");
        let answers = BufReader::new(commands.try_clone().expect("a descriptor"));
        Self { _watchdog: watchdog, commands, answers }
    }

    /// The mean of `count` round trips of `size` bytes each way.
    fn burst(&mut self, size: usize, count: u32) -> Duration {
        writeln!(self.commands, "{size} {count}").expect("the asker reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the asker answers");
        Duration::from_nanos(line.trim().parse().expect("nanoseconds")) / count
    }
}
