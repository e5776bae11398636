//! The puppet's next release: its state has another version.

use watchdog_tests::contract::PuppetMsg;
use watchdog_tests::stage::{CountingMemory, run};

fn main() -> std::process::ExitCode {
    run::<CountingMemory, PuppetMsg>()
}
