//! Does what a scenario tells it, one step at a time.

use watchdog_tests::contract::PuppetMsg;
use watchdog_tests::stage::{Memory, run};

fn main() -> std::process::ExitCode {
    run::<Memory, PuppetMsg>()
}
