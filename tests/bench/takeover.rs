//! How long nobody decides: from the kill of a core until the next one answers.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use watchdog_query::WatchdogQuery;
use watchdog_tests::{Entry, Seen, TestWatchdog, program};

use crate::ratio::{figure, median_of};

const ROUNDS: usize = 7;

/// With 100 and with 1,000 programs.
pub(crate) fn run() {
    for (key, count) in [("takeover_100_ms", 100), ("takeover_1000_ms", 1000)] {
        let asleep = |number: usize| program(&format!("asleep-{number}"), &["/bin/sleep", "infinity"]);
        let entries: Vec<Entry> = (0..count).map(asleep).collect();
        let watchdog = TestWatchdog::run(&entries);
        watchdog.until("all are ready", Seen::all_ready);
        let times: Vec<f64> = (0..ROUNDS).map(|_| takeover(&watchdog).as_secs_f64() * 1e3).collect();
        figure(key, median_of(times));
    }
}

fn takeover(watchdog: &TestWatchdog) -> Duration {
    let core = watchdog.core();
    let query = WatchdogQuery::at(&watchdog.path(".watchdog/run/watchdog.sock"));
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begin = Instant::now();
    core.signal(nix::sys::signal::Signal::SIGKILL);
    runtime.block_on(async {
        loop {
            // Refused, cut off, or answered by the one that was killed: asked again.
            match query.status(&[]).await {
                Ok(status) if status.watchdog.core_pid != core.pid => return,
                _ => assert!(begin.elapsed() < Duration::from_secs(60), "no core answers"),
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    begin.elapsed()
}
