//! What a watchdog takes while nothing happens.

use std::thread;
use std::time::Duration;

use watchdog_tests::{Entry, Seen, TestWatchdog, probe, program};

use crate::ratio::figure;
use crate::use_of::{cpu_time, pss, switches};

/// How long nothing happens.
const REST: Duration = Duration::from_secs(20);

const KIB: f64 = 1024.0;

/// Keeper and core with 100 plain programs, with 1,000, and with 100 services.
pub(crate) fn run() {
    let asleep = |number: usize| program(&format!("asleep-{number}"), &["/bin/sleep", "infinity"]);
    let hundred = Rest::of((0..100).map(asleep));
    figure("rest_switches", hundred.switches as f64);
    figure("rest_cpu_ms", hundred.cpu.as_secs_f64() * 1e3);
    figure("rest_pss_mib", hundred.pss as f64 / KIB / KIB);
    let thousand = Rest::of((0..1000).map(asleep));
    let more = thousand.pss.saturating_sub(hundred.pss) as f64;
    figure("pss_kib_per_service", more / KIB / 900.0);
    let echo = |number: usize| probe(&format!("echo-{number}"), "echo", &[]).with_session();
    let services = Rest::of((0..100).map(echo));
    figure("sdk_rest_switches", services.switches as f64);
    figure("sdk_rest_cpu_ms", services.cpu.as_secs_f64() * 1e3);
    figure("sdk_rest_pss_mib", services.pss as f64 / KIB / KIB);
}

/// What keeper and core used.
struct Rest {
    switches: u64,
    cpu: Duration,
    pss: u64,
}

impl Rest {
    fn of(entries: impl Iterator<Item = Entry>) -> Self {
        let watchdog = TestWatchdog::run(&entries.collect::<Vec<_>>());
        watchdog.until("all are ready", Seen::all_ready);
        let processes = [watchdog.keeper_pid(), watchdog.core().pid];
        // What a start and the look above leave to do.
        thread::sleep(Duration::from_secs(3));
        let sum = |of: fn(u32) -> u64| processes.iter().map(|pid| of(*pid)).sum::<u64>();
        let cpu = || processes.iter().map(|pid| cpu_time(*pid)).sum::<Duration>();
        let (switches_before, cpu_before) = (sum(switches), cpu());
        thread::sleep(REST);
        Self { switches: sum(switches) - switches_before, cpu: cpu() - cpu_before, pss: sum(pss) }
    }
}
