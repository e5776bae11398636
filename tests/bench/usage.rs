//! What it costs to know what services use.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use watchdog_query::WatchdogQuery;
use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

use crate::ratio::{figure, median_of};
use crate::use_of::cpu_time;

/// Readings, a second apart.
const PERIODS: u32 = 20;

const PERIOD: Duration = Duration::from_secs(1);

/// Readings that are timed.
const ROUNDS: usize = 21;

/// What keeper, core and caller take with 100 services that are measured every second, and how long one reading takes,
/// with 100 services and with 1,000 programs.
pub(crate) fn run() {
    let echo = |number: usize| probe(&format!("echo-{number}"), "echo", &[]).with_session();
    let hundred = Measured::of((0..100).map(echo));
    let before = hundred.cpu();
    let begun = Instant::now();
    for period in 1..=PERIODS {
        hundred.read();
        thread::sleep((PERIOD * period).saturating_sub(begun.elapsed()));
    }
    let used = hundred.cpu() - before;
    figure("usage_cpu_percent", used.as_secs_f64() * 100.0 / begun.elapsed().as_secs_f64());
    figure("usage_reading_100_ms", hundred.reading_ms());
    drop(hundred);
    let asleep = |number: usize| program(&format!("asleep-{number}"), &["/bin/sleep", "infinity"]);
    figure("usage_reading_1000_ms", Measured::of((0..1000).map(asleep)).reading_ms());
}

struct Measured {
    watchdog: TestWatchdog,
    query: WatchdogQuery,
}

impl Measured {
    fn of(entries: impl Iterator<Item = Entry>) -> Self {
        let watchdog = TestWatchdog::run(&entries.collect::<Vec<_>>());
        watchdog.until("all are ready", Seen::all_ready);
        let query = WatchdogQuery::at(&watchdog.path(".watchdog/run/watchdog.sock"));
        let measured = Self { watchdog, query };
        // The first opens all files; then what a start leaves to do.
        measured.read();
        thread::sleep(Duration::from_secs(3));
        measured
    }

    fn read(&self) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let usage = runtime.block_on(self.query.usage(&[], false)).expect("it answers");
        assert!(usage.services.iter().all(|service| service.cpu_us.is_some()), "{usage:?}");
    }

    /// Of keeper and core, and of this process, which asks.
    fn cpu(&self) -> Duration {
        let processes = [self.watchdog.keeper_pid(), self.watchdog.core().pid, std::process::id()];
        processes.into_iter().map(cpu_time).sum()
    }

    fn reading_ms(&self) -> f64 {
        let reading = |_| {
            // None is fresh any more.
            thread::sleep(Duration::from_millis(150));
            let begun = Instant::now();
            self.read();
            begun.elapsed().as_secs_f64() * 1e3
        };
        median_of((0..ROUNDS).map(reading).collect())
    }
}
